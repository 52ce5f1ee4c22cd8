//! Tenants whose routes cost more than the limits permit, and repeated edits of all these routes: the memory of the
//! process has a bound, each change of another tenant is served, and conditions say which routes are refused.

use std::fs;

use serde_json::{Value, json};

use crate::cluster::{create_objects, site_and_api, start_with_site_addresses};
use crate::fake_api_server::FakeApiServer;
use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::site::Site;

const COSTLY_NAMESPACES: [&str; 3] = ["costly-a", "costly-b", "costly-c"];
/// In each namespace, together larger than what is compiled of a namespace at a time.
const ROUTES: usize = 32;
/// `--namespace-budget`, in which the oldest routes fit. All of them would need 15 times as much.
const BUDGET_MIB: usize = 8;
/// About the size of all routes of the costly namespaces.
const ROUTES_MIB: usize = 21;
/// What the process may need in addition: the budgets, for the configuration that is served and the next one, and the
/// routes, of which watch, decoder and store have copies. Without a budget, it would need more than 300 MiB.
const MAX_GROWTH_MIB: usize = 2 * COSTLY_NAMESPACES.len() * BUDGET_MIB + 8 * ROUTES_MIB;

/// A route whose expressions expand to almost half of the budget. Each edit changes all of them.
fn costly_route(namespace: &str, number: usize, edit: usize) -> Value {
    let path = |index: usize| {
        let value = format!("/{namespace}/{number}/{edit}/{index}/.{{200}}");
        json!({"type": "RegularExpression", "value": value})
    };
    let header = |index: usize| json!({"name": format!("x-{index}"), "value": "x".repeat(4096)});
    let headers: Vec<Value> = (0..6).map(header).collect();
    let matches: Vec<Value> = (0..9).map(|index| json!({"path": path(index), "headers": headers})).collect();
    json!({
        "metadata": {"namespace": namespace, "name": name_of(number), "generation": edit,
            "creationTimestamp": format!("2026-01-01T00:00:{number:02}Z")},
        "spec": {"parentRefs": [{"namespace": "default", "name": "good"}], "rules": [{
            "matches": matches, "backendRefs": [{"name": "echo", "port": 80}],
        }]},
    })
}

fn name_of(number: usize) -> String {
    format!("route-{number:02}")
}

/// A route of another tenant, for `/small-EDIT`.
fn small_route(edit: usize) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": "small", "generation": edit},
        "spec": {"parentRefs": [{"name": "good"}], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/small-{edit}")}}],
            "backendRefs": [{"name": "echo", "port": 80}],
        }]},
    })
}

/// Routes of all namespaces may attach to the Gateway.
fn share_gateway(site: &Site, api: &FakeApiServer) {
    api.put(
        "gateways",
        json!({
            "metadata": {"namespace": "default", "name": "good", "generation": 2},
            "spec": {"gatewayClassName": "portico", "listeners": [{"name": "http", "protocol": "HTTP",
                "port": site.port("port"), "allowedRoutes": {"namespaces": {"from": "All"}}}]},
            "status": {"addresses": [{"type": "IPAddress", "value": site.address().to_string()}]},
        }),
    );
}

/// The most memory that the process had so far, in MiB.
fn peak_memory(program: &Program) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.unwrap().parse::<usize>().unwrap() / 1024
}

/// Waits for the condition `Accepted` of this generation of a route. Returns its status and message.
fn accepted(api: &FakeApiServer, namespace: &str, name: &str, generation: usize) -> (String, String) {
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{name}/status");
    eventually(&format!("the status of {namespace}/{name}"), || {
        let written: Value = serde_json::from_str(&api.requests(&path).last()?.body).ok()?;
        let conditions = written["status"]["parents"][0]["conditions"].as_array()?;
        let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted")?;
        let field = |name: &str| accepted[name].as_str().unwrap_or_default().to_owned();
        (accepted["observedGeneration"] == generation).then(|| (field("status"), field("message")))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costly_routes_of_tenants_leave_memory_to_others_and_refuse_none_of_theirs() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.serve("coordination.k8s.io/v1", "leases", true);
    api.allow_writes();
    share_gateway(&site, &api);
    COSTLY_NAMESPACES.iter().for_each(|name| api.put("namespaces", json!({"metadata": {"name": name}})));
    api.put("httproutes", small_route(1));
    let budget = format!("{BUDGET_MIB}MiB");
    let program = start_with_site_addresses(&site, &["--namespace-budget", &budget, "--access-log", "off"]);
    let serves = |edit: usize| get(&site.address_of("port"), &format!("/small-{edit}")).status == 200;
    program.wait_stderr(|text| text.contains("Listening").then_some(()));
    eventually("the first configuration", || serves(1).then_some(()));
    let before = peak_memory(&program);
    for edit in 2..5 {
        for number in 0..ROUTES {
            COSTLY_NAMESPACES.iter().for_each(|name| api.put("httproutes", costly_route(name, number, edit)));
        }
        api.put("httproutes", small_route(edit));
        eventually("the edit of the other tenant", || serves(edit).then_some(()));
        let (status, message) = accepted(&api, "default", "small", edit);
        assert_eq!(status, "True", "edit {edit}: {message}");
        for namespace in COSTLY_NAMESPACES {
            let (status, message) = accepted(&api, namespace, &name_of(0), edit);
            assert_eq!(status, "True", "{namespace}, edit {edit}: the oldest route has room: {message}");
            let (status, message) = accepted(&api, namespace, &name_of(ROUTES - 1), edit);
            let says_why = message.contains("the limit is 8 MiB; this object is one of the youngest");
            assert!(status == "False" && says_why, "{namespace}, edit {edit}: {status}: {message}");
        }
        let growth = peak_memory(&program) - before;
        println!("{growth} MiB more than before, after edit {edit}");
        assert!(growth <= MAX_GROWTH_MIB, "edit {edit}: {growth} MiB, and the bound is {MAX_GROWTH_MIB} MiB");
    }
    program.stop().expect_success();
}
