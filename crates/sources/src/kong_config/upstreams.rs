//! Upstreams: their targets are endpoints of Services, and their load balancing is a KongUpstreamPolicy.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::EntityFields;
use super::host_header::with_port;
use super::model::{Entity, EntityIndex, EntityKind};
use super::names::Names;
use super::objects::Draft;

/// What became of an upstream.
#[derive(Default)]
pub(super) struct UpstreamPlan {
    /// Each target that gets requests, in the order of the file.
    pub(super) targets: Vec<TargetAddress>,
    /// The name of its policy, if it has settings.
    pub(super) policy: Option<String>,
    pub(super) draft: Option<Draft>,
    /// The position of the certificate that its targets require, for services that have none of their own.
    pub(super) client_certificate: Option<usize>,
    host_header: Option<String>,
    /// Those of `targets`.
    weights: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetAddress {
    pub(super) host: String,
    pub(super) port: i64,
}

impl TargetAddress {
    /// With its port, whatever the default of a protocol is.
    pub(super) fn with_port(&self) -> String {
        let TargetAddress { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl UpstreamPlan {
    /// The weights of the targets as in the annotation of a Service; `None` if all have the same.
    pub(super) fn endpoint_weights(&self) -> Option<String> {
        let first = self.weights.first()?;
        if self.weights.iter().all(|weight| weight == first) {
            return None;
        }
        let entry = |(target, weight): (&TargetAddress, &i64)| format!("{}={weight}", target.with_port());
        Some(self.targets.iter().zip(&self.weights).map(entry).collect::<Vec<_>>().join(","))
    }

    /// The values of `Host` that Kong sends to the targets.
    pub(super) fn host_headers(&self, protocol: &str) -> Vec<String> {
        let host = |target: &TargetAddress| {
            with_port(self.host_header.as_deref().unwrap_or(&target.host), target.port, protocol)
        };
        self.targets.iter().map(host).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

pub(super) fn plan(
    upstreams: Vec<Entity<'_>>,
    targets: Vec<Entity<'_>>,
    index: &EntityIndex,
    names: &mut Names,
) -> Vec<UpstreamPlan> {
    let mut plans: Vec<UpstreamPlan> = Vec::new();
    for mut upstream in upstreams {
        plans.push(plan_upstream(&mut upstream, index, names));
        upstream.fields.finish();
    }
    for mut target in targets {
        let parent = target.parent(EntityKind::Upstream, index);
        let fields = &mut target.fields;
        let weight = fields.number("weight", 0, 65_535).unwrap_or(100);
        let is_alternative = fields.flag("failover") == Some(true);
        if is_alternative {
            let message = "a target that gets requests only if no other one can, which no upstream has here";
            let remedy = "convert the file, and write a BackendPolicy with failover";
            fields.findings.leave_out(fields.field("failover"), message, remedy);
        }
        let text = fields.text("target");
        let address = text.as_deref().and_then(parse_target);
        if address.is_none() {
            fields.reject_missing("target", "this is not the address of a target", "write host:port");
        }
        if parent.is_none() {
            fields.findings.reject(&fields.path, "this target has no upstream", "nest it in an upstream");
        }
        target.fields.finish();
        let (Some(parent), Some(address)) = (parent, address) else { continue };
        let plan = &mut plans[parent];
        if weight > 0 && !is_alternative && !plan.targets.contains(&address) {
            plan.targets.push(address);
            plan.weights.push(weight);
        }
    }
    plans
}

/// `host[:port]`; the port is 8000 if it is missing, as in Kong.
fn parse_target(text: &str) -> Option<TargetAddress> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(TargetAddress { host: address.ip().to_string(), port: i64::from(address.port()) });
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        return Some(TargetAddress { host: address.to_string(), port: DEFAULT_TARGET_PORT });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, i64::from(port.parse::<u16>().ok()?)),
        None => (text, DEFAULT_TARGET_PORT),
    };
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    is_name.then(|| TargetAddress { host: host.to_ascii_lowercase(), port })
}

fn plan_upstream(upstream: &mut Entity<'_>, index: &EntityIndex, names: &mut Names) -> UpstreamPlan {
    let path = upstream.path().to_owned();
    let findings = upstream.fields.findings;
    let is_host = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        name.bytes().all(is_allowed) && name.parse::<std::net::IpAddr>().is_err()
    };
    if let Some(name) = upstream.name.as_deref().filter(|name| !is_host(name)) {
        let message = format!("{name:?} is not the name of an upstream");
        findings.reject(upstream.fields.field("name"), message, "write a DNS name without a port");
    }
    let Some(label) = upstream.name.clone() else {
        upstream.reject_unnamed("the upstream has no name", "write the name that services have as their host");
        return UpstreamPlan::default();
    };
    let fields = &mut upstream.fields;
    let host_header = fields.text("host_header");
    let mut spec = read_balancing(fields);
    if let Some(checks) = fields.object("healthchecks") {
        let field = fields.field("healthchecks");
        let checks = read_checks(EntityFields::new(field, Value::Object(checks), None, findings));
        if !checks.is_empty() {
            spec.insert("healthchecks".to_owned(), Value::Object(checks));
        }
    }
    let client_certificate = fields
        .reference("client_certificate")
        .and_then(|reference| index.resolve(EntityKind::Certificate, &reference, findings));
    if fields.flag("use_srv_name") == Some(true) {
        let field = fields.field("use_srv_name");
        findings.leave_out(field, "use_srv_name of upstreams has no effect", "remove it");
    }
    let (policy, draft) = match spec.is_empty() {
        true => (None, None),
        false => {
            let name = names.name("KongUpstreamPolicy", &label);
            let draft = Draft::new("configuration.konghq.com/v1beta1", "KongUpstreamPolicy", &name, &path)
                .with("spec", Value::Object(spec));
            (Some(name), Some(draft))
        }
    };
    UpstreamPlan { policy, draft, client_certificate, host_header, ..UpstreamPlan::default() }
}

fn read_balancing(fields: &mut EntityFields<'_>) -> Map<String, Value> {
    let mut spec = Map::new();
    let mut algorithm = fields.text("algorithm");
    // The number of slots only affects memory and rounding in Kong; the policy ignores it as well.
    if let Some(slots) = fields.number("slots", 10, 65_536) {
        spec.insert("slots".to_owned(), json!(slots));
    }
    let cookie = HashCookie { name: fields.text("hash_on_cookie"), path: fields.text("hash_on_cookie_path") };
    let hash_on =
        read_hash(fields, "hash_on", ["hash_on_header", "hash_on_query_arg", "hash_on_uri_capture"], Some(cookie));
    let names = ["hash_fallback_header", "hash_fallback_query_arg", "hash_fallback_uri_capture"];
    let fallback = read_hash(fields, "hash_fallback", names, None);
    if hash_on.is_some() && algorithm.is_none() {
        let message = "algorithm is missing, and hash_on makes it consistent-hashing here";
        fields.findings.differs(fields.field("hash_on"), message, "write algorithm: consistent-hashing");
        algorithm = Some("consistent-hashing".to_owned());
    }
    let cookie = fields.text("sticky_sessions_cookie");
    let cookie_path = fields.text("sticky_sessions_cookie_path");
    match algorithm.as_deref() {
        Some("sticky-sessions") => {
            spec.insert("hashOn".to_owned(), json!({"input": "none"}));
            if let Some(cookie) = cookie {
                let path = cookie_path.unwrap_or_else(|| "/".to_owned());
                spec.insert("stickySessions".to_owned(), json!({"cookie": cookie, "cookiePath": path}));
            }
        }
        Some("consistent-hashing") => {
            let is_cookie = hash_on.as_ref().is_some_and(|hash| hash.contains_key("cookie"));
            if let Some(hash) = hash_on {
                spec.insert("hashOn".to_owned(), Value::Object(hash));
            }
            // A missing cookie is generated, so Kong does not permit a fallback.
            if let Some(hash) = fallback.filter(|_| !is_cookie) {
                spec.insert("hashOnFallback".to_owned(), Value::Object(hash));
            }
        }
        _ => {}
    }
    if let Some(algorithm) = algorithm {
        spec.insert("algorithm".to_owned(), json!(algorithm));
    }
    spec
}

/// The cookie that requests are distributed by.
struct HashCookie {
    name: Option<String>,
    path: Option<String>,
}

/// The input of a hash. `names`: the fields with the names of a header, a query argument and a capture.
fn read_hash(
    fields: &mut EntityFields<'_>,
    name: &'static str,
    names: [&'static str; 3],
    cookie: Option<HashCookie>,
) -> Option<Map<String, Value>> {
    let [header, argument, capture] = names.map(|name| fields.text(name));
    let kind = fields.text(name)?;
    let mut hash = Map::new();
    let (key, value) = match &*kind {
        "none" => return None,
        "ip" | "consumer" | "path" => ("input", Some(kind.clone())),
        "header" => ("header", header),
        "query_arg" => ("queryArg", argument),
        "uri_capture" => ("uriCapture", capture),
        "cookie" if let Some(HashCookie { name, path }) = cookie => {
            hash.insert("cookiePath".to_owned(), json!(path.unwrap_or_else(|| "/".to_owned())));
            ("cookie", name)
        }
        "cookie" => {
            let message = "a cookie as fallback has no effect: requests without the input of the hash go to the \
                           targets in turn";
            fields.findings.differs(fields.field(name), message, "set hash_on to cookie, or use another fallback");
            return None;
        }
        other => {
            let message = format!("{other:?} is not an input of a hash");
            let remedy = "write none, consumer, ip, header, cookie, path, query_arg or uri_capture";
            fields.findings.reject(fields.field(name), message, remedy);
            return None;
        }
    };
    let Some(value) = value else {
        let message = format!("the name of the {kind} is missing");
        fields.findings.reject(fields.field(name), message, format!("add {name}_{kind}"));
        return None;
    };
    hash.insert(key.to_owned(), json!(value));
    Some(hash)
}

fn read_checks(mut fields: EntityFields<'_>) -> Map<String, Value> {
    let mut checks = Map::new();
    if let Some(threshold) = fields.decimal("threshold").filter(|threshold| *threshold > 0.0) {
        checks.insert("threshold".to_owned(), json!(threshold.round() as i64));
    }
    for name in ["active", "passive"] {
        let field = fields.field(name);
        let Some(check) = fields.object(name) else { continue };
        let check = read_check(EntityFields::new(field, Value::Object(check), None, fields.findings), name == "active");
        checks.insert(name.to_owned(), Value::Object(check));
    }
    fields.finish();
    checks
}

fn read_check(mut fields: EntityFields<'_>, is_active: bool) -> Map<String, Value> {
    let mut check = Map::new();
    for (name, key) in [
        ("type", "type"),
        ("concurrency", "concurrency"),
        ("headers", "headers"),
        ("http_path", "httpPath"),
        ("https_sni", "httpsSni"),
        ("https_verify_certificate", "httpsVerifyCertificate"),
        ("timeout", "timeout"),
    ] {
        let is_known = is_active || name == "type";
        if is_known && let Some(value) = fields.value(name) {
            let value = if name == "timeout" { whole_seconds(&fields, name, value) } else { value };
            check.insert(key.to_owned(), value);
        }
    }
    for side in ["healthy", "unhealthy"] {
        let field = fields.field(side);
        let Some(values) = fields.object(side) else { continue };
        let mut values = EntityFields::new(field, Value::Object(values), None, fields.findings);
        let mut thresholds = Map::new();
        for (name, key) in [
            ("interval", "interval"),
            ("http_statuses", "httpStatuses"),
            ("successes", "successes"),
            ("http_failures", "httpFailures"),
            ("tcp_failures", "tcpFailures"),
            ("timeouts", "timeouts"),
        ] {
            let is_known = match name {
                "interval" => is_active,
                "successes" => side == "healthy",
                "http_statuses" => true,
                _ => side == "unhealthy",
            };
            if is_known && let Some(value) = values.value(name) {
                let value = if name == "interval" { whole_seconds(&values, name, value) } else { value };
                thresholds.insert(key.to_owned(), value);
            }
        }
        values.finish();
        check.insert(side.to_owned(), Value::Object(thresholds));
    }
    fields.finish();
    check
}

/// A policy has whole seconds, and 0 would mean that nothing is checked.
fn whole_seconds(fields: &EntityFields<'_>, name: &str, value: Value) -> Value {
    let Some(seconds) = value.as_f64().filter(|seconds| seconds.fract() != 0.0 && (0.0..=65_535.0).contains(seconds))
    else {
        return value;
    };
    let message = format!("{seconds} is rounded up to whole seconds");
    fields.findings.differs(fields.field(name), message, "write a whole number");
    json!(seconds.ceil() as i64)
}

const DEFAULT_TARGET_PORT: i64 = 8000;
