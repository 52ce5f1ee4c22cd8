//! Statuses of GatewayClasses, Gateways and ListenerSets.

use super::*;

#[test]
fn gateways_and_classes() {
    let accepted = || condition("Accepted", "True", "Accepted");
    check_merges(vec![
        row(
            "defaults of the CRD are replaced (conformance: stale Pending without generation)",
            Kind::Gateway,
            json!({"conditions": [pending_condition("Accepted"), pending_condition("Programmed")]}),
            json!({"conditions": [accepted(), condition("Programmed", "False", "Invalid")]}),
            Some(json!({"conditions": [
                stored_condition("Accepted", "True", "Accepted", NOW), stored_condition("Programmed", "False", "Invalid", NOW),
            ]})),
        ),
        row(
            "no status yet",
            Kind::GatewayClass,
            Value::Null,
            json!({"conditions": [accepted()], "supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}]}),
            Some(json!({
                "conditions": [stored_condition("Accepted", "True", "Accepted", NOW)],
                "supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}],
            })),
        ),
        row(
            "no write if only the time would differ",
            Kind::GatewayClass,
            json!({"conditions": [stored_condition("Accepted", "True", "Accepted", THEN)]}),
            json!({"conditions": [accepted()]}),
            None,
        ),
        row(
            "lastTransitionTime stays while the status does, whatever else changes (GEP-1364)",
            Kind::Gateway,
            json!({"conditions": [stored_condition("Accepted", "True", "ListenersNotValid", THEN)]}),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored_condition("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "lastTransitionTime changes with the status",
            Kind::Gateway,
            json!({"conditions": [stored_condition("Accepted", "False", "ListenersNotValid", THEN)]}),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored_condition("Accepted", "True", "Accepted", NOW)]})),
        ),
        row(
            "observedGeneration rises on conditions that did not change otherwise (conformance: all at once)",
            Kind::Gateway,
            {
                let mut old = stored_condition("Accepted", "True", "Accepted", THEN);
                old["observedGeneration"] = json!(1);
                json!({"conditions": [old]})
            },
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored_condition("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "conditions of others stay in place, to the byte (GatewayPreserveForeignConditions)",
            Kind::Gateway,
            json!({"conditions": [foreign_condition("example.com/A"), pending_condition("Accepted"), foreign_condition("Ready")], "extra": [null, 1]}),
            json!({"conditions": [accepted(), condition("Programmed", "True", "Programmed")]}),
            Some(json!({
                "conditions": [
                    foreign_condition("example.com/A"), stored_condition("Accepted", "True", "Accepted", NOW), foreign_condition("Ready"),
                    stored_condition("Programmed", "True", "Programmed", NOW),
                ],
                "extra": [null, 1],
            })),
        ),
        row(
            "dropped addresses are removed",
            Kind::Gateway,
            json!({
                "conditions": [stored_condition("Accepted", "True", "Accepted", THEN)],
                "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
            }),
            json!({"conditions": [accepted()]}),
            Some(json!({"conditions": [stored_condition("Accepted", "True", "Accepted", THEN)]})),
        ),
        row(
            "an empty list stays",
            Kind::Gateway,
            json!({"conditions": [stored_condition("Accepted", "True", "Accepted", THEN)], "addresses": [], "listeners": []}),
            json!({"conditions": [accepted()]}),
            None,
        ),
        row(
            "a Gateway of another controller's class, which has conditions of the same types",
            Kind::Gateway,
            json!({
                "conditions": [stored_condition("Accepted", "True", "Accepted", THEN)],
                "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
                "listeners": [listener("http", 1, &[stored_condition("Accepted", "True", "Accepted", THEN)])],
            }),
            json!({"notes": ["spec.gatewayClassName: GatewayClass x belongs to another controller; …"]}),
            None,
        ),
        row("kinds without a Portico status are unchanged", Kind::Service, json!({"a": 1}), json!({"notes": []}), None),
    ]);
}

/// Listeners of a Gateway whose own condition is up to date.
#[test]
fn listeners_of_a_gateway() {
    let accepted = || condition("Accepted", "True", "Accepted");
    let mut rows = vec![
        row(
            "outdated conditions of a listener are removed; those of others stay",
            Kind::Gateway,
            json!({"listeners": [listener("http", 0, &[
                stored_condition("Conflicted", "True", "HostnameConflict", THEN), foreign_condition("example.com/A"),
                stored_condition("Accepted", "False", "HostnameConflict", THEN),
            ])]}),
            json!({"listeners": [listener("http", 0, &[accepted()])]}),
            Some(json!({"listeners": [listener("http", 0, &[
                foreign_condition("example.com/A"), stored_condition("Accepted", "True", "Accepted", NOW),
            ])]})),
        ),
        row(
            "listeners are those of the spec, in its order",
            Kind::Gateway,
            json!({
                "listeners": [
                    listener("gone", 7, &[foreign_condition("example.com/A")]),
                    listener("second", 1, &[stored_condition("Accepted", "True", "Accepted", THEN)]),
                ],
            }),
            json!({"listeners": [listener("first", 0, &[accepted()]), listener("second", 2, &[accepted()])]}),
            Some(json!({
                "listeners": [
                    listener("first", 0, &[stored_condition("Accepted", "True", "Accepted", NOW)]),
                    listener("second", 2, &[stored_condition("Accepted", "True", "Accepted", THEN)]),
                ],
            })),
        ),
        row(
            "the number of ListenerSets is replaced",
            Kind::Gateway,
            json!({"attachedListenerSets": 3}),
            json!({"attachedListenerSets": 0}),
            Some(json!({"attachedListenerSets": 0})),
        ),
        row(
            "the number of ListenerSets is removed with the last one",
            Kind::Gateway,
            json!({"attachedListenerSets": 3}),
            json!({}),
            Some(json!({})),
        ),
        row(
            "listeners of a ListenerSet",
            Kind::ListenerSet,
            json!({"listeners": [
                listener("gone", 7, &[foreign_condition("example.com/A")]),
                listener("http", 1, &[
                    foreign_condition("example.com/A"), stored_condition("Accepted", "False", "HostnameConflict", THEN),
                ]),
            ]}),
            json!({"listeners": [listener("http", 2, &[accepted()])]}),
            Some(json!({"listeners": [listener("http", 2, &[
                foreign_condition("example.com/A"), stored_condition("Accepted", "True", "Accepted", NOW),
            ])]})),
        ),
        row(
            "an empty supportedKinds is written out (GatewayInvalidRouteKind)",
            Kind::Gateway,
            json!({"listeners": [{
                "name": "http", "attachedRoutes": 0, "supportedKinds": [{"kind": "HTTPRoute"}],
                "conditions": [stored_condition("Accepted", "True", "Accepted", THEN)],
            }]}),
            json!({"listeners": [listener("http", 0, &[accepted()])]}),
            Some(
                json!({"listeners": [listener("http", 0, &[stored_condition("Accepted", "True", "Accepted", THEN)])]}),
            ),
        ),
    ];
    for row in &mut rows {
        row.desired["conditions"] = json!([accepted()]);
        for stored_status in [Some(&mut row.observed), row.expected.as_mut()].into_iter().flatten() {
            stored_status["conditions"] = json!([stored_condition("Accepted", "True", "Accepted", THEN)]);
        }
    }
    check_merges(rows);
}
