//! Contract tests that every plugin in the registry must pass.

use portico::plugin_api::testing::build;
use portico::plugin_api::{AnyPluginKind, Phases, Scopes};
use portico::plugins::REGISTRY;
use serde_json::{Map, Value, json};

use crate::plugins::{fields, source};

/// The priority, phases, scopes and protocols of Kong's plugin, and whether Portico's plugin fails closed.
struct ExpectedKind {
    name: &'static str,
    priority: i32,
    phases: Phases,
    scopes: Scopes,
    protocols: &'static [&'static str],
    fails_closed: bool,
}

const HTTP: &[&str] = &["grpc", "grpcs", "http", "https"];
const ALL_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
const HTTP_TCP_AND_TLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls"];

const fn expected(name: &'static str, priority: i32, phases: Phases) -> ExpectedKind {
    ExpectedKind { name, priority, phases, scopes: Scopes::ALL, protocols: HTTP, fails_closed: false }
}

impl ExpectedKind {
    const fn failing_closed(self) -> Self {
        ExpectedKind { fails_closed: true, ..self }
    }

    const fn without_consumers(self) -> Self {
        ExpectedKind { scopes: Scopes { consumer: false, ..Scopes::ALL }, ..self }
    }

    const fn without_consumers_and_groups(self) -> Self {
        ExpectedKind { scopes: Scopes { consumer: false, consumer_group: false, ..Scopes::ALL }, ..self }
    }

    const fn with_protocols(self, protocols: &'static [&'static str]) -> Self {
        ExpectedKind { protocols, ..self }
    }
}

const EXPECTED_KINDS: &[ExpectedKind] = &[
    expected("correlation-id", 100_001, Phases::ACCESS_AND_RESPONSE),
    expected("bot-detection", 2500, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("cors", 2000, Phases::ACCESS_AND_RESPONSE).without_consumers_and_groups(),
    expected("jwt", 1450, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("key-auth", 1250, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("basic-auth", 1100, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("ip-restriction", 990, Phases::ACCESS_AND_STREAM_OPEN).failing_closed().with_protocols(HTTP_TCP_AND_TLS),
    expected("request-size-limiting", 951, Phases::ACCESS).failing_closed(),
    expected("acl", 950, Phases::ACCESS).failing_closed().without_consumers(),
    expected("rate-limiting", 910, Phases::ACCESS).failing_closed(),
    expected("request-transformer", 801, Phases::ACCESS),
    expected("response-transformer", 800, Phases::RESPONSE),
    expected("redirect", 779, Phases::ACCESS),
    expected("prometheus", 13, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("http-log", 12, Phases::LOG),
    expected("request-termination", 2, Phases::ACCESS).failing_closed(),
];

/// The minimal configuration of a plugin.
fn minimal_config(kind: &dyn AnyPluginKind) -> Value {
    match kind.name() {
        "acl" => json!({"allow": ["staff"]}),
        "http-log" => json!({"http_endpoint": "https://logs.example/requests"}),
        "ip-restriction" => json!({"allow": ["10.0.0.0/8"]}),
        "redirect" => json!({"location": "https://shop.example"}),
        _ => json!({}),
    }
}

/// The configuration with a value at a path such as `redis.host`. Creates the objects on the path that are missing.
fn with_value(config: &Value, path: &str, value: Value) -> Value {
    let mut config = config.clone();
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = &mut config;
    for name in parents.split('.').filter(|name| !name.is_empty()) {
        if !parent[name].is_object() {
            parent[name] = Value::Object(Map::new());
        }
        parent = &mut parent[name];
    }
    parent[last] = value;
    config
}

// docs/kong-compatibility.md, 4.0
#[test]
fn priorities_phases_scopes_and_protocols_match_kong() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let expected = EXPECTED_KINDS.iter().find(|expected| expected.name == name);
        let expected = expected.unwrap_or_else(|| panic!("{name} has no entry in EXPECTED_KINDS"));
        assert_eq!(kind.priority(), expected.priority, "{name}");
        assert_eq!(kind.phases(), expected.phases, "{name}");
        assert_eq!(kind.scopes(), expected.scopes, "{name}");
        assert_eq!(kind.protocols(), expected.protocols, "{name}");
        assert_eq!(kind.fails_closed(), expected.fails_closed, "{name}");
    }
}

#[test]
fn plugin_names_are_unique_and_sorted() {
    let names: Vec<&str> = REGISTRY.iter().map(AnyPluginKind::name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "src/plugins/mod.rs lists {names:?}");
    for kind in REGISTRY.iter() {
        let found = REGISTRY.find(kind.name()).map(AnyPluginKind::priority);
        assert_eq!(found, Some(kind.priority()), "{}", kind.name());
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(kind.name().chars().all(is_allowed), "{}", kind.name());
    }
    assert!(REGISTRY.find("no-such-plugin").is_none());
}

#[test]
fn minimal_configurations_build() {
    for kind in REGISTRY.iter() {
        let built = build(kind, &minimal_config(kind));
        assert!(built.is_ok(), "{}: {:?}", kind.name(), built.err());
    }
}

// docs/kong-compatibility.md, 4.7
#[test]
fn null_fields_count_as_unset() {
    for kind in REGISTRY.iter() {
        let minimal = minimal_config(kind);
        let mut config = minimal.clone();
        for field in fields::list(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if minimal.get(&field.path).is_none() {
                config[&field.path] = Value::Null;
            }
        }
        let built = build(kind, &config);
        assert!(built.is_ok(), "{}: {config}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn documented_defaults_can_be_set_explicitly() {
    for kind in REGISTRY.iter() {
        let minimal = minimal_config(kind);
        let mut config = minimal.clone();
        for field in fields::list(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if let (Some(default), None) = (&field.default, minimal.get(&field.path)) {
                config[&field.path] = default.clone();
            }
        }
        let built = build(kind, &config);
        assert!(built.is_ok(), "{}: {config}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn schemas_reject_unknown_fields() {
    for kind in REGISTRY.iter() {
        let schema = kind.schema().to_value();
        for (path, object) in fields::objects(&schema) {
            let additional = object.get("additionalProperties");
            let is_map = object.get("properties").is_none() && additional.is_some_and(Value::is_object);
            assert!(is_map || additional == Some(&Value::Bool(false)), "{} at {path}: {object}", kind.name());
        }
    }
}

#[test]
fn unknown_fields_are_rejected_with_their_path() {
    for kind in REGISTRY.iter() {
        let objects =
            fields::list(kind).into_iter().filter(|field| field.has_fields && !field.type_name.starts_with("list"));
        let paths = objects.map(|field| format!("{}.no_such_field", field.path));
        for path in paths.chain(["no_such_field".to_owned()]) {
            let config = with_value(&minimal_config(kind), &path, json!(1));
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} was accepted", kind.name()) };
            let full_path = format!("config.{path}");
            let object_path = full_path.strip_suffix(".no_such_field").unwrap();
            let names_field = |invalid: &portico::diagnostic::Diagnostic| {
                invalid.field.starts_with(object_path) && invalid.message.contains("no_such_field")
            };
            assert!(invalid.iter().any(names_field), "{}: {config}: {invalid:?}", kind.name());
            assert!(invalid.iter().all(|invalid| !invalid.remedy.is_empty()), "{}: {invalid:?}", kind.name());
        }
    }
}

#[test]
fn all_errors_of_a_configuration_are_reported() {
    let kind = REGISTRY.find("rate-limiting").unwrap();
    for (config, expected) in [
        (
            json!({"lifetime": 1, "second": -1, "color": 2, "minute": "5"}),
            &["config.lifetime", "config.second", "config.color", "config.minute"][..],
        ),
        (json!({"lifetime": 1, "minute": 5, "limit_by": "header"}), &["config.lifetime", "config.limit_by"]),
        // A misspelled limit is reported only as an unknown field, not as a missing limit, too.
        (json!({"minutes": 5}), &["config.minutes"]),
    ] {
        let Err(invalid) = build(kind, &config) else { panic!("{config} was accepted") };
        let mut fields: Vec<_> = invalid.iter().map(|invalid| invalid.field.as_str()).collect();
        let mut expected = expected.to_vec();
        fields.sort_unstable();
        expected.sort_unstable();
        assert_eq!(fields, expected, "{config}: {invalid:?}");
    }
}

#[test]
fn wrong_types_are_rejected_with_their_path() {
    for kind in REGISTRY.iter() {
        for field in fields::list(kind).iter().filter(|field| !field.path.contains("[]")) {
            let wrong =
                if field.has_fields || field.type_name == "map" { json!(["wrong"]) } else { json!({"wrong": true}) };
            let config = with_value(&minimal_config(kind), &field.path, wrong);
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} was accepted", kind.name()) };
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
fn type_errors_do_not_reveal_values() {
    for kind in REGISTRY.iter() {
        for field in fields::list(kind).iter().filter(|field| !field.path.contains("[]") && field.choices.is_empty()) {
            // The second value contains the text that follows the value in messages of the deserializer.
            for secret in [json!(8_675_309), json!("8675309, expected ")] {
                let config = with_value(&minimal_config(kind), &field.path, secret);
                let Err(invalid) = build(kind, &config) else { continue };
                let type_errors = invalid.iter().filter(|invalid| invalid.message.ends_with("is not valid here"));
                for invalid in type_errors {
                    let text = format!("{invalid:?}");
                    assert!(!text.contains("8675309"), "{}: {}: {text}", kind.name(), field.path);
                }
            }
        }
    }
}

#[test]
fn type_errors_use_yaml_type_names() {
    let kind = REGISTRY.find("rate-limiting").unwrap();
    for (config, expected) in [
        (
            json!({"minute": "five"}),
            "config.minute: a string is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": -5}),
            "config.minute: this integer is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": [5]}),
            "config.minute: a list is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": 5, "fault_tolerant": "yes"}),
            "config.fault_tolerant: a string is not valid here; use true or false, without quotes",
        ),
        (json!({"minute": 5, "redis": "localhost"}), "config.redis: a string is not valid here; use an object"),
        (
            json!({"minute": 5, "header_name": 7}),
            "config.header_name: this integer is not valid here; use a string, in quotes if it looks like a number",
        ),
    ] {
        let Err(invalid) = build(kind, &config) else { panic!("{config} was accepted") };
        let found: Vec<_> = invalid.iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect();
        assert_eq!(found, [expected], "{config}");
    }
}

#[test]
fn configurations_must_be_objects() {
    for kind in REGISTRY.iter() {
        for config in [json!([]), json!("text"), json!(1), json!(true)] {
            assert!(build(kind, &config).is_err(), "{}: {config}", kind.name());
        }
    }
}

#[test]
fn every_field_has_a_description() {
    for kind in REGISTRY.iter() {
        for field in fields::list(kind) {
            let is_sentence = field.description.ends_with('.');
            assert!(is_sentence, "{}: the description of {} must be a sentence", kind.name(), field.path);
        }
    }
}

#[test]
fn declared_phases_are_implemented() {
    for kind in REGISTRY.iter() {
        let Phases { access, response, log, stream_open } = kind.phases();
        for (phase, is_declared) in
            [("access", access), ("response", response), ("log", log), ("stream_open", stream_open)]
        {
            let name = kind.name();
            assert_eq!(
                source::implements(name, phase),
                is_declared,
                "{name}: `PHASES` and `fn {phase}` in `impl Plugin` disagree"
            );
        }
    }
}
