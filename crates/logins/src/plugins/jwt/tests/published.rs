//! Tests of tokens of issuers that publish their keys: fetching, caching, replacing and missing keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::*;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AnyPluginKind, PluginServices, RemoteResponse};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{instance, names};

const ISSUER: &str = "https://issuer.example";

pub(super) fn chain_of(plugin: &Arc<Jwt>) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let plugin: Arc<dyn Plugin> = Arc::clone(plugin) as _;
    builder.add("jwt", KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
    builder.build(names()).unwrap()
}

/// Services with a fake issuer.
#[derive(Default)]
struct FakeIssuer {
    /// The published keys. `None` while the issuer is unavailable.
    keys: Mutex<Option<Vec<Value>>>,
    fetches: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Reported diagnostics by object.
    diagnostics: Mutex<BTreeMap<String, Diagnostic>>,
}

impl PluginServices for FakeIssuer {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().push(tokio::spawn(task));
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        match diagnostic {
            Some(diagnostic) => self.diagnostics.lock().insert(object.to_owned(), diagnostic),
            None => self.diagnostics.lock().remove(object),
        };
    }

    fn fetch(
        &self,
        uri: &str,
        _namespace: Option<&str>,
        _timeout: Duration,
        _max_bytes: usize,
    ) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        assert_eq!(uri, "https://issuer.example/keys");
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let body = self.keys.lock().as_ref().map(|keys| json!({"keys": keys}).to_string());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await; // Duration of a request; time is paused.
            let body = Bytes::from(body.ok_or("connection refused")?);
            Ok(RemoteResponse { status: StatusCode::OK, headers: HeaderMap::new(), body })
        })
    }
}

struct IssuerTest {
    fake_issuer: Arc<FakeIssuer>,
    jwt: Arc<Jwt>,
    chain: Arc<Chain>,
    consumers: ConsumerDirectory,
    state: PluginState,
}

impl IssuerTest {
    /// `extra` are further fields of the entry in `jwks`.
    fn new(keys: Option<Vec<Value>>, extra: &Value) -> Self {
        let fake_issuer = Arc::new(FakeIssuer { keys: Mutex::new(keys), ..FakeIssuer::default() });
        let services: Arc<dyn PluginServices> = Arc::clone(&fake_issuer) as _;
        let mut issuer = json!({"issuer": ISSUER, "uri": "https://issuer.example/keys"});
        issuer.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let state = PluginState::default();
        let jwt = build_jwt(&json!({"jwks": [issuer]}), &state, &services);
        IssuerTest { fake_issuer, chain: chain_of(&jwt), jwt, consumers: consumers(), state }
    }

    fn publish(&self, keys: Option<Vec<Value>>) {
        *self.fake_issuer.keys.lock() = keys;
    }

    fn fetches(&self) -> usize {
        self.fake_issuer.fetches.load(Ordering::Relaxed)
    }

    async fn send(&self, token: &str) -> TestOutcome {
        request_with_token(token).with_consumers(&self.consumers).run(&self.chain).await
    }

    async fn is_accepted(&self, token: &str) -> bool {
        self.send(token).await.reply.is_none()
    }
}

fn claims(extra: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "sub": "anna"});
    claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    claims
}

fn token(signer: &Signer, kid: Option<&str>, extra: &Value) -> String {
    let header = kid.map_or(json!({}), |kid| json!({"kid": kid}));
    signer.token(Algorithm::Es256, &header, &claims(extra))
}

fn signer() -> Signer {
    Signer::for_algorithm(Algorithm::Es256)
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_the_keys() {
    let signer = signer();
    let test = IssuerTest::new(Some(vec![signer.jwk(Some("a"))]), &json!({}));
    for text in [token(&signer, Some("a"), &json!({})), token(&signer, None, &json!({}))] {
        for _ in 0..2 {
            let outcome = test.send(&text).await;
            assert_eq!(outcome.message(), None);
            assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("anna"), false));
            let credential = outcome.state.identity.credential().unwrap().clone();
            assert_eq!(&*credential, "https://issuer.example#anna");
        }
    }
    assert_eq!(test.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_need_a_key_algorithm_and_audience_of_the_issuer() {
    let (signer, other_signer) = (signer(), signer());
    let rsa = Signer::for_algorithm(Algorithm::Rs256);
    let extra = json!({"audiences": ["shop", "bar"], "algorithms": ["ES256"]});
    let test = IssuerTest::new(Some(vec![signer.jwk(Some("a")), rsa.jwk(Some("r"))]), &extra);
    let shop = json!({"aud": "shop"});
    let hmac = signer.token(Algorithm::Hs256, &json!({"kid": "a"}), &claims(&shop));
    let hmac_credential = signed(&claims(&shop));
    let another_algorithm = rsa.token(Algorithm::Rs256, &json!({"kid": "r"}), &claims(&shop));
    let wrong_aud = r#"{"aud":"token for another audience"}"#;
    let cases = [
        (token(&signer, Some("a"), &shop), None),
        (token(&signer, Some("a"), &json!({"aud": ["x", "bar"]})), None),
        (token(&signer, Some("a"), &json!({})), Some(wrong_aud)),
        (token(&signer, Some("a"), &json!({"aud": ["x", 7]})), Some(wrong_aud)),
        (token(&other_signer, Some("a"), &shop), Some("Invalid signature")),
        (token(&other_signer, None, &shop), Some("Invalid signature")),
        (token(&signer, Some("r"), &shop), Some("Invalid signature")),
        (token(&signer, Some("b"), &shop), Some("Invalid key/secret")),
        (hmac, Some("Invalid algorithm")),
        (hmac_credential, Some("Invalid algorithm")),
        (another_algorithm, Some("Invalid algorithm")),
        (token(&signer, Some("a"), &json!({"aud": "shop", "exp": 1})), Some(r#"{"exp":"token expired"}"#)),
        (token(&signer, Some("a"), &json!({"aud": "shop", "nbf": "x"})), Some(r#"{"nbf":"must be a number"}"#)),
        (token(&signer, Some("a"), &json!({"aud": "shop", "iss": "key-1"})), Some("Invalid algorithm")),
        (signed(&json!({"iss": "key-1"})), None),
    ];
    for (text, message) in cases {
        let outcome = test.send(&text).await;
        match message {
            None => assert_eq!(outcome.message(), None),
            Some(message) => assert_rejected(&text, &outcome, message),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_trigger_rate_limited_fetches() {
    let (old, new) = (signer(), signer());
    let test = IssuerTest::new(Some(vec![old.jwk(Some("a"))]), &json!({}));
    let (old_token, new_token) = (token(&old, Some("a"), &json!({})), token(&new, Some("b"), &json!({})));
    assert!(test.is_accepted(&old_token).await);
    test.publish(Some(vec![new.jwk(Some("b")), old.jwk(Some("a"))]));
    for _ in 0..10 {
        assert!(test.is_accepted(&new_token).await, "a key that was rotated soon after a fetch");
    }
    assert!(test.is_accepted(&old_token).await);
    assert_eq!(test.fetches(), 2);
    for number in 0..10 {
        let text = token(&old, Some(&format!("invented-{number}")), &json!({}));
        assert_rejected(&text, &test.send(&text).await, "Invalid key/secret");
    }
    assert_eq!(test.fetches(), 5, "unknown key ids cause four fetches");
    test.publish(Some(vec![old.jwk(Some("c"))]));
    let newest_token = token(&old, Some("c"), &json!({}));
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(!test.is_accepted(&newest_token).await);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(test.is_accepted(&newest_token).await, "and another one after half a minute");
    assert!(!test.is_accepted(&token(&old, Some("invented"), &json!({}))).await);
    assert_eq!(test.fetches(), 6);
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..10 {
        assert!(!test.is_accepted(&token(&old, Some("invented"), &json!({}))).await);
    }
    assert_eq!(test.fetches(), 8, "two for the minute");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_the_issuer_find_new_keys_when_clients_have_used_up_their_fetches() {
    let (old, new) = (signer(), signer());
    let test = IssuerTest::new(Some(vec![old.jwk(Some("a"))]), &json!({}));
    for number in 0..10 {
        assert!(!test.is_accepted(&token(&old, Some(&format!("invented-{number}")), &json!({}))).await);
    }
    test.publish(Some(vec![new.jwk(Some("b"))]));
    let new_token = token(&new, Some("b"), &json!({}));
    assert!(!test.is_accepted(&new_token).await);
    let keys = &test.jwt.issuers[0].keys;
    assert!(!keys.can_refresh(TokenOrigin::Client) && !keys.refresh(TokenOrigin::Client).await);
    let start = tokio::time::Instant::now();
    assert!(keys.refresh(TokenOrigin::Issuer).await);
    assert!(start.elapsed() >= Duration::from_millis(900), "at most one fetch in a second: {:?}", start.elapsed());
    assert_eq!(test.fetches(), 6);
    assert!(test.is_accepted(&new_token).await);
    test.publish(None);
    assert!(!keys.refresh(TokenOrigin::Issuer).await, "the keys are those from before");
}

#[tokio::test(start_paused = true)]
async fn removed_keys_invalidate_cached_tokens() {
    let (old, new) = (signer(), signer());
    let test = IssuerTest::new(Some(vec![old.jwk(Some("a")), new.jwk(Some("b"))]), &json!({}));
    let (old_token, new_token) = (token(&old, Some("a"), &json!({})), token(&new, Some("b"), &json!({})));
    assert!(test.is_accepted(&old_token).await && test.is_accepted(&new_token).await);
    let is_valid_in_cache = |token: &str| {
        let entry = test.jwt.cache.find(&test.jwt.digest(token.as_bytes()));
        entry.is_some_and(|entry| {
            matches!(&entry.as_ref().unwrap().proof, Proof::Published { key, .. }
            if test.jwt.issuers[0].keys.publishes(key))
        })
    };
    assert!(is_valid_in_cache(&old_token) && is_valid_in_cache(&new_token));
    test.publish(Some(vec![new.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(301)).await; // Time is paused.
    assert_eq!(test.fetches(), 2, "fetched again after five minutes");
    assert!(!is_valid_in_cache(&old_token), "tokens of the removed key are invalid");
    assert!(is_valid_in_cache(&new_token), "tokens of the other key remain cached");
    assert!(!test.is_accepted(&old_token).await);
    assert!(test.is_accepted(&new_token).await);
    // Another key with the same id.
    test.publish(Some(vec![old.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(301)).await; // Time is paused.
    assert_rejected("replaced", &test.send(&new_token).await, "Invalid signature");
    test.publish(Some(vec![]));
    tokio::time::sleep(Duration::from_secs(301)).await; // Time is paused.
    assert!(!test.is_accepted(&token(&old, Some("b"), &json!({}))).await, "all keys can be removed");
}

#[tokio::test(start_paused = true)]
async fn known_keys_remain_in_use_while_the_issuer_is_down() {
    let signer = signer();
    let test = IssuerTest::new(Some(vec![signer.jwk(Some("a"))]), &json!({}));
    assert!(test.is_accepted(&token(&signer, Some("a"), &json!({}))).await);
    test.publish(None);
    tokio::time::sleep(Duration::from_secs(3600)).await; // Time is paused.
    let fetches = test.fetches();
    assert!((55..70).contains(&fetches), "{fetches} fetches in an hour");
    assert!(test.is_accepted(&token(&signer, Some("a"), &json!({"never": "seen"}))).await);
    let before = tokio::time::Instant::now();
    for _ in 0..10 {
        assert!(!test.is_accepted(&token(&signer, Some("b"), &json!({}))).await);
    }
    assert_eq!(before.elapsed(), Duration::ZERO, "requests do not wait for an issuer that is down");
    assert_eq!(test.fetches(), fetches, "requests do not trigger fetches");
    test.publish(Some(vec![signer.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(61)).await; // Time is paused.
    assert!(test.is_accepted(&token(&signer, Some("b"), &json!({}))).await);
}

#[tokio::test(start_paused = true)]
async fn tokens_get_503_without_any_keys() {
    let signer = signer();
    let test = IssuerTest::new(None, &json!({}));
    for _ in 0..2 {
        let outcome = test.send(&token(&signer, Some("a"), &json!({}))).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(outcome.message(), Some("The keys of the token's issuer are not available"));
    }
    assert_eq!(test.fetches(), 1);
    assert!(test.is_accepted(&signed(&json!({"iss": "key-1"}))).await, "tokens of consumers are still accepted");
    test.publish(Some(vec![signer.jwk(None)]));
    tokio::time::sleep(Duration::from_secs(2)).await; // Time is paused.
    assert!(test.is_accepted(&token(&signer, None, &json!({}))).await, "the fetch is retried");
}

#[tokio::test(start_paused = true)]
async fn missing_keys_do_not_make_a_client_anonymous() {
    let (signer, other) = (signer(), signer());
    let rotated = token(&other, Some("b"), &json!({}));
    let mut test = IssuerTest::new(None, &json!({}));
    let services: Arc<dyn PluginServices> = Arc::clone(&test.fake_issuer) as _;
    let jwks = json!([{"issuer": ISSUER, "uri": "https://issuer.example/keys"}]);
    test.jwt = build_jwt(&json!({"jwks": jwks, "anonymous": "guest"}), &test.state, &services);
    test.chain = chain_of(&test.jwt);
    let token = |signer: &Signer| token(signer, Some("a"), &json!({}));
    for _ in 0..2 {
        let outcome = test.send(&token(&signer)).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    }
    let outcome = test.send("invalid").await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "other clients are anonymous as before");
    test.publish(Some(vec![signer.jwk(Some("a"))]));
    tokio::time::sleep(Duration::from_secs(2)).await; // Time is paused.
    assert_eq!(test.send(&token(&signer)).await.upstream_identity(), (Some("anna"), Some("anna"), false));
    assert_eq!(test.send(&token(&other)).await.upstream_identity(), (Some("guest"), None, true));
    // The issuer signs with a new key, which cannot be fetched.
    test.publish(None);
    for request in ["the first one, which causes a fetch", "the next one"] {
        assert_eq!(test.send(&rotated).await.reply_status(), Some(StatusCode::SERVICE_UNAVAILABLE), "{request}");
    }
    assert_eq!(test.send(&token(&signer)).await.upstream_identity(), (Some("anna"), Some("anna"), false));
    assert_eq!(test.send(&token(&other)).await.upstream_identity(), (Some("guest"), None, true));
}

#[tokio::test(start_paused = true)]
async fn failed_fetches_are_reported_in_conditions() {
    let test = IssuerTest::new(None, &json!({}));
    let reported = || {
        test.fake_issuer.diagnostics.lock().get("KongPlugin/default/test").map(|diagnostic| diagnostic.field.clone())
    };
    let field = Some("config.jwks[0].uri".to_owned());
    assert_eq!(reported(), None);
    tokio::time::sleep(Duration::from_millis(150)).await; // Time is paused.
    assert_eq!(reported(), field);
    test.publish(Some(vec![]));
    tokio::time::sleep(Duration::from_secs(2)).await; // Time is paused.
    assert_eq!(reported(), None);
    test.publish(None);
    tokio::time::sleep(Duration::from_secs(301)).await; // Time is paused.
    assert_eq!(reported(), field);
    let services: Arc<dyn PluginServices> = Arc::clone(&test.fake_issuer) as _;
    let jwks = json!({"jwks": [{"issuer": ISSUER, "uri": "https://issuer.example/keys"}]});
    let rebuilt = build_jwt(&jwks, &test.state, &services);
    let IssuerTest { fake_issuer, jwt, chain, .. } = test;
    drop((jwt, chain));
    assert_eq!(fake_issuer.diagnostics.lock().len(), 1, "the rebuilt plugin is still subscribed");
    drop(rebuilt);
    assert_eq!(fake_issuer.diagnostics.lock().len(), 0, "no plugin uses the keys any more");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_mapped_to_consumers() {
    let signer = signer();
    let without_consumer = json!({"allow_without_consumer": true});
    // The consumer's username, `None` for an accepted token without a consumer, or the message.
    type Expected = Result<Option<&'static str>, &'static str>;
    let cases: [(Value, Value, Expected); 10] = [
        (json!({}), json!({}), Ok(Some("anna"))),
        (json!({}), json!({"sub": "custom-anna"}), Ok(Some("anna"))),
        (json!({}), json!({"sub": "id-anna"}), Err("Could not find consumer for 'sub=id-anna'")),
        (json!({}), json!({"sub": null}), Err("Could not find consumer for 'sub='")),
        (json!({"consumer_claim": "email"}), json!({"email": "anna"}), Ok(Some("anna"))),
        (json!({"consumer_claim": "email"}), json!({"email": ["anna"]}), Err("Could not find consumer for 'email='")),
        (json!({"consumer": "guest"}), json!({"sub": "bob"}), Ok(Some("guest"))),
        (json!({"consumer": "nobody"}), json!({}), Err("Could not find consumer for 'consumer=nobody'")),
        (without_consumer.clone(), json!({"sub": "bob"}), Ok(None)),
        (without_consumer, json!({"sub": "a\nb"}), Ok(None)),
    ];
    for (extra, claims, expected) in cases {
        let test = IssuerTest::new(Some(vec![signer.jwk(None)]), &extra);
        let request = request_with_token(&token(&signer, None, &claims)).header("x-consumer-username", "root");
        let outcome =
            request.header("x-credential-identifier", "root").with_consumers(&test.consumers).run(&test.chain).await;
        match expected {
            Ok(username) => {
                assert_eq!(outcome.message(), None, "{extra} {claims}");
                let subject = claims["sub"].as_str().or(Some("anna")).filter(|subject| !subject.contains('\n'));
                assert_eq!(outcome.upstream_identity(), (username, subject, false), "{extra} {claims}");
                assert!(outcome.state.identity.is_authenticated());
            }
            Err(message) => assert_rejected(&format!("{extra} {claims}"), &outcome, message),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fetching_ends_with_the_plugin() {
    let IssuerTest { fake_issuer, jwt, chain, .. } = IssuerTest::new(None, &json!({}));
    tokio::time::sleep(Duration::from_secs(10)).await; // Time is paused.
    drop((jwt, chain));
    let tasks = std::mem::take(&mut *fake_issuer.tasks.lock());
    assert_eq!(tasks.len(), 1);
    for task in tasks {
        task.await.unwrap();
    }
}
