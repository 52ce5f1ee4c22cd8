//! Golden tests of compiling: manifests in, snapshot, endpoints, verdicts and answers out.
//!
//! `tests/compile/NAME.in.yaml` holds objects and, if wanted, a document `kind: Requests` with requests to ask the
//! snapshot about. `NAME.out.yaml` is what must come of it; `UPDATE=1` rewrites it, and the difference is reviewed.
//! Comments at the top of the input steer the case:
//!
//! - `# Rules: NAME, …` names the rules of `tests/compile/rules.md` that the case shows;
//! - `# Pool: CIDR, …` gives an explicit address pool;
//! - `# Services: yes` puts a Service in front of each Gateway; a document `kind: Memory` says what these say;
//! - `# Installed: RELEASE, CHANNEL` says which CRDs of Gateway API an API server has;
//! - `# Class: NAME` takes the Ingresses of a class over; `# Router: expressions` has them ranked by the other of Kong's;
//! - `# Published: NAMESPACE/NAME` names the Service whose addresses the status of Ingresses says;
//! - `# Newer: yes` marks objects that this version's schema refuses, as an API server of a newer release would not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compile {
    pub(crate) mod case;
    pub(crate) mod consumers;
    pub(crate) mod edits;
    pub(crate) mod edits_of_plugins;
    pub(crate) mod rules;
}

use std::collections::BTreeSet;
use std::fs;

use compile::case::Case;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::verdict::Code;
use serde_json::{Value, json};

#[test]
fn every_case_gives_what_is_written() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let found = case.outcome();
        assert_eq!(found, case.outcome_bit_by_bit(), "{}: object by object must give the same", case.name);
        let expected = fs::read_to_string(case.output()).unwrap_or_default();
        if found == expected {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(case.output(), &found).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", case.name, difference(&expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 rewrites these; review what changes\n{}", wrong.join("\n"));
}

/// What `portico_snapshot_hash` says.
#[test]
fn replicas_that_saw_the_same_in_another_order_agree() {
    let case = |name: &str| Case::all().into_iter().find(|case| case.name == name).unwrap();
    for case in Case::all() {
        let [one, other] = case.fingerprints();
        assert_eq!(one, other, "{}", case.name);
        // A number of Prometheus is a double.
        assert_eq!(one.number() as f64 as u64, one.number());
        assert!(one.to_string().starts_with(&format!("{:012x}", one.number())), "{one} {:x}", one.number());
    }
    // What decides about a request is in it, also what dumps do not show.
    type Edit = fn(&mut Value);
    let edits: [(&str, &str, &str, Edit); 8] = [
        ("a plugin's configuration", "plugins", "annas", |plugin| plugin["config"]["deny"] = json!(["others"])),
        ("a configuration from a Secret", "plugins", "acl-config", version),
        ("a key", "plugins", "annas-key", version),
        ("a group", "plugins", "annas-group", version),
        ("a consumer's name", "plugins", "anna", |consumer| consumer["username"] = json!("another")),
        ("who a Service has to be", "upstream-tls", "own", |secret| {
            secret["stringData"]["cert"] = json!("AUTHORITY two")
        }),
        ("what a mirror is spoken to in", "mirrors", "granted", |service| {
            service["metadata"]["annotations"]["konghq.com/protocol"] = json!("https");
        }),
        ("and in which protocol", "mirrors", "granted", |service| {
            service["metadata"]["annotations"]["konghq.com/protocol"] = json!("grpc");
        }),
    ];
    for (what, name, object, edit) in edits {
        let before = case(name).fingerprints()[0];
        let [one, other] = case(name).edited(object, edit).fingerprints();
        assert_eq!(one, other, "{what}");
        assert_ne!(one, before, "{what}");
        assert_eq!(case(name).fingerprint_after(&case(name).edited(object, edit)), one, "{what}, later");
    }
    let nothing = case("plugins").edited("nobodys", |plugin| plugin["metadata"]["labels"] = json!({"a": "b"}));
    assert_eq!(nothing.fingerprints()[0], case("plugins").fingerprints()[0], "what changes nothing");
}

/// As if the API server had it in another version.
fn version(object: &mut Value) {
    object["metadata"]["resourceVersion"] = json!("4711");
}

/// Everybody who sees metrics could try what they can think of.
#[test]
fn a_fingerprint_says_nothing_about_what_a_secret_holds() {
    type Edit = fn(&mut Value);
    let edits: [(&str, &str, Edit); 4] = [
        ("a key", "annas-key", |secret| secret["stringData"]["key"] = json!("another")),
        ("a group", "annas-group", |secret| secret["stringData"]["group"] = json!("guests")),
        ("a configuration", "acl-config", |secret| secret["stringData"]["config"] = json!("allow: [c]")),
        ("a part of one", "acl-config", |secret| secret["stringData"]["groups"] = json!("[\"d\"]")),
    ];
    for (what, object, edit) in edits {
        let case = || Case::all().into_iter().find(|case| case.name == "plugins").unwrap();
        assert_eq!(case().fingerprints(), case().edited(object, edit).fingerprints(), "{what}");
    }
}

#[test]
fn the_owner_of_a_service_is_told_what_is_wrong_with_its_secrets() {
    let case = Case::all().into_iter().find(|case| case.name == "upstream-tls").unwrap();
    for (service, annotation) in [("theirs", "client-cert"), ("mirrored", "ca-certificates-secrets")] {
        let id = ObjectId::new(Kind::Service, ObjectKey::new("other", service));
        for told in case.unheeded(&id) {
            let expected = format!("metadata.annotations[konghq.com/{annotation}]: Secret other/hidden does not exist");
            assert!(told.iter().any(|told| told.starts_with(&expected)), "{told:?}");
        }
    }
}

#[test]
fn every_condition_we_can_say_has_an_example() {
    let seen: BTreeSet<Code> = Case::all().iter().flat_map(Case::codes).collect();
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "no case of tests/compile shows {missing:?}");
}

#[test]
fn every_rule_is_shown_by_a_case_and_every_case_cites_known_rules() {
    let rules = compile::rules::known();
    let mut cited = BTreeSet::new();
    for case in Case::all() {
        assert!(!case.rules.is_empty(), "{} cites no rule: add a line `# Rules: …`", case.name);
        for rule in &case.rules {
            assert!(rules.contains(rule), "{} cites {rule}, which tests/compile/rules.md does not list", case.name);
            cited.insert(rule.clone());
        }
    }
    let missing: Vec<_> = rules.difference(&cited).collect();
    assert!(missing.is_empty(), "no case of tests/compile cites {missing:?}");
}

#[test]
fn what_a_case_says_is_what_an_api_server_would_let_in() {
    let refused: Vec<_> = Case::all().iter().flat_map(Case::refused_by_the_schema).collect();
    assert!(refused.is_empty(), "mend the case, or mark it `# Newer: yes`:\n{}", refused.join("\n"));
}

/// The lines around which two texts differ.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[same..].iter().rev().zip(new[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let show = |sign: &str, lines: &[&str]| lines.iter().map(|line| format!("{sign} {line}\n")).collect::<String>();
    let context = &old[same.saturating_sub(3)..same];
    show(" ", context) + &show("-", &old[same..old.len() - tail]) + &show("+", &new[same..new.len() - tail])
}
