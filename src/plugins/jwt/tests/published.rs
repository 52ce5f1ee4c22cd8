//! Tokens of issuers that publish their keys: waited for, kept, replaced, and missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::*;
use crate::plugin::Invalid;
use crate::plugin::chain::{Base, Builder, Place};
use crate::plugin::testing::{instance, names};
use crate::plugin::{AnyKind, Chain, Fetched, Services};

const ISSUER: &str = "https://issuer.example";

pub(super) fn chain_of(plugin: &Arc<Jwt>) -> Arc<Chain> {
    let mut builder = Builder::default();
    let plugin: Arc<dyn Plugin> = Arc::clone(plugin) as _;
    builder.add("jwt", KIND.priority(), Place::Base(Base::Route), instance(&KIND, plugin));
    builder.build(names()).unwrap()
}

/// Plays the issuer.
#[derive(Default)]
struct World {
    /// What it publishes. None while it is down.
    keys: Mutex<Option<Vec<Value>>>,
    asked: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What conditions say of objects.
    troubles: Mutex<BTreeMap<String, Invalid>>,
}

impl Services for World {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().push(tokio::spawn(task));
    }

    fn tell(&self, object: &str, trouble: Option<Invalid>) {
        match trouble {
            Some(trouble) => self.troubles.lock().insert(object.to_owned(), trouble),
            None => self.troubles.lock().remove(object),
        };
    }

    fn fetch(&self, uri: &str, _timeout: Duration, _most: usize) -> BoxFuture<'static, Result<Fetched, String>> {
        assert_eq!(uri, "https://issuer.example/keys");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let body = self.keys.lock().as_ref().map(|keys| json!({"keys": keys}).to_string());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let body = Bytes::from(body.ok_or("connection refused")?);
            Ok(Fetched { status: StatusCode::OK, headers: HeaderMap::new(), body })
        })
    }
}

struct Scene {
    world: Arc<World>,
    jwt: Arc<Jwt>,
    chain: Arc<Chain>,
    consumers: Directory,
    state: State,
}

impl Scene {
    /// `more` is added to the entry of the issuer.
    fn new(keys: Option<Vec<Value>>, more: &Value) -> Self {
        let world = Arc::new(World { keys: Mutex::new(keys), ..World::default() });
        let services: Arc<dyn Services> = Arc::clone(&world) as _;
        let mut issuer = json!({"issuer": ISSUER, "uri": "https://issuer.example/keys"});
        issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let state = State::default();
        let jwt = built(&json!({"jwks": [issuer]}), &state, &services);
        Scene { world, chain: chain_of(&jwt), jwt, consumers: consumers(), state }
    }

    fn publish(&self, keys: Option<Vec<Value>>) {
        *self.world.keys.lock() = keys;
    }

    fn asked(&self) -> usize {
        self.world.asked.load(Ordering::Relaxed)
    }

    async fn show(&self, token: &str) -> Seen {
        bearing(token).of(&self.consumers).run(&self.chain).await
    }

    async fn is_in(&self, token: &str) -> bool {
        self.show(token).await.reply.is_none()
    }
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "sub": "anna"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn token(signer: &Signer, kid: Option<&str>, more: &Value) -> String {
    let header = kid.map_or(json!({}), |kid| json!({"kid": kid}));
    signer.token(Algorithm::Es256, &header, &claims(more))
}

fn signer() -> Signer {
    Signer::for_algorithm(Algorithm::Es256)
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_the_keys() {
    let signer = signer();
    let scene = Scene::new(Some(vec![signer.jwk(Some("a"))]), &json!({}));
    for text in [token(&signer, Some("a"), &json!({})), token(&signer, None, &json!({}))] {
        for _ in 0..2 {
            let outcome = scene.show(&text).await;
            assert_eq!(outcome.message(), None);
            assert_eq!(outcome.known_as(), (Some("anna"), Some("anna"), false));
            let credential = outcome.passage.identity.credential.unwrap();
            assert_eq!(&*credential, "https://issuer.example#anna");
        }
    }
    assert_eq!(scene.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_issuers_keys_and_algorithms_are_taken() {
    let (signer, stranger) = (signer(), signer());
    let rsa = Signer::for_algorithm(Algorithm::Rs256);
    let more = json!({"audiences": ["shop", "bar"], "algorithms": ["ES256"]});
    let scene = Scene::new(Some(vec![signer.jwk(Some("a")), rsa.jwk(Some("r"))]), &more);
    let shop = json!({"aud": "shop"});
    let hmac = signer.token(Algorithm::Hs256, &json!({"kid": "a"}), &claims(&shop));
    let ours = signed(&claims(&shop));
    let another_algorithm = rsa.token(Algorithm::Rs256, &json!({"kid": "r"}), &claims(&shop));
    let wrong_aud = r#"{"aud":"token for another audience"}"#;
    let cases = [
        (token(&signer, Some("a"), &shop), None),
        (token(&signer, Some("a"), &json!({"aud": ["x", "bar"]})), None),
        (token(&signer, Some("a"), &json!({})), Some(wrong_aud)),
        (token(&signer, Some("a"), &json!({"aud": ["x", 7]})), Some(wrong_aud)),
        (token(&stranger, Some("a"), &shop), Some("Invalid signature")),
        (token(&stranger, None, &shop), Some("Invalid signature")),
        (token(&signer, Some("r"), &shop), Some("Invalid signature")),
        (token(&signer, Some("b"), &shop), Some("Invalid key/secret")),
        (hmac, Some("Invalid algorithm")),
        (ours, Some("Invalid algorithm")),
        (another_algorithm, Some("Invalid algorithm")),
        (token(&signer, Some("a"), &json!({"aud": "shop", "exp": 1})), Some(r#"{"exp":"token expired"}"#)),
        (token(&signer, Some("a"), &json!({"aud": "shop", "nbf": "x"})), Some(r#"{"nbf":"must be a number"}"#)),
        (token(&signer, Some("a"), &json!({"aud": "shop", "iss": "key-1"})), Some("Invalid algorithm")),
        (signed(&json!({"iss": "key-1"})), None),
    ];
    for (text, message) in cases {
        let outcome = scene.show(&text).await;
        match message {
            None => assert_eq!(outcome.message(), None),
            Some(message) => assert_out(&text, &outcome, message),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_asked_for_but_not_too_often() {
    let (old, new) = (signer(), signer());
    let scene = Scene::new(Some(vec![old.jwk(Some("a"))]), &json!({}));
    let (old_token, new_token) = (token(&old, Some("a"), &json!({})), token(&new, Some("b"), &json!({})));
    assert!(scene.is_in(&old_token).await);
    scene.publish(Some(vec![new.jwk(Some("b")), old.jwk(Some("a"))]));
    for _ in 0..10 {
        assert!(!scene.is_in(&new_token).await);
    }
    assert_eq!(scene.asked(), 1, "made-up names of keys cost the issuer nothing");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(scene.is_in(&new_token).await);
    assert!(scene.is_in(&old_token).await);
    assert_eq!(scene.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_back_verifies_nothing_any_more() {
    let (old, new) = (signer(), signer());
    let scene = Scene::new(Some(vec![old.jwk(Some("a")), new.jwk(Some("b"))]), &json!({}));
    let (old_token, new_token) = (token(&old, Some("a"), &json!({})), token(&new, Some("b"), &json!({})));
    assert!(scene.is_in(&old_token).await && scene.is_in(&new_token).await);
    let is_known = |token: &str| {
        let entry = scene.jwt.verified.find(&scene.jwt.digest(token.as_bytes()));
        entry.is_some_and(|entry| {
            matches!(&entry.as_ref().unwrap().proof, Proof::Published { key, .. }
            if scene.jwt.issuers[0].publishes(key))
        })
    };
    assert!(is_known(&old_token) && is_known(&new_token));
    scene.publish(Some(vec![new.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(scene.asked(), 2, "fetched again after five minutes");
    assert!(!is_known(&old_token), "what it has verified went with it");
    assert!(is_known(&new_token), "what another has verified did not");
    assert!(!scene.is_in(&old_token).await);
    assert!(scene.is_in(&new_token).await);
    // The same name for another key.
    scene.publish(Some(vec![old.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_out("replaced", &scene.show(&new_token).await, "Invalid signature");
    scene.publish(Some(vec![]));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!scene.is_in(&token(&old, Some("b"), &json!({}))).await, "all keys can be taken back");
}

#[tokio::test(start_paused = true)]
async fn known_keys_stay_usable_while_the_issuer_is_down() {
    let signer = signer();
    let scene = Scene::new(Some(vec![signer.jwk(Some("a"))]), &json!({}));
    assert!(scene.is_in(&token(&signer, Some("a"), &json!({}))).await);
    scene.publish(None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = scene.asked();
    assert!((55..70).contains(&asked), "asked {asked} times in an hour");
    assert!(scene.is_in(&token(&signer, Some("a"), &json!({"never": "seen"}))).await);
    let before = tokio::time::Instant::now();
    for _ in 0..10 {
        assert!(!scene.is_in(&token(&signer, Some("b"), &json!({}))).await);
    }
    assert_eq!(before.elapsed(), Duration::ZERO, "requests do not wait for an issuer that is down");
    assert_eq!(scene.asked(), asked, "and do not ask it");
    scene.publish(Some(vec![signer.jwk(Some("b"))]));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(scene.is_in(&token(&signer, Some("b"), &json!({}))).await);
}

#[tokio::test(start_paused = true)]
async fn without_keys_nothing_is_accepted() {
    let signer = signer();
    let scene = Scene::new(None, &json!({}));
    for _ in 0..2 {
        let outcome = scene.show(&token(&signer, Some("a"), &json!({}))).await;
        assert_eq!(outcome.replied(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(outcome.message(), Some("The keys of the token's issuer are not available"));
    }
    assert_eq!(scene.asked(), 1);
    assert!(scene.is_in(&signed(&json!({"iss": "key-1"}))).await, "tokens of others do not suffer");
    scene.publish(Some(vec![signer.jwk(None)]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(scene.is_in(&token(&signer, None, &json!({}))).await, "it is tried again soon");
}

#[tokio::test(start_paused = true)]
async fn conditions_say_that_keys_cannot_be_fetched() {
    let scene = Scene::new(None, &json!({}));
    let said = || scene.world.troubles.lock().get("KongPlugin/default/test").map(|trouble| trouble.field.clone());
    let field = Some("config.jwks[0].uri".to_owned());
    assert_eq!(said(), None);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(said(), field);
    scene.publish(Some(vec![]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(said(), None);
    scene.publish(None);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(said(), field);
    let services: Arc<dyn Services> = Arc::clone(&scene.world) as _;
    let jwks = json!({"jwks": [{"issuer": ISSUER, "uri": "https://issuer.example/keys"}]});
    let again = built(&jwks, &scene.state, &services);
    let Scene { world, jwt, chain, .. } = scene;
    drop((jwt, chain));
    assert_eq!(world.troubles.lock().len(), 1, "the same object, built anew");
    drop(again);
    assert_eq!(world.troubles.lock().len(), 0, "nobody wants the keys any more");
}

#[tokio::test(start_paused = true)]
async fn tokens_lead_to_consumers() {
    let signer = signer();
    let free = json!({"allow_without_consumer": true});
    // The consumer's username, or the message.
    type Then = Result<Option<&'static str>, &'static str>;
    let cases: [(Value, Value, Then); 10] = [
        (json!({}), json!({}), Ok(Some("anna"))),
        (json!({}), json!({"sub": "custom-anna"}), Ok(Some("anna"))),
        (json!({}), json!({"sub": "id-anna"}), Err("Could not find consumer for 'sub=id-anna'")),
        (json!({}), json!({"sub": null}), Err("Could not find consumer for 'sub='")),
        (json!({"consumer_claim": "email"}), json!({"email": "anna"}), Ok(Some("anna"))),
        (json!({"consumer_claim": "email"}), json!({"email": ["anna"]}), Err("Could not find consumer for 'email='")),
        (json!({"consumer": "guest"}), json!({"sub": "bob"}), Ok(Some("guest"))),
        (json!({"consumer": "nobody"}), json!({}), Err("Could not find consumer for 'consumer=nobody'")),
        (free.clone(), json!({"sub": "bob"}), Ok(None)),
        (free, json!({"sub": "a\nb"}), Ok(None)),
    ];
    for (more, claims, expected) in cases {
        let scene = Scene::new(Some(vec![signer.jwk(None)]), &more);
        let visit = bearing(&token(&signer, None, &claims)).header("x-consumer-username", "root");
        let outcome = visit.header("x-credential-identifier", "root").of(&scene.consumers).run(&scene.chain).await;
        match expected {
            Ok(username) => {
                assert_eq!(outcome.message(), None, "{more} {claims}");
                let subject = claims["sub"].as_str().or(Some("anna")).filter(|subject| !subject.contains('\n'));
                assert_eq!(outcome.known_as(), (username, subject, false), "{more} {claims}");
                assert!(outcome.passage.identity.credential.is_some());
            }
            Err(message) => assert_out(&format!("{more} {claims}"), &outcome, message),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fetching_ends_with_the_plugin() {
    let Scene { world, jwt, chain, .. } = Scene::new(None, &json!({}));
    tokio::time::sleep(Duration::from_secs(10)).await;
    drop((jwt, chain));
    let tasks = std::mem::take(&mut *world.tasks.lock());
    assert_eq!(tasks.len(), 1);
    for task in tasks {
        task.await.unwrap();
    }
}
