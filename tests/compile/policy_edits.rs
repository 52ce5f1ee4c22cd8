//! Edits of BackendPolicies and their targets, in any order.

use portico::api::Kind;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::parse;

fn gateway_and_route() -> Vec<AnyObject> {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let gateway = json!({"gatewayClassName": "portico", "listeners": listeners});
    let route = json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]});
    vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, json!({"metadata": metadata("g"), "spec": gateway})),
        parse(Kind::HttpRoute, json!({"metadata": metadata("r"), "spec": route})),
    ]
}

fn metadata(name: &str) -> Value {
    json!({"namespace": "a", "name": name, "generation": 1})
}

fn policy() -> AnyObject {
    let target = json!({"group": "", "kind": "Service", "name": "s", "sectionName": "web"});
    let spec = json!({
        "targetRefs": [target],
        "loadBalancing": {"algorithm": "LeastRequests"},
    });
    parse(Kind::BackendPolicy, json!({"metadata": metadata("p"), "spec": spec}))
}

fn service(port_name: &str) -> AnyObject {
    parse(Kind::Service, json!({"metadata": metadata("s"), "spec": {"ports": [{"name": port_name, "port": 80}]}}))
}

#[test]
fn service_may_appear_after_its_policy_and_disappear_before_it() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let mut apply = |upserts: Vec<AnyObject>, removed: &[AnyObject]| {
        let removes = removed.iter().map(AnyObject::id).collect();
        harness.apply(Batch { upserts, removes });
        let state = harness.describe_state();
        assert_eq!(state, harness.recompiled().describe_state(), "the order of the edits makes no difference");
        state
    };
    let mut objects = gateway_and_route();
    objects.push(policy());
    let without = apply(objects, &[]);
    assert!(without.contains("Accepted=False TargetNotFound: Service a/s does not exist"), "{without}");

    // It has another port first.
    let other_port = apply(vec![service("admin")], &[]);
    assert!(other_port.contains("Accepted=False TargetNotFound: Service s has no port"), "{other_port}");
    assert!(!other_port.contains("least requests"), "{other_port}");

    let complete = apply(vec![service("web")], &[]);
    assert!(!complete.contains("TargetNotFound"), "{complete}");
    assert!(complete.contains("least requests"), "{complete}");

    assert_eq!(apply(vec![], &[policy()]).matches("least requests").count(), 0);
    assert_eq!(apply(vec![policy()], &[]), complete);
    assert_eq!(apply(vec![], &[service("web")]), without);
}
