//! What holds for every plugin in the registry.

use portico::plugin::testing::build;
use portico::plugin::{AnyKind, Phases, Scopes};
use portico::plugins::REGISTRY;
use serde_json::{Map, Value, json};

use crate::{fields, source};

/// Kong's order, phases, protocols and scopes, and which of them guard.
struct Expected {
    name: &'static str,
    priority: i32,
    phases: Phases,
    scopes: Scopes,
    protocols: &'static [&'static str],
    is_guard: bool,
}

const HTTP: &[&str] = &["grpc", "grpcs", "http", "https"];
const ALL: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
const WITH_STREAMS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls"];

const fn expected(name: &'static str, priority: i32, phases: Phases) -> Expected {
    Expected { name, priority, phases, scopes: Scopes::ALL, protocols: HTTP, is_guard: false }
}

impl Expected {
    const fn guarding(self) -> Self {
        Expected { is_guard: true, ..self }
    }

    const fn not_for_consumers(self) -> Self {
        Expected { scopes: Scopes { consumer: false, ..Scopes::ALL }, ..self }
    }

    const fn for_everybody(self) -> Self {
        Expected { scopes: Scopes { consumer: false, consumer_group: false, ..Scopes::ALL }, ..self }
    }

    const fn speaking(self, protocols: &'static [&'static str]) -> Self {
        Expected { protocols, ..self }
    }
}

const TABLE: &[Expected] = &[
    expected("correlation-id", 100_001, Phases::ACCESS_AND_ANSWER),
    expected("bot-detection", 2500, Phases::ACCESS).guarding().for_everybody(),
    expected("cors", 2000, Phases::ACCESS_AND_ANSWER).for_everybody(),
    expected("jwt", 1450, Phases::ACCESS).guarding().for_everybody(),
    expected("key-auth", 1250, Phases::ACCESS).guarding().for_everybody(),
    expected("basic-auth", 1100, Phases::ACCESS).guarding().for_everybody(),
    expected("ip-restriction", 990, Phases::ACCESS).guarding().speaking(WITH_STREAMS),
    expected("request-size-limiting", 951, Phases::ACCESS).guarding(),
    expected("acl", 950, Phases::ACCESS).guarding().not_for_consumers(),
    expected("rate-limiting", 910, Phases::ACCESS).guarding(),
    expected("redirect", 779, Phases::ACCESS),
    expected("prometheus", 13, Phases::LOG).speaking(ALL),
    expected("request-termination", 2, Phases::ACCESS).guarding(),
];

/// What those need that do not build without.
fn least(kind: &dyn AnyKind) -> Value {
    match kind.name() {
        "acl" => json!({"allow": ["staff"]}),
        "ip-restriction" => json!({"allow": ["10.0.0.0/8"]}),
        "redirect" => json!({"location": "https://shop.example"}),
        _ => json!({}),
    }
}

fn with(config: &Value, path: &str, value: Value) -> Value {
    let mut config = config.clone();
    let mut at = &mut config;
    for name in path.split('.') {
        if !at[name].is_object() && path.ends_with(name) {
            at[name] = value;
            return config;
        }
        if !at[name].is_object() {
            at[name] = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = value;
    config
}

// kong-compat §4.0
#[test]
fn priorities_phases_scopes_and_protocols_are_kong_s() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let expected = TABLE.iter().find(|expected| expected.name == name);
        let expected = expected.unwrap_or_else(|| panic!("{name} has no row in the table of this test"));
        assert_eq!(kind.priority(), expected.priority, "{name}");
        assert_eq!(kind.phases(), expected.phases, "{name}");
        assert_eq!(kind.scopes(), expected.scopes, "{name}");
        assert_eq!(kind.protocols(), expected.protocols, "{name}");
        assert_eq!(kind.is_guard(), expected.is_guard, "{name}");
    }
}

#[test]
fn each_name_stands_once_in_the_list_and_in_order() {
    let names: Vec<&str> = REGISTRY.iter().map(AnyKind::name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "src/plugins/mod.rs lists {names:?}");
    for kind in REGISTRY.iter() {
        let found = REGISTRY.find(kind.name()).map(AnyKind::priority);
        assert_eq!(found, Some(kind.priority()), "{}", kind.name());
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(kind.name().chars().all(is_plain), "{}", kind.name());
    }
    assert!(REGISTRY.find("no-such-plugin").is_none());
}

#[test]
fn the_least_configuration_builds() {
    for kind in REGISTRY.iter() {
        let built = build(kind, &least(kind));
        assert!(built.is_ok(), "{}: {:?}", kind.name(), built.err());
    }
}

// kong-compat §4.7
#[test]
fn null_means_that_a_field_is_not_set() {
    for kind in REGISTRY.iter() {
        let least = least(kind);
        let mut all = least.clone();
        for field in fields::of(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if least.get(&field.path).is_none() {
                all[&field.path] = Value::Null;
            }
        }
        let built = build(kind, &all);
        assert!(built.is_ok(), "{}: {all}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn what_is_said_to_be_the_default_can_be_written_out() {
    for kind in REGISTRY.iter() {
        let least = least(kind);
        let mut all = least.clone();
        for field in fields::of(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if let (Some(default), None) = (&field.default, least.get(&field.path)) {
                all[&field.path] = default.clone();
            }
        }
        let built = build(kind, &all);
        assert!(built.is_ok(), "{}: {all}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn schemas_are_closed() {
    for kind in REGISTRY.iter() {
        let schema = kind.schema().to_value();
        for (path, object) in fields::objects(&schema) {
            let rest = object.get("additionalProperties");
            let is_map = object.get("properties").is_none() && rest.is_some_and(Value::is_object);
            assert!(is_map || rest == Some(&Value::Bool(false)), "{} at {path}: {object}", kind.name());
        }
    }
}

#[test]
fn unknown_fields_are_refused_by_their_path() {
    for kind in REGISTRY.iter() {
        let records = fields::of(kind).into_iter().filter(|field| field.is_record && !field.of.starts_with("list"));
        let paths = records.map(|field| format!("{}.no_such_field", field.path));
        for path in paths.chain(["no_such_field".to_owned()]) {
            let config = with(&least(kind), &path, json!(1));
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} is taken", kind.name()) };
            let record = format!("config.{path}");
            let record = record.strip_suffix(".no_such_field").unwrap();
            let names_it = |invalid: &portico::plugin::Invalid| {
                invalid.field.starts_with(record) && invalid.message.contains("no_such_field")
            };
            assert!(invalid.iter().any(names_it), "{}: {config}: {invalid:?}", kind.name());
            assert!(invalid.iter().all(|invalid| !invalid.remedy.is_empty()), "{}: {invalid:?}", kind.name());
        }
    }
}

#[test]
fn what_is_of_another_type_is_refused_by_its_path() {
    for kind in REGISTRY.iter() {
        for field in fields::of(kind).iter().filter(|field| !field.path.contains("[]")) {
            let wrong = if field.is_record || field.of == "map" { json!(["wrong"]) } else { json!({"wrong": true}) };
            let config = with(&least(kind), &field.path, wrong);
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} is taken", kind.name()) };
            let path = format!("config.{}", field.path);
            assert!(
                invalid.iter().any(|invalid| invalid.field.starts_with(&path)),
                "{}: {config}: {invalid:?}",
                kind.name()
            );
        }
    }
}

#[test]
fn what_is_refused_is_not_told_to_everybody() {
    for kind in REGISTRY.iter() {
        for field in fields::of(kind).iter().filter(|field| !field.path.contains("[]") && field.choices.is_empty()) {
            for secret in [json!(8_675_309), json!("8675309, expected ")] {
                let config = with(&least(kind), &field.path, secret);
                let Err(invalid) = build(kind, &config) else { continue };
                let of_type = invalid.iter().filter(|invalid| invalid.message.ends_with("does not fit here"));
                for invalid in of_type {
                    let said = format!("{invalid:?}");
                    assert!(!said.contains("8675309"), "{}: {}: {said}", kind.name(), field.path);
                }
            }
        }
    }
}

#[test]
fn what_is_of_another_type_is_told_in_the_words_of_yaml() {
    let limits = REGISTRY.find("rate-limiting").unwrap();
    for (config, expected) in [
        (
            json!({"minute": "five"}),
            "config.minute: a text does not fit here; use a whole number of at least 0, without quotes",
        ),
        (
            json!({"minute": -5}),
            "config.minute: this whole number does not fit here; use a whole number of at least 0, without quotes",
        ),
        (
            json!({"minute": [5]}),
            "config.minute: a list does not fit here; use a whole number of at least 0, without quotes",
        ),
        (
            json!({"minute": 5, "fault_tolerant": "yes"}),
            "config.fault_tolerant: a text does not fit here; use true or false, without quotes",
        ),
        (json!({"minute": 5, "redis": "localhost"}), "config.redis: a text does not fit here; use an object"),
        (
            json!({"minute": 5, "header_name": 7}),
            "config.header_name: this whole number does not fit here; use a text, in quotes if it looks like a number",
        ),
    ] {
        let Err(invalid) = build(limits, &config) else { panic!("{config} is taken") };
        let told: Vec<_> = invalid.iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect();
        assert_eq!(told, [expected], "{config}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for kind in REGISTRY.iter() {
        for config in [json!([]), json!("text"), json!(1), json!(true)] {
            assert!(build(kind, &config).is_err(), "{}: {config}", kind.name());
        }
    }
}

#[test]
fn every_field_and_every_choice_is_explained() {
    for kind in REGISTRY.iter() {
        for field in fields::of(kind) {
            let is_sentence = field.description.ends_with('.');
            assert!(is_sentence, "{}: {} has no comment that is a sentence", kind.name(), field.path);
        }
    }
}

#[test]
fn declared_phases_are_those_that_are_written_out() {
    for kind in REGISTRY.iter() {
        let Phases { access, answer, log } = kind.phases();
        for (phase, is_declared) in [("access", access), ("answer", answer), ("log", log)] {
            let name = kind.name();
            assert_eq!(
                source::implements(name, phase),
                is_declared,
                "{name}: is there a `fn {phase}` in `impl Plugin`?"
            );
        }
    }
}
