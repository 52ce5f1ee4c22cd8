//! What annotations of Kong say about a rule of an HTTPRoute: those of the route and of the Services behind it, as far as
//! the Gateway API leaves them something to say (`kong-compat.md` §2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;

use super::super::gateway::GatewayPlan;
use super::super::hostname::intersects;
use super::super::verdict::Problem;
use super::super::{Inputs, Plans};
use super::annotations::field;
use super::backend::own_host;
use super::policy;
use super::route_settings;
use super::service_settings::{self, ServiceSettings, Speech};
use crate::api::core::Service;
use crate::api::gateway::HttpRoute;
use crate::api::kong::annotations::{
    CONNECT_TIMEOUT, FORCE_SSL_REDIRECT, HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER,
    HTTPS_REDIRECT_STATUS_CODE, INGRESS_PREFIX, KONG_PREFIX, METHODS, PATH, PLUGINS, PRESERVE_HOST, PROTOCOLS,
    READ_TIMEOUT, REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE, STRIP_PATH,
    TAGS, WRITE_TIMEOUT,
};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::snapshot::host::HostPattern;
use crate::snapshot::kong::{Host, HostName, HttpsRedirect, Manner, ToHost};
use crate::snapshot::tries::Tries;
use crate::store::Store;

/// What a rule has of annotations. Without any it is as the Gateway API says, and nothing else.
#[derive(Debug, Default)]
pub(in crate::compile) struct KongRule {
    pub manner: Option<Box<Manner>>,
    pub tries: Option<Tries>,
    pub notes: Vec<Problem>,
}

/// What the annotations of a route say about all of its rules.
#[derive(Debug, Default)]
pub(in crate::compile) struct OnRoute {
    /// Besides its own hostnames.
    pub hosts: Vec<HostPattern>,
    /// Clients over TLS have to have asked for one of these; none is any.
    pub server_names: Arc<[HostName]>,
    /// How requests go on, if something is said about it.
    manner: Option<Manner>,
    /// The endpoint is asked for a host of its own, not for the client's.
    asks_own_host: bool,
    /// Why none of it can be served as somebody wrote.
    pub dropped: Vec<Problem>,
    pub notes: Vec<Problem>,
    /// Those of the notes that are about what means nothing.
    pub unheeded: Vec<Problem>,
}

impl KongRule {
    /// Has clients that have to come back over TLS be sent to where that is, which may be another port on each Gateway.
    pub(in crate::compile) fn redirect_to(&mut self, secure_ports: &BTreeSet<u16>) {
        let Some(manner) = self.manner.as_mut().filter(|manner| manner.protocols.https && !manner.protocols.http)
        else {
            return;
        };
        let usual = secure_ports.iter().find(|port| **port == HTTPS).or_else(|| secure_ports.first());
        manner.https_redirect.port = usual.copied().unwrap_or(HTTPS);
        if secure_ports.len() > 1 && manner.https_redirect.status != StatusCode::UPGRADE_REQUIRED {
            let ports: Vec<_> = secure_ports.iter().map(ToString::to_string).collect();
            let message = format!(
                "its Gateways take HTTPS on different ports, {}, and clients of all of them are sent to {}",
                ports.join(" and "),
                manner.https_redirect.port
            );
            let remedy = "give each Gateway a route of its own, or let them have HTTPS on the same port";
            self.notes.push(Problem::new("spec.parentRefs", message, remedy));
        }
    }
}

/// Reads what the rules of a route have in common.
pub(in crate::compile) fn read(inputs: &Inputs<'_>, route: &Meta) -> OnRoute {
    if !has_kongs(route) {
        return OnRoute::default();
    }
    let read = route_settings::read(route, inputs.ingress.flavor, "an HTTPRoute");
    let manner = has_any(route, ON_ROUTE).then(|| Manner {
        strip_path: read.strip_path,
        protocols: read.protocols,
        https_redirect: HttpsRedirect { status: read.https_redirect, ..HttpsRedirect::default() },
        request_buffering: read.request_buffering,
        response_buffering: read.response_buffering,
        ..Manner::default()
    });
    // What is asked of a request is written as matches here, so only this says what the rules take.
    let dropped = read.refused.into_iter().filter(|problem| problem.field == field(PROTOCOLS)).collect();
    let mut notes = read.notes;
    notes.extend(idle(route));
    let mut hosts = Vec::new();
    for alias in read.host_aliases {
        match alias {
            Host { name: name @ (HostName::Exact(_) | HostName::Below(_)), port: None } => {
                hosts.push(HostPattern::parse(Some(&name.to_string())));
            }
            other => notes.push(Problem::new(
                field(HOST_ALIASES),
                format!("{other} is no hostname of the Gateway API, so on an HTTPRoute it has no effect"),
                "write a name without port, at most with *. in front",
            )),
        }
    }
    OnRoute {
        hosts,
        server_names: read.server_names.into(),
        manner,
        asks_own_host: !read.preserve_host,
        dropped,
        notes,
        unheeded: read.unheeded,
    }
}

/// `services` are those behind the rule, each with the port that is asked; `at` is where the rule stands.
pub(in crate::compile) fn rule(
    store: &Store,
    on_route: &OnRoute,
    services: &[(&Object<Service>, u16)],
    at: &str,
) -> KongRule {
    let mut rule = KongRule::default();
    let Some((service, port)) = agreed(services, at, &mut rule.notes) else {
        rule.manner = on_route.manner.clone().map(Box::new);
        return rule;
    };
    let settings = service_settings::read(&service.meta, "a Service", false);
    if on_route.manner.is_some() || has_any(&service.meta, &[PATH, HOST_HEADER]) {
        let mut manner = on_route.manner.clone().unwrap_or_default();
        if on_route.asks_own_host {
            let is_tls = settings.protocol.is_some_and(Speech::is_tls);
            manner.host = ToHost::Named(settings.host.clone().unwrap_or_else(|| own_host(service, port, is_tls)));
            if policy::wants_host(store, &service.meta) {
                let message = format!(
                    "upstream.host_header of the KongIngress of Service {} counts only for Ingresses",
                    service.meta.key
                );
                let remedy = "write it as annotation konghq.com/host-header of the Service";
                rule.notes.push(Problem::new(format!("{at}.backendRefs"), message, remedy));
            }
        }
        manner.path = settings.path.clone();
        rule.manner = Some(Box::new(manner));
    }
    if has_any(&service.meta, &[CONNECT_TIMEOUT, WRITE_TIMEOUT, READ_TIMEOUT, RETRIES]) {
        let ServiceSettings { connect, write, read, retries, .. } = settings;
        rule.tries = Some(Tries::of_service(connect, write, read, retries));
    }
    rule
}

/// The Service whose annotations count for the rule. Of several none does, unless all of them say the same: Kong has one
/// service for all backends of a rule.
fn agreed<'s>(
    services: &[(&'s Object<Service>, u16)],
    at: &str,
    notes: &mut Vec<Problem>,
) -> Option<(&'s Object<Service>, u16)> {
    let (first, others) = services.split_first()?;
    let differs = |other: &&(&Object<Service>, u16)| said(&other.0.meta) != said(&first.0.meta);
    let Some((other, _)) = others.iter().find(differs) else { return Some(*first) };
    let message = format!(
        "Services {} and {} of one rule differ in their annotations of Kong, so of these only plugins, policies that \
         both name, and what has to do with the protocol count here",
        first.0.meta.key, other.meta.key
    );
    notes.push(Problem::new(format!("{at}.backendRefs"), message, "give both the same, or each a rule of its own"));
    None
}

fn said(meta: &Meta) -> BTreeMap<&str, &str> {
    let all = meta.annotations.iter().map(|(key, value)| (&**key, &**value));
    all.filter(|(key, _)| key.starts_with(KONG_PREFIX)).collect()
}

fn has_any(meta: &Meta, keys: &[&str]) -> bool {
    keys.iter().any(|key| meta.annotations.contains_key(*key))
}

fn has_kongs(meta: &Meta) -> bool {
    let kongs = |key: &str| key.starts_with(KONG_PREFIX) || key.starts_with(INGRESS_PREFIX);
    meta.annotations.keys().any(|key| kongs(key) && ![PLUGINS, TAGS].contains(&&**key))
}

/// What the Gateway API has fields for.
fn idle(route: &Meta) -> impl Iterator<Item = Problem> {
    let written = route.annotations.keys().map(|key| &**key);
    written.filter_map(|key| {
        let remedy = match key {
            METHODS => "write a match with a method",
            REGEX_PRIORITY => "remove it: the Gateway API says which match goes first",
            REGEX_PREFIX => "write a match with a path of type RegularExpression",
            REWRITE => "write a filter of type URLRewrite",
            HEADERS_SEPARATOR => "remove it",
            key if key.starts_with(HEADERS_PREFIX) => "write a match with headers",
            _ => return None,
        };
        let message = format!("on an {} it has no effect", Kind::HttpRoute);
        Some(Problem::new(field(key), message, remedy))
    })
}

/// The ports where clients find the hosts of a route over TLS, by the Gateways that it names: the usual one where a Gateway
/// has that, else the first.
pub(in crate::compile) fn secure_ports(
    gateways: &Plans<GatewayPlan>,
    route: &Object<HttpRoute>,
    hosts: &[HostPattern],
) -> BTreeSet<u16> {
    let parents = route.spec.parent_refs.iter().filter_map(|parent| {
        let namespace = parent.namespace.as_deref().unwrap_or(&route.meta.key.namespace);
        gateways.get(&ObjectKey::new(namespace, &parent.name))
    });
    let ports = parents.filter_map(|gateway| {
        let secure = gateway.listeners.iter().filter(|listener| listener.secure && listener.opens_port());
        let fitting = secure.filter(|listener| hosts.iter().any(|host| intersects(host, &listener.hostname)));
        fitting.map(|listener| listener.port).min_by_key(|port| (*port != HTTPS, *port))
    });
    ports.collect()
}

const HTTPS: u16 = 443;

const ON_ROUTE: &[&str] = &[
    STRIP_PATH,
    PRESERVE_HOST,
    PROTOCOLS,
    HTTPS_REDIRECT_STATUS_CODE,
    FORCE_SSL_REDIRECT,
    REQUEST_BUFFERING,
    RESPONSE_BUFFERING,
];
