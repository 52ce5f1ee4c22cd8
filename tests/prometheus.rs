//! Tests with a real Prometheus that scrapes Portico under load: all queries of the dashboard return data, all alert
//! rules can be evaluated, failures trigger alerts, and scrapes leak no memory. Portico runs with a fake API server, so
//! that the metrics of watches, statuses and the Lease have data, too.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::cluster::https_gateway;
use crate::fake_api_server::FakeApiServer;
use crate::harness::client::{get, try_get};
use crate::harness::eventually;
use crate::harness::objects::{route, save_good_objects};
use crate::harness::ports::free_port;
use crate::harness::program::{Program, portico, root, run};
use crate::harness::site::Site;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_queries_have_data_and_alerts_fire() {
    let (site, api) = (Site::new(), FakeApiServer::start().await);
    create_objects(&site, &api);
    let program = start(&site);
    program.wait_stderr(|log| log.contains("Became the leader").then_some(()));
    program.wait_stderr(|log| log.contains("Serving").then_some(()));
    let prometheus = Prometheus::start(&site);

    let mut without_data = dashboard_queries();
    without_data.extend(NGINX_QUERIES.iter().map(|query| (*query).to_owned()));
    let mut not_triggered =
        BTreeSet::from(["PorticoErrorRatio", "PorticoUpstreamWithoutEndpoints", "PorticoConfigurationRejected"]);
    let started = Instant::now();
    for round in 0.. {
        load(&site, round);
        without_data.retain(|query| !prometheus.has_data(query));
        let rules = prometheus.rules();
        not_triggered.retain(|alert| !rules.iter().any(|rule| rule["name"] == *alert && rule["state"] != "inactive"));
        if without_data.is_empty() && not_triggered.is_empty() {
            break;
        }
        let log = program.stderr();
        assert!(started.elapsed() < TIMEOUT, "no data for {without_data:#?}\nno alert {not_triggered:?}\n{log}");
    }

    let rules = prometheus.rules();
    let alerts = std::fs::read_to_string(root().join(ALERTS)).unwrap();
    assert_eq!(rules.len(), alerts.matches("- alert:").count(), "all rules are loaded");
    for rule in &rules {
        let (health, error) = (&rule["health"], rule["lastError"].as_str().unwrap_or_default());
        assert!(health == "ok" && error.is_empty(), "{}: {health} {error}", rule["name"]);
    }
    let must_not_fire =
        ["PorticoAbsent", "PorticoNotReady", "PorticoLeaderMissing", "PorticoReplicasDisagree", "PorticoWatchStale"];
    for rule in rules.iter().filter(|rule| must_not_fire.iter().any(|name| rule["name"] == *name)) {
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
    // A scrape may exceed its timeout of a second while the machine pauses, but each response is valid.
    eventually("the target is up", || {
        let target = prometheus.query_api("/api/v1/targets?state=active")["activeTargets"][0].clone();
        (target["health"] == "up" && target["lastError"] == "").then_some(())
    });
    let failed_in_time = "count_over_time((up == 0 and scrape_duration_seconds < 0.99)[5m:1s])";
    assert!(!prometheus.has_data(failed_in_time), "no scrape failed");
    program.stop().expect_success();
}

/// Only requests create series of a route.
#[test]
fn five_thousand_idle_routes_have_no_series() {
    let series_with = |idle_routes: usize| {
        let site = Site::new();
        save_good_objects(&site);
        let routes: Vec<_> = (0..idle_routes).map(|number| route("good", &format!("idle-{number}"), "echo")).collect();
        site.save("manifests/idle.yaml", &routes.join("---\n"));
        let program = run(&site, &["--access-log", "off", "--log-level", "error"]);
        eventually("it is ready", || is_ready(&site.address_of("status"), "/readyz").then_some(()));
        assert_eq!(get(&site.address_of("port"), "/good").status, 200);
        let metrics = get(&site.address_of("status"), "/metrics").body;
        let series: BTreeSet<String> = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect();
        assert!(metrics.contains("route=\"HTTPRoute/default/good\""), "{metrics}");
        drop(program);
        series
    };
    assert_eq!(series_with(0), series_with(5000));
}

/// Frequent scrapes must not leak memory or disturb requests. Twenty scrapes that each leaked a page of metrics would
/// exceed the limit of ten pages.
#[test]
fn frequent_scrapes_leak_no_memory() {
    const ROUTES: usize = 250;
    let site = Site::new();
    save_good_objects(&site);
    let routes: Vec<_> = (0..ROUTES).map(|number| route("good", &format!("busy-{number}"), "echo")).collect();
    site.save("manifests/busy.yaml", &routes.join("---\n"));
    let program = run(&site, &["--access-log", "off", "--log-level", "error"]);
    eventually("it is ready", || is_ready(&site.address_of("status"), "/readyz").then_some(()));
    let send_request = |route: usize| assert_eq!(get(&site.address_of("port"), &format!("/busy-{route}")).status, 200);
    (0..ROUTES).for_each(send_request);
    let page = get(&site.address_of("status"), "/metrics").body;
    let series = page.lines().filter(|line| line.contains("route=\"HTTPRoute/default/busy-")).count();
    assert_eq!(series, ROUTES * SERIES_OF_A_LABEL_SET);

    let prometheus = Prometheus::start(&site);
    let started = Instant::now();
    let resident_after = |scrapes: f64| {
        while prometheus.first_value("sum(sum_over_time(up[10m]))").is_none_or(|succeeded| succeeded < scrapes) {
            (0..ROUTES).step_by(10).for_each(send_request);
            assert!(started.elapsed() < TIMEOUT, "{}", prometheus.query_api("/api/v1/targets?state=active"));
        }
        prometheus.first_value("sum(process_resident_memory_bytes)").unwrap()
    };
    let (early_bytes, late_bytes) = (resident_after(5.0), resident_after(25.0));
    assert!(
        late_bytes - early_bytes < 10.0 * page.len() as f64,
        "{early_bytes} bytes became {late_bytes} with pages of {}",
        page.len()
    );
    drop(program);
}

/// Buckets, sum and count of the histogram, bytes in and out, and one status class.
const SERIES_OF_A_LABEL_SET: usize = 15 + 2 + 2 + 1;

const ALERTS: &str = "charts/portico/files/alerts.yaml";
const DASHBOARDS: &str = "charts/portico/dashboards";
/// Long enough for a busy machine and for the two scrapes that `rate()` needs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The queries of all panels and variables of all dashboards, with variables replaced by possible values.
fn dashboard_queries() -> Vec<String> {
    let mut queries = Vec::new();
    for file in std::fs::read_dir(root().join(DASHBOARDS)).unwrap() {
        let dashboard = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
        let targets = dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
        queries.extend(targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()));
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["query"]["query"].as_str().and_then(|query| query.strip_prefix("label_values("));
            if let Some((series, _)) = query.and_then(|query| query.rsplit_once(", ")) {
                queries.push(series.to_owned());
            }
        }
    }
    assert!(queries.len() > 50, "{} queries", queries.len());
    let with_values = |query: &String| {
        ["$job", "$route", "$backend"]
            .iter()
            .fold(query.replace("$__rate_interval", "15s"), |query, name| query.replace(name, ".*"))
    };
    let queries: Vec<String> = queries.iter().map(with_values).collect();
    assert!(queries.iter().all(|query| !query.contains('$')), "a variable was not replaced: {queries:?}");
    queries
}

/// Creates a GatewayClass, a Gateway with an HTTP and an HTTPS listener and an HTTPRoute at the fake API server, and
/// all other objects in manifests.
fn create_objects(site: &Site, api: &FakeApiServer) {
    api.allow_writes();
    let group = "gateway.networking.k8s.io/v1";
    api.serve(group, "gatewayclasses", false);
    for plural in ["gateways", "httproutes"] {
        api.serve(group, plural, true);
    }
    api.serve("coordination.k8s.io/v1", "leases", true);
    site.save("kubeconfig", &api.kubeconfig(&json!({"token": "any"})));
    api.put("namespaces", json!({"metadata": {"name": "default"}}));
    api.put(
        "gatewayclasses",
        json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}}),
    );
    api.put("gateways", https_gateway(site));
    let data = json!({"tls.crt": site.filled("@certificate@"), "tls.key": site.filled("@key@")});
    api.put(
        "secrets",
        json!({"metadata": {"namespace": "default", "name": "tls"}, "type": "kubernetes.io/tls", "data": data}),
    );
    api.put(
        "httproutes",
        json!({
            "metadata": {"namespace": "default", "name": "shop", "generation": 1},
            "spec": {"parentRefs": [{"name": "good"}], "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
                "backendRefs": [{"name": "echo", "port": 80}],
            }]},
        }),
    );
    let service = |name: &str, port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations:\n    \
             portico.dev/address: @address@\nspec:\n  ports:\n    - {{port: 80, targetPort: {port}}}\n"
        )
    };
    // An address without a listener.
    let closed_port = free_port(site.address());
    site.save(
        "manifests/services.yaml",
        &format!("{}---\n{}", service("echo", site.port("echo")), service("gone", closed_port)),
    );
    site.save("manifests/failing.yaml", &route("good", "failing", "gone"));
    site.save("manifests/policy.yaml", POLICY);
    site.save("manifests/wrong.yaml", &route("good", "wrong", "misspelt"));
    let plugins = "  annotations: {konghq.com/plugins: 'marked,small'}\nspec:";
    let plugins = route("good", "guarded", "echo").replacen("spec:", plugins, 1);
    site.save(
        "manifests/guarded.yaml",
        &format!(
            "{plugins}---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {{name: marked}}
plugin: correlation-id
config: {{header_name: x-mark, echo_downstream: true}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {{name: small}}
plugin: request-size-limiting
"
        ),
    );
}

/// Metrics of ingress-nginx that do not depend on requests; tests/matrix/nginx_metrics.rs has the others.
const NGINX_QUERIES: &[&str] = &[
    "avg(irate(nginx_ingress_controller_success[1m])) * 60 >= 0",
    "avg(rate(nginx_ingress_controller_nginx_process_cpu_seconds_total[15s]))",
    "changes(nginx_ingress_controller_config_last_reload_successful_timestamp_seconds[30s])",
    "nginx_ingress_controller_config_hash{controller_namespace=~\".+\", controller_pod=~\".+\"}",
    "nginx_ingress_controller_leader_election_status{name=\"portico-leader\"} == 1",
    "sum(avg_over_time(nginx_ingress_controller_nginx_process_connections{state=\"active\"}[2m]))",
];

/// A Service without a listener fails its checks, and opens its circuit. Errors of the other one are retried, until its
/// budget is used.
const POLICY: &str = "apiVersion: portico.dev/v1alpha1
kind: BackendPolicy
metadata: {name: gone}
spec:
  targetRefs: [{group: '', kind: Service, name: gone}]
  health: {active: {type: TCP, interval: 1s}}
  limits: {maxRequests: 100}
  circuitBreaker: {consecutive: 3, openFor: 1s}
---
apiVersion: portico.dev/v1alpha1
kind: BackendPolicy
metadata: {name: echo}
spec:
  targetRefs: [{group: '', kind: Service, name: echo}]
  retry: {attempts: 1, retryOn: [GatewayError]}
  retryBudget: {percent: 0, minRetryRate: {count: 1, interval: 1s}}
";

fn start(site: &Site) -> Program {
    let mut command = portico(site);
    let words = format!(
        "run --kubernetes --kubeconfig kubeconfig --manifests manifests --gateway-address-pool {} --echo {} \
         --allow-loopback-backends --allow-address-annotation --status-listen {} --admin-listen {} --workers 2 \
         --endpoint-metrics --nginx-metrics per-host --access-log off --metrics-otlp-endpoint http://{} \
         --metrics-otlp-interval 1s",
        site.address(),
        site.address_of("echo"),
        site.address_of("status"),
        site.address_of("admin"),
        site.address_of("echo"),
    );
    command.args(words.split(' '));
    Program::start(command)
}

/// Changes the configuration, and sends requests that succeed and requests that fail.
fn load(site: &Site, round: usize) {
    let edited = route("good", "edited", "echo").replace("/edited", &format!("/edited-{round}"));
    site.save("manifests/edited.yaml", &edited);
    let address = site.address_of("port");
    for (path, status) in [
        ("/shop", 200),
        ("/shop?status=503", 503),
        ("/guarded", 200),
        ("/failing", 503),
        ("/wrong", 500),
        ("/nowhere", 404),
    ] {
        for _ in 0..10 {
            let response = get(&address, path);
            assert_eq!(response.status, status, "{path}: {}", response.body);
        }
    }
}

fn is_ready(address: &str, path: &str) -> bool {
    try_get(address, address, path).is_ok_and(|response| response.status == 200)
}

/// A running Prometheus, which is stopped on drop.
struct Prometheus {
    address: String,
    program: Program,
}

impl Prometheus {
    /// Starts Prometheus with the alert rules of the chart, scraping and evaluating every second.
    fn start(site: &Site) -> Prometheus {
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join(ALERTS)],
            "scrape_configs": [{"job_name": "portico", "static_configs": [{"targets": [site.address_of("status")]}]}],
        });
        site.save("prometheus.yaml", &config.to_string());
        let address = format!("{}:{}", site.address(), free_port(site.address()));
        let mut command = Command::new("prometheus");
        command.current_dir(site.path(".")).args([
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=prometheus",
            &format!("--web.listen-address={address}"),
            "--log.level=warn",
        ]);
        let prometheus = Prometheus { program: Program::start(command), address };
        eventually("Prometheus is ready", || is_ready(&prometheus.address, "/-/ready").then_some(()));
        prometheus
    }

    fn query_api(&self, path: &str) -> Value {
        let response = get(&self.address, path);
        assert_eq!(response.status, 200, "{path}: {}\n{}", response.body, self.program.stderr());
        response.json()["data"].clone()
    }

    /// Whether the result of a query has a value other than NaN.
    fn has_data(&self, query: &str) -> bool {
        let data = self.query_api(&format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC)));
        let series = data["result"].as_array().unwrap_or_else(|| panic!("{query}: {data}"));
        series.iter().any(|series| series["value"][1] != "NaN")
    }

    /// The first value in the result of a query, if there is one.
    fn first_value(&self, query: &str) -> Option<f64> {
        let data = self.query_api(&format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC)));
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }

    fn rules(&self) -> Vec<Value> {
        let data = self.query_api("/api/v1/rules");
        data["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}
