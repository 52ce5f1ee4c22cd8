//! Compares the schemas with the CRDs of the Gateway API release: the same fields and bounds, and for every rule of the
//! release an object that violates it and is rejected at the same place. Needs the folder printed by
//! `scripts/gateway-crds.sh`.

mod corpus;
mod difference;
mod evaluator;
mod nodes;
mod release;

use std::collections::{BTreeMap, BTreeSet};

use portico::api::gateway::schema::{served_versions, structural, structural_version};
use portico::api::gateway::{self, Channel};
use portico::api::{Kind, Object, Resource};
use serde_json::Value;

use corpus::{Snippets, Valid};
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
            let theirs: BTreeSet<&str> = definitions
                .iter()
                .filter(|definition| definition.kind == *kind && definition.channel == channel)
                .map(|definition| definition.version.as_str())
                .collect();
            let ours: BTreeSet<&str> = served_versions(*kind, channel).iter().copied().collect();
            assert_eq!(ours, theirs, "{kind} ({})", channel.name());
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
    report(&lines, "differences, Portico / release");
}

#[test]
fn valid_objects_violate_no_rule() {
    let mut lines = Vec::new();
    let (definitions, valid) = (release::definitions(), Valid::all());
    for definition in &definitions {
        let judge = RuleEvaluator::new(definition);
        let mut objects = valid.iter().filter_map(|valid| Some((valid, valid.for_definition(definition)?))).peekable();
        if objects.peek().is_none() {
            lines.push(format!("{}: no valid object in the corpus", definition.name()));
        }
        for (valid, object) in objects {
            let case = format!("{} of {}", definition.name(), valid.file);
            accepted(&judge, &object, &case, &mut lines);
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
    let mut refused: BTreeMap<String, bool> = BTreeMap::new();
    for example in release::invalid_examples() {
        let violations = portico::schema::check(example.kind, &mut example.object.clone(), example.channel);
        *refused.entry(example.file).or_default() |= !violations.is_empty();
    }
    for (file, refused) in refused {
        if !refused {
            lines.push(format!("{file}: accepted although invalid"));
        }
    }
    report(&lines, "errors");
}

#[test]
fn valid_objects_parse_as_their_types() {
    let mut lines = Vec::new();
    for definition in release::definitions() {
        for valid in Valid::all() {
            let Some(object) = valid.for_definition(&definition) else { continue };
            if let Err(error) = typed(definition.kind, object) {
                lines.push(format!("{} of {}: {error}", definition.name(), valid.file));
            }
        }
    }
    report(&lines, "valid objects that cannot be parsed");
}

#[test]
fn every_release_rule_is_violated_at_the_same_place() {
    let mut lines = Vec::new();
    let (definitions, valid, snippets) = (release::definitions(), Valid::all(), Snippets::all());
    let mut used = BTreeSet::new();
    for definition in different(&definitions) {
        let judge = RuleEvaluator::new(definition);
        let objects: Vec<Value> = valid.iter().filter_map(|valid| valid.for_definition(definition)).collect();
        let places = corpus::places(&objects);
        let mut covered = BTreeSet::new();
        for snippets in &snippets {
            for place in snippets.places(&places) {
                let named = |name: &str| format!("{} {}, {}: {name}", definition.name(), place.path, snippets.file);
                for snippet in snippets.accepted.iter().filter(|snippet| snippet.concerns(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let whole = place.with_value(&snippet.value);
                    accepted(&judge, &whole, &named(&snippet.name), &mut lines);
                }
                for snippet in snippets.refused.iter().filter(|snippet| snippet.concerns(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let before = snippet.before.as_ref().map(|before| place.with_value(before));
                    let whole = place.with_value(&snippet.value);
                    let broken = judge.violated_release_rules(&whole, before.as_ref());
                    refused(&judge, &whole, before.as_ref(), &broken, &place.path, &named(&snippet.name), &mut lines);
                    covered.extend(
                        broken.into_iter().filter(|broken| broken.decided).map(|broken| (broken.node, broken.rule)),
                    );
                }
            }
        }
        for (node, content) in nodes::nodes(&judge.schema) {
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
    for words in evaluator::unused_replacements(definitions.iter().map(|definition| &definition.schema)) {
        lines.push(format!("evaluator.rs: no rule contains {words} any more"));
    }
    report(&lines, "errors");
}

#[test]
fn every_message_has_problem_and_remedy() {
    for channel in Channel::ALL {
        for kind in Kind::ALL {
            let schema = structural(*kind, channel).unwrap_or_default();
            for (node, content) in nodes::nodes(&schema) {
                for rule in content.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    let message = rule["message"].as_str().unwrap();
                    let halves: Vec<&str> = message.split("; ").collect();
                    assert!(matches!(halves[..], [_, _]), "{kind} {node}: {message}");
                }
            }
        }
    }
}

/// The definitions without versions that equal an earlier one.
fn different(definitions: &[Definition]) -> Vec<&Definition> {
    let mut different: Vec<&Definition> = Vec::new();
    for definition in definitions {
        let repeats = |earlier: &&Definition| {
            (earlier.kind, earlier.channel) == (definition.kind, definition.channel)
                && difference::same(&earlier.schema, &definition.schema)
                && difference::same(&schema(earlier), &schema(definition))
        };
        if !different.iter().any(repeats) {
            different.push(definition);
        }
    }
    different
}

/// Portico's schema for a definition of the release.
fn schema(definition: &Definition) -> Value {
    structural_version(definition.kind, &definition.version, definition.channel).expect("the version is served")
}

/// Parses the object as the type of its kind.
fn typed(kind: Kind, object: Value) -> Result<(), serde_json::Error> {
    fn read<T: Resource>(object: Value) -> Result<(), serde_json::Error> {
        serde_json::from_value::<Object<T>>(object).map(drop)
    }
    match kind {
        Kind::GatewayClass => read::<gateway::GatewayClass>(object),
        Kind::Gateway => read::<gateway::Gateway>(object),
        Kind::ListenerSet => read::<gateway::ListenerSet>(object),
        Kind::HttpRoute => read::<gateway::HttpRoute>(object),
        Kind::GrpcRoute => read::<gateway::GrpcRoute>(object),
        Kind::TlsRoute => read::<gateway::TlsRoute>(object),
        Kind::TcpRoute => read::<gateway::TcpRoute>(object),
        Kind::UdpRoute => read::<gateway::UdpRoute>(object),
        Kind::BackendTlsPolicy => read::<gateway::BackendTlsPolicy>(object),
        Kind::ReferenceGrant => read::<gateway::ReferenceGrant>(object),
        Kind::XBackend => read::<gateway::XBackend>(object),
        Kind::XBackendTrafficPolicy => read::<gateway::XBackendTrafficPolicy>(object),
        Kind::XMesh => read::<gateway::XMesh>(object),
        Kind::XTelemetryPolicy => read::<gateway::XTelemetryPolicy>(object),
        _ => panic!("{kind} is not in the release"),
    }
}

/// Neither schema rejects the object.
fn accepted(judge: &RuleEvaluator, object: &Value, case: &str, lines: &mut Vec<String>) {
    for broken in judge.violated_release_rules(object, None) {
        lines.push(format!("{case}: release at {}: {}", broken.path, broken.message));
    }
    for path in judge.rejected_fields(object) {
        lines.push(format!("{case}: Portico at {path}"));
    }
}

/// The release rejects the object at the path of the snippet, and Portico wherever the release does; rules nowhere
/// else.
fn refused(
    judge: &RuleEvaluator,
    object: &Value,
    before: Option<&Value>,
    theirs: &[ViolatedRule],
    path: &str,
    case: &str,
    lines: &mut Vec<String>,
) {
    if !theirs.iter().any(|broken| broken.path == path) {
        lines.push(format!("{case}: violates no rule of the release there"));
    }
    let ours = judge.violated_own_rules(object, before);
    for broken in ours.iter().filter(|broken| judge.is_static_message(&broken.message)) {
        lines.push(format!("{case}: the message does not name the entry: {}", broken.message));
    }
    let at =
        |broken: &[ViolatedRule]| -> BTreeSet<String> { broken.iter().map(|broken| broken.path.clone()).collect() };
    let (ours, theirs) = (at(&ours), at(theirs));
    if ours != theirs {
        lines.push(format!("{case}: Portico's rules fail at {ours:?}, those of the release at {theirs:?}"));
    }
    if before.is_some() {
        // `schema::check` validates single manifests; only the API server compares with the previous version.
        return;
    }
    // A format that a rule repeats is reported at the entry or field with the format.
    let refused = judge.rejected_fields(object);
    let told = |path: &String| refused.iter().any(|told| told.strip_prefix(path.as_str()).is_some_and(below));
    for path in theirs.iter().filter(|path| !told(path)) {
        lines.push(format!("{case}: Portico does not reject {path}, only {refused:?}"));
    }
}

/// Whether the rest of a path, after the path of a value, is inside that value.
fn below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

fn report(lines: &[String], what: &str) {
    assert!(lines.is_empty(), "{} {what}:\n{}", lines.len(), lines.join("\n"));
}
