//! What a host serves as routes of the Gateway API, from all Ingresses that name it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::subject::{IngressPathOf, paths};
use super::input::{GatewayApiInput, Obstacle};
use super::settings::{self, ConvertedSettings};
use crate::api::core::Service;
use crate::api::names::{ADDRESS_ANNOTATION, BALANCE_ANNOTATION, ENDPOINT_WEIGHTS_ANNOTATION};
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Object, ObjectKey};
use crate::report::migration::GatewayApiRow;

/// The Ingresses that name a host.
pub(super) struct HostGroup<'a> {
    /// In lower case; empty for rules for all hosts.
    pub(super) host: String,
    /// Sorted by namespace and name.
    pub(super) members: Vec<&'a Object<Ingress>>,
}

/// A host that can be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPlan {
    pub(super) host: String,
    pub(super) namespace: String,
    /// The Secret with its certificate, if it has TLS.
    pub(super) secret: Option<String>,
    /// Whether plain text is redirected to HTTPS.
    pub(super) redirects: bool,
    /// Whether responses over TLS have `Strict-Transport-Security`.
    pub(super) has_strict_transport: bool,
    /// Sorted; no two are equal.
    pub(super) paths: Vec<PathPlan>,
}

/// A path, and the port of a Service that gets its requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathPlan {
    pub(super) path: String,
    pub(super) is_exact: bool,
    pub(super) service: String,
    pub(super) port: i32,
    pub(super) max_body_bytes: Option<u64>,
}

impl HostPlan {
    /// Whether each request has a path.
    pub(super) fn has_root(&self) -> bool {
        self.paths.iter().any(|path| path.path == "/" && !path.is_exact)
    }
}

impl HostGroup<'_> {
    /// The plan of the host, or all that stands in its way.
    pub(super) fn plan(&self, input: &GatewayApiInput<'_>) -> Result<HostPlan, Vec<Obstacle>> {
        let mut obstacles = self.of_host(input);
        let mut all_paths = Vec::new();
        let mut redirects = BTreeSet::new();
        for member in &self.members {
            let Some(settings) = settings::of_ingress(input, member, &self.request(), &mut obstacles) else { continue };
            redirects.insert(settings.redirects);
            self.add_paths(input, member, settings, &mut all_paths, &mut obstacles);
        }
        all_paths.sort();
        let of_same_path = |pair: &[PathPlan]| (&pair[0].path, pair[0].is_exact) == (&pair[1].path, pair[1].is_exact);
        if let Some(pair) = all_paths.windows(2).find(|pair| of_same_path(pair)) {
            let reason = format!("the path {} of the host is written twice, and only one of both counts", pair[0].path);
            obstacles.extend(self.for_all("spec.rules", &reason, "remove one of both"));
        }
        let secret = match self.secret(input) {
            Ok(secret) => secret,
            Err(reason) => {
                let remedy = "list the host in spec.tls with the Secret of its certificate, in one Ingress";
                obstacles.extend(self.for_all("spec.tls", &reason, remedy));
                None
            }
        };
        if secret.is_some() && redirects.len() > 1 {
            let reason = "Ingresses of the host differ in it, and one of them decides about paths that no rule has";
            obstacles.extend(self.for_all("ssl-redirect", reason, "set it to the same value in all of them"));
        }
        let has_root = all_paths.iter().any(|path| path.path == "/" && !path.is_exact);
        if input.has_default_backend && !has_root {
            let reason = "a default backend gets the requests that no path of the host has, which would get 404";
            obstacles.extend(self.for_all("spec.rules", reason, "write the path / for this Service"));
        }
        let config = settings::of_config(input.config);
        match (self.members.first(), config) {
            (Some(first), Ok(config)) if obstacles.is_empty() => Ok(HostPlan {
                host: self.host.clone(),
                namespace: first.meta.key.namespace.to_string(),
                redirects: secret.is_some() && redirects.contains(&true),
                has_strict_transport: config.has_strict_transport,
                secret,
                paths: all_paths,
            }),
            _ => Err(obstacles),
        }
    }

    /// The rows of its Ingresses, if it is not converted.
    pub(super) fn rows(&self, obstacles: &[Obstacle]) -> Vec<GatewayApiRow> {
        let mut rows = Vec::new();
        for member in &self.members {
            let object = member.meta.key.to_string();
            let row = |obstacle: &Obstacle| GatewayApiRow {
                object: object.clone(),
                host: self.host.clone(),
                converted: false,
                field: obstacle.field.clone(),
                reason: obstacle.reason.clone(),
                request: obstacle.request.clone(),
                remedy: obstacle.remedy.clone(),
            };
            let mut own: Vec<GatewayApiRow> = Vec::new();
            for found in obstacles.iter().filter(|obstacle| obstacle.object == object).map(row) {
                if !own.contains(&found) {
                    own.push(found);
                }
            }
            if let (true, Some(other)) = (own.is_empty(), obstacles.first()) {
                let reason = format!("Ingress {} has paths of the same host and is not converted", other.object);
                let remedy = "see the row of that Ingress".to_owned();
                own.push(row(&Obstacle { field: "spec.rules".to_owned(), reason, remedy, ..other.clone() }));
            }
            rows.append(&mut own);
        }
        rows
    }

    /// An obstacle that concerns all Ingresses of the host.
    pub(super) fn for_all(&self, field: &str, reason: &str, remedy: &str) -> Vec<Obstacle> {
        let obstacles = self.members.iter().map(|member| Obstacle {
            object: member.meta.key.to_string(),
            field: field.to_owned(),
            reason: reason.to_owned(),
            request: self.request(),
            remedy: remedy.to_owned(),
        });
        obstacles.collect()
    }

    /// An example of a request.
    fn request(&self) -> String {
        self.request_of("/")
    }

    fn request_of(&self, path: &str) -> String {
        let scheme = if self.has_tls() { "https" } else { "http" };
        let host = match self.host.as_str() {
            "" => "any.example".to_owned(),
            host => host.strip_prefix('*').map_or_else(|| host.to_owned(), |rest| format!("a{rest}")),
        };
        format!("GET {scheme}://{host}{path}")
    }

    /// A section `tls` of an Ingress is for all its hosts, even if it lists others.
    fn has_tls(&self) -> bool {
        self.members.iter().any(|member| !member.spec.tls.is_empty())
    }

    /// What the name of the host, and other Ingresses, have against it.
    fn of_host(&self, input: &GatewayApiInput<'_>) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        let mut add = |field, reason: &str, remedy| obstacles.extend(self.for_all(field, reason, remedy));
        if self.host.is_empty() {
            let reason = "a rule without a host gets the requests of all hosts that no Ingress names";
            add("spec.rules[].host", reason, "write a host");
            return obstacles;
        }
        if self.host.contains('*') {
            let reason = "its wildcard is exactly one label, and that of a Gateway is one or more";
            add("spec.rules[].host", reason, "write the hosts one by one");
        } else if !is_host_name(&self.host) {
            add("spec.rules[].host", "the Gateway API does not accept the name", "write a DNS name of usual length");
        }
        let namespaces: BTreeSet<&str> = self.members.iter().map(|member| &*member.meta.key.namespace).collect();
        if namespaces.len() > 1 {
            add("metadata.namespace", "several namespaces have Ingresses for the host", "move them into one namespace");
        }
        if let Some(other) = input.of_others.get(&self.host) {
            let reason = format!("Ingress {other} of another class names the host, too");
            add("spec.rules[].host", &reason, "let only one class have the host");
        }
        let exact = Some(&self.host).filter(|host| !host.contains('*'));
        for namespace in namespaces {
            if input.with_policies.contains(namespace) {
                let reason = "a policy of the namespace may act on HTTPRoutes in another way";
                add("metadata.namespace", reason, "convert without the policies if none is for the Services");
            }
            let starts = format!("{namespace}/{}-http", self.host);
            if let Some(route) = input.routes.iter().find(|route| route.starts_with(&starts)) {
                let reason = format!("HTTPRoute {route} exists, and the manifests would replace it");
                add("spec.rules[].host", &reason, "rename that HTTPRoute");
            }
        }
        let parent = exact.and_then(|host| host.split_once('.')).map(|(_, parent)| format!("*.{parent}"));
        let hosts = input.ingresses.iter().flat_map(|ingress| ingress.spec.rules.iter());
        let mut hosts = hosts.filter_map(|rule| rule.host.as_deref());
        if parent.is_some_and(|parent| hosts.any(|host| host.eq_ignore_ascii_case(&parent))) {
            let reason = "an Ingress for a wildcard includes the host, and may decide about its redirects to HTTPS";
            add("spec.rules[].host", reason, "write the hosts of that Ingress one by one");
        }
        obstacles
    }

    fn add_paths(
        &self,
        input: &GatewayApiInput<'_>,
        ingress: &Object<Ingress>,
        settings: ConvertedSettings,
        all: &mut Vec<PathPlan>,
        obstacles: &mut Vec<Obstacle>,
    ) {
        let is_own = |path: &IngressPathOf<'_>| path.host.unwrap_or_default().eq_ignore_ascii_case(&self.host);
        for path in paths(ingress).filter(is_own) {
            let mut add = |field: String, reason: String, request: String, remedy: &str| {
                let object = ingress.meta.key.to_string();
                obstacles.push(Obstacle { object, field, reason, request, remedy: remedy.to_owned() });
            };
            let request = self.request_of(path.path);
            if let Some((reason, path_of_example, remedy)) = why_no_path(path.path) {
                let field = format!("path {:?}", path.path);
                add(field, reason.to_owned(), self.request_of(path_of_example), remedy);
            }
            match port_of(input, &ingress.meta.key.namespace, path.backend) {
                Ok((service, port)) => all.push(PathPlan {
                    path: path.path.to_owned(),
                    is_exact: path.is_exact,
                    service,
                    port,
                    max_body_bytes: settings.max_body_bytes,
                }),
                Err((reason, remedy)) => add(format!("backend of path {:?}", path.path), reason, request, remedy),
            }
        }
    }

    /// The Secret with the certificate of the host; `None` if it has no TLS. An error says why there is no single one.
    fn secret(&self, input: &GatewayApiInput<'_>) -> Result<Option<String>, String> {
        let mut listed: BTreeMap<(&str, &str), &ObjectKey> = BTreeMap::new();
        for ingress in input.ingresses {
            for tls in &ingress.spec.tls {
                if tls.hosts.iter().any(|host| host.eq_ignore_ascii_case(&self.host)) {
                    let secret = tls.secret_name.as_deref().unwrap_or_default();
                    listed.insert((&*ingress.meta.key.namespace, secret), &ingress.meta.key);
                }
            }
        }
        let own = self.members.first().map(|member| &*member.meta.key.namespace);
        match (self.has_tls(), listed.len(), listed.keys().next()) {
            (false, 0, _) => Ok(None),
            (false, ..) => Err("an Ingress without a rule for the host has its certificate".to_owned()),
            (true, 1, Some((namespace, secret))) if Some(*namespace) == own && !secret.is_empty() => {
                Ok(Some((*secret).to_owned()))
            }
            (true, 0 | 1, _) => Err("no Secret is listed for the host, so it has the default certificate".to_owned()),
            (true, ..) => Err("several Secrets are listed for the host".to_owned()),
        }
    }
}

/// Why a path has no equal, the path of an example, and a remedy.
fn why_no_path(path: &str) -> Option<(&'static str, &str, &'static str)> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let mut segments = path.split('/').skip(1);
    if path.starts_with(ACME_CHALLENGE) {
        return Some(("it is for an ACME challenge, which is never redirected", path, "wait until it is complete"));
    }
    if !path.starts_with('/') || path.len() > MAX_PATH || !path.bytes().all(is_plain) {
        return Some(("it has characters that both match in different ways", path, "write a path without them"));
    }
    if path.len() > 1 && path.ends_with('/') {
        let shorter = path.trim_end_matches('/');
        let shorter = if shorter.is_empty() { path } else { shorter };
        return Some(("nginx redirects the path without the slash at its end by 301", shorter, "remove the slash"));
    }
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    let is_odd = path.len() > 1 && segments.any(is_odd);
    is_odd.then_some(("it is not normalized", path, "write it without empty and dot segments"))
}

/// The Service and the number of the port of a backend, or why it has no equal and a remedy.
fn port_of(
    input: &GatewayApiInput<'_>,
    namespace: &str,
    backend: &IngressBackend,
) -> Result<(String, i32), (String, &'static str)> {
    let named = backend.service.as_ref().ok_or_else(|| ("it is no Service".to_owned(), "name a Service"))?;
    let key = ObjectKey::new(namespace, &named.name);
    let service = (input.service)(&key).ok_or_else(|| {
        let reason = format!("Service {key} is not in the input, so its port and protocol are unknown");
        (reason, "add Services to the input, for example by kubectl get ingress,service")
    })?;
    if let Some(annotation) = why_no_service(&service) {
        return Err((format!("{annotation} of Service {key} acts on HTTPRoutes in another way"), "remove it"));
    }
    let port = named.port.as_ref();
    let number = port.and_then(|port| port.number).filter(|number| *number != 0);
    let name = port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty());
    let mut ports = service.spec.ports.iter();
    let port = ports.find(|port| match (number, name) {
        (Some(number), _) => port.port == number,
        (None, Some(name)) => port.name == name,
        (None, None) => false,
    });
    let port = port.ok_or_else(|| {
        (format!("Service {key} has no such port, so clients get 503, and would get 500"), "correct the port")
    })?;
    if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
        return Err((format!("port {} of Service {key} is not for TCP", port.port), "name a port for TCP"));
    }
    if let Some(protocol) = port.app_protocol.as_deref().filter(|protocol| !PLAIN_HTTP.contains(protocol)) {
        let reason = format!("ingress-nginx ignores appProtocol {protocol} of Service {key}, and routes obey it");
        return Err((reason, "remove appProtocol, or set it to http"));
    }
    Ok((named.name.clone(), port.port))
}

/// The field or the annotation of a Service that Ingresses of ingress-nginx and HTTPRoutes read in different ways.
fn why_no_service(service: &Object<Service>) -> Option<String> {
    if service.spec.kind.as_deref() == Some("ExternalName") || service.spec.external_name.is_some() {
        return Some("spec.externalName".to_owned());
    }
    let is_related = |key: &str| {
        ["konghq.com/", "kubernetes.io/ingress", "ingress.kubernetes.io/", "portico.dev/"]
            .iter()
            .any(|part| key.contains(part))
    };
    let mut keys = service.meta.annotations.keys();
    let found = keys.find(|key| is_related(key) && !SAME_ANNOTATIONS.contains(&&***key));
    found.map(|key| format!("annotation {key}"))
}

/// Whether a listener and a route can have the host, and objects can be named after it.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(is_known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= MAX_HOST && host.split('.').all(is_label) && host.parse::<IpAddr>().is_err()
}

/// What solvers of ACME challenges use, without TLS.
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge";
/// The longest value of a path in an HTTPRoute.
const MAX_PATH: usize = 1_024;
/// Leaves room for what the names of objects have in addition.
const MAX_HOST: usize = 230;
const PLAIN_HTTP: &[&str] = &["http", "kubernetes.io/http", "kubernetes.io/ws"];
/// Annotations of Services with the same effect on Ingresses and HTTPRoutes.
const SAME_ANNOTATIONS: &[&str] = &[ADDRESS_ANNOTATION, BALANCE_ANNOTATION, ENDPOINT_WEIGHTS_ANNOTATION];
