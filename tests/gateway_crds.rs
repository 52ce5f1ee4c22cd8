//! Compares the schemas with the CRDs of the Gateway API release: the same fields and bounds, and for every rule of the
//! release an object that violates it and is rejected at the same place. Needs the folder printed by
//! `scripts/gateway-crds.sh`.

mod corpus;
mod difference;
mod evaluator;
mod nodes;
mod release;

use std::collections::{BTreeMap, BTreeSet};

use portico::api::gateway::schema::{served_versions, structural, structural_of_version};
use portico::api::gateway::{self, Channel};
use portico::api::{Kind, Object, Resource};
use serde_json::Value;

use corpus::{Snippets, ValidObject};
use evaluator::{RuleEvaluator, ViolatedRule};
use release::Definition;

#[test]
fn kinds_and_versions_match_the_release() {
    let definitions = release::definitions();
    for definition in &definitions {
        assert_eq!(definition.kind.plural(), definition.plural, "{}", definition.name());
        assert_eq!(definition.kind.namespaced(), definition.namespaced, "{}", definition.name());
    }
    for channel in Channel::ALL {
        for kind in Kind::ALL {
            let in_release: BTreeSet<&str> = definitions
                .iter()
                .filter(|definition| definition.kind == *kind && definition.channel == channel)
                .map(|definition| definition.version.as_str())
                .collect();
            let in_portico: BTreeSet<&str> = served_versions(*kind, channel).iter().copied().collect();
            assert_eq!(in_portico, in_release, "{kind} ({})", channel.name());
        }
    }
}

#[test]
fn schemas_match_the_release() {
    let mut lines = Vec::new();
    for definition in release::definitions() {
        for line in difference::differences(&schema(&definition), &definition.schema) {
            lines.push(format!("{} {line}", definition.name()));
        }
    }
    report(&lines, "differences (Portico / release)");
}

#[test]
fn valid_objects_violate_no_rule() {
    let mut lines = Vec::new();
    let (definitions, valid) = (release::definitions(), ValidObject::all());
    for definition in &definitions {
        let evaluator = RuleEvaluator::new(definition);
        let mut objects = valid.iter().filter_map(|valid| Some((valid, valid.for_definition(definition)?))).peekable();
        if objects.peek().is_none() {
            lines.push(format!("{}: no valid object in the corpus", definition.name()));
        }
        for (valid, object) in objects {
            let case = format!("{} of {}", definition.name(), valid.file);
            expect_accepted(&evaluator, &object, &case, &mut lines);
        }
    }
    report(&lines, "violations in valid objects");
}

#[test]
fn release_examples_are_accepted_or_rejected() {
    let mut lines = Vec::new();
    for example in release::examples() {
        for violation in portico::schema::check(example.kind, &mut example.object.clone(), example.channel) {
            lines.push(format!("{}: {} {}; {}", example.file, violation.field, violation.message, violation.remedy));
        }
    }
    let mut is_rejected: BTreeMap<String, bool> = BTreeMap::new();
    for example in release::invalid_examples() {
        let violations = portico::schema::check(example.kind, &mut example.object.clone(), example.channel);
        *is_rejected.entry(example.file).or_default() |= !violations.is_empty();
    }
    for (file, is_rejected) in is_rejected {
        if !is_rejected {
            lines.push(format!("{file}: accepted although invalid"));
        }
    }
    report(&lines, "unexpected results");
}

#[test]
fn valid_objects_parse_as_their_types() {
    let mut lines = Vec::new();
    for definition in release::definitions() {
        for valid in ValidObject::all() {
            let Some(object) = valid.for_definition(&definition) else { continue };
            if let Err(error) = parse_typed(definition.kind, object) {
                lines.push(format!("{} of {}: {error}", definition.name(), valid.file));
            }
        }
    }
    report(&lines, "valid objects that cannot be parsed");
}

#[test]
fn every_release_rule_is_violated_at_the_same_place() {
    let mut lines = Vec::new();
    let (definitions, valid, snippets) = (release::definitions(), ValidObject::all(), Snippets::all());
    let mut used = BTreeSet::new();
    for definition in distinct_definitions(&definitions) {
        let evaluator = RuleEvaluator::new(definition);
        let objects: Vec<Value> = valid.iter().filter_map(|valid| valid.for_definition(definition)).collect();
        let places = corpus::places(&objects);
        let mut covered = BTreeSet::new();
        for snippets in &snippets {
            for place in snippets.places(&places) {
                let case_name = |name: &str| format!("{} {}, {}: {name}", definition.name(), place.path, snippets.file);
                for snippet in snippets.accepted.iter().filter(|snippet| snippet.applies_to(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let object = place.with_value(&snippet.value);
                    expect_accepted(&evaluator, &object, &case_name(&snippet.name), &mut lines);
                }
                for snippet in snippets.refused.iter().filter(|snippet| snippet.applies_to(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let previous = snippet.before.as_ref().map(|previous| place.with_value(previous));
                    let object = place.with_value(&snippet.value);
                    let violated = evaluator.violated_release_rules(&object, previous.as_ref());
                    expect_rejected(
                        &evaluator,
                        &object,
                        previous.as_ref(),
                        &violated,
                        &place.path,
                        &case_name(&snippet.name),
                        &mut lines,
                    );
                    covered.extend(
                        violated
                            .into_iter()
                            .filter(|violated| violated.evaluated_to_false)
                            .map(|violated| (violated.node, violated.rule)),
                    );
                }
            }
        }
        for (node, content) in nodes::nodes(&evaluator.schema) {
            for rule in nodes::rules(content) {
                if !covered.contains(&(node.clone(), rule.to_owned())) {
                    lines.push(format!("{} {node}: no object in the corpus violates {rule}", definition.name()));
                }
            }
        }
    }
    for snippets in &snippets {
        for snippet in snippets.accepted.iter().chain(&snippets.refused) {
            if !used.contains(&(&snippets.file, &snippet.name)) {
                lines.push(format!("{}: {} matches no place", snippets.file, snippet.name));
            }
        }
    }
    for expression in evaluator::unused_replacements(definitions.iter().map(|definition| &definition.schema)) {
        lines.push(format!("evaluator.rs: no rule contains {expression} any more"));
    }
    report(&lines, "unexpected results");
}

#[test]
fn every_message_has_problem_and_remedy() {
    for channel in Channel::ALL {
        for kind in Kind::ALL {
            let schema = structural(*kind, channel).unwrap_or_default();
            for (node, content) in nodes::nodes(&schema) {
                for rule in content.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    let message = rule["message"].as_str().unwrap();
                    let parts: Vec<&str> = message.split("; ").collect();
                    assert!(matches!(parts[..], [_, _]), "{kind} {node}: {message}");
                }
            }
        }
    }
}

/// The definitions without those that equal another version of the same kind and channel.
fn distinct_definitions(definitions: &[Definition]) -> Vec<&Definition> {
    let mut distinct: Vec<&Definition> = Vec::new();
    for definition in definitions {
        let is_equal = |earlier: &&Definition| {
            (earlier.kind, earlier.channel) == (definition.kind, definition.channel)
                && difference::are_equal(&earlier.schema, &definition.schema)
                && difference::are_equal(&schema(earlier), &schema(definition))
        };
        if !distinct.iter().any(is_equal) {
            distinct.push(definition);
        }
    }
    distinct
}

/// Portico's schema for a definition of the release.
fn schema(definition: &Definition) -> Value {
    structural_of_version(definition.kind, &definition.version, definition.channel).expect("the version is served")
}

/// Parses the object as the type of its kind.
fn parse_typed(kind: Kind, object: Value) -> Result<(), serde_json::Error> {
    fn parse<T: Resource>(object: Value) -> Result<(), serde_json::Error> {
        serde_json::from_value::<Object<T>>(object).map(drop)
    }
    match kind {
        Kind::GatewayClass => parse::<gateway::GatewayClass>(object),
        Kind::Gateway => parse::<gateway::Gateway>(object),
        Kind::ListenerSet => parse::<gateway::ListenerSet>(object),
        Kind::HttpRoute => parse::<gateway::HttpRoute>(object),
        Kind::GrpcRoute => parse::<gateway::GrpcRoute>(object),
        Kind::TlsRoute => parse::<gateway::TlsRoute>(object),
        Kind::TcpRoute => parse::<gateway::TcpRoute>(object),
        Kind::UdpRoute => parse::<gateway::UdpRoute>(object),
        Kind::BackendTlsPolicy => parse::<gateway::BackendTlsPolicy>(object),
        Kind::ReferenceGrant => parse::<gateway::ReferenceGrant>(object),
        Kind::XBackend => parse::<gateway::XBackend>(object),
        Kind::XBackendTrafficPolicy => parse::<gateway::XBackendTrafficPolicy>(object),
        Kind::XMesh => parse::<gateway::XMesh>(object),
        Kind::XTelemetryPolicy => parse::<gateway::XTelemetryPolicy>(object),
        _ => panic!("{kind} is not in the release"),
    }
}

/// Adds a line for each error that the release or Portico reports for a valid object.
fn expect_accepted(evaluator: &RuleEvaluator, object: &Value, case: &str, lines: &mut Vec<String>) {
    for violated in evaluator.violated_release_rules(object, None) {
        lines.push(format!("{case}: release at {}: {}", violated.path, violated.message));
    }
    for path in evaluator.rejected_fields(object) {
        lines.push(format!("{case}: Portico at {path}"));
    }
}

/// Adds a line unless the release rejects the object at the path of the snippet, and Portico at the same paths. Rules
/// of Portico must fail exactly where those of the release do.
fn expect_rejected(
    evaluator: &RuleEvaluator,
    object: &Value,
    before: Option<&Value>,
    violated_in_release: &[ViolatedRule],
    path: &str,
    case: &str,
    lines: &mut Vec<String>,
) {
    if !violated_in_release.iter().any(|violated| violated.path == path) {
        lines.push(format!("{case}: violates no rule of the release at {path}"));
    }
    let violated_in_portico = evaluator.violated_portico_rules(object, before);
    for violated in violated_in_portico.iter().filter(|violated| evaluator.is_static_message(&violated.message)) {
        lines.push(format!("{case}: the message does not name the entry: {}", violated.message));
    }
    let paths = |violated: &[ViolatedRule]| -> BTreeSet<String> {
        violated.iter().map(|violated| violated.path.clone()).collect()
    };
    let (in_portico, in_release) = (paths(&violated_in_portico), paths(violated_in_release));
    if in_portico != in_release {
        lines.push(format!("{case}: Portico's rules fail at {in_portico:?}, those of the release at {in_release:?}"));
    }
    if before.is_some() {
        // `schema::check` validates single manifests; only the API server compares with the previous version.
        return;
    }
    // Where a rule repeats a format, Portico reports the entry or field with the format, which is inside this value.
    let rejected = evaluator.rejected_fields(object);
    let is_rejected =
        |path: &String| rejected.iter().any(|field| field.strip_prefix(path.as_str()).is_some_and(is_inside));
    for path in in_release.iter().filter(|path| !is_rejected(path)) {
        lines.push(format!("{case}: Portico does not reject {path}, only {rejected:?}"));
    }
}

/// Whether the rest of a path, after the path of a value, is inside that value.
fn is_inside(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// Panics if there are lines. `title` says what they are.
fn report(lines: &[String], title: &str) {
    assert!(lines.is_empty(), "{} {title}:\n{}", lines.len(), lines.join("\n"));
}
