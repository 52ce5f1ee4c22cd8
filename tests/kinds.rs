//! Ingress, IngressClass and Kong's kinds: good objects are taken, and of bad ones it is said what is wrong at which field.
//! The objects are in `tests/kinds/`; on a real API server a scenario of `e2e/` asks it about the same ones.
//! `UPDATE=1 cargo test --test kinds` rewrites `bad.txt`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::kind::NETWORKING_GROUP;
use portico::api::kong::crd;
use portico::schema;
use portico::store::AnyObject;
use serde_json::Value;

#[test]
fn good_objects_are_taken_and_read_as_their_kind() {
    let mut seen = BTreeSet::new();
    for mut object in objects("good.yaml") {
        let (kind, name) = (kind_of(&object), object["metadata"]["name"].clone());
        assert_eq!(violations(kind, &mut object), Vec::<String>::new(), "{kind} {name}");
        AnyObject::parse(kind, object).unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        seen.insert(kind);
    }
    let all: BTreeSet<Kind> =
        Kind::ALL.iter().copied().filter(|kind| kind.group() == NETWORKING_GROUP).chain(crd::kinds()).collect();
    assert_eq!(seen, all);
}

/// So that a new field is thought of here too.
#[test]
fn good_objects_have_every_field_there_is() {
    fn visit(schema: &Value, objects: &[&Value], place: &str, lacking: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            // Fields of the first exclude each other, and what one kind may say of it the other may too; the others are
            // refused by a rule, and known for its message.
            if place.contains(".controlPlaneRef.") || (place.contains(".passive.") && place.ends_with(".interval")) {
                continue;
            }
            let found: Vec<&Value> = objects.iter().filter_map(|object| object.get(name)).collect();
            if found.is_empty() {
                lacking.push(place.clone());
            }
            visit(field, &found, &place, lacking);
            let entries: Vec<&Value> = found.iter().filter_map(|list| list.as_array()).flatten().collect();
            visit(&field["items"], &entries, &format!("{place}[]"), lacking);
        }
    }
    let objects = objects("good.yaml");
    let mut lacking = Vec::new();
    for kind in crd::kinds() {
        let of_kind: Vec<&Value> = objects.iter().filter(|object| kind_of(object) == kind).collect();
        let mut schema = portico::api::kong::schema::structural(kind).unwrap();
        schema["properties"].as_object_mut().unwrap().shift_remove("status");
        // For the same reason.
        if kind == Kind::KongIngress {
            schema["properties"].as_object_mut().unwrap().retain(|name, _| name != "proxy" && name != "route");
        }
        visit(&schema, &of_kind, kind.name(), &mut lacking);
    }
    assert!(lacking.is_empty(), "tests/kinds/good.yaml has none of {lacking:#?}");
}

// kong-compat §1.3, §1.5, §1.7, §1.8, §1.9, §1.11
#[test]
fn of_each_bad_object_it_is_said_what_is_wrong() {
    let mut told = String::new();
    for mut object in objects("bad.yaml") {
        let kind = kind_of(&object);
        told += &format!("{kind} {}\n", object["metadata"]["name"].as_str().unwrap());
        let lines = violations(kind, &mut object);
        assert!(!lines.is_empty(), "nothing is said of this:\n{told}");
        told.extend(lines.iter().map(|line| format!("  {line}\n")));
    }
    let file = folder().join("bad.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &told).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    let differing = told.lines().zip(expected.lines()).find(|(told, expected)| told != expected);
    assert!(told == expected, "{differing:?}\nIf that is right: UPDATE=1 cargo test --test kinds");
}

/// A change that the API server refuses: what was there before is compared, so the rule holds of two objects.
// kong-compat §1.3, §1.5, §1.9, §1.11
#[test]
fn what_must_not_change_has_a_rule_about_the_old_object() {
    for (kind, pointer, expected) in [
        (Kind::KongPlugin, "/properties/plugin", 1),
        (Kind::KongClusterPlugin, "/properties/plugin", 1),
        (Kind::KongVault, "/properties/spec/properties/prefix", 1),
        (Kind::KongCustomEntity, "/properties/spec/properties/type", 1),
        (Kind::KongConsumer, "", 2),
        (Kind::KongConsumerGroup, "", 2),
        (Kind::KongVault, "", 2),
    ] {
        let schema = portico::api::kong::schema::structural(kind).unwrap();
        let rules = schema.pointer(pointer).unwrap()["x-kubernetes-validations"].as_array().unwrap();
        let of_changes = rules.iter().filter(|rule| rule["rule"].as_str().unwrap().contains("oldSelf"));
        assert_eq!(of_changes.count(), expected, "{kind} {pointer}");
    }
}

fn violations(kind: Kind, object: &mut Value) -> Vec<String> {
    let violations = schema::check(kind, object, Channel::Standard);
    violations.into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect()
}

fn kind_of(object: &Value) -> Kind {
    let (group, _) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    Kind::find(group, object["kind"].as_str().unwrap()).unwrap()
}

fn objects(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds")
}
