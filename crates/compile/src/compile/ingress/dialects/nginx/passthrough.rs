//! The annotation `ssl-passthrough`: the TLS connections of a host go to the backend of its path `/`, which decrypts
//! them.
//!
//! ```text
//!   Ingresses of a host ─ passthrough_wish.rs ─▶ host_facts.rs: for which namespace
//!                                                   ├▶ report: the Ingresses that have no effect
//!                                                   └▶ RuleBuilder::passthrough: the backend ─▶ ../../passthrough.rs
//! ```
//!
//! If requests for the host must not be forwarded, its connections are not either.

use std::collections::BTreeSet;

use super::host_facts::NginxHosts;
use super::passthrough_wish::ANNOTATION;
use super::path::written_path;
use super::rule::{RuleBuilder, RulePlace};
use super::value_reader::{ValueReader, written};
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::{PortReference, StreamBackend, find_port, find_service, stream_upstream_key};
use crate::compile::ingress::plan::PassthroughHost;
use crate::compile::ingress::streams::guarded_route::{GuardedRoute, UnguardedStream};
use crate::compile::kong::plugins::StreamPluginSite;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::rule::{Backend, BackendTarget, Filters, RouteFailure, RuleId, WeightedBackends};
use crate::snapshot::stream::StreamAction;
use crate::transport_protocol::TransportProtocol;

/// Reads the annotation, and reports the hosts for which it has no effect. `named`: those of the Ingress.
pub(super) fn report(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    named: &BTreeSet<HostPattern>,
) {
    if !reader.flag(ANNOTATION, false) {
        return;
    }
    if !cx.inputs.ingress.nginx_ssl_passthrough {
        let remedy = "run Portico with --nginx-ssl-passthrough, or remove it";
        return reader.note(ANNOTATION, "--nginx-ssl-passthrough is not set", remedy);
    }
    for host in named.iter().filter(|host| hosts.belongs_to(host, ingress)) {
        if !matches!(host, HostPattern::Exact(_)) {
            let message = match host {
                HostPattern::Any => "a rule has no host".to_owned(),
                host => format!("{host} is not the name of one host"),
            };
            reader.warn(ANNOTATION, format!("{message}, so it has no effect for it"), "use it with exact hosts only");
        } else if !is_in_effect(hosts, ingress, host) {
            let message = format!("{host} belongs to another namespace, whose Ingress is older, so it has no effect");
            reader.warn(ANNOTATION, message, "use a host of your own, or remove the annotation");
        }
    }
}

/// Whether the TLS connections of a host pass through, and the namespace of an Ingress decides about that.
fn is_in_effect(hosts: &NginxHosts, ingress: &Object<Ingress>, host: &HostPattern) -> bool {
    hosts.passes_through_for(host) == Some(&ingress.meta.key.namespace)
}

/// The backend of the path `/` of a host, with its field. `true` if the path is written in the Ingress, and not only
/// that of its default backend.
fn root_backend<'i>(ingress: &'i Ingress, host: &HostPattern) -> Option<(bool, &'i IngressBackend, String)> {
    let rules = ingress.spec.rules.iter().enumerate();
    let of_host = rules.filter(|(_, rule)| HostPattern::parse(rule.host.as_deref()) == *host);
    let mut roots: Vec<_> = of_host
        .flat_map(|(rule_index, rule)| {
            let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
            paths.map(move |(index, path)| (path, format!("spec.rules[{rule_index}].http.paths[{index}].backend")))
        })
        .filter(|(path, _)| written_path(path.path.as_deref()) == "/")
        .collect();
    // A prefix comes before an exact path.
    roots.sort_by_key(|(path, _)| path.path_type.as_deref() == Some("Exact"));
    let written = roots.into_iter().next().map(|(path, field)| (true, &path.backend, field));
    let default = || Some((false, ingress.spec.default_backend.as_ref()?, "spec.defaultBackend".to_owned()));
    written.or_else(default)
}

impl RuleBuilder<'_> {
    /// Where the TLS connections of a host go. `None` if they do not pass through, or if the Ingress has no backend for
    /// them.
    pub(super) fn passthrough(&mut self, place: RulePlace<'_>) -> Option<PassthroughHost> {
        let (host, ingress) = (place.host, self.ingress);
        let namespace = self.hosts.passes_through_for(host)?;
        self.report_limits_of(host, *namespace == ingress.meta.key.namespace);
        if !is_in_effect(self.hosts, ingress, host) {
            return None;
        }
        let Some((is_written, backend, field)) = root_backend(ingress, host) else {
            if written(&ingress.meta, ANNOTATION).is_some() {
                let message =
                    format!("the Ingress has no path / for {host}, whose backend would get its TLS connections");
                let remedy = "add the path / to this Ingress, unless another one of the namespace has it";
                let note = Diagnostic::warning("spec.rules", message, remedy);
                self.notes.push(note.with_topic(Topic::Annotation));
            }
            return None;
        };
        let closed = place.facts.is_closed.then_some(RouteFailure::UnsupportedProtection);
        let backend = match self.failure.or(closed) {
            Some(failure) => Err(failure),
            None => self.stream_backend(backend, &field),
        };
        let action = match backend {
            Ok(backend) => WeightedBackends::new(vec![backend])
                .map_or(StreamAction::Reset(RouteFailure::NoBackends), StreamAction::Forward),
            Err(failure) => StreamAction::Reset(failure),
        };
        let site = StreamPluginSite {
            kind: Kind::Ingress,
            meta: &ingress.meta,
            services: &[],
            rule: 0,
            server_names: vec![host.to_string()],
            backends: &[],
        };
        let id = RuleId { route: self.route(), rule: format!("passthrough {host}").into() };
        let stream = UnguardedStream { id, action, options: None };
        let GuardedRoute { route, errors, notes } = stream.guarded(self.cx, self.plugins, site);
        self.errors.extend(errors);
        self.notes.extend(notes);
        Some(PassthroughHost { host: host.clone(), is_written, route })
    }

    /// The backend of the connections. Why it cannot be used is reported with the rule of its path.
    fn stream_backend(&mut self, backend: &IngressBackend, field: &str) -> Result<Backend, RouteFailure> {
        let service = self.service(self.annotations.via_cluster_ip);
        let resolved = service.resolve(self.cx, backend, field).map_err(|(failure, _)| failure)?.key;
        let stream = StreamBackend { transport: TransportProtocol::Tcp, is_encrypted: true };
        let service = ObjectKey { namespace: resolved.namespace, name: resolved.service };
        let found = find_service(self.cx.store, &service, field).and_then(|service| {
            let port = PortReference::Number(i32::from(resolved.port));
            let port = find_port(service, port, TransportProtocol::Tcp, field)?;
            let key = stream_upstream_key(self.cx, service, &port, stream, resolved.via_cluster_ip);
            key.map_err(|_| {
                let message = format!(
                    "{} {service} cannot be used for TLS connections that pass through, so they are reset",
                    Kind::Service,
                    service = service.meta.key
                );
                Diagnostic::error(field, message, "correct its annotations about the PROXY protocol")
            })
        });
        match found {
            Ok(key) => {
                let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&key));
                self.upstreams.insert(key);
                Ok(Backend { weight: 1, filters: Filters::default(), target })
            }
            Err(problem) => {
                self.errors.push(problem);
                Err(RouteFailure::InvalidBackend)
            }
        }
    }

    /// Reports what does not apply to the TLS connections of a host. `is_own`: whether the namespace of the Ingress
    /// decided that they pass through.
    fn report_limits_of(&mut self, host: &HostPattern, is_own: bool) {
        let rules = self.ingress.spec.rules.iter().filter(|rule| HostPattern::parse(rule.host.as_deref()) == *host);
        let mut paths = rules.flat_map(|rule| &rule.http).flat_map(|http| &http.paths);
        let has_other_paths = paths.any(|path| !is_own || written_path(path.path.as_deref()) != "/");
        let what = match (has_other_paths, self.restricts(host)) {
            (true, _) => "its paths",
            (false, true) => "its annotations that restrict requests",
            (false, false) => return,
        };
        let message = format!(
            "TLS connections for {host} pass through to the backend of its path /, so {what} apply without TLS only"
        );
        let remedy = "remove annotation ssl-passthrough from the Ingress that has it, or use another host";
        self.notes.push(Diagnostic::warning("spec.rules", message, remedy).with_topic(Topic::Conflict));
    }
}
