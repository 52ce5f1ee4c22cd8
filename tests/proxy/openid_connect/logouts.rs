//! Logouts while requests are on their way, and keys that the provider replaces.

use std::sync::Arc;
use std::time::Duration;

use portico::plugin_api::PluginState;
use serde_json::json;
use tokio::sync::Notify;

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, SigningKey, base_claims, next_second, now, with};
use super::stored::stored;
use crate::harness::Endpoint;
use crate::polling::until;
use crate::redis_server::RedisProcess;

async fn log_out(site: &Site, browser: &mut Browser) -> u16 {
    browser.send(site.server.address, "POST /logout HTTP/1.1", "", "").await.status
}

/// Another tab of the browser has begun a request before the logout, with a session that is due to be renewed.
#[tokio::test]
async fn a_response_on_its_way_during_a_logout_does_not_renew_the_session() {
    let gate = Arc::new(Notify::new());
    let entrance = Arc::clone(&gate);
    let slow = Endpoint::scripted(move |mut stream, _| {
        let gate = Arc::clone(&entrance);
        async move {
            while stream.request().await.is_some() {
                gate.notified().await;
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
            }
        }
    })
    .await;
    let provider = Provider::start().await;
    let check = ("forward-auth", json!({"address": format!("http://{}/", slow.address)}));
    let site = Site::with_plugins(&provider, json!({"session_idling_timeout": 12}), &[check]).await;
    let mut browser = site.logged_in(&provider).await;
    let began = now();
    while now() < began + 4 {
        tokio::time::sleep(Duration::from_millis(200)).await; // A quarter of the idling timeout, in whole seconds.
    }
    gate.notify_one();
    let renewed = site.get(&mut browser.clone(), "/").await;
    assert!(renewed.status == 200 && renewed.header("set-cookie").is_some(), "{}", renewed.head);
    let (mut tab, mut copy) = (browser.clone(), browser.clone());
    let log_out = async {
        until("the request waits", async || slow.log.requests().len() == 2).await;
        let status = log_out(&site, &mut browser).await;
        gate.notify_one();
        status
    };
    let (response, logout) = tokio::join!(site.get(&mut tab, "/"), log_out);
    assert_eq!((response.status, logout, browser.cookies.len()), (200, 303, 0));
    assert_eq!(response.header("set-cookie"), None);
    gate.notify_one();
    assert_eq!(site.get(&mut copy, "/").await.status, 302, "a copy of the cookie");
}

#[tokio::test]
async fn a_refresh_during_a_logout_does_not_continue_the_session() {
    let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({"logout_revoke": true})).await;
    let browser = site.logged_in(&provider).await;
    let gate = Arc::new(Notify::new());
    provider.set(Behavior { token_gate: Some(Arc::clone(&gate)), ..Behavior::default() });
    let (mut tab, mut other) = (browser.clone(), browser);
    let log_out = async {
        until("the refresh has begun", async || provider.refreshes() == 1).await;
        let status = log_out(&site, &mut other).await;
        gate.notify_one();
        status
    };
    let (response, logout) = tokio::join!(site.get(&mut tab, "/"), log_out);
    assert_eq!((response.status, logout), (302, 303));
    let revoked = provider.revoked();
    assert_eq!(revoked.iter().filter(|token| token.starts_with("refresh-")).count(), 2, "{revoked:?}");
}

/// An attacker sends tokens with invented keys all the time, and the provider replaces its key.
#[tokio::test]
async fn sessions_continue_with_new_keys_while_clients_invent_keys() {
    let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = site.logged_in(&provider).await;
    for number in 0..8 {
        let token = SigningKey::generate(&format!("invented-{number}")).sign("ES256", &base_claims(&provider.issuer));
        assert_eq!(site.send(&format!("authorization: Bearer {token}\r\n")).await.status, 401);
    }
    let fetches = provider.requests("/keys").len();
    assert!(fetches <= 5, "{fetches} fetches");
    provider.rotate_key();
    assert_eq!(site.get(&mut browser, "/").await.status, 200, "the refreshed tokens have the new key");
    assert_eq!(provider.requests("/keys").len(), fetches + 1);
}

/// The keys cannot be fetched when the provider has replaced its key.
#[tokio::test]
async fn sessions_do_not_end_because_new_keys_cannot_be_fetched() {
    let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = site.logged_in(&provider).await;
    provider.rotate_key();
    let bodies = vec![("/keys", "no keys".to_owned())];
    provider.set(Behavior { expires_in: Some(0), bodies, ..Behavior::default() });
    assert_eq!(site.get(&mut browser, "/").await.status, 503);
    assert_eq!(browser.names(), ["session"]);
}

/// Tenants of one provider may number their users and sessions alike.
// OpenID Connect Back-Channel Logout 1.0, section 2.7
#[tokio::test]
async fn logout_tokens_end_only_sessions_of_their_issuer() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let tenant = "https://tenant.example";
    let fields =
        json!({"backchannel_logout_uri_suffix": "/ended", "issuers_allowed": [provider.issuer.clone(), tenant]});
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    for config in [fields.clone(), stored(&server, &fields)] {
        let site = Site::start(&provider, config.clone()).await;
        for (name, names) in [("the session", json!({"sid": "session-of-anna"})), ("the user", json!({"sub": "anna"}))]
        {
            let mut browser = site.logged_in(&provider).await;
            for (issuer, expected) in [(tenant, 200), (&*provider.issuer, 302)] {
                let claims = with(json!({"aud": CLIENT, "events": event, "jti": format!("{name} {issuer}")}), &names);
                let token = provider.key.sign("ES256", &with(base_claims(issuer), &claims));
                let form_type = "content-type: application/x-www-form-urlencoded\r\n";
                let body = format!("logout_token={token}");
                let ended =
                    Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
                assert_eq!(ended.status, 200, "{name} of {issuer}: {config}");
                assert_eq!(site.get(&mut browser, "/").await.status, expected, "{name} of {issuer}: {config}");
            }
            next_second().await;
        }
    }
}

/// A provider sends logout tokens to one address of a client, whose plugins have their sessions in several places.
// OpenID Connect Back-Channel Logout 1.0, section 2.7
#[tokio::test]
async fn logout_tokens_end_sessions_wherever_plugins_of_the_client_have_them() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let receiving = json!({"backchannel_logout_uri_suffix": "/ended"});
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let form_type = "content-type: application/x-www-form-urlencoded\r\n";
    for (name, of_receiver, of_other) in [
        ("received in Redis", stored(&server, &receiving), json!({})),
        ("received in cookies", receiving.clone(), stored(&server, &json!({}))),
        ("with another spelling", receiving.clone(), json!({"issuer": format!("{}/", provider.issuer)})),
    ] {
        server.redis_cli(&["FLUSHALL"]);
        let state = PluginState::default();
        let receiver = Site::with_state(&provider, of_receiver, &[], &state).await;
        let other = Site::with_state(&provider, of_other, &[], &state).await;
        let mut browser = other.logged_in(&provider).await;
        assert_eq!(other.get(&mut browser, "/").await.status, 200, "{name}");
        let claims = json!({"aud": CLIENT, "events": event, "jti": "1", "sid": "session-of-anna"});
        let body = format!("logout_token={}", provider.token(&claims));
        let ended = Browser::default().send(receiver.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
        assert_eq!(ended.status, 200, "{name}");
        assert_eq!(other.get(&mut browser, "/").await.status, 302, "{name}");
    }
}
