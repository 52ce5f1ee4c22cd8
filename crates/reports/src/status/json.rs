//! A verdict in the form of an object's `status`, without the timestamps that only the API server's copy has.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::api::kind::GATEWAY_GROUP;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::api::{Kind, ObjectKey};
use crate::verdict::{
    AncestorReference, AncestorVerdict, Condition, ListenerVerdict, ParentVerdict, PublishedAddress, Verdict,
};

/// The `status` for a verdict. Diagnostics that are in no condition are under `notes`, and
/// policies of objects without conditions under `affectedBy`; neither is part of any API.
pub fn status(verdict: &Verdict) -> Value {
    with_acceptance(verdict, None)
}

/// The `status` for a verdict in a cluster, from which a new process learns which Gateways were accepted.
pub(super) fn status_in_cluster(verdict: &Verdict) -> Value {
    with_acceptance(verdict, verdict.acceptance.as_deref())
}

fn with_acceptance(verdict: &Verdict, acceptance: Option<&str>) -> Value {
    let generation = verdict.generation;
    let condition = |condition: &Condition| {
        let mut message = condition.message();
        if let Some(acceptance) = acceptance
            && condition.code.condition() == "Accepted"
            && condition.code.status()
        {
            message = format!("{acceptance} {message}");
        }
        condition_json(condition, generation, message)
    };
    let listener = |listener: &ListenerVerdict| listener_json(listener, generation);
    let parent = |parent: &ParentVerdict| parent_json(parent, generation);
    let ancestor = |ancestor: &AncestorVerdict| ancestor_json(ancestor, generation);
    let lists = [
        ("conditions", verdict.conditions.iter().map(condition).collect::<Vec<_>>()),
        ("supportedFeatures", verdict.supported_features.iter().map(|name| json!({"name": name})).collect()),
        ("addresses", verdict.addresses.iter().map(|address| address_json(address)).collect()),
        ("listeners", verdict.listeners.iter().map(listener).collect()),
        ("parents", verdict.parents.iter().map(parent).collect()),
        ("ancestors", verdict.ancestors.iter().map(ancestor).collect()),
        ("notes", verdict.diagnostics.iter().map(|diagnostic| json!(diagnostic.to_string())).collect()),
    ];
    let mut status = Map::new();
    for (key, list) in lists {
        if !list.is_empty() {
            status.insert(key.to_owned(), Value::Array(list));
        }
    }
    if let Some(fact) = &verdict.affected_by {
        status.insert("affectedBy".to_owned(), json!(fact));
    }
    if let Some(count) = verdict.attached_listener_sets {
        status.insert("attachedListenerSets".to_owned(), json!(count));
    }
    if let Some(published) = &verdict.load_balancer {
        let entries: Vec<_> = published.iter().map(published_json).collect();
        status.insert("loadBalancer".to_owned(), json!({"ingress": entries}));
    }
    Value::Object(status)
}

fn address_json(address: &str) -> Value {
    let address_type = if address.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    json!({"type": address_type, "value": address})
}

fn listener_json(listener: &ListenerVerdict, generation: i64) -> Value {
    let kinds: Vec<_> =
        listener.supported_kinds.iter().map(|kind| json!({"group": kind.group, "kind": kind.kind})).collect();
    json!({
        "name": listener.name,
        "attachedRoutes": listener.attached_routes,
        "supportedKinds": kinds,
        "conditions": conditions_json(&listener.conditions, generation),
    })
}

fn parent_json(parent: &ParentVerdict, generation: i64) -> Value {
    let reference = &parent.parent;
    let mut parent_ref = json!({"group": reference.group, "kind": reference.kind, "name": reference.name});
    let optional = [
        ("namespace", reference.namespace.as_ref().map(|namespace| json!(namespace))),
        ("sectionName", reference.section_name.as_ref().map(|section| json!(section))),
        ("port", reference.port.map(|port| json!(port))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            parent_ref[key] = value;
        }
    }
    json!({
        "parentRef": parent_ref,
        "controllerName": &*parent.controller,
        "conditions": conditions_json(&parent.conditions, generation),
    })
}

fn ancestor_json(ancestor: &AncestorVerdict, generation: i64) -> Value {
    let reference = match &ancestor.reference {
        AncestorReference::Gateway(ObjectKey { namespace, name }) => {
            json!({"group": GATEWAY_GROUP, "kind": Kind::Gateway.name(), "namespace": &**namespace, "name": &**name})
        }
        AncestorReference::Referrer(kind, name) => {
            json!({"group": ancestor_group(*kind), "kind": kind.name(), "name": &**name})
        }
        AncestorReference::Target(kind, name) => {
            json!({"group": kind.group(), "kind": kind.name(), "name": &**name})
        }
    };
    json!({
        "ancestorRef": reference,
        "controllerName": ancestor.controller.as_deref().unwrap_or(GATEWAY_CONTROLLER),
        "conditions": conditions_json(&ancestor.conditions, generation),
    })
}

fn published_json(published: &PublishedAddress) -> Value {
    match published {
        PublishedAddress::Ip(ip) => json!({"ip": ip}),
        PublishedAddress::Hostname(hostname) => json!({"hostname": hostname}),
    }
}

/// The group of an `ancestorRef`. Kong's controller writes `core` for the core group, whose name is empty.
fn ancestor_group(kind: Kind) -> &'static str {
    if kind == Kind::Service { "core" } else { kind.group() }
}

fn conditions_json(conditions: &[Condition], generation: i64) -> Vec<Value> {
    conditions.iter().map(|condition| condition_json(condition, generation, condition.message())).collect()
}

fn condition_json(condition: &Condition, generation: i64, message: String) -> Value {
    json!({
        "type": condition.code.condition(),
        "status": if condition.code.status() { "True" } else { "False" },
        "reason": condition.code.reason(),
        "message": truncate_message(message),
        "observedGeneration": generation,
    })
}

/// The API rejects longer messages, and with them the whole status.
const MAX_MESSAGE_BYTES: usize = 32_768;

fn truncate_message(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let ellipsis = "…";
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - ellipsis.len()));
        message.push_str(ellipsis);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Code;

    #[test]
    fn accepted_gateways_name_their_controller_and_class_in_a_cluster() {
        let message = |code: Code| {
            let conditions = vec![Condition::without_diagnostics(code)];
            let verdict = Verdict { conditions, acceptance: Some("Accepted by x/y.".to_owned()), ..Verdict::default() };
            assert_eq!(status(&verdict)["conditions"][0]["message"], code.sentence());
            status_in_cluster(&verdict)["conditions"][0]["message"].as_str().unwrap().to_owned()
        };
        assert_eq!(message(Code::GatewayAccepted), "Accepted by x/y. The Gateway is valid.");
        for code in [Code::GatewayInvalid, Code::GatewayProgrammed] {
            assert_eq!(message(code), code.sentence());
        }
    }

    // docs/kong-compatibility.md, 1.7, 3.13, 7.28
    #[test]
    fn status_of_policies_and_ingresses() {
        let ancestor = |kind, name: &str| AncestorVerdict {
            reference: AncestorReference::Referrer(kind, name.into()),
            controller: None,
            conditions: vec![Condition::without_diagnostics(Code::ObjectProgrammed)],
        };
        let verdict = Verdict {
            generation: 3,
            ancestors: vec![ancestor(Kind::Service, "shop"), ancestor(Kind::KongServiceFacade, "front")],
            load_balancer: Some(vec![
                PublishedAddress::Ip("192.0.2.1".to_owned()),
                PublishedAddress::Hostname("a.test".to_owned()),
            ]),
            ..Verdict::default()
        };
        let conditions = json!([{
            "type": "Programmed", "status": "True", "reason": "Programmed", "message": "The object is in effect.",
            "observedGeneration": 3,
        }]);
        let entry = |group: &str, kind: &str, name: &str| {
            json!({
                "ancestorRef": {"group": group, "kind": kind, "name": name},
                "controllerName": "portico.dev/gateway-controller",
                "conditions": conditions,
            })
        };
        let expected = json!({
            "ancestors": [
                entry("core", "Service", "shop"),
                entry("incubator.ingress-controller.konghq.com", "KongServiceFacade", "front"),
            ],
            "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.test"}]},
        });
        assert_eq!(status(&verdict), expected);
        let nowhere = Verdict { load_balancer: Some(Vec::new()), ..Verdict::default() };
        assert_eq!(status(&nowhere), json!({"loadBalancer": {"ingress": []}}));
        assert_eq!(status(&Verdict::default()), json!({}));
    }
}
