//! Compares what is collected with the schemas of all kinds: a field that refers to an object is a dependency, or is in
//! [`EXCEPTIONS`]. References in annotations and labels are in no schema.

use std::collections::BTreeSet;

use portico_objects::schema::{self, Channel};
use serde_json::{Map, Value, json};

use super::*;
use crate::api::Kind;

/// Fields that look like references and are none, by the end of their paths, each with the reason.
const EXCEPTIONS: [(&str, &str); 10] = [
    ("GatewayClass.spec.controllerName", "the name of a program"),
    ("filters.requests.[].externalAuth.backendRef", "filters of listeners are not served"),
    ("filters.requests.[].extensionRef", "filters of listeners are not served"),
    ("KongPlugin.consumerRef", "it has no effect, as in Kong"),
    ("KongClusterPlugin.consumerRef", "it has no effect, as in Kong"),
    ("controlPlaneRef.konnectNamespacedRef", "it has no effect: there is no control plane"),
    ("endpoints.[].targetRef", "only the addresses of the pod count"),
    ("ReferenceGrant.spec.to.[]", "referrers depend on all ReferenceGrants of a namespace"),
    ("method.service", "a service of gRPC"),
    ("health.active.service", "a service of gRPC"),
];

#[test]
fn fields_that_refer_to_objects_are_dependencies() {
    let mut needless: BTreeSet<&str> = EXCEPTIONS.iter().map(|(path, _)| *path).collect();
    let mut forgotten = Vec::new();
    let mut count = 0;
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_served()) {
        let schema = schema::structural(kind, Channel::Experimental).unwrap();
        let mut paths = Vec::new();
        find_references(&schema, &mut Vec::new(), &mut paths);
        for path in paths {
            count += 1;
            let name = format!("{kind}.{}", path.join("."));
            let exception = EXCEPTIONS.iter().find(|(end, _)| name.ends_with(end));
            match (is_dependency(kind, &schema, &path), exception) {
                (true, None) => {}
                (false, Some((end, _))) => drop(needless.remove(end)),
                (false, None) => forgotten.push(name),
                (true, Some(_)) => panic!("{name} is a dependency, and an exception"),
            }
        }
    }
    assert!(forgotten.is_empty(), "add them to the references of their kinds: {forgotten:#?}");
    assert!(needless.is_empty(), "no schema has these exceptions: {needless:?}");
    assert!(count > 50, "only {count} references were found");
}

/// Adds the paths of fields that look like references. `[]` stands for the items of a list.
fn find_references(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if path.last().is_some_and(|name| ["metadata", "status"].contains(&&**name)) {
        return;
    }
    if looks_like_reference(schema, path) {
        found.push(path.clone());
    }
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields = fields.map(|(name, field)| (name.as_str(), field));
    for (step, inner) in fields.chain(schema.get("items").map(|items| ("[]", items))) {
        path.push(step.to_owned());
        find_references(inner, path, found);
        path.pop();
    }
}

fn looks_like_reference(schema: &Value, path: &[String]) -> bool {
    let field = path.iter().rfind(|step| *step != "[]").map(|name| name.to_lowercase()).unwrap_or_default();
    let is_named = |ends: &[&str]| ends.iter().any(|end| field.ends_with(end));
    if schema["type"] == "string" {
        return is_named(&[
            "ref",
            "refs",
            "ingressclassname",
            "gatewayclassname",
            "controllername",
            "secretname",
            "servicename",
            "service",
            "credentials",
            "consumergroups",
        ]);
    }
    let has = |name: &str| schema["properties"].get(name).is_some();
    has("name") && (has("kind") || has("namespace") || is_named(&["ref", "refs", "service"]))
}

/// Whether an object of this kind depends on the object that the field at this path names.
fn is_dependency(kind: Kind, schema: &Value, path: &[String]) -> bool {
    let field = path.iter().fold(schema, |schema, step| match &**step {
        "[]" => &schema["items"],
        name => &schema["properties"][name],
    });
    references(field).into_iter().any(|reference| {
        let mut object = with_value_at(schema, path, reference);
        object["metadata"] = json!({"name": "referrer"});
        if kind.namespaced() {
            object["metadata"]["namespace"] = json!("own");
        }
        let object = AnyObject::parse(kind, object.clone()).unwrap_or_else(|error| panic!("{error} in {object}"));
        let names_target = |dependency: &Dependency| match dependency {
            Dependency::Object(id) => &*id.key.name == TARGET,
            Dependency::GrantsIn(_) | Dependency::DefaultClass | Dependency::DefaultGateways => false,
        };
        dependencies(&object).iter().any(names_target)
    })
}

/// All ways in which a field may refer to the target: as an object of each kind, without and with a namespace.
fn references(field: &Value) -> Vec<Value> {
    let Some(fields) = field["properties"].as_object() else { return vec![json!(TARGET)] };
    let mut least = least_value(field);
    least["name"] = json!(TARGET);
    let mut references = vec![least.clone()];
    if fields.contains_key("kind") {
        let group = ["group", "apiGroup"].into_iter().find(|name| fields.contains_key(*name));
        references.extend(Kind::ALL.iter().map(|kind| {
            let mut reference = least.clone();
            reference["kind"] = json!(kind.name());
            if let Some(group) = group {
                reference[group] = json!(kind.group());
            }
            reference
        }));
    }
    if fields.contains_key("namespace") {
        let in_namespace = |reference: &Value| {
            let mut reference = reference.clone();
            reference["namespace"] = json!("other");
            reference
        };
        let others: Vec<Value> = references.iter().map(in_namespace).collect();
        references.extend(others);
    }
    references
}

/// The least value of a schema that has `value` at this path.
fn with_value_at(schema: &Value, path: &[String], value: Value) -> Value {
    match path.split_first() {
        None => value,
        Some((step, rest)) if step == "[]" => json!([with_value_at(&schema["items"], rest, value)]),
        Some((name, rest)) => {
            let mut object = least_value(schema);
            object[name] = with_value_at(&schema["properties"][name], rest, value);
            object
        }
    }
}

/// A value of a schema with nothing but what is required.
fn least_value(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), least_value(&schema["properties"][name])));
            Value::Object(fields.collect::<Map<String, Value>>())
        }
        Some("array") => json!([]),
        Some("string") => schema["enum"].get(0).cloned().unwrap_or_else(|| json!("text")),
        Some("boolean") => json!(false),
        _ => json!(1),
    }
}

const TARGET: &str = "target";
