//! Portico and Envoy as processes, each in front of endpoints of its own that behave alike.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::backends::{Backend, Behavior};
use crate::harness::client::{ClientResponse, Connection};
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::ports::free_port;
use crate::harness::program::{Program, root, run};
use crate::harness::site::{Site, own_address};

/// A proxy with its endpoints.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    pub(crate) backends: Vec<Backend>,
    _process: ProxyProcess,
}

enum ProxyProcess {
    Portico { _program: Program, _site: Site },
    Envoy { process: Child, _site: Site },
}

/// The configuration of both proxies.
pub(crate) struct Setup<'a> {
    /// The endpoints, and what each does.
    pub(crate) behaviors: &'a [Behavior],
    /// The fields of `spec` of a BackendPolicy, except its targets.
    pub(crate) policy: Value,
    /// Fields of Envoy's cluster.
    pub(crate) cluster: Value,
    /// Fields of Envoy's route action.
    pub(crate) action: Value,
}

impl Setup<'_> {
    /// Starts both proxies.
    pub(crate) fn start(&self) -> [Proxy; 2] {
        [self.portico(), self.envoy()]
    }

    fn backends(&self) -> Vec<Backend> {
        self.behaviors.iter().map(|behavior| Backend::start(*behavior)).collect()
    }

    fn portico(&self) -> Proxy {
        let (site, backends) = (Site::new(), self.backends());
        let mut spec = self.policy.clone();
        spec["targetRefs"] = json!([{ "group": "", "kind": "Service", "name": "web" }]);
        let policy = json!({
            "apiVersion": "portico.dev/v1alpha1",
            "kind": "BackendPolicy",
            "metadata": { "name": "web" },
            "spec": spec,
        });
        let addresses: Vec<String> = backends.iter().map(|backend| backend.address.to_string()).collect();
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "web", "annotations": { "portico.dev/address": addresses.join(",") } },
            "spec": { "ports": [{ "port": 80 }] },
        });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": "web" },
            "spec": {
                "parentRefs": [{ "name": "good" }],
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }] }],
            },
        });
        site.save("manifests/gateway.yaml", GATEWAY);
        site.save("manifests/web.yaml", &format!("{service}\n---\n{route}\n---\n{policy}\n"));
        let program = run(&site, &["--access-log", "off"]);
        program.wait_started();
        let address = site.address_of("port");
        Proxy { name: "Portico", address, backends, _process: ProxyProcess::Portico { _program: program, _site: site } }
    }

    fn envoy(&self) -> Proxy {
        let (site, backends) = (Site::new(), self.backends());
        let port = free_port(own_address());
        let socket = |address: &str, port: u16| json!({ "socket_address": { "address": address, "port_value": port } });
        let endpoints: Vec<Value> = backends
            .iter()
            .map(|backend| {
                let address = socket(&backend.address.ip().to_string(), backend.address.port());
                json!({ "endpoint": { "address": address } })
            })
            .collect();
        let mut cluster = json!({
            "name": "web",
            "type": "STATIC",
            "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        });
        merge(&mut cluster, &self.cluster);
        let mut action = json!({ "cluster": "web" });
        merge(&mut action, &self.action);
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "web",
            "route_config": { "virtual_hosts": [{
                "name": "web",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": action }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        });
        let filters = [json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })];
        let configuration = json!({ "static_resources": {
            "listeners": [{
                "name": "http",
                "address": socket(&own_address().to_string(), port),
                "filter_chains": [{ "filters": filters }],
            }],
            "clusters": [cluster],
        } });
        site.save("envoy.json", &configuration.to_string());
        let process = Command::new(envoy())
            .args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"])
            .arg(site.path("envoy.json"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("{}:{port}", own_address());
        eventually("Envoy listens", || Connection::open(&address).ok());
        Proxy { name: "Envoy", address, backends, _process: ProxyProcess::Envoy { process, _site: site } }
    }
}

impl Proxy {
    /// Sends requests one after the other, with these paths.
    pub(crate) fn get_all(&self, paths: impl IntoIterator<Item = String>) -> Vec<ClientResponse> {
        let mut connection = Connection::open(&self.address).unwrap();
        paths.into_iter().map(|path| connection.get("web.example", &path).unwrap()).collect()
    }

    /// Sends this number of requests one after the other, and returns how many responses have the status.
    pub(crate) fn count_status(&self, requests: usize, status: u16) -> usize {
        count_status(&self.address, requests, status)
    }

    /// The requests that each endpoint has got.
    pub(crate) fn requests(&self) -> Vec<usize> {
        self.backends.iter().map(Backend::requests).collect()
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        if let ProxyProcess::Envoy { process, .. } = self {
            // It may have ended.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Sends this number of requests to a proxy, one after the other, and returns how many responses have the status.
pub(crate) fn count_status(address: &str, requests: usize, status: u16) -> usize {
    let mut connection = Connection::open(address).unwrap();
    let responses = (0..requests).map(|_| connection.get("web.example", "/").unwrap());
    responses.filter(|response| response.status == status).count()
}

/// The program, which the script installs if it is missing.
fn envoy() -> String {
    let output = Command::new("bash").arg(root().join("scripts/envoy.sh")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/envoy.sh: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Adds the fields of an object to another one.
fn merge(object: &mut Value, more: &Value) {
    let fields = more.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    object.as_object_mut().unwrap().extend(fields);
}
