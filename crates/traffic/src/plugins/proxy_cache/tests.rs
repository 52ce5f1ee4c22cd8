//! Tests of the plugin through a chain: what is stored, for whom, and when it is sent again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::ProxyCache;
use super::store::{CacheStore, Purge};
use crate::plugin_api::consumers::{Consumer, EntityId, sha256};
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{
    AccessOutcome, AnyPluginKind, BackendReplacement, ChangedFields, Phases, Plugin, PluginServices, PluginState,
    RegisteredKind, ReplaceBackendCx, Reply, ReplyBody, RequestCx, RouteNames, VerifiedSubject,
};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{
    TestOutcome, TestRequest, build, build_with, chain_with, consumer, global_instance, instance, names, notes,
};

const KIND: RegisteredKind<ProxyCache> = RegisteredKind::NEW;

/// A cache, and the time of its requests.
pub(super) struct Cache {
    pub(super) state: PluginState,
    pub(super) chain: Arc<Chain>,
    pub(super) now: SystemTime,
}

impl Cache {
    pub(super) fn new(config: Value) -> Cache {
        let state = PluginState::default();
        let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
        let chain = chain_with(&[(&KIND as &dyn AnyPluginKind, config)], &state, &services);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Cache { state, chain, now }
    }

    /// Sends a request. The endpoint would respond with these fields and this body.
    pub(super) async fn send(
        &self,
        mut request: TestRequest,
        fields: &[(&str, &str)],
        body: &'static str,
    ) -> TestOutcome {
        let mut response = Response::builder().header("content-type", "text/plain");
        let mut status = 200;
        for (name, value) in fields {
            match *name {
                "status" => status = value.parse().unwrap(),
                name => response = response.header(name, *value),
            }
        }
        request.upstream_response = response.status(status).body(()).unwrap();
        request.upstream_body = body.into();
        request.now = self.now;
        request.run(&self.chain).await
    }

    pub(super) async fn get(&self, uri: &str, fields: &[(&str, &str)], body: &'static str) -> TestOutcome {
        self.send(TestRequest::get(uri), fields, body).await
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// The outcome, and the body if it is a stored one.
pub(super) fn cached(outcome: &TestOutcome) -> (Option<&str>, Option<String>) {
    let status = outcome.response_header("x-cache-status").or_else(|| outcome.response_header("cache-status"));
    let body = outcome.reply.as_ref().map(|reply| match &reply.body {
        ReplyBody::Raw(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    });
    (status, body)
}

fn is(outcome: &TestOutcome, status: &str, body: Option<&str>) {
    assert_eq!(cached(outcome), (Some(status), body.map(str::to_owned)));
}

pub(super) fn rfc9111() -> Value {
    json!({"strategy": "memory", "mode": "rfc9111"})
}

pub(super) fn kong() -> Value {
    json!({"strategy": "memory"})
}

// docs/kong-compatibility.md, 4.24
#[tokio::test]
async fn responses_are_stored_for_their_time() {
    let mut cache = Cache::new(json!({"strategy": "memory", "cache_ttl": 60, "storage_ttl": 600}));
    is(&cache.get("/a", &[("x-ratelimit-remaining-minute", "4"), ("x-a", "1")], "one").await, "Miss", None);
    cache.wait(59);
    let hit = cache.get("/a", &[], "two").await;
    is(&hit, "Hit", Some("one"));
    assert_eq!((hit.response_header("age"), hit.response_header("x-a")), (Some("59"), Some("1")));
    assert_eq!(hit.response_header("x-ratelimit-remaining-minute"), None);
    assert_eq!(hit.response_header("x-cache-key").map(str::len), Some(64));
    is(&cache.get("/b", &[], "other").await, "Miss", None);
    cache.wait(2);
    is(&cache.get("/a", &[], "three").await, "Refresh", None);
    is(&cache.get("/a", &[], "four").await, "Hit", Some("three"));
    let head = cache.send(TestRequest::new(http::Request::head("/a").body("".into()).unwrap()), &[], "").await;
    assert_eq!(cached(&head).0, Some("Miss"), "HEAD has a key of its own");
}

// docs/kong-compatibility.md, 4.24
#[tokio::test]
async fn what_is_not_cacheable_is_bypassed() {
    let cache = Cache::new(kong());
    for (fields, body) in [
        (&[("status", "500")][..], "a"),
        (&[("content-type", "text/html")], "a"),
        (&[("set-cookie", "a=b")], "a"),
        (&[("vary", "*")], "a"),
        (&[("content-length", "3000000")], "a"),
    ] {
        is(&cache.get("/a", fields, body).await, "Bypass", None);
    }
    is(&cache.send(TestRequest::post("/a", "text/plain", "x"), &[], "a").await, "Bypass", None);
    let fat = http::Request::get("/a").body("x=1".into()).unwrap();
    is(&cache.send(TestRequest::new(fat), &[], "poison").await, "Bypass", None);
    let authorized = TestRequest::get("/a").header("authorization", "Bearer a");
    is(&cache.send(authorized, &[], "private").await, "Bypass", None);
    is(&cache.get("/a", &[("content-length", "4")], "abc").await, "Miss", None);
    is(&cache.get("/a", &[("content-length", "2")], "abc").await, "Miss", None);
    is(&cache.get("/a", &[], "abc").await, "Miss", None);
    is(&cache.get("/a", &[], "abc").await, "Hit", Some("abc"));
}

#[tokio::test]
async fn keys_contain_all_that_selects_a_response() {
    let cache = Cache::new(json!({"strategy": "memory", "vary_headers": ["x-tenant"]}));
    let requests = || {
        [
            TestRequest::get("/a"),
            TestRequest::get("/A"),
            TestRequest::get("/a/"),
            TestRequest::get("/a%2Fb"),
            TestRequest::get("/a/b"),
            TestRequest::get("/a?x=1"),
            TestRequest::get("/a?x=1&y=2"),
            TestRequest::get("/a?y=2&x=1"),
            TestRequest::get("/a?x=1&&y=2"),
            TestRequest::get("/a").header("host", "TEST.example"),
            TestRequest::get("/a?x=1&x=2"),
            TestRequest::get("/a?x=2&x=1"),
            TestRequest::get("/a?x=1%26y=2"),
            TestRequest::get("/a").header("host", "other.example"),
            TestRequest::get("/a").header("x-tenant", "1"),
            TestRequest::get("/a").header("x-tenant", "1").header("x-tenant", "2"),
            TestRequest::get("/a").header("x-tenant", "1,2"),
            TestRequest::get("/a").header("x-tenant", ""),
            TestRequest::get("/a").header("x-tenant", "1").header("x_tenant", "2"),
            TestRequest::get("/a").header("x_tenant", "1"),
        ]
    };
    let of_peer = |host| {
        let mut request = TestRequest::get("/a");
        (request.is_peer_trusted, request.reported_host) = (true, host);
        request
    };
    let requests = || {
        let hosts = [None, Some(("public.example", 80)), Some(("public.example", 8443))];
        // Backends get them as they are, whether Portico can use them or not.
        let reported = [
            ("x-forwarded-prefix", "/shop"),
            ("x-forwarded-path", "/shop"),
            ("x-forwarded-host", "not a host/"),
            ("x-forwarded-port", "abc"),
            ("x-forwarded-proto", "https, http"),
            ("forwarded", "for=192.0.2.1;host=other.example, for=192.0.2.2"),
        ];
        let reported = reported.map(|(name, value)| of_peer(None).header(name, value));
        requests().into_iter().chain(hosts.map(of_peer)).chain(reported)
    };
    for expected in ["Miss", "Hit"] {
        for (number, request) in requests().enumerate() {
            let outcome = cache.send(request, &[], "text").await;
            assert_eq!(cached(&outcome).0, Some(expected), "request {number}");
        }
    }
    let listed = Cache::new(json!({
        "strategy": "memory", "vary_query_params": ["id"], "ignore_uri_case": true, "vary_headers": [],
    }));
    is(&listed.get("/a?id=1&utm=2", &[], "one").await, "Miss", None);
    is(&listed.get("/A?utm=3&id=1", &[], "two").await, "Hit", Some("one"));
    is(&listed.get("/a?id=2", &[], "two").await, "Miss", None);
    // What a backend may read as the listed parameter must not change the response without it.
    is(&listed.get("/a?utm=2", &[], "none").await, "Miss", None);
    for hidden in ["%69d=3", "ID=3", "id[]=3", "i%64=3", "utm=1;id=3", "+id=3", "%20id=3", "i.d=3"] {
        is(&listed.get(&format!("/a?{hidden}"), &[], "another").await, "Miss", None);
    }
    is(&listed.get("/a", &[], "another").await, "Hit", Some("none"));
}

/// Authenticates the client that headers name: its consumer, also with a UID, its credential and the user of it.
/// Replaces or removes its token.
pub(super) struct Login;

impl Plugin for Login {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let text = |name| cx.head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let uid = text("x-uid");
        cx.identity.consumer = text("x-consumer").map(|name| match &uid {
            Some(uid) => Arc::new(Consumer::clone(&consumer(&name, &[])).of_object(uid)),
            None => consumer(&name, &[]),
        });
        let subject = |name: String| match name.split_once(' ') {
            Some(("unknown", _)) => None,
            Some((id, user)) => Some(VerifiedSubject::of_credential(&EntityId::from_text(id)).acting_for(user)),
            None => Some(VerifiedSubject::of_credential(&EntityId::from_text(&name))),
        };
        cx.identity.subjects = text("x-credential").map(subject).into_iter().collect::<Vec<_>>().into();
        if let Some(token) = text("x-token") {
            let digest = sha256(token.split(' ').next().unwrap_or_default().as_bytes());
            cx.insert_token(&AUTHORIZATION, HeaderValue::from_str(&token).unwrap(), digest);
        }
        if cx.head.headers.contains_key("x-hides") {
            cx.head.headers.remove(AUTHORIZATION);
        }
        AccessOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&AUTHORIZATION);
    }
}

/// Finds the version of the API in a header.
struct Version;

impl Plugin for Version {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        *cx.api_version = cx.head.headers.get("x-version").map(|version| version.to_str().unwrap().into());
        AccessOutcome::Continue
    }
}

/// Makes a POST request of each request, as if the path was now in its body.
struct Convert;

impl Plugin for Convert {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        (cx.head.method, cx.head.uri) = (http::Method::POST, "/convert".parse().unwrap());
        AccessOutcome::Continue
    }
}

/// A cache behind another plugin.
pub(super) fn behind(plugin: impl Plugin, config: Value) -> Cache {
    let cache = Cache::new(config.clone());
    let mut builder = ChainBuilder::default();
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let built = build_with(&KIND, &config, &cache.state, &services).unwrap();
    builder.add("other", 1000, AttachmentPoint::Base(BaseScope::Route), global_instance(Arc::new(plugin)));
    builder.add("proxy-cache", 100, AttachmentPoint::Base(BaseScope::Route), instance(&KIND, built));
    Cache { chain: builder.build(names()).unwrap(), ..cache }
}

/// A KongClusterPlugin serves the routes of several tenants. A purge of one of them removed nothing.
#[tokio::test]
async fn what_a_plugin_stores_belongs_to_the_namespace_of_the_route() {
    let cache = Cache::new(rfc9111());
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let plugin = build_with(&KIND, &rfc9111(), &cache.state, &services).unwrap();
    let fields = [("cache-control", "max-age=60")];
    let tenants = ["a", "b"].map(|namespace| {
        let mut builder = ChainBuilder::default();
        let shared = instance(&KIND, Arc::clone(&plugin));
        builder.add("proxy-cache", 100, AttachmentPoint::Base(BaseScope::Route), shared);
        let route = format!("{namespace}.test.web..80").into();
        let names = RouteNames { namespace: namespace.into(), route, ..RouteNames::default() };
        let state = PluginState::default();
        Cache { chain: builder.build(Arc::new(names)).unwrap(), state, now: cache.now }
    });
    for tenant in &tenants {
        tenant.get("/x", &fields, "one").await;
        assert_eq!(cached(&tenant.get("/x", &fields, "two").await).1.as_deref(), Some("one"));
    }
    let store = CacheStore::of(&cache.state, 1);
    assert_eq!(store.purge(&Purge::All, Some("default")), Some(0), "it has no routes");
    assert_eq!(store.purge(&Purge::All, Some("b")), Some(1));
    let [of_a, of_b] = &tenants;
    assert_eq!(cached(&of_b.get("/x", &fields, "three").await).1, None);
    assert_eq!(cached(&of_a.get("/x", &fields, "three").await).1.as_deref(), Some("one"));
}

/// Bodies that others had displaced were in memory for clients that read slowly, and counted for nothing.
#[tokio::test]
async fn a_removed_response_counts_until_its_clients_have_the_body() {
    const BODY: usize = 10_000;
    let body: &'static str = "x".repeat(BODY).leak();
    let fields = [("cache-control", "max-age=60")];
    for config in [kong(), rfc9111()] {
        let cache = Cache::new(config.clone());
        cache.get("/a", &fields, body).await;
        let outcome = cache.get("/a", &fields, "new").await;
        drop(outcome.state);
        let reply = outcome.reply.unwrap();
        let ReplyBody::Raw(sent) = reply.body else { panic!("{config}: {:?}", reply.body) };
        assert_eq!(sent.len(), BODY, "{config}");
        let store = CacheStore::of(&cache.state, 1);
        assert_eq!(store.purge(&Purge::All, None), Some(1), "{config}");
        assert!((BODY..2 * BODY).contains(&store.used()), "{config}: {} bytes", store.used());
        drop(sent);
        assert_eq!(store.used(), 0, "{config}");
    }
}

#[tokio::test]
async fn keys_contain_what_plugins_have_found_in_the_request() {
    let cache = behind(Version, rfc9111());
    let with = |version: &str| TestRequest::get("/a").header("x-version", version);
    let fields = [("cache-control", "max-age=60")];
    cache.send(with("v1"), &fields, "one").await;
    cache.send(with("v2"), &fields, "two").await;
    cache.get("/a", &fields, "none").await;
    for (request, body) in [(with("v1"), "one"), (with("v2"), "two"), (TestRequest::get("/a"), "none")] {
        assert_eq!(cached(&cache.send(request, &fields, "another").await).1.as_deref(), Some(body));
    }
    let cache = behind(Convert, json!({"strategy": "memory", "request_method": ["GET", "POST"]}));
    for expected in ["Miss", "Hit"] {
        for target in ["/users/1", "/users/2", "/users/2?all=1"] {
            assert_eq!(cached(&cache.get(target, &[], "text").await).0, Some(expected), "{target}");
        }
    }
}

#[tokio::test]
async fn authenticated_clients_have_responses_of_their_own() {
    let cache = behind(Login, kong());
    let requests: [&[(&'static str, &str)]; 6] = [
        &[],
        &[("x-consumer", "anna")],
        &[("x-consumer", "otto")],
        &[("x-credential", "anna")],
        &[("x-credential", "anna"), ("authorization", "Bearer 1")],
        &[("x-credential", "anna"), ("authorization", "Bearer 2")],
    ];
    for expected in ["Miss", "Hit"] {
        for fields in requests {
            let request =
                fields.iter().fold(TestRequest::get("/a"), |request, (name, value)| request.header(name, value));
            assert_eq!(cached(&cache.send(request, &[], "text").await).0, Some(expected), "{fields:?}");
        }
    }
    // The anonymous consumer has no credential: several clients with credentials for the backend may have it.
    let anonymous = TestRequest::get("/a").header("x-consumer", "anna").header("authorization", "Bearer 1");
    is(&cache.send(anonymous, &[], "text").await, "Bypass", None);
}

// docs/kong-compatibility.md, 4.24
#[tokio::test]
async fn cache_control_is_obeyed_if_configured() {
    let config = json!({"strategy": "memory", "cache_control": true, "storage_ttl": 1000});
    let mut cache = Cache::new(config);
    let with = |value: &str| TestRequest::get("/a").header("cache-control", value);
    let none = cache.send(with("only-if-cached"), &[], "a").await;
    assert_eq!(none.reply_status(), Some(StatusCode::GATEWAY_TIMEOUT));
    is(&cache.get("/a", &[], "no lifetime").await, "Bypass", None);
    for directive in ["private, max-age=9", "no-store, max-age=9", "no-cache, max-age=9", "max-age=0"] {
        is(&cache.get("/a", &[("cache-control", directive)], "x").await, "Bypass", None);
    }
    is(&cache.get("/a", &[("cache-control", "max-age=60")], "one").await, "Miss", None);
    for directive in ["no-store", "no-cache"] {
        is(&cache.send(with(directive), &[], "x").await, "Bypass", None);
    }
    cache.wait(30);
    is(&cache.send(with("max-age=30"), &[], "x").await, "Hit", Some("one"));
    is(&cache.send(with("min-fresh=30"), &[], "x").await, "Hit", Some("one"));
    cache.wait(60);
    is(&cache.send(with("max-stale=30"), &[], "x").await, "Hit", Some("one"));
    is(&cache.send(with("max-stale=29"), &[("cache-control", "max-age=60")], "two").await, "Refresh", None);
    is(&cache.send(with("max-age=0"), &[], "x").await, "Hit", Some("two"));
    cache.wait(1);
    is(&cache.send(with("max-age=0"), &[("cache-control", "max-age=60")], "three").await, "Refresh", None);
}

#[tokio::test]
async fn rfc9111_validates_and_answers_conditions() {
    let mut cache = Cache::new(json!({"strategy": "memory", "mode": "rfc9111"}));
    let fresh = [("cache-control", "max-age=60"), ("etag", "\"1\""), ("x-a", "1")];
    is(&cache.get("/a", &fresh, "0123456789").await, "portico; fwd=uri-miss; fwd-status=200; stored", None);
    cache.wait(10);
    is(&cache.get("/a", &[], "").await, "portico; hit; ttl=50", Some("0123456789"));
    let not_modified = cache.send(TestRequest::get("/a").header("if-none-match", "\"1\""), &[], "").await;
    assert_eq!(not_modified.reply_status(), Some(StatusCode::NOT_MODIFIED));
    assert_eq!((not_modified.response_header("content-type"), not_modified.response_header("age")), (None, Some("10")));
    let part = cache.send(TestRequest::get("/a").header("range", "bytes=2-4"), &[], "").await;
    assert_eq!((part.reply_status(), cached(&part).1.as_deref()), (Some(StatusCode::PARTIAL_CONTENT), Some("234")));
    assert_eq!(part.response_header("content-range"), Some("bytes 2-4/10"));
    let beyond = cache.send(TestRequest::get("/a").header("range", "bytes=10-"), &[], "").await;
    assert_eq!(beyond.reply_status(), Some(StatusCode::RANGE_NOT_SATISFIABLE));
    let head = TestRequest::new(http::Request::head("/a").body("".into()).unwrap());
    assert_eq!(cache.send(head, &[], "").await.reply_status(), Some(StatusCode::OK));
    cache.wait(60);
    let update = [("status", "304"), ("cache-control", "max-age=60"), ("x-a", "2")];
    let client = TestRequest::get("/a").header("if-none-match", "\"0\"");
    let validated = cache.send(client, &update, "").await;
    is(&validated, "portico; fwd=stale; fwd-status=304", Some("0123456789"));
    assert_eq!(validated.request.headers["if-none-match"], "\"1\"");
    assert_eq!(validated.response_header("x-a"), Some("2"));
    is(&cache.get("/a", &[], "").await, "portico; hit; ttl=60", Some("0123456789"));
}

#[tokio::test]
async fn rfc9111_serves_stale_responses_only_if_permitted() {
    let mut cache = Cache::new(json!({"strategy": "memory", "mode": "rfc9111"}));
    let fields = [("cache-control", "max-age=10, stale-if-error=30"), ("etag", "\"1\"")];
    cache.get("/a", &fields, "old").await;
    cache.wait(20);
    is(
        &cache.get("/a", &[("status", "503")], "error").await,
        "portico; hit; ttl=-10; detail=stale-if-error",
        Some("old"),
    );
    cache.wait(30);
    let failed = cache.get("/a", &[("status", "503")], "error").await;
    assert_eq!((failed.reply_status(), failed.response.status), (None, StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn rfc9111_invalidates_by_unsafe_methods() {
    let cache = Cache::new(json!({"strategy": "memory", "mode": "rfc9111"}));
    let fresh = [("cache-control", "max-age=60")];
    let post = || TestRequest::post("/a", "text/plain", "x");
    for (status, location, removed) in [
        ("500", "/b", [false, false]),
        ("201", "/c", [true, false]),
        ("201", "/b", [true, true]),
        ("201", "http://test.example/b", [true, true]),
        ("201", "http://evil.example/b", [true, false]),
    ] {
        for target in ["/a", "/b"] {
            cache.get(target, &fresh, "one").await;
        }
        cache.send(post(), &[("status", status), ("location", location)], "").await;
        for (target, removed) in ["/a", "/b"].into_iter().zip(removed) {
            let is_removed = cache.get(target, &[], "").await.reply.is_none();
            assert_eq!(is_removed, removed, "{status} {location} {target}");
        }
    }
}

#[tokio::test]
async fn responses_are_purged_by_tag_and_key() {
    let cache = Cache::new(json!({"strategy": "memory", "mode": "rfc9111"}));
    let store = CacheStore::of(&cache.state, 0);
    for (target, name, tags) in [("/a", "surrogate-key", "shop cart"), ("/b", "cache-tag", "shop, x")] {
        cache.get(target, &[("cache-control", "max-age=60"), (name, tags)], "text").await;
    }
    assert_eq!(store.purge(&Purge::Tag("cart".to_owned()), None), Some(1));
    assert!(cache.get("/a", &[], "").await.reply.is_none());
    assert!(cache.get("/b", &[], "").await.reply.is_some());
    assert_eq!(store.purge(&Purge::Tag("shop".to_owned()), Some("default")), Some(1));
    assert_eq!(store.purge(&Purge::All, None), Some(0));
    let outcomes: Vec<_> = store.outcomes().filter(|(_, count)| *count > 0).collect();
    assert_eq!(outcomes, [("hit", 1), ("miss", 2), ("bypass", 1)]);
}

#[test]
fn invalid_configurations_are_refused() {
    for (config, field) in [
        (json!({"strategy": "memory", "response_code": [200, 206]}), "response_code[1]"),
        (json!({"strategy": "memory", "response_code": [416]}), "response_code[0]"),
        (json!({"strategy": "memory", "response_code": [99]}), "response_code[0]"),
        (json!({"strategy": "memory", "request_method": ["get"]}), "request_method[0]"),
        (json!({"strategy": "memory", "response_code": []}), "response_code"),
        (json!({"strategy": "memory", "content_type": []}), "content_type"),
        (json!({"strategy": "memory", "content_type": ["json"]}), "content_type"),
        (json!({"strategy": "memory", "vary_headers": ["a b"]}), "vary_headers[0]"),
        (json!({"strategy": "memory", "cache_ttl": 0}), "cache_ttl"),
        (json!({"strategy": "memory", "storage_ttl": 0}), "storage_ttl"),
        (json!({"strategy": "memory", "max_body_size": 100_000_000}), "max_body_size"),
        (json!({"strategy": "memory", "collapse_timeout": 100_000}), "collapse_timeout"),
        (json!({"strategy": "memory", "mode": "rfc9111", "cache_control": true}), "cache_control"),
        (json!({"strategy": "disk"}), "strategy"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap();
        assert_eq!(invalid.len(), 1, "{config}: {invalid:?}");
        assert!(format!("{invalid:?}").contains(field), "{config}: {invalid:?}");
    }
    assert!(build(&KIND, &json!({})).is_err(), "the strategy is required");
}

// docs/kong-compatibility.md, 4.24
#[test]
fn what_no_response_has_is_reported_but_accepted() {
    let notes =
        notes(&KIND, &json!({"strategy": "memory", "content_type": ["text/plain", "application/xml;", "json"]}));
    let fields: Vec<_> = notes.iter().map(|note| note.field.as_str()).collect();
    assert_eq!(fields, ["config.content_type[1]", "config.content_type[2]"]);
    assert!(build(&KIND, &json!({"strategy": "memory", "response_code": [123, 200.0]})).is_ok());
}

/// The header shows what the configuration hides.
// docs/kong-compatibility.md, 4.24
#[tokio::test]
async fn clients_can_ask_for_hidden_fields() {
    let hidden = json!({"age": false, "X-Cache-Status": false, "X-Cache-Key": false});
    let cache = Cache::new(json!({"strategy": "memory", "response_headers": hidden}));
    cache.get("/a", &[], "one").await;
    let shown = |outcome: &TestOutcome| {
        ["age", "x-cache-status", "x-cache-key"].map(|name| outcome.response_header(name).is_some())
    };
    assert_eq!(shown(&cache.get("/a", &[], "").await), [false; 3]);
    let debugged = cache.send(TestRequest::get("/a").header("kong-debug", "1"), &[], "").await;
    assert_eq!(shown(&debugged), [true; 3]);
}

/// A clock that is set back makes a response no fresher than it was, and one that is set forward ends it.
#[tokio::test]
async fn clocks_may_jump() {
    for mode in ["kong", "rfc9111"] {
        let mut cache = Cache::new(json!({"strategy": "memory", "mode": mode}));
        let fields = [("cache-control", "max-age=60")];
        cache.get("/", &fields, "first").await;
        let stored = cache.now;
        cache.now = stored - Duration::from_secs(86_400);
        let outcome = cache.get("/", &fields, "second").await;
        assert_eq!(cached(&outcome).1.as_deref(), Some("first"), "{mode}");
        assert_eq!(outcome.response_header("age"), Some("0"), "{mode}");
        cache.now = stored + Duration::from_secs(10 * 365 * 86_400);
        assert_eq!(cached(&cache.get("/", &fields, "third").await).1, None, "{mode}");
        cache.now = SystemTime::UNIX_EPOCH;
        assert_eq!(cached(&cache.get("/", &fields, "fourth").await).1.as_deref(), Some("third"), "{mode}");
    }
}

/// Takes the place of the backend, and responds to conditions with 304.
struct Elsewhere;

impl Plugin for Elsewhere {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let is_conditional = cx.head.headers.contains_key("if-none-match");
        let status = if is_conditional { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        BackendReplacement::Reply(Reply::plain(status, "from elsewhere", "test"))
    }
}

#[tokio::test]
async fn stored_responses_are_not_validated_by_what_replaces_the_backend() {
    let mut cache = Cache::new(rfc9111());
    let fields = [("cache-control", "max-age=60, stale-while-revalidate=60"), ("etag", "\"1\"")];
    cache.get("/a", &fields, "stored").await;
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let plugin = build_with(&KIND, &rfc9111(), &cache.state, &services).unwrap();
    let mut builder = ChainBuilder::default();
    builder.add("proxy-cache", 100, AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
    let elsewhere = PluginInstance { phases: Phases::REPLACE_BACKEND, ..global_instance(Arc::new(Elsewhere)) };
    builder.add("elsewhere", 50, AttachmentPoint::Base(BaseScope::Route), elsewhere);
    cache.chain = builder.build(names()).unwrap();
    // Neither what was stored before the plugin was there, nor that after it is stale.
    for seconds in [0, 90, 100] {
        cache.wait(seconds);
        let stale = cache.get("/a", &[], "unused").await;
        assert_eq!((stale.reply_status(), stale.message()), (Some(StatusCode::OK), Some("from elsewhere")));
    }
    // The client's own condition reaches what takes the place of the backend.
    let conditional = TestRequest::get("/a").header("if-none-match", "\"1\"");
    assert_eq!(cache.send(conditional, &[], "unused").await.reply_status(), Some(StatusCode::NOT_MODIFIED));
}
