//! Sessions in Redis: what one replica begins and ends, another one sees.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use portico::plugin_api::PluginState;
use portico::sealed_cookie::random_text;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, next_second, with};
use crate::harness::{TEST_TIMEOUT, header};
use crate::polling::until;
use crate::redis_server::RedisProcess;

/// Sessions in the server.
pub(super) fn stored(server: &RedisProcess, fields: &Value) -> Value {
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

/// An attacker plants cookies of an own session in the browser of a victim before its login, and hopes that their id
/// becomes that of the victim's session.
#[tokio::test]
async fn logins_get_another_id_than_the_session_before() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let fields = json!({
        "session_remember": true, "upstream_headers_claims": ["sid"], "upstream_headers_names": ["x-sid"],
    });
    let site = Site::start(&provider, stored(&server, &fields)).await;
    let of_mallory = || Behavior { id_token_claims: json!({"sid": "session-of-mallory"}), ..Behavior::default() };
    let key = || server.redis_cli(&["KEYS", "*"]).trim().to_owned();
    for (name, planted, has_ended) in [
        ("both cookies", &["session", "remember"][..], false),
        ("the session", &["session"], false),
        ("the remembered session", &["remember"], false),
        ("cookies of a session that has ended", &["session", "remember"], true),
    ] {
        server.redis_cli(&["FLUSHALL"]);
        provider.set(of_mallory());
        let mut attacker = site.logged_in(&provider).await;
        assert_eq!(attacker.names(), ["session", "remember"]);
        let former = key();
        assert_eq!(former.lines().count(), 1, "{former}");
        let cookies = attacker.cookies.clone();
        if has_ended {
            attacker.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
            assert_eq!(key(), "", "{name}");
        }
        attacker.cookies.clone_from(&cookies);
        provider.set(Behavior::default());
        let mut victim = Browser::default();
        let location = site.begin_login(&mut victim, "/").await;
        victim.cookies.extend(cookies.into_iter().filter(|(name, _)| planted.contains(&&**name)));
        let response = site.get(&mut victim, &provider.log_in(&location)).await;
        assert_eq!(response.status, 302, "{name}: {}", response.text());
        let own = key();
        assert_eq!(own.lines().count(), 1, "{name}: the session before has ended: {own}");
        assert_ne!(own, former, "{name}");
        assert_eq!(site.get(&mut victim, "/").await.status, 200, "{name}");
        assert_eq!(header(&site.last_request(), "x-sid"), Some("session-of-anna"), "{name}");
        assert_eq!(site.get(&mut attacker, "/").await.status, 302, "{name}: the former id names no session");
    }
}

// OpenID Connect Back-Channel Logout 1.0, section 2.5
#[tokio::test]
async fn logout_tokens_end_stored_sessions_at_all_replicas() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({"backchannel_logout_uri_suffix": "/ended"}));
    let state = PluginState::default();
    let first = Site::start(&provider, config.clone()).await;
    let second = Site::with_state(&provider, config, &[], &state).await;
    // Another plugin of the second replica, which has no address for logout tokens.
    let other = Site::with_state(&provider, stored(&server, &json!({})), &[], &state).await;
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
        let mut same = Browser { cookies: browser.cookies.clone() };
        assert_eq!(second.get(&mut browser, "/").await.status, expected, "{name}");
        assert_eq!(other.get(&mut same, "/").await.status, expected, "{name}");
        let names = server.redis_cli(&["KEYS", "*revoked*"]);
        assert!(!names.is_empty() && !names.contains("anna") && !names.contains("bert"), "{names}");
    }
    // The token has ended the sessions of the user once, so it does not end this one.
    let mut later = Browser::default();
    next_second().await;
    let location = second.begin_login(&mut later, "/").await;
    second.get(&mut later, &provider.log_in(&location)).await;
    for site in [&first, &second] {
        let body = format!("logout_token={}", token(json!({"sub": "anna", "sid": null})));
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let ended = Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
        assert_eq!((ended.status, site.get(&mut later, "/").await.status), (200, 200));
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

/// The lock of the first replica expires while it refreshes, so that the second one uses the same token, which the
/// provider then refuses.
#[tokio::test]
async fn tokens_of_a_replica_whose_lock_has_expired_are_kept() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let config = stored(&server, &json!({}));
    let (first, second) = (Site::start(&provider, config.clone()).await, Site::start(&provider, config).await);
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let browser = first.logged_in(&provider).await;
    let lock = server.redis_cli(&["KEYS", "*"]).trim().replace(":session:", ":lock:");
    let gates = [(); 2].map(|()| Arc::new(Notify::new()));
    let wait_at = |gate: &Arc<Notify>| Behavior { token_gate: Some(Arc::clone(gate)), ..Behavior::default() };
    provider.set(wait_at(&gates[0]));
    let (mut tab, mut other) = (browser.clone(), browser);
    let second_refresh = async {
        until("the first refresh has begun", async || provider.refreshes() == 1).await;
        server.redis_cli(&["DEL", &lock]);
        provider.set(wait_at(&gates[1]));
        second.get(&mut other, "/").await.status
    };
    let first_refresh = async {
        let finish = async {
            until("the second refresh has begun", async || provider.refreshes() == 2).await;
            gates[0].notify_one();
        };
        let (response, ()) = tokio::join!(first.get(&mut tab, "/"), finish);
        let is_locked = server.redis_cli(&["EXISTS", &lock]).trim() == "1";
        gates[1].notify_one();
        (response.status, is_locked)
    };
    let (of_first, of_second) = tokio::join!(first_refresh, second_refresh);
    assert_eq!(of_first, (200, true), "the first replica does not remove the lock of the second one");
    assert_eq!((of_second, provider.refreshes()), (200, 2));
    assert_eq!(server.redis_cli(&["EXISTS", &lock]).trim(), "0");
    for site in [&first, &second] {
        assert_eq!(site.get(&mut tab, "/").await.status, 200, "the session has the tokens of the first replica");
    }
}

// RFC 7009
#[tokio::test]
async fn logouts_during_refreshes_also_revoke_the_new_tokens() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    for (revokes, revoked) in [(true, 2), (false, 0)] {
        let site = Site::start(&provider, stored(&server, &json!({"logout_revoke": revokes}))).await;
        provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
        let browser = site.logged_in(&provider).await;
        let gate = Arc::new(Notify::new());
        provider.set(Behavior { token_gate: Some(Arc::clone(&gate)), ..Behavior::default() });
        let (mut tab, mut other) = (browser.clone(), browser);
        let before = (provider.refreshes(), provider.revoked().len());
        let log_out = async {
            until("the refresh has begun", async || provider.refreshes() > before.0).await;
            let response = other.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
            gate.notify_one();
            response.status
        };
        let (response, logout) = tokio::join!(site.get(&mut tab, "/"), log_out);
        assert_eq!((response.status, logout), (302, 303));
        let refresh_tokens = provider.revoked().split_off(before.1);
        let refresh_tokens: HashSet<&String> =
            refresh_tokens.iter().filter(|token| token.starts_with("refresh-")).collect();
        assert_eq!(refresh_tokens.len(), revoked, "{refresh_tokens:?}");
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_read_is_not_locked() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let site = Site::start(&provider, stored(&server, &json!({}))).await;
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = site.logged_in(&provider).await;
    let session = server.redis_cli(&["KEYS", "*"]).trim().to_owned();
    let lock = session.replace(":session:", ":lock:");
    server.redis_cli(&["SET", &lock, "of another replica"]);
    server.redis_cli(&["CONFIG", "RESETSTAT"]);
    let break_session = async {
        let attempts = || server.redis_cli(&["INFO", "commandstats"]);
        until("the request waits for the lock", async || attempts().contains("cmdstat_set:calls=")).await;
        // In one step: the request gets the lock, and then a session that is no text.
        let script = "redis.call('DEL', KEYS[1], KEYS[2]) redis.call('LPUSH', KEYS[1], 'x')";
        server.redis_cli(&["EVAL", script, "2", &session, &lock]);
    };
    let (response, ()) = tokio::join!(site.get(&mut browser, "/"), break_session);
    assert_eq!((response.status, provider.refreshes()), (503, 0));
    assert_eq!(server.redis_cli(&["EXISTS", &lock]).trim(), "0");
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
    assert_eq!(
        site.send(&format!("accept: text/html\r\ncookie: {forged}\r\n")).await.status,
        302,
        "what is no id is not looked for"
    );
}
