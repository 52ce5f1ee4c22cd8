//! Tokens of `oauth2` in Redis: shared by replicas, with one use of codes and refresh tokens among all of them.

use std::sync::Arc;

use futures_util::future::join_all;
use http::Request;
use portico::plugin_api::consumers::{EntityId, OAuthClient, StoredPassword, sha256};
use portico::plugin_api::{ConsumerDirectory, PluginServices, PluginState, ReplyBody, Scheme};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestRequest, chain_with, consumer};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use super::TIMEOUT_MS;
use super::server::RedisProcess;
use super::services::TestServices;

fn replica(server: &RedisProcess, services: &Arc<TestServices>) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    let config = json!({
        "enable_client_credentials": true, "enable_password_grant": true, "provision_key": "provision",
        "redis": {"host": "redis.shop", "port": server.port, "timeout": TIMEOUT_MS},
    });
    chain_with(&[(REGISTRY.find("oauth2").unwrap(), config)], &PluginState::default(), &services)
}

fn consumers() -> ConsumerDirectory {
    let mut consumers = ConsumerDirectory::default();
    let anna = consumer("anna", &[]);
    consumers.add(&anna);
    let secret = Some(StoredPassword::Digest(sha256(b"secret")));
    let redirect_uris = [Box::from("https://app.example/callback")].into();
    let id = EntityId::from_text("id-app");
    let client = OAuthClient { id, client_id: "app".into(), secret, redirect_uris, consumer: anna };
    consumers.oauth_clients.insert(Arc::new(client));
    consumers
}

async fn token(chain: &Chain, fields: &str) -> (u16, Value) {
    let form = "application/x-www-form-urlencoded";
    let body = format!("client_id=app&client_secret=secret&{fields}");
    let request = Request::post("/oauth2/token").header("content-type", form).body(body.into()).unwrap();
    let request = TestRequest { scheme: Scheme::Https, ..TestRequest::new(request) };
    let reply = request.with_consumers(&consumers()).run(chain).await.reply.unwrap();
    let body = match &reply.body {
        ReplyBody::Raw(body) => serde_json::from_slice(body).unwrap(),
        other => json!(format!("{other:?}")),
    };
    (reply.status.as_u16(), body)
}

async fn status(chain: &Chain, token: &Value) -> u16 {
    let request = TestRequest::get("/").header("authorization", &format!("Bearer {}", token.as_str().unwrap()));
    request.with_consumers(&consumers()).run(chain).await.reply_status().map_or(200, |status| status.as_u16())
}

const PASSWORD: &str = "grant_type=password&provision_key=provision&authenticated_userid=user-1";

#[tokio::test]
async fn replicas_share_tokens_and_their_end() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let (first, second) = (replica(&server, &services), replica(&server, &services));
    let (_, tokens) = token(&first, PASSWORD).await;
    assert_eq!(status(&second, &tokens["access_token"]).await, 200);
    let keys = server.redis_cli(&["KEYS", "*"]);
    assert!(keys.starts_with("portico:oauth2:default:grant:"), "{keys}");
    let entry = server.redis_cli(&["GET", keys.trim()]);
    for secret in [&tokens["access_token"], &tokens["refresh_token"]] {
        assert!(!entry.contains(&secret.as_str().unwrap()[24..]), "only digests are stored: {entry}");
    }
    let refresh = format!("grant_type=refresh_token&refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let (refreshed, next) = token(&second, &refresh).await;
    assert_eq!((refreshed, status(&first, &next["access_token"]).await), (200, 200));
    assert_eq!(status(&first, &tokens["access_token"]).await, 401);
    assert_eq!(token(&first, &refresh).await.0, 400, "the refresh token was replaced");
    assert_eq!(status(&second, &next["access_token"]).await, 401, "its second use ends all tokens");
}

#[tokio::test]
async fn concurrent_uses_of_a_refresh_token_end_the_grant() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let replicas = [replica(&server, &services), replica(&server, &services)];
    let (_, tokens) = token(&replicas[0], PASSWORD).await;
    let refresh = format!("grant_type=refresh_token&refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let answers = join_all((0..8).map(|number| token(&replicas[number % 2], &refresh))).await;
    let successes: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert!(successes.len() <= 1, "{answers:?}");
    for tokens in successes {
        assert_eq!(status(&replicas[1], &tokens["access_token"]).await, 401);
    }
}

#[tokio::test]
async fn nothing_is_accepted_or_issued_without_redis() {
    let mut server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let chain = replica(&server, &services);
    let (_, tokens) = token(&chain, "grant_type=client_credentials").await;
    assert_eq!(status(&chain, &tokens["access_token"]).await, 200);
    server.stop();
    assert_eq!(status(&chain, &tokens["access_token"]).await, 503);
    assert_eq!(token(&chain, "grant_type=client_credentials").await.0, 503);
}
