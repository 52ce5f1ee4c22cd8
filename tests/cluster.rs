//! The program with a fake API server: the routes it serves, log messages and readiness during outages, replicas, and
//! the precedence of the cluster over files.

mod session_keys;

use std::collections::BTreeSet;
use std::process::Command;

use crate::fake_api_server::{FakeApiServer, InjectedFailure};
use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::{GATEWAY, route};
use crate::harness::ports::free_port;
use crate::harness::program::{Program, portico, root};
use crate::harness::site::Site;
use serde_json::{Value, json};

const GROUP: &str = "gateway.networking.k8s.io/v1";

/// A site with a kubeconfig, and an API server with the kinds that are needed to serve a route.
pub(crate) async fn site_and_api() -> (Site, FakeApiServer) {
    let (site, api) = (Site::new(), FakeApiServer::start().await);
    for (plural, namespaced) in [("gatewayclasses", false), ("gateways", true), ("httproutes", true)] {
        api.serve(GROUP, plural, namespaced);
    }
    site.save("token", "first");
    site.save("kubeconfig", &api.kubeconfig(&json!({"tokenFile": site.path("token")})));
    (site, api)
}

/// Creates the objects of `GATEWAY` in the API server. The Gateway already has an address in its status, because only
/// the leader assigns one, and no replica can become the leader: this API server has no Leases.
pub(crate) fn create_objects(site: &Site, api: &FakeApiServer) {
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

/// A route for `/NAME-of-cluster`.
fn clustered_route(name: &str) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": name, "generation": 1},
        "spec": {"parentRefs": [{"name": "good"}], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/{name}-of-cluster")}}],
            "backendRefs": [{"name": "echo", "port": 80}],
        }]},
    })
}

/// Starts a replica whose echo, status and admin servers listen on the addresses of the site. Its routes may forward to
/// the echo server.
pub(crate) fn start_with_site_addresses(site: &Site, more: &[&str]) -> Program {
    let arguments = format!(
        "--echo {} --status-listen {} --admin-listen {}",
        site.address_of("echo"),
        site.address_of("status"),
        site.address_of("admin")
    );
    let arguments = arguments.split(' ').chain(["--allow-loopback-backends", "--allow-address-annotation"]);
    start_replica(site, &arguments.chain(more.iter().copied()).collect::<Vec<_>>())
}

/// Starts a replica without flags for listen addresses. Several replicas can run at the same time if `more` sets
/// different addresses.
fn start_replica(site: &Site, more: &[&str]) -> Program {
    let mut command: Command = portico(site);
    let line =
        format!("run --kubernetes --kubeconfig kubeconfig --gateway-address-pool {} --workers 1", site.address());
    command.args(line.split(' ')).args(more);
    Program::start(command)
}

/// Name prefixes of metrics that exist only with a cluster.
const CLUSTER_METRIC_PREFIXES: &[&str] = &["portico_watch_", "portico_status_", "portico_leader"];

/// Checks that docs/metrics.md lists the metrics that exist only with a cluster. tests/quickstart.rs checks the others.
fn expect_documented(metrics: &str) {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let (_, page) = page.split_once("## In a cluster").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `portico_"));
    let documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<&str> =
        types.filter(|name| CLUSTER_METRIC_PREFIXES.iter().any(|prefix| name.starts_with(prefix))).collect();
    // No replica is the leader, so no status is written.
    let missing: Vec<_> =
        documented.difference(&served).filter(|name| **name != "portico_status_writes_total").collect();
    assert!(
        missing.is_empty() && served.is_subset(&documented),
        "docs/metrics.md documents {documented:?}, the program serves {served:?}"
    );
}

fn wait_for_log(program: &Program, line: &str) {
    program.wait_stderr(|text| text.contains(line).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_routes_follow_edits_and_outages() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("shop"));
    let program = start_with_site_addresses(&site, &[]);
    wait_for_log(&program, "Serving");
    let messages = program.messages();
    assert_eq!(messages, format!("Context fake, server http://{}\n", api.address), "all other output is log events");
    assert_eq!(get(&site.address_of("status"), "/readyz").status, 200);
    let status = |path: &str| get(&site.address_of("port"), path).status;
    assert_eq!((status("/shop-of-cluster"), status("/blog-of-cluster")), (200, 404));

    api.put("httproutes", clustered_route("blog"));
    eventually("a new route is served", || (status("/blog-of-cluster") == 200).then_some(()));
    api.delete("httproutes", "default", "shop");
    eventually("a deleted route is not served", || (status("/shop-of-cluster") == 404).then_some(()));
    let metrics = get(&site.address_of("status"), "/metrics").body;
    for line in ["portico_watch_objects{kind=\"HTTPRoute\"} 1", "portico_watch_lists_total{kind=\"HTTPRoute\"} 1"] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    expect_documented(&metrics);

    let age = || {
        let metrics = get(&site.address_of("status"), "/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("portico_watch_age_seconds{kind=\"HTTPRoute\"} "));
        line.and_then(|age| age.parse::<f64>().ok()).unwrap_or_else(|| panic!("no age in\n{metrics}"))
    };
    assert_eq!(age(), 0.0);
    api.go_down();
    eventually("the age of the data grows", || (age() > 0.0).then_some(()));
    wait_for_log(&program, "The API server is unavailable; until it is back, the last known configuration is served");
    assert_eq!((status("/blog-of-cluster"), get(&site.address_of("status"), "/readyz").status), (200, 200));
    api.put("httproutes", clustered_route("late"));
    api.come_up();
    wait_for_log(&program, "The API server is available again");
    eventually("the data is up to date again", || (age() == 0.0).then_some(()));
    eventually("changes during the outage are served", || (status("/late-of-cluster") == 200).then_some(()));
    let log = program.stop().expect_success().stderr;
    assert_eq!(log.matches("The API server is unavailable").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_have_equal_configuration_hashes() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    let first = start_with_site_addresses(&site, &["--allow-port-sharing"]);
    wait_for_log(&first, "Serving");
    // The first replica receives the creation of three routes and the deletion of one; the second starts with two
    // routes.
    for name in ["shop", "blog", "news"] {
        api.put("httproutes", clustered_route(name));
        eventually("the route is served", || {
            (get(&site.address_of("port"), &format!("/{name}-of-cluster")).status == 200).then_some(())
        });
    }
    api.delete("httproutes", "default", "blog");
    eventually("the deleted route is not served", || {
        (get(&site.address_of("port"), "/blog-of-cluster").status == 404).then_some(())
    });
    let free_address = || format!("{}:{}", site.address(), free_port(site.address()));
    let (second_status, second_admin) = (free_address(), free_address());
    let flags = ["--allow-port-sharing", "--status-listen", &second_status, "--admin-listen", &second_admin];
    let second = start_replica(&site, &flags);
    wait_for_log(&second, "Serving");

    let hash = |admin: &str| get(admin, "/debug/hash").json();
    let before = hash(&site.address_of("admin"));
    assert_eq!(hash(&second_admin), before);
    for status in [&site.address_of("status"), &second_status] {
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
    for admin in [&site.address_of("admin"), &second_admin] {
        eventually("the snapshot changes", || (hash(admin) != before).then_some(()));
    }
    eventually("the replicas have the same snapshot", || {
        (hash(&second_admin) == hash(&site.address_of("admin"))).then_some(())
    });
    second.stop().expect_success();
    first.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reports_what_is_missing() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.require_token("fresh");
    let program = start_with_site_addresses(&site, &[]);
    wait_for_log(&program, "The API server is unavailable; until it is back, nothing is served yet");
    let ready = eventually("the response has the reason", || {
        // `401` alone could also be part of the API server's port, which is in the message, too.
        Some(get(&site.address_of("status"), "/readyz")).filter(|ready| ready.body.contains("401 Unauthorized"))
    });
    assert_eq!(ready.status, 503);
    for part in ["first snapshot", "--kubeconfig kubeconfig are invalid or expired"] {
        assert!(ready.body.contains(part), "{part}: {}", ready.body);
    }
    site.save("token", "fresh");
    wait_for_log(&program, "Serving");
    assert_eq!(get(&site.address_of("status"), "/readyz").status, 200);
    program.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_credentials_are_logged_during_an_outage() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    let program = start_with_site_addresses(&site, &[]);
    wait_for_log(&program, "Serving");
    api.go_down();
    wait_for_log(&program, "The API server is unavailable");
    assert!(!program.stderr().contains("401 Unauthorized"), "{}", program.stderr());
    api.require_token("fresh");
    wait_for_log(&program, "401 Unauthorized");
    site.save("token", "fresh");
    wait_for_log(&program, "The API server is available again");
    let log = program.stop().expect_success().stderr;
    assert_eq!(log.matches("The API server is unavailable").count(), 2, "{log}");
}

/// The Service leads to the echo server on a loopback address of this machine, which stands for a loopback address of
/// Portico's Pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_cannot_lead_to_loopback_addresses() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("shop"));
    let echo = site.address_of("echo");
    let arguments = ["--echo", &echo, "--status-listen", "off", "--admin-listen", "off", "--allow-address-annotation"];
    let program = start_replica(&site, &arguments);
    wait_for_log(&program, "Serving");
    let status = || get(&site.address_of("port"), "/shop-of-cluster").status;
    assert_eq!(status(), 503);
    let reason = format!("{} is a loopback address of the machine or Pod that Portico runs in", site.address());
    assert!(program.stderr().contains(&reason), "{}", program.stderr());
    program.stop().expect_success();

    let program = start_with_site_addresses(&site, &[]);
    wait_for_log(&program, "Serving");
    assert_eq!(status(), 200, "with --allow-loopback-backends");
    program.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_objects_take_precedence_over_files() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("httproutes", clustered_route("good"));
    site.save("manifests/gateway.yaml", GATEWAY);
    let (gateway, service) = ("good", "echo");
    site.save("manifests/good.yaml", &route(gateway, "good", service));
    site.save("manifests/more.yaml", &route(gateway, "more", service));
    let program = start_with_site_addresses(&site, &["--manifests", "manifests"]);
    wait_for_log(&program, "Serving");
    let status = |path: &str| get(&site.address_of("port"), path).status;
    assert_eq!((status("/good-of-cluster"), status("/good"), status("/more")), (200, 404, 200));
    let log = program.stderr();
    let is_logged = |file: &str| {
        log.lines().any(|line| line.contains("the cluster contains this object too") && line.contains(file))
    };
    assert!(
        is_logged("manifests/good.yaml:4") && is_logged("manifests/gateway.yaml") && !is_logged("more.yaml"),
        "{log}"
    );

    api.delete("httproutes", "default", "good");
    eventually("the route of the file is served", || (status("/good") == 200).then_some(()));
    assert_eq!(status("/good-of-cluster"), 404);
    program.stop().expect_success();
}

/// A Pod that became ready without a certificate would replace one that has it, and its status would say that the
/// Secret does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_cannot_be_fetched_delay_readiness_and_statuses() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.serve("coordination.k8s.io/v1", "leases", true);
    api.allow_writes();
    api.put("gateways", https_gateway(&site));
    let self_signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    api.put(
        "secrets",
        json!({
            "metadata": {"namespace": "default", "name": "tls"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self_signed.cert.pem(), "tls.key": self_signed.signing_key.serialize_pem()},
        }),
    );
    let failure = || InjectedFailure::Status(500, "etcdserver: request timed out");
    api.fail("secrets/tls", vec![failure(); 10_000]);
    let status_writes = |plural: &str| {
        let requests = api.requests("/apis/gateway.networking.k8s.io/v1/");
        let is_write = |path: &str| path.contains(plural) && path.ends_with("/status");
        requests
            .iter()
            .filter(|request| is_write(&request.path))
            .map(|request| request.body.clone())
            .collect::<Vec<_>>()
    };
    {
        let program = start_with_site_addresses(&site, &[]);
        wait_for_log(&program, "Context fake");
        eventually("readiness names the Secret", || {
            let ready = get(&site.address_of("status"), "/readyz");
            let is_named = ready.body.contains("[-] first snapshot, which needs the content of Secret default/tls\n");
            (ready.status == 503 && is_named).then_some(())
        });
        assert!(status_writes("").is_empty(), "nothing was compiled");
        api.clear_failures("secrets/tls");
        eventually("a retry fetches it", || (get(&site.address_of("status"), "/readyz").status == 200).then_some(()));
    }
    api.fail("secrets/tls", vec![failure(); 10_000]);
    let before = status_writes("gateways/good").len();
    let program = start_with_site_addresses(&site, &["--startup-timeout", "10ms", "--log-format", "json"]);
    wait_for_log(&program, "Serving without objects that could not be fetched within --startup-timeout");
    wait_for_log(&program, "Secret default/tls exists, but its content was not fetched yet");
    assert_eq!(get(&site.address_of("status"), "/readyz").status, 200);
    api.put("httproutes", clustered_route("shop"));
    eventually("other statuses are written", || (!status_writes("httproutes/shop").is_empty()).then_some(()));
    assert_eq!(status_writes("gateways/good").len(), before, "it is unknown whether the certificate is valid");
    api.clear_failures("secrets/tls");
    eventually("the Gateway is programmed", || (status_writes("gateways/good").len() > before).then_some(()));
    assert!(!status_writes("gateways/good").concat().contains("InvalidCertificateRef"));
}

/// A route that attaches changes the status of its Gateway, and not what is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_problems_of_a_gateway_are_not_logged_again_when_routes_attach() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("gateways", https_gateway(&site));
    let program = start_with_site_addresses(&site, &[]);
    wait_for_log(&program, "Serving");
    let count = |log: &str| log.matches("Secret default/tls does not exist").count();
    let before = count(&program.stderr());
    assert!(before > 0, "{}", program.stderr());
    for name in ["shop", "blog", "news"] {
        api.put("httproutes", clustered_route(name));
        eventually("the route is served", || {
            (get(&site.address_of("port"), &format!("/{name}-of-cluster")).status == 200).then_some(())
        });
    }
    wait_for_log(&program, "HTTPRoute default/news");
    let log = program.stop().expect_success().stderr;
    assert_eq!(count(&log), before, "{log}");
}

/// The Gateway of `create_objects` with a second listener, whose certificate is in the Secret `tls`.
pub(crate) fn https_gateway(site: &Site) -> Value {
    let tls = json!({"certificateRefs": [{"name": "tls"}]});
    json!({
        "metadata": {"namespace": "default", "name": "good", "generation": 1},
        "spec": {"gatewayClassName": "portico", "listeners": [
            {"name": "http", "protocol": "HTTP", "port": site.port("port")},
            {"name": "https", "protocol": "HTTPS", "port": site.port("other"), "tls": tls},
        ]},
        "status": {"addresses": [{"type": "IPAddress", "value": site.address().to_string()}]},
    })
}
