//! Kong's annotations of an HTTPRoute or GRPCRoute and of its Services, as far as Gateway API has no fields for them
//! (docs/kong-compatibility.md, 2.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;

use super::route_annotations;
use super::rule_options;
use super::service_annotations;
use super::service_annotations::ServiceSettings;
use super::service_annotations::default_host;
use super::upstream_policy;
use crate::api::core::Service;
use crate::api::gateway::ParentReference;
use crate::api::kong::annotations::{
    ANNOTATION_PREFIX, CONNECT_TIMEOUT, FORCE_SSL_REDIRECT, HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES,
    HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE, INGRESS_PREFIX, METHODS, PATH, PLUGINS, PRESERVE_HOST, PROTOCOL,
    PROTOCOLS, READ_TIMEOUT, REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE,
    STRIP_PATH, TAGS, WRITE_TIMEOUT,
};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileInputs;
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::budgets::RegexBudget;
use crate::compile::gateways::listener_protocol::ListenerProtocol;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::hostname::intersects;
use crate::compile::objects::request_route::RequestRoute;
use crate::compile::parents::plans::ParentPlans;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::by_conditions::{HostCondition, HostName};
use crate::snapshot::rule_options::{HttpsRedirect, RuleOptions, UpstreamHost};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::snapshot::upstream_path::UpstreamPath;
use crate::store::Store;

/// The annotations that apply to one rule. Without any, the rule behaves as Gateway API specifies.
#[derive(Debug, Default)]
pub(in crate::compile) struct RuleAnnotations {
    pub options: Option<Box<RuleOptions>>,
    pub timeouts_and_retries: Option<TimeoutsAndRetries>,
    pub notes: Vec<Diagnostic>,
}

/// The annotations of a route, which apply to all of its rules.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct RouteAnnotations {
    /// Hosts in addition to the route's hostnames.
    pub hosts: Vec<HostPattern>,
    /// Server names that TLS clients must use; empty for any.
    pub server_names: Arc<[HostName]>,
    /// How requests are forwarded, if annotations change that.
    options: Option<RuleOptions>,
    /// Whether the backend gets a `Host` of its own instead of the client's.
    replaces_host: bool,
    /// Errors that prevent all rules from being served.
    pub dropped: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

impl RuleAnnotations {
    /// Sets the port for redirects to HTTPS, which depends on the Gateways.
    pub(in crate::compile) fn set_redirect_port(&mut self, secure_ports: &BTreeSet<u16>) {
        let Some(options) = self.options.as_mut().filter(|options| options.protocols.https && !options.protocols.http)
        else {
            return;
        };
        let redirect_port = secure_ports.iter().find(|port| **port == HTTPS_PORT).or_else(|| secure_ports.first());
        options.https_redirect.port = redirect_port.copied().unwrap_or(HTTPS_PORT);
        if secure_ports.len() > 1 && options.https_redirect.status != StatusCode::UPGRADE_REQUIRED {
            let ports: Vec<_> = secure_ports.iter().map(ToString::to_string).collect();
            let message = format!(
                "its Gateways serve HTTPS on different ports, {}, and clients of all of them are redirected to {}",
                ports.join(" and "),
                options.https_redirect.port
            );
            let remedy = "use a separate route per Gateway, or serve HTTPS on the same port";
            self.notes.push(Diagnostic::warning("spec.parentRefs", message, remedy));
        }
    }
}

/// Reads the annotations of a route.
pub(in crate::compile) fn read(
    inputs: &CompileInputs<'_>,
    regexes: &RegexBudget<'_>,
    route: &RequestRoute<'_>,
) -> RouteAnnotations {
    if !has_kong_annotations(route.meta) {
        return RouteAnnotations::default();
    }
    let object = route.described_kind();
    let settings = route_annotations::read(inputs, regexes, route.meta, route.kind, object);
    let options = has_any(route.meta, FORWARDING_ANNOTATIONS).then(|| RuleOptions {
        upstream_path: Some(UpstreamPath { strip_matched: settings.strip_path, ..UpstreamPath::default() }),
        protocols: settings.protocols,
        https_redirect: HttpsRedirect { status: settings.https_redirect, ..HttpsRedirect::default() },
        ..rule_options::defaults()
    });
    // The other errors are about annotations for headers, which have no effect on the route.
    let dropped = settings.errors.into_iter().filter(|problem| problem.field == annotation_field(PROTOCOLS)).collect();
    let mut notes = settings.notes;
    notes.extend(ineffective_annotations(route));
    let mut hosts = Vec::new();
    for alias in settings.host_aliases {
        match alias {
            HostCondition { name: name @ (HostName::Exact(_) | HostName::LeadingWildcard(_)), port: None } => {
                hosts.push(HostPattern::parse(Some(&name.to_string())));
            }
            unsupported => notes.push(Diagnostic::warning(
                annotation_field(HOST_ALIASES),
                format!("{unsupported} is not a Gateway API hostname, so it has no effect on {object}"),
                "write a name without a port, optionally with a *. prefix",
            )),
        }
    }
    RouteAnnotations {
        hosts,
        server_names: settings.server_names,
        options,
        replaces_host: !settings.preserve_host,
        dropped,
        notes,
    }
}

/// Reads the annotations that apply to one rule. `services`: the Services of the rule with their ports; `rule_field`:
/// the path of the rule.
pub(in crate::compile) fn read_rule(
    store: &Store,
    route_annotations: &RouteAnnotations,
    services: &[(&Object<Service>, u16)],
    rule_field: &str,
) -> RuleAnnotations {
    let mut rule = RuleAnnotations::default();
    let Some((service, port)) = common_service(services, rule_field, &mut rule.notes) else {
        rule.options = route_annotations.options.clone().map(Box::new);
        return rule;
    };
    let settings = service_annotations::read(&service.meta, Kind::Service, false);
    if route_annotations.options.is_some() || has_any(&service.meta, &[PATH, HOST_HEADER]) {
        let mut options = route_annotations.options.clone().unwrap_or_else(rule_options::defaults);
        if route_annotations.replaces_host {
            let is_tls = settings.protocol.is_some_and(AnnotatedProtocol::is_tls);
            options.host =
                UpstreamHost::Fixed(settings.host.clone().unwrap_or_else(|| default_host(service, port, is_tls)));
            if upstream_policy::sets_host_header(store, &service.meta) {
                let message = format!(
                    "upstream.host_header of the KongIngress of Service {} applies to Ingresses only",
                    service.meta.key
                );
                let remedy = "set annotation konghq.com/host-header of the Service";
                rule.notes.push(Diagnostic::warning(format!("{rule_field}.backendRefs"), message, remedy));
            }
        }
        if let Some(path) = &mut options.upstream_path {
            path.prefix = settings.path.clone();
        }
        rule.options = Some(Box::new(options));
    }
    if has_any(&service.meta, &[CONNECT_TIMEOUT, WRITE_TIMEOUT, READ_TIMEOUT, RETRIES]) {
        let ServiceSettings { connect_timeout: connect, write_timeout: write, read_timeout: read, retries, .. } =
            settings;
        rule.timeouts_and_retries = Some(TimeoutsAndRetries::per_attempt(connect, write, read, retries));
    }
    rule
}

/// The Service whose annotations apply to the rule: the first one. `None`, with a note, if the Services have different
/// annotations, because Kong has one service for all backends of a rule.
fn common_service<'s>(
    services: &[(&'s Object<Service>, u16)],
    rule_field: &str,
    notes: &mut Vec<Diagnostic>,
) -> Option<(&'s Object<Service>, u16)> {
    let (first, others) = services.split_first()?;
    let differs = |other: &&(&Object<Service>, u16)| kong_annotations(&other.0.meta) != kong_annotations(&first.0.meta);
    let Some((other, _)) = others.iter().find(differs) else { return Some(*first) };
    let message = format!(
        "Services {} and {} of one rule have different Kong annotations, so only their plugins, common policies and \
         protocols apply",
        first.0.meta.key, other.meta.key
    );
    let field = format!("{rule_field}.backendRefs");
    let remedy = "use the same annotations for both, or move each to a separate rule";
    notes.push(Diagnostic::warning(field.as_str(), message, remedy));
    notes.extend(different_protocols(services, &field));
    None
}

/// A warning if the Services of a rule have different protocols. In Kong, none of these would apply.
fn different_protocols(services: &[(&Object<Service>, u16)], field: &str) -> Option<Diagnostic> {
    let protocol = |service: &Object<Service>| service.meta.annotations.get(PROTOCOL).cloned();
    let described = |service: &Object<Service>| match protocol(service) {
        Some(protocol) => format!("{} has {protocol}", service.meta.key),
        None => format!("{} has none", service.meta.key),
    };
    let ((first, _), others) = services.split_first()?;
    let (other, _) = others.iter().find(|(other, _)| protocol(other) != protocol(first))?;
    let message = format!(
        "the Services of one rule differ in {PROTOCOL}: {}, and {}. Each gets requests in its own protocol, and those \
         to endpoints that do not support it get status 502",
        described(first),
        described(other)
    );
    let remedy = "set it to what the endpoints of each Service support, or remove it if that is HTTP/1.1";
    Some(Diagnostic::warning(field, message, remedy))
}

fn kong_annotations(meta: &Meta) -> BTreeMap<&str, &str> {
    let annotations = meta.annotations.iter().map(|(key, value)| (&**key, &**value));
    annotations.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect()
}

fn has_any(meta: &Meta, keys: &[&str]) -> bool {
    keys.iter().any(|key| meta.annotations.contains_key(*key))
}

fn has_kong_annotations(meta: &Meta) -> bool {
    let is_of_kong = |key: &str| key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX);
    meta.annotations.keys().any(|key| is_of_kong(key) && ![PLUGINS, TAGS].contains(&&**key))
}

/// Notes on annotations for which Gateway API has fields.
fn ineffective_annotations(route: &RequestRoute<'_>) -> impl Iterator<Item = Diagnostic> {
    let object = route.described_kind();
    let keys = route.meta.annotations.keys().map(|key| &**key);
    keys.filter_map(move |key| {
        let remedy = match key {
            METHODS => "write a match with a method",
            REGEX_PRIORITY => "remove it: Gateway API defines the precedence of matches",
            REGEX_PREFIX => "write a match with a path of type RegularExpression",
            REWRITE => "write a filter of type URLRewrite",
            HEADERS_SEPARATOR => "remove it",
            key if key.starts_with(HEADERS_PREFIX) => "write a match with headers",
            _ => return None,
        };
        let message = format!("it has no effect on {object}");
        Some(Diagnostic::warning(annotation_field(key), message, remedy))
    })
}

/// The HTTPS ports of a route's hosts, one per parent: 443 if the parent serves it, otherwise its lowest HTTPS port.
pub(in crate::compile) fn secure_ports(
    parent_plans: &ParentPlans,
    route: &ObjectKey,
    parents: &[ParentReference],
    hosts: &[HostPattern],
) -> BTreeSet<u16> {
    let parents = parents.iter().filter_map(|parent| parent_plans.parent(&route.namespace, parent));
    let ports = parents.filter_map(|parent| {
        let secure_listeners =
            parent.listeners.iter().filter(|listener| listener.protocol == ListenerProtocol::Https && listener.secure);
        let matching =
            secure_listeners.filter(|listener| hosts.iter().any(|host| intersects(host, &listener.hostname)));
        matching.map(|listener| listener.port).min_by_key(|port| (*port != HTTPS_PORT, *port))
    });
    ports.collect()
}

const HTTPS_PORT: u16 = 443;

/// The annotations that select Kong's options for a rule; without them, requests are forwarded as Gateway API
/// specifies.
const FORWARDING_ANNOTATIONS: &[&str] = &[
    STRIP_PATH,
    PRESERVE_HOST,
    PROTOCOLS,
    HTTPS_REDIRECT_STATUS_CODE,
    FORCE_SSL_REDIRECT,
    REQUEST_BUFFERING,
    RESPONSE_BUFFERING,
];

#[cfg(test)]
mod tests;
