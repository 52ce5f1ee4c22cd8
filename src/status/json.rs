//! A verdict in the form of an object's `status`, without the timestamps that only the API server's copy has.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::api::Kind;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::compile::verdict::{AncestorVerdict, Condition, Published, Verdict};

/// The `status` for a verdict. Remarks on objects without conditions are under `notes`, which is not part of any API.
pub fn status(verdict: &Verdict) -> Value {
    let conditions = |list: &[Condition]| -> Vec<Value> {
        list.iter().map(|condition| describe(condition, verdict.generation)).collect()
    };
    let mut status = Map::new();
    if !verdict.conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(conditions(&verdict.conditions)));
    }
    if !verdict.supported_features.is_empty() {
        let features = verdict.supported_features.iter().map(|name| json!({"name": name}));
        status.insert("supportedFeatures".to_owned(), features.collect());
    }
    if !verdict.addresses.is_empty() {
        let address = |value: &String| {
            let kind = if value.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
            json!({"type": kind, "value": value})
        };
        status.insert("addresses".to_owned(), verdict.addresses.iter().map(address).collect());
    }
    if !verdict.listeners.is_empty() {
        let listeners = verdict.listeners.iter().map(|listener| {
            let kinds: Vec<_> =
                listener.supported_kinds.iter().map(|kind| json!({"group": kind.group, "kind": kind.kind})).collect();
            json!({
                "name": listener.name,
                "attachedRoutes": listener.attached_routes,
                "supportedKinds": kinds,
                "conditions": conditions(&listener.conditions),
            })
        });
        status.insert("listeners".to_owned(), listeners.collect());
    }
    if !verdict.parents.is_empty() {
        let parents = verdict.parents.iter().map(|parent| {
            let reference = &parent.parent;
            let mut described = json!({"group": reference.group, "kind": reference.kind, "name": reference.name});
            let optional = [
                ("namespace", reference.namespace.as_ref().map(|namespace| json!(namespace))),
                ("sectionName", reference.section_name.as_ref().map(|section| json!(section))),
                ("port", reference.port.map(|port| json!(port))),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    described[key] = value;
                }
            }
            json!({
                "parentRef": described,
                "controllerName": &*parent.controller,
                "conditions": conditions(&parent.conditions),
            })
        });
        status.insert("parents".to_owned(), parents.collect());
    }
    if !verdict.ancestors.is_empty() {
        let ancestor = |ancestor: &AncestorVerdict| {
            json!({
                "ancestorRef": {
                    "group": ancestor_group(ancestor.kind),
                    "kind": ancestor.kind.name(),
                    "name": &*ancestor.name,
                },
                "controllerName": GATEWAY_CONTROLLER,
                "conditions": conditions(&ancestor.conditions),
            })
        };
        status.insert("ancestors".to_owned(), verdict.ancestors.iter().map(ancestor).collect());
    }
    if let Some(published) = &verdict.load_balancer {
        let entry = |published: &Published| match published {
            Published::Ip(ip) => json!({"ip": ip}),
            Published::Hostname(hostname) => json!({"hostname": hostname}),
        };
        let entries: Vec<_> = published.iter().map(entry).collect();
        status.insert("loadBalancer".to_owned(), json!({"ingress": entries}));
    }
    if !verdict.diagnostics.is_empty() {
        let notes: Vec<_> = verdict.diagnostics.iter().map(ToString::to_string).collect();
        status.insert("notes".to_owned(), json!(notes));
    }
    Value::Object(status)
}

/// Kong's name for the core group, which is empty.
fn ancestor_group(kind: Kind) -> &'static str {
    if kind == Kind::Service { "core" } else { kind.group() }
}

fn describe(condition: &Condition, generation: i64) -> Value {
    json!({
        "type": condition.code.condition(),
        "status": if condition.code.status() { "True" } else { "False" },
        "reason": condition.code.reason(),
        "message": truncate_message(condition.message()),
        "observedGeneration": generation,
    })
}

/// The API rejects longer messages, and with them the whole status.
const MAX_MESSAGE_BYTES: usize = 32_768;

fn truncate_message(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = "…";
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - end.len()));
        message.push_str(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::verdict::Code;

    // docs/kong-compatibility.md, 1.7, 3.13 and 7.28.
    #[test]
    fn status_of_policies_and_ingresses() {
        let user = |kind, name: &str| AncestorVerdict {
            kind,
            name: name.into(),
            conditions: vec![Condition::without_diagnostics(Code::KongProgrammed)],
        };
        let verdict = Verdict {
            generation: 3,
            ancestors: vec![user(Kind::Service, "shop"), user(Kind::KongServiceFacade, "front")],
            load_balancer: Some(vec![Published::Ip("192.0.2.1".to_owned()), Published::Hostname("a.test".to_owned())]),
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
