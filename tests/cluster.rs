//! The program against an API server: log messages while it waits, the routes it serves, and the precedence over files.

use std::collections::BTreeSet;
use std::process::Command;

use crate::fake_api_server::FakeApiServer;
use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::{GATEWAY, route};
use crate::harness::program::{Program, portico, root};
use crate::harness::site::{Site, free_port};
use serde_json::{Value, json};

const GROUP: &str = "gateway.networking.k8s.io/v1";

/// A site, and an API server with the kinds that are needed to serve something.
async fn site_and_api() -> (Site, FakeApiServer) {
    let (site, api) = (Site::new(), FakeApiServer::start().await);
    api.serve(GROUP, "gatewayclasses", false);
    for plural in ["gateways", "httproutes"] {
        api.serve(GROUP, plural, true);
    }
    site.save("token", "first");
    site.save("kubeconfig", &api.kubeconfig(&json!({"tokenFile": site.path("token")})));
    (site, api)
}

/// The harness's objects, in the cluster. The Gateway already has an address: without a leader, none is assigned here.
fn create_objects(site: &Site, api: &FakeApiServer) {
    api.put("namespaces", json!({"metadata": {"name": "default"}}));
    let class = json!({"controllerName": "portico.dev/gateway-controller"});
    api.put("gatewayclasses", json!({"metadata": {"name": "portico"}, "spec": class}));
    api.put(
        "gateways",
        json!({
            "metadata": {"namespace": "default", "name": "good", "generation": 1},
            "spec": {"gatewayClassName": "portico",
                "listeners": [{"name": "http", "protocol": "HTTP", "port": site.port("port")}]},
            "status": {"addresses": [{"type": "IPAddress", "value": site.address().to_string()}]},
        }),
    );
    api.put(
        "services",
        json!({
            "metadata": {"namespace": "default", "name": "echo",
                "annotations": {"portico.dev/address": site.address().to_string()}},
            "spec": {"ports": [{"port": 80, "targetPort": site.port("echo")}]},
        }),
    );
}

fn clustered_route(name: &str) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": name, "generation": 1},
        "spec": {"parentRefs": [{"name": "good"}], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/{name}-of-cluster")}}],
            "backendRefs": [{"name": "echo", "port": 80}],
        }]},
    })
}

fn run(site: &Site, more: &[&str]) -> Program {
    let own =
        format!("--echo {} --status-listen {} --admin-listen {}", site.at("echo"), site.at("status"), site.at("admin"));
    let own = own.split(' ').chain(["--allow-loopback-backends"]);
    replica(site, &own.chain(more.iter().copied()).collect::<Vec<_>>())
}

/// One of several replicas in the same cluster.
fn replica(site: &Site, more: &[&str]) -> Program {
    let mut command: Command = portico(site);
    let words =
        format!("run --kubernetes --kubeconfig kubeconfig --gateway-address-pool {} --workers 1", site.address());
    command.args(words.split(' ')).args(more);
    Program::start(command)
}

/// Name prefixes of metrics that exist only with a cluster.
const CLUSTER_METRIC_PREFIXES: &[&str] = &["portico_watch_", "portico_status_", "portico_leader"];

/// Metrics without a cluster are compared in tests/quickstart.rs.
fn expect_documented(metrics: &str) {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let (_, page) = page.split_once("## In a cluster").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `portico_"));
    let documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<&str> =
        types.filter(|name| CLUSTER_METRIC_PREFIXES.iter().any(|start| name.starts_with(start))).collect();
    // No replica leads here, so no status is written.
    let missing: Vec<_> =
        documented.difference(&served).filter(|name| **name != "portico_status_writes_total").collect();
    assert!(
        missing.is_empty() && served.is_subset(&documented),
        "docs/metrics.md says {documented:?}, served {served:?}"
    );
}

fn wait_for(program: &Program, line: &str) {
    program.wait_stderr(|text| text.contains(line).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_routes_follow_edits_and_outages() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("shop"));
    let program = run(&site, &[]);
    wait_for(&program, "Serving");
    let output = program.messages();
    assert_eq!(output, format!("Context fake, server http://{}\n", api.address), "only the log follows");
    assert_eq!(get(&site.at("status"), "/readyz").status, 200);
    let status = |path: &str| get(&site.at("port"), path).status;
    assert_eq!((status("/shop-of-cluster"), status("/blog-of-cluster")), (200, 404));

    api.put("httproutes", clustered_route("blog"));
    eventually("a new route is served", || (status("/blog-of-cluster") == 200).then_some(()));
    api.delete("httproutes", "default", "shop");
    eventually("a deleted one is not", || (status("/shop-of-cluster") == 404).then_some(()));
    let metrics = get(&site.at("status"), "/metrics").body;
    for line in ["portico_watch_objects{kind=\"HTTPRoute\"} 1", "portico_watch_lists_total{kind=\"HTTPRoute\"} 1"] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    expect_documented(&metrics);

    let age = || {
        let metrics = get(&site.at("status"), "/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("portico_watch_age_seconds{kind=\"HTTPRoute\"} "));
        line.and_then(|age| age.parse::<f64>().ok()).unwrap_or_else(|| panic!("no age in\n{metrics}"))
    };
    assert_eq!(age(), 0.0);
    api.go_down();
    eventually("the age of the data grows", || (age() > 0.0).then_some(()));
    wait_for(&program, "The API server is unavailable; until it is back, the last known configuration is served");
    assert_eq!((status("/blog-of-cluster"), get(&site.at("status"), "/readyz").status), (200, 200));
    api.put("httproutes", clustered_route("late"));
    api.come_up();
    wait_for(&program, "The API server is available again");
    eventually("it is fresh again", || (age() == 0.0).then_some(()));
    eventually("changes during the outage are served", || (status("/late-of-cluster") == 200).then_some(()));
    let log = program.stop().expect_success().stderr;
    assert_eq!(log.matches("The API server is unavailable").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_have_equal_configuration_hashes() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    let first = run(&site, &["--allow-port-sharing"]);
    wait_for(&first, "Serving");
    // The first replica sees every route come and one go; the second one starts with the rest.
    for name in ["shop", "blog", "news"] {
        api.put("httproutes", clustered_route(name));
        eventually("it is served", || {
            (get(&site.at("port"), &format!("/{name}-of-cluster")).status == 200).then_some(())
        });
    }
    api.delete("httproutes", "default", "blog");
    eventually("it is gone", || (get(&site.at("port"), "/blog-of-cluster").status == 404).then_some(()));
    let at = |port: u16| format!("{}:{port}", site.address());
    let (status, admin) = (at(free_port(site.address())), at(free_port(site.address())));
    let second = replica(&site, &["--allow-port-sharing", "--status-listen", &status, "--admin-listen", &admin]);
    wait_for(&second, "Serving");

    let hash = |admin: &str| get(admin, "/debug/hash").json();
    let before = hash(&site.at("admin"));
    assert_eq!(hash(&admin), before);
    for status in [&site.at("status"), &status] {
        let metrics = get(status, "/metrics").body;
        let line = format!("portico_snapshot_hash {}", before["number"]);
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
        assert_eq!(
            get(status, "/status").json()["configuration_hash"],
            before["hash"],
            "the field that Kong's users query"
        );
    }
    api.put("httproutes", clustered_route("late"));
    for admin in [&site.at("admin"), &admin] {
        eventually("it is another snapshot", || (hash(admin) != before).then_some(()));
    }
    eventually("they agree again", || (hash(&admin) == hash(&site.at("admin"))).then_some(()));
    second.stop().expect_success();
    first.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reports_what_is_missing() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.require_token("fresh");
    let program = run(&site, &[]);
    wait_for(&program, "The API server is unavailable; until it is back, nothing is served yet");
    let ready = eventually("the reason is there", || {
        // With the full reason: the address of the server may contain the number.
        Some(get(&site.at("status"), "/readyz")).filter(|ready| ready.body.contains("401 Unauthorized"))
    });
    assert_eq!(ready.status, 503);
    for part in ["first snapshot", "--kubeconfig kubeconfig are invalid or expired"] {
        assert!(ready.body.contains(part), "{part}: {}", ready.body);
    }
    site.save("token", "fresh");
    wait_for(&program, "Serving");
    assert_eq!(get(&site.at("status"), "/readyz").status, 200);
    program.stop().expect_success();
}

/// Here the machine stands for the Pod: the echo server listens on its loopback address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_cannot_lead_to_loopback_addresses() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("shop"));
    let program = replica(&site, &["--echo", &site.at("echo"), "--status-listen", "off", "--admin-listen", "off"]);
    wait_for(&program, "Serving");
    let status = || get(&site.at("port"), "/shop-of-cluster").status;
    assert_eq!(status(), 503);
    let why = format!("{} is a loopback address of the machine or Pod that Portico runs in", site.address());
    assert!(program.stderr().contains(&why), "{}", program.stderr());
    program.stop().expect_success();

    let program = run(&site, &[]);
    wait_for(&program, "Serving");
    assert_eq!(status(), 200, "with --allow-loopback-backends");
    program.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_objects_take_precedence_over_files() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("good"));
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/good.yaml", &route("good", "good", "echo"));
    site.save("manifests/more.yaml", &route("good", "more", "echo"));
    let program = run(&site, &["--manifests", "manifests"]);
    wait_for(&program, "Serving");
    let status = |path: &str| get(&site.at("port"), path).status;
    assert_eq!((status("/good-of-cluster"), status("/good"), status("/more")), (200, 404, 200));
    let log = program.stderr();
    let remark = |file: &str| {
        log.lines().any(|line| line.contains("the cluster contains this object too") && line.contains(file))
    };
    assert!(remark("manifests/good.yaml:4") && remark("manifests/gateway.yaml") && !remark("more.yaml"), "{log}");

    api.delete("httproutes", "default", "good");
    eventually("the one in the file replaces it", || (status("/good") == 200).then_some(()));
    assert_eq!(status("/good-of-cluster"), 404);
    program.stop().expect_success();
}
