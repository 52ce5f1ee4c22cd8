//! Whether server-side apply would change anything: then, and only then, it is asked to.

use serde_json::{Map, Value};

/// Whether an object says all that we want of it, and holds nothing more of ours.
///
/// `observed` has to have its managed fields: they tell what we applied before, so that a label that is no longer wanted is
/// found without remembering anything here.
pub(super) fn is_applied(wanted: &Value, observed: &Value, manager: &str) -> bool {
    let managed = observed["metadata"]["managedFields"].as_array().map_or(&[][..], |entries| entries);
    let ours =
        |entry: &&Value| entry["manager"] == manager && entry["operation"] == "Apply" && entry["subresource"].is_null();
    let Some(fields) = managed.iter().find(ours).and_then(|entry| entry["fieldsV1"].as_object()) else { return false };
    let mut wanted = wanted.clone();
    // What names the object is not a field of it.
    for key in ["apiVersion", "kind"] {
        remove(&mut wanted, key);
    }
    for key in ["name", "namespace", "uid"] {
        remove(&mut wanted["metadata"], key);
    }
    same(&wanted, observed, fields)
}

fn remove(value: &mut Value, key: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(key);
    }
}

fn same(wanted: &Value, observed: &Value, fields: &Map<String, Value>) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    let is_owned = |(key, value): (&String, &Value)| {
        let Some(owned) = fields.get(&format!("f:{key}")).and_then(Value::as_object) else { return false };
        let Some(observed) = observed.get(key) else { return false };
        match (value, keys_of(key)) {
            // Without a word on its parts, a map or a list has one owner as a whole.
            _ if owned.is_empty() => value == observed,
            (Value::Object(_), _) => same(value, observed, owned),
            (Value::Array(items), Some(keys)) => same_items(items, observed, owned, keys),
            _ => value == observed,
        }
    };
    let unwanted =
        fields.keys().filter_map(|field| field.strip_prefix("f:")).find(|field| !wanted.contains_key(*field));
    unwanted.is_none() && wanted.iter().all(is_owned)
}

/// Lists whose items are told apart by some of their fields.
fn same_items(items: &[Value], observed: &Value, owned: &Map<String, Value>, keys: &[&str]) -> bool {
    let observed = observed.as_array().map_or(&[][..], |items| items);
    let alike = |a: &Value, b: &Value| keys.iter().all(|key| a.get(*key) == b.get(*key));
    let owned: Vec<(Value, &Map<String, Value>)> = owned
        .iter()
        .filter_map(|(key, fields)| Some((serde_json::from_str(key.strip_prefix("k:")?).ok()?, fields.as_object()?)))
        .collect();
    owned.len() == items.len()
        && items.iter().all(|item| {
            let fields = owned.iter().find(|(key, _)| alike(key, item)).map(|(_, fields)| *fields);
            let there = observed.iter().find(|candidate| alike(candidate, item));
            // An item too may have one owner as a whole.
            fields.zip(there).is_some_and(|(fields, there)| match fields.is_empty() {
                true => item == there,
                false => same(item, there, fields),
            })
        })
}

/// By which fields the items of a list are told apart (`x-kubernetes-list-map-keys`). None for lists that have one owner.
fn keys_of(list: &str) -> Option<&'static [&'static str]> {
    match list {
        "ports" => Some(&["port", "protocol"]),
        "ownerReferences" => Some(&["uid"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web-portico", "namespace": "a", "uid": "u",
                "labels": {"l": "1"},
                "ownerReferences": [{"uid": "g", "name": "web"}],
            },
            "spec": {
                "type": "LoadBalancer",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 10080}],
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
            },
        })
    }

    /// As the API server shows it after that was applied.
    fn observed() -> Value {
        json!({
            "metadata": {
                "name": "web-portico", "namespace": "a", "uid": "u", "resourceVersion": "5",
                "labels": {"l": "1", "foreign": "x"},
                "ownerReferences": [{"uid": "g", "name": "web"}],
                "managedFields": [
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:foreign": {}}}}},
                    {"manager": "portico", "operation": "Update", "subresource": "status", "fieldsV1": {}},
                    {"manager": "portico", "operation": "Apply", "fieldsV1": {
                        "f:metadata": {
                            "f:labels": {"f:l": {}},
                            "f:ownerReferences": {"k:{\"uid\":\"g\"}": {}},
                        },
                        "f:spec": {
                            "f:type": {},
                            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {
                                ".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
                            }},
                            "f:loadBalancerSourceRanges": {},
                        },
                    }},
                ],
            },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.0.0.1",
                "ports": [{"name": "x", "port": 80, "protocol": "TCP", "targetPort": 10080, "nodePort": 31000}],
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
            },
        })
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        assert!(is_applied(&wanted(), &observed(), "portico"));
    }

    #[test]
    fn what_differs_is_found() {
        type Edit = fn(&mut Value);
        let edits: &[(&str, Edit)] = &[
            ("another value", |wanted| wanted["metadata"]["labels"]["l"] = json!("2")),
            ("a new label", |wanted| wanted["metadata"]["labels"]["m"] = json!("1")),
            ("somebody else's label", |wanted| wanted["metadata"]["labels"]["foreign"] = json!("x")),
            ("a label less", |wanted| wanted["metadata"]["labels"] = json!({})),
            ("no labels", |wanted| remove(&mut wanted["metadata"], "labels")),
            ("annotations", |wanted| wanted["metadata"]["annotations"] = json!({"a": "b"})),
            ("another target", |wanted| wanted["spec"]["ports"][0]["targetPort"] = json!(10081)),
            ("another port", |wanted| wanted["spec"]["ports"][0]["port"] = json!(81)),
            ("no port", |wanted| wanted["spec"]["ports"] = json!([])),
            ("another owner", |wanted| wanted["metadata"]["ownerReferences"][0]["uid"] = json!("h")),
            ("an owner renamed", |wanted| wanted["metadata"]["ownerReferences"][0]["name"] = json!("wet")),
            ("an atomic list", |wanted| wanted["spec"]["loadBalancerSourceRanges"] = json!([])),
            ("a field less", |wanted| remove(&mut wanted["spec"], "type")),
        ];
        for (what, edit) in edits {
            let mut wanted = wanted();
            edit(&mut wanted);
            assert!(!is_applied(&wanted, &observed(), "portico"), "{what}");
        }
        assert!(!is_applied(&wanted(), &observed(), "other"), "what others applied is not ours");
        assert!(!is_applied(&wanted(), &json!({}), "portico"));
    }
}
