//! What annotations of Kong say about a rule of an HTTPRoute: those of the route and of the Services behind it, as far as
//! the Gateway API leaves them something to say (`kong-compat.md` §2).

use std::collections::BTreeMap;

use http::HeaderValue;

use super::super::Inputs;
use super::super::verdict::Problem;
use super::annotations::field;
use super::route_settings;
use super::service_settings::{self, ServiceSettings, Speech};
use crate::api::kong::annotations::{
    CONNECT_TIMEOUT, FORCE_SSL_REDIRECT, HEADERS_PREFIX, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE,
    INGRESS_PREFIX, KONG_PREFIX, METHODS, PATH, PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT,
    REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, SERVICE_UPSTREAM, SNIS, STRIP_PATH,
    TAGS, WRITE_TIMEOUT,
};
use crate::api::{Kind, Meta};
use crate::plugin::chain::Protocols;
use crate::snapshot::kong::{HttpsRedirect, Manner, ToHost};
use crate::snapshot::tries::Tries;

/// What a rule has of annotations. Without any it is as the Gateway API says, and nothing else.
#[derive(Debug, Default)]
pub(in crate::compile) struct KongRule {
    pub manner: Option<Box<Manner>>,
    pub tries: Option<Tries>,
    /// Why the rule cannot be served as somebody wrote.
    pub dropped: Vec<Problem>,
    pub notes: Vec<Problem>,
}

/// `services` are those behind the rule, each with the port that is asked; `at` is where the rule stands.
pub(in crate::compile) fn read(inputs: &Inputs<'_>, route: &Meta, services: &[(&Meta, u16)], at: &str) -> KongRule {
    let mut rule = KongRule::default();
    let on_route = has_any(route, ON_ROUTE);
    let service = agreed(services, at, &mut rule.notes);
    let settings = service.map(|(meta, _)| service_settings::read(meta, "a Service"));
    if let (Some((meta, _)), Some(settings)) = (service, &settings) {
        speech(meta, settings, at, &mut rule);
    }
    let on_service = service.is_some_and(|(meta, _)| has_any(meta, &[PATH, HOST_HEADER]));
    if has_kongs(route) {
        let read = route_settings::read(route, inputs.ingress.flavor, "an HTTPRoute");
        rule.notes.extend(read.notes.iter().cloned());
        rule.notes.extend(idle(route));
    }
    if on_route || on_service {
        let read = route_settings::read(route, inputs.ingress.flavor, "an HTTPRoute");
        let says_protocols = has_any(route, &[PROTOCOLS, FORCE_SSL_REDIRECT]);
        let mut manner = Manner {
            strip_path: read.strip_path,
            protocols: if says_protocols { read.protocols } else { Protocols::ALL },
            https_redirect: HttpsRedirect { status: read.https_redirect, ..HttpsRedirect::default() },
            request_buffering: read.request_buffering,
            response_buffering: read.response_buffering,
            ..Manner::default()
        };
        if let (Some(((meta, port), settings)), false) = (service.zip(settings.as_ref()), read.preserve_host) {
            manner.host = ToHost::Named(settings.host.clone().unwrap_or_else(|| own_host(meta, port)));
        }
        if let Some(settings) = &settings {
            manner.path = settings.path.clone();
        }
        rule.manner = Some(Box::new(manner));
    }
    let timed =
        service.is_some_and(|(meta, _)| has_any(meta, &[CONNECT_TIMEOUT, WRITE_TIMEOUT, READ_TIMEOUT, RETRIES]));
    rule.tries = settings.filter(|_| timed).map(|settings| {
        let ServiceSettings { connect, write, read, retries, .. } = settings;
        Tries::of_service(connect, write, read, retries)
    });
    rule
}

/// The Service whose annotations count for the rule. Of several none does, unless all of them say the same: Kong has one
/// service for all backends of a rule.
fn agreed<'m>(services: &[(&'m Meta, u16)], at: &str, notes: &mut Vec<Problem>) -> Option<(&'m Meta, u16)> {
    let (first, others) = services.split_first()?;
    let differs = |other: &&(&Meta, u16)| said(other.0) != said(first.0);
    let Some((other, _)) = others.iter().find(differs) else { return Some(*first) };
    let message = format!(
        "Services {} and {} of one rule differ in their annotations of Kong, so of these only plugins and policies count \
         here",
        first.0.key, other.key
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

/// Conditions are written as matches here.
fn idle(route: &Meta) -> impl Iterator<Item = Problem> {
    let written = route.annotations.keys().map(|key| &**key);
    let conditions = [METHODS, SNIS, HOST_ALIASES, REGEX_PRIORITY, REGEX_PREFIX];
    let idle = written.filter(move |key| conditions.contains(key) || key.starts_with(HEADERS_PREFIX));
    idle.map(|key| {
        let message = format!("on an {} it has no effect", Kind::HttpRoute);
        Problem::new(field(key), message, "write hostnames and matches")
    })
}

/// What the Service is to be spoken to in: the Gateway API has a field of its own for that.
fn speech(meta: &Meta, settings: &ServiceSettings, at: &str, rule: &mut KongRule) {
    let on = |annotation: &str| format!("annotation {annotation} of Service {}", meta.key);
    match settings.protocol {
        None | Some(Speech::Http) => {}
        Some(Speech::Grpc) => rule.notes.push(Problem::new(
            format!("{at}.backendRefs"),
            format!("{} has no effect for HTTPRoutes", on(PROTOCOL)),
            "write appProtocol: kubernetes.io/h2c at the port of the Service",
        )),
        Some(Speech::Tls | Speech::Stream) => rule.dropped.push(Problem::new(
            format!("{at}.backendRefs"),
            format!("{} names a protocol that this version cannot speak, so nothing is sent there", on(PROTOCOL)),
            "set it to http or ws if the Service speaks that",
        )),
    }
    if settings.whole {
        let message = format!("{} has no effect for HTTPRoutes", on(SERVICE_UPSTREAM));
        rule.notes.push(Problem::new(
            format!("{at}.backendRefs"),
            message,
            "requests go to the endpoints; remove it, if that will do",
        ));
    }
}

fn own_host(meta: &Meta, port: u16) -> HeaderValue {
    let suffix = if port == 80 { String::new() } else { format!(":{port}") };
    let host = format!("{}.{}.{port}.svc{suffix}", meta.key.name, meta.key.namespace);
    HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("localhost"))
}

const ON_ROUTE: &[&str] = &[
    STRIP_PATH,
    PRESERVE_HOST,
    PROTOCOLS,
    HTTPS_REDIRECT_STATUS_CODE,
    FORCE_SSL_REDIRECT,
    REQUEST_BUFFERING,
    RESPONSE_BUFFERING,
];
