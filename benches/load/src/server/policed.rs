//! Portico and Envoy in front of several endpoints of one Service, with a policy for them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::variant::ServerVariant;
use super::{Server, free_address, pinned, start};

/// What both proxies have in common.
#[derive(Clone, Copy)]
pub(crate) struct Policed<'a> {
    pub(crate) name: &'static str,
    pub(crate) folder: &'a Path,
    pub(crate) core: usize,
    pub(crate) endpoints: &'a [SocketAddr],
    /// A multiple of the rules of a route, or fewer: the rule with the number 3 has the path `/r3`.
    pub(crate) rules: usize,
}

/// As many rules as an HTTPRoute may have.
const RULES_OF_A_ROUTE: usize = 16;

impl Policed<'_> {
    /// Portico with a BackendPolicy with these fields besides its targets, or without a policy if there are none.
    pub(crate) fn portico(&self, binary: &Path, policy: &Value) -> Result<Server> {
        let address = free_address()?;
        let folder = self.folder.join(self.name);
        let manifests = folder.join("manifests");
        fs::create_dir_all(&manifests)?;
        let objects: Vec<String> = self.objects(address.port(), policy).iter().map(Value::to_string).collect();
        fs::write(manifests.join("all.yaml"), objects.join("\n---\n"))?;
        let mut command = pinned(&[self.core], binary);
        command.args(["run", "--admin-listen", "off", "--status-listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(["--access-log", "off", "--manifests"]).arg(&manifests);
        start(self.name, ServerVariant::PLAIN, (address, address), command, folder.join("output"))
    }

    fn objects(&self, port: u16, policy: &Value) -> Vec<Value> {
        let addresses: Vec<String> = self.endpoints.iter().map(SocketAddr::to_string).collect();
        let mut objects = vec![
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GatewayClass",
                "metadata": { "name": "portico" },
                "spec": { "controllerName": "portico.dev/gateway-controller" },
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": { "name": "bench" },
                "spec": {
                    "gatewayClassName": "portico",
                    "listeners": [{ "name": "http", "port": port, "protocol": "HTTP" }],
                },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": "web", "annotations": { "portico.dev/address": addresses.join(",") } },
                "spec": { "ports": [{ "port": 80 }] },
            }),
        ];
        let paths: Vec<String> = rule_paths(self.rules).collect();
        for (number, paths) in paths.chunks(RULES_OF_A_ROUTE).enumerate() {
            let rule = |path: &String| {
                json!({
                    "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
                    "backendRefs": [{ "name": "web", "port": 80 }],
                })
            };
            objects.push(json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": { "name": format!("web-{number}") },
                "spec": {
                    "parentRefs": [{ "name": "bench" }],
                    "rules": paths.iter().map(rule).collect::<Vec<_>>(),
                },
            }));
        }
        if !policy.is_null() {
            let mut spec = policy.clone();
            spec["targetRefs"] = json!([{ "group": "", "kind": "Service", "name": "web" }]);
            objects.push(json!({
                "apiVersion": "portico.dev/v1alpha1",
                "kind": "BackendPolicy",
                "metadata": { "name": "web" },
                "spec": spec,
            }));
        }
        objects
    }

    /// Envoy with these fields of its cluster and of the action of its routes.
    pub(crate) fn envoy(&self, binary: &Path, cluster: &Value, action: &Value) -> Result<Server> {
        let address = free_address()?;
        let folder = self.folder.join(self.name);
        fs::create_dir_all(&folder)?;
        let configuration = folder.join("envoy.json");
        fs::write(&configuration, self.bootstrap(address, cluster, action).to_string())?;
        let mut command = pinned(&[self.core], binary);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(&configuration);
        start(self.name, ServerVariant::PLAIN, (address, address), command, folder.join("output"))
    }

    fn bootstrap(&self, address: SocketAddr, cluster: &Value, action: &Value) -> Value {
        let socket = |address: &SocketAddr| {
            let (host, port) = (address.ip().to_string(), address.port());
            json!({ "socket_address": { "address": host, "port_value": port } })
        };
        let endpoints: Vec<Value> =
            self.endpoints.iter().map(|endpoint| json!({ "endpoint": { "address": socket(endpoint) } })).collect();
        let mut of_cluster = json!({
            "name": "web",
            "type": "STATIC",
            "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        });
        merge(&mut of_cluster, cluster);
        let mut of_route = json!({ "cluster": "web" });
        merge(&mut of_route, action);
        let routes: Vec<Value> =
            rule_paths(self.rules).map(|path| json!({ "match": { "prefix": path }, "route": of_route })).collect();
        let filters = "type.googleapis.com/envoy.extensions.filters";
        let manager = json!({
            "@type": format!("{filters}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "web",
            "route_config": { "virtual_hosts": [{ "name": "web", "domains": ["*"], "routes": routes }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        });
        let filters = [json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })];
        json!({ "static_resources": {
            "listeners": [{
                "name": "http",
                "address": socket(&address),
                "filter_chains": [{ "filters": filters }],
            }],
            "clusters": [of_cluster],
        } })
    }
}

/// The paths of this number of rules; of one rule, that of all requests.
pub(crate) fn rule_paths(rules: usize) -> impl Iterator<Item = String> {
    (0..rules).map(move |number| if rules == 1 { "/".to_owned() } else { format!("/r{number}") })
}

fn merge(object: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_spread_over_routes() {
        let endpoints = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        for (rules, routes) in [(1, 1), (16, 1), (256, 16)] {
            let policed = Policed { name: "portico", folder: Path::new("/"), core: 0, endpoints: &endpoints, rules };
            let all = policed.objects(80, &json!({ "limits": { "maxRequests": 1 } }));
            let of_kind = |kind: &str| all.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
            assert_eq!(of_kind("HTTPRoute").len(), routes);
            let paths = of_kind("HTTPRoute").iter().map(|route| route["spec"]["rules"].as_array().unwrap().len()).sum();
            assert_eq!((rules, rule_paths(rules).count()), (paths, rules));
            let addresses = &of_kind("Service")[0]["metadata"]["annotations"]["portico.dev/address"];
            assert_eq!(addresses, "127.0.0.1:1,127.0.0.1:2");
            assert_eq!(of_kind("BackendPolicy")[0]["spec"]["limits"]["maxRequests"], 1);
            let envoy = policed.bootstrap(endpoints[0], &json!({ "lb_policy": "MAGLEV" }), &json!({}));
            assert_eq!(envoy["static_resources"]["clusters"][0]["lb_policy"], "MAGLEV");
        }
    }
}
