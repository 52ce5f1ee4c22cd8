//! Ingress, IngressClass, Kong's kinds and Portico's own: valid objects are accepted, and errors in invalid ones are
//! reported at the right field. The objects are in `tests/kinds/`; a scenario of `e2e/` applies the same ones to a real
//! API server.
//! `UPDATE=1 cargo test --workspace --test library kinds::` rewrites `bad.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use portico::api::Kind;
use portico::api::definitions;
use portico::api::gateway::Channel;
use portico::api::kind::{KindFamily, NETWORKING_GROUP};
use portico::schema;
use portico::store::AnyObject;
use serde_json::Value;

#[test]
fn valid_objects_are_accepted_and_parsed() {
    let mut accepted = BTreeSet::new();
    for mut object in objects("good.yaml") {
        let (kind, name) = (kind_of(&object), object["metadata"]["name"].clone());
        assert_eq!(violations(kind, &mut object), Vec::<String>::new(), "{kind} {name}");
        AnyObject::parse(kind, object).unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        accepted.insert(kind);
    }
    let all: BTreeSet<Kind> =
        Kind::ALL.iter().copied().filter(|kind| kind.group() == NETWORKING_GROUP).chain(definitions::kinds()).collect();
    assert_eq!(accepted, all);
}

/// Ensures that new fields are added to the test objects.
#[test]
fn valid_objects_contain_every_field() {
    fn visit(schema: &Value, objects: &[&Value], path: &str, missing: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // Fields of `controlPlaneRef` exclude each other and are shared by several kinds; `interval` in passive
            // checks is rejected by a rule, which `bad.yaml` tests.
            // A rule rejects what YAML 1.1 makes of the name `on`.
            let is_rejected = path.contains(".controlPlaneRef.") || path == "BackendPolicy.spec.retry.true";
            if is_rejected || (path.contains(".passive.") && path.ends_with(".interval")) {
                continue;
            }
            let values: Vec<&Value> = objects.iter().filter_map(|object| object.get(name)).collect();
            if values.is_empty() {
                missing.push(path.clone());
            }
            visit(field, &values, &path, missing);
            let entries: Vec<&Value> = values.iter().filter_map(|list| list.as_array()).flatten().collect();
            visit(&field["items"], &entries, &format!("{path}[]"), missing);
        }
    }
    let objects = objects("good.yaml");
    let mut missing = Vec::new();
    for kind in definitions::kinds() {
        let objects_of_kind: Vec<&Value> = objects.iter().filter(|object| kind_of(object) == kind).collect();
        let mut schema = definitions::structural(kind).unwrap();
        schema["properties"].as_object_mut().unwrap().shift_remove("status");
        // `proxy` and `route` are rejected by rules, too.
        if kind == Kind::KongIngress {
            schema["properties"].as_object_mut().unwrap().retain(|name, _| name != "proxy" && name != "route");
        }
        visit(&schema, &objects_of_kind, kind.name(), &mut missing);
    }
    assert!(missing.is_empty(), "tests/kinds/good.yaml lacks {missing:#?}");
}

/// The rules are those of Kong's CustomResourceDefinitions.
#[test]
fn errors_of_invalid_objects_are_reported() {
    let mut report = String::new();
    for mut object in objects("bad.yaml") {
        let kind = kind_of(&object);
        report += &format!("{kind} {}\n", object["metadata"]["name"].as_str().unwrap());
        let lines = violations(kind, &mut object);
        assert!(!lines.is_empty(), "no error is reported for the last object:\n{report}");
        report.extend(lines.iter().map(|line| format!("  {line}\n")));
    }
    let file = folder().join("bad.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &report).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    let first_difference = report.lines().zip(expected.lines()).find(|(report, expected)| report != expected);
    assert!(
        report == expected,
        "{first_difference:?}\nIf the new output is right: UPDATE=1 cargo test --workspace --test library kinds::"
    );
}

/// Immutable fields have transition rules, which the API server evaluates with the previous object (`oldSelf`).
#[test]
fn immutable_fields_have_transition_rules() {
    for (kind, pointer, expected) in [
        (Kind::KongPlugin, "/properties/plugin", 1),
        (Kind::KongClusterPlugin, "/properties/plugin", 1),
        (Kind::KongVault, "/properties/spec/properties/prefix", 1),
        (Kind::KongCustomEntity, "/properties/spec/properties/type", 1),
        (Kind::KongConsumer, "", 2),
        (Kind::KongConsumerGroup, "", 2),
        (Kind::KongVault, "", 2),
    ] {
        let schema = definitions::structural(kind).unwrap();
        let rules = schema.pointer(pointer).unwrap()["x-kubernetes-validations"].as_array().unwrap();
        let of_changes = rules.iter().filter(|rule| rule["rule"].as_str().unwrap().contains("oldSelf"));
        assert_eq!(of_changes.count(), expected, "{kind} {pointer}");
    }
}

/// Versions, short names and scopes in the table of docs/kinds.md.
#[test]
fn documented_kinds_match_the_definitions() {
    let page = fs::read_to_string(folder().join("../../docs/kinds.md")).unwrap();
    let (_, table) = page.split_once("| kind | version | short | scope | purpose |").unwrap();
    let mut documented = BTreeSet::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for name in cells[1].split(", ") {
            documented.insert((name.to_owned(), cells[2].to_owned(), cells[3].to_owned(), cells[4].to_owned()));
        }
    }
    let expected: BTreeSet<_> = definitions::kinds()
        .filter(|kind| kind.family() == KindFamily::Kong)
        .map(|kind| {
            let definition = definitions::definition(kind).unwrap();
            let short = definition["spec"]["names"]["shortNames"][0].as_str().unwrap_or_default().to_owned();
            let scope = if kind.namespaced() { "namespace" } else { "cluster" };
            (kind.name().to_owned(), kind.versions().join(", "), short, scope.to_owned())
        })
        .collect();
    let missing: Vec<_> = expected.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&expected).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/kinds.md lacks {missing:?} and has unknown {stale:?}");
}

fn violations(kind: Kind, object: &mut Value) -> Vec<String> {
    let violations = schema::check(kind, object, Channel::Standard);
    violations
        .into_iter()
        .map(|violation| format!("{}: {}; {}", violation.field, violation.message, violation.remedy))
        .collect()
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
