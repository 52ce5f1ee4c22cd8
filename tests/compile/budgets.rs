//! Objects that exceed a budget: they are refused as a whole, and their hosts respond with errors.

use http::{HeaderMap, Method};
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::diagnostic::{Diagnostic, Severity};
use portico::snapshot::router::RoutingRequest;
use portico::snapshot::rule::Action;
use portico::store::{AnyObject, Batch, LargeObjects};
use serde_json::{Map, Value, json};

use super::case::CompilerHarness;
use super::edits::parse;

/// A class, a Gateway and a Service, and a second route of each kind that has the same hosts as the first, and is
/// younger.
fn harness() -> CompilerHarness {
    let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
    let mut harness = CompilerHarness::new(provider, AddressState::default());
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let objects = [
        (
            Kind::GatewayClass,
            json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}}),
        ),
        (
            Kind::Gateway,
            json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"gatewayClassName": "portico", "listeners": listeners}}),
        ),
        (
            Kind::IngressClass,
            json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}}),
        ),
        (Kind::Service, json!({"metadata": {"namespace": "a", "name": "s"}, "spec": {"ports": [{"port": 80}]}})),
    ];
    let everywhere = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let upserts = objects.into_iter().map(|(kind, object)| parse(kind, object));
    let younger = [route("younger", 2, json!({}), everywhere), ingress("younger", 2, json!({}), &["/".to_owned()])];
    harness.apply(Batch { upserts: upserts.chain(younger).collect(), removes: vec![] });
    harness
}

fn metadata(name: &str, day: usize, annotations: Value) -> Value {
    let created = format!("2026-01-0{day}T12:00:00Z");
    json!({"namespace": "a", "name": name, "creationTimestamp": created, "annotations": annotations})
}

/// A route for `shop.example` with one rule.
fn route(name: &str, day: usize, annotations: Value, matches: Value) -> AnyObject {
    parse(Kind::HttpRoute, route_value(name, day, annotations, matches))
}

fn route_value(name: &str, day: usize, annotations: Value, matches: Value) -> Value {
    let rules = json!([{"matches": matches, "backendRefs": [{"name": "s", "port": 80}]}]);
    let spec = json!({"parentRefs": [{"name": "web"}], "hostnames": ["shop.example"], "rules": rules});
    json!({"metadata": metadata(name, day, annotations), "spec": spec})
}

/// An Ingress for `shop.example`.
fn ingress(name: &str, day: usize, annotations: Value, paths: &[String]) -> AnyObject {
    parse(Kind::Ingress, ingress_value(name, day, annotations, paths))
}

fn ingress_value(name: &str, day: usize, annotations: Value, paths: &[String]) -> Value {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let path = |path: &String| json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    let paths: Vec<Value> = paths.iter().map(path).collect();
    let spec = json!({"ingressClassName": "portico", "rules": [{"host": "shop.example", "http": {"paths": paths}}]});
    json!({"metadata": metadata(name, day, annotations), "spec": spec})
}

fn patterns(count: usize, pattern: &str) -> Value {
    let path = |number| json!({"path": {"type": "RegularExpression", "value": format!("/admin/{number}/{pattern}")}});
    (0..count).map(path).collect()
}

fn aliases(count: usize) -> Value {
    let names: Vec<String> = (0..count).map(|number| format!("a{number}.example")).collect();
    json!({"konghq.com/host-aliases": names.join(",")})
}

fn headers(count: usize, value: &str) -> Value {
    let annotation = |number| (format!("konghq.com/headers.x{number}"), Value::from(value));
    (0..count).map(annotation).collect::<Map<_, _>>().into()
}

/// Objects that exceed a budget, each with a part of its diagnostic.
fn objects_over_budget() -> Vec<(AnyObject, &'static str)> {
    let root = || json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let plain_paths = |count: usize| -> Vec<String> { (0..count).map(|number| format!("/{number}")).collect() };
    let regex_paths =
        |count: usize| -> Vec<String> { (0..count).map(|number| format!("/~/admin/{number}/.*")).collect() };
    vec![
        (
            route("one", 1, json!({}), patterns(513, ".*")),
            "spec.rules: 513 regular expressions, which is more than the limit of 512 for one object; split",
        ),
        (
            route("one", 1, json!({}), patterns(100, ".{200}")),
            "KiB or more of compiled regular expressions, which is more than the limit of 2048 for one object",
        ),
        (
            route("one", 1, aliases(4_097), root()),
            "metadata.annotations[konghq.com/host-aliases]: 4097 entries, which is more than the limit of 4096",
        ),
        (
            route("one", 1, aliases(4_096), patterns(5, "[0-9]")),
            "metadata.annotations[konghq.com/host-aliases]: 20485 pairs of a host and a match, which is more than",
        ),
        (
            ingress("one", 1, json!({}), &regex_paths(513)),
            "spec.rules: 513 regular expressions, which is more than the limit of 512 for one object; split",
        ),
        (
            ingress("one", 1, headers(513, "~*a"), &plain_paths(1)),
            "metadata.annotations[konghq.com/headers.*]: 513 conditions on headers, which is more than the limit of 128",
        ),
        (
            ingress("one", 1, headers(100, "a"), &plain_paths(1_000)),
            "spec.rules: 100000 pairs of a header condition and a path, which is more than the limit of 65536",
        ),
        (
            ingress("one", 1, aliases(4_000), &plain_paths(5)),
            "metadata.annotations[konghq.com/host-aliases]: 20000 pairs of a host alias and a path",
        ),
        (
            ingress("one", 1, json!({"konghq.com/snis": vec!["a.example"; 300].join(",")}), &plain_paths(1)),
            "metadata.annotations[konghq.com/snis]: 300 entries, which is more than the limit of 256 for one object",
        ),
    ]
}

/// All diagnostics about budgets, with those of conditions first.
fn diagnostics(harness: &CompilerHarness, kind: Kind) -> Vec<Diagnostic> {
    let id = ObjectId::new(kind, ObjectKey::new("a", "one"));
    let verdict = &harness.compiler.verdicts()[&id];
    let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| condition.diagnostics.clone());
    let all = of_conditions.chain(verdict.diagnostics.clone());
    all.filter(|diagnostic| diagnostic.reason.name() == Some("OverBudget")).collect()
}

/// The object that gets a request, and whether the request is forwarded.
fn outcome(harness: &CompilerHarness, kind: Kind, host: &str, path: &str) -> Option<(String, bool)> {
    let headers = HeaderMap::new();
    let request = RoutingRequest::plaintext(path, None, &Method::GET, &headers);
    let listeners = harness.snapshot.http_binds().flat_map(|bind| bind.listeners.iter()).map(|(_, listener)| listener);
    let is_ingress = kind == Kind::Ingress;
    let listener = listeners.into_iter().find(|listener| (&*listener.gateway == "ingress") == is_ingress)?;
    let matched = listener.route(host, &request).ok()?;
    Some((matched.rule.id.route.to_string(), matches!(matched.rule.action, Action::Forward(_))))
}

#[test]
fn object_over_budget_is_refused_and_its_requests_fail() {
    for (object, expected) in objects_over_budget() {
        let (kind, mut harness) = (object.kind(), harness());
        harness.apply(Batch { upserts: vec![object], removes: vec![] });
        let found = diagnostics(&harness, kind);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(texts.first().is_some_and(|text| text.contains(expected)), "{expected}\n{texts:#?}");
        assert!(found.iter().all(|diagnostic| diagnostic.severity == Severity::Error), "{texts:#?}");
        // The younger object would get the requests that the older one does not match.
        for path in ["/admin/1/x", "/0"] {
            let (route, is_forwarded) = outcome(&harness, kind, "shop.example", path).unwrap();
            assert!(!(is_forwarded && route.ends_with("/one")), "{expected}: {path} is forwarded");
        }
        let path = if expected.contains("regular") { "/admin/1/x" } else { "/0" };
        let expected_route = format!("{kind}/a/one");
        assert_eq!(outcome(&harness, kind, "shop.example", path), Some((expected_route.clone(), false)), "{expected}");
        if expected.contains("pairs of a host") {
            assert_eq!(
                outcome(&harness, kind, "a7.example", "/admin/1/x"),
                Some((expected_route, false)),
                "{expected}"
            );
        }
        // Other objects are served as before.
        assert!(outcome(&harness, kind, "other.example", "/").is_none());
    }
}

#[test]
fn objects_over_budget_are_served_with_warnings_only() {
    for (object, expected) in objects_over_budget() {
        let (kind, mut harness) = (object.kind(), harness());
        harness.inputs.budgets.warn_only = true;
        harness.apply(Batch { upserts: vec![object], removes: vec![] });
        let found = diagnostics(&harness, kind);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(texts.first().is_some_and(|text| text.contains(expected)), "{expected}\n{texts:#?}");
        assert!(found.iter().all(|diagnostic| diagnostic.severity == Severity::Warning), "{texts:#?}");
    }
    let mut harness = harness();
    harness.inputs.budgets.warn_only = true;
    harness.apply(Batch { upserts: vec![route("one", 1, json!({}), patterns(513, ".*"))], removes: vec![] });
    let forwarded = Some(("HTTPRoute/a/one".to_owned(), true));
    assert_eq!(outcome(&harness, Kind::HttpRoute, "shop.example", "/admin/1/x"), forwarded);
}

/// An automaton of its own finds the groups.
#[test]
fn named_groups_of_paths_count() {
    for (group, is_over_budget) in [("([a-z]{500})", false), ("(?<id>[a-z]{500})", true)] {
        let mut harness = harness();
        harness.apply(Batch { upserts: vec![route("one", 1, json!({}), patterns(60, group))], removes: vec![] });
        let texts: Vec<String> = diagnostics(&harness, Kind::HttpRoute).iter().map(ToString::to_string).collect();
        assert_eq!(!texts.is_empty(), is_over_budget, "{group}: {texts:#?}");
        let expected = "KiB or more of compiled regular expressions, which is more than the limit of 2048";
        assert!(texts.iter().all(|text| text.contains(expected)), "{texts:#?}");
    }
}

/// Each rule resolves the plugins of its route and of its Services.
#[test]
fn long_list_of_plugins_rejects_requests() {
    for (count, is_over_budget) in [(128, false), (129, true)] {
        let mut harness = harness();
        let plugins = json!({"konghq.com/plugins": vec!["none"; count].join(",")});
        harness.apply(Batch { upserts: vec![ingress("one", 1, plugins, &["/".to_owned()])], removes: vec![] });
        let texts: Vec<String> = diagnostics(&harness, Kind::Ingress).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), usize::from(is_over_budget), "{texts:#?}");
        let expected = "metadata.annotations[konghq.com/plugins]: 129 entries, which is more than the limit of 128 for \
                        one object, so requests get status 503";
        assert!(texts.iter().all(|text| text.starts_with(expected)), "{texts:#?}");
    }
}

/// Routes and Ingresses that have budgets of their own, and together exceed that of their namespace, from the youngest
/// to the oldest. Each expands to about 2 MiB.
fn objects_of_one_namespace(count: usize) -> Vec<AnyObject> {
    let object = |number: usize| {
        let (name, day) = (format!("n{number}"), 1 + count - number);
        let matches = |host: usize| json!([{"path": {"type": "PathPrefix", "value": format!("/{host}")}}]);
        [
            route(&name, day, aliases(4_000), matches(number)),
            ingress(&name, day, aliases(4_000), &[format!("/{number}")]),
        ]
    };
    (0..count).flat_map(object).collect()
}

#[test]
fn youngest_objects_of_a_namespace_over_its_budget_are_refused() {
    let mut harness = harness();
    harness.inputs.budgets.namespace_bytes = 2 << 20;
    // One by one and together, the result is the same.
    let objects = objects_of_one_namespace(5);
    for object in objects.clone() {
        harness.apply(Batch { upserts: vec![object], removes: vec![] });
    }
    let refused = |harness: &CompilerHarness| -> Vec<String> {
        let verdicts = harness.compiler.verdicts().iter();
        let refused = verdicts.filter(|(_, verdict)| {
            let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics);
            of_conditions.into_iter().any(|diagnostic| diagnostic.reason.name() == Some("OverBudget"))
        });
        refused.map(|(id, _)| id.to_string()).collect()
    };
    let expected = ["HTTPRoute a/n0", "HTTPRoute a/n1", "HTTPRoute a/n2", "HTTPRoute a/n3"];
    let expected: Vec<String> =
        expected.into_iter().flat_map(|name| [name.to_owned(), name.replace("HTTPRoute", "Ingress")]).collect();
    let mut found = refused(&harness);
    found.sort_by_key(|name| name.split(' ').next_back().unwrap().to_owned());
    assert_eq!(found, expected);
    assert_eq!(refused(&harness.recompiled()), refused(&harness));
    for kind in [Kind::HttpRoute, Kind::Ingress] {
        assert_eq!(outcome(&harness, kind, "a7.example", "/4"), Some((format!("{kind}/a/n4"), true)));
        assert!(outcome(&harness, kind, "a7.example", "/0").is_some_and(|(_, is_forwarded)| !is_forwarded));
    }
    // When the oldest is removed, the next one has room.
    let oldest = objects.into_iter().rev().take(2).map(|object| object.id()).collect();
    harness.apply(Batch { upserts: vec![], removes: oldest });
    assert_eq!(refused(&harness).len(), 6);
    assert_eq!(outcome(&harness, Kind::Ingress, "a7.example", "/3"), Some(("Ingress/a/n3".to_owned(), true)));
}

/// Otherwise, the expressions of one object keep requests for the others of its host from being matched.
#[test]
fn youngest_objects_of_a_host_with_too_many_states_are_refused() {
    let pattern = |number: usize| format!("/[a-z]{{1,{}}}", 900 + number);
    let matches = |numbers: std::ops::Range<usize>| -> Value {
        numbers.map(|number| json!({"path": {"type": "RegularExpression", "value": pattern(number)}})).collect()
    };
    let paths = |numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|number| pattern(number).replacen('/', "/~/", 1)).collect()
    };
    for (kind, old, new) in [
        (Kind::HttpRoute, route("old", 1, json!({}), matches(0..6)), route("one", 2, json!({}), matches(6..12))),
        (Kind::Ingress, ingress("old", 1, json!({}), &paths(0..6)), ingress("one", 2, json!({}), &paths(6..12))),
    ] {
        let mut harness = harness();
        harness.apply(Batch { upserts: vec![new], removes: vec![] });
        assert_eq!(diagnostics(&harness, kind), []);
        harness.apply(Batch { upserts: vec![old.clone()], removes: vec![] });
        let found = diagnostics(&harness, kind);
        assert!(found[0].message.starts_with("the regular expressions of host shop.example that paths"), "{found:?}");
        assert!(found[0].message.contains("and the limit is 20000; this object is one of the youngest"), "{found:?}");
        let expected = Some((format!("{kind}/a/old"), true));
        assert_eq!(outcome(&harness, kind, "shop.example", "/ab"), expected);
        let oldest = harness.recompiled();
        assert_eq!(oldest.compiler.verdicts(), harness.compiler.verdicts());
        harness.apply(Batch { upserts: vec![], removes: vec![old.id()] });
        assert_eq!(diagnostics(&harness, kind), []);
    }
}

/// An expression that is larger than the limit of one is refused, like one that is not valid: only requests that begin
/// with its literal text get an error.
#[test]
fn large_expression_is_reported_at_its_field() {
    for warn_only in [false, true] {
        let mut harness = harness();
        harness.inputs.budgets.warn_only = warn_only;
        let matches = json!([{"path": {"type": "RegularExpression", "value": "/a*a{5000}"}}]);
        harness.apply(Batch { upserts: vec![route("one", 1, json!({}), matches)], removes: vec![] });
        let found = diagnostics(&harness, Kind::HttpRoute);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].field, "spec.rules[0].matches[0].path.value");
        let expected = "the regular expression is larger than 2000 states or 125 KiB when compiled; use smaller";
        assert!(found[0].message.starts_with(expected), "{}", found[0].message);
        assert_eq!(found[0].severity == Severity::Warning, warn_only);
        assert_eq!(outcome(&harness, Kind::HttpRoute, "shop.example", "/a").unwrap().0, "HTTPRoute/a/younger");
    }
}

/// An object of more than 1 MiB, because of a label.
fn large(kind: Kind, mut object: Value, large_objects: LargeObjects) -> AnyObject {
    object["metadata"]["labels"] = json!({"large": "x".repeat(1 << 20)});
    AnyObject::parse_limited(kind, object, large_objects).unwrap()
}

/// A route with these conditions on headers.
fn large_route(headers: Value, large_objects: LargeObjects) -> AnyObject {
    let entry = json!({"path": {"type": "PathPrefix", "value": "/admin"}, "headers": headers});
    large(Kind::HttpRoute, route_value("one", 1, json!({}), json!([entry])), large_objects)
}

fn large_ingress(large_objects: LargeObjects) -> AnyObject {
    large(Kind::Ingress, ingress_value("one", 1, json!({}), &["/admin".to_owned()]), large_objects)
}

fn is_too_large(problem: &Diagnostic) -> bool {
    let limit = "KiB, which is more than the limit of 1024 KiB for one object";
    problem.message.starts_with("the object has a size of 102") && problem.message.ends_with(limit)
}

/// Only a part of it is stored. That must suffice to refuse its requests, because those of `younger` are forwarded.
#[test]
fn object_that_is_too_large_is_refused_and_its_requests_fail() {
    let kubernetes = json!({"name": "portico", "annotations": {"portico.dev/dialect": "kubernetes"}});
    let class = json!({"metadata": kubernetes, "spec": {"controller": "portico.dev/ingress-controller"}});
    let class = parse(Kind::IngressClass, class);
    for (object, class) in [
        (large_route(json!([{"name": "x", "value": "y"}]), LargeObjects::Reduce), None),
        (large_ingress(LargeObjects::Reduce), None),
        (large_ingress(LargeObjects::Reduce), Some(class)),
    ] {
        let (kind, mut harness) = (object.kind(), harness());
        harness.apply(Batch { upserts: class.into_iter().chain([object.clone()]).collect(), removes: vec![] });
        let found = diagnostics(&harness, kind);
        assert!(found.iter().any(is_too_large), "{found:#?}");
        let refused = Some((format!("{kind}/a/one"), false));
        assert_eq!(outcome(&harness, kind, "shop.example", "/admin/users"), refused);
        let younger = Some((format!("{kind}/a/younger"), true));
        assert_eq!(outcome(&harness, kind, "shop.example", "/"), younger);
        assert_eq!(harness.recompiled().compiler.verdicts(), harness.compiler.verdicts());
        harness.apply(Batch { upserts: vec![], removes: vec![object.id()] });
        assert_eq!(outcome(&harness, kind, "shop.example", "/admin/users"), younger);
    }
}

#[test]
fn object_that_is_too_large_is_served_with_a_warning_only() {
    for object in [large_route(json!([]), LargeObjects::Keep), large_ingress(LargeObjects::Keep)] {
        let (kind, mut harness) = (object.kind(), harness());
        harness.inputs.budgets.warn_only = true;
        harness.apply(Batch { upserts: vec![object], removes: vec![] });
        let found = diagnostics(&harness, kind);
        assert!(is_too_large(&found[0]) && found[0].severity == Severity::Warning, "{found:#?}");
        let served = Some((format!("{kind}/a/one"), true));
        assert_eq!(outcome(&harness, kind, "shop.example", "/admin/users"), served);
    }
}

fn named(name: &str) -> Value {
    json!({"namespace": "a", "name": name, "annotations": {"kubernetes.io/ingress.class": "portico"}})
}

/// Objects that others refer to.
const LARGE_OBJECTS: [(Kind, fn() -> Value); 4] = [
    // A plugin that does not protect a route may do so with an unknown configuration.
    (Kind::KongPlugin, || json!({"metadata": named("p"), "plugin": "correlation-id", "config": {"header_name": "a"}})),
    (Kind::KongConsumer, || json!({"metadata": named("c"), "username": "c", "credentials": []})),
    (Kind::Service, || json!({"metadata": named("s"), "spec": {"ports": [{"port": 80}]}})),
    (Kind::Gateway, || {
        let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
        json!({"metadata": named("web"), "spec": {"gatewayClassName": "portico", "listeners": listeners}})
    }),
];

/// What the verdict on the object reports.
fn texts(harness: &CompilerHarness, kind: Kind) -> String {
    let verdict = &harness.compiler.verdicts()[&ObjectId::new(kind, ObjectKey::new("a", "one"))];
    let conditions = verdict.all_conditions().map(|(_, condition)| condition.message()).collect::<Vec<_>>();
    let others = verdict.diagnostics.iter().map(ToString::to_string);
    conditions.into_iter().chain(others).collect::<Vec<_>>().join("\n")
}

/// What is nested too deeply is not stored, so the limit has no exception.
#[test]
fn object_that_is_nested_too_deeply_is_always_refused() {
    for (warn_only, large_objects) in [(false, LargeObjects::Reduce), (true, LargeObjects::Keep)] {
        let mut harness = harness();
        harness.inputs.budgets.warn_only = warn_only;
        let nested = (0..100).fold(json!(0), |inner, _| json!([inner]));
        let plugin = json!({"metadata": named("one"), "plugin": "cors", "config": {"nested": nested}});
        let plugin = AnyObject::parse_limited(Kind::KongPlugin, plugin, large_objects).unwrap();
        let ingress = ingress("one", 1, json!({"konghq.com/plugins": "one"}), &["/".to_owned()]);
        harness.apply(Batch { upserts: vec![plugin, ingress], removes: vec![] });
        let found = diagnostics(&harness, Kind::KongPlugin);
        let message = "the object has more than 64 lists and objects inside each other";
        assert!(matches!(&found[..], [problem] if problem.message == message && problem.is_error()), "{found:#?}");
        let ingress = texts(&harness, Kind::Ingress);
        assert!(
            ingress.contains("plugin KongPlugin/a/one cannot be used, so requests it would protect get status 503")
        );
    }
}

/// References to these objects must fail, and the objects themselves have the reason.
#[test]
fn references_to_objects_that_are_too_large_fail() {
    let mut harness = harness();
    let large = LARGE_OBJECTS.map(|(kind, object)| large(kind, object(), LargeObjects::Reduce));
    let plugins = json!({"konghq.com/plugins": "p"});
    let routes = [ingress("one", 1, plugins, &["/".to_owned()]), route("one", 1, json!({}), json!([]))];
    harness.apply(Batch { upserts: large.iter().cloned().chain(routes).collect(), removes: vec![] });
    for object in &large {
        let verdict = &harness.compiler.verdicts()[&object.id()];
        let conditions: Vec<_> = verdict.all_conditions().map(|(_, condition)| condition).collect();
        let problems = || conditions.iter().flat_map(|condition| &condition.diagnostics);
        assert!(problems().any(is_too_large), "{verdict:#?}");
        assert!(conditions.iter().all(|condition| condition.code.is_error()), "{verdict:#?}");
    }
    let ingress = texts(&harness, Kind::Ingress);
    assert!(ingress.contains("Service a/s is larger than the limit for one object, so it is not used"), "{ingress}");
    assert!(ingress.contains("plugin KongPlugin/a/p cannot be used, so requests it would protect get status 503"));
    assert_eq!(outcome(&harness, Kind::HttpRoute, "shop.example", "/"), None, "its Gateway is not served");
    assert_eq!(harness.recompiled().compiler.verdicts(), harness.compiler.verdicts());

    // Without the limit, they are in use, and have a warning.
    let mut unlimited = self::harness();
    unlimited.inputs.budgets.warn_only = true;
    let kept = LARGE_OBJECTS.map(|(kind, object)| self::large(kind, object(), LargeObjects::Keep));
    unlimited.apply(Batch { upserts: kept.to_vec(), removes: vec![] });
    for object in &kept {
        let verdict = &unlimited.compiler.verdicts()[&object.id()];
        let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics);
        let problems: Vec<_> =
            of_conditions.chain(&verdict.diagnostics).filter(|problem| is_too_large(problem)).collect();
        assert!(matches!(problems[..], [problem] if problem.severity == Severity::Warning), "{verdict:#?}");
    }

    // Objects of the right size take their place.
    let service = parse(Kind::Service, json!({"metadata": named("s"), "spec": {"ports": [{"port": 80}]}}));
    let removes = large.iter().map(AnyObject::id).filter(|id| id.kind != Kind::Service).collect();
    harness.apply(Batch { upserts: vec![service], removes });
    let left: Vec<_> = harness.compiler.verdicts().keys().map(ToString::to_string).collect();
    assert!(!left.contains(&"KongConsumer a/c".to_owned()) && !left.contains(&"KongPlugin a/p".to_owned()), "{left:?}");
    let service = &harness.compiler.verdicts()[&ObjectId::new(Kind::Service, ObjectKey::new("a", "s"))];
    assert!(service.conditions.is_empty() && !service.diagnostics.iter().any(is_too_large), "{service:?}");
}
