//! Tests of the translation: every entity, what is left out, and broken files.

mod documents;
mod dumped_files;
mod lifetimes;
mod optional_fields;
mod rejected_files;
mod websocket_routes;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FileContext, TranslationSettings, translate};
use crate::manifests::Translation;

fn translated(file: Value) -> Translation {
    translated_at(file, None)
}

/// The translation of a file that was read at this second since 1970, or that is converted.
fn translated_at(file: Value, read_at: Option<i64>) -> Translation {
    let settings = TranslationSettings { namespace: "default".to_owned(), class: "portico".to_owned() };
    translate(file, &settings, &FileContext { variable: &|_| None, read_at })
}

/// The objects by kind and name, and the notes as `field: message`.
fn objects(file: Value) -> (BTreeMap<String, Value>, Vec<String>) {
    match translated(file) {
        Translation::Rejected(problems) => panic!("{problems:?}"),
        Translation::Objects(objects, notes) => {
            let named = objects.into_iter().map(|object| {
                let (kind, name) = (&object.value["kind"], &object.value["metadata"]["name"]);
                let key = format!("{}/{}", kind.as_str().unwrap(), name.as_str().unwrap());
                (key, object.value)
            });
            let notes = notes.iter().map(|note| format!("{}: {}", note.field, note.message)).collect();
            (named.collect(), notes)
        }
    }
}

fn rejections(file: Value) -> Vec<String> {
    match translated(file) {
        Translation::Rejected(problems) => {
            assert!(problems.iter().all(|problem| !problem.remedy.is_empty()), "{problems:?}");
            problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
        }
        Translation::Objects(objects, _) => panic!("{objects:?}"),
    }
}

fn with(entities: Value) -> Value {
    let mut file = json!({"_format_version": "3.0"});
    file.as_object_mut().unwrap().extend(entities.as_object().unwrap().clone());
    file
}

fn annotations(object: &Value) -> Vec<String> {
    let annotations = object["metadata"]["annotations"].as_object().unwrap();
    let plain = annotations.iter().filter(|(key, _)| *key != "kubernetes.io/ingress.class");
    plain.map(|(key, value)| format!("{}={}", key.rsplit('/').next().unwrap(), value.as_str().unwrap())).collect()
}

#[test]
fn services_have_endpoints_and_settings() {
    let (objects, notes) = objects(with(json!({"services": [
        {"name": "named", "url": "https://users.example/v1", "retries": 2, "read_timeout": 500, "tls_verify": true},
        {"name": "address", "host": "192.0.2.1", "port": 8080},
        {"name": "balanced", "host": "pool", "protocol": "http"},
        {"name": "local", "host": "pair"},
        {"name": "off", "host": "x", "enabled": false},
        {"name": "Database", "protocol": "tcp", "host": "db", "port": 5432},
        {"name": "secure", "protocol": "tls", "host": "db", "port": 5433},
    ], "upstreams": [
        {"name": "pool", "host_header": "pool.example", "algorithm": "consistent-hashing", "hash_on": "header",
            "hash_on_header": "X-User", "hash_fallback": "ip", "hash_on_cookie_path": "/",
            "healthchecks": {"active": {"http_path": "/live", "healthy": {"interval": 5, "successes": 1}},
                "passive": {"unhealthy": {"http_failures": 3}}, "threshold": 50.0},
            "targets": [{"target": "192.0.2.1:80"}, {"target": "192.0.2.2:80", "weight": 0},
                {"target": "192.0.2.3:81"}, {"target": "[2001:db8::1]:80"}, {"target": "a.example:80"}]},
        {"name": "pair", "targets": [{"target": "one:9001", "weight": 10}, {"target": "two:80"}]},
    ]})));
    let named = &objects["Service/named"];
    assert_eq!(
        named["spec"],
        json!({"type": "ExternalName", "externalName": "users.example",
        "ports": [{"port": 443, "protocol": "TCP"}]})
    );
    assert_eq!(
        annotations(named),
        [
            "entity-name=named",
            "retries=2",
            "read-timeout=500",
            "tls-verify=true",
            "protocol=https",
            "path=/v1",
            "host-header=users.example"
        ]
    );
    let slice = &objects["EndpointSlice/address-1"];
    assert_eq!(slice["metadata"]["labels"], json!({"kubernetes.io/service-name": "address"}));
    assert_eq!((&slice["addressType"], &slice["ports"][0]["port"]), (&json!("IPv4"), &json!(8080)));
    assert_eq!(annotations(&objects["Service/address"]), ["entity-name=address", "host-header=192.0.2.1:8080"]);

    // Targets without weight get no requests; each address type and port has a slice.
    let slices: Vec<_> = (1..=4)
        .map(|number| &objects[&format!("EndpointSlice/balanced-{number}")])
        .map(|slice| format!("{} {}", slice["endpoints"][0]["addresses"][0], slice["ports"][0]["port"]))
        .collect();
    assert_eq!(slices, ["\"192.0.2.1\" 80", "\"192.0.2.3\" 81", "\"2001:db8::1\" 80", "\"a.example\" 80"]);
    assert_eq!(
        objects["KongUpstreamPolicy/pool"]["spec"],
        json!({"hashOn": {"header": "X-User"}, "hashOnFallback": {"input": "ip"}, "algorithm": "consistent-hashing",
            "healthchecks": {"threshold": 50,
                "active": {"httpPath": "/live", "healthy": {"interval": 5, "successes": 1}},
                "passive": {"unhealthy": {"httpFailures": 3}}}})
    );
    let local = annotations(&objects["Service/local"]);
    assert!(local.contains(&"address=one:9001,two:80".to_owned()), "{local:?}");
    assert!(local.contains(&"endpoint-weights=one:9001=10,two:80=100".to_owned()), "{local:?}");
    assert!(!objects.keys().any(|key| key.contains("off")), "{:?}", objects.keys());
    let database = objects.keys().find(|key| key.starts_with("Service/database")).expect("its name is changed");
    assert_eq!(objects[database]["spec"]["externalName"], "db");
    assert_eq!(annotations(&objects[database]), ["entity-name=Database"]);
    let expected = [
        "services[2]: Host is pool for all targets",
        "services[3]: Host is pair for all targets",
        "services[6]: a service of protocol tls is not served",
    ];
    assert_eq!(notes.len(), expected.len(), "{notes:?}");
    for (note, expected) in notes.iter().zip(expected) {
        assert!(note.starts_with(expected), "{note}");
    }
}

#[test]
fn settings_of_upstreams_that_differ_are_reported() {
    let (objects, notes) = objects(with(json!({"upstreams": [
        {"name": "pool", "algorithm": "consistent-hashing", "hash_on": "header", "hash_on_header": "x-user",
            "hash_fallback": "cookie", "hash_on_cookie": "c",
            "healthchecks": {"active": {"timeout": 0.5, "healthy": {"interval": 1.2}, "unhealthy": {"interval": 3}}}},
    ]})));
    let spec = &objects["KongUpstreamPolicy/pool"]["spec"];
    assert_eq!((&spec["hashOn"], spec.get("hashOnFallback")), (&json!({"header": "x-user"}), None));
    assert_eq!(
        spec["healthchecks"]["active"],
        json!({"timeout": 1, "healthy": {"interval": 2}, "unhealthy": {"interval": 3}})
    );
    let expected = [
        "upstreams[0].hash_fallback: a cookie as fallback has no effect",
        "upstreams[0].healthchecks.active.timeout: 0.5 is rounded up",
        "upstreams[0].healthchecks.active.healthy.interval: 1.2 is rounded up",
    ];
    assert_eq!(notes.len(), expected.len(), "{notes:?}");
    for expected in expected {
        assert!(notes.iter().any(|note| note.starts_with(expected)), "{notes:?}");
    }
}

#[test]
fn routes_keep_their_conditions() {
    let (objects, notes) = objects(with(json!({
        "services": [{"name": "s", "host": "s.example", "port": 81, "routes": [
            {"name": "all", "paths": ["/a", "~/b/\\d+$", "~/c/[^[/]+$"],
                "hosts": ["A.example", "*.b.example", "c.example:81"],
                "methods": ["GET", "POST"], "headers": {"X-A": ["1", "2,3"]}, "snis": ["a.example"],
                "regex_priority": 5, "strip_path": false, "preserve_host": true, "protocols": ["https"],
                "https_redirect_status_code": 301, "path_handling": "v1", "request_buffering": false},
            {"hosts": ["a.*", "::1", "[::2]:81"]},
        ]}],
        "routes": [{"name": "none", "paths": ["/none"]}, {"name": "stream", "protocols": ["tls"],
            "destinations": [{"port": 9000}]}],
    })));
    let all = &objects["Ingress/all"];
    assert_eq!(
        annotations(all),
        [
            "entity-name=all",
            "protocols=https",
            "methods=GET,POST",
            "snis=a.example",
            "headers-separator=;",
            "headers.X-A=1;2,3",
            "host-aliases=*.b.example,c.example:81",
            "strip-path=false",
            "preserve-host=true",
            "https-redirect-status-code=301",
            "regex-priority=5"
        ]
    );
    let backend = json!({"service": {"name": "s", "port": {"number": 81}}});
    let path = |path: &str| json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    let rule =
        json!({"host": "a.example", "http": {"paths": [path("/a"), path("/~/b/\\d+$"), path("/~/c/[^\\[/]+$")]}});
    assert_eq!(all["spec"], json!({"rules": [rule]}));
    let unnamed = &objects["Ingress/s-route-1"];
    let conditions = ["host-aliases=a.*,[::1],[::2]:81", "any-path=true", "strip-path=true", "preserve-host=false"];
    assert_eq!(annotations(unnamed), conditions);
    assert_eq!(unnamed["spec"], json!({"rules": [{"http": {"paths": [path("/")]}}]}));
    assert_eq!(
        objects["Ingress/none"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"],
        "no-service"
    );
    assert_eq!(annotations(&objects["Service/no-service"]), ["entity-name="]);
    assert!(objects.contains_key("Service/no-service") && !objects.contains_key("Ingress/stream"));
    let fields: Vec<_> = notes.iter().map(|note| note.split(':').next().unwrap()).collect();
    assert_eq!(fields, ["services[0].routes[0].path_handling", "routes[1].protocols", "routes[1].destinations"]);
}

#[test]
fn streams_are_served_by_port() {
    let (objects, notes) = objects(with(json!({
    "services": [
        {"name": "db", "protocol": "tcp", "host": "db.example", "port": 5432, "routes": [
            {"name": "db", "protocols": ["tcp"], "destinations": [{"port": 9000}, {"port": 9001}],
                "plugins": [{"name": "ip-restriction", "config": {"allow": ["192.0.2.0/24"]}}]},
            {"name": "near", "protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}], "destinations": [{"port": 1}]},
            {"name": "web", "paths": ["/"]},
        ]},
        {"name": "dns", "url": "udp://192.0.2.53:53", "routes": [
            {"name": "dns", "protocols": ["udp"], "destinations": [{"port": 5353}]},
            {"name": "other", "protocols": ["tcp"], "destinations": [{"port": 2}]}]},
    ]})));
    let backend = json!({"serviceName": "db", "servicePort": 5432});
    let rules = json!([{"port": 9000, "backend": backend}, {"port": 9001, "backend": backend}]);
    assert_eq!(objects["TCPIngress/db"]["spec"], json!({ "rules": rules }));
    assert_eq!(annotations(&objects["TCPIngress/db"]), ["plugins=db-ip-restriction"]);
    assert_eq!(objects["UDPIngress/dns"]["spec"]["rules"][0]["port"], 5353);
    assert_eq!(objects["Service/dns"]["spec"]["ports"], json!([{"port": 53, "protocol": "UDP"}]));
    assert_eq!(objects["EndpointSlice/dns-1"]["ports"], json!([{"port": 53, "protocol": "UDP"}]));
    let ingresses: Vec<_> = objects.keys().filter(|key| key.contains("Ingress/")).collect();
    assert_eq!(ingresses, ["TCPIngress/db", "UDPIngress/dns"]);
    let expected = [
        "services[0].routes[0].destinations: the ports of this route are open only with --ingress-stream-ports 9000,9001",
        "services[0].routes[1].sources: routes by source address are not supported",
        "services[0].routes[2]: a route of HTTP has a service of protocol tcp",
        "services[1].routes[0].destinations: the ports of this route are open only with --ingress-stream-ports 5353/udp",
        "services[1].routes[1].destinations: the service of this route has another protocol than tcp",
    ];
    assert_eq!(notes, expected);
}

// docs/kong-compatibility.md, 6.3
#[test]
fn names_and_tags_are_those_of_the_file() {
    let (objects, _) = objects(with(json!({
        "services": [{"name": "Users_v1", "host": "s.example", "tags": ["team a", "b"], "routes": [
            {"name": "by.path", "paths": ["/"], "tags": ["c"]}, {"hosts": ["a.example"], "tags": null}]}],
    })));
    let service = objects.keys().find(|key| key.starts_with("Service/users-v1")).expect("its name is changed");
    assert_eq!(annotations(&objects[service]), ["entity-name=Users_v1", "tags=team a,b", "host-header=s.example"]);
    let of = |key: &str| annotations(&objects[key])[..2].to_vec();
    assert_eq!(of("Ingress/by.path"), ["entity-name=by.path", "tags=c"]);
    let unnamed = objects.keys().find(|key| key.contains("route-1")).expect("it has a name of its own");
    assert!(!of(unnamed).iter().any(|text| text.contains("entity-name") || text.contains("tags")), "{unnamed}");
}

// docs/kong-compatibility.md, 2.2
#[test]
fn routes_of_grpc_keep_their_path() {
    let route = |more: Value| {
        let mut route = json!({"name": "r", "protocols": ["grpc"], "paths": ["/hello.HelloService/"]});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(json!({"services": [{"name": "s", "host": "s.example", "protocol": "grpc", "routes": [route]}]}))
    };
    let (objects, _) = objects(route(json!({})));
    assert!(annotations(&objects["Ingress/r"]).contains(&"strip-path=false".to_owned()));
    for (field, value) in [("strip_path", json!(true)), ("methods", json!(["POST"]))] {
        let found = rejections(route(json!({ field: value })));
        assert!(found[0].starts_with(&format!("services[0].routes[0].{field}: ")), "{found:?}");
    }
}

#[test]
fn older_files_have_expressions_without_a_mark() {
    for (version, expected) in [("1.1", "/~/a/.*"), ("2.1", "/~/a/.*"), ("3.0", "/a/.*")] {
        let (objects, _) = objects(json!({"_format_version": version,
            "services": [{"name": "s", "host": "s.example", "routes": [{"name": "r", "paths": ["/a/.*"]}]}]}));
        assert_eq!(objects["Ingress/r"]["spec"]["rules"][0]["http"]["paths"][0]["path"], expected, "{version}");
    }
}

#[test]
fn consumers_have_credentials_groups_and_plugins() {
    let (objects, notes) = objects(with(json!({
        "services": [{"name": "s", "host": "s.example", "plugins": [{"name": "cors"}],
            "routes": [{"name": "r", "paths": ["/"], "plugins": [{"name": "key-auth", "config": {"key_names": ["k"]}}]}]
        }],
        "consumers": [
            {"username": "Ann", "custom_id": "7", "keyauth_credentials": [{"key": "one"}, {"key": "two", "ttl": 60}],
                "basicauth_credentials": [{"username": "ann", "password": "p"}], "acls": [{"group": "staff"}],
                "groups": [{"name": "gold"}],
                "plugins": [{"name": "rate-limiting", "config": {"minute": 5}}]},
            {"username": "bob"},
        ],
        "consumer_groups": [{"name": "gold", "consumers": [{"username": "bob"}],
            "plugins": [{"name": "request-termination", "enabled": false}]}],
        "jwt_secrets": [{"consumer": "bob", "key": "iss", "secret": "x", "algorithm": "HS256"}],
        "plugins": [
            {"name": "prometheus"},
            {"name": "correlation-id", "consumer": {"username": "bob"}, "route": {"name": "r"}},
        ],
    })));
    assert_eq!(notes, Vec::<String>::new());
    let ann = objects.keys().find(|key| key.starts_with("KongConsumer/ann-")).expect("its name is changed");
    let ann = &objects[ann];
    assert_eq!((&ann["username"], &ann["custom_id"]), (&json!("Ann"), &json!("7")));
    assert_eq!((&ann["consumerGroups"], ann["credentials"].as_array().unwrap().len()), (&json!(["gold"]), 4));
    let secrets: Vec<_> = ann["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| &objects[&format!("Secret/{}", name.as_str().unwrap())])
        .map(|secret| format!("{} {}", secret["metadata"]["labels"]["konghq.com/credential"], secret["stringData"]))
        .collect();
    assert_eq!(
        secrets,
        [
            "\"key-auth\" {\"key\":\"one\"}",
            "\"key-auth\" {\"key\":\"two\",\"ttl\":\"60\"}",
            "\"basic-auth\" {\"username\":\"ann\",\"password\":\"p\"}",
            "\"acl\" {\"group\":\"staff\"}",
        ]
    );
    assert_eq!(objects["KongConsumer/bob"]["credentials"], json!(["bob-jwt"]));
    assert_eq!(objects["KongConsumer/bob"]["consumerGroups"], json!(["gold"]));
    // The plugin of a pair is attached to both.
    let plugins = |key: &str| objects[key]["metadata"]["annotations"]["konghq.com/plugins"].clone();
    assert_eq!(plugins("Service/s"), "s-cors");
    assert_eq!(plugins("Ingress/r"), "r-key-auth,r-bob-correlation-id");
    assert_eq!(plugins("KongConsumer/bob"), "r-bob-correlation-id");
    assert_eq!(plugins("KongConsumerGroup/gold"), "gold-request-termination");
    assert_eq!(objects["KongPlugin/gold-request-termination"]["disabled"], true);
    assert_eq!(objects["KongPlugin/r-key-auth"]["config"], json!({"key_names": ["k"]}));
    let global = &objects["KongClusterPlugin/prometheus"]["metadata"];
    assert_eq!((&global["labels"]["global"], global.get("namespace")), (&json!("true"), None));
}

#[test]
fn certificates_are_selected_by_sni() {
    let (objects, notes) = objects(with(json!({
        "certificates": [{"id": "c1", "cert": "CERT", "key": "KEY", "snis": [{"name": "A.example"}, "b.example"]}],
        "snis": [{"name": "c.example", "certificate": {"id": "c1"}}, {"name": "*", "certificate": "c1"},
            {"name": "c.*", "certificate": "c1"}],
        "ca_certificates": [{"id": "ca", "cert": "AUTHORITY"}],
        "services": [{"name": "s", "url": "https://s.example", "client_certificate": {"id": "c1"},
            "ca_certificates": ["ca"]}],
    })));
    let ingress = &objects["Ingress/tls-c1"]["spec"];
    assert_eq!(ingress["tls"], json!([{"hosts": ["a.example", "b.example", "c.example"], "secretName": "c1"}]));
    assert_eq!(objects["Secret/c1"]["stringData"], json!({"tls.crt": "CERT", "tls.key": "KEY"}));
    assert_eq!(objects["Secret/ca"]["metadata"]["labels"], json!({"konghq.com/ca-cert": "true"}));
    let service = annotations(&objects["Service/s"]);
    assert!(service.contains(&"client-cert=c1".to_owned()), "{service:?}");
    assert!(service.contains(&"ca-certificates-secrets=ca".to_owned()), "{service:?}");
    assert_eq!(notes.len(), 2, "{notes:?}");
    for expected in ["snis[1]: the SNI * has no effect", "snis[2]: the SNI c.* has no effect"] {
        assert!(notes.iter().any(|note| note.starts_with(expected)), "{notes:?}");
    }
}

#[test]
fn defaults_apply_to_every_entity() {
    let (objects, _) = objects(with(json!({
        "_info": {"select_tags": ["a"], "defaults": {"route": {"strip_path": false}, "service": {"port": 82}}},
        "services": [{"name": "s", "host": "s.example", "routes": [{"name": "r", "paths": ["/"]}]}],
        "routes": [{"name": "q", "service": {"name": "s"}, "hosts": ["q.example"], "strip_path": true}],
    })));
    let has = |key: &str, text: &str| annotations(&objects[key]).contains(&text.to_owned());
    assert!(has("Ingress/r", "strip-path=false") && has("Ingress/q", "strip-path=true"));
    assert_eq!(objects["Service/s"]["spec"]["ports"][0]["port"], 82);
}

#[test]
fn vaults_are_kept_with_the_references_to_them() {
    let (objects, notes) = objects(with(json!({
        "vaults": [
            {"name": "env", "prefix": "my-env", "config": {"prefix": "SHOP_"}, "description": "d"},
            {"name": "hcv", "prefix": "hcv", "config": {"host": "v.example", "token": "{vault://env/token}"}},
            {"name": "conjur", "prefix": "c"},
        ],
        "services": [{"name": "s", "host": "s.example", "plugins": [{"name": "session",
            "config": {"secret": "{vault://my-env/secret}"}}]}],
        "plugins": [{"name": "http-log", "config": {"headers": {"a": "{vault://env/a-key/x/b#1}"}}}],
    })));
    assert_eq!(
        objects["KongVault/my-env"]["spec"],
        json!({"backend": "env", "prefix": "my-env", "description": "d", "config": {"prefix": "SHOP_"}})
    );
    assert_eq!(objects["KongVault/hcv"]["metadata"].get("namespace"), None);
    assert_eq!(objects["KongPlugin/s-session"]["config"], json!({"secret": "{vault://my-env/secret}"}));
    let expected = [
        "plugins[0].config.headers.a: the value is read from variable PORTICO_VAULT_A_KEY_X instead of A_KEY_X",
        "vaults[2]: vaults of the backend conjur are not supported",
    ];
    assert_eq!(notes, expected);
}

// docs/kong-compatibility.md, 1.11
#[test]
fn entities_of_plugins_become_parts_of_their_configurations() {
    let route = |uri: &str| json!({"uri": uri, "query": "{ me }"});
    let of = |service: &str, uri: &str| json!({"service": {"name": service}, "uri": uri, "query": "{ me }"});
    let file = with(json!({
        "services": [
            {"name": "films", "host": "a.example", "plugins": [{"name": "degraphql"}, {"name": "graphql-rate-limiting-advanced"}]},
            {"name": "users", "host": "b.example", "routes": [
                {"name": "r", "paths": ["/r"], "plugins": [{"name": "degraphql", "config": {"routes": [route("/own")]}}]},
            ]},
        ],
        "degraphql_routes": [of("films", "/films"), {"id": "1", "uri": "/all", "query": "{ me }"}],
        "graphql_ratelimiting_advanced_cost_decoration": [{"service": "films", "type_path": "Query.a", "mul_constant": 2}],
        "custom_entities": [{"type": "degraphql_routes", "fields": of("users", "/users")}],
    }));
    let (objects, _) = objects(file);
    let config = |name: &str| &objects[&format!("KongPlugin/{name}")]["config"];
    assert_eq!(*config("films-degraphql"), json!({"routes": [route("/films"), route("/all")]}));
    assert_eq!(*config("r-degraphql"), json!({"routes": [route("/own"), route("/all"), route("/users")]}));
    let costs = json!({"costs": [{"type_path": "Query.a", "mul_constant": 2}]});
    assert_eq!(*config("films-graphql-rate-limiting-advanced"), costs);
    for (entities, message) in [
        (
            json!({"services": [{"name": "a", "host": "b"}], "degraphql_routes": [of("a", "/")]}),
            "degraphql_routes[0]: no plugin degraphql is attached to the service or to a route of it",
        ),
        (json!({"degraphql_routes": [of("a", "/")]}), "degraphql_routes[0].service"),
        (json!({"custom_entities": [{"type": "x", "fields": {}}]}), "custom_entities[0].type: entities of this type"),
        (json!({"plugins": [{"name": "degraphql"}], "degraphql_routes": [{"url": "/"}]}), "degraphql_routes[0].url"),
    ] {
        let problems = rejections(with(entities));
        assert!(problems.iter().any(|problem| problem.starts_with(message)), "{message}: {problems:?}");
    }
}
