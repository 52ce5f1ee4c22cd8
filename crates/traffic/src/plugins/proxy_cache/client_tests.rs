//! Tests of what separates clients, and of what a change of one target ends.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ProxyCache;
use super::tests::{Cache, Login, behind, cached, kong, rfc9111};
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{PluginServices, RegisteredKind, RouteNames};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build_with, global_instance, instance, names};

const FRESH: [(&str, &str); 1] = [("cache-control", "max-age=60")];
const PUBLIC: [(&str, &str); 1] = [("cache-control", "public, max-age=60")];

fn get(fields: &[(&'static str, &str)]) -> TestRequest {
    fields.iter().fold(TestRequest::get("/a"), |request, (name, value)| request.header(name, value))
}

fn is_hit(outcome: &TestOutcome) -> bool {
    cached(outcome).0.is_some_and(|status| status == "Hit" || status.starts_with("portico; hit"))
}

#[tokio::test]
async fn users_of_one_application_get_no_response_of_each_other() {
    for mode in [kong(), rfc9111()] {
        let cache = behind(Login, mode.clone());
        let clients: [&[_]; 6] = [
            &[("x-consumer", "shop"), ("x-credential", "shop alice")],
            &[("x-consumer", "shop"), ("x-credential", "shop bob")],
            &[("x-consumer", "shop"), ("x-credential", "shop")],
            &[("x-consumer", "shop")],
            // Objects that were created one after the other.
            &[("x-consumer", "shop"), ("x-uid", "first")],
            &[("x-consumer", "shop"), ("x-uid", "second")],
        ];
        for expected in [false, true] {
            for client in clients {
                let outcome = cache.send(get(client), &FRESH, "text").await;
                assert_eq!(is_hit(&outcome), expected, "{mode} {client:?}");
            }
        }
    }
}

#[tokio::test]
async fn clients_that_a_plugin_accepts_without_knowing_them_are_not_cached() {
    for mode in [kong(), rfc9111()] {
        let cache = behind(Login, mode.clone());
        cache.get("/a", &PUBLIC, "public").await;
        for _ in 0..2 {
            let outcome = cache.send(get(&[("x-credential", "unknown user")]), &PUBLIC, "text").await;
            assert!(outcome.reply.is_none(), "{mode}: {:?}", cached(&outcome));
        }
        assert!(is_hit(&cache.get("/a", &PUBLIC, "").await), "{mode}: of no plugin");
    }
}

// RFC 9111, section 3.5
#[tokio::test]
async fn an_authorization_that_a_plugin_has_removed_still_forbids_to_share() {
    let hidden = |token| get(&[("authorization", token), ("x-hides", "1")]);
    for mode in [kong(), rfc9111()] {
        let cache = behind(Login, mode.clone());
        for token in ["Bearer alice", "Bearer bob"] {
            let outcome = cache.send(hidden(token), &FRESH, token).await;
            assert!(!is_hit(&outcome), "{mode} {token}");
        }
        assert!(!is_hit(&cache.get("/a", &FRESH, "").await), "{mode}");
    }
    let cache = behind(Login, rfc9111());
    for (token, expected) in [("Bearer alice", false), ("Bearer bob", true)] {
        assert_eq!(is_hit(&cache.send(hidden(token), &PUBLIC, "text").await), expected, "{token}");
    }
}

#[tokio::test]
async fn a_renewed_token_of_a_plugin_is_no_miss_and_that_of_another_user_is() {
    for mode in [kong(), rfc9111()] {
        let cache = behind(Login, mode.clone());
        for (token, expected) in
            [("alice 1", false), ("alice 2", true), ("bob 1", false), ("alice 3", true), ("bob 2", true)]
        {
            let outcome = cache.send(get(&[("x-token", token)]), &FRESH, token).await;
            assert_eq!(is_hit(&outcome), expected, "{mode} {token}");
        }
        // What was stored for requests with the field of a client is not sent to others.
        let sent = get(&[("x-token", "carol 1"), ("authorization", "Bearer x")]);
        assert!(!is_hit(&cache.send(sent, &FRESH, "").await), "{mode}");
        assert!(!is_hit(&cache.send(get(&[("x-token", "carol 2")]), &FRESH, "").await), "{mode}");
    }
}

/// The same cache on another route.
fn on_route(cache: &Cache, route: &str, config: &Value) -> Cache {
    on_rule(cache, RouteNames { route: route.into(), ..RouteNames::clone(&names()) }, config, None)
}

/// The same cache on another rule, behind a guard.
fn on_rule(cache: &Cache, names: RouteNames, config: &Value, guard: Option<Login>) -> Cache {
    const KIND: RegisteredKind<ProxyCache> = RegisteredKind::NEW;
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let plugin = build_with(&KIND, config, &cache.state, &services).unwrap();
    let mut builder = ChainBuilder::default();
    builder.add("proxy-cache", 100, AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
    if let Some(guard) = guard {
        builder.add("other", 1000, AttachmentPoint::Base(BaseScope::Route), global_instance(Arc::new(guard)));
    }
    Cache { state: cache.state.clone(), chain: builder.build(Arc::new(names)).unwrap(), ..Cache::new(json!(config)) }
}

/// Rules are named by their number, and an edit gives the name of a guarded one to another.
#[tokio::test]
async fn a_rule_gets_no_response_of_another_one_that_had_its_name() {
    for mode in [kong(), rfc9111()] {
        let cache = Cache::new(mode.clone());
        let of = |content, guard| on_rule(&cache, RouteNames { content, ..RouteNames::clone(&names()) }, &mode, guard);
        let guarded = of(1, Some(Login));
        guarded.get("/a", &FRESH, "private").await;
        assert!(is_hit(&guarded.get("/a", &FRESH, "").await), "{mode}");
        for (others, what) in [(of(1, None), "without the guard"), (of(2, Some(Login)), "with another backend")] {
            assert!(!is_hit(&others.get("/a", &FRESH, "public").await), "{mode}: {what}");
        }
        assert!(is_hit(&of(1, Some(Login)).get("/a", &FRESH, "").await), "{mode}: the same again");
    }
}

// RFC 9111, section 4.4
#[tokio::test]
async fn a_post_through_another_rule_ends_what_is_stored_for_its_target() {
    let cache = Cache::new(rfc9111());
    let writes = on_route(&cache, "default.test.writes..80", &rfc9111());
    let stored = async |target| is_hit(&cache.get(target, &[], "").await);
    for target in ["/a", "/b", "/c"] {
        cache.get(target, &FRESH, "old").await;
    }
    let post = TestRequest::post("/a", "text/plain", "x").header("host", "TEST.example:80");
    writes.send(post, &[("status", "201"), ("location", "http://test.example:80/b")], "").await;
    assert_eq!([stored("/a").await, stored("/b").await, stored("/c").await], [false, false, true]);
    // Routes do not share responses.
    cache.get("/a", &FRESH, "of the first route").await;
    assert!(!is_hit(&writes.get("/a", &FRESH, "of the second route").await));
    assert_eq!(cached(&cache.get("/a", &[], "").await).1.as_deref(), Some("of the first route"));
}

#[tokio::test]
async fn a_client_without_gzip_gets_no_stored_gzip() {
    for mode in [kong(), rfc9111()] {
        let cache = Cache::new(mode.clone());
        let coded = [FRESH[0], ("content-encoding", "gzip")];
        let accepting = |codings| get(&[("accept-encoding", codings)]);
        cache.send(accepting("gzip"), &coded, "coded").await;
        assert!(is_hit(&cache.send(accepting("gzip"), &coded, "").await), "{mode}");
        for request in [accepting("identity"), accepting("br"), get(&[])] {
            let outcome = cache.send(request, &[("status", "500")], "").await;
            assert!(!is_hit(&outcome), "{mode}: {:?}", outcome.request.headers);
        }
    }
}
