//! Edits of plugins and of the objects that decide where they run. After each step of random sequences, the result is
//! compared with a compilation from scratch. Further tests check that edits of consumers plan no route again.

use std::ops::Range;
use std::sync::Arc;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::{EDITS, MORE_SEEDS, SEEDS, apply_and_compare, ingress_class, parse, pick, put_or_remove};

#[test]
fn random_plugin_edits_match_full_compile() {
    compare_after_plugin_edits(SEEDS);
}

#[test]
#[ignore = "only in make test-full: more seeds of the test before it, each as likely to find something"]
fn more_random_plugin_edits_match_full_compile() {
    compare_after_plugin_edits(MORE_SEEDS);
}

fn compare_after_plugin_edits(seeds: Range<u64>) {
    let (mut with_consumer_plugins, mut with_other_plugins) = (0, 0);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut harness =
            CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
        harness.apply(Batch { upserts: initial_objects(), removes: vec![] });
        for step in 0..EDITS {
            let object = random_object(&mut random);
            let (_, state) = apply_and_compare(&mut harness, put_or_remove(&mut random, object), (seed, step));
            let has_plugin = |attachments: &[&str]| attachments.iter().any(|attachment| state.contains(attachment));
            with_consumer_plugins += usize::from(has_plugin(&[": Consumer", ": Group"]));
            with_other_plugins += usize::from(has_plugin(&[": route", ": service", ": global"]));
        }
    }
    assert!(
        with_consumer_plugins > 120,
        "too few states with a plugin for a consumer or group: {with_consumer_plugins}"
    );
    assert!(
        with_other_plugins > 120,
        "too few states with a plugin for a route, a Service or all requests: {with_other_plugins}"
    );
}

/// HTTPRoutes and Ingresses, as many of each, whose rules authenticate with the plugin `auth`.
fn routes_with_authentication(rules: usize) -> Vec<AnyObject> {
    let mut objects = initial_objects();
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    objects.push(parse(Kind::IngressClass, class));
    let auth = json!({"metadata": {"namespace": "a", "name": "auth"}, "plugin": "key-auth"});
    objects.push(parse(Kind::KongPlugin, auth));
    for number in 0..rules {
        let metadata =
            |name: String| json!({"namespace": "a", "name": name, "annotations": {"konghq.com/plugins": "auth"}});
        let mut spec = route(&[]);
        spec["hostnames"] = json!([format!("route-{number}.example")]);
        let http_route = json!({"metadata": metadata(format!("route-{number}")), "spec": spec});
        objects.push(parse(Kind::HttpRoute, http_route));
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        let rule = json!({"host": format!("ingress-{number}.example"), "http": {"paths": [path]}});
        let spec = json!({"ingressClassName": "portico", "rules": [rule]});
        objects.push(parse(Kind::Ingress, json!({"metadata": metadata(format!("ingress-{number}")), "spec": spec})));
    }
    objects
}

fn limit_plugin(name: &str, minute: u32) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": name});
    parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": "rate-limiting", "config": {"minute": minute}}))
}

/// A consumer or group with these plugins.
fn subject(kind: Kind, name: &str, plugins: &str) -> AnyObject {
    let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": plugins});
    let mut object = json!({"metadata": {"namespace": "a", "name": name, "annotations": annotations}});
    if kind == Kind::KongConsumer {
        object["username"] = json!(name);
    }
    parse(kind, object)
}

// docs/kong-compatibility.md, 1.4
#[test]
fn edits_of_plugins_of_consumers_plan_no_route_again() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let put = |object| Batch { upserts: vec![object], removes: vec![] };
    let remove =
        |kind, name: &str| Batch { upserts: vec![], removes: vec![ObjectId::new(kind, ObjectKey::new("a", name))] };
    harness.apply(Batch { upserts: routes_with_authentication(3), removes: vec![] });
    harness.apply(put(limit_plugin("gold", 100)));
    let edits = [
        ("the first consumer", put(subject(Kind::KongConsumer, "anna", "gold"))),
        ("another consumer", put(subject(Kind::KongConsumer, "bert", "gold"))),
        ("the configuration of the plugin", put(limit_plugin("gold", 200))),
        ("a second plugin", put(limit_plugin("silver", 50))),
        ("the plugin of one consumer", put(subject(Kind::KongConsumer, "bert", "silver"))),
        ("two plugins of one kind", put(subject(Kind::KongConsumer, "bert", "silver, gold"))),
        ("a group", put(subject(Kind::KongConsumerGroup, "vip", "silver"))),
        ("no plugin", put(subject(Kind::KongConsumer, "anna", ""))),
        ("a removed group", remove(Kind::KongConsumerGroup, "vip")),
        ("a removed plugin", remove(Kind::KongPlugin, "gold")),
        ("a removed consumer", remove(Kind::KongConsumer, "bert")),
    ];
    for (description, edit) in edits {
        let before = Arc::clone(&harness.snapshot);
        let built = harness.apply(edit);
        assert_eq!(built, 0, "{description}: routers were built");
        let is_same = before.binds.addresses() == harness.snapshot.binds.addresses()
            && before.binds.iter().zip(harness.snapshot.binds.iter()).all(|(a, b)| Arc::ptr_eq(a.1, b.1));
        assert!(is_same, "{description}: routes were planned again");
        let state = harness.describe_state();
        assert!(state.contains("key-auth: route KongPlugin/a/auth"), "{description}: {state}");
        let is_in_rules = ["rate-limiting: Consumer", "rate-limiting: Group"].iter().any(|line| state.contains(line));
        assert!(!is_in_rules, "{description}: {state}");
        assert_eq!(state, harness.recompiled().describe_state(), "{description}");
    }
}

// docs/kong-compatibility.md, 1.4, 7.2
#[test]
fn plugin_of_consumers_moves_to_rules_when_a_route_names_it() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    harness.apply(Batch { upserts: routes_with_authentication(2), removes: vec![] });
    let consumers = ["anna", "bert"].map(|name| subject(Kind::KongConsumer, name, "gold"));
    harness.apply(Batch { upserts: [&consumers[..], &[limit_plugin("gold", 100)]].concat(), removes: vec![] });
    let occurrences = |harness: &CompilerHarness| {
        let state = harness.describe_state();
        assert_eq!(state, harness.recompiled().describe_state());
        (state.matches("subject: Consumer ").count(), state.matches("ConsumerAndRoute ").count())
    };
    assert_eq!(occurrences(&harness), (2, 0), "each consumer is listed once, and no rule names it");

    let route_with = |plugins: &str| {
        let annotations = json!({"konghq.com/plugins": plugins});
        let metadata = json!({"namespace": "a", "name": "route-0", "annotations": annotations});
        let mut spec = route(&[]);
        spec["hostnames"] = json!(["route-0.example"]);
        Batch { upserts: vec![parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec}))], removes: vec![] }
    };
    harness.apply(route_with("auth, gold"));
    assert_eq!(occurrences(&harness), (0, 2), "the plugin runs for them on this route only");
    harness.apply(route_with("auth"));
    assert_eq!(occurrences(&harness), (2, 0));
}

#[test]
fn plugins_report_named_consumers_that_do_not_exist() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let put = |object| Batch { upserts: vec![object], removes: vec![] };
    let named = |kind: &str, config: Value| {
        let metadata = json!({"namespace": "a", "name": kind});
        parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": kind, "config": config}))
    };
    let consumer = |username: &str, class: &str| {
        let metadata =
            json!({"namespace": "a", "name": "guest", "annotations": {"kubernetes.io/ingress.class": class}});
        put(parse(Kind::KongConsumer, json!({"metadata": metadata, "username": username})))
    };
    let id = harness_consumer_id(&mut harness, consumer("guest", "portico"));
    harness.apply(Batch {
        upserts: vec![],
        removes: vec![ObjectId::new(Kind::KongConsumer, ObjectKey::new("a", "guest"))],
    });
    let jwks = |consumer: &str, is_optional: bool| {
        json!([{"issuer": "i", "uri": "https://issuer.example/keys", "consumer": consumer,
            "allow_without_consumer": is_optional}])
    };
    let plugins = vec![
        named("key-auth", json!({"anonymous": "guest"})),
        named("basic-auth", json!({"anonymous": id})),
        named("jwt", json!({"anonymous": "guest", "jwks": jwks("guest", false)})),
        named("ip-restriction", json!({"allow": ["10.0.0.0/8"]})),
    ];
    harness.apply(Batch { upserts: plugins, removes: vec![] });
    // The fields of each plugin with an error about a consumer.
    let missing = |harness: &CompilerHarness| {
        let state = harness.describe_state();
        assert_eq!(state, harness.recompiled().describe_state());
        let fields = |name: &str| -> Vec<String> {
            let id = ObjectId::new(Kind::KongPlugin, ObjectKey::new("a", name));
            let conditions = harness.compiler.verdicts()[&id].conditions.iter();
            let problems = conditions.flat_map(|condition| &condition.diagnostics);
            let about_consumers =
                problems.filter(|problem| problem.message.contains("no KongConsumer that Portico serves"));
            about_consumers.map(|problem| problem.field.clone()).collect()
        };
        ["key-auth", "basic-auth", "jwt", "ip-restriction"].map(fields)
    };
    let anonymous = || vec!["config.anonymous".to_owned()];
    let both = || vec!["config.anonymous".to_owned(), "config.jwks[0].consumer".to_owned()];
    assert_eq!(missing(&harness), [anonymous(), anonymous(), both(), vec![]], "no consumer");
    harness.apply(consumer("guest", "portico"));
    assert_eq!(missing(&harness), [const { Vec::<String>::new() }; 4], "the consumer exists");
    harness.apply(consumer("visitor", "portico"));
    assert_eq!(missing(&harness), [anonymous(), vec![], both(), vec![]], "another username, and the same id");
    harness.apply(consumer("guest", "other"));
    assert_eq!(missing(&harness), [anonymous(), anonymous(), both(), vec![]], "another class");
    harness.apply(consumer("guest", "portico"));
    assert_eq!(missing(&harness), [const { Vec::<String>::new() }; 4], "the class again");
    harness.apply(put(named("jwt", json!({"jwks": jwks("missing", true)}))));
    let of_issuer = || vec!["config.jwks[0].consumer".to_owned()];
    assert_eq!(missing(&harness), [vec![], vec![], of_issuer(), vec![]], "a name in the plugin changes");
    let state = harness.describe_state();
    assert!(state.contains("requests with a token of this issuer are forwarded without a consumer"), "{state}");
    harness.apply(Batch {
        upserts: vec![],
        removes: vec![ObjectId::new(Kind::KongConsumer, ObjectKey::new("a", "guest"))],
    });
    assert_eq!(missing(&harness), [anonymous(), anonymous(), of_issuer(), vec![]], "no consumer again");
    harness.apply(put(named("key-auth", json!({}))));
    assert_eq!(missing(&harness), [vec![], anonymous(), of_issuer(), vec![]], "no name in the plugin");
}

/// The id of the only consumer in a batch.
fn harness_consumer_id(harness: &mut CompilerHarness, batch: Batch) -> String {
    harness.apply(batch);
    let consumer = harness.snapshot.consumers.usernames.get("guest").unwrap();
    consumer.id.to_string()
}

pub(super) fn initial_objects() -> Vec<AnyObject> {
    let portico_class = json!({"controllerName": "portico.dev/gateway-controller"});
    let other_class = json!({"controllerName": "example.com/other"});
    let ports = json!([{"name": "web", "port": 80}]);
    let mut objects = vec![
        parse(Kind::GatewayClass, json!({"metadata": {"name": "portico"}, "spec": portico_class})),
        parse(Kind::GatewayClass, json!({"metadata": {"name": "other"}, "spec": other_class})),
        gateway("portico", "None"),
        listener_set("g"),
    ];
    for namespace in NAMESPACES {
        let metadata = json!({"namespace": namespace, "name": "s"});
        objects.push(parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": ports}})));
        let metadata = json!({"namespace": namespace, "name": "r", "annotations": {"konghq.com/plugins": "p"}});
        objects.push(parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": route(&[])})));
    }
    objects
}

fn random_object(random: &mut fastrand::Rng) -> AnyObject {
    let namespace = pick(random, NAMESPACES);
    match random.u8(..20) {
        0..4 => plugin(random, Kind::KongPlugin),
        4..6 => plugin(random, Kind::KongClusterPlugin),
        6..9 => {
            let groups: &[&str] = if random.bool() { &["g"] } else { &[] };
            let name = pick(random, &["c", "d"]);
            let mut consumer = json!({"username": name, "consumerGroups": groups});
            set_metadata(random, &mut consumer, name);
            parse(Kind::KongConsumer, consumer)
        }
        9..11 => {
            let mut group = json!({});
            set_metadata(random, &mut group, "g");
            parse(Kind::KongConsumerGroup, group)
        }
        11 => ingress_class(random),
        12 | 13 => grant(random),
        14 if random.bool() => gateway(pick(random, &["portico", "portico", "other"]), pick(random, &["All", "None"])),
        14 => listener_set(pick(random, &["g", "h"])),
        15 => {
            let metadata = json!({"namespace": namespace, "name": "s", "annotations": plugins_annotation(random)});
            parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"name": "web", "port": 80}]}}))
        }
        16 => {
            let metadata =
                json!({"namespace": namespace, "name": "i", "annotations": class_and_plugins_annotations(random)});
            let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
            parse(Kind::Ingress, json!({"metadata": metadata, "spec": {"defaultBackend": backend}}))
        }
        17 => {
            let metadata = json!({"namespace": namespace, "name": "x"});
            let config = pick(random, &["{\"allow\": [\"10.0.0.0/8\"]}", "{\"deny\": [\"10.0.0.0/8\"]}", "{}"]);
            parse(Kind::Secret, json!({"metadata": metadata, "stringData": {"config": config}}))
        }
        _ => {
            let filters: &[&str] = if random.bool() { &[] } else { &[pick(random, &["p", "q"])] };
            let metadata = json!({"namespace": namespace, "name": "r", "annotations": plugins_annotation(random)});
            let kind = if random.bool() { Kind::HttpRoute } else { Kind::GrpcRoute };
            let mut spec = route(filters);
            match random.u8(..4) {
                0 => spec["parentRefs"] = json!([{"kind": "ListenerSet", "name": "l", "namespace": "a"}]),
                1 => spec = json!({"useDefaultGateways": "All", "rules": spec["rules"]}),
                _ => {}
            }
            parse(kind, json!({"metadata": metadata, "spec": spec}))
        }
    }
}

fn plugin(random: &mut fastrand::Rng, kind: Kind) -> AnyObject {
    let mut metadata = json!({"name": pick(random, &["p", "q"])});
    if kind == Kind::KongPlugin {
        metadata["namespace"] = json!(pick(random, NAMESPACES));
    } else {
        metadata["annotations"] = json!({"kubernetes.io/ingress.class": pick(random, CLASSES)});
        metadata["labels"] = json!({"global": pick(random, &["true", "false", "false", "false"])});
    }
    let mut object = match random.u8(..8) {
        0 => json!({"plugin": "ip-restriction", "configFrom": {"secretKeyRef": {"name": "x", "key": "config"}}}),
        1 => json!({"plugin": "ip-restriction", "config": {"allow": ["10.0.0.0/8"]}}),
        2 => json!({"plugin": "request-size-limiting"}),
        3 if random.bool() => json!({"plugin": "key-auth", "config": {"anonymous": pick(random, &["c", "d", "e"])}}),
        3 => json!({"plugin": "key-auth"}),
        4 => json!({"plugin": "acl", "config": {"allow": ["g"]}}),
        5 => json!({"plugin": "saml"}),
        // Building jwt without a configuration gives notes.
        _ => json!({"plugin": "jwt"}),
    };
    if random.bool() {
        object["run_on"] = json!(pick(random, &["first", "all"]));
    }
    if random.u8(..4) == 0 {
        object["consumerRef"] = json!("c");
    }
    if kind == Kind::KongClusterPlugin && object.get("configFrom").is_some() {
        object["configFrom"]["secretKeyRef"]["namespace"] = json!("a");
    }
    object["metadata"] = metadata;
    parse(kind, object)
}

/// Sets the metadata of a consumer or group, and sometimes a reference to another control plane.
fn set_metadata(random: &mut fastrand::Rng, object: &mut Value, name: &str) {
    let namespace = pick(random, NAMESPACES);
    object["metadata"] =
        json!({"namespace": namespace, "name": name, "annotations": class_and_plugins_annotations(random)});
    if random.u8(..6) == 0 {
        object["spec"] = json!({"controlPlaneRef": {"type": "konnectID", "konnectID": "x"}});
    }
}

/// A grant for a kind that can refer to a plugin of another namespace.
fn grant(random: &mut fastrand::Rng) -> AnyObject {
    let (group, kind) = [
        ("gateway.networking.k8s.io", "HTTPRoute"),
        ("networking.k8s.io", "Ingress"),
        ("", "Service"),
        ("configuration.konghq.com", "KongConsumer"),
        ("configuration.konghq.com", "KongConsumerGroup"),
    ][random.usize(..5)];
    let from = json!({"group": group, "kind": kind, "namespace": pick(random, NAMESPACES)});
    let to = json!({"group": "configuration.konghq.com", "kind": "KongPlugin"});
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": "g"});
    parse(Kind::ReferenceGrant, json!({"metadata": metadata, "spec": {"from": [from], "to": [to]}}))
}

fn gateway(class: &str, default_scope: &str) -> AnyObject {
    let all = json!({"namespaces": {"from": "All"}});
    let listener = json!({"name": "one", "port": 80, "protocol": "HTTP", "allowedRoutes": all});
    let spec = json!({
        "gatewayClassName": class, "defaultScope": default_scope, "listeners": [listener], "allowedListeners": all,
    });
    parse(Kind::Gateway, json!({"metadata": {"namespace": "a", "name": "g"}, "spec": spec}))
}

fn listener_set(gateway: &str) -> AnyObject {
    let allowed = json!({"namespaces": {"from": "All"}});
    let listener =
        json!({"name": "two", "port": 80, "protocol": "HTTP", "hostname": "a.example", "allowedRoutes": allowed});
    let spec = json!({"parentRef": {"name": gateway}, "listeners": [listener]});
    parse(Kind::ListenerSet, json!({"metadata": {"namespace": "a", "name": "l"}, "spec": spec}))
}

/// The spec of a route with these plugins as filters of its rule.
fn route(plugins: &[&str]) -> Value {
    let filters = plugins.iter().map(|name| {
        let reference = json!({"group": "configuration.konghq.com", "kind": "KongPlugin", "name": name});
        json!({"type": "ExtensionRef", "extensionRef": reference})
    });
    let rule = json!({"filters": filters.collect::<Vec<_>>(), "backendRefs": [{"name": "s", "port": 80}]});
    json!({"parentRefs": [{"name": "g", "namespace": "a"}], "rules": [rule]})
}

fn plugins_annotation(random: &mut fastrand::Rng) -> Value {
    json!({"konghq.com/plugins": pick(random, &["p", "q", "p,q", "a:p", "b:p", "b:q", ""])})
}

/// Annotations with or without a class.
fn class_and_plugins_annotations(random: &mut fastrand::Rng) -> Value {
    let mut annotations = plugins_annotation(random);
    if random.u8(..3) > 0 {
        annotations["kubernetes.io/ingress.class"] = json!(pick(random, CLASSES));
    }
    annotations
}

const NAMESPACES: &[&str] = &["a", "b"];
const CLASSES: &[&str] = &["portico", "portico", "second", "other"];

/// A route of `degraphql` or a cost, for the plugin `api`.
fn entity(name: &str, kind: &str, spec: &Value) -> AnyObject {
    let mut all = json!({"controllerName": "portico", "type": kind, "parentRef": {"name": "api"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let created = format!("2026-01-0{}T00:00:00Z", 1 + name.len());
    let metadata = json!({"namespace": "a", "name": name, "creationTimestamp": created});
    parse(Kind::KongCustomEntity, json!({"metadata": metadata, "spec": all}))
}

/// The diagnostics in the conditions of an object.
fn problems_of(harness: &CompilerHarness, kind: Kind, name: &str) -> String {
    let verdict = harness.compiler.verdicts().get(&ObjectId::new(kind, ObjectKey::new("a", name)));
    let conditions = verdict.into_iter().flat_map(|verdict| &verdict.conditions);
    let texts = conditions.flat_map(|condition| &condition.diagnostics).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(" ")
}

// docs/kong-compatibility.md, 1.11
#[test]
fn entities_change_the_plugin_that_they_name() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    harness.apply(Batch { upserts: initial_objects(), removes: vec![] });
    let put = |object| Batch { upserts: vec![object], removes: vec![] };
    let remove =
        |kind, name: &str| Batch { upserts: vec![], removes: vec![ObjectId::new(kind, ObjectKey::new("a", name))] };
    let plugin = |kind: &str| {
        let metadata = json!({"namespace": "a", "name": "api"});
        put(parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": kind, "config": {}})))
    };
    let route = |name: &str, uri: &str| {
        put(entity(name, "degraphql_routes", &json!({"fields": {"uri": uri, "query": "{ me }"}})))
    };
    let entity_kind = Kind::KongCustomEntity;
    for (description, edit, name, problem) in [
        ("no plugin", route("a", "/a"), "a", "KongPlugin"),
        ("the plugin", plugin("degraphql"), "a", ""),
        ("a second entity", route("bb", "/b"), "bb", ""),
        ("the same path, and younger", route("ccc", "/a"), "ccc", "spec.fields.uri: another route"),
        ("no error of others", route("bb", "/b"), "a", ""),
        ("the older one is removed", remove(entity_kind, "a"), "ccc", ""),
        ("an unknown field", put(entity("bb", "degraphql_routes", &json!({"fields": {"url": "/"}}))), "bb", "url"),
        ("another type", put(entity("bb", "keyrings", &json!({"fields": {}}))), "bb", "spec.type: entities of type"),
        (
            "a cost for another plugin",
            put(entity("bb", "graphql_ratelimiting_cost_decoration", &json!({"fields": {}}))),
            "bb",
            "configures degraphql, which has no such entities",
        ),
        (
            "a plugin of another namespace",
            put(entity(
                "bb",
                "degraphql_routes",
                &json!({"fields": {}, "parentRef": {"name": "api", "namespace": "b"}}),
            )),
            "bb",
            "no ReferenceGrant",
        ),
        (
            "a plugin of all namespaces",
            put(entity(
                "bb",
                "degraphql_routes",
                &json!({"fields": {}, "parentRef": {"name": "api", "kind": "KongClusterPlugin"}}),
            )),
            "bb",
            "only a KongPlugin can be the parent",
        ),
        (
            "no parent",
            put(entity("bb", "degraphql_routes", &json!({"fields": {}, "parentRef": null}))),
            "bb",
            "is missing",
        ),
        ("another plugin", plugin("key-auth"), "ccc", "has no such entities"),
        ("the plugin again", plugin("degraphql"), "ccc", ""),
        ("the plugin is removed", remove(Kind::KongPlugin, "api"), "ccc", "KongPlugin"),
    ] {
        harness.apply(edit);
        let found = problems_of(&harness, entity_kind, name);
        assert!(found.contains(problem) && found.is_empty() == problem.is_empty(), "{description}: {found}");
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{description}");
    }
    // The plugin itself has no error because of its entities.
    harness.apply(plugin("degraphql"));
    harness.apply(put(entity("bb", "degraphql_routes", &json!({"fields": {"uri": 7}}))));
    let found = problems_of(&harness, Kind::KongPlugin, "api");
    assert!(!found.contains("config"), "{found}");
}

// docs/kong-compatibility.md, 1.9, 1.11
#[test]
fn entities_refer_to_vaults_and_guards_refuse_without_a_value() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let put = |object| Batch { upserts: vec![object], removes: vec![] };
    let secret = |uri: &str| {
        let metadata = json!({"namespace": "a", "name": "texts"});
        put(parse(Kind::Secret, json!({"metadata": metadata, "stringData": {"uri": uri}})))
    };
    let route = |name: &str, uri: &str| {
        put(entity(name, "degraphql_routes", &json!({"fields": {"uri": uri, "query": "{ me }"}})))
    };
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    let config = json!({"namespace": "a", "secrets": ["texts"]});
    let vault = json!({
        "metadata": {"name": "texts", "annotations": annotations},
        "spec": {"backend": "kubernetes", "prefix": "texts", "config": config},
    });
    let plugin = json!({"metadata": {"namespace": "a", "name": "api"}, "plugin": "degraphql", "config": {}});
    let upserts = vec![parse(Kind::KongVault, vault), parse(Kind::KongPlugin, plugin)];
    harness.apply(Batch { upserts, removes: vec![] });
    harness.apply(route("a", "/b"));
    harness.apply(route("bb", "{vault://texts/texts/uri}"));
    let without_value = "KongCustomEntity a/bb refers to a value that a vault does not have";
    let secret_id = ObjectId::new(Kind::Secret, ObjectKey::new("a", "texts"));
    let remove_secret = || Batch { upserts: vec![], removes: vec![secret_id.clone()] };
    for (description, edit, of_entity, of_plugin) in [
        ("no Secret", remove_secret(), "spec.fields.uri: Secret a/texts does not exist", without_value),
        ("a value", secret("/a"), "", ""),
        (
            "a value that another entity has",
            secret("/b"),
            "spec.fields.uri: the value of the references of KongCustomEntity a/bb is not valid here",
            "",
        ),
        ("another value", secret("/c"), "", ""),
        ("the value is gone", remove_secret(), "spec.fields.uri: Secret a/texts does not exist", without_value),
        ("no reference", route("bb", "/a"), "", ""),
        (
            "malformed",
            route("bb", "{vault://}"),
            "spec.fields.uri: the reference to a vault is malformed",
            without_value,
        ),
    ] {
        harness.apply(edit);
        for (kind, name, expected) in [(Kind::KongCustomEntity, "bb", of_entity), (Kind::KongPlugin, "api", of_plugin)]
        {
            let found = problems_of(&harness, kind, name);
            assert!(found.contains(expected), "{description}: {found}");
            let is_about_vaults = found.contains("vault") || found.contains("spec.fields");
            assert_eq!(is_about_vaults, !expected.is_empty(), "{description}: {found}");
        }
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{description}");
    }
}

#[test]
fn groups_of_a_plan_that_do_not_exist_are_reported() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let put = |object| Batch { upserts: vec![object], removes: vec![] };
    let config = json!({"plans": [{"name": "gold", "groups": ["gold"], "quotas": {"month": 1000}}]});
    let plugin = json!({"metadata": {"namespace": "a", "name": "api"}, "plugin": "usage-plan", "config": config});
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    let group = json!({"metadata": {"namespace": "a", "name": "gold", "annotations": annotations}});
    let group_id = ObjectId::new(Kind::KongConsumerGroup, ObjectKey::new("a", "gold"));
    for (description, edit, is_reported) in [
        ("no group", put(parse(Kind::KongPlugin, plugin)), true),
        ("the group", put(parse(Kind::KongConsumerGroup, group)), false),
        ("the group is removed", Batch { upserts: vec![], removes: vec![group_id] }, true),
    ] {
        harness.apply(edit);
        let verdict = &harness.compiler.verdicts()[&ObjectId::new(Kind::KongPlugin, ObjectKey::new("a", "api"))];
        let warnings: Vec<String> = verdict.diagnostics.iter().map(ToString::to_string).collect();
        let expected = "config.plans[0].groups[0]: no KongConsumerGroup a/gold exists";
        let found = warnings.iter().any(|warning| warning.contains(expected));
        assert_eq!(found, is_reported, "{description}: {warnings:?}");
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{description}");
    }
}
