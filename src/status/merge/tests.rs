//! Every trap of statuses, as a row: what was there, what we think, what is to be there. Sections cited are those of
//! Gateway API's own texts: GEP-1364 (status and conditions), and the conformance tests of 1.7.

use super::*;

const NOW: &str = "2030-01-01T00:00:00Z";
const THEN: &str = "2020-01-01T00:00:00Z";
const US: &str = "portico.dev/gateway-controller";

/// A condition of ours, without a time.
fn ours(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": 2})
}

/// The same as the API server has it.
fn stored(kind: &str, status: &str, reason: &str, since: &str) -> Value {
    let mut stored = ours(kind, status, reason);
    stored["lastTransitionTime"] = json!(since);
    stored
}

/// Somebody else's condition, with fields that we do not know.
fn foreign(kind: &str) -> Value {
    json!({
        "type": kind, "status": "True", "reason": "R", "message": "", "observedGeneration": 1,
        "lastTransitionTime": THEN, "extra": {"kept": [1, 2]},
    })
}

fn pending(kind: &str) -> Value {
    json!({
        "type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
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

struct Row {
    name: &'static str,
    kind: Kind,
    observed: Value,
    ours: Value,
    /// None if nothing is to be written.
    expected: Option<Value>,
}

fn row(name: &'static str, kind: Kind, observed: Value, ours: Value, expected: Option<Value>) -> Row {
    Row { name, kind, observed, ours, expected }
}

fn check(rows: Vec<Row>) {
    let us = [US.to_owned(), "konghq.com/kic-gateway-controller".to_owned()];
    for Row { name, kind, observed, ours, expected } in rows {
        let merged = merge(kind, &observed, &ours, &us, NOW);
        // As text too: others' entries are the same to the byte, in the same order.
        let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
        assert_eq!(merged.status, expected, "{name}:\n{:?}\n{:?}", text(&merged.status), text(&expected));
        assert_eq!(merged.left_out, Vec::<String>::new(), "{name}");
        if let Some(status) = merged.status {
            let again = merge(kind, &status, &ours, &us, "2040-01-01T00:00:00Z");
            assert_eq!(again.status, None, "{name}: what was just written needs no writing");
        }
    }
}

#[test]
fn objects_of_ours() {
    let accepted = || ours("Accepted", "True", "Accepted");
    check(vec![
        row(
            "defaults of the CRD are no answer (conformance: stale Pending without generation)",
            Kind::Gateway,
            json!({"conditions": [pending("Accepted"), pending("Programmed")]}),
            json!({"conditions": [accepted(), ours("Programmed", "False", "Invalid")]}),
            Some(json!({"conditions": [
                stored("Accepted", "True", "Accepted", NOW), stored("Programmed", "False", "Invalid", NOW),
            ]})),
        ),
        row(
            "no status yet",
            Kind::GatewayClass,
            Value::Null,
            json!({"conditions": [accepted()], "supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}]}),
            Some(json!({
                "conditions": [stored("Accepted", "True", "Accepted", NOW)],
                "supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}],
            })),
        ),
        row(
            "nothing to write if only the time would differ",
            Kind::GatewayClass,
            json!({"conditions": [stored("Accepted", "True", "Accepted", THEN)]}),
            json!({"conditions": [accepted()]}),
            None,
        ),
        row(
            "lastTransitionTime stays while the status does, whatever else changes (GEP-1364)",
            Kind::Gateway,
            json!({"conditions": [stored("Accepted", "True", "ListenersNotValid", THEN)]}),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "and moves when it flips",
            Kind::Gateway,
            json!({"conditions": [stored("Accepted", "False", "ListenersNotValid", THEN)]}),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored("Accepted", "True", "Accepted", NOW)]})),
        ),
        row(
            "observedGeneration rises on conditions that did not change otherwise (conformance: all at once)",
            Kind::Gateway,
            {
                let mut old = stored("Accepted", "True", "Accepted", THEN);
                old["observedGeneration"] = json!(1);
                json!({"conditions": [old]})
            },
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "conditions of others stay in place, to the byte (GatewayPreserveForeignConditions)",
            Kind::Gateway,
            json!({"conditions": [foreign("example.com/A"), pending("Accepted"), foreign("Ready")], "extra": [null, 1]}),
            json!({"conditions": [accepted(), ours("Programmed", "True", "Programmed")]}),
            Some(json!({
                "conditions": [
                    foreign("example.com/A"), stored("Accepted", "True", "Accepted", NOW), foreign("Ready"),
                    stored("Programmed", "True", "Programmed", NOW),
                ],
                "extra": [null, 1],
            })),
        ),
        row(
            "addresses that are gone are removed",
            Kind::Gateway,
            json!({
                "conditions": [stored("Accepted", "True", "Accepted", THEN)],
                "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
            }),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "an empty list may stay where it is",
            Kind::Gateway,
            json!({"conditions": [stored("Accepted", "True", "Accepted", THEN)], "addresses": [], "listeners": []}),
            json!({"conditions": [accepted()]}),
            None,
        ),
        row(
            "a Gateway of another controller's class, which has conditions of the same types",
            Kind::Gateway,
            json!({
                "conditions": [stored("Accepted", "True", "Accepted", THEN)],
                "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
                "listeners": [listener("http", 1, &[stored("Accepted", "True", "Accepted", THEN)])],
            }),
            json!({"notes": ["spec.gatewayClassName: GatewayClass x belongs to another controller; …"]}),
            None,
        ),
        row(
            "kinds without a status of ours are left alone",
            Kind::Service,
            json!({"a": 1}),
            json!({"notes": []}),
            None,
        ),
    ]);
}

/// Listeners of a Gateway whose own condition is as it should be.
#[test]
fn listeners_of_a_gateway() {
    let accepted = || ours("Accepted", "True", "Accepted");
    let mut rows = vec![
        row(
            "what we no longer say of a listener vanishes; what others say of it stays",
            Kind::Gateway,
            json!({"listeners": [listener("http", 0, &[
                stored("Conflicted", "True", "HostnameConflict", THEN), foreign("example.com/A"),
                stored("Accepted", "False", "HostnameConflict", THEN),
            ])]}),
            json!({"listeners": [listener("http", 0, &[accepted()])]}),
            Some(json!({"listeners": [listener("http", 0, &[
                foreign("example.com/A"), stored("Accepted", "True", "Accepted", NOW),
            ])]})),
        ),
        row(
            "listeners are those of the spec, in its order; attachedListenerSets is not ours",
            Kind::Gateway,
            json!({
                "attachedListenerSets": 3,
                "listeners": [
                    listener("gone", 7, &[foreign("example.com/A")]),
                    listener("second", 1, &[stored("Accepted", "True", "Accepted", THEN)]),
                ],
            }),
            json!({"listeners": [listener("first", 0, &[accepted()]), listener("second", 2, &[accepted()])]}),
            Some(json!({
                "attachedListenerSets": 3,
                "listeners": [
                    listener("first", 0, &[stored("Accepted", "True", "Accepted", NOW)]),
                    listener("second", 2, &[stored("Accepted", "True", "Accepted", THEN)]),
                ],
            })),
        ),
        row(
            "an empty supportedKinds is written out (GatewayInvalidRouteKind)",
            Kind::Gateway,
            json!({"listeners": [{
                "name": "http", "attachedRoutes": 0, "supportedKinds": [{"kind": "HTTPRoute"}],
                "conditions": [stored("Accepted", "True", "Accepted", THEN)],
            }]}),
            json!({"listeners": [listener("http", 0, &[accepted()])]}),
            Some(json!({"listeners": [listener("http", 0, &[stored("Accepted", "True", "Accepted", THEN)])]})),
        ),
    ];
    for row in &mut rows {
        row.ours["conditions"] = json!([accepted()]);
        for stored_status in [Some(&mut row.observed), row.expected.as_mut()].into_iter().flatten() {
            stored_status["conditions"] = json!([stored("Accepted", "True", "Accepted", THEN)]);
        }
    }
    check(rows);
}

#[test]
fn routes() {
    let accepted = || ours("Accepted", "True", "Accepted");
    let since = |time| stored("Accepted", "True", "Accepted", time);
    let other = || parent("example.com/other", "theirs", &[foreign("Accepted")]);
    check(vec![
        row("a route of others gets not a word", Kind::HttpRoute, Value::Null, json!({}), None),
        row("nor does their entry change", Kind::HttpRoute, json!({"parents": [other()]}), json!({}), None),
        row(
            "entries of others stay in place, to the byte (HTTPRoutePreserveForeignStatus)",
            Kind::HttpRoute,
            json!({"parents": [other(), parent(US, "a", &[pending("Accepted")]), other()]}),
            json!({"parents": [parent(US, "b", &[accepted()]), parent(US, "a", &[accepted()])]}),
            Some(json!({"parents": [
                other(), parent(US, "a", &[since(NOW)]), other(), parent(US, "b", &[since(NOW)]),
            ]})),
        ),
        row(
            "an entry of ours for a parent that was dropped, or a Gateway that is gone, vanishes",
            Kind::HttpRoute,
            json!({"parents": [parent(US, "a", &[since(THEN)]), other(), parent(US, "b", &[since(THEN)])]}),
            json!({"parents": [parent(US, "b", &[accepted()])]}),
            Some(json!({"parents": [other(), parent(US, "b", &[since(THEN)])]})),
        ),
        row(
            "the last one leaves an empty list, which the API demands",
            Kind::HttpRoute,
            json!({"parents": [parent(US, "a", &[since(THEN)])]}),
            json!({}),
            Some(json!({"parents": []})),
        ),
        row(
            "one entry per parentRef: a second one of ours vanishes",
            Kind::HttpRoute,
            json!({"parents": [parent(US, "a", &[since(THEN)]), parent(US, "a", &[since(THEN)])]}),
            json!({"parents": [parent(US, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(US, "a", &[since(THEN)])]})),
        ),
        row(
            "the class went from one name of ours to the other",
            Kind::HttpRoute,
            json!({"parents": [parent("konghq.com/kic-gateway-controller", "a", &[since(THEN)])]}),
            json!({"parents": [parent(US, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(US, "a", &[since(NOW)])]})),
        ),
        row(
            "parentRef echoes the spec, also where an older entry left defaults out",
            Kind::HttpRoute,
            json!({"parents": [
                {"parentRef": {"name": "a"}, "controllerName": US, "conditions": [since(THEN)]},
            ]}),
            json!({"parents": [parent(US, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(US, "a", &[since(THEN)])]})),
        ),
        row(
            "PartiallyInvalid that is mended is removed, not set to False; what others put into our entry stays",
            Kind::HttpRoute,
            json!({"parents": [parent(US, "a", &[
                stored("PartiallyInvalid", "True", "UnsupportedValue", THEN), since(THEN), foreign("example.com/A"),
            ])]}),
            json!({"parents": [parent(US, "a", &[accepted()])]}),
            Some(json!({"parents": [parent(US, "a", &[since(THEN), foreign("example.com/A")])]})),
        ),
    ]);
}

// kong-compat §1.10
#[test]
fn a_license_says_what_each_controller_makes_of_it() {
    let condition = json!({"type": "Programmed", "status": "True", "reason": "Programmed", "message": "m", "observedGeneration": 1});
    let theirs =
        json!({"controllerName": "konghq.com/kong-ingress-controller/kong", "conditions": [{"type": "Programmed"}]});
    let observed = json!({"controllers": [theirs]});
    let ours = json!({"conditions": [condition]});
    let merged = merge(Kind::KongLicense, &observed, &ours, &[], "now").status.unwrap();
    let mut stamped = condition.clone();
    stamped["lastTransitionTime"] = json!("now");
    let own = json!({"controllerName": US, "conditions": [stamped]});
    assert_eq!(merged, json!({"controllers": [theirs, own]}));
    assert_eq!(merge(Kind::KongLicense, &merged, &ours, &[], "later").status, None, "it says so already");
}

// kong-compat §1.2
#[test]
fn what_became_of_plugins_and_consumers() {
    let programmed = || ours("Programmed", "True", "Programmed");
    let kongs = |status: &str, reason: &str, message: &str| {
        let mut condition = stored("Programmed", status, reason, THEN);
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
            "the default of the CRD is no answer, and what others say stays",
            kind,
            json!({"conditions": [foreign("KonnectEntityProgrammed"), pending("Programmed")], "konnect": {"id": "x"}}),
            json!({"conditions": [programmed()], "notes": ["n"]}),
            Some(json!({
                "conditions": [foreign("KonnectEntityProgrammed"), stored("Programmed", "True", "Programmed", NOW)],
                "konnect": {"id": "x"},
            })),
        ));
        rows.push(row(
            "of another class",
            kind,
            json!({"conditions": [kongs("True", "Programmed", "Object was successfully configured in Kong.")]}),
            json!({"notes": ["of another class"]}),
            None,
        ));
    }
    let kongs_own = kongs("True", "Programmed", "Object was successfully configured in Kong.");
    rows.extend([
        row(
            "a plugin that nothing of ours uses is judged by Kong",
            Kind::KongPlugin,
            json!({"conditions": [kongs_own.clone()]}),
            json!({"conditions": [ours("Programmed", "False", "Pending")]}),
            None,
        ),
        row(
            "and by us as soon as something does",
            Kind::KongPlugin,
            json!({"conditions": [kongs_own]}),
            json!({"conditions": [programmed()]}),
            Some(json!({"conditions": [stored("Programmed", "True", "Programmed", THEN)]})),
        ),
        row(
            "what we have said is ours to take back",
            Kind::KongPlugin,
            json!({"conditions": [stored("Programmed", "True", "Programmed", THEN)]}),
            json!({"conditions": [ours("Programmed", "False", "Pending")]}),
            Some(json!({"conditions": [stored("Programmed", "False", "Pending", NOW)]})),
        ),
    ]);
    check(rows);
}

// kong-compat §3.13
#[test]
fn where_an_ingress_is_reached() {
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
            row("it is there already", kind, at(json!([{"ip": "192.0.2.1"}])), at(json!([{"ip": "192.0.2.1"}])), None),
            row(
                "what others add to an entry stays with it",
                kind,
                at(json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}, {"ip": "192.0.2.9"}])),
                at(json!([{"ip": "192.0.2.1"}])),
                Some(at(json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}]))),
            ),
            row(
                "reached nowhere",
                kind,
                at(json!([{"ip": "192.0.2.1"}])),
                at(json!([])),
                Some(json!({"loadBalancer": {}})),
            ),
            row("nowhere as before", kind, json!({"loadBalancer": {}}), at(json!([])), None),
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
        "an Ingress has no conditions, whatever is wrong with it",
        Kind::Ingress,
        Value::Null,
        json!({"conditions": [ours("Programmed", "False", "Invalid")]}),
        None,
    ));
    check(rows);
}

// kong-compat §1.7
#[test]
fn users_of_a_policy() {
    let user = |controller: &str, name: &str, conditions: &[Value]| {
        json!({
            "ancestorRef": {"group": "core", "kind": "Service", "name": name},
            "controllerName": controller,
            "conditions": conditions,
        })
    };
    let kongs = "konghq.com/kic-gateway-controller";
    let programmed = || ours("Programmed", "True", "Programmed");
    let kept = |since: &str| stored("Programmed", "True", "Programmed", since);
    check(vec![
        row(
            "entries of others stay, those of users that are gone vanish, and what was Kong's is ours under our name",
            Kind::KongUpstreamPolicy,
            json!({"ancestors": [
                user(US, "gone", &[kept(THEN)]), user("example.com/x", "a", &[foreign("Accepted")]),
                user(kongs, "old", &[kept(THEN), foreign("example.com/A")]),
            ]}),
            json!({"ancestors": [user(US, "old", &[programmed()]), user(US, "young", &[programmed()])]}),
            Some(json!({"ancestors": [
                user("example.com/x", "a", &[foreign("Accepted")]),
                user(US, "old", &[kept(THEN), foreign("example.com/A")]), user(US, "young", &[kept(NOW)]),
            ]})),
        ),
        row("nobody uses it", Kind::KongUpstreamPolicy, Value::Null, json!({}), None),
        row(
            "nobody does any more",
            Kind::KongUpstreamPolicy,
            json!({"ancestors": [user(US, "gone", &[kept(THEN)])]}),
            json!({}),
            Some(json!({"ancestors": []})),
        ),
    ]);

    let many: Vec<_> = (0..20).map(|number| user(US, &format!("s{number}"), &[programmed()])).collect();
    let merged = merge(Kind::KongUpstreamPolicy, &Value::Null, &json!({"ancestors": many}), &[], NOW);
    let written = merged.status.unwrap()["ancestors"].as_array().unwrap().clone();
    assert_eq!((written.len(), &written[15]["ancestorRef"]["name"]), (16, &json!("s15")));
    assert_eq!(merged.left_out, ["status.ancestors is full, at most 16 entries: no room for s16, s17, s18, s19"]);
}

#[test]
fn lists_that_others_have_filled_get_nothing_more_and_say_so() {
    let us = [US.to_owned()];
    let accepted = ours("Accepted", "True", "Accepted");
    let others: Vec<_> =
        (0..32).map(|n| parent("example.com/other", &format!("g{n}"), &[foreign("Accepted")])).collect();
    let mine = json!({"parents": [parent(US, "a", std::slice::from_ref(&accepted))]});

    let full = merge(Kind::HttpRoute, &json!({"parents": others}), &mine, &us, NOW);
    assert_eq!(full.status, None);
    assert_eq!(full.left_out, ["status.parents is full, at most 32 entries: no room for a"]);

    let mut last = others.clone();
    last[31] = parent(US, "gone", std::slice::from_ref(&accepted));
    let room = merge(Kind::HttpRoute, &json!({"parents": last}), &mine, &us, NOW);
    let parents = room.status.unwrap()["parents"].as_array().unwrap().clone();
    assert_eq!((parents.len(), &parents[..31], &room.left_out[..]), (32, &others[..31], &[][..]));

    let taken: Vec<_> = (0..7).map(|n| foreign(&format!("example.com/{n}"))).collect();
    let mine = json!({"conditions": [accepted.clone(), ours("Programmed", "True", "Programmed")]});
    let merged = merge(Kind::Gateway, &json!({"conditions": taken}), &mine, &us, NOW);
    let conditions = merged.status.unwrap()["conditions"].as_array().unwrap().clone();
    assert_eq!((conditions.len(), &conditions[..7], &conditions[7]["type"]), (8, &taken[..], &json!("Accepted")));
    assert_eq!(merged.left_out, ["status.conditions is full, at most 8 conditions: no room for Programmed"]);

    let many: Vec<_> = (0..20).map(|n| json!({"type": "IPAddress", "value": format!("192.0.2.{n}")})).collect();
    let merged = merge(Kind::Gateway, &Value::Null, &json!({"conditions": [accepted], "addresses": many}), &us, NOW);
    assert_eq!(merged.status.unwrap()["addresses"].as_array().unwrap().len(), 16);
    assert_eq!(merged.left_out, ["status.addresses takes 16 addresses: no room for 4 more"]);

    let many: Vec<_> = (0..70).map(|n| listener(&format!("l{n}"), 0, &[])).collect();
    let merged = merge(Kind::Gateway, &Value::Null, &json!({"conditions": [accepted], "listeners": many}), &us, NOW);
    assert_eq!(merged.status.unwrap()["listeners"].as_array().unwrap().len(), 64);
}

/// Whatever others wrote into a status, it is only carried along.
#[test]
fn nonsense_is_no_reason_to_fail() {
    let us = [US.to_owned()];
    let mine = json!({
        "conditions": [ours("Accepted", "True", "Accepted")], "parents": [parent(US, "a", &[])],
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]},
    });
    for observed in
        [json!(7), json!([]), json!({"conditions": 3, "parents": "x", "listeners": {}}), json!({"parents": [1]})]
    {
        for kind in [Kind::GatewayClass, Kind::Gateway, Kind::HttpRoute, Kind::KongPlugin, Kind::TcpIngress] {
            let merged = merge(kind, &observed, &mine, &us, NOW);
            assert!(merged.status.is_some(), "{observed}");
        }
    }
}
