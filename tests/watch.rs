//! The API server as a source, against one that plays what goes wrong: what reaches the store, and what never leaves it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "watch/api.rs"]
mod api;
#[path = "watch/site.rs"]
mod site;

use std::collections::BTreeSet;
use std::time::Duration;

use api::{Api, Fault};
use portico::api::{Kind, ObjectId, ObjectKey};
use serde_json::json;
use site::{Site, config_map, gateway, namespace, route, secret, service};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

#[tokio::test]
async fn objects_arrive_at_once_and_then_their_changes() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b"] {
        api.put("httproutes", route(name, "one.example"));
    }
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete && site.routes() == ["a one.example", "b one.example"])
        .await;
    assert!(site.installed.versions[&Kind::HttpRoute] == "v1" && site.installed.unreadable.is_empty());
    assert!(!site.installed.versions.contains_key(&Kind::Gateway));

    api.put("httproutes", route("b", "two.example"));
    api.put("httproutes", route("c", "three.example"));
    api.delete("httproutes", "default", "a");
    site.until("the changes are there", |site| site.routes() == ["b two.example", "c three.example"]).await;
    let observed = site.observed[&ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "b"))].as_ref().unwrap();
    assert_eq!((&*observed.uid, &*observed.resource_version), ("default-b", "3"));
}

#[tokio::test]
async fn a_server_without_streamed_lists_is_asked_for_pages() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b", "c"] {
        api.put("httproutes", route(name, "one.example"));
    }
    api.fail("httproutes", [Fault::Status(422, "sendInitialEvents is forbidden for watch")]);
    let mut site = Site::start(&api).await;
    site.until("all pages are read", |site| site.complete && site.routes().len() == 3).await;
    api.put("httproutes", route("d", "four.example"));
    site.until("changes are watched", |site| site.routes().len() == 4).await;
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_found_by_the_next_list() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"});
    // By an event of the watch, or as its answer, as some servers do.
    for fault in
        [Fault::Event(json!({"type": "ERROR", "object": gone})), Fault::Status(410, "too old resource version")]
    {
        let api = Api::start().await;
        api.serve(GATEWAY, "httproutes", true);
        for name in ["a", "b"] {
            api.put("httproutes", route(name, "one.example"));
        }
        let mut site = Site::start(&api).await;
        site.until("everything is listed", |site| site.complete).await;
        api.lose("httproutes", "default", "a");
        api.fail("httproutes", [fault]);
        api.bookmark_and_cut("httproutes", 50);
        site.until("the lost one is gone", |site| site.routes() == ["b one.example"]).await;
        let watches = api.requests("/apis/gateway.networking.k8s.io/v1/httproutes");
        assert!(
            watches.iter().any(|seen| seen.query.ends_with("resourceVersion=50")),
            "resumes at the bookmark: {watches:?}"
        );
    }
}

/// The connection is there, and nothing comes of it: neither an end nor a bookmark, as come every minute or two.
#[tokio::test]
async fn a_watch_that_fell_silent_is_begun_again() {
    const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete).await;
    // It is begun again, and that is not even answered.
    api.fail("httproutes", [Fault::Silence]);
    let begun = tokio::time::Instant::now();
    tokio::time::pause();
    api.until_asked(ROUTES, 3).await;
    tokio::time::resume();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(240), "{took:?}");
    let asked = api.requests(ROUTES);
    assert!(asked[1..].iter().all(|seen| seen.query.ends_with("resourceVersion=1")), "{asked:?}");
    api.put("httproutes", route("b", "two.example"));
    site.until("changes are seen again", |site| site.routes() == ["a one.example", "b two.example"]).await;
}

#[tokio::test]
async fn a_list_counts_when_it_is_whole() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    for name in ["a", "b", "c"] {
        api.put("httproutes", route(name, "one.example"));
    }
    api.fail("httproutes", [Fault::Cut(2), Fault::Cut(1)]);
    let mut site = Site::start(&api).await;
    while site.routes().is_empty() {
        site.next().await;
    }
    assert_eq!(site.routes().len(), 3);
    site.until("it is complete", |site| site.complete).await;

    // The same when it is listed again: nothing goes while half of it came.
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": 410}});
    api.fail("httproutes", [Fault::Event(gone), Fault::Cut(1)]);
    api.bookmark_and_cut("httproutes", 50);
    api.put("httproutes", route("d", "one.example"));
    while site.routes().len() < 4 {
        site.next().await;
        assert!(site.routes().len() >= 3, "{:?}", site.routes());
    }
}

#[tokio::test]
async fn refusals_of_a_moment_are_waited_out() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let many = [Fault::Status(500, "etcdserver: leader changed"), Fault::Status(429, "Too many requests")];
    api.fail("httproutes", many.clone());
    api.fail("secrets", many);
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete && site.routes() == ["a one.example"]).await;
    assert!(site.installed.unreadable.is_empty(), "{:?}", site.installed);
}

#[tokio::test]
async fn a_kind_that_keeps_failing_is_named_and_holds_up_nothing() {
    let api = Api::start().await;
    for plural in ["httproutes", "tlsroutes"] {
        api.serve(GATEWAY, plural, true);
    }
    api.put("httproutes", route("a", "one.example"));
    api.fail("tlsroutes", vec![Fault::Status(500, "conversion webhook for tlsroutes failed"); 100]);
    let mut site = Site::start(&api).await;
    site.until("the rest is complete", |site| {
        let why = site.installed.unreadable.get(&Kind::TlsRoute);
        site.complete && site.routes().len() == 1 && why.is_some_and(|why| why.contains("500 conversion webhook"))
    })
    .await;
    api.mend("tlsroutes");
    site.until("it works again", |site| site.installed.versions.contains_key(&Kind::TlsRoute)).await;
}

/// Or a replica that starts in such a moment would take the place of one that serves everything, with half of it.
#[tokio::test]
async fn a_kind_that_is_served_is_waited_for_however_long_it_fails() {
    let api = Api::start().await;
    for plural in ["gateways", "httproutes"] {
        api.serve(GATEWAY, plural, true);
    }
    api.put("httproutes", route("a", "one.example"));
    api.fail("httproutes", vec![Fault::Status(500, "etcdserver: request timed out"); 1000]);
    let mut site = Site::start(&api).await;
    site.until_waiting("the first list of httproutes (500 etcdserver: request timed out)").await;
    site.until("it is told", |site| site.installed.unreadable.contains_key(&Kind::HttpRoute)).await;
    assert!(!site.complete);
    api.mend("httproutes");
    site.until("it is listed", |site| site.complete && site.routes() == ["a one.example"]).await;
}

#[tokio::test]
async fn a_bad_object_is_refused_alone() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    let mut bad = route("bad", "one.example");
    bad["spec"]["rules"] = json!("none");
    api.put("httproutes", bad);
    api.put("httproutes", json!({"metadata": {"namespace": "default", "name": "odd", "labels": [1]}, "spec": 5}));
    api.put("httproutes", route("good", "one.example"));
    let mut site = Site::start(&api).await;
    site.until("the good one is there", |site| site.complete && site.routes() == ["good one.example"]).await;
    let id = |name: &str| ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name));
    assert_eq!(site.refused[&id("bad")].as_ref().unwrap().why.field, "spec.rules");
    assert!(site.refused[&id("odd")].is_some());

    api.put("httproutes", route("bad", "mended.example"));
    api.delete("httproutes", "default", "odd");
    site.until("it is mended", |site| site.routes() == ["bad mended.example", "good one.example"]).await;
    site.until("that is told", |site| site.refused.values().all(Option::is_none)).await;

    // What was good once is kept when an edit breaks it.
    let mut broken = route("good", "one.example");
    broken["spec"]["parentRefs"] = json!({});
    api.put("httproutes", broken);
    site.until("it is refused", |site| site.refused.get(&id("good")).is_some_and(Option::is_some)).await;
    assert_eq!(site.routes(), ["bad mended.example", "good one.example"]);
}

#[tokio::test]
async fn a_kind_that_we_may_not_read_is_named_with_the_rule_that_is_missing() {
    let api = Api::start().await;
    for plural in ["httproutes", "grpcroutes"] {
        api.serve(GATEWAY, plural, true);
    }
    api.put("httproutes", route("a", "one.example"));
    api.fail(
        "grpcroutes",
        [Fault::Status(403, "grpcroutes is forbidden"), Fault::Status(403, "grpcroutes is forbidden")],
    );
    let mut site = Site::start(&api).await;
    site.until("the rest is complete", |site| site.complete && site.routes().len() == 1).await;
    let why = &site.installed.unreadable[&Kind::GrpcRoute];
    for part in
        ["403", "apiGroups [\"gateway.networking.k8s.io\"]", "resources [\"grpcroutes\"]", "verbs [list, watch]"]
    {
        assert!(why.contains(part), "{why}");
    }
    site.until("it is granted", |site| site.installed.unreadable.is_empty()).await;
    assert_eq!(site.installed.versions[&Kind::GrpcRoute], "v1");
}

/// A replica that is ready and serves nothing would take the place of one that does.
#[tokio::test]
async fn whoever_may_read_nothing_is_not_complete() {
    const KINDS: [&str; 5] = ["services", "secrets", "configmaps", "namespaces", "endpointslices"];
    let api = Api::start().await;
    for plural in KINDS {
        api.fail(plural, vec![Fault::Status(403, "it is forbidden"); 100]);
    }
    let mut site = Site::start(&api).await;
    site.until_waiting("a right to read anything").await;
    assert!(site.waiting_for().contains("cluster-role.yaml") && !site.complete, "{}", site.waiting_for());
    for plural in KINDS {
        api.mend(plural);
    }
    site.until("it is granted", |site| site.complete).await;
}

#[tokio::test]
async fn kinds_come_and_go_with_their_crds() {
    let api = Api::start().await;
    let mut site = Site::start(&api).await;
    site.until("a cluster without the Gateway API is complete", |site| site.complete).await;
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
    site.until("they are watched", |site| site.routes() == ["a one.example"]).await;
    site.until("the release is known", |site| site.installed.bundle_version.as_deref() == Some("v0.8.0")).await;
    assert_eq!(site.installed.versions[&Kind::HttpRoute], "v1beta1");
    assert_eq!(site.installed.channel.as_deref(), Some("standard"));

    api.serve(GATEWAY, "httproutes", true);
    api.put("customresourcedefinitions", crd("v1.7.0"));
    site.until("the better version is used", |site| {
        site.installed.versions[&Kind::HttpRoute] == "v1" && site.installed.bundle_version.as_deref() == Some("v1.7.0")
    })
    .await;
    assert_eq!(site.routes(), ["a one.example"]);

    api.serve_no_more(GATEWAY, "httproutes");
    api.serve_no_more(beta, "httproutes");
    api.delete("customresourcedefinitions", "", "httproutes.gateway.networking.k8s.io");
    site.until("they are forgotten", |site| site.routes().is_empty()).await;
    site.until("so is the kind", |site| !site.installed.versions.contains_key(&Kind::HttpRoute)).await;
    assert_eq!(site.installed.bundle_version, None);
}

/// Their definitions may come any time, and say nothing about the release of the Gateway API.
#[tokio::test]
async fn kongs_kinds_come_late_with_what_they_refer_to() {
    let api = Api::start().await;
    api.serve("networking.k8s.io/v1", "ingresses", true);
    for name in ["key", "certificate", "other"] {
        let mut secret = secret(name, "b25l");
        secret["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
        api.put("secrets", secret);
    }
    let mut site = Site::start(&api).await;
    site.until("a cluster without them is complete", |site| site.complete).await;
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
    site.until("they are watched", |site| site.store.kong_plugins.len() + site.store.kong_consumers.len() == 2).await;
    site.until("the credential is fetched", |site| site.secrets() == ["key one"]).await;
    assert_eq!(site.installed.versions[&Kind::KongPlugin], "v1");
    assert_eq!(site.installed.bundle_version, None);

    let tls = json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
        "tls": [{"hosts": ["a.example"], "secretName": "certificate"}]});
    api.put("ingresses", json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "default"},
        "spec": tls,
    }));
    site.until("so is a certificate", |site| site.secrets() == ["certificate one", "key one"]).await;
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/other").len(), 0, "nobody refers to it");

    for plural in ["kongplugins", "kongconsumers"] {
        api.serve_no_more(kong, plural);
        api.delete("customresourcedefinitions", "", &format!("{plural}.{group}"));
    }
    site.until("they are forgotten", |site| site.store.kong_plugins.is_empty()).await;
    site.until("so is the credential", |site| site.secrets() == ["certificate one"]).await;
}

#[tokio::test]
async fn the_credentials_of_many_consumers_come_as_a_list() {
    const CONSUMERS: usize = 100;
    let api = Api::start().await;
    let kong = "configuration.konghq.com/v1";
    api.serve(kong, "kongconsumers", true);
    for index in 0..CONSUMERS {
        let mut credential = secret(&format!("key-{index}"), "b25l");
        credential["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
        api.put("secrets", credential);
        api.put("kongconsumers", json!({
            "apiVersion": kong, "kind": "KongConsumer", "metadata": {"name": format!("c-{index}"), "namespace": "default"},
            "username": format!("c-{index}"), "credentials": [format!("key-{index}")],
        }));
    }
    api.put("secrets", secret("nobodys", "b25l"));
    let mut site = Site::start(&api).await;
    site.until("all have come", |site| site.complete && site.secrets().len() == CONSUMERS).await;
    let asked = api.requests("/api/v1/namespaces/default/secrets");
    // Page by page, and none alone.
    let is_page = |seen: &&api::Seen| seen.query.contains("labelSelector=konghq.com%2Fcredential");
    assert!(!asked.is_empty() && asked.iter().all(|seen| is_page(&seen)), "{asked:?}");

    let mut renewed = secret("key-7", "dHdv");
    renewed["metadata"]["labels"] = json!({"konghq.com/credential": "key-auth"});
    api.put("secrets", renewed);
    site.until("one that changes comes alone", |site| site.secrets().contains(&"key-7 two".to_owned())).await;
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/key-7").len(), 1);
}

#[tokio::test]
async fn a_kind_that_a_server_forgets_for_a_moment_is_not_withdrawn() {
    let api = Api::start().await;
    api.serve(GATEWAY, "gateways", true);
    api.serve(GATEWAY, "httproutes", true);
    let crd = json!({"metadata": {"name": "httproutes.gateway.networking.k8s.io"}});
    api.put("customresourcedefinitions", crd.clone());
    api.put("httproutes", route("a", "one.example"));
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete && site.routes() == ["a one.example"]).await;

    api.serve_no_more(GATEWAY, "httproutes");
    let path = format!("/apis/{GATEWAY}");
    let before = api.requests(&path).iter().filter(|seen| seen.path == path).count();
    api.put("customresourcedefinitions", crd);
    let looked = api.until_asked(&path, before + 3);
    tokio::time::timeout(Duration::from_secs(60), looked).await.expect("it looks again and again");
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("b", "one.example"));
    while site.routes().len() < 2 {
        assert_eq!(site.routes(), ["a one.example"]);
        site.next().await;
    }
    assert!(site.installed.versions.contains_key(&Kind::HttpRoute));
}

#[tokio::test]
async fn secrets_are_fetched_only_while_something_refers_to_them() {
    let api = Api::start().await;
    api.serve(GATEWAY, "gateways", true);
    for name in ["used", "other"] {
        api.put("secrets", secret(name, "b25l"));
    }
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete).await;
    assert_eq!(site.secrets(), [""; 0]);

    api.put("gateways", gateway("web", "used"));
    site.until("it is fetched", |site| site.secrets() == ["used one"]).await;
    api.put("secrets", secret("used", "dHdv"));
    site.until("its next version too", |site| site.secrets() == ["used two"]).await;
    api.put("gateways", gateway("web", "missing"));
    site.until("it is given up", |site| site.secrets().is_empty()).await;
    api.put("secrets", secret("missing", "dGhyZWU="));
    site.until("one that appears is fetched", |site| site.secrets() == ["missing three"]).await;
    api.delete("secrets", "default", "missing");
    site.until("one that goes is gone", |site| site.secrets().is_empty()).await;

    let lists = api.requests("/api/v1/secrets");
    assert!(!lists.is_empty() && lists.iter().all(|seen| seen.accept.contains("PartialObjectMetadata")), "{lists:?}");
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/other").len(), 0);
    assert_eq!(api.requests("/api/v1/namespaces/default/secrets/used").len(), 2, "once for each version");
}

// kong-compat §2.3
#[tokio::test]
async fn config_maps_are_fetched_only_while_something_refers_to_them() {
    let api = Api::start().await;
    for name in ["used", "other"] {
        api.put("configmaps", config_map(name, "one"));
    }
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete).await;
    assert_eq!(site.config_maps(), [""; 0]);

    api.put("services", service("secure", "used"));
    site.until("it is fetched", |site| site.config_maps() == ["used one"]).await;
    api.put("configmaps", config_map("used", "two"));
    site.until("its next version too", |site| site.config_maps() == ["used two"]).await;
    api.put("services", service("secure", "missing"));
    site.until("it is given up", |site| site.config_maps().is_empty()).await;

    let lists = api.requests("/api/v1/configmaps");
    assert!(!lists.is_empty() && lists.iter().all(|seen| seen.accept.contains("PartialObjectMetadata")), "{lists:?}");
    assert_eq!(api.requests("/api/v1/namespaces/default/configmaps/other").len(), 0);
    assert_eq!(api.requests("/api/v1/namespaces/default/configmaps/used").len(), 2, "once for each version");
}

#[tokio::test]
async fn a_secret_that_cannot_be_fetched_is_tried_again() {
    let api = Api::start().await;
    api.put("secrets", secret("used", "b25l"));
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete).await;
    api.fail("secrets", [Fault::Status(500, "etcdserver: request timed out")]);
    let wanted = BTreeSet::from([ObjectId::new(Kind::Secret, ObjectKey::new("default", "used"))]);
    assert!(!site.source.want(wanted), "it exists and is not here");
    tokio::time::timeout(Duration::from_secs(20), site.source.settled()).await.expect("it was tried once");
    site.keep_wanted = true;
    site.until("it came", |site| site.secrets() == ["used one"]).await;
}

#[tokio::test]
async fn only_the_namespaces_that_were_named_are_watched() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.serve(GATEWAY, "gatewayclasses", false);
    for space in ["default", "shop", "other"] {
        api.put("namespaces", namespace(space));
        let mut route = route("a", "one.example");
        route["metadata"]["namespace"] = json!(space);
        api.put("httproutes", route);
    }
    let mut site = Site::start_in(&api, &["default", "shop"]).await;
    site.until("both are listed", |site| site.complete && site.routes().len() == 2).await;
    let spaces: Vec<_> = site.store.namespaces.keys().map(|key| key.name.to_string()).collect();
    assert_eq!(spaces, ["default", "shop"]);
    assert_eq!(api.requests("/apis/gateway.networking.k8s.io/v1/httproutes").len(), 0);
    api.delete("httproutes", "shop", "a");
    site.until("a change in one is seen", |site| site.routes().len() == 1).await;
}

#[tokio::test]
async fn an_expired_token_is_named_and_a_fresh_one_used() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    api.demand_token("fresh");
    let mut site = Site::start(&api).await;
    site.write_token("stale");
    site.until_waiting("--kubeconfig").await;
    let waiting = site.waiting_for();
    assert!(waiting.contains("401 Unauthorized") && waiting.contains("renew them there"), "{waiting}");
    site.write_token("fresh");
    site.until("it is used", |site| site.complete && site.routes().len() == 1).await;
    assert_eq!(site.waiting_for(), "");

    api.demand_token("fresher");
    api.put("httproutes", route("b", "one.example"));
    site.write_token("fresher");
    site.until("so is the next", |site| site.routes().len() == 2).await;
}

#[tokio::test]
async fn nothing_is_withdrawn_while_the_server_is_away() {
    let api = Api::start().await;
    api.serve(GATEWAY, "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    let mut site = Site::start(&api).await;
    site.until("everything is listed", |site| site.complete).await;
    api.go_down();
    let away = async {
        tokio::select! {
            () = api.until_knocked(20) => {}
            () = async { loop { site.next().await; assert_eq!(site.routes(), ["a one.example"]); } } => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(60), away).await.expect("it tries again and again");
    api.delete("httproutes", "default", "a");
    api.put("httproutes", route("b", "one.example"));
    api.come_up();
    site.until("it caught up", |site| site.routes() == ["b one.example"]).await;
}
