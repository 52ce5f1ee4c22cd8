//! Sessions in Redis: what one replica begins and ends, another one sees.

use std::time::Duration;

use portico::plugin_api::sealed_cookie::random_text;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, with};
use crate::harness::TEST_TIMEOUT;
use crate::polling::until;
use crate::redis_server::RedisProcess;

/// Sessions in the server.
fn stored(server: &RedisProcess, fields: &Value) -> Value {
    let redis = json!({"host": "127.0.0.1", "port": server.port, "timeout": 60_000});
    with(json!({"session_storage": "redis", "redis": redis}), fields)
}

#[tokio::test]
async fn logouts_end_stored_sessions_at_all_replicas() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({}));
    let (first, second) = (Site::start(&provider, config.clone()).await, Site::start(&provider, config).await);
    let mut browser = Browser::default();
    let location = first.begin_login(&mut browser, "/").await;
    assert_eq!(second.get(&mut browser, &provider.log_in(&location)).await.status, 302, "finished by the other one");
    assert_eq!(browser.names(), ["session"]);
    assert!(browser.cookies[0].1.len() < 200, "the cookie has no token: {browser:?}");
    let mut thief = browser.clone();
    for site in [&first, &second] {
        assert_eq!(site.get(&mut browser, "/").await.status, 200);
        assert_eq!(site.get(&mut thief, "/").await.status, 200);
    }
    let key = server.redis_cli(&["KEYS", "*"]);
    assert!(key.starts_with("portico:openid-connect:default:session:"), "{key}");
    let value = server.redis_cli(&["GET", key.trim()]);
    // Tokens have dots, and JSON has quotation marks.
    let is_sealed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(value.len() > 500 && value.trim().bytes().all(is_sealed), "tokens are sealed: {value}");

    let response = browser.send(second.server.address, "POST /logout HTTP/1.1", "", "").await;
    assert_eq!(response.status, 303);
    assert!(browser.cookies.is_empty());
    for site in [&first, &second] {
        assert_eq!(site.get(&mut thief.clone(), "/").await.status, 302, "the copied cookie has no session any more");
    }
    assert_eq!(server.redis_cli(&["KEYS", "*"]).trim(), "");
}

// OpenID Connect Back-Channel Logout 1.0, section 2.5
#[tokio::test]
async fn logout_tokens_end_stored_sessions_at_all_replicas() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({"backchannel_logout_uri_suffix": "/ended"}));
    let (first, second) = (Site::start(&provider, config.clone()).await, Site::start(&provider, config).await);
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let token = |fields: Value| provider.token(&with(json!({"aud": CLIENT, "events": event, "jti": "1"}), &fields));
    let send = async |token: &str| {
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let body = format!("logout_token={token}");
        Browser::default().send(first.server.address, "POST /ended HTTP/1.1", form_type, &body).await.status
    };
    for (name, ends) in [
        (json!({"sid": "session-of-bert", "sub": "bert"}), false),
        (json!({"sid": "session-of-anna"}), true),
        (json!({"sub": "anna", "sid": null}), true),
    ] {
        server.redis_cli(&["FLUSHALL"]);
        let mut browser = second.logged_in(&provider).await;
        assert_eq!(send(&token(name.clone())).await, 200, "{name}");
        let expected = if ends { 302 } else { 200 };
        assert_eq!(second.get(&mut browser, "/").await.status, expected, "{name}");
        let names = server.redis_cli(&["KEYS", "*revoked*"]);
        assert!(!names.is_empty() && !names.contains("anna") && !names.contains("bert"), "{names}");
    }
    // What Portico has not written counts as a revocation.
    server.redis_cli(&["FLUSHALL"]);
    let mut browser = second.logged_in(&provider).await;
    send(&token(json!({"sid": "session-of-anna"}))).await;
    let key = server.redis_cli(&["KEYS", "*revoked*"]);
    server.redis_cli(&["SET", key.trim(), "never"]);
    assert_eq!(second.get(&mut browser, "/").await.status, 302);
}

/// The provider ends all sessions of a user whose refresh token is used again.
#[tokio::test]
async fn one_of_all_replicas_refreshes_a_stored_session() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({}));
    let (first, second) = (Site::start(&provider, config.clone()).await, Site::start(&provider, config).await);
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let browser = first.logged_in(&provider).await;
    let at_once = async || {
        let mut tabs = [browser.clone(), browser.clone(), browser.clone(), browser.clone()];
        let [a, b, c, d] = &mut tabs;
        let responses = tokio::join!(first.get(a, "/"), second.get(b, "/"), first.get(c, "/"), second.get(d, "/"));
        [responses.0.status, responses.1.status, responses.2.status, responses.3.status]
    };
    // Long enough that all requests come while the token is used.
    let token_delay = Duration::from_millis(500);
    provider.set(Behavior { token_delay, ..Behavior::default() });
    assert_eq!((at_once().await, provider.refreshes()), ([200; 4], 1));
    assert_eq!((at_once().await, provider.refreshes()), ([200; 4], 1), "the new tokens have not expired");
    assert_eq!(server.redis_cli(&["KEYS", "*:lock:*"]).trim(), "", "the lock is released");
}

#[tokio::test]
async fn refused_refreshes_end_stored_sessions_at_all_replicas() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({}));
    let (first, second) = (Site::start(&provider, config.clone()).await, Site::start(&provider, config).await);
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = first.logged_in(&provider).await;
    provider.set(Behavior { refuses_refreshes: true, ..Behavior::default() });
    for site in [&first, &second] {
        assert_eq!(site.get(&mut browser.clone(), "/").await.status, 302);
    }
    assert_eq!((provider.refreshes(), server.redis_cli(&["KEYS", "*"]).trim()), (1, ""));
    // A logout during a refresh is not undone by it.
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    browser = first.logged_in(&provider).await;
    provider.set(Behavior { token_delay: Duration::from_millis(500), ..Behavior::default() });
    let (mut tab, mut other) = (browser.clone(), browser.clone());
    let log_out = async {
        until("the refresh has begun", async || provider.refreshes() == 2).await;
        other.send(second.server.address, "POST /logout HTTP/1.1", "", "").await.status
    };
    let (response, logout) = tokio::join!(first.get(&mut tab, "/"), log_out);
    assert_eq!((response.status, logout), (302, 303));
    assert_eq!(server.redis_cli(&["KEYS", "*"]).trim(), "");
}

#[tokio::test]
async fn a_replica_that_has_stopped_does_not_prevent_refreshes() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let site = Site::start(&provider, stored(&server, &json!({}))).await;
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior::default());
    let lock = server.redis_cli(&["KEYS", "*"]).trim().replace(":session:", ":lock:");
    server.redis_cli(&["SET", &lock, "of a replica that has stopped", "PX", "700"]);
    let start = Instant::now();
    assert_eq!((site.get(&mut browser, "/").await.status, provider.refreshes()), (200, 1));
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn stored_sessions_have_room_for_long_tokens() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    provider.set(Behavior { padding: 30_000, ..Behavior::default() });
    let site = Site::start(&provider, stored(&server, &json!({"upstream_access_token_header": null}))).await;
    let mut browser = site.logged_in(&provider).await;
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
}

#[tokio::test]
async fn without_the_store_of_sessions_nobody_gets_in() {
    let (mut server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({"anonymous": "anna", "backchannel_logout_uri_suffix": "/ended"}));
    let anonymous = Site::start(&provider, config).await;
    let site = Site::start(&provider, stored(&server, &json!({"backchannel_logout_uri_suffix": "/ended"}))).await;
    let mut browser = site.logged_in(&provider).await;
    let location = site.begin_login(&mut Browser::default(), "/").await;
    server.stop();
    let deadline = Instant::now() + TEST_TIMEOUT;
    while site.get(&mut browser, "/").await.status != 503 {
        assert!(Instant::now() < deadline, "the loss of the connection has no effect");
    }
    assert_eq!(anonymous.get(&mut browser, "/").await.status, 503, "a client with a session is not anonymous");
    let logout = browser.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
    assert_eq!((logout.status, browser.names()), (503, vec!["session"]), "the session may still exist");
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let token = provider.token(&json!({"aud": CLIENT, "events": event, "jti": "1", "sub": "anna"}));
    let form_type = "content-type: application/x-www-form-urlencoded\r\n";
    let body = format!("logout_token={token}");
    let ended = Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
    assert_eq!(ended.status, 503, "the provider has to repeat it");
    let mut other = Browser::default();
    assert_eq!(site.get(&mut other, &provider.log_in(&location)).await.status, 401, "another browser");
    let location = site.begin_login(&mut other, "/").await;
    assert_eq!(site.get(&mut other, &provider.log_in(&location)).await.status, 503, "no session can begin");
    let forged = format!("session={}", random_text(64));
    assert_eq!(site.send(&format!("cookie: {forged}\r\n")).await.status, 302, "what is no id is not looked for");
}
