//! Our schema of Gateway API against the release's own CRDs: the same fields and bounds, and for every rule of theirs
//! an object that breaks it and that we refuse at the same place. Needs the folder that `scripts/gateway-crds.sh` prints.

#![expect(clippy::unwrap_used, reason = "what a test cannot read or parse is a failed test")]

#[path = "gateway_crds/corpus.rs"]
mod corpus;
#[path = "gateway_crds/difference.rs"]
mod difference;
#[path = "gateway_crds/judge.rs"]
mod judge;
#[path = "gateway_crds/nodes.rs"]
mod nodes;
#[path = "gateway_crds/release.rs"]
mod release;

use std::collections::{BTreeMap, BTreeSet};

use portico::api::gateway::schema::{served, structural, structural_of};
use portico::api::gateway::{self, Channel};
use portico::api::{Kind, Object, Resource};
use serde_json::Value;

use corpus::{Snippets, Valid};
use judge::{Broken, Judge};
use release::Definition;

#[test]
fn our_kinds_and_versions_are_those_of_the_release() {
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
            let ours: BTreeSet<&str> = served(*kind, channel).iter().copied().collect();
            assert_eq!(ours, theirs, "{kind} ({})", channel.name());
        }
    }
}

#[test]
fn our_schema_asks_what_the_release_asks() {
    let mut lines = Vec::new();
    for definition in release::definitions() {
        for line in difference::differences(&schema(&definition), &definition.schema) {
            lines.push(format!("{} {line}", definition.name()));
        }
    }
    report(&lines, "differences, ours / theirs");
}

#[test]
fn valid_objects_break_no_rule() {
    let mut lines = Vec::new();
    let (definitions, valid) = (release::definitions(), Valid::all());
    for definition in &definitions {
        let judge = Judge::new(definition);
        let mut objects = valid.iter().filter_map(|valid| Some((valid, valid.of(definition)?))).peekable();
        if objects.peek().is_none() {
            lines.push(format!("{}: no valid object in the corpus", definition.name()));
        }
        for (valid, object) in objects {
            let case = format!("{} of {}", definition.name(), valid.file);
            accepted(&judge, &object, &case, &mut lines);
        }
    }
    report(&lines, "objections to valid objects");
}

#[test]
fn examples_of_the_release_are_accepted_and_its_invalid_ones_refused() {
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
            lines.push(format!("{file}: we have nothing against it"));
        }
    }
    report(&lines, "faults");
}

#[test]
fn valid_objects_become_our_types() {
    let mut lines = Vec::new();
    for definition in release::definitions() {
        for valid in Valid::all() {
            let Some(object) = valid.of(&definition) else { continue };
            if let Err(error) = typed(definition.kind, object) {
                lines.push(format!("{} of {}: {error}", definition.name(), valid.file));
            }
        }
    }
    report(&lines, "objects that are valid and cannot be read");
}

#[test]
fn every_rule_of_the_release_is_broken_and_we_refuse_the_same_place() {
    let mut lines = Vec::new();
    let (definitions, valid, snippets) = (release::definitions(), Valid::all(), Snippets::all());
    let mut used = BTreeSet::new();
    for definition in different(&definitions) {
        let judge = Judge::new(definition);
        let objects: Vec<Value> = valid.iter().filter_map(|valid| valid.of(definition)).collect();
        let places = corpus::places(&objects);
        let mut covered = BTreeSet::new();
        for snippets in &snippets {
            for place in snippets.places(&places) {
                let named = |name: &str| format!("{} {}, {}: {name}", definition.name(), place.path, snippets.file);
                for snippet in snippets.accepted.iter().filter(|snippet| snippet.concerns(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let whole = place.holding(&snippet.value);
                    accepted(&judge, &whole, &named(&snippet.name), &mut lines);
                }
                for snippet in snippets.refused.iter().filter(|snippet| snippet.concerns(definition)) {
                    used.insert((&snippets.file, &snippet.name));
                    let before = snippet.before.as_ref().map(|before| place.holding(before));
                    let whole = place.holding(&snippet.value);
                    let broken = judge.theirs(&whole, before.as_ref());
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
                    lines.push(format!("{} {node}: nothing in the corpus breaks {rule}", definition.name()));
                }
            }
        }
    }
    for snippets in &snippets {
        for snippet in snippets.accepted.iter().chain(&snippets.refused) {
            if !used.contains(&(&snippets.file, &snippet.name)) {
                lines.push(format!("{}: {} fits nowhere", snippets.file, snippet.name));
            }
        }
    }
    for words in judge::outdated(definitions.iter().map(|definition| &definition.schema)) {
        lines.push(format!("judge.rs: no rule says {words} any more"));
    }
    report(&lines, "faults");
}

#[test]
fn every_message_says_what_is_wrong_and_what_would_be_right() {
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

/// The definitions without those that repeat an earlier one under the name of another version.
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

/// Our schema of what the release defines.
fn schema(definition: &Definition) -> Value {
    structural_of(definition.kind, &definition.version, definition.channel).expect("it is served")
}

/// Reads the object as the type of its kind.
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
        _ => panic!("{kind} is not of the release"),
    }
}

/// Neither side has anything against the object.
fn accepted(judge: &Judge, object: &Value, case: &str, lines: &mut Vec<String>) {
    for broken in judge.theirs(object, None) {
        lines.push(format!("{case}: theirs at {}: {}", broken.path, broken.message));
    }
    for path in judge.refused(object) {
        lines.push(format!("{case}: ours at {path}"));
    }
}

/// Theirs refuse the object at the path of the snippet, and ours wherever theirs do; with rules alone, nowhere else.
fn refused(
    judge: &Judge,
    object: &Value,
    before: Option<&Value>,
    theirs: &[Broken],
    path: &str,
    case: &str,
    lines: &mut Vec<String>,
) {
    if !theirs.iter().any(|broken| broken.path == path) {
        lines.push(format!("{case}: breaks no rule of the release there"));
    }
    let ours = judge.ours(object, before);
    for broken in ours.iter().filter(|broken| judge.stands_in(&broken.message)) {
        lines.push(format!("{case}: the message does not say which: {}", broken.message));
    }
    let at = |broken: &[Broken]| -> BTreeSet<String> { broken.iter().map(|broken| broken.path.clone()).collect() };
    let (ours, theirs) = (at(&ours), at(theirs));
    if ours != theirs {
        lines.push(format!("{case}: rules of ours are broken at {ours:?}, of theirs at {theirs:?}"));
    }
    if before.is_some() {
        // A manifest is checked by itself; what it was before is nobody's business but the API server's.
        return;
    }
    // A form that a rule repeats is told where it is broken, at the entry or field that has it.
    let refused = judge.refused(object);
    let told = |path: &String| refused.iter().any(|told| told.strip_prefix(path.as_str()).is_some_and(below));
    for path in theirs.iter().filter(|path| !told(path)) {
        lines.push(format!("{case}: we do not refuse {path}, only {refused:?}"));
    }
}

/// What is left of a path behind that of a value in which it lies.
fn below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

fn report(lines: &[String], what: &str) {
    assert!(lines.is_empty(), "{} {what}:\n{}", lines.len(), lines.join("\n"));
}
