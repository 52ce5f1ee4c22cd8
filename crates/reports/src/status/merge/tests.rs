//! The cases of merging statuses, one per row: the observed status, the verdict, and the expected status. Cited are
//! GEP-1364 (status and conditions) and the conformance tests of Gateway API 1.7.

mod gateways;

use super::*;

const NOW: &str = "2030-01-01T00:00:00Z";
const THEN: &str = "2020-01-01T00:00:00Z";
const CONTROLLER: &str = "portico.dev/gateway-controller";

/// A condition of Portico, without a time.
fn condition(condition_type: &str, status: &str, reason: &str) -> Value {
    json!({"type": condition_type, "status": status, "reason": reason, "message": "m", "observedGeneration": 2})
}

/// A condition of Portico as the API server stores it.
fn stored_condition(condition_type: &str, status: &str, reason: &str, since: &str) -> Value {
    let mut stored = condition(condition_type, status, reason);
    stored["lastTransitionTime"] = json!(since);
    stored
}

/// A condition of another controller, with unknown fields.
fn foreign_condition(condition_type: &str) -> Value {
    json!({
        "type": condition_type, "status": "True", "reason": "R", "message": "", "observedGeneration": 1,
        "lastTransitionTime": THEN, "extra": {"kept": [1, 2]},
    })
}

fn pending_condition(condition_type: &str) -> Value {
    json!({
        "type": condition_type, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    })
}

fn parent(controller: &str, gateway: &str, conditions: &[Value]) -> Value {
    json!({
        "parentRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": gateway},
        "controllerName": controller,
        "conditions": conditions,
    })
}

fn listener(name: &str, routes: u32, conditions: &[Value]) -> Value {
    json!({"name": name, "attachedRoutes": routes, "supportedKinds": [], "conditions": conditions})
}

struct MergeCase {
    name: &'static str,
    kind: Kind,
    observed: Value,
    desired: Value,
    /// None if nothing is to be written.
    expected: Option<Value>,
}

fn row(name: &'static str, kind: Kind, observed: Value, desired: Value, expected: Option<Value>) -> MergeCase {
    MergeCase { name, kind, observed, desired, expected }
}

fn check_merges(rows: Vec<MergeCase>) {
    let controllers = [CONTROLLER.to_owned(), "konghq.com/kic-gateway-controller".to_owned()];
    for MergeCase { name, kind, observed, desired, expected } in rows {
        let merged = merge(kind, &observed, &desired, &controllers, NOW);
        // The message shows the statuses as text: entries of other controllers stay the same to the byte and in order.
        let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
        assert_eq!(merged.status, expected, "{name}:\n{:?}\n{:?}", text(&merged.status), text(&expected));
        assert_eq!(merged.left_out, Vec::<String>::new(), "{name}");
        if let Some(status) = merged.status {
            let again = merge(kind, &status, &desired, &controllers, "2040-01-01T00:00:00Z");
            assert_eq!(again.status, None, "{name}: a second merge changes nothing");
        }
    }
}

#[test]
fn routes() {
    let accepted = || condition("Accepted", "True", "Accepted");
    let since = |time| stored_condition("Accepted", "True", "Accepted", time);
    let other = || parent("example.com/other", "theirs", &[foreign_condition("Accepted")]);
    check_merges(vec![
        row("a foreign route gets no status", Kind::HttpRoute, Value::Null, json!({}), None),
        row("entries of foreign routes stay", Kind::HttpRoute, json!({"parents": [other()]}), json!({}), None),
        row(
            "entries of others stay in place, to the byte (HTTPRoutePreserveForeignStatus)",
            Kind::HttpRoute,
            json!({"parents": [other(), parent(CONTROLLER, "a", &[pending_condition("Accepted")]), other()]}),
            json!({"parents": [parent(CONTROLLER, "b", &[accepted()]), parent(CONTROLLER, "a", &[accepted()])]}),
            Some(json!({"parents": [
                other(), parent(CONTROLLER, "a", &[since(NOW)]), other(), parent(CONTROLLER, "b", &[since(NOW)]),
            ]})),
        ),
        row(
            "entries for a dropped parent or a deleted Gateway are removed",
            Kind::HttpRoute,
            json!({"parents": [parent(CONTROLLER, "a", &[since(THEN)]), other(), parent(CONTROLLER, "b", &[since(THEN)])]}),
            json!({"parents": [parent(CONTROLLER, "b", &[accepted()])]}),
            Some(json!({"parents": [other(), parent(CONTROLLER, "b", &[since(THEN)])]})),
        ),
        row(
            "removing the last entry leaves an empty list, which the API requires",
            Kind::HttpRoute,
            json!({"parents": [parent(CONTROLLER, "a", &[since(THEN)])]}),
            json!({}),
            Some(json!({"parents": []})),
        ),
        row(
            "one entry per parentRef: a duplicate is removed",
            Kind::HttpRoute,
            json!({"parents": [parent(CONTROLLER, "a", &[since(THEN)]), parent(CONTROLLER, "a", &[since(THEN)])]}),
            json!({"parents": [parent(CONTROLLER, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(CONTROLLER, "a", &[since(THEN)])]})),
        ),
        row(
            "the class changed between two controller names of Portico",
            Kind::HttpRoute,
            json!({"parents": [parent("konghq.com/kic-gateway-controller", "a", &[since(THEN)])]}),
            json!({"parents": [parent(CONTROLLER, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(CONTROLLER, "a", &[since(NOW)])]})),
        ),
        row(
            "parentRef echoes the spec, also where an older entry left defaults out",
            Kind::HttpRoute,
            json!({"parents": [
                {"parentRef": {"name": "a"}, "controllerName": CONTROLLER, "conditions": [since(THEN)]},
            ]}),
            json!({"parents": [parent(CONTROLLER, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(CONTROLLER, "a", &[since(THEN)])]})),
        ),
        row(
            "resolved PartiallyInvalid is removed, not set to False; conditions of others in the entry stay",
            Kind::HttpRoute,
            json!({"parents": [parent(CONTROLLER, "a", &[
                stored_condition("PartiallyInvalid", "True", "UnsupportedValue", THEN), since(THEN), foreign_condition("example.com/A"),
            ])]}),
            json!({"parents": [parent(CONTROLLER, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(CONTROLLER, "a", &[since(THEN), foreign_condition("example.com/A")])]})),
        ),
    ]);
}

// docs/kong-compatibility.md, 1.10
#[test]
fn licenses_have_one_entry_per_controller() {
    let condition = json!({
        "type": "Programmed", "status": "True", "reason": "Programmed", "message": "m", "observedGeneration": 1,
    });
    let foreign =
        json!({"controllerName": "konghq.com/kong-ingress-controller/kong", "conditions": [{"type": "Programmed"}]});
    let observed = json!({"controllers": [foreign]});
    let desired = json!({"conditions": [condition]});
    let merged = merge(Kind::KongLicense, &observed, &desired, &[], "now").status.unwrap();
    let mut stamped = condition.clone();
    stamped["lastTransitionTime"] = json!("now");
    let portico_entry = json!({"controllerName": CONTROLLER, "conditions": [stamped]});
    assert_eq!(merged, json!({"controllers": [foreign, portico_entry]}));
    assert_eq!(
        merge(Kind::KongLicense, &merged, &desired, &[], "later").status,
        None,
        "a second merge changes nothing"
    );
}

// docs/kong-compatibility.md, 1.2
#[test]
fn conditions_of_plugins_and_consumers() {
    let programmed = || condition("Programmed", "True", "Programmed");
    let foreign = |status: &str, reason: &str, message: &str| {
        let mut condition = stored_condition("Programmed", status, reason, THEN);
        condition["message"] = json!(message);
        condition
    };
    let mut rows = Vec::new();
    for kind in [
        Kind::KongPlugin,
        Kind::KongClusterPlugin,
        Kind::KongConsumer,
        Kind::KongConsumerGroup,
        Kind::KongVault,
        Kind::KongCustomEntity,
        Kind::KongServiceFacade,
        Kind::KongIngress,
        Kind::TcpIngress,
        Kind::UdpIngress,
    ] {
        rows.push(row(
            "the default of the CRD is replaced, and conditions of others stay",
            kind,
            json!({"conditions": [foreign_condition("KonnectEntityProgrammed"), pending_condition("Programmed")], "konnect": {"id": "x"}}),
            json!({"conditions": [programmed()], "notes": ["n"]}),
            Some(json!({
                "conditions": [foreign_condition("KonnectEntityProgrammed"), stored_condition("Programmed", "True", "Programmed", NOW)],
                "konnect": {"id": "x"},
            })),
        ));
        rows.push(row(
            "of another class",
            kind,
            json!({"conditions": [foreign("True", "Programmed", "Object was successfully configured in Kong.")]}),
            json!({"notes": ["of another class"]}),
            None,
        ));
    }
    let foreign_own = foreign("True", "Programmed", "Object was successfully configured in Kong.");
    rows.extend([
        row(
            "a plugin that only Kong uses is left to Kong",
            Kind::KongPlugin,
            json!({"conditions": [foreign_own.clone()]}),
            json!({"conditions": [condition("Programmed", "False", "Pending")]}),
            None,
        ),
        row(
            "a plugin that Portico uses is not",
            Kind::KongPlugin,
            json!({"conditions": [foreign_own]}),
            json!({"conditions": [programmed()]}),
            Some(json!({"conditions": [stored_condition("Programmed", "True", "Programmed", THEN)]})),
        ),
        row(
            "Portico updates its own condition",
            Kind::KongPlugin,
            json!({"conditions": [stored_condition("Programmed", "True", "Programmed", THEN)]}),
            json!({"conditions": [condition("Programmed", "False", "Pending")]}),
            Some(json!({"conditions": [stored_condition("Programmed", "False", "Pending", NOW)]})),
        ),
    ]);
    check_merges(rows);
}

// docs/kong-compatibility.md, 3.13
#[test]
fn addresses_of_ingresses() {
    let at = |ingress: Value| json!({"loadBalancer": {"ingress": ingress}});
    let mut rows = Vec::new();
    for kind in [Kind::Ingress, Kind::TcpIngress, Kind::UdpIngress] {
        rows.extend([
            row(
                "the first time",
                kind,
                json!({"loadBalancer": {}}),
                at(json!([{"ip": "192.0.2.1"}, {"hostname": "a.b"}])),
                Some(at(json!([{"ip": "192.0.2.1"}, {"hostname": "a.b"}]))),
            ),
            row(
                "no status yet",
                kind,
                Value::Null,
                at(json!([{"ip": "192.0.2.1"}])),
                Some(at(json!([{"ip": "192.0.2.1"}]))),
            ),
            row(
                "the address is already there",
                kind,
                at(json!([{"ip": "192.0.2.1"}])),
                at(json!([{"ip": "192.0.2.1"}])),
                None,
            ),
            row(
                "fields that others add to an entry stay",
                kind,
                at(json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}, {"ip": "192.0.2.9"}])),
                at(json!([{"ip": "192.0.2.1"}])),
                Some(at(json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}]))),
            ),
            row(
                "no address any more",
                kind,
                at(json!([{"ip": "192.0.2.1"}])),
                at(json!([])),
                Some(json!({"loadBalancer": {}})),
            ),
            row("still no address", kind, json!({"loadBalancer": {}}), at(json!([])), None),
            row(
                "of another class",
                kind,
                at(json!([{"ip": "192.0.2.1"}])),
                json!({"notes": ["of another class"]}),
                None,
            ),
        ]);
    }
    rows.push(row(
        "an Ingress never gets conditions",
        Kind::Ingress,
        Value::Null,
        json!({"conditions": [condition("Programmed", "False", "Invalid")]}),
        None,
    ));
    check_merges(rows);
}

// docs/kong-compatibility.md, 1.7
#[test]
fn ancestors_of_a_policy() {
    let ancestor = |controller: &str, name: &str, conditions: &[Value]| {
        json!({
            "ancestorRef": {"group": "core", "kind": "Service", "name": name},
            "controllerName": controller,
            "conditions": conditions,
        })
    };
    let foreign = "konghq.com/kic-gateway-controller";
    let programmed = || condition("Programmed", "True", "Programmed");
    let kept = |since: &str| stored_condition("Programmed", "True", "Programmed", since);
    check_merges(vec![
        row(
            "entries of others stay, those of former users are removed, and Kong's become Portico's",
            Kind::KongUpstreamPolicy,
            json!({"ancestors": [
                ancestor(CONTROLLER, "gone", &[kept(THEN)]),
                ancestor("example.com/x", "a", &[foreign_condition("Accepted")]),
                ancestor(foreign, "old", &[kept(THEN), foreign_condition("example.com/A")]),
            ]}),
            json!({"ancestors": [
                ancestor(CONTROLLER, "old", &[programmed()]), ancestor(CONTROLLER, "young", &[programmed()]),
            ]}),
            Some(json!({"ancestors": [
                ancestor("example.com/x", "a", &[foreign_condition("Accepted")]),
                ancestor(CONTROLLER, "old", &[kept(THEN), foreign_condition("example.com/A")]),
                ancestor(CONTROLLER, "young", &[kept(NOW)]),
            ]})),
        ),
        row("an unused policy", Kind::KongUpstreamPolicy, Value::Null, json!({}), None),
        row(
            "a policy that is no longer used",
            Kind::KongUpstreamPolicy,
            json!({"ancestors": [ancestor(CONTROLLER, "gone", &[kept(THEN)])]}),
            json!({}),
            Some(json!({"ancestors": []})),
        ),
    ]);

    let gateway = |controller: &str, namespace: &str, conditions: &[Value]| {
        let group = GATEWAY_GROUP;
        let reference = json!({"group": group, "kind": "Gateway", "namespace": namespace, "name": "web"});
        json!({"ancestorRef": reference, "controllerName": controller, "conditions": conditions})
    };
    let accepted = || condition("Accepted", "True", "Accepted");
    let was_accepted = |since: &str| stored_condition("Accepted", "True", "Accepted", since);
    check_merges(vec![row(
        "Gateways of one name and several controllers",
        Kind::BackendTlsPolicy,
        json!({"ancestors": [
            gateway(CONTROLLER, "gone", &[was_accepted(THEN)]),
            gateway("example.com/x", "a", &[foreign_condition("Accepted")]),
            gateway(CONTROLLER, "a", &[was_accepted(THEN), foreign_condition("example.com/A")]),
        ]}),
        json!({"ancestors": [gateway(CONTROLLER, "a", &[accepted()]), gateway(CONTROLLER, "b", &[accepted()])]}),
        Some(json!({"ancestors": [
            gateway("example.com/x", "a", &[foreign_condition("Accepted")]),
            gateway(CONTROLLER, "a", &[was_accepted(THEN), foreign_condition("example.com/A")]),
            gateway(CONTROLLER, "b", &[was_accepted(NOW)]),
        ]})),
    )]);

    let of_target = |controller: &str, name: &str, conditions: &[Value]| {
        let reference = json!({"group": "", "kind": "Service", "name": name});
        json!({"ancestorRef": reference, "controllerName": controller, "conditions": conditions})
    };
    check_merges(vec![row(
        "Gateways, and targets that Ingresses use",
        Kind::BackendPolicy,
        json!({"ancestors": [
            of_target(CONTROLLER, "gone", &[was_accepted(THEN)]),
            of_target(CONTROLLER, "shop", &[was_accepted(THEN), foreign_condition("example.com/A")]),
            of_target("example.com/x", "shop", &[foreign_condition("Accepted")]),
            gateway(CONTROLLER, "a", &[was_accepted(THEN)]),
        ]}),
        json!({"ancestors": [
            gateway(CONTROLLER, "a", &[accepted()]), of_target("", "shop", &[accepted()]),
            of_target("", "cart", &[accepted()]),
        ]}),
        Some(json!({"ancestors": [
            of_target("example.com/x", "shop", &[foreign_condition("Accepted")]),
            gateway(CONTROLLER, "a", &[was_accepted(THEN)]),
            of_target(CONTROLLER, "shop", &[was_accepted(THEN), foreign_condition("example.com/A")]),
            of_target(CONTROLLER, "cart", &[was_accepted(NOW)]),
        ]})),
    )]);

    let many: Vec<_> = (0..20).map(|number| ancestor(CONTROLLER, &format!("s{number}"), &[programmed()])).collect();
    let merged = merge(Kind::KongUpstreamPolicy, &Value::Null, &json!({"ancestors": many}), &[], NOW);
    let written = merged.status.unwrap()["ancestors"].as_array().unwrap().clone();
    assert_eq!((written.len(), &written[15]["ancestorRef"]["name"]), (16, &json!("s15")));
    assert_eq!(merged.left_out, ["status.ancestors is full (at most 16 entries): no room for s16, s17, s18, s19"]);
}

#[test]
fn full_lists_get_no_entries_and_are_reported() {
    let controllers = [CONTROLLER.to_owned()];
    let accepted = condition("Accepted", "True", "Accepted");
    let others: Vec<_> =
        (0..32).map(|n| parent("example.com/other", &format!("g{n}"), &[foreign_condition("Accepted")])).collect();
    let desired = json!({"parents": [parent(CONTROLLER, "a", std::slice::from_ref(&accepted))]});

    let full = merge(Kind::HttpRoute, &json!({"parents": others}), &desired, &controllers, NOW);
    assert_eq!(full.status, None);
    assert_eq!(full.left_out, ["status.parents is full (at most 32 entries): no room for a"]);

    let mut with_removable = others.clone();
    with_removable[31] = parent(CONTROLLER, "gone", std::slice::from_ref(&accepted));
    let merged = merge(Kind::HttpRoute, &json!({"parents": with_removable}), &desired, &controllers, NOW);
    let parents = merged.status.unwrap()["parents"].as_array().unwrap().clone();
    assert_eq!((parents.len(), &parents[..31], &merged.left_out[..]), (32, &others[..31], &[][..]));

    let taken: Vec<_> = (0..7).map(|n| foreign_condition(&format!("example.com/{n}"))).collect();
    let desired = json!({"conditions": [accepted.clone(), condition("Programmed", "True", "Programmed")]});
    let merged = merge(Kind::Gateway, &json!({"conditions": taken}), &desired, &controllers, NOW);
    let conditions = merged.status.unwrap()["conditions"].as_array().unwrap().clone();
    assert_eq!((conditions.len(), &conditions[..7], &conditions[7]["type"]), (8, &taken[..], &json!("Accepted")));
    assert_eq!(merged.left_out, ["status.conditions is full (at most 8 conditions): no room for Programmed"]);

    let many: Vec<_> = (0..20).map(|n| json!({"type": "IPAddress", "value": format!("192.0.2.{n}")})).collect();
    let merged =
        merge(Kind::Gateway, &Value::Null, &json!({"conditions": [accepted], "addresses": many}), &controllers, NOW);
    assert_eq!(merged.status.unwrap()["addresses"].as_array().unwrap().len(), 16);
    assert_eq!(merged.left_out, ["status.addresses is full (at most 16 addresses): no room for 4 more"]);

    let many: Vec<_> = (0..70).map(|n| listener(&format!("l{n}"), 0, &[])).collect();
    let merged =
        merge(Kind::Gateway, &Value::Null, &json!({"conditions": [accepted], "listeners": many}), &controllers, NOW);
    assert_eq!(merged.status.unwrap()["listeners"].as_array().unwrap().len(), 64);
}

/// Invalid content from other controllers is replaced where Portico writes, and kept elsewhere.
#[test]
fn invalid_statuses_do_not_fail() {
    let controllers = [CONTROLLER.to_owned()];
    let desired = json!({
        "conditions": [condition("Accepted", "True", "Accepted")], "parents": [parent(CONTROLLER, "a", &[])],
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]},
    });
    for observed in
        [json!(7), json!([]), json!({"conditions": 3, "parents": "x", "listeners": {}}), json!({"parents": [1]})]
    {
        for kind in [Kind::GatewayClass, Kind::Gateway, Kind::HttpRoute, Kind::KongPlugin, Kind::TcpIngress] {
            let merged = merge(kind, &observed, &desired, &controllers, NOW);
            assert!(merged.status.is_some(), "{observed}");
        }
    }
}

#[test]
fn exactly_the_kinds_with_a_written_status_are_merged() {
    let desired = json!({
        "conditions": [condition("Programmed", "True", "Programmed")],
        "parents": [parent(CONTROLLER, "web", &[condition("Accepted", "True", "Accepted")])],
        "ancestors": [{"ancestorRef": {"name": "web"}, "controllerName": CONTROLLER, "conditions": []}],
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]},
    });
    for &kind in Kind::ALL {
        let merged = merge(kind, &Value::Null, &desired, &[CONTROLLER.to_owned()], NOW);
        assert_eq!(
            merged.status.is_some(),
            kind.has_written_status(),
            "{kind}: status_layout and the table of kinds disagree"
        );
    }
}
