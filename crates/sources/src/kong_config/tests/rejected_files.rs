//! Files that are not translated, and the fields that their errors name.

use serde_json::{Map, Value, json};

use super::{objects, rejections, translated, with};
use crate::manifests::Translation;

#[test]
fn broken_files_are_rejected_with_the_field() {
    let service = |more: Value| {
        let mut service = json!({"name": "s", "host": "s.example"});
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(json!({"services": [service]}))
    };
    for (file, expected) in [
        (json!({}), "_format_version: the version of the format is missing"),
        (json!({"_format_version": 3.0}), "_format_version: this is a number, and not a text"),
        (json!({"_format_version": "4.0"}), "_format_version: version \"4.0\" of the format is unknown"),
        (with(json!({"service": []})), "service: this field is unknown"),
        (with(json!({"services": {}})), "services: this is an object, and not a list"),
        (with(json!({"services": ["x"]})), "services[0]: this is a text, and not an entity"),
        (with(json!({"services": [{"name": "s"}]})), "services[0].host: the host is missing"),
        (service(json!({"prot": 1})), "services[0].prot: this field is unknown"),
        (service(json!({"port": "80"})), "services[0].port: this is a text, and not a whole number from 0 to 65535"),
        (
            service(json!({"plugins": [{"name": "cors", "_config": "none"}]})),
            "services[0].plugins[0]._config: _plugin_configs has no configuration \"none\"",
        ),
        (service(json!({"routes": [{"name": "r"}]})), "services[0].routes[0]: the route has no condition"),
        (service(json!({"routes": [{"paths": ["a"]}]})), "services[0].routes[0].paths[0]: \"a\" does not start"),
        (service(json!({"routes": [{"paths": ["/"], "expression": "x"}]})), "services[0].routes[0]: routes with expr"),
        (service(json!({"plugins": [{"config": {}}]})), "services[0].plugins[0]: the plugin has no name"),
        (
            service(json!({"plugins": [{"name": "cors"}, {"name": "cors"}]})),
            "services[0].plugins[1]: another plugin cors has the same scope",
        ),
        (
            with(json!({"routes": [{"paths": ["/"], "service": "none"}]})),
            "routes[0].service: service \"none\" does not exist in this file",
        ),
        (
            with(json!({"services": [{"name": "s", "host": "a"}, {"name": "s", "host": "b"}]})),
            "services[1].name: another service has the name \"s\"",
        ),
        (with(json!({"consumers": [{}]})), "consumers[0]: the consumer has neither username nor custom_id"),
        (
            with(json!({"consumers": [{"username": "a", "keyauth_credentials": [{}]}]})),
            "consumers[0].keyauth_credentials[0].key: key is missing",
        ),
        (
            with(json!({"plugins": [{"name": "x", "config": {"a": ["{vault://b/x}"]}}]})),
            "plugins[0].config.a[0]: no vault of this file has the prefix \"b\"",
        ),
        (
            with(json!({"plugins": [{"name": "x", "config": {"a": "{vault://env/x?y=z}"}}]})),
            "plugins[0].config.a: this is no reference to a vault: it has options",
        ),
        (
            with(json!({"plugins": [{"name": "x", "config": {"a": ["Authorization:Bearer {vault://env/x}"]}}]})),
            "plugins[0].config.a[0]: this is no reference to a vault: it is a part of a longer text",
        ),
        (
            with(json!({"certificates": [{"cert": "{vault://env/x}"}]})),
            "certificates[0].cert: references to vaults are read in configurations of plugins only",
        ),
        (with(json!({"vaults": [{"name": "env"}]})), "vaults[0]: the vault has no prefix"),
        (
            with(json!({"upstreams": [{"name": "u", "targets": [{"target": "a b:80"}]}]})),
            "upstreams[0].targets[0].target: this is not the address of a target",
        ),
    ] {
        let found = rejections(file);
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
}

/// A missing field was reported, too.
#[test]
fn values_of_wrong_types_are_reported_once() {
    for (file, expected) in [
        (with(json!({"consumers": [{"username": 5}]})), "consumers[0].username: this is a number, and not a text"),
        (
            with(json!({"consumers": [{"username": "a", "keyauth_credentials": [{"key": 5}]}]})),
            "consumers[0].keyauth_credentials[0].key: this is a number, and not a text",
        ),
        (with(json!({"services": [{"name": "s", "host": ["a"]}]})), "services[0].host: this is a list, and not a text"),
        (
            with(json!({"certificates": [{"cert": "a", "key": true}]})),
            "certificates[0].key: this is true or false, and not a text",
        ),
        (
            with(json!({"upstreams": [{"name": "u", "targets": [{"target": "a.example:80", "weight": 100_000}]}]})),
            "upstreams[0].targets[0].weight: 100000 is more than 65535",
        ),
        (
            with(json!({"services": [{"name": "s", "host": "s.example", "retries": 1.5}]})),
            "services[0].retries: 1.5 is not a whole number",
        ),
    ] {
        assert_eq!(rejections(file), [expected]);
    }
}

/// What Kong's schemas of entities refuse.
// docs/kong-compatibility.md, 1.3
#[test]
fn what_kong_refuses_is_rejected() {
    let service = |more: Value| {
        let mut service = json!({"name": "s", "url": "http://s.example"});
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(json!({"services": [service]}))
    };
    let host = |fields: Value| with(json!({"services": [fields]}));
    let route = |fields: Value| service(json!({ "routes": [fields] }));
    let consumer = |fields: Value| {
        let mut consumer = json!({"username": "bob"});
        consumer.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        with(json!({"consumers": [consumer]}))
    };
    let twice = |collection: &str, entity: Value| consumer(json!({ collection: [entity.clone(), entity] }));
    for (file, field) in [
        (with(json!({"_comment": 1234})), "_comment"),
        (with(json!({"_ignore": {"a": 1}})), "_ignore"),
        (service(json!({"_comment": 1})), "services[0]._comment"),
        (service(json!({"_ignore": 1})), "services[0]._ignore"),
        (service(json!({"created_at": "x"})), "services[0].created_at"),
        (service(json!({"name": "a/b"})), "services[0].name"),
        (service(json!({"name": ""})), "services[0].name"),
        (service(json!({"tags": "a"})), "services[0].tags"),
        (service(json!({"tags": ["a", "b,c"]})), "services[0].tags[1]"),
        (service(json!({"tags": ["a/b"]})), "services[0].tags[0]"),
        (service(json!({"tls_verify": true})), "services[0].tls_verify"),
        (service(json!({"client_certificate": "c"})), "services[0].client_certificate"),
        (host(json!({"host": "a b"})), "services[0].host"),
        (host(json!({"host": "a.example:80"})), "services[0].host"),
        (host(json!({"host": "a.example", "path": "a"})), "services[0].path"),
        (host(json!({"host": "a.example", "path": "/a//b"})), "services[0].path"),
        (host(json!({"host": "a.example", "path": "/a?b"})), "services[0].path"),
        (host(json!({"host": "a.example", "path": "/a%zz"})), "services[0].path"),
        (host(json!({"host": "a.example", "protocol": "grpc", "path": "/a"})), "services[0].path"),
        (host(json!({"url": "http://a.example/a//b"})), "services[0].url"),
        (host(json!({"url": "http://a.example/a%zz"})), "services[0].url"),
        (route(json!({"name": "a b", "paths": ["/"]})), "services[0].routes[0].name"),
        (route(json!({"hosts": ["a b"]})), "services[0].routes[0].hosts[0]"),
        (route(json!({"hosts": ["a.example", "*.*.example"]})), "services[0].routes[0].hosts[1]"),
        (route(json!({"hosts": ["a.*.example"]})), "services[0].routes[0].hosts[0]"),
        (route(json!({"hosts": ["a.example:x"]})), "services[0].routes[0].hosts[0]"),
        (route(json!({"hosts": ["[::1]", "*"]})), "services[0].routes[0].hosts[1]"),
        (route(json!({"paths": ["~/a("]})), "services[0].routes[0].paths[0]"),
        (route(json!({"paths": ["~/a[[b"]})), "services[0].routes[0].paths[0]"),
        (route(json!({"paths": ["~a"]})), "services[0].routes[0].paths[0]"),
        (route(json!({"paths": ["/a%zz"]})), "services[0].routes[0].paths[0]"),
        (route(json!({"paths": ["/"], "protocols": []})), "services[0].routes[0].protocols"),
        (route(json!({"paths": ["/"], "protocols": ["http", "tcp"]})), "services[0].routes[0].protocols"),
        (
            route(json!({"paths": ["/"], "https_redirect_status_code": 303})),
            "services[0].routes[0].https_redirect_status_code",
        ),
        (route(json!({"paths": ["/"], "path_handling": "v2"})), "services[0].routes[0].path_handling"),
        (route(json!({"paths": ["/"], "headers": {"Host": ["a"]}})), "services[0].routes[0].headers.Host"),
        (service(json!({"plugins": [{"name": "cors", "service": "s"}]})), "services[0].plugins[0].service"),
        (
            service(json!({"plugins": [{"name": "cors", "instance_name": "a/b"}]})),
            "services[0].plugins[0].instance_name",
        ),
        (
            with(json!({"plugins": [
                {"name": "cors", "instance_name": "x"}, {"name": "prometheus", "instance_name": "x"}]})),
            "plugins[1].instance_name",
        ),
        (twice("keyauth_credentials", json!({"key": "a"})), "consumers[0].keyauth_credentials[1].key"),
        (twice("acls", json!({"group": "a"})), "consumers[0].acls[1].group"),
        (twice("jwt_secrets", json!({"key": "a", "secret": "b"})), "consumers[0].jwt_secrets[1].key"),
        (
            consumer(json!({"keyauth_credentials": [{"key": "a", "consumer": "bob"}]})),
            "consumers[0].keyauth_credentials[0].consumer",
        ),
        (with(json!({"consumers": [{"custom_id": "a"}, {"custom_id": "a"}]})), "consumers[1].custom_id"),
        (with(json!({"upstreams": [{"name": "a b"}]})), "upstreams[0].name"),
        (with(json!({"upstreams": [{"name": "192.0.2.1"}]})), "upstreams[0].name"),
    ] {
        let found = rejections(file.clone());
        assert!(found[0].starts_with(&format!("{field}: ")), "{field} in {file}: {found:?}");
    }
    let empty: Map<String, Value> = ["keys", "key_sets", "oauth2_tokens", "sessions", "tags"]
        .map(|name| (name.to_owned(), json!([])))
        .into_iter()
        .collect();
    let (objects, notes) = objects(with(Value::Object(empty)));
    assert!(objects.is_empty() && notes.is_empty(), "{notes:?}");
    let members = ["a", "b"].map(|name| json!({"username": name, "acls": [{"group": "g"}]}));
    let shared = json!({"consumers": members});
    assert!(matches!(translated(with(shared)), Translation::Objects(..)), "consumers share a group");
}
