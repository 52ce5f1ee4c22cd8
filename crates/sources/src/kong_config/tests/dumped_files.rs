//! What decK and Kong write without configuring anything, and what they write twice.

use serde_json::{Value, json};

use super::{objects, with};

fn endpoint_of(service: Value) -> (Value, Vec<String>) {
    let (mut objects, notes) = objects(with(json!({"services": [service]})));
    let service = objects.remove("Service/s").unwrap();
    (json!([service["spec"]["externalName"], service["spec"]["ports"][0]["port"]]), notes)
}

#[test]
fn url_takes_precedence_over_the_fields_that_it_stands_for() {
    for (service, port, expected) in [
        (json!({"protocol": "http"}), 4000, &[][..]),
        (json!({"protocol": "http", "host": "a", "port": 4000, "path": "/socket"}), 4000, &[]),
        (json!({"port": 80}), 4000, &["services[0].port: url takes precedence, so the port is 4000"]),
        (
            json!({"protocol": "https", "host": "b", "path": "/"}),
            4000,
            &[
                "services[0].protocol: url takes precedence, so the protocol is http",
                "services[0].host: url takes precedence, so the host is a",
                "services[0].path: url takes precedence, so the path is /socket",
            ],
        ),
    ] {
        let mut service = service;
        service["name"] = json!("s");
        service["url"] = json!("http://a:4000/socket");
        let (found, notes) = endpoint_of(service.clone());
        assert_eq!(found, json!(["a", port]), "{service}");
        assert_eq!(notes, expected, "{service}");
    }
}

#[test]
fn defaults_of_the_file_do_not_contradict_a_url() {
    let mut file = with(json!({"services": [{"name": "s", "url": "https://a.example"}]}));
    file["_info"] = json!({"defaults": {"service": {"protocol": "http", "port": 80}}});
    let (objects, notes) = objects(file);
    assert_eq!(objects["Service/s"]["spec"]["ports"][0]["port"], 443);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn what_configures_nothing_is_no_error() {
    let (found, notes) = objects(with(json!({
        "_workspace": "default",
        "_info": {"consumer_group_policy_overrides": true, "include_plugin_definitions": false,
            "skip_hash_for_basic_auth": false, "select_tags": []},
        "_comment": "a",
        "upstreams": [{"name": "u", "targets": [{"target": "a.example:80", "failover": false}]}],
        "services": [{"name": "s", "host": "u"}],
        "plugins": [{"name": "degraphql", "run_on": "first"}],
        "custom_entities": [{"id": "b3e", "type": "degraphql_routes", "fields": {"uri": "/a", "query": "{ a }"}}],
    })));
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(found["Service/s"]["spec"]["externalName"], "a.example");
    let (_, notes) = objects(with(json!({
        "_workspace": "team",
        "_konnect": {"control_plane_name": "prod"},
        "_info": {"default_lookup_tags": {"services": ["a"]}},
        "plugins": [{"name": "cors", "run_on": "second"}],
        "upstreams": [{"name": "u", "targets": [{"target": "a:80"}, {"target": "b:80", "failover": true}]}],
        "services": [{"name": "s", "host": "u"}],
    })));
    let fields: Vec<&str> = notes.iter().map(|note| note.split(": ").next().unwrap()).collect();
    let expected = [
        "_info.default_lookup_tags",
        "_workspace",
        "_konnect.control_plane_name",
        "upstreams[0].targets[1].failover",
        "plugins[0].run_on",
    ];
    assert_eq!(fields, expected, "{notes:?}");
}

#[test]
fn select_tags_are_tags_of_every_entity() {
    let (objects, notes) = objects(with(json!({
        "_info": {"select_tags": ["team-a", "shop"]},
        "services": [{"name": "s", "host": "a", "tags": ["own", "shop"], "routes": [{"name": "r", "paths": ["/"]}]}],
    })));
    assert_eq!(notes, Vec::<String>::new());
    let tags = |name: &str| objects[name]["metadata"]["annotations"]["konghq.com/tags"].clone();
    assert_eq!((tags("Service/s"), tags("Ingress/r")), (json!("own,shop,team-a"), json!("team-a,shop")));
}

#[test]
fn plugins_share_the_configurations_of_the_file() {
    let (objects, _) = objects(with(json!({
        "_plugin_configs": {"limits": {"minute": 5, "policy": "local"}},
        "services": [{"name": "s", "host": "a",
            "plugins": [{"name": "rate-limiting", "_config": "limits", "config": {"minute": 7}}]}],
        "plugins": [{"name": "rate-limiting", "_config": "limits"}],
    })));
    assert_eq!(objects["KongPlugin/s-rate-limiting"]["config"], json!({"minute": 7, "policy": "local"}));
    assert_eq!(objects["KongClusterPlugin/rate-limiting"]["config"], json!({"minute": 5, "policy": "local"}));
}

/// Kong Enterprise names them in the defaults of its plugins.
#[test]
fn protocols_of_websockets_are_those_of_their_handshakes() {
    let all = json!(["grpc", "grpcs", "http", "https", "ws", "wss"]);
    let (objects, _) = objects(with(json!({
        "services": [{"name": "s", "host": "a", "plugins": [{"name": "key-auth", "protocols": ["wss"]}]}],
        "plugins": [{"name": "key-auth", "protocols": all}],
    })));
    assert_eq!(objects["KongClusterPlugin/key-auth"]["protocols"], json!(["grpc", "grpcs", "http", "https"]));
    assert_eq!(objects["KongPlugin/s-key-auth"]["protocols"], json!(["https"]));
}

/// With the hash as the password, no login would succeed.
#[test]
fn passwords_that_deck_does_not_hash_are_hashes() {
    let (objects, notes) = objects(with(json!({
        "_info": {"skip_hash_for_basic_auth": true},
        "consumers": [{"username": "a", "basicauth_credentials": [{"username": "a", "password": "0f0f"}]}],
    })));
    assert!(!objects.keys().any(|key| key.starts_with("Secret")) && notes.len() == 1, "{notes:?}");
}

/// Without the password, a login would be lost; with the hash as the password, it would be wrong.
#[test]
fn hashed_passwords_are_left_out() {
    let mut file = with(json!({"consumers": [{"username": "a",
        "basicauth_credentials": [{"username": "a", "password": "0f0f"}]}]}));
    file["_transform"] = json!(false);
    let (objects, notes) = objects(file);
    assert!(!objects.keys().any(|key| key.starts_with("Secret")) && notes.len() == 1, "{notes:?}");
}
