//! Decides whether server-side apply would change anything, so that it is called only then.

use serde_json::{Map, Value};

/// Whether `observed` already has all fields of `wanted`, and `manager` owns these fields and no others.
///
/// `observed` needs its managed fields: they record what was applied before, so labels that are no longer wanted are
/// found without any state here.
pub(super) fn is_applied(wanted: &Value, observed: &Value, manager: &str) -> bool {
    let Some(owned) = owned_fields(observed, manager) else { return false };
    let mut wanted = wanted.clone();
    // The fields that identify the object are not managed.
    for key in ["apiVersion", "kind"] {
        remove(&mut wanted, key);
    }
    for key in ["name", "namespace", "uid"] {
        remove(&mut wanted["metadata"], key);
    }
    owned_fields_match(&wanted, observed, owned)
}

/// Whether `manager` has applied the field at this path of objects.
pub(super) fn is_owned(observed: &Value, manager: &str, path: &[&str]) -> bool {
    let mut fields = owned_fields(observed, manager);
    for name in path {
        fields = fields.and_then(|fields| fields.get(&format!("f:{name}"))).and_then(Value::as_object);
    }
    fields.is_some()
}

/// The fields that `manager` has applied, in the format of `fieldsV1`.
fn owned_fields<'v>(observed: &'v Value, manager: &str) -> Option<&'v Map<String, Value>> {
    let managed = observed["metadata"]["managedFields"].as_array().map_or(&[][..], |entries| entries);
    let is_own_entry =
        |entry: &&Value| entry["manager"] == manager && entry["operation"] == "Apply" && entry["subresource"].is_null();
    managed.iter().find(is_own_entry).and_then(|entry| entry["fieldsV1"].as_object())
}

fn remove(value: &mut Value, key: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(key);
    }
}

/// Whether the observed object has the wanted fields, and `owned`, in the format of `fieldsV1`, names these fields and
/// no others.
fn owned_fields_match(wanted: &Value, observed: &Value, owned: &Map<String, Value>) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    let matches = |(key, value): (&String, &Value)| {
        let Some(owned_parts) = owned.get(&format!("f:{key}")).and_then(Value::as_object) else { return false };
        let Some(observed) = observed.get(key) else { return false };
        match (value, list_map_keys(key)) {
            // A map or list without managed fields of its parts has a single owner.
            _ if owned_parts.is_empty() => value == observed,
            (Value::Object(_), _) => owned_fields_match(value, observed, owned_parts),
            (Value::Array(items), Some(keys)) => owned_items_match(items, observed, owned_parts, keys),
            _ => value == observed,
        }
    };
    let unwanted = owned.keys().filter_map(|field| field.strip_prefix("f:")).find(|field| !wanted.contains_key(*field));
    unwanted.is_none() && wanted.iter().all(matches)
}

/// Whether the observed list has the items, and `owned` names these items and no others. `keys` are the fields that
/// identify an item.
fn owned_items_match(items: &[Value], observed: &Value, owned: &Map<String, Value>, keys: &[&str]) -> bool {
    let observed_items = observed.as_array().map_or(&[][..], |observed_items| observed_items);
    let same_item = |a: &Value, b: &Value| keys.iter().all(|key| a.get(*key) == b.get(*key));
    let owned_items: Vec<(Value, &Map<String, Value>)> = owned
        .iter()
        .filter_map(|(key, fields)| Some((serde_json::from_str(key.strip_prefix("k:")?).ok()?, fields.as_object()?)))
        .collect();
    owned_items.len() == items.len()
        && items.iter().all(|item| {
            let fields = owned_items.iter().find(|(key, _)| same_item(key, item)).map(|(_, fields)| *fields);
            let observed_item = observed_items.iter().find(|candidate| same_item(candidate, item));
            // An item without managed fields of its parts has a single owner, too.
            fields.zip(observed_item).is_some_and(|(fields, observed_item)| match fields.is_empty() {
                true => item == observed_item,
                false => owned_fields_match(item, observed_item, fields),
            })
        })
}

/// The fields that identify items of a list (`x-kubernetes-list-map-keys`). None for atomic lists.
fn list_map_keys(list: &str) -> Option<&'static [&'static str]> {
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

    /// As the API server returns it after `wanted` was applied.
    fn observed() -> Value {
        json!({
            "metadata": {
                "name": "web-portico", "namespace": "a", "uid": "u", "resourceVersion": "5",
                "labels": {"l": "1", "foreign": "x"},
                "ownerReferences": [{"uid": "g", "name": "web"}],
                "managedFields": [
                    {
                        "manager": "kubectl", "operation": "Update",
                        "fieldsV1": {"f:metadata": {"f:labels": {"f:foreign": {}}}},
                    },
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
    fn applied_objects_need_no_apply() {
        assert!(is_applied(&wanted(), &observed(), "portico"));
    }

    #[test]
    fn differences_need_an_apply() {
        type Edit = fn(&mut Value);
        let edits: &[(&str, Edit)] = &[
            ("another value", |wanted| wanted["metadata"]["labels"]["l"] = json!("2")),
            ("a new label", |wanted| wanted["metadata"]["labels"]["m"] = json!("1")),
            ("another manager's label", |wanted| wanted["metadata"]["labels"]["foreign"] = json!("x")),
            ("a removed label", |wanted| wanted["metadata"]["labels"] = json!({})),
            ("no labels", |wanted| remove(&mut wanted["metadata"], "labels")),
            ("annotations", |wanted| wanted["metadata"]["annotations"] = json!({"a": "b"})),
            ("another target", |wanted| wanted["spec"]["ports"][0]["targetPort"] = json!(10081)),
            ("another port", |wanted| wanted["spec"]["ports"][0]["port"] = json!(81)),
            ("no port", |wanted| wanted["spec"]["ports"] = json!([])),
            ("another owner", |wanted| wanted["metadata"]["ownerReferences"][0]["uid"] = json!("h")),
            ("an owner renamed", |wanted| wanted["metadata"]["ownerReferences"][0]["name"] = json!("wet")),
            ("an atomic list", |wanted| wanted["spec"]["loadBalancerSourceRanges"] = json!([])),
            ("a removed field", |wanted| remove(&mut wanted["spec"], "type")),
        ];
        for (what, edit) in edits {
            let mut wanted = wanted();
            edit(&mut wanted);
            assert!(!is_applied(&wanted, &observed(), "portico"), "{what}");
        }
        assert!(!is_applied(&wanted(), &observed(), "other"), "fields of other managers do not count");
        assert!(!is_applied(&wanted(), &json!({}), "portico"));
    }
}
