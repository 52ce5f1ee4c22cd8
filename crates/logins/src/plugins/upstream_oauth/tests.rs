//! Tests of the requests to the token endpoint, and of what happens to its tokens.

use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{AnyPluginKind, PluginServices, PluginState, RegisteredKind, RemoteResponse};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestRequest, build, chain_with, noon};
use crate::plugins::REGISTRY;

const KIND: RegisteredKind<UpstreamOAuth> = RegisteredKind::NEW;

fn config(fields: &Value) -> Value {
    let mut config = json!({
        "oauth": {"token_endpoint": "https://issuer.example/token", "client_id": "a b", "client_secret": "s&c"},
    });
    for (section, values) in fields.as_object().unwrap() {
        let Some(existing) = config.get_mut(section).and_then(Value::as_object_mut) else {
            config[section] = values.clone();
            continue;
        };
        existing.extend(values.as_object().unwrap().clone());
    }
    config
}

/// A server that returns `token-1`, `token-2` and so on, each valid for a minute.
fn server() -> Arc<ScriptedServer> {
    let count = std::sync::atomic::AtomicU32::new(0);
    ScriptedServer::new(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let body = json!({"access_token": format!("token-{number}"), "token_type": "bearer", "expires_in": 60});
        Ok(response(200, "", &body.to_string()))
    })
}

fn chain(fields: &Value, state: &PluginState, services: &Arc<dyn PluginServices>) -> Arc<Chain> {
    chain_with(&[(&KIND, config(fields))], state, services)
}

#[tokio::test]
async fn requests_get_one_token_until_it_expires() {
    let (server, state) = (server(), PluginState::default());
    let plugin = chain(&json!({}), &state, &server.services());
    let at = async |chain: &Chain, seconds| {
        let mut request = TestRequest::get("/").header("authorization", "Bearer of-the-client");
        request.now = noon() + Duration::from_secs(seconds);
        let outcome = request.run(chain).await;
        assert_eq!(outcome.request.headers.get_all("authorization").iter().count(), 1);
        assert!(outcome.request.headers["authorization"].is_sensitive());
        outcome.upstream_header("authorization").unwrap().to_owned()
    };
    for outcome in join_all((0..5).map(|_| TestRequest::get("/").run(&plugin))).await {
        assert_eq!(outcome.upstream_header("authorization"), Some("Bearer token-1"));
    }
    assert_eq!(at(&plugin, 54).await, "Bearer token-1");
    assert_eq!(at(&plugin, 55).await, "Bearer token-2", "five seconds before it expires");
    assert_eq!(server.request_count(), 2);
    let rebuilt = chain(&json!({}), &state, &server.services());
    assert_eq!(at(&rebuilt, 60).await, "Bearer token-2", "a changed chain keeps the token");
    let other = chain(&json!({"oauth": {"scopes": ["b"]}}), &state, &server.services());
    assert_eq!(at(&other, 60).await, "Bearer token-3");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_endpoint_rejects_is_replaced() {
    let (server, state) = (server(), PluginState::default());
    let plugin = chain(&json!({}), &state, &server.services());
    let run = async |status: u16| {
        let mut request = TestRequest::get("/");
        request.upstream_response = Response::builder().status(status).body(()).unwrap();
        request.run(&plugin).await.upstream_header("authorization").unwrap().to_owned()
    };
    assert_eq!(run(500).await, "Bearer token-1");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(run(401).await, "Bearer token-1");
    assert_eq!(run(200).await, "Bearer token-2");
    // A client can let the endpoint reject each of its requests.
    tokio::time::advance(Duration::from_millis(9999)).await;
    assert_eq!(run(401).await, "Bearer token-2");
    assert_eq!(run(401).await, "Bearer token-2");
    assert_eq!(server.request_count(), 2);
}

#[tokio::test]
async fn the_token_endpoint_gets_the_configured_grant() {
    let cases = [
        (json!({}), "grant_type=client_credentials&client_id=a%20b&client_secret=s%26c&scope=openid", None),
        (
            json!({"client": {"auth_method": "client_secret_basic"}, "oauth": {"scopes": ["a", "b"], "audience": ["x"]}}),
            "grant_type=client_credentials&scope=a%20b&audience=x",
            // `a%20b:s%26c`
            Some("Basic YSUyMGI6cyUyNmM="),
        ),
        (
            json!({"client": {"auth_method": "none"}, "oauth": {
                "grant_type": "password", "username": "u", "password": "p", "token_post_args": {"x": "y"},
                "token_headers": {"X-Tenant": "blue"}, "scopes": [],
            }}),
            "grant_type=password&client_id=a%20b&username=u&password=p&x=y",
            None,
        ),
    ];
    for (fields, body, authorization) in cases {
        let server = server();
        let plugin = chain(&fields, &PluginState::default(), &server.services());
        assert_eq!(TestRequest::get("/").run(&plugin).await.reply_status(), None, "{fields}");
        let sent = server.last_request();
        assert_eq!(std::str::from_utf8(&sent.body).unwrap(), body, "{fields}");
        let sent_authorization = sent.headers.get("authorization").map(|value| value.to_str().unwrap());
        assert_eq!(sent_authorization, authorization, "{fields}");
        assert_eq!(sent.headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/token"));
    }
}

/// The token that the endpoint gets may permit less than the one for which a response was stored.
#[tokio::test]
async fn stored_responses_are_for_what_selects_the_token() {
    let (server, state) = (server(), PluginState::default());
    let cache = REGISTRY.find("proxy-cache").unwrap();
    let cache_config = json!({"strategy": "memory", "content_type": ["application/json"]});
    let chain = |fields: &Value| {
        let plugins: [(&dyn AnyPluginKind, Value); 2] = [(&KIND, config(fields)), (cache, cache_config.clone())];
        chain_with(&plugins, &state, &server.services())
    };
    let is_stored = async |chain: &Chain| {
        let mut request = TestRequest::get("/a");
        request.upstream_response = Response::builder().header("content-type", "application/json").body(()).unwrap();
        request.upstream_body = "{}".into();
        request.run(chain).await.reply_status().is_some()
    };
    // Keeps what is stored.
    let mut chains = Vec::new();
    for oauth in [
        json!({}),
        json!({"scopes": ["admin"]}),
        json!({"audience": ["shop"]}),
        json!({"client_id": "other"}),
        json!({"token_endpoint": "https://other.example/token"}),
        json!({"token_post_args": {"tenant": "blue"}}),
        json!({"token_headers": {"x-tenant": "blue"}}),
    ] {
        let (first, rebuilt) = (chain(&json!({"oauth": oauth})), chain(&json!({"oauth": oauth})));
        assert!(!is_stored(&first).await, "{oauth}");
        assert!(is_stored(&rebuilt).await, "{oauth}");
        chains.push(first);
    }
    let replaced_secret = chain(&json!({"oauth": {"client_secret": "new"}}));
    assert!(is_stored(&replaced_secret).await, "the client is the same");
}

#[tokio::test]
async fn requests_without_a_token_are_rejected() {
    let failures: [Result<RemoteResponse, String>; 6] = [
        Err("refused".to_owned()),
        Ok(response(400, "", r#"{"error": "invalid_client"}"#)),
        Ok(response(200, "", "no json")),
        Ok(response(200, "", "{}")),
        Ok(response(200, "", r#"{"access_token": "a", "token_type": "mac"}"#)),
        Ok(response(200, "", "{\"access_token\": \"a\\nb\"}")),
    ];
    for failure in failures {
        let server = ScriptedServer::new({
            let failure = failure.clone();
            move |_| failure.clone()
        });
        let plugin = chain(&json!({}), &PluginState::default(), &server.services());
        let outcome = TestRequest::get("/").header("authorization", "of-the-client").run(&plugin).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), 502, "{failure:?}");
        assert_eq!(outcome.message(), Some("Failed to authenticate request to upstream"));
        assert_eq!(outcome.reply.unwrap().reason, "no_token");
        assert!(server.reports.lock()[0].is_some(), "{failure:?}");
        let fields = json!({"behavior": {
            "idp_error_response_status_code": 503, "idp_error_response_body_template": "later",
            "idp_error_response_content_type": "text/plain",
        }});
        let plugin = chain(&fields, &PluginState::default(), &server.services());
        let outcome = TestRequest::get("/").run(&plugin).await;
        assert_eq!((outcome.reply_status().unwrap().as_u16(), outcome.message()), (503, Some("later")));
        assert_eq!(outcome.response_header("content-type"), Some("text/plain"));
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    for (fields, field) in [
        (json!({"oauth": {"token_endpoint": ""}}), "config.oauth.token_endpoint"),
        (json!({"oauth": {"client_id": null}}), "config.oauth.client_id"),
        (json!({"oauth": {"client_secret": ""}}), "config.oauth.client_secret"),
        (json!({"oauth": {"grant_type": "password", "password": "p"}}), "config.oauth.username"),
        (json!({"oauth": {"grant_type": "password", "username": "u"}}), "config.oauth.password"),
        (json!({"oauth": {"token_headers": {"host": "a"}}}), "config.oauth.token_headers[host]"),
        (json!({"client": {"timeout": 0}}), "config.client.timeout"),
        (json!({"client": {"auth_method": "client_secret_jwt"}}), "config.client.auth_method"),
        (json!({"cache": {"strategy": "redis"}}), "config.cache.strategy"),
        (
            json!({"behavior": {"upstream_access_token_header_name": "a b"}}),
            "config.behavior.upstream_access_token_header_name",
        ),
        (
            json!({"behavior": {"idp_error_response_status_code": 499}}),
            "config.behavior.idp_error_response_status_code",
        ),
        (
            json!({"behavior": {"purge_token_on_upstream_status_codes": [401, 99]}}),
            "config.behavior.purge_token_on_upstream_status_codes[1]",
        ),
        (
            json!({"behavior": {"idp_error_response_body_template": "{{status}}"}}),
            "config.behavior.idp_error_response_body_template",
        ),
    ] {
        let invalid = build(&KIND, &config(&fields)).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(invalid.iter().all(|invalid| !invalid.to_string().contains("s&c")), "{invalid:?}");
    }
}
