//! The manifests of hosts that can be converted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::host_plan::{HostPlan, PathPlan};

/// The objects in a stable order: the Gateway, and for each namespace its grants, plugins and routes.
pub(super) fn of(plans: &[HostPlan]) -> Vec<Value> {
    let namespaces: BTreeSet<&str> = plans.iter().map(|plan| plan.namespace.as_str()).collect();
    let Some(first) = namespaces.first() else { return Vec::new() };
    let gateway_namespace = if namespaces.len() == 1 { first } else { SHARED_NAMESPACE };
    let mut objects = vec![gateway(gateway_namespace, &namespaces, plans)];
    for namespace in &namespaces {
        let own: Vec<&HostPlan> = plans.iter().filter(|plan| plan.namespace == *namespace).collect();
        let secrets: BTreeSet<&str> = own.iter().filter_map(|plan| plan.secret.as_deref()).collect();
        if !secrets.is_empty() && *namespace != gateway_namespace {
            objects.push(grant(namespace, gateway_namespace, &secrets));
        }
        let limits = own.iter().flat_map(|plan| &plan.paths).filter_map(|path| path.max_body_bytes);
        let limits: BTreeSet<u64> = limits.collect();
        objects.extend(limits.into_iter().map(|bytes| body_limit(namespace, bytes)));
        objects.extend(own.iter().flat_map(|plan| routes(plan, gateway_namespace)));
    }
    objects
}

fn gateway(namespace: &str, route_namespaces: &BTreeSet<&str>, plans: &[HostPlan]) -> Value {
    let from = |namespaces: Vec<&str>| {
        let expression = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces});
        json!({"namespaces": {"from": "Selector", "selector": {"matchExpressions": [expression]}}})
    };
    let mut listeners = vec![json!({
        "name": HTTP,
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": from(route_namespaces.iter().copied().collect()),
    })];
    for (plan, secret) in plans.iter().filter_map(|plan| Some((plan, plan.secret.as_ref()?))) {
        listeners.push(json!({
            "name": https_listener(&plan.host),
            "hostname": plan.host,
            "port": 443,
            "protocol": "HTTPS",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": secret, "namespace": plan.namespace}]},
            "allowedRoutes": from(vec![&plan.namespace]),
        }));
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": namespace},
        "spec": {"gatewayClassName": GATEWAY_CLASS, "listeners": listeners},
    })
}

/// Lets the Gateway read the certificates of another namespace.
fn grant(namespace: &str, gateway_namespace: &str, secrets: &BTreeSet<&str>) -> Value {
    let to: Vec<Value> = secrets.iter().map(|name| json!({"group": "", "kind": "Secret", "name": name})).collect();
    let from = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": gateway_namespace});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "ingress-nginx-certificates", "namespace": namespace},
        "spec": {"from": [from], "to": to},
    })
}

/// Rejects larger bodies by 413.
fn body_limit(namespace: &str, bytes: u64) -> Value {
    json!({
        "apiVersion": "configuration.konghq.com/v1",
        "kind": "KongPlugin",
        "metadata": {"name": limit_name(bytes), "namespace": namespace},
        "plugin": "request-size-limiting",
        "config": {"allowed_payload_size": bytes, "size_unit": "bytes"},
    })
}

fn routes(plan: &HostPlan, gateway_namespace: &str) -> Vec<Value> {
    let forwarding = |adds_strict_transport: bool| -> Vec<Value> {
        plan.paths.iter().map(|path| forwarding_rule(path, adds_strict_transport)).collect()
    };
    let plain = if plan.redirects { vec![redirect_rule()] } else { forwarding(false) };
    let mut routes = of_listener(plan, gateway_namespace, HTTP, "http", plain);
    if plan.secret.is_some() {
        let over_tls = forwarding(plan.has_strict_transport);
        routes.extend(of_listener(plan, gateway_namespace, &https_listener(&plan.host), "https", over_tls));
    }
    routes
}

/// The routes of a host at one listener: as many as its rules need.
fn of_listener(
    plan: &HostPlan,
    gateway_namespace: &str,
    listener: &str,
    suffix: &str,
    rules: Vec<Value>,
) -> Vec<Value> {
    let parts = rules.chunks(MAX_RULES).enumerate().map(|(index, rules)| {
        let number = if index == 0 { String::new() } else { format!("-{}", index + 1) };
        let parent = json!({"name": GATEWAY, "namespace": gateway_namespace, "sectionName": listener});
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": format!("{}-{suffix}{number}", plan.host), "namespace": plan.namespace},
            "spec": {"parentRefs": [parent], "hostnames": [plan.host], "rules": rules},
        })
    });
    parts.collect()
}

fn forwarding_rule(path: &PathPlan, adds_strict_transport: bool) -> Value {
    let removed = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": SET_BY_NGINX}});
    let mut filters = vec![removed];
    if let Some(bytes) = path.max_body_bytes {
        let plugin = json!({"group": "configuration.konghq.com", "kind": "KongPlugin", "name": limit_name(bytes)});
        filters.push(json!({"type": "ExtensionRef", "extensionRef": plugin}));
    }
    if adds_strict_transport {
        let set = json!([{"name": "Strict-Transport-Security", "value": STRICT_TRANSPORT}]);
        filters.push(json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": set}}));
    }
    let path_type = if path.is_exact { "Exact" } else { "PathPrefix" };
    json!({
        "matches": [{"path": {"type": path_type, "value": path.path}}],
        "filters": filters,
        "backendRefs": [{"name": path.service, "port": path.port}],
    })
}

/// All paths of a host have the same redirect, also those that no rule has.
fn redirect_rule() -> Value {
    let redirect = json!({"scheme": "https", "statusCode": 308});
    json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}],
    })
}

fn https_listener(host: &str) -> String {
    format!("https.{host}")
}

fn limit_name(bytes: u64) -> String {
    format!("ingress-nginx-body-{bytes}")
}

const GATEWAY: &str = "ingress-nginx";
const GATEWAY_CLASS: &str = "portico";
/// Where the Gateway is if routes of several namespaces need it.
const SHARED_NAMESPACE: &str = "default";
/// The listener for plain text.
const HTTP: &str = "http";
/// The most rules of an HTTPRoute.
const MAX_RULES: usize = 16;
/// What backends get from ingress-nginx only, so that they may trust it. That of clients outside of `--trusted-ips` in
/// `X-Real-IP` is removed from all requests.
const SET_BY_NGINX: &[&str] = &[
    "x-scheme",
    "x-forwarded-scheme",
    "x-original-forwarded-for",
    "ssl-client-cert",
    "ssl-client-verify",
    "ssl-client-subject-dn",
    "ssl-client-issuer-dn",
    "ssl_client_cert",
    "ssl_client_verify",
    "ssl_client_subject_dn",
    "ssl_client_issuer_dn",
];
/// The default of ingress-nginx.
const STRICT_TRANSPORT: &str = "max-age=31536000; includeSubDomains";
