//! Edits of objects: random sequences, compared with a compilation from scratch after each step, and single edits after
//! which routers, upstreams and certificates must be kept or replaced.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::HostOwnership;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::snapshot::Routes;
use portico::snapshot::router::HostRouter;
use portico::snapshot::rule::{Action, BackendTarget, RouteRule};
use portico::store::{AnyObject, Batch};
use portico::upstream::Upstream;
use serde_json::{Value, json};

use super::case::{CompilerHarness, with_certificates};

/// Seeds of the sequences in every run, and in `make test-full`.
pub(super) const SEEDS: Range<u64> = 0..16;
pub(super) const MORE_SEEDS: Range<u64> = 16..40;
pub(super) const EDITS: usize = 60;

#[test]
fn random_edits_match_full_compile() {
    compare_after_edits(SEEDS);
}

#[test]
#[ignore = "only in make test-full: more seeds of the test before it, each as likely to find something"]
fn more_random_edits_match_full_compile() {
    compare_after_edits(MORE_SEEDS);
}

fn compare_after_edits(seeds: Range<u64>) {
    let mut single_route_edits = 0;
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut harness =
            CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
        harness.apply(Batch { upserts: initial_objects(), removes: vec![] });
        for step in 0..EDITS {
            let batch = edit(&mut random);
            let description = describe(&batch);
            let edited_route = edited_single_route(&batch);
            let routers_before = routers(&harness);
            let (built, _) = apply_and_compare(&mut harness, batch, (seed, step));
            if let Some(route) = edited_route {
                single_route_edits += 1;
                assert_unaffected_routers_kept(&routers_before, &routers(&harness), &route, built, &description);
            }
        }
    }
    assert!(single_route_edits > 120, "too few edits of a single route: {single_route_edits}");
}

type Routers = BTreeMap<String, Arc<HostRouter>>;

/// A router keeps its `Arc` unless it has, or had, the edited route.
fn assert_unaffected_routers_kept(before: &Routers, after: &Routers, route: &str, built: usize, edit: &str) {
    let has_route = |router: &Arc<HostRouter>| router.matches().iter().any(|entry| &*entry.rule.id.route == route);
    for (location, router) in after {
        let Some(previous) = before.get(location) else { continue };
        if !has_route(previous) && !has_route(router) {
            assert!(Arc::ptr_eq(previous, router), "{edit} does not affect {location}, but its router was rebuilt");
        }
    }
    let affected = before.values().chain(after.values()).filter(|router| has_route(router)).count();
    assert!(built <= affected, "{edit} affects at most {affected} routers, but {built} were built");
}

/// All routers by address, listener and host.
fn routers(harness: &CompilerHarness) -> Routers {
    let mut routers = Routers::new();
    for (address, bind) in harness.snapshot.binds.iter() {
        let listeners = bind.http().map(|http| http.listeners.iter());
        for (_, listener) in listeners.into_iter().flatten() {
            // All Ingresses share one router.
            let Routes::ByHost(hosts) = &listener.routes else { continue };
            for (host, router) in hosts.iter() {
                routers.insert(format!("{address} {} {host}", listener.name), router.clone());
            }
        }
    }
    routers
}

/// The HTTPRoute or GRPCRoute that a batch changes, if it changes nothing else.
fn edited_single_route(batch: &Batch) -> Option<String> {
    let id = match (&batch.upserts[..], &batch.removes[..]) {
        ([object], []) => object.id(),
        ([], [id]) => id.clone(),
        _ => return None,
    };
    matches!(id.kind, Kind::HttpRoute | Kind::GrpcRoute).then(|| format!("{}/{}", id.kind, id.key))
}

pub(super) fn put_or_remove(random: &mut fastrand::Rng, object: AnyObject) -> Batch {
    let mut batch = Batch::default();
    if random.u8(..4) == 0 {
        batch.removes.push(object.id());
    } else {
        batch.upserts.push(object);
    }
    batch
}

/// Applies the batch and compares with a compilation from scratch. Returns the number of routers built and the state.
pub(super) fn apply_and_compare(
    harness: &mut CompilerHarness,
    batch: Batch,
    (seed, step): (u64, usize),
) -> (usize, String) {
    let edit = describe(&batch);
    let built = harness.apply(batch);
    let actual = harness.describe_state();
    let expected = harness.recompiled().describe_state();
    assert_eq!(actual, expected, "seed {seed}, step {step}: {edit}");
    (built, actual)
}

#[test]
fn random_ingress_edits_match_full_compile() {
    compare_after_ingress_edits(SEEDS);
}

#[test]
#[ignore = "only in make test-full: more seeds of the test before it, each as likely to find something"]
fn more_random_ingress_edits_match_full_compile() {
    compare_after_ingress_edits(MORE_SEEDS);
}

fn compare_after_ingress_edits(seeds: Range<u64>) {
    let (mut served_states, mut states_with_dialects) = (0, 0);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut harness =
            CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
        if seed % 2 == 1 {
            harness.inputs.ingress.host_ownership = HostOwnership::Namespace;
        }
        for step in 0..EDITS {
            let object = match random.u8(..10) {
                0 => ingress_class(&mut random),
                1 => class_parameters(&mut random),
                2 | 3 => annotated_service(&mut random),
                4 => service_facade(&mut random),
                5 => upstream_policy(&mut random),
                6 => secret(&mut random),
                _ => ingress(&mut random),
            };
            apply_and_compare(&mut harness, put_or_remove(&mut random, object), (seed, step));
            served_states += usize::from(!harness.snapshot.binds.is_empty());
            states_with_dialects += usize::from(has_contested_hosts(&harness));
        }
    }
    assert!(states_with_dialects > 5, "too few states with a host of two dialects: {states_with_dialects}");
    assert!(served_states > 120, "too few states with a served Ingress: {served_states}");
}

/// Whether Ingresses of two dialects have the same host.
fn has_contested_hosts(harness: &CompilerHarness) -> bool {
    harness.snapshot.http_binds().flat_map(|bind| bind.listeners.iter()).any(|(_, listener)| match &listener.routes {
        Routes::Ingresses(routes) => !routes.contested_hosts().is_empty(),
        Routes::ByHost(_) | Routes::ByConditions(_) => false,
    })
}

fn ingress(random: &mut fastrand::Rng) -> AnyObject {
    let backend = |random: &mut fastrand::Rng| match random.u8(..4) {
        0 => {
            json!({"resource": {
                "apiGroup": "incubator.ingress-controller.konghq.com", "kind": "KongServiceFacade", "name": "f",
            }})
        }
        1 => json!({"service": {"name": pick(random, &["s", "t"]), "port": {"name": "web"}}}),
        _ => json!({"service": {"name": pick(random, &["s", "t", "u"]), "port": {"number": random.i32(80..82)}}}),
    };
    let paths: Vec<_> = (0..random.usize(1..3))
        .map(|_| {
            let path = pick(random, &["/", "/a", "/a/b", "/~/c+", "/d*"]);
            let path_type = pick(random, &["Exact", "Prefix", "ImplementationSpecific"]);
            json!({"path": path, "pathType": path_type, "backend": backend(random)})
        })
        .collect();
    let mut rule = json!({"http": {"paths": paths}});
    if random.u8(..4) > 0 {
        rule["host"] = json!(pick(random, HOSTS));
    }
    let mut spec = json!({"rules": [rule]});
    if random.u8(..4) > 0 {
        spec["ingressClassName"] = json!(pick(random, &["portico", "portico", "second", "other"]));
    }
    if random.u8(..3) == 0 {
        spec["defaultBackend"] = backend(random);
    }
    if random.bool() {
        spec["tls"] = json!([{"hosts": [pick(random, HOSTS)], "secretName": pick(random, &["k", "l"])}]);
    }
    let mut annotations = json!({});
    if random.u8(..8) == 0 {
        annotations["konghq.com/plugins"] = json!("absent");
    }
    if random.u8(..4) == 0 {
        annotations[pick(random, &["konghq.com/strip-path", "konghq.com/preserve-host"])] =
            json!(pick(random, &["true", "false", "perhaps"]));
    }
    let metadata = json!({
        "namespace": pick(random, &["a", "b"]),
        "name": pick(random, &["i1", "i2", "i3"]),
        "creationTimestamp": format!("202{}-01-01T00:00:00Z", random.u8(..4)),
        "annotations": annotations,
    });
    parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
}

pub(super) fn ingress_class(random: &mut fastrand::Rng) -> AnyObject {
    let controller = if random.u8(..4) == 0 { "example.com/other" } else { "portico.dev/ingress-controller" };
    let mut spec = json!({"controller": controller});
    if random.bool() {
        let kind = pick(random, &["IngressClassParameters", "IngressClassParameters", "Tuning"]);
        spec["parameters"] = json!({
            "apiGroup": "configuration.konghq.com", "kind": kind, "name": "p", "scope": "Namespace", "namespace": "a",
        });
    }
    let is_default = pick(random, &["true", "false"]);
    let mut annotations = json!({"ingressclass.kubernetes.io/is-default-class": is_default});
    let name = pick(random, &["portico", "second"]);
    // Mostly one class of each dialect, so that they share hosts.
    if random.u8(..8) < (if name == "second" { 7 } else { 2 }) {
        annotations["portico.dev/dialect"] = json!(pick(random, &["kubernetes", "kubernetes", "kong", "unknown"]));
    }
    let metadata = json!({"name": name, "annotations": annotations});
    parse(Kind::IngressClass, json!({"metadata": metadata, "spec": spec}))
}

fn class_parameters(random: &mut fastrand::Rng) -> AnyObject {
    let spec = json!({"serviceUpstream": random.bool(), "enableLegacyRegexDetection": random.bool()});
    let metadata = json!({"namespace": "a", "name": "p"});
    parse(Kind::IngressClassParameters, json!({"metadata": metadata, "spec": spec}))
}

fn annotated_service(random: &mut fastrand::Rng) -> AnyObject {
    let mut annotations = json!({"portico.dev/address": "192.0.2.1"});
    let (key, values) = [
        ("konghq.com/path", ["/x", "y"]),
        ("konghq.com/protocol", ["grpc", "https"]),
        ("konghq.com/upstream-policy", ["p", "q"]),
        ("konghq.com/retries", ["1", "many"]),
        ("ingress.kubernetes.io/service-upstream", ["true", "false"]),
    ][random.usize(..5)];
    annotations[key] = json!(pick(random, &values));
    if random.bool() {
        annotations["konghq.com/client-cert"] = json!(pick(random, &["k", "l"]));
    }
    if random.bool() {
        annotations["konghq.com/tls-verify"] = json!("true");
        annotations["konghq.com/ca-certificates-secrets"] = json!(pick(random, &["k", "l", "k,l"]));
    }
    let metadata =
        json!({"namespace": pick(random, &["a", "b"]), "name": pick(random, &["s", "t"]), "annotations": annotations});
    let spec = json!({"ports": [{"name": "web", "port": random.i32(80..82)}]});
    parse(Kind::Service, json!({"metadata": metadata, "spec": spec}))
}

fn service_facade(random: &mut fastrand::Rng) -> AnyObject {
    let annotations = json!({
        "kubernetes.io/ingress.class": pick(random, &["portico", "portico", "other"]),
        "konghq.com/upstream-policy": pick(random, &["p", "q"]),
    });
    let metadata = json!({"namespace": pick(random, &["a", "b"]), "name": "f", "annotations": annotations});
    let spec = json!({"backendRef": {"name": pick(random, &["s", "t"]), "port": random.i32(80..82)}});
    parse(Kind::KongServiceFacade, json!({"metadata": metadata, "spec": spec}))
}

fn upstream_policy(random: &mut fastrand::Rng) -> AnyObject {
    let metadata = json!({"namespace": pick(random, &["a", "b"]), "name": pick(random, &["p", "q"])});
    let algorithm = pick(random, &["round-robin", "least-connections", "latency"]);
    parse(Kind::KongUpstreamPolicy, json!({"metadata": metadata, "spec": {"algorithm": algorithm}}))
}

/// All upstreams that routes forward to, by route and key.
fn upstreams(harness: &CompilerHarness) -> BTreeMap<String, Arc<Upstream>> {
    let mut upstreams_by_name = BTreeMap::new();
    let mut add = |rule: &RouteRule| {
        let Action::Forward(split) = &rule.action else { return };
        for backend in split.backends() {
            if let BackendTarget::Upstream(upstream) = &backend.target {
                upstreams_by_name.insert(format!("{} {}", rule.id.route, upstream.key), Arc::clone(upstream));
            }
        }
    };
    for (_, listener) in harness.snapshot.http_binds().flat_map(|bind| bind.listeners.iter()) {
        listener.routes.rules().for_each(|rule| add(rule));
    }
    upstreams_by_name
}

// docs/kong-compatibility.md, 2.3
#[test]
fn renewed_authority_replaces_only_its_upstreams() {
    let secret = |name: &str, authority: &str, tag: &str| {
        let metadata = json!({
            "namespace": "a", "name": name, "labels": {"konghq.com/ca-cert": "true"}, "annotations": {"tag": tag},
        });
        parse(Kind::Secret, with_certificates(&json!({"metadata": metadata, "stringData": {"cert": authority}})))
    };
    let service = |name: &str, annotations: Value| {
        let metadata = json!({"namespace": "a", "name": name, "annotations": annotations});
        parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"port": 443}]}}))
    };
    let tls_annotations = |authority: &str| {
        json!({
            "konghq.com/protocol": "https", "konghq.com/tls-verify": "true",
            "konghq.com/ca-certificates-secrets": authority,
        })
    };
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let gateway = json!({
        "metadata": {"namespace": "a", "name": "g"},
        "spec": {"gatewayClassName": "portico", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    });
    let backends: Vec<_> = ["s", "t", "u"].iter().map(|name| json!({"name": name, "port": 443})).collect();
    let route_spec = json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": backends}]});
    let ingress = json!({
        "metadata": {"namespace": "a", "name": "i", "annotations": {"kubernetes.io/ingress.class": "portico"}},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 443}}}},
    });
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let objects = vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, gateway),
        parse(
            Kind::IngressClass,
            json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}}),
        ),
        parse(Kind::HttpRoute, json!({"metadata": {"namespace": "a", "name": "r"}, "spec": route_spec})),
        parse(Kind::Ingress, ingress),
        service("s", tls_annotations("k")),
        service("t", tls_annotations("l")),
        service("u", json!({})),
        secret("k", "AUTHORITY one", ""),
        secret("l", "AUTHORITY one", ""),
    ];
    harness.apply(Batch { upserts: objects, removes: vec![] });
    let before = upstreams(&harness);
    assert_eq!(before.len(), 4, "{:?}", before.keys());
    for (authority, tag, is_new) in [("AUTHORITY one", "x", false), ("AUTHORITY two", "x", true)] {
        harness.apply(Batch { upserts: vec![secret("k", authority, tag)], removes: vec![] });
        let after = upstreams(&harness);
        for (name, upstream) in &after {
            let is_replaced = is_new && name.ends_with(" a/s:443");
            assert_eq!(!Arc::ptr_eq(upstream, &before[name]), is_replaced, "{name} with {authority}");
            assert_eq!(upstream.key != before[name].key, is_replaced, "{name} with {authority}");
        }
        let recompiled = upstreams(&harness.recompiled());
        assert!(after.iter().all(|(name, upstream)| upstream.key == recompiled[name].key), "{authority}");
    }
    harness.apply(Batch { upserts: vec![], removes: vec![secret("k", "AUTHORITY two", "x").id()] });
    assert!(
        upstreams(&harness).keys().all(|name| !name.ends_with(" a/s:443")),
        "nothing is forwarded without the authority"
    );
}

/// Renewals are frequent, and thousands of routes may use the certificate.
#[test]
fn certificate_renewal_rebuilds_no_router() {
    let secret = |name: &str, pair: &str| {
        let data = json!({"tls.crt": format!("CERTIFICATE {pair}"), "tls.key": format!("KEY {pair}")});
        let metadata = json!({"namespace": "a", "name": name});
        parse(Kind::Secret, with_certificates(&json!({"metadata": metadata, "stringData": data})))
    };
    let listener = |name: &str| {
        let tls = json!({"certificateRefs": [{"name": name}]});
        json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": format!("{name}.example"), "tls": tls})
    };
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let gateway = json!({
        "metadata": {"namespace": "a", "name": "g"},
        "spec": {"gatewayClassName": "portico", "listeners": [listener("k"), listener("l")]},
    });
    let route = json!({
        "metadata": {"namespace": "a", "name": "r"},
        "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]},
    });
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), AddressState::default());
    let upserts = vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, gateway),
        parse(Kind::HttpRoute, route),
        secret("k", "one"),
        secret("l", "one"),
    ];
    assert!(harness.apply(Batch { upserts, removes: vec![] }) > 0);
    let served = |harness: &CompilerHarness, name: &str| {
        let bind = harness.snapshot.http_binds().next().unwrap();
        bind.certificates(Some(name)).and_then(|certificates| certificates.all().first()).cloned()
    };
    let (k, l) = (served(&harness, "k.example").unwrap(), served(&harness, "l.example").unwrap());

    assert_eq!(harness.apply(Batch { upserts: vec![secret("k", "two")], removes: vec![] }), 0);
    assert_eq!(served(&harness, "k.example").unwrap().names[0].to_string(), "two.example");
    assert!(!Arc::ptr_eq(&k, &served(&harness, "k.example").unwrap()));
    assert!(Arc::ptr_eq(&l, &served(&harness, "l.example").unwrap()), "an unchanged certificate keeps its Arc");

    let snapshot = harness.snapshot.clone();
    harness.apply(Batch { upserts: vec![secret("l", "one")], removes: vec![] });
    assert!(Arc::ptr_eq(&snapshot, &harness.snapshot), "equal content is not a change");

    harness.apply(Batch { upserts: vec![], removes: vec![secret("k", "two").id()] });
    assert!(served(&harness, "k.example").is_none() && served(&harness, "l.example").is_some());
}

#[test]
fn unchanged_default_certificate_publishes_nothing() {
    let secret = |pair: &str, label: &str| {
        let data = json!({"tls.crt": format!("CERTIFICATE {pair}"), "tls.key": format!("KEY {pair}")});
        let metadata = json!({"namespace": "a", "name": "k", "labels": {"edition": label}});
        parse(Kind::Secret, with_certificates(&json!({"metadata": metadata, "stringData": data})))
    };
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), AddressState::default());
    harness.inputs.ingress.default_secret = Some(ObjectKey::new("a", "k"));
    let ingress = json!({
        "metadata": {"namespace": "a", "name": "i"},
        "spec": {
            "ingressClassName": "portico",
            "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}},
        },
    });
    let upserts = vec![parse(Kind::Ingress, ingress), secret("one", "first")];
    harness.apply(Batch { upserts, removes: vec![] });
    let snapshot = harness.snapshot.clone();
    assert!(!snapshot.binds.is_empty());
    harness.apply(Batch { upserts: vec![secret("one", "second")], removes: vec![] });
    assert!(Arc::ptr_eq(&snapshot, &harness.snapshot), "an equal certificate is not a change");
    harness.apply(Batch { upserts: vec![secret("two", "second")], removes: vec![] });
    assert!(!Arc::ptr_eq(&snapshot, &harness.snapshot));
}

#[test]
fn edits_that_change_no_rule_publish_nothing() {
    let metadata = |name: &str, label: &str| json!({"namespace": "a", "name": name, "labels": {"edition": label}});
    let plugin = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "request-termination"});
    let classes = json!([
        {"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}},
        {
            "metadata": {"name": "plain", "annotations": {"portico.dev/dialect": "kubernetes"}},
            "spec": {"controller": "portico.dev/ingress-controller"},
        },
    ]);
    let route = |label: &str, path: &str| {
        let matches =
            json!([{"path": {"value": path}, "headers": [{"name": "x", "value": "y.*", "type": "RegularExpression"}]}]);
        let rule = json!({"matches": matches, "backendRefs": [{"name": "s", "port": 80}]});
        let spec = json!({"parentRefs": [{"name": "g"}], "rules": [rule]});
        parse(Kind::HttpRoute, json!({"metadata": metadata("r", label), "spec": spec}))
    };
    let ingress = |class: &str, label: &str, path: &str| {
        let mut metadata = metadata(class, label);
        if class == "portico" {
            metadata["annotations"] = json!({"konghq.com/plugins": "p"});
        }
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let path = json!({"path": path, "pathType": "Prefix", "backend": backend});
        let host = format!("{class}.example");
        let spec = json!({
            "ingressClassName": class,
            "rules": [{"host": host, "http": {"paths": [path]}}],
            "tls": [{"hosts": [host], "secretName": "k"}],
        });
        parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
    };
    let secret = |pair: &str| {
        let data = json!({"tls.crt": format!("CERTIFICATE {pair}"), "tls.key": format!("KEY {pair}")});
        let metadata = json!({"namespace": "a", "name": "k"});
        parse(Kind::Secret, with_certificates(&json!({"metadata": metadata, "stringData": data})))
    };
    let service = |label: &str| {
        parse(Kind::Service, json!({"metadata": metadata("s", label), "spec": {"ports": [{"port": 80}]}}))
    };
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), AddressState::default());
    let put = |object: AnyObject| Batch { upserts: vec![object], removes: vec![] };
    let class = json!({"metadata": {"name": "c"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let mut upserts = vec![parse(Kind::GatewayClass, class)];
    upserts.extend(classes.as_array().unwrap().iter().map(|class| parse(Kind::IngressClass, class.clone())));
    let gateway = json!({
        "metadata": {"namespace": "a", "name": "g"},
        "spec": {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    });
    upserts.extend([parse(Kind::Gateway, gateway), parse(Kind::KongPlugin, plugin), secret("one"), service("first")]);
    upserts.extend([route("first", "/"), ingress("portico", "first", "/"), ingress("plain", "first", "/")]);
    harness.apply(Batch { upserts, removes: vec![] });
    for (description, edit) in [
        ("a label of an HTTPRoute", route("second", "/")),
        ("a label of an Ingress with a plugin", ingress("portico", "second", "/")),
        ("a label of an Ingress of the dialect kubernetes", ingress("plain", "second", "/")),
        ("a label of their Service", service("second")),
    ] {
        let before = Arc::clone(&harness.snapshot);
        assert_eq!(harness.apply(put(edit)), 0, "{description}: routers were built");
        assert!(Arc::ptr_eq(&before, &harness.snapshot), "{description} is not a change of the snapshot");
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{description}");
    }
    let before = Arc::clone(&harness.snapshot);
    assert_eq!(harness.apply(put(secret("two"))), 0, "a renewed certificate builds no router");
    assert!(!Arc::ptr_eq(&before, &harness.snapshot));
    for (description, edit) in [
        ("the path of an HTTPRoute", route("second", "/new")),
        ("the path of an Ingress with a plugin", ingress("portico", "second", "/new")),
        ("the path of an Ingress of the dialect kubernetes", ingress("plain", "second", "/new")),
    ] {
        assert!(harness.apply(put(edit)) > 0, "{description}");
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{description}");
    }
}

/// A class is deleted for a moment when it is replaced, or moves to another release of a chart.
#[test]
fn gateways_of_a_deleted_class_are_served_on() {
    let class = |controller: &str| {
        parse(Kind::GatewayClass, json!({"metadata": {"name": "c"}, "spec": {"controllerName": controller}}))
    };
    let gateway = parse(
        Kind::Gateway,
        json!({
            "metadata": {"namespace": "a", "name": "g"},
            "spec": {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }),
    );
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), AddressState::default());
    harness.apply(Batch { upserts: vec![class("portico.dev/gateway-controller"), gateway.clone()], removes: vec![] });
    let binds = harness.snapshot.binds.addresses().clone();
    let verdict = CompilerHarness::describe_state;
    assert!(!binds.is_empty() && !verdict(&harness).contains("was deleted"));

    harness.apply(Batch { upserts: vec![], removes: vec![class("portico.dev/gateway-controller").id()] });
    assert_eq!(*harness.snapshot.binds.addresses(), binds);
    assert!(verdict(&harness).contains("GatewayClass c was deleted"), "{}", verdict(&harness));

    harness.apply(Batch { upserts: vec![class("portico.dev/gateway-controller")], removes: vec![] });
    assert_eq!(*harness.snapshot.binds.addresses(), binds);
    assert!(!verdict(&harness).contains("was deleted"));

    harness.apply(Batch { upserts: vec![class("example.com/other")], removes: vec![] });
    assert!(harness.snapshot.binds.is_empty(), "the class belongs to another controller now");
}

/// A process that cannot read classes since its start recognizes its Gateways by their status.
#[test]
fn gateways_whose_class_cannot_be_read_are_served_on() {
    let gateway = |name: &str, port: u16, accepted_by: Option<&str>| {
        let listeners = json!([{"name": "http", "port": port, "protocol": "HTTP"}]);
        let spec = json!({"gatewayClassName": "c", "listeners": listeners});
        let mut gateway = parse(Kind::Gateway, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}));
        gateway.gateway_mut().unwrap().accepted_by = accepted_by.map(str::to_owned);
        gateway
    };
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), AddressState::default());
    harness.inputs.unreadable_kinds.insert(Kind::GatewayClass);
    let gateways = vec![gateway("known", 80, Some("portico.dev/gateway-controller")), gateway("new", 81, None)];
    harness.apply(Batch { upserts: gateways, removes: vec![] });
    assert_eq!(harness.snapshot.binds.addresses().len(), 1, "only one was accepted before");
    let state = harness.describe_state();
    assert!(state.contains("GatewayClass c cannot be read; until it is read, the Gateway is served"), "{state}");
    assert!(state.contains("GatewayClass c cannot be read, so it is unknown whether"), "{state}");
    assert!(!state.contains("was deleted"), "{state}");

    // The list has no such class.
    harness.inputs.unreadable_kinds.clear();
    let everything = harness.store.everything();
    harness.compile(everything);
    assert_eq!(harness.snapshot.binds.addresses().len(), 1);
    let state = harness.describe_state();
    assert!(state.contains("GatewayClass c was deleted") && !state.contains("cannot be read"), "{state}");
}

/// Gateway API, GEP-4768: a bundle is followed, and no authority of a deleted one stays trusted.
#[test]
fn trust_bundles_are_followed() {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let reference = json!({"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "roots"});
    let listeners = json!([
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "k"}]}},
    ]);
    let frontend = json!({"frontend": {"default": {"validation": {"caCertificateRefs": [reference]}}}});
    let spec = json!({"gatewayClassName": "portico", "listeners": listeners, "tls": frontend});
    let metadata = |name: &str| json!({"namespace": "a", "name": name});
    let route = json!({"parentRefs": [{"name": "g", "sectionName": "http"}],
        "rules": [{"backendRefs": [{"name": "s", "port": 443}]}]});
    let policy = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
        "validation": {"hostname": "s.example", "caCertificateRefs": [reference]}});
    let secret = json!({"metadata": metadata("k"), "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": "CERTIFICATE one", "tls.key": "KEY one"}});
    let bundle = |authority: &str| {
        let object = json!({"kind": "ClusterTrustBundle", "metadata": {"name": "roots"},
            "spec": {"trustBundle": authority}});
        parse(Kind::ClusterTrustBundle, with_certificates(&object))
    };
    let objects = vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, json!({"metadata": metadata("g"), "spec": spec})),
        parse(Kind::HttpRoute, json!({"metadata": metadata("r"), "spec": route})),
        parse(Kind::Service, json!({"metadata": metadata("s"), "spec": {"ports": [{"port": 443}]}})),
        parse(Kind::BackendTlsPolicy, json!({"metadata": metadata("p"), "spec": policy})),
        parse(Kind::Secret, with_certificates(&secret)),
    ];
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    harness.inputs.absent_kinds.insert(Kind::ClusterTrustBundle);
    harness.apply(Batch { upserts: objects, removes: vec![] });
    // The numbers of upstreams, and of conditions without an authority: of the listener, and twice of the policy.
    let served = |harness: &CompilerHarness| {
        let without = harness.describe_state().matches("Accepted=False NoValidCACertificate").count();
        (upstreams(harness).len(), without)
    };
    let state = harness.describe_state();
    assert_eq!(served(&harness), (0, 3), "{state}");
    assert!(state.contains("InvalidKind") && state.contains("InvalidCACertificateKind"), "{state}");

    // The API server begins to serve the kind: what refers to a bundle is compiled again.
    harness.inputs.absent_kinds.clear();
    let referenced = harness.store.dependency_index().referenced(Kind::ClusterTrustBundle).cloned().collect();
    harness.compile(referenced);
    let state = harness.describe_state();
    assert!(state.contains("ClusterTrustBundle roots does not exist") && !state.contains("InvalidKind"), "{state}");

    harness.apply(Batch { upserts: vec![bundle("AUTHORITY one")], removes: vec![] });
    assert_eq!(served(&harness), (1, 0), "{}", harness.describe_state());
    let before = upstreams(&harness);
    harness.apply(Batch { upserts: vec![bundle("AUTHORITY two")], removes: vec![] });
    let after = upstreams(&harness);
    for (name, upstream) in &before {
        let is_kept = after.get(name).is_some_and(|other| Arc::ptr_eq(upstream, other));
        assert!(!is_kept, "connections of the old authority are not reused: {name}");
    }
    assert_eq!(served(&harness), (1, 0));
    assert_eq!(harness.describe_state(), harness.recompiled().describe_state());

    harness.apply(Batch { upserts: vec![], removes: vec![bundle("").id()] });
    let state = harness.describe_state();
    assert_eq!(served(&harness), (0, 3), "{state}");
    assert_eq!(state, harness.recompiled().describe_state());
}

fn describe(batch: &Batch) -> String {
    let upserts = batch.upserts.iter().map(|object| format!("apply {:?}", object));
    let removes = batch.removes.iter().map(|id| format!("delete {id}"));
    upserts.chain(removes).collect::<Vec<_>>().join(", ")
}

pub(super) fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}

fn initial_objects() -> Vec<AnyObject> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut objects: Vec<_> = (0..2).map(|_| gateway_class(&mut random)).collect();
    objects.extend((0..4).map(|_| gateway(&mut random)));
    objects.extend((0..4).map(|_| listener_set(&mut random)));
    objects.extend((0..4).map(|_| service(&mut random)));
    objects.extend((0..8).map(|_| route(&mut random)));
    objects.extend((0..4).map(|_| stream_route(&mut random)));
    objects
}

/// One edit, or sometimes several at once, as in a relist.
fn edit(random: &mut fastrand::Rng) -> Batch {
    let mut batch = Batch::default();
    let count = if random.u8(..10) == 0 { random.usize(2..6) } else { 1 };
    for _ in 0..count {
        // Almost half of all edits are routes, which change most often in clusters.
        let object = match random.u8(..16) {
            0 => gateway_class(random),
            1 => gateway(random),
            2 if random.bool() => gateway(random),
            2 => listener_set(random),
            3 if random.bool() => upstream_policy(random),
            3 => service(random),
            4 if random.bool() => unserved(random),
            5 if random.bool() => traffic_policy(random),
            5 => backend_policy(random),
            4 => endpoint_slice(random),
            6 if random.bool() => x_backend(random),
            6 => reference_grant(random),
            7 if random.bool() => backend_tls_policy(random),
            8 if random.bool() => authorities(random),
            8 => secret(random),
            7 => namespace(random),
            9 => stream_route(random),
            _ => route(random),
        };
        if random.u8(..4) == 0 {
            batch.removes.push(object.id());
        } else {
            batch.upserts.push(object);
        }
    }
    // A batch cannot contain an object twice.
    let mut seen: Vec<ObjectId> = batch.removes.clone();
    batch.upserts.retain(|object| {
        let is_first = !seen.contains(&object.id());
        seen.push(object.id());
        is_first
    });
    batch
}

pub(super) fn pick<'a>(random: &mut fastrand::Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

const NAMESPACES: &[&str] = &["a", "b", "c"];
const HOSTS: &[&str] = &["x.example", "*.example", "*.eu.example", "y.eu.example", "z.test"];

fn gateway_class(random: &mut fastrand::Rng) -> AnyObject {
    let controller = if random.u8(..4) == 0 { "example.com/other" } else { "portico.dev/gateway-controller" };
    let mut spec = json!({"controllerName": controller});
    if random.u8(..5) == 0 {
        spec["parametersRef"] = json!({"group": "example.com", "kind": "Tuning", "name": "fast"});
    }
    let name = pick(random, &["portico", "second"]);
    parse(Kind::GatewayClass, json!({"metadata": {"name": name}, "spec": spec}))
}

fn listeners(random: &mut fastrand::Rng) -> Vec<Value> {
    (0..random.usize(1..4))
        .map(|index| {
            let mut listener = json!({
                "name": pick(random, &["one", "two", "three", "four"]),
                "port": if random.bool() { 80 } else { 81 + index },
                "protocol": pick(random, &["HTTP", "HTTP", "HTTP", "TCP", "HTTPS", "HTTPS", "TLS", "TLS"]),
                "allowedRoutes": {"namespaces": match random.u8(..4) {
                    0 => json!({"from": "Same"}),
                    1 => json!({"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}),
                    _ => json!({"from": "All"}),
                }},
            });
            if random.bool() {
                listener["hostname"] = json!(pick(random, HOSTS));
            }
            if listener["protocol"] == "HTTPS" {
                let references = (0..random.usize(1..3)).map(|_| json!({"name": pick(random, &["k", "l"])}));
                listener["tls"] = json!({"certificateRefs": references.collect::<Vec<_>>()});
            }
            if listener["protocol"] == "TLS" {
                listener["tls"] = json!({"mode": pick(random, &["Passthrough", "Passthrough", "Terminate"])});
            }
            listener
        })
        // Names of listeners are unique.
        .fold(Vec::<Value>::new(), |mut all, listener| {
            if all.iter().all(|other| other["name"] != listener["name"]) {
                all.push(listener);
            }
            all
        })
}

fn listener_set(random: &mut fastrand::Rng) -> AnyObject {
    let metadata = json!({
        "namespace": pick(random, &["a", "b"]),
        "name": pick(random, &["g", "h", "i"]),
        "creationTimestamp": format!("202{}-01-01T00:00:00Z", random.u8(..4)),
    });
    let parent = json!({"name": pick(random, &["g", "h"]), "namespace": pick(random, &["a", "b"])});
    let spec = json!({"parentRef": parent, "listeners": listeners(random)});
    parse(Kind::ListenerSet, json!({"metadata": metadata, "spec": spec}))
}

fn gateway(random: &mut fastrand::Rng) -> AnyObject {
    let listeners = listeners(random);
    let mut spec = json!({"gatewayClassName": pick(random, &["portico", "portico", "second"]), "listeners": listeners});
    if random.u8(..3) > 0 {
        let selector = json!({"matchLabels": {"team": "web"}});
        let from = pick(random, &["All", "All", "Same", "Selector", "None"]);
        spec["allowedListeners"] = json!({"namespaces": {"from": from, "selector": selector}});
    }
    if random.u8(..3) == 0 {
        spec["defaultScope"] = json!("All");
    }
    if random.u8(..4) == 0 {
        // Two Gateways on one address compete for ports.
        spec["addresses"] = json!([{"value": "127.0.0.9"}]);
    }
    if random.u8(..3) == 0 {
        let namespace = pick(random, &["a", "b"]);
        let map = json!({"group": "", "kind": "ConfigMap", "namespace": namespace, "name": "authorities"});
        let bundle = json!({"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "authorities"});
        let references = json!([if random.bool() { map } else { bundle }]);
        spec["tls"] = json!({"frontend": {"default": {"validation": {"caCertificateRefs": references}}}});
    }
    if random.u8(..3) == 0 {
        spec["tls"]["backend"] = json!({"clientCertificateRef": {"name": pick(random, &["k", "l"])}});
    }
    let metadata = json!({
        "namespace": pick(random, &["a", "b"]),
        "name": pick(random, &["g", "h"]),
        "creationTimestamp": format!("202{}-01-01T00:00:00Z", random.u8(..4)),
    });
    parse(Kind::Gateway, json!({"metadata": metadata, "spec": spec}))
}

/// A TCPRoute or TLSRoute.
fn stream_route(random: &mut fastrand::Rng) -> AnyObject {
    let mut backend = json!({"name": pick(random, &["s", "t", "u"]), "port": random.i32(80..83)});
    if random.u8(..3) == 0 {
        backend["namespace"] = json!(pick(random, NAMESPACES));
    }
    let parent = json!({"name": pick(random, &["g", "h"]), "namespace": pick(random, &["a", "b"])});
    let mut spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]});
    let kind = if random.u8(..3) == 0 { Kind::TcpRoute } else { Kind::TlsRoute };
    if kind == Kind::TlsRoute {
        let hosts: Vec<_> = (0..random.usize(1..4)).map(|_| pick(random, HOSTS)).collect();
        spec["hostnames"] = json!(hosts);
    }
    let mut metadata = json!({
        "namespace": pick(random, NAMESPACES),
        "name": pick(random, &["p", "q", "r"]),
        "creationTimestamp": format!("202{}-01-01T00:00:00Z", random.u8(..4)),
    });
    if random.u8(..6) == 0 {
        metadata["annotations"] = json!({"konghq.com/plugins": "deny"});
    }
    parse(kind, json!({"metadata": metadata, "spec": spec}))
}

fn route(random: &mut fastrand::Rng) -> AnyObject {
    let parents: Vec<_> = (0..random.usize(1..3))
        .map(|_| {
            let mut parent = json!({"name": pick(random, &["g", "h"]), "namespace": pick(random, &["a", "b"])});
            if random.u8(..3) == 0 {
                parent["kind"] = json!("ListenerSet");
            }
            if random.u8(..3) == 0 {
                parent["sectionName"] = json!(pick(random, &["one", "two", "three"]));
            }
            parent
        })
        .collect();
    let hosts: Vec<_> = (0..random.usize(..3)).map(|_| pick(random, HOSTS)).collect();
    let kind = if random.u8(..4) == 0 { Kind::GrpcRoute } else { Kind::HttpRoute };
    let rules: Vec<_> = (0..random.usize(1..3))
        .map(|_| {
            let mut backend = json!({"name": pick(random, &["s", "t", "u"]), "port": random.i32(80..83)});
            if random.u8(..3) == 0 {
                backend["namespace"] = json!(pick(random, NAMESPACES));
            }
            let path = pick(random, &["/", "/a", "/a/b", "/c"]);
            let entry = match kind {
                Kind::GrpcRoute => json!({"method": {"type": "Exact", "service": &path[1..]}}),
                _ => json!({"path": {"type": "PathPrefix", "value": path}}),
            };
            let mut rule = json!({"matches": [entry], "backendRefs": [backend.clone()]});
            if random.u8(..3) == 0 {
                let other = json!({"name": pick(random, &["s", "t", "u"]), "port": 80});
                rule["backendRefs"] = json!([backend, other]);
            }
            if random.u8(..6) == 0 {
                let name = pick(random, &["s", "x"]);
                let x_backend = json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": name});
                rule["backendRefs"].as_array_mut().unwrap().push(x_backend);
            }
            if kind == Kind::HttpRoute && random.u8(..6) == 0 {
                rule["retry"] = json!({"attempts": 1});
            }
            if kind == Kind::HttpRoute && random.u8(..4) == 0 {
                let mut server = json!({"name": pick(random, &["s", "t", "u"]), "port": random.i32(80..83)});
                if random.u8(..3) == 0 {
                    server["namespace"] = json!(pick(random, NAMESPACES));
                }
                let auth = json!({"protocol": "GRPC", "backendRef": server, "grpc": {}});
                rule["filters"] = json!([{"type": "ExternalAuth", "externalAuth": auth}]);
            }
            rule
        })
        .collect();
    let mut metadata = json!({
        "namespace": pick(random, NAMESPACES),
        "name": pick(random, &["r1", "r2", "r3", "r4"]),
        "creationTimestamp": format!("202{}-01-01T00:00:00Z", random.u8(..4)),
    });
    let annotations = [
        ("konghq.com/host-aliases", pick(random, HOSTS)),
        ("konghq.com/snis", pick(random, &["x.example", "a b"])),
        ("ingress.kubernetes.io/force-ssl-redirect", "true"),
        ("konghq.com/stripp-path", "true"),
    ];
    if let Some((key, value)) = annotations.get(random.usize(..12)) {
        metadata["annotations"] = json!({*key: value});
    }
    let scope = pick(random, &["None", "None", "All"]);
    let spec = json!({"parentRefs": parents, "useDefaultGateways": scope, "hostnames": hosts, "rules": rules});
    parse(kind, json!({"metadata": metadata, "spec": spec}))
}

fn service(random: &mut fastrand::Rng) -> AnyObject {
    let mut object = json!({
        "metadata": {"namespace": pick(random, NAMESPACES), "name": pick(random, &["s", "t"])},
        "spec": {"ports": [{"name": "web", "port": random.i32(80..82)}]},
    });
    if random.u8(..4) == 0 {
        object["spec"] = json!({"type": "ExternalName", "externalName": "out.example", "ports": [{"port": 80}]});
    }
    if random.bool() {
        object["metadata"]["annotations"] = json!({"konghq.com/upstream-policy": pick(random, &["p", "q"])});
    }
    parse(Kind::Service, object)
}

fn endpoint_slice(random: &mut fastrand::Rng) -> AnyObject {
    let mut metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["e1", "e2"])});
    if random.u8(..6) != 0 {
        metadata["labels"] = json!({"kubernetes.io/service-name": pick(random, &["s", "t", "xbackend-1"])});
    }
    let endpoints: Vec<_> = (0..random.usize(..3))
        .map(|_| json!({"addresses": [format!("192.0.2.{}", random.u8(1..5))], "conditions": {"ready": random.bool()}}))
        .collect();
    let ports = json!([{"name": pick(random, &["web", "web", ""]), "port": 3000}]);
    let object = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    parse(Kind::EndpointSlice, object)
}

fn reference_grant(random: &mut fastrand::Rng) -> AnyObject {
    let (group, kind) = match random.u8(..3) {
        0 => ("gateway.networking.x-k8s.io", "XBackend"),
        _ => ("gateway.networking.k8s.io", "HTTPRoute"),
    };
    let from = json!({"group": group, "kind": kind, "namespace": pick(random, NAMESPACES)});
    let policies = json!({"group": "portico.dev", "kind": "BackendPolicy", "namespace": pick(random, NAMESPACES)});
    let spec =
        json!({"from": [from, policies], "to": [{"group": "", "kind": "Service"}, {"group": "", "kind": "Secret"}]});
    parse(Kind::ReferenceGrant, json!({"metadata": {"namespace": pick(random, NAMESPACES), "name": "g"}, "spec": spec}))
}

fn secret(random: &mut fastrand::Rng) -> AnyObject {
    let (certificate, key) = (pick(random, &["one", "two"]), pick(random, &["one", "one", "two"]));
    let authority = pick(random, &["AUTHORITY one", "AUTHORITY two", "CERTIFICATE one"]);
    let data =
        json!({"tls.crt": format!("CERTIFICATE {certificate}"), "tls.key": format!("KEY {key}"), "cert": authority});
    let mut metadata = json!({"namespace": pick(random, &["a", "b"]), "name": pick(random, &["k", "l"])});
    if random.u8(..4) > 0 {
        metadata["labels"] = json!({"konghq.com/ca-cert": "true"});
    }
    let object = json!({"metadata": metadata, "type": "kubernetes.io/tls", "stringData": data});
    parse(Kind::Secret, with_certificates(&object))
}

fn backend_tls_policy(random: &mut fastrand::Rng) -> AnyObject {
    let mut target = json!({"group": "", "kind": "Service", "name": pick(random, &["s", "t"])});
    if random.bool() {
        target["sectionName"] = json!(pick(random, &["web", "other"]));
    }
    let mut validation = json!({"hostname": pick(random, &["s.example", "t.example"])});
    if random.bool() {
        let (group, kind) =
            if random.bool() { ("", "ConfigMap") } else { ("certificates.k8s.io", "ClusterTrustBundle") };
        validation["caCertificateRefs"] = json!([{"group": group, "kind": kind, "name": "authorities"}]);
    } else {
        validation["wellKnownCACertificates"] = json!(pick(random, &["System", "System", "x.example/unknown"]));
    }
    let created = pick(random, &["2025-01-01T00:00:00Z", "2025-02-02T00:00:00Z"]);
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["p", "q"]),
        "creationTimestamp": created});
    let spec = json!({"targetRefs": [target], "validation": validation});
    parse(Kind::BackendTlsPolicy, json!({"metadata": metadata, "spec": spec}))
}

/// An XBackend with the name of a Service, or another one.
fn x_backend(random: &mut fastrand::Rng) -> AnyObject {
    let mut spec = json!({"type": "ExternalHostname", "port": {"number": random.i32(80..82)},
        "externalHostname": {"hostname": pick(random, &["x.example", "y.example", "s.a.svc"])}});
    if random.bool() {
        let (group, kind) =
            if random.bool() { ("", "ConfigMap") } else { ("certificates.k8s.io", "ClusterTrustBundle") };
        let reference = json!({"group": group, "kind": kind, "name": "authorities"});
        spec["tls"] = json!({"mode": "ServerOnly",
            "validation": {"hostname": "x.example", "caCertificateRefs": [reference]}});
        if random.bool() {
            spec["tls"]["mode"] = json!("ClientAndServer");
            let namespace = pick(random, &["a", "b"]);
            spec["tls"]["clientCertificateRef"] = json!({"name": pick(random, &["k", "l"]), "namespace": namespace});
        }
    } else {
        spec["protocol"] = json!(pick(random, &["HTTP", "H2C", "GRPC", "MCP"]));
    }
    let mut metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["s", "x"])});
    if random.u8(..3) == 0 {
        spec = json!({"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"app": "x"}},
            "port": {"number": 3000}});
        metadata["uid"] = json!(pick(random, &["1", "2"]));
    }
    parse(Kind::XBackend, json!({"metadata": metadata, "spec": spec}))
}

/// The authorities that policies trust.
fn authorities(random: &mut fastrand::Rng) -> AnyObject {
    let bundle = pick(random, &["AUTHORITY one", "AUTHORITY two", "not PEM"]);
    if random.bool() {
        let metadata = json!({"name": "authorities"});
        let object = json!({"kind": "ClusterTrustBundle", "metadata": metadata, "spec": {"trustBundle": bundle}});
        return parse(Kind::ClusterTrustBundle, with_certificates(&object));
    }
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": "authorities"});
    let map = json!({"kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": bundle}});
    parse(Kind::ConfigMap, with_certificates(&map))
}

/// An object of a kind that is not served.
fn unserved(random: &mut fastrand::Rng) -> AnyObject {
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["p", "q"])});
    let target = match random.bool() {
        true => json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": pick(random, &["g", "h"])}),
        false => json!({"group": "", "kind": "Service", "name": pick(random, &["s", "t"])}),
    };
    parse(Kind::XTelemetryPolicy, json!({"metadata": metadata, "spec": {"targetRefs": [target]}}))
}

/// Two names, so that policies conflict.
fn traffic_policy(random: &mut fastrand::Rng) -> AnyObject {
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["p", "q"]),
        "generation": random.u8(1..3)});
    let target = json!({"group": "", "kind": "Service", "name": pick(random, &["s", "t"])});
    let percent = pick(random, &["0", "50", "101"]).parse::<i32>().unwrap();
    let mut spec = json!({"targetRefs": [target], "retryConstraint": {"budget": {"percent": percent}}});
    if random.bool() {
        spec["sessionPersistence"] = json!({"type": "Cookie", "cookie": {}});
    }
    parse(Kind::XBackendTrafficPolicy, json!({"metadata": metadata, "spec": spec}))
}

/// Few names and targets, so that policies conflict, and blocks that may be invalid.
fn backend_policy(random: &mut fastrand::Rng) -> AnyObject {
    let created = pick(random, &["2025-01-01T00:00:00Z", "2025-02-02T00:00:00Z"]);
    let metadata = json!({"namespace": pick(random, NAMESPACES), "name": pick(random, &["p", "q"]),
        "creationTimestamp": created, "generation": random.u8(1..3)});
    let (group, kind) = match random.u8(..5) {
        0 => ("gateway.networking.x-k8s.io", "XBackend"),
        1 => ("incubator.ingress-controller.konghq.com", "KongServiceFacade"),
        _ => ("", "Service"),
    };
    let mut target = json!({"group": group, "kind": kind, "name": pick(random, &["s", "t", "x", "f"])});
    if kind == "Service" && random.bool() {
        target["sectionName"] = json!(pick(random, &["web", "other"]));
    }
    let mut spec = json!({"targetRefs": [target], "mode": pick(random, &["Enforce", "Enforce", "DryRun"])});
    if random.bool() {
        spec["loadBalancing"] = json!({"algorithm": pick(random, &["Random", "LeastRequests", "Unknown"])});
    }
    if random.bool() {
        spec["limits"] = json!({"maxRequests": random.i32(0..3)});
    }
    if random.bool() {
        spec["health"] = json!({"active": {"interval": pick(random, &["1s", "0s"])}});
    }
    if random.bool() {
        spec["retryBudget"] = json!({"percent": random.i32(0..100)});
    }
    if random.bool() {
        // Policies may refer to each other's targets, and to a namespace without a grant.
        let mut backend = json!({"name": pick(random, &["s", "t"]), "port": random.i32(80..82)});
        if random.u8(..3) == 0 {
            backend["namespace"] = json!(pick(random, NAMESPACES));
        }
        match random.bool() {
            true => spec["failover"] = json!({"backendRefs": [backend]}),
            false => spec["circuitBreaker"] = json!({"fallback": {"backendRef": backend}}),
        }
    }
    parse(Kind::BackendPolicy, json!({"metadata": metadata, "spec": spec}))
}

fn namespace(random: &mut fastrand::Rng) -> AnyObject {
    let key = ObjectKey::cluster(pick(random, NAMESPACES));
    let team = pick(random, &["web", "api"]);
    parse(Kind::Namespace, json!({"metadata": {"name": &*key.name, "labels": {"team": team}}}))
}
