//! Sessions of the plugin `session` in a real Redis server: several replicas, logouts, timeouts, keys, and outages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};
use portico::diagnostic::Diagnostic;
use portico::plugin_api::consumers::{EntityId, KeyCredential};
use portico::plugin_api::{
    BuildCx, BuildNotes, ConsumerDirectory, PluginServices, PluginState, Remote, RemoteStream, SharedKey, SharedKeySet,
    SharedKeys,
};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestOutcome, TestRequest, chain_with, consumer};
use portico::plugin_kit::redis::RedisConfig;
use portico::plugins::REGISTRY;
use portico::sealed_cookie::{
    CookieAttributes, CookieSameSite, CookieSettings, OpenedSession, SealedCookie, SealingKeys, SessionAge,
    SessionCookies, SessionPlace, SessionTimeouts, Stored,
};
use portico::stored_sessions::Sessions;
use serde_json::{Value, json};

use super::server::RedisProcess;
use super::services::TestServices;
use crate::harness::polling::until;

/// The services of a replica in a cluster.
struct ReplicaServices {
    services: Arc<TestServices>,
    keys: Option<Arc<SharedKeys>>,
}

impl PluginServices for ReplicaServices {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.services.spawn(task);
    }

    fn shared_keys(&self) -> Option<Arc<SharedKeys>> {
        self.keys.clone()
    }

    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        self.services.connect(remote)
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        self.services.report(object, diagnostic);
    }
}

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let anna = consumer("anna", &[]);
    directory.add(&anna);
    directory.add(&consumer("guest", &[]));
    directory.keys.insert(Arc::new(KeyCredential::new(EntityId::from_text("cred-anna"), b"a key", None, anna)));
    let bert = consumer("bert", &[]);
    directory.add(&bert);
    directory.keys.insert(Arc::new(KeyCredential::new(EntityId::from_text("cred-bert"), b"another key", None, bert)));
    directory
}

/// The chain of one replica: session, and key-auth with an anonymous consumer.
fn replica_with(server: &RedisProcess, keys: Option<&Arc<SharedKeys>>, fields: &Value) -> Arc<Chain> {
    chain_of(server, keys, fields, json!({"anonymous": "guest"}))
}

/// A chain of session and key-auth, with the fields of each.
fn chain_of(
    server: &RedisProcess,
    keys: Option<&Arc<SharedKeys>>,
    fields: &Value,
    key_auth_fields: Value,
) -> Arc<Chain> {
    let services = TestServices::resolving("redis.shop");
    let services: Arc<dyn PluginServices> = Arc::new(ReplicaServices { services, keys: keys.cloned() });
    let mut config =
        json!({"storage": "redis", "redis": {"host": "redis.shop", "port": server.port, "timeout": 60_000}});
    if keys.is_none() {
        config["secret"] = json!("0123456789abcdef0123456789abcdef");
    }
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let (session, key_auth) = (REGISTRY.find("session").unwrap(), REGISTRY.find("key-auth").unwrap());
    let plugins = [(session, config), (key_auth, key_auth_fields)];
    chain_with(&plugins, &PluginState::default(), &services)
}

fn replica(server: &RedisProcess, fields: &Value) -> Arc<Chain> {
    replica_with(server, None, fields)
}

async fn send(chain: &Chain, mut request: TestRequest, cookie: &str, after: Duration) -> TestOutcome {
    request.now = SystemTime::now() + after;
    if !cookie.is_empty() {
        request = request.header("cookie", cookie);
    }
    request.with_consumers(&consumers()).run(chain).await
}

/// The cookies of a session of anna.
async fn log_in(chain: &Chain) -> String {
    let outcome = send(chain, TestRequest::get("/").header("apikey", "a key"), "", Duration::ZERO).await;
    cookies_of(&outcome)
}

fn cookies_of(outcome: &TestOutcome) -> String {
    let lines = outcome.response.headers.get_all("set-cookie").iter();
    let pairs: Vec<&str> = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap()).collect();
    pairs.join("; ")
}

async fn user_after(chain: &Chain, cookie: &str, after: Duration) -> Option<String> {
    let outcome = send(chain, TestRequest::get("/"), cookie, after).await;
    outcome.upstream_identity().0.map(str::to_owned)
}

async fn user(chain: &Chain, cookie: &str) -> Option<String> {
    user_after(chain, cookie, Duration::ZERO).await
}

fn log_out() -> TestRequest {
    TestRequest::new(Request::delete("/?session_logout").body(bytes::Bytes::new()).unwrap())
}

#[tokio::test]
async fn a_logout_at_one_replica_ends_the_session_at_all() {
    let server = RedisProcess::start(&[]).await;
    let (first, second) = (replica(&server, &json!({})), replica(&server, &json!({})));
    let cookie = log_in(&first).await;
    assert!(cookie.len() < 200, "the cookie has an id only: {cookie}");
    assert_eq!(user(&second, &cookie).await.as_deref(), Some("anna"));
    let outcome = send(&second, TestRequest::get("/"), &cookie, Duration::ZERO).await;
    assert_eq!(outcome.upstream_header("cookie"), None, "the endpoint does not get the id");
    let key = server.redis_cli(&["KEYS", "*"]);
    assert!(key.starts_with("portico:session:default:session:"), "{key}");
    let stored = server.redis_cli(&["GET", key.trim()]);
    let id = key.trim().rsplit(':').next().unwrap();
    assert!(!stored.is_empty() && !stored.contains("anna") && !stored.contains("cred"), "{stored}");
    assert!(!cookie.contains(id), "a reader of Redis cannot make the cookie");

    let logout = send(&second, log_out(), &cookie, Duration::ZERO).await;
    assert_eq!(logout.reply_status().map(|status| status.as_u16()), Some(200));
    assert!(logout.response_header("set-cookie").unwrap().contains("Max-Age=0"));
    for chain in [&first, &second] {
        assert_eq!(user(chain, &cookie).await.as_deref(), Some("guest"), "a stolen cookie has no session any more");
    }
    assert_eq!(server.redis_cli(&["KEYS", "*"]).trim(), "");
}

/// An attacker plants the cookie of an own session in the browser of a victim, and hopes that its id becomes that of
/// the victim's session.
#[tokio::test]
async fn logins_get_another_id_than_the_session_before() {
    let server = RedisProcess::start(&[]).await;
    let optional = replica(&server, &json!({}));
    // Credentials of each request count, also with a session.
    let required = chain_of(&server, None, &json!({}), json!({}));
    let keys = || server.redis_cli(&["KEYS", "*"]).split_whitespace().map(str::to_owned).collect::<HashSet<_>>();
    for (name, chain, has_ended) in [
        ("a session that has ended", &optional, true),
        ("a session that has ended, and a required credential", &required, true),
        ("a session of the attacker, and a required credential", &required, false),
    ] {
        server.redis_cli(&["FLUSHALL"]);
        let planted = log_in(&optional).await;
        let former = keys();
        if has_ended {
            send(&optional, log_out(), &planted, Duration::ZERO).await;
            assert_eq!(keys(), HashSet::new(), "{name}");
        }
        let request = TestRequest::get("/").header("apikey", "another key");
        let outcome = send(chain, request, &planted, Duration::ZERO).await;
        assert_eq!(outcome.upstream_identity().0, Some("bert"), "{name}");
        let own = cookies_of(&outcome);
        assert_eq!(keys().difference(&former).count(), 1, "{name}: a session with an id of its own");
        assert_eq!(user(&optional, &own).await.as_deref(), Some("bert"), "{name}");
        let expected = if has_ended { "guest" } else { "anna" };
        assert_eq!(user(&optional, &planted).await.as_deref(), Some(expected), "{name}: not that of the victim");
    }
}

#[tokio::test]
async fn stored_sessions_end_by_their_timeouts() {
    let server = RedisProcess::start(&[]).await;
    let timeouts = json!({"idling_timeout": 100, "rolling_timeout": 1000, "absolute_timeout": 1500});
    let chain = replica(&server, &timeouts);
    let cookie = log_in(&chain).await;
    let key = server.redis_cli(&["KEYS", "*"]);
    let expiry = |key: &str| server.redis_cli(&["TTL", key.trim()]).trim().parse::<i64>().unwrap();
    assert!((90..=100).contains(&expiry(&key)), "Redis deletes an idle session");
    let after = |seconds| Duration::from_secs(seconds);
    assert_eq!(user_after(&chain, &cookie, after(101)).await.as_deref(), Some("guest"), "idle");
    // Each use is recorded in Redis, for all replicas.
    for seconds in (50..1500).step_by(50) {
        assert_eq!(user_after(&chain, &cookie, after(seconds)).await.as_deref(), Some("anna"), "{seconds}");
    }
    assert_eq!(user_after(&chain, &cookie, after(1501)).await.as_deref(), Some("guest"), "the absolute timeout");
    let unlimited = replica(&server, &json!({"idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 0}));
    server.redis_cli(&["FLUSHALL"]);
    log_in(&unlimited).await;
    assert!(expiry(&server.redis_cli(&["KEYS", "*"])) > 399 * 86_400);
}

#[tokio::test]
async fn stored_sessions_are_remembered() {
    let server = RedisProcess::start(&[]).await;
    let config = json!({
        "remember": true, "remember_rolling_timeout": 1000, "remember_absolute_timeout": 1800, "idling_timeout": 100,
    });
    let chain = replica(&server, &config);
    let cookies = log_in(&chain).await;
    let (_, remembered) = cookies.split_once("; ").unwrap();
    assert!(remembered.starts_with("remember="), "{cookies}");
    let again = send(&chain, TestRequest::get("/"), remembered, Duration::from_secs(900)).await;
    assert_eq!(again.upstream_identity().0, Some("anna"));
    let renewed = cookies_of(&again);
    assert!(renewed.starts_with("session=") && renewed.contains("remember="), "{renewed}");
    assert_eq!(user_after(&chain, &renewed, Duration::from_secs(1801)).await.as_deref(), Some("guest"), "by the login");
    send(&chain, log_out(), remembered, Duration::ZERO).await;
    assert_eq!(user(&chain, &cookies).await.as_deref(), Some("guest"), "a logout is not remembered");
}

/// A client that can write to Redis can end sessions, but cannot make one of another user.
#[tokio::test]
async fn sessions_that_were_changed_in_redis_do_not_open() {
    let server = RedisProcess::start(&[]).await;
    let chain = replica(&server, &json!({}));
    let cookie = log_in(&chain).await;
    let key = server.redis_cli(&["KEYS", "*"]).trim().to_owned();
    let stored = server.redis_cli(&["GET", &key]).trim().to_owned();
    let other = log_in(&chain).await;
    let keys = server.redis_cli(&["KEYS", "*"]);
    let other_key = keys.lines().find(|line| *line != key).unwrap();
    server.redis_cli(&["SET", other_key, &stored]);
    assert_eq!(user(&chain, &other).await.as_deref(), Some("guest"), "a session under another id");
    assert_eq!(user(&chain, &cookie).await.as_deref(), Some("anna"));
    for value in ["", "x", &stored[1..], "{\"t\":{}}"] {
        server.redis_cli(&["SET", &key, value]);
        assert_eq!(user(&chain, &cookie).await.as_deref(), Some("guest"), "{value}");
    }
}

#[tokio::test]
async fn new_keys_end_sessions_only_if_the_former_one_is_gone() {
    let server = RedisProcess::start(&[]).await;
    let keys = SharedKeys::random();
    let set = |sealing: &str, opening: Option<&str>| {
        let key = |text: &str| SharedKey::new(text.as_bytes());
        keys.replace(SharedKeySet { sealing: key(sealing), opening: opening.map(key) });
    };
    set("first", None);
    let chain = replica_with(&server, Some(&keys), &json!({}));
    let cookie = log_in(&chain).await;
    assert_eq!(user(&chain, &cookie).await.as_deref(), Some("anna"));
    set("second", Some("first"));
    assert_eq!(user(&chain, &cookie).await.as_deref(), Some("anna"));
    // A session that is renewed gets a cookie of the new key.
    let renewing = send(&chain, TestRequest::get("/"), &cookie, Duration::from_secs(890)).await;
    assert_eq!(renewing.response_header("set-cookie"), None, "used, but not renewed");
    let used = Duration::from_secs(2800);
    for seconds in [1700, 2500] {
        user_after(&chain, &cookie, Duration::from_secs(seconds)).await;
    }
    let renewed = cookies_of(&send(&chain, TestRequest::get("/"), &cookie, used).await);
    set("second", None);
    assert_eq!(user_after(&chain, &cookie, used).await.as_deref(), Some("guest"));
    assert_eq!(user_after(&chain, &renewed, used).await.as_deref(), Some("anna"));
    set("third", Some("fourth"));
    assert_eq!(user_after(&chain, &renewed, used).await.as_deref(), Some("guest"), "all sessions have ended");
}

#[tokio::test]
async fn requests_with_a_session_are_rejected_during_an_outage() {
    let mut server = RedisProcess::start(&[]).await;
    let chain = replica(&server, &json!({}));
    let cookie = log_in(&chain).await;
    server.stop();
    let status = async |request, cookie: &str| {
        send(&chain, request, cookie, Duration::ZERO).await.reply_status().map(|status| status.as_u16())
    };
    for request in [TestRequest::get("/"), log_out(), TestRequest::get("/").header("apikey", "a key")] {
        assert_eq!(status(request, &cookie).await, Some(503));
    }
    let without = send(&chain, TestRequest::get("/").header("apikey", "a key"), "", Duration::ZERO).await;
    assert_eq!(without.upstream_identity().0, Some("anna"), "a credential is enough");
    assert_eq!(without.response_header("set-cookie"), None, "but no session begins");
    assert_eq!(status(TestRequest::get("/"), "session=1.forged").await, None, "what is no id is not looked for");
    server.start_again().await;
    until("sessions begin again", async || !log_in(&chain).await.is_empty()).await;
    assert_eq!(user(&chain, &cookie).await.as_deref(), Some("guest"), "the server has lost the session");
}

#[tokio::test]
#[ignore = "only in make test-full: it stores 100,000 sessions, and measures instead of testing"]
async fn stored_sessions_take_little_memory() {
    const SESSIONS: u64 = 100_000;
    let server = RedisProcess::start(&[]).await;
    let chain = replica(&server, &json!({}));
    let directory = consumers();
    let before = server.used_memory();
    let start = tokio::time::Instant::now();
    for _ in 0..SESSIONS {
        TestRequest::get("/").header("apikey", "a key").with_consumers(&directory).run(&chain).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let stored = server.redis_cli(&["DBSIZE"]).trim().to_owned();
    assert_eq!(stored, SESSIONS.to_string());
    let bytes = (server.used_memory() - before) / SESSIONS;
    println!("{bytes} bytes for each session, {} MB for 100,000; {seconds:.0} s", bytes / 10);
    assert!(bytes < 1000, "a session takes {bytes} bytes");
}

/// The sessions of a plugin whose data are texts.
fn sessions_of_texts(server: &RedisProcess) -> Sessions {
    let services: Arc<dyn PluginServices> = TestServices::resolving("redis.shop");
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let cx =
        BuildCx { object: "KongPlugin/default/test", state: &state, services: &services, node: "test", notes: &notes };
    let redis = json!({"host": "redis.shop", "port": server.port, "timeout": 60_000});
    let redis = serde_json::from_value::<RedisConfig>(redis).unwrap().validate("redis", &cx).ok().unwrap();
    let settings = CookieSettings {
        name: "session",
        path: "/",
        domain: None,
        same_site: CookieSameSite::Lax,
        http_only: true,
        secure: None,
    };
    let attributes = CookieAttributes::validate(&settings, "name", "").unwrap();
    let secret = Some("0123456789abcdef0123456789abcdef");
    let cookies = SessionCookies {
        keys: SealingKeys::from_config(secret, None, ("secret", "former"), "session", &cx).ok().unwrap(),
        cookie: SealedCookie::new(attributes, "test"),
        timeouts: SessionTimeouts { idling: 900, rolling: 3600, absolute: 0 },
        remember: None,
    };
    Sessions::new(cookies, Some((&redis, "redis")), "session", &cx)
}

/// A request that only records when the session was used has read it before.
#[tokio::test]
async fn times_of_use_do_not_replace_what_was_written_meanwhile() {
    let server = RedisProcess::start(&[]).await;
    let sessions = sessions_of_texts(&server);
    let mut response = HeaderMap::new();
    let began = OpenedSession::begin("old".to_owned(), 1000);
    sessions.write(&mut response, &began, SessionPlace::default(), true, 1000).await.unwrap();
    let cookie = response[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
    let request = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())]);
    let open = async |now: u64| {
        let (opened, place) = sessions.open::<String>(&request, now).await.unwrap();
        let mut opened = opened.expect("a session");
        assert_eq!(opened.age, SessionAge::Used);
        opened.times = opened.times.after(opened.age, now);
        (opened, place)
    };
    let (opened, place) = open(1100).await;
    let id = opened.stored.as_ref().expect("a stored session").id.clone();
    let read = async || sessions.read::<String>(&id).await.unwrap();
    let refreshed = Stored { data: "new".to_owned(), ..read().await.unwrap() };
    assert_eq!(sessions.replace(&id, &refreshed, 1100).await, Ok(true));
    sessions.write(&mut HeaderMap::new(), &opened, place, true, 1100).await.unwrap();
    assert_eq!(read().await.unwrap().data, "new");
    // Without such a change, the time is recorded.
    let (opened, place) = open(1200).await;
    sessions.write(&mut HeaderMap::new(), &opened, place, true, 1200).await.unwrap();
    let stored = read().await.unwrap();
    assert_eq!((&*stored.data, stored.times.used), ("new", 1200));
    // A session that has ended stays so, and its cookie is removed.
    let (opened, place) = open(1300).await;
    assert!(sessions.end_if(&id, |stored: &Stored<String>| stored.data == "new").await.unwrap().is_none());
    let mut response = HeaderMap::new();
    sessions.write(&mut response, &opened, place, true, 1300).await.unwrap();
    assert!(read().await.is_none());
    assert!(response[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn sessions_end_only_as_they_are() {
    let server = RedisProcess::start(&[]).await;
    let sessions = sessions_of_texts(&server);
    for (data, is_kept) in [("old", false), ("new", true)] {
        let mut response = HeaderMap::new();
        let began = OpenedSession::begin(data.to_owned(), 1000);
        sessions.write(&mut response, &began, SessionPlace::default(), true, 1000).await.unwrap();
        let key = server.redis_cli(&["KEYS", "*"]);
        let id = key.trim().rsplit(':').next().unwrap();
        let kept = sessions.end_if(id, |stored: &Stored<String>| stored.data == "old").await.unwrap();
        assert_eq!(kept.map(|stored| stored.data).as_deref(), is_kept.then_some(data));
        assert_eq!(server.redis_cli(&["DBSIZE"]).trim() == "1", is_kept);
    }
}
