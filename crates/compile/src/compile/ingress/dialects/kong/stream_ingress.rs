//! What a TCPIngress or UDPIngress compiles to: a route for each of its rules, its certificates and diagnostics.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::gateway::BackendObjectReference;
use crate::api::kong::annotations::PROTOCOLS;
use crate::api::kong::{StreamIngressBackend, TcpIngress, TcpIngressTls, UdpIngress};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::{StreamBackend, reference};
use crate::compile::certificates;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::settings::StreamProtocol;
use crate::compile::ingress::streams::guarded_route::{GuardedRoute, UnguardedStream};
use crate::compile::ingress::streams::plan::{PlannedRule, StreamIngressPlan, open_port};
use crate::compile::kong::plugins::{Plugins, StreamPluginSite};
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::reference_grants::Referrer;
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::Certificates;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::rule::{Backend, Filters, RouteFailure, RuleId, WeightedBackends};
use crate::snapshot::stream::StreamAction;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// A TCPIngress or UDPIngress.
pub(in crate::compile::ingress) struct StreamIngressSource<'a> {
    kind: Kind,
    meta: &'a Meta,
    rules: Vec<SourceRule<'a>>,
    tls: &'a [TcpIngressTls],
}

struct SourceRule<'a> {
    host: Option<&'a str>,
    port: i32,
    backend: &'a StreamIngressBackend,
}

impl<'a> From<&'a Object<TcpIngress>> for StreamIngressSource<'a> {
    fn from(ingress: &'a Object<TcpIngress>) -> Self {
        let rules = ingress.spec.rules.iter().map(|rule| SourceRule {
            host: rule.host.as_deref().filter(|host| !host.is_empty()),
            port: rule.port,
            backend: &rule.backend,
        });
        StreamIngressSource {
            kind: Kind::TcpIngress,
            meta: &ingress.meta,
            rules: rules.collect(),
            tls: &ingress.spec.tls,
        }
    }
}

impl<'a> From<&'a Object<UdpIngress>> for StreamIngressSource<'a> {
    fn from(ingress: &'a Object<UdpIngress>) -> Self {
        let rules =
            ingress.spec.rules.iter().map(|rule| SourceRule { host: None, port: rule.port, backend: &rule.backend });
        StreamIngressSource { kind: Kind::UdpIngress, meta: &ingress.meta, rules: rules.collect(), tls: &[] }
    }
}

/// Plans an object. `None` if it is of another class.
pub(in crate::compile::ingress) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    source: &StreamIngressSource<'_>,
) -> Option<StreamIngressPlan> {
    let StreamIngressSource { kind, meta, rules, tls } = source;
    if !cx.inputs.classes.serves_object(cx.store, meta, None) {
        return None;
    }
    let (mut errors, mut notes) = (Vec::new(), Vec::new());
    if meta.annotations.contains_key(PROTOCOLS) {
        let message = format!("it has no effect on a {kind}: the port decides whether connections are decrypted");
        let remedy = "remove it; TLSRoutes forward TLS connections without decrypting them";
        notes.push(Diagnostic::warning(annotation_field(PROTOCOLS), message, remedy));
    }
    let mut planner = RulePlanner {
        cx,
        plugins,
        kind: *kind,
        meta,
        planned: Vec::new(),
        upstreams: BTreeSet::new(),
        errors: UniqueDiagnostics::default(),
        notes: UniqueDiagnostics::default(),
    };
    for (index, rule) in rules.iter().enumerate() {
        planner.add(index, rule);
    }
    let RulePlanner { planned, upstreams, errors: of_rules, notes: about_rules, .. } = planner;
    errors.extend(of_rules.into_vec());
    notes.extend(about_rules.into_vec());
    let certificates = certificates_of(cx, secrets, meta, tls, &mut errors, &mut notes);
    Some(StreamIngressPlan {
        generation: meta.generation,
        created: meta.created,
        rules: planned,
        certificates,
        upstreams: upstreams.into_iter().collect(),
        errors,
        notes,
    })
}

/// Plans the rules of one object.
struct RulePlanner<'a> {
    cx: CompileContext<'a>,
    plugins: &'a Plugins,
    kind: Kind,
    meta: &'a Meta,
    planned: Vec<PlannedRule>,
    upstreams: BTreeSet<UpstreamKey>,
    errors: UniqueDiagnostics,
    notes: UniqueDiagnostics,
}

impl RulePlanner<'_> {
    fn add(&mut self, index: usize, rule: &SourceRule<'_>) {
        let field = format!("spec.rules[{index}]");
        let (port, protocol) = match self.listener(rule, &field) {
            Ok(listener) => listener,
            Err(problem) => return self.errors.push(problem),
        };
        let action = self.action(rule, protocol, &field);
        let service = ObjectKey::new(&self.meta.key.namespace, &rule.backend.service_name);
        let service = self.cx.store.services.get(&service).map(|service| &service.meta);
        let services: Vec<_> = service.map(|meta| (meta, format!("{field}.backend.serviceName"))).into_iter().collect();
        let site = StreamPluginSite {
            kind: self.kind,
            meta: self.meta,
            services: &services,
            rule: index,
            server_names: rule.host.map(str::to_owned).into_iter().collect(),
            backends: &[],
        };
        let id = RuleId { route: format!("{}/{}", self.kind, self.meta.key).into(), rule: index.to_string().into() };
        let stream = UnguardedStream { id, action, options: None };
        let GuardedRoute { route, errors, notes } = stream.guarded(self.cx, self.plugins, site);
        self.errors.extend(errors);
        self.notes.extend(notes);
        let host = HostPattern::parse(rule.host.filter(|_| protocol == StreamProtocol::Tls));
        self.planned.push(PlannedRule { port, protocol, host, route, field });
    }

    /// The port on which a rule is served, and its protocol.
    fn listener(&self, rule: &SourceRule<'_>, field: &str) -> Result<(u16, StreamProtocol), Diagnostic> {
        let transport = if self.kind == Kind::UdpIngress { TransportProtocol::Udp } else { TransportProtocol::Tcp };
        let port = u16::try_from(rule.port).ok().filter(|port| *port != 0);
        let Some(port) = port else {
            let message = format!("{} is not a port", rule.port);
            return Err(Diagnostic::error(format!("{field}.port"), message, "write a number from 1 to 65535"));
        };
        let expected = match (transport, rule.host) {
            (TransportProtocol::Udp, _) => StreamProtocol::Udp,
            (TransportProtocol::Tcp, Some(_)) => StreamProtocol::Tls,
            (TransportProtocol::Tcp, None) => StreamProtocol::Tcp,
        };
        let listeners = self.cx.inputs.ingress.streams.as_deref();
        let protocol = open_port(listeners, port, expected, &format!("{field}.port"))?;
        if expected == StreamProtocol::Tls && protocol == StreamProtocol::Tcp {
            let message = format!(
                "port {port} is not decrypted, so its connections have no server name that could match the host"
            );
            let remedy = format!("write {port}/tls in --ingress-stream-ports, or remove the host");
            return Err(Diagnostic::error(format!("{field}.host"), message, remedy));
        }
        Ok((port, protocol))
    }

    fn action(&mut self, rule: &SourceRule<'_>, protocol: StreamProtocol, field: &str) -> StreamAction {
        let target = BackendObjectReference {
            group: String::new(),
            kind: Kind::Service.name().to_owned(),
            name: rule.backend.service_name.clone(),
            namespace: None,
            port: Some(rule.backend.service_port),
        };
        let from = Referrer { kind: self.kind, namespace: &self.meta.key.namespace };
        let stream = StreamBackend { transport: protocol.transport(), is_encrypted: false };
        let field = format!("{field}.backend");
        let settings = service_annotations::for_gateway_api;
        let resolved = reference::resolve_stream(self.cx, from, &target, settings, stream, &field);
        match resolved.upstream {
            Ok(key) => drop(self.upstreams.insert(key)),
            Err((_, mut problem)) => {
                let part = problem.field.strip_prefix(&*field).and_then(|rest| match rest {
                    ".name" => Some("serviceName"),
                    ".port" => Some("servicePort"),
                    _ => None,
                });
                if let Some(part) = part {
                    problem = problem.at(format!("{field}.{part}"));
                }
                self.errors.push(problem);
            }
        }
        let backend = Backend { weight: 1, filters: Filters::default(), target: resolved.target };
        match WeightedBackends::new(vec![backend]) {
            Some(split) => StreamAction::Forward(split),
            None => StreamAction::Reset(RouteFailure::NoBackends),
        }
    }
}

/// The usable certificates. Hosts with an unusable one get the default certificate.
fn certificates_of(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    meta: &Meta,
    tls: &[TcpIngressTls],
    errors: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> HostMap<Arc<Certificates>> {
    let mut certificates = HostMap::default();
    for (index, entry) in tls.iter().enumerate() {
        let field = format!("spec.tls[{index}]");
        let Some(name) = entry.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if entry.hosts.is_empty() {
            let message = "the entry has no hosts, so the Secret is not used";
            notes.push(Diagnostic::warning(format!("{field}.hosts"), message, "list the hosts of the certificate"));
            continue;
        }
        match certificates::from_secret(cx.store, secrets, &ObjectKey::new(&meta.key.namespace, name)) {
            Ok(certificate) => {
                let of_entry = Arc::new(Certificates::new(vec![certificate]));
                for host in entry.hosts.iter().map(|host| HostPattern::parse(Some(host))) {
                    if certificates.get(&host).is_none() {
                        certificates.insert(host, Arc::clone(&of_entry));
                    }
                }
            }
            Err(mut problem) => {
                problem.message.push_str(", so its hosts use the default certificate");
                errors.push(problem.at(format!("{field}.secretName")));
            }
        }
    }
    certificates
}
