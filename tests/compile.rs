//! Golden tests of the compiler: manifests in; snapshot, endpoints, verdicts and responses out.
//!
//! `tests/compile/NAME.in.yaml` has objects and optionally a document `kind: Requests` with requests to look up in the
//! snapshot. `NAME.out.yaml` is the expected result; `UPDATE=1` rewrites it for review. Comments at the top of the
//! input configure the case:
//!
//! - `# Base: yes` adds the objects of `base.yaml`: a class, a Gateway and two Services;
//! - `# Rules: NAME, …` lists the rules of `tests/compile/rules.md` that the case demonstrates;
//! - `# Pool: CIDR, …` sets an explicit address pool;
//! - `# Services: yes` puts a Service in front of each Gateway; a document `kind: AddressState` sets the state of
//!   these Services;
//! - `# Installed: RELEASE, CHANNEL` sets the Gateway API CRDs that are installed in the API server;
//! - `# Class: NAME` sets the ingress class to serve; `# Router: expressions` ranks Ingresses as Kong's expressions
//!   router;
//! - `# Host owner: namespace` reserves exact hosts of Ingresses for the namespace of the oldest one;
//! - `# Nginx ConfigMap: NAMESPACE/NAME` sets the ConfigMap of ingress-nginx;
//! - `# Published: NAMESPACE/NAME` sets the Service whose addresses are written into the status of Ingresses;
//! - `# Degraded: KIND NAMESPACE/NAME, …` lists plugins whose server does not respond;
//! - `# Trust: multi-tenant` blocks addresses that tenants must not use as backends;
//! - `# Unreadable: KIND, …` lists kinds of the Gateway API that the API server does not return;
//! - `# Newer release: yes` allows objects that only the schema of a newer Gateway API release accepts.

mod budgets;
mod case;
mod consumer_edits;
mod dialect_edits;
mod edits;
mod nginx_edits;
mod own_urls;
mod owner_reports;
mod plugin_edits;
mod policy_edits;
mod replaced_backends;
mod rules;
mod secret_values;
mod unattached_routes;
mod unguarded_services;
mod unserved_objects;
mod written_statuses;

use std::collections::BTreeSet;
use std::fs;

use case::Case;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::verdict::Code;
use serde_json::{Value, json};

#[test]
fn cases_match_golden_files() {
    let mut differing = Vec::new();
    for case in Case::all() {
        let actual = case.outcome();
        assert_eq!(
            actual,
            case.outcome_one_by_one(),
            "{}: applying objects one by one must give the same result",
            case.name
        );
        let expected = fs::read_to_string(case.output()).unwrap_or_default();
        if actual == expected {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(case.output(), &actual).unwrap();
        } else {
            differing.push(format!("{}:\n{}", case.name, difference(&expected, &actual)));
        }
    }
    assert!(
        differing.is_empty(),
        "UPDATE=1 rewrites the expected results; review the changes\n{}",
        differing.join("\n")
    );
}

/// The fingerprint is exported as `portico_snapshot_hash`.
#[test]
fn fingerprint_does_not_depend_on_object_order() {
    let case = |name: &str| Case::all().into_iter().find(|case| case.name == name).unwrap();
    for case in Case::all() {
        let [at_once, one_by_one] = case.fingerprints();
        assert_eq!(at_once, one_by_one, "{}", case.name);
        // Prometheus stores numbers as doubles.
        assert_eq!(at_once.as_metric_value() as f64 as u64, at_once.as_metric_value());
        assert!(
            at_once.to_string().starts_with(&format!("{:012x}", at_once.as_metric_value())),
            "{at_once} {:x}",
            at_once.as_metric_value()
        );
    }
    // The fingerprint covers everything that affects requests, including what dumps omit.
    type Edit = fn(&mut Value);
    // (changed part, case, object, edit)
    let edits: [(&str, &str, &str, Edit); 8] = [
        ("a plugin's configuration", "plugins", "annas", |plugin| plugin["config"]["deny"] = json!(["others"])),
        ("a configuration from a Secret", "plugins", "acl-config", bump_version),
        ("a key", "plugins", "annas-key", bump_version),
        ("a group", "plugins", "annas-group", bump_version),
        ("a consumer's name", "plugins", "anna", |consumer| consumer["username"] = json!("another")),
        ("the authority of a Service", "upstream-tls", "own", |secret| {
            secret["stringData"]["cert"] = json!("AUTHORITY two")
        }),
        ("the TLS of a mirror", "mirrors", "granted", |service| {
            service["metadata"]["annotations"]["konghq.com/protocol"] = json!("https");
        }),
        ("the protocol of a mirror", "mirrors", "granted", |service| {
            service["metadata"]["annotations"]["konghq.com/protocol"] = json!("grpc");
        }),
    ];
    for (part, name, object, edit) in edits {
        let before = case(name).fingerprints()[0];
        let [at_once, one_by_one] = case(name).edited(object, edit).fingerprints();
        assert_eq!(at_once, one_by_one, "{part}");
        assert_ne!(at_once, before, "{part}");
        assert_eq!(case(name).fingerprint_after(&case(name).edited(object, edit)), at_once, "{part}, edited later");
    }
    let irrelevant =
        case("plugins").edited("without-references", |plugin| plugin["metadata"]["labels"] = json!({"a": "b"}));
    assert_eq!(irrelevant.fingerprints()[0], case("plugins").fingerprints()[0], "an irrelevant change");
}

/// Changes the resource version of an object.
fn bump_version(object: &mut Value) {
    object["metadata"]["resourceVersion"] = json!("4711");
}

/// Otherwise, users with access to the metrics could guess a secret and compare fingerprints to confirm the guess.
#[test]
fn fingerprint_does_not_depend_on_secret_values() {
    type Edit = fn(&mut Value);
    // (changed part, object, edit)
    let edits: [(&str, &str, Edit); 4] = [
        ("a key", "annas-key", |secret| secret["stringData"]["key"] = json!("another")),
        ("a group", "annas-group", |secret| secret["stringData"]["group"] = json!("guests")),
        ("a configuration", "acl-config", |secret| secret["stringData"]["config"] = json!("allow: [c]")),
        ("a patch of a configuration", "acl-config", |secret| secret["stringData"]["groups"] = json!("[\"d\"]")),
    ];
    for (part, object, edit) in edits {
        let case = || Case::all().into_iter().find(|case| case.name == "plugins").unwrap();
        assert_eq!(case().fingerprints(), case().edited(object, edit).fingerprints(), "{part}");
    }
}

#[test]
fn service_reports_its_missing_secrets() {
    let case = Case::all().into_iter().find(|case| case.name == "upstream-tls").unwrap();
    for (service, annotation) in [("theirs", "client-cert"), ("mirrored", "ca-certificates-secrets")] {
        let id = ObjectId::new(Kind::Service, ObjectKey::new("other", service));
        for annotations in case.ignored_annotations(&id) {
            let expected = format!("metadata.annotations[konghq.com/{annotation}]: Secret other/hidden does not exist");
            assert!(annotations.iter().any(|text| text.starts_with(&expected)), "{annotations:?}");
        }
    }
}

#[test]
fn every_condition_code_has_a_case() {
    let seen: BTreeSet<Code> = Case::all().iter().flat_map(Case::codes).collect();
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "no case of tests/compile shows {missing:?}");
}

#[test]
fn cases_and_rules_cite_each_other() {
    let rules = rules::known_rules();
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
fn cases_satisfy_the_schemas() {
    let violations: Vec<_> = Case::all().iter().flat_map(Case::schema_violations).collect();
    assert!(violations.is_empty(), "fix the case, or mark it `# Newer release: yes`:\n{}", violations.join("\n"));
}

/// The lines from the first difference to the last, after up to three equal lines.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let equal_prefix = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let equal_suffix =
        old[equal_prefix..].iter().rev().zip(new[equal_prefix..].iter().rev()).take_while(|(a, b)| a == b).count();
    let lines_with_sign =
        |sign: &str, lines: &[&str]| lines.iter().map(|line| format!("{sign} {line}\n")).collect::<String>();
    let context = &old[equal_prefix.saturating_sub(3)..equal_prefix];
    lines_with_sign(" ", context)
        + &lines_with_sign("-", &old[equal_prefix..old.len() - equal_suffix])
        + &lines_with_sign("+", &new[equal_prefix..new.len() - equal_suffix])
}
