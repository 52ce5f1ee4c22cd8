//! A verdict in the form of an object's `status`, without the times that only the API server's copy has.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::compile::verdict::{Condition, Verdict};

/// What belongs under `status`; remarks on objects without conditions are under `notes`, which no API has.
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
            json!({"parentRef": described, "controllerName": &*parent.controller, "conditions": conditions(&parent.conditions)})
        });
        status.insert("parents".to_owned(), parents.collect());
    }
    if !verdict.notes.is_empty() {
        let notes: Vec<_> = verdict.notes.iter().map(ToString::to_string).collect();
        status.insert("notes".to_owned(), json!(notes));
    }
    Value::Object(status)
}

fn describe(condition: &Condition, generation: i64) -> Value {
    json!({
        "type": condition.code.condition(),
        "status": if condition.code.status() { "True" } else { "False" },
        "reason": condition.code.reason(),
        "message": fitting(condition.message()),
        "observedGeneration": generation,
    })
}

/// The API refuses longer ones, and with them the whole status.
const LONGEST_MESSAGE: usize = 32_768;

fn fitting(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = "…";
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - end.len()));
        message.push_str(end);
    }
    message
}
