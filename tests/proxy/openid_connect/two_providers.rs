//! Plugins of different providers and clients with the same `session_secret`: the cookies of one mean nothing to
//! another one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portico::plugin_api::PluginState;
use serde_json::{Value, json};

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, Provider, with};
use crate::redis_server::RedisProcess;

/// Where sessions are: in cookies, and in a server that both plugins use.
fn storages(server: &RedisProcess) -> [Value; 2] {
    let redis = json!({"host": "127.0.0.1", "port": server.port, "timeout": 60_000});
    [json!({}), json!({"session_storage": "redis", "redis": redis, "session_remember": true})]
}

#[tokio::test]
async fn sessions_at_one_provider_are_none_at_another_one() {
    let (server, own, other) = (RedisProcess::start(&[]).await, Provider::start().await, Provider::start().await);
    for storage in storages(&server) {
        let site = Site::start(&own, storage.clone()).await;
        let browser = site.logged_in(&own).await;
        let audience = with(storage.clone(), &json!({"session_audience": "other"}));
        let client = with(storage.clone(), &json!({"client_id": ["other"]}));
        for (name, provider, config, status) in [
            ("another replica", &own, storage.clone(), 200),
            ("another provider", &other, storage.clone(), 302),
            ("another client", &own, client, 302),
            ("another audience", &own, audience, 302),
        ] {
            let others = Site::start(provider, config).await;
            let response = others.get(&mut browser.clone(), "/").await;
            assert_eq!(response.status, status, "{name} {storage}: {}", response.text());
            assert_eq!(others.endpoint.log.requests().len(), usize::from(status == 200), "{name} {storage}");
        }
    }
}

/// A provider that is less trusted learns no code of another one, and finishes no login that began there.
#[tokio::test]
async fn logins_at_one_provider_are_not_finished_at_another_one() {
    let (server, own, other) = (RedisProcess::start(&[]).await, Provider::start().await, Provider::start().await);
    for storage in storages(&server) {
        let (site, others) = (Site::start(&own, storage.clone()).await, Site::start(&other, storage.clone()).await);
        let before = own.requests("/token").len();
        let mut browser = Browser::default();
        let callback = own.log_in(&site.begin_login(&mut browser, "/").await);
        let response = others.get(&mut browser.clone(), &callback).await;
        assert_eq!((response.status, response.header("location")), (401, None), "{storage}");
        assert!(other.requests("/token").is_empty(), "the other provider did not get the code");
        let client = Site::start(&own, with(storage.clone(), &json!({"client_id": ["other"]}))).await;
        assert_eq!(client.get(&mut browser.clone(), &callback).await.status, 401, "another client, {storage}");
        assert_eq!(own.requests("/token").len(), before, "{storage}");
        assert_eq!(site.get(&mut browser, &callback).await.status, 302, "the login is finished where it began");
        assert!(browser.names().contains(&"session"), "{storage}: {:?}", browser.names());
    }
}

/// The plugins of a process have one cache of verified credentials.
#[tokio::test]
async fn credentials_that_one_provider_accepts_are_verified_by_another_one() {
    let (own, other) = (Provider::start().await, Provider::start().await);
    let knows_nothing = vec![
        ("/introspect", json!({"active": false}).to_string()),
        ("/token", json!({"error": "invalid_grant"}).to_string()),
    ];
    other.set(Behavior { bodies: knows_nothing, ..Behavior::default() });
    let state = PluginState::default();
    let site = Site::with_state(&own, json!({}), &[], &state).await;
    let others = Site::with_state(&other, json!({}), &[], &state).await;
    let password = format!("authorization: Basic {}\r\n", STANDARD.encode("anna:a:pass wörd"));
    let signed = format!("authorization: Bearer {}\r\n", own.token(&json!({"sub": "anna"})));
    let decisions = || own.requests("/introspect").len() + own.requests("/token").len();
    for (name, credential, status) in [
        ("an opaque token", "authorization: Bearer opaque\r\n", 401),
        ("a signed token", &signed, 401),
        ("a password", &password, 503),
    ] {
        assert_eq!(site.send(credential).await.status, 200, "{name}");
        let count = decisions();
        assert_eq!(site.send(credential).await.status, 200, "{name}");
        assert_eq!(decisions(), count, "{name}: the result is cached");
        assert_eq!(others.send(credential).await.status, status, "{name}");
    }
    assert_eq!(others.endpoint.log.requests().len(), 0);
    // A parameter may select the audience of the token.
    for resource in ["https://a.example", "https://b.example"] {
        let parameters = json!({"token_post_args_names": ["resource"], "token_post_args_values": [resource]});
        let selecting = Site::with_state(&own, parameters, &[], &state).await;
        let count = decisions();
        assert_eq!(selecting.send(&password).await.status, 200, "{resource}");
        assert_eq!(decisions(), count + 1, "{resource}: the token of other parameters is another one");
    }
}
