//! Watches a fake API server that injects failures: which objects reach the store, and which stay there during
//! failures.

mod api;
mod forbidden;
mod site;

use std::collections::BTreeSet;
use std::time::Duration;

use api::{FakeApiServer, InjectedFailure};
use portico::api::{Kind, ObjectId, ObjectKey};
use serde_json::json;
use site::{WatchSite, config_map, gateway, namespace, route, secret, service};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const GATEWAY_X: &str = "gateway.networking.x-k8s.io/v1alpha1";

#[tokio::test]
async fn objects_and_their_changes_arrive() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b"] {
        api.put("httproutes", route(name, "one.example"));
    }
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| {
        site.complete && site.routes() == ["a one.example", "b one.example"]
    })
    .await;
    assert!(site.installed.versions[&Kind::HttpRoute] == "v1" && site.installed.unreadable.is_empty());
    assert!(!site.installed.versions.contains_key(&Kind::Gateway));

    api.put("httproutes", route("b", "two.example"));
    api.put("httproutes", route("c", "three.example"));
    api.delete("httproutes", "default", "a");
    site.wait_until("the changes arrive", |site| site.routes() == ["b two.example", "c three.example"]).await;
    let observed = site.observed[&ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "b"))].as_ref().unwrap();
    assert_eq!((&*observed.uid, &*observed.resource_version), ("default-b", "3"));
}

#[tokio::test]
async fn paged_lists_replace_unsupported_streaming() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b", "c"] {
        api.put("httproutes", route(name, "one.example"));
    }
    api.fail("httproutes", [InjectedFailure::Status(422, "sendInitialEvents is forbidden for watch")]);
    let mut site = WatchSite::start(&api).await;
    site.wait_until("all pages are read", |site| site.complete && site.routes().len() == 3).await;
    api.put("httproutes", route("d", "four.example"));
    site.wait_until("changes are watched", |site| site.routes().len() == 4).await;
}

/// A tenant may create many of them. Their refusal needs their hosts and matches.
#[tokio::test]
async fn large_objects_arrive_reduced() {
    for failures in [vec![], vec![InjectedFailure::Status(422, "sendInitialEvents is forbidden for watch")]] {
        let api = FakeApiServer::start().await;
        api.serve(GATEWAY, "httproutes", true);
        let large = |name: &str| {
            let mut route = route(name, "one.example");
            let headers = vec![json!({"name": "x", "value": "x".repeat(4_000)}); 16];
            let entry = json!({"path": {"type": "Exact", "value": "/a"}, "headers": headers});
            route["spec"]["rules"] = json!(vec![json!({"matches": [entry, entry]}); 11]);
            route
        };
        api.put("httproutes", large("a"));
        api.fail("httproutes", failures);
        let mut site = WatchSite::start(&api).await;
        site.wait_until("the route is listed", |site| site.complete && site.routes() == ["a one.example"]).await;
        let id = |name: &str| ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name));
        let oversized = &site.store.oversized[&id("a")];
        assert!((1_400_000..1_500_000).contains(&oversized.size), "{}", oversized.size);
        let rules = &site.store.http_routes[&id("a").key].spec.rules;
        let matches: Vec<_> = rules.iter().flat_map(|rule| &rule.matches).collect();
        let paths = matches.iter().filter_map(|entry| entry.path.as_ref()).map(|path| path.value.as_str());
        assert!(matches.len() > 10 && paths.into_iter().all(|path| path == "/a"), "{matches:?}");
        assert!(rules.last().unwrap().matches.is_empty(), "the matches after the first MiB are unknown");
        assert!(site.observed.contains_key(&id("a")), "its status is written");

        api.put("httproutes", large("b"));
        api.put("httproutes", route("a", "two.example"));
        site.wait_until("the changes arrive", |site| site.routes() == ["a two.example", "b one.example"]).await;
        assert_eq!(site.store.oversized.keys().collect::<Vec<_>>(), [&id("b")]);
    }
}

#[tokio::test]
async fn relist_finds_objects_deleted_between_watches() {
    let expired = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"});
    // Servers report an expired version as an event of the watch or, some of them, as its response.
    for failure in [
        InjectedFailure::Event(json!({"type": "ERROR", "object": expired})),
        InjectedFailure::Status(410, "too old resource version"),
    ] {
        let api = FakeApiServer::start().await;
        api.serve(GATEWAY, "httproutes", true);
        for name in ["a", "b"] {
            api.put("httproutes", route(name, "one.example"));
        }
        let mut site = WatchSite::start(&api).await;
        site.wait_until("everything is listed", |site| site.complete).await;
        api.delete_without_event("httproutes", "default", "a");
        api.fail("httproutes", [failure]);
        api.bookmark_and_cut("httproutes", 50);
        site.wait_until("the lost route is removed", |site| site.routes() == ["b one.example"]).await;
        let watches = api.requests("/apis/gateway.networking.k8s.io/v1/httproutes");
        assert!(
            watches.iter().any(|request| request.query.ends_with("resourceVersion=50")),
            "resumes at the bookmark: {watches:?}"
        );
    }
}

/// With several API servers, a new list may come from another one than the list before.
#[tokio::test]
async fn relist_from_a_server_that_is_behind_withdraws_nothing() {
    let expired = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"});
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("old", "one.example"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    api.fall_behind();
    api.put("httproutes", route("new", "two.example"));
    site.wait_until("the new route arrives", |site| site.routes().len() == 2).await;
    api.fail("httproutes", [InjectedFailure::Event(json!({"type": "ERROR", "object": expired}))]);
    api.bookmark_and_cut("httproutes", 50);
    api.wait_for_requests("/apis/gateway.networking.k8s.io/v1/httproutes", 3).await;
    api.put("httproutes", route("last", "three.example"));
    site.wait_until("the list has arrived", |site| site.routes().iter().any(|route| route.starts_with("last"))).await;
    assert_eq!(site.routes(), ["last three.example", "new two.example", "old one.example"]);
}

/// The connection stays open, but sends no events. A watch that works has a bookmark every minute or two.
#[tokio::test]
async fn stalled_watches_are_restarted() {
    const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    // The next watch does not get a response either.
    api.fail("httproutes", [InjectedFailure::NoResponse]);
    let started = tokio::time::Instant::now();
    tokio::time::pause();
    api.wait_for_requests(ROUTES, 3).await;
    tokio::time::resume();
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(240), "{elapsed:?}");
    let requests = api.requests(ROUTES);
    assert!(requests[1..].iter().all(|request| request.query.ends_with("resourceVersion=1")), "{requests:?}");
    api.put("httproutes", route("b", "two.example"));
    site.wait_until("changes are seen again", |site| site.routes() == ["a one.example", "b two.example"]).await;
}

#[tokio::test]
async fn incomplete_lists_do_not_count() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b", "c"] {
        api.put("httproutes", route(name, "one.example"));
    }
    api.fail("httproutes", [InjectedFailure::Cut(2), InjectedFailure::Cut(1)]);
    let mut site = WatchSite::start(&api).await;
    while site.routes().is_empty() {
        site.next().await;
    }
    assert_eq!(site.routes().len(), 3);
    site.wait_until("it is complete", |site| site.complete).await;

    // A relist removes nothing while it is incomplete, either.
    let expired = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": 410}});
    api.fail("httproutes", [InjectedFailure::Event(expired), InjectedFailure::Cut(1)]);
    api.bookmark_and_cut("httproutes", 50);
    api.put("httproutes", route("d", "one.example"));
    while site.routes().len() < 4 {
        site.next().await;
        assert!(site.routes().len() >= 3, "{:?}", site.routes());
    }
}

#[tokio::test]
async fn transient_errors_are_waited_out() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let failures =
        [InjectedFailure::Status(500, "etcdserver: leader changed"), InjectedFailure::Status(429, "Too many requests")];
    api.fail("httproutes", failures.clone());
    api.fail("secrets", failures);
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete && site.routes() == ["a one.example"]).await;
    assert!(site.installed.unreadable.is_empty(), "{:?}", site.installed);
}

#[tokio::test]
async fn failing_optional_kinds_are_named_and_delay_nothing() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.serve(GATEWAY_X, "xtelemetrypolicies", true);
    api.put("httproutes", route("a", "one.example"));
    api.fail(
        "xtelemetrypolicies",
        vec![InjectedFailure::Status(500, "conversion webhook for xtelemetrypolicies failed"); 100],
    );
    let mut site = WatchSite::start(&api).await;
    site.wait_until("the rest is complete", |site| {
        let reason = site.installed.unreadable.get(&Kind::XTelemetryPolicy);
        site.complete
            && site.routes().len() == 1
            && reason.is_some_and(|reason| reason.contains("500 conversion webhook"))
    })
    .await;
    api.clear_failures("xtelemetrypolicies");
    site.wait_until("it works again", |site| site.installed.versions.contains_key(&Kind::XTelemetryPolicy)).await;
}

/// Otherwise, a replica that starts during the failure would replace one that serves everything.
#[tokio::test]
async fn failing_served_kinds_delay_readiness() {
    let api = FakeApiServer::start().await;
    for plural in ["gateways", "httproutes"] {
        api.serve(GATEWAY, plural, true);
    }
    api.put("httproutes", route("a", "one.example"));
    api.fail("httproutes", vec![InjectedFailure::Status(500, "etcdserver: request timed out"); 1000]);
    let mut site = WatchSite::start(&api).await;
    site.wait_until_missing("the first list of httproutes (500 etcdserver: request timed out)").await;
    site.wait_until("it is reported", |site| site.installed.unreadable.contains_key(&Kind::HttpRoute)).await;
    assert!(!site.complete);
    api.clear_failures("httproutes");
    site.wait_until("it is listed", |site| site.complete && site.routes() == ["a one.example"]).await;
}

/// Otherwise, the broken webhook of one optional kind would stop all rolling updates and the start of further replicas.
#[tokio::test]
async fn optional_kinds_delay_readiness_until_the_startup_timeout() {
    const KONG: &str = "configuration.konghq.com/v1";
    let broken = || vec![InjectedFailure::Status(500, "conversion webhook failed"); 1000];
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    api.serve(KONG, "kongplugins", true);
    api.serve("configuration.konghq.com/v1alpha1", "konglicenses", false);
    api.fail("kongplugins", broken());
    api.fail("konglicenses", broken());
    let mut site = WatchSite::start(&api).await;
    site.wait_until("both are reported", |site| {
        [Kind::KongPlugin, Kind::KongLicense].iter().all(|kind| site.installed.unreadable.contains_key(kind))
    })
    .await;
    // Licenses have no effect on requests.
    site.wait_until_missing("the first list of kongplugins (500 conversion webhook failed)").await;
    assert!(!site.complete && !site.missing().contains("konglicenses"), "{}", site.missing());

    let mut site = WatchSite::start_with(&api, &[], Duration::from_secs(1)).await;
    site.wait_until("it is complete without the plugins", |site| {
        site.complete && site.installed.unreadable.contains_key(&Kind::KongPlugin)
    })
    .await;
    assert_eq!(site.routes(), ["a one.example"]);
    assert!(site.installed.unreadable[&Kind::KongPlugin].contains("500 conversion webhook failed"));
    assert_eq!(site.missing(), "");
    api.put("kongplugins", json!({"metadata": {"namespace": "default", "name": "late"}, "plugin": "cors"}));
    api.clear_failures("kongplugins");
    site.wait_until("the plugins are listed", |site| site.store.kong_plugins.len() == 1).await;
}

#[tokio::test]
async fn invalid_objects_are_rejected_alone() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    let mut bad = route("bad", "one.example");
    bad["spec"]["rules"] = json!("none");
    api.put("httproutes", bad);
    api.put("httproutes", json!({"metadata": {"namespace": "default", "name": "odd", "labels": [1]}, "spec": 5}));
    api.put("httproutes", route("good", "one.example"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("the good one is there", |site| site.complete && site.routes() == ["good one.example"]).await;
    let id = |name: &str| ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name));
    assert_eq!(site.rejected[&id("bad")].as_ref().unwrap().error.field, "spec.rules");
    assert!(site.rejected[&id("odd")].is_some());

    api.put("httproutes", route("bad", "fixed.example"));
    api.delete("httproutes", "default", "odd");
    site.wait_until("it is fixed", |site| site.routes() == ["bad fixed.example", "good one.example"]).await;
    site.wait_until("that is reported", |site| site.rejected.values().all(Option::is_none)).await;

    // A good version is kept when an edit breaks it.
    let mut broken = route("good", "one.example");
    broken["spec"]["parentRefs"] = json!({});
    api.put("httproutes", broken);
    site.wait_until("it is rejected", |site| site.rejected.get(&id("good")).is_some_and(Option::is_some)).await;
    assert_eq!(site.routes(), ["bad fixed.example", "good one.example"]);
}

#[tokio::test]
async fn forbidden_kinds_are_named_with_the_missing_rule() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.serve(GATEWAY_X, "xtelemetrypolicies", true);
    api.put("httproutes", route("a", "one.example"));
    api.fail(
        "xtelemetrypolicies",
        [
            InjectedFailure::Status(403, "xtelemetrypolicies is forbidden"),
            InjectedFailure::Status(403, "xtelemetrypolicies is forbidden"),
        ],
    );
    let mut site = WatchSite::start(&api).await;
    site.wait_until("the rest is complete", |site| site.complete && site.routes().len() == 1).await;
    let reason = &site.installed.unreadable[&Kind::XTelemetryPolicy];
    for part in [
        "403",
        "apiGroups [\"gateway.networking.x-k8s.io\"]",
        "resources [\"xtelemetrypolicies\"]",
        "verbs [list, watch]",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    site.wait_until("it is granted", |site| site.installed.unreadable.is_empty()).await;
    assert_eq!(site.installed.versions[&Kind::XTelemetryPolicy], "v1alpha1");
}

/// A server that is starting may refuse the first requests. A replica that became ready then would serve no routes.
#[tokio::test]
async fn single_refusals_do_not_leave_out_a_kind() {
    for code in [403, 404] {
        let api = FakeApiServer::start().await;
        api.serve(GATEWAY, "httproutes", true);
        api.put("httproutes", route("a", "one.example"));
        api.fail("httproutes", [InjectedFailure::Status(code, "not ready yet")]);
        let mut site = WatchSite::start(&api).await;
        while !site.complete {
            site.next().await;
        }
        assert_eq!(site.routes(), ["a one.example"], "{code}");
    }
}

/// Otherwise, a replica without configuration would become ready and replace one that serves.
#[tokio::test]
async fn replicas_without_permissions_are_not_complete() {
    const KINDS: [&str; 5] = ["services", "secrets", "configmaps", "namespaces", "endpointslices"];
    let api = FakeApiServer::start().await;
    for plural in KINDS {
        api.fail(plural, vec![InjectedFailure::Status(403, "it is forbidden"); 100]);
    }
    let mut site = WatchSite::start(&api).await;
    site.wait_until_missing("permission to read any kind").await;
    assert!(site.missing().contains("cluster-role.yaml") && !site.complete, "{}", site.missing());
    for plural in KINDS {
        api.clear_failures(plural);
    }
    site.wait_until("it is granted", |site| site.complete).await;
}

#[tokio::test]
async fn kinds_follow_their_crds() {
    let api = FakeApiServer::start().await;
    let mut site = WatchSite::start(&api).await;
    site.wait_until("a cluster without the Gateway API is complete", |site| site.complete).await;
    let crd = |bundle: &str| {
        let annotations = json!({
            "gateway.networking.k8s.io/bundle-version": bundle, "gateway.networking.k8s.io/channel": "standard",
        });
        json!({"metadata": {"name": "httproutes.gateway.networking.k8s.io", "annotations": annotations}})
    };
    let beta = "gateway.networking.k8s.io/v1beta1";
    api.put("customresourcedefinitions", crd("v0.8.0"));
    api.serve(beta, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    site.wait_until("the routes are watched", |site| site.routes() == ["a one.example"]).await;
    site.wait_until("the release is known", |site| site.installed.bundle_version.as_deref() == Some("v0.8.0")).await;
    assert_eq!(site.installed.versions[&Kind::HttpRoute], "v1beta1");
    assert_eq!(site.installed.channel.as_deref(), Some("standard"));

    api.serve(GATEWAY, "httproutes", true);
    api.put("customresourcedefinitions", crd("v1.7.0"));
    site.wait_until("the better version is used", |site| {
        site.installed.versions[&Kind::HttpRoute] == "v1" && site.installed.bundle_version.as_deref() == Some("v1.7.0")
    })
    .await;
    assert_eq!(site.routes(), ["a one.example"]);

    api.stop_serving(GATEWAY, "httproutes");
    api.stop_serving(beta, "httproutes");
    api.delete("customresourcedefinitions", "", "httproutes.gateway.networking.k8s.io");
    site.wait_until("they are removed", |site| site.routes().is_empty()).await;
    site.wait_until("so is the kind", |site| !site.installed.versions.contains_key(&Kind::HttpRoute)).await;
    assert_eq!(site.installed.bundle_version, None);
}

/// Kong's CRDs may be installed at any time. They do not change the reported release of the Gateway API.
#[tokio::test]
async fn kong_kinds_and_their_references_may_come_late() {
    let api = FakeApiServer::start().await;
    api.serve("networking.k8s.io/v1", "ingresses", true);
    for name in ["key", "certificate", "other"] {
        let mut secret = secret(name, "b25l");
        secret["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
        api.put("secrets", secret);
    }
    let mut site = WatchSite::start(&api).await;
    site.wait_until("a cluster without them is complete", |site| site.complete).await;
    let plugins = "/apis/configuration.konghq.com/v1/kongplugins";
    assert_eq!(api.requests(plugins).len(), 0);

    let (group, kong) = ("configuration.konghq.com", "configuration.konghq.com/v1");
    for plural in ["kongplugins", "kongconsumers"] {
        api.serve(kong, plural, true);
        api.put("customresourcedefinitions", json!({"metadata": {"name": format!("{plural}.{group}")}}));
    }
    let consumer = json!({
        "apiVersion": kong, "kind": "KongConsumer", "metadata": {"name": "ann", "namespace": "default"},
        "username": "ann", "credentials": ["key"],
        "status": {"conditions": [{"type": "Programmed", "status": "Unknown"}]},
    });
    api.put("kongconsumers", consumer);
    api.put(
        "kongplugins",
        json!({
            "apiVersion": kong, "kind": "KongPlugin", "metadata": {"name": "auth", "namespace": "default"},
            "plugin": "key-auth", "config": {"key_names": ["x-key"], "unset": null},
        }),
    );
    site.wait_until("they are watched", |site| site.store.kong_plugins.len() + site.store.kong_consumers.len() == 2)
        .await;
    site.wait_until("the credential is fetched", |site| site.secrets() == ["key one"]).await;
    assert_eq!(site.installed.versions[&Kind::KongPlugin], "v1");
    assert_eq!(site.installed.bundle_version, None);

    let spec = json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
        "tls": [{"hosts": ["a.example"], "secretName": "certificate"}]});
    api.put("ingresses", json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    }));
    site.wait_until("so is a certificate", |site| site.secrets() == ["certificate one", "key one"]).await;
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/other").len(), 0, "nothing refers to it");

    for plural in ["kongplugins", "kongconsumers"] {
        api.stop_serving(kong, plural);
        api.delete("customresourcedefinitions", "", &format!("{plural}.{group}"));
    }
    site.wait_until("they are removed", |site| site.store.kong_plugins.is_empty()).await;
    site.wait_until("so is the credential", |site| site.secrets() == ["certificate one"]).await;
}

#[tokio::test]
async fn many_credentials_are_fetched_as_a_list() {
    const CONSUMERS: usize = 100;
    let api = FakeApiServer::start().await;
    let kong = "configuration.konghq.com/v1";
    api.serve(kong, "kongconsumers", true);
    for index in 0..CONSUMERS {
        let mut credential = secret(&format!("key-{index}"), "b25l");
        credential["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
        api.put("secrets", credential);
        api.put(
            "kongconsumers",
            json!({
                "apiVersion": kong, "kind": "KongConsumer",
                "metadata": {"name": format!("c-{index}"), "namespace": "default"},
                "username": format!("c-{index}"), "credentials": [format!("key-{index}")],
            }),
        );
    }
    api.put("secrets", secret("unused", "b25l"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("all have come", |site| site.complete && site.secrets().len() == CONSUMERS).await;
    let requests = api.requests("/api/v1/namespaces/default/secrets");
    // All requests are for pages of the list, none for a single Secret.
    let is_page = |request: &&api::RecordedRequest| request.query.contains("labelSelector=konghq.com%2Fcredential");
    assert!(!requests.is_empty() && requests.iter().all(|request| is_page(&request)), "{requests:?}");

    let mut renewed = secret("key-7", "dHdv");
    renewed["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
    api.put("secrets", renewed);
    site.wait_until("a changed one is fetched alone", |site| site.secrets().contains(&"key-7 two".to_owned())).await;
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/key-7").len(), 1);
}

#[tokio::test]
async fn kinds_missing_for_a_moment_are_not_withdrawn() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "gateways", true);
    api.serve(GATEWAY, "httproutes", true);
    let crd = json!({"metadata": {"name": "httproutes.gateway.networking.k8s.io"}});
    api.put("customresourcedefinitions", crd.clone());
    api.put("httproutes", route("a", "one.example"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete && site.routes() == ["a one.example"]).await;

    api.stop_serving(GATEWAY, "httproutes");
    let path = format!("/apis/{GATEWAY}");
    let before = api.requests(&path).iter().filter(|request| request.path == path).count();
    api.put("customresourcedefinitions", crd);
    let discovered = api.wait_for_requests(&path, before + 3);
    tokio::time::timeout(Duration::from_secs(60), discovered).await.expect("discovery is repeated");
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("b", "one.example"));
    while site.routes().len() < 2 {
        assert_eq!(site.routes(), ["a one.example"]);
        site.next().await;
    }
    assert!(site.installed.versions.contains_key(&Kind::HttpRoute));
}

#[tokio::test]
async fn secrets_are_fetched_only_while_referenced() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "gateways", true);
    for name in ["used", "other"] {
        api.put("secrets", secret(name, "b25l"));
    }
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    assert_eq!(site.secrets(), [""; 0]);

    api.put("gateways", gateway("web", "used"));
    site.wait_until("it is fetched", |site| site.secrets() == ["used one"]).await;
    api.put("secrets", secret("used", "dHdv"));
    site.wait_until("its next version too", |site| site.secrets() == ["used two"]).await;
    api.put("gateways", gateway("web", "missing"));
    site.wait_until("it is dropped", |site| site.secrets().is_empty()).await;
    api.put("secrets", secret("missing", "dGhyZWU="));
    site.wait_until("one that appears is fetched", |site| site.secrets() == ["missing three"]).await;
    api.delete("secrets", "default", "missing");
    site.wait_until("a deleted one is removed", |site| site.secrets().is_empty()).await;

    let lists = api.requests("/api/v1/secrets");
    assert!(
        !lists.is_empty() && lists.iter().all(|request| request.accept.contains("PartialObjectMetadata")),
        "{lists:?}"
    );
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/other").len(), 0);
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/used").len(), 2, "once for each version");
}

// docs/kong-compatibility.md, 2.3
#[tokio::test]
async fn config_maps_are_fetched_only_while_referenced() {
    let api = FakeApiServer::start().await;
    for name in ["used", "other"] {
        api.put("configmaps", config_map(name, "one"));
    }
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    assert_eq!(site.config_maps(), [""; 0]);

    api.put("services", service("secure", "used"));
    site.wait_until("it is fetched", |site| site.config_maps() == ["used one"]).await;
    api.put("configmaps", config_map("used", "two"));
    site.wait_until("its next version too", |site| site.config_maps() == ["used two"]).await;
    api.put("services", service("secure", "missing"));
    site.wait_until("it is dropped", |site| site.config_maps().is_empty()).await;

    let lists = api.requests("/api/v1/configmaps");
    assert!(
        !lists.is_empty() && lists.iter().all(|request| request.accept.contains("PartialObjectMetadata")),
        "{lists:?}"
    );
    assert_eq!(api.requests("/api/v1/namespaces/default/configmaps/other").len(), 0);
    assert_eq!(api.requests("/api/v1/namespaces/default/configmaps/used").len(), 2, "once for each version");
}

#[tokio::test]
async fn failed_fetches_of_secrets_are_retried() {
    let api = FakeApiServer::start().await;
    api.put("secrets", secret("used", "b25l"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    api.fail("secrets", [InjectedFailure::Status(500, "etcdserver: request timed out")]);
    let wanted = BTreeSet::from([ObjectId::new(Kind::Secret, ObjectKey::new("default", "used"))]);
    assert!(!site.set_referenced(wanted.clone()), "it exists and is not fetched");
    tokio::time::timeout(Duration::from_secs(20), site.source.wait_until_fetched(false))
        .await
        .expect("it was attempted once");
    assert_eq!(site.source.unfetched(&BTreeSet::new()).0, wanted);
    site.keep_referenced = true;
    site.wait_until("it is fetched", |site| site.secrets() == ["used one"]).await;
}

#[tokio::test]
async fn only_named_namespaces_are_watched() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.serve(GATEWAY, "gatewayclasses", false);
    for name in ["default", "shop", "other"] {
        api.put("namespaces", namespace(name));
        let mut route = route("a", "one.example");
        route["metadata"]["namespace"] = json!(name);
        api.put("httproutes", route);
    }
    let mut site = WatchSite::start_in(&api, &["default", "shop"]).await;
    site.wait_until("both are listed", |site| site.complete && site.routes().len() == 2).await;
    let names: Vec<_> = site.store.namespaces.keys().map(|key| key.name.to_string()).collect();
    assert_eq!(names, ["default", "shop"]);
    assert_eq!(api.requests("/apis/gateway.networking.k8s.io/v1/httproutes").len(), 0);
    api.delete("httproutes", "shop", "a");
    site.wait_until("a change in one is seen", |site| site.routes().len() == 1).await;
}

/// `certificates.k8s.io/v1` has the kind since Kubernetes 1.37, and v1beta1 has it before, if it is enabled.
#[tokio::test]
async fn trust_bundles_are_watched_where_they_are_served() {
    let bundle = |text: &str| json!({"metadata": {"name": "roots"}, "spec": {"trustBundle": text}});
    for versions in [&["v1", "v1beta1"][..], &["v1beta1"]] {
        let api = FakeApiServer::start().await;
        for version in versions {
            api.serve(&format!("certificates.k8s.io/{version}"), "clustertrustbundles", false);
        }
        api.put("clustertrustbundles", bundle(&"x".repeat(1 << 20)));
        let mut site = WatchSite::start(&api).await;
        let length = |site: &WatchSite| {
            let bundle = site.store.cluster_trust_bundles.get(&ObjectKey::cluster("roots"));
            bundle.map(|bundle| bundle.spec.trust_bundle.len())
        };
        site.wait_until("the bundle is listed", |site| site.complete && length(site) == Some(1 << 20)).await;
        assert_eq!(site.installed.versions[&Kind::ClusterTrustBundle], versions[0]);
        assert!(site.installed.has(Kind::ClusterTrustBundle) && !site.installed.has(Kind::Gateway));
        api.put("clustertrustbundles", bundle("new"));
        site.wait_until("the change arrives", |site| length(site) == Some(3)).await;
        api.delete("clustertrustbundles", "", "roots");
        site.wait_until("the deletion arrives", |site| length(site).is_none()).await;
    }
    let api = FakeApiServer::start().await;
    api.serve("certificates.k8s.io/v1", "certificatesigningrequests", false);
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything else is listed", |site| site.complete).await;
    assert!(!site.installed.has(Kind::ClusterTrustBundle));
    assert!(api.requests("/apis/certificates.k8s.io/v1/clustertrustbundles").is_empty(), "it is not watched blindly");
}

#[tokio::test]
async fn expired_tokens_are_reported_and_fresh_ones_used() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    api.require_token("fresh");
    let mut site = WatchSite::start(&api).await;
    site.write_token("stale");
    site.wait_until_missing("--kubeconfig").await;
    let waiting = site.missing();
    assert!(waiting.contains("401 Unauthorized") && waiting.contains("renew them there"), "{waiting}");
    site.write_token("fresh");
    site.wait_until("it is used", |site| site.complete && site.routes().len() == 1).await;
    assert_eq!(site.missing(), "");

    api.require_token("fresher");
    api.put("httproutes", route("b", "one.example"));
    site.write_token("fresher");
    site.wait_until("so is the next", |site| site.routes().len() == 2).await;
}

#[tokio::test]
async fn nothing_is_withdrawn_during_an_outage() {
    let api = FakeApiServer::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete).await;
    api.go_down();
    let away = async {
        tokio::select! {
            () = api.wait_for_dropped_connections(20) => {}
            () = async { loop { site.next().await; assert_eq!(site.routes(), ["a one.example"]); } } => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(60), away).await.expect("it retries");
    api.delete("httproutes", "default", "a");
    api.put("httproutes", route("b", "one.example"));
    api.come_up();
    site.wait_until("it caught up", |site| site.routes() == ["b one.example"]).await;
}
