//! Objects that measurements give to Portico: routes, a Service, a policy, plugins and a consumer, each as a YAML
//! document.

use std::net::SocketAddr;

use super::{CACHE_HOST, H2C_HOST, WEBSOCKET_HOST};

/// The plugins of chains, which have the first ones.
pub(crate) const CHAIN: &[&str] = &[
    "key-auth",
    "rate-limiting",
    "correlation-id",
    "request-transformer",
    "response-transformer",
    "cors",
    "ip-restriction",
    "bot-detection",
];

/// The key of the consumer, with the usual length.
pub(crate) const API_KEY: &str = "b3a1c6f2d94e4f0f8a7b5c3d2e1f0a9b";

/// A BackendPolicy that has all blocks, none of which changes what happens to requests while the backend works.
pub(crate) const POLICY: &str = "---
apiVersion: portico.dev/v1alpha1
kind: BackendPolicy
metadata:
  name: backend
spec:
  targetRefs:
    - { group: '', kind: Service, name: backend }
  loadBalancing:
    algorithm: LeastRequests
    slowStart: { window: 30s }
  health:
    passive: { serverErrors: 5, successRate: {}, failurePercentage: {} }
    active: { type: TCP, interval: 10s }
  limits:
    maxConnections: 10000
    maxRequests: 10000
    maxPending: 1000
    queueTimeout: 1s
    maxRequestsPerEndpoint: 10000
    maxRetries: 100
    maxConnectionAge: 1h
    admission: {}
  circuitBreaker: { slowAfter: 10s, slowPercent: 50 }
  retry: { attempts: 2, 'on': [ConnectFailure, RefusedStream, GatewayError] }
  retryBudget: { percent: 20 }
  timeouts: { connect: 5s, request: 60s, backendRequest: 30s }
";

/// An HTTPRoute for all requests to a host.
pub(crate) struct HostRoute<'a> {
    pub(crate) name: &'a str,
    pub(crate) host: &'a str,
    pub(crate) plugins: &'a [&'a str],
    pub(crate) service: &'a str,
    /// The filters, as the items of a list.
    pub(crate) filters: &'a str,
}

impl HostRoute<'_> {
    pub(crate) fn to_yaml(&self) -> String {
        let HostRoute { name, host, plugins, service, filters } = self;
        let annotations = annotations(plugins);
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  parentRefs:
    - name: bench
  hostnames: [{host}]
  rules:
    - backendRefs:
        - name: {service}
          port: 80
      filters: [{filters}]
"
        )
    }
}

/// A route for WebSocket messages, one whose responses are stored, and a route with its Service for requests that the
/// backend receives over HTTP/2 without TLS.
pub(crate) fn protocol_objects(backend: SocketAddr) -> String {
    let route = |name, host, service| HostRoute { name, host, plugins: &[], service, filters: "" }.to_yaml();
    let service = format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: h2c
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 80
      targetPort: {}
      appProtocol: kubernetes.io/h2c
",
        backend.port()
    );
    let cache = ["proxy-cache"];
    let cached = HostRoute { name: "cache", host: CACHE_HOST, plugins: &cache, service: "backend", filters: "" };
    route("websocket", WEBSOCKET_HOST, "backend")
        + &route("h2c", H2C_HOST, "h2c")
        + &service
        + &cached.to_yaml()
        + &plugins(&cache)
}

/// The annotation that attaches plugins to a route, or nothing without plugins.
pub(crate) fn annotations(plugins: &[&str]) -> String {
    if plugins.is_empty() { String::new() } else { format!("konghq.com/plugins: \"{}\"", plugins.join(",")) }
}

/// A KongPlugin for each of these plugins, with the name of the plugin.
pub(crate) fn plugins(names: &[&str]) -> String {
    let object = |name: &&str| {
        let config = config(name);
        format!(
            "---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata:
  name: {name}
plugin: {name}
config: {config}
"
        )
    };
    names.iter().map(object).collect()
}

/// The configuration of a plugin, with which it lets every request of a measurement pass.
fn config(plugin: &str) -> &'static str {
    match plugin {
        // The limit exceeds the load, so that all requests are counted and none is rejected.
        "rate-limiting" => "{minute: 100000000, policy: local}",
        "jwt" => "{claims_to_verify: [exp]}",
        "proxy-cache" => "{strategy: memory, content_type: [application/octet-stream], cache_ttl: 3600}",
        "request-transformer" => r#"{add: {headers: ["x-plan:basic"]}}"#,
        "response-transformer" => r#"{add: {headers: ["x-frame-options:DENY"]}}"#,
        "cors" => r#"{origins: ["https://shop.example"]}"#,
        "ip-restriction" => "{allow: [127.0.0.0/8]}",
        _ => "{}",
    }
}

/// A consumer with these Secrets as credentials, and the Secret `bench-key` with [`API_KEY`].
pub(crate) fn consumer(credentials: &[&str]) -> String {
    let credentials = credentials.join(", ");
    format!(
        "---
apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata:
  name: bench
  annotations:
    kubernetes.io/ingress.class: portico
username: bench
credentials: [{credentials}]
---
apiVersion: v1
kind: Secret
metadata:
  name: bench-key
  labels:
    konghq.com/credential: key-auth
stringData:
  key: {API_KEY}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_with_plugins_have_the_annotation() {
        let cases: [(&[&str], &str); 3] = [
            (&[], "\n  annotations: {}\n"),
            (&["cors"], "\n  annotations: {konghq.com/plugins: \"cors\"}\n"),
            (&["cors", "jwt"], "\n  annotations: {konghq.com/plugins: \"cors,jwt\"}\n"),
        ];
        for (plugins, expected) in cases {
            let route = HostRoute { name: "a", host: "a.example", plugins, service: "backend", filters: "" };
            let yaml = route.to_yaml();
            assert!(yaml.contains(expected), "{expected} is missing in {yaml}");
        }
    }

    #[test]
    fn requests_of_other_protocols_have_routes_and_a_service() {
        let objects = protocol_objects(([127, 0, 0, 1], 4000).into());
        let documents: Vec<&str> = objects.split("---\n").collect();
        let expected = [
            &["kind: HTTPRoute\n", "hostnames: [websocket.bench.example]\n", "name: backend\n"],
            &["kind: HTTPRoute\n", "hostnames: [h2c.bench.example]\n", "name: h2c\n"],
            &["kind: Service\n", "targetPort: 4000\n", "appProtocol: kubernetes.io/h2c\n"],
            &["kind: HTTPRoute\n", "konghq.com/plugins: \"proxy-cache\"", "name: backend\n"],
            &["kind: KongPlugin\n", "plugin: proxy-cache\n", "name: proxy-cache\n"],
        ];
        assert_eq!(documents.len(), 1 + expected.len(), "{objects}");
        for (document, parts) in documents[1..].iter().zip(expected) {
            assert!(parts.iter().all(|part| document.contains(part)), "{document}");
        }
    }

    #[test]
    fn each_plugin_of_the_chain_has_an_object_of_its_own() {
        let objects = plugins(CHAIN);
        assert_eq!(objects.matches("\nkind: KongPlugin\n").count(), CHAIN.len());
        for plugin in CHAIN {
            assert!(objects.contains(&format!("\n  name: {plugin}\nplugin: {plugin}\n")), "{plugin} is missing");
        }
    }
}
