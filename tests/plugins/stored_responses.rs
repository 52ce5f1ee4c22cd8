//! A plugin that denies a request is never overtaken by a cached response, in whichever order they are listed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use portico::plugin_api::services::OfflineServices;
use portico::plugin_api::testing::{TestOutcome, TestRequest, chain_with};
use portico::plugin_api::{AnyPluginKind, Chain, PluginServices, PluginState, ReplyBody};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::plugins::contract::minimal_config;

/// A cache, its configuration, and a request whose response it stores.
type Cache = (&'static str, Value, fn() -> TestRequest);

fn caches() -> [Cache; 3] {
    let graphql = || {
        let query = r#"{"query": "{ a }"}"#;
        TestRequest::post("/a", "application/json", query).header("content-length", "18")
    };
    [
        ("proxy-cache", json!({"strategy": "memory"}), || TestRequest::get("/a")),
        ("proxy-cache-advanced", json!({"strategy": "memory", "mode": "rfc9111"}), || TestRequest::get("/a")),
        ("graphql-proxy-cache-advanced", json!({}), graphql),
    ]
}

async fn send(chain: &Chain, mut request: TestRequest) -> TestOutcome {
    let response = Response::builder().header("content-type", "application/json").header("cache-control", "max-age=60");
    request.upstream_response = response.body(()).unwrap();
    request.upstream_body = STORED.into();
    tokio::time::timeout(Duration::from_secs(600), request.run(chain)).await.expect("the chain ends")
}

fn is_stored_response(outcome: &TestOutcome) -> bool {
    let is_stored = |reply: &ReplyBody| matches!(reply, ReplyBody::Raw(body) if **body == *STORED.as_bytes());
    outcome.reply.as_ref().is_some_and(|reply| is_stored(&reply.body))
}

#[tokio::test(start_paused = true)]
async fn guards_come_before_stored_responses() {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let mut denying = BTreeSet::new();
    for (name, config, request) in caches() {
        let state = PluginState::default();
        let cache: (&dyn AnyPluginKind, Value) = (REGISTRY.find(name).unwrap(), config);
        let open = chain_with(std::slice::from_ref(&cache), &state, &services);
        send(&open, request()).await;
        assert!(is_stored_response(&send(&open, request()).await), "{name} has stored the response");
        for guard in REGISTRY.iter().filter(|guard| guard.phases().access && guard.fails_closed()) {
            let guard: (&dyn AnyPluginKind, Value) = (guard, minimal_config(guard));
            let alone = chain_with(std::slice::from_ref(&guard), &state, &services);
            let denial = send(&alone, request()).await.reply_status();
            let Some(denial) = denial.filter(|status| !status.is_success()) else { continue };
            denying.insert(guard.0.name());
            for plugins in [[guard.clone(), cache.clone()], [cache.clone(), guard.clone()]] {
                let guarded = chain_with(&plugins, &state, &services);
                let outcome = send(&guarded, request()).await;
                let guard = guard.0.name();
                assert_eq!(outcome.reply_status(), Some(denial), "{guard} and {name}");
                assert!(!is_stored_response(&outcome), "{guard} and {name}");
                assert_eq!(outcome.response_header("x-cache-status"), None, "{guard} and {name}");
                assert_eq!(outcome.response_header("cache-status"), None, "{guard} and {name}");
            }
        }
    }
    for guard in ["acl", "basic-auth", "forward-auth", "hmac-auth", "jwt", "key-auth", "ldap-auth", "oauth2", "opa"] {
        assert!(denying.contains(guard), "{guard} denies no request of this test, but {denying:?} do");
    }
}

const STORED: &str = r#"{"data": {"a": 1}}"#;
