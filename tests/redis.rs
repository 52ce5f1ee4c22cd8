//! Plugins that count on a Redis server, with a real one: several replicas, password, TLS, and a server that goes away and
//! comes back while requests flow.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "redis/server.rs"]
mod server;
#[path = "redis/world.rs"]
mod world;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portico::plugin::testing::{Outcome, Visit, chain_with};
use portico::plugin::{Chain, Services, State};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use server::Server;
use world::World;

/// A replica: its own memory, and the chain of one route with this plugin.
fn replica(config: &Value, world: &Arc<World>) -> Arc<Chain> {
    let services: Arc<dyn Services> = Arc::clone(world) as _;
    let kind = REGISTRY.find("rate-limiting").unwrap();
    chain_with(&[(kind, config.clone())], &State::default(), &services)
}

/// With the address of a server.
fn config(server: &Server, more: &Value) -> Value {
    let mut config = json!({"year": 100, "policy": "redis", "redis": {"host": "redis.shop", "port": server.port}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

async fn visit(chain: &Chain) -> Outcome {
    let mut visit = Visit::get("/");
    visit.now = SystemTime::now();
    visit.run(chain).await
}

/// What an answer says is left of the year.
async fn left(chain: &Chain) -> Option<u64> {
    visit(chain).await.header("x-ratelimit-remaining-year").map(|left| left.parse().unwrap())
}

/// Waits for what has to come.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// kong-compat §4.25
// kong-compat §7.21
#[tokio::test]
async fn replicas_count_together_and_what_is_refused_counts_too() {
    let server = Server::start(&[]).await;
    let world = World::knowing("redis.shop");
    let limits = config(&server, &json!({"year": 3}));
    let (one, two) = (replica(&limits, &world), replica(&limits, &world));
    assert_eq!(left(&one).await, Some(2));
    assert_eq!(left(&two).await, Some(1));
    assert_eq!(left(&one).await, Some(0));
    for chain in [&two, &one] {
        let outcome = visit(chain).await;
        assert_eq!(outcome.replied().map(|status| status.as_u16()), Some(429));
        assert_eq!(outcome.header("x-ratelimit-remaining-year"), Some("0"));
        assert!(outcome.header("retry-after").is_some());
    }
    let keys = server.ask(&["KEYS", "*"]);
    assert!(keys.contains("ratelimit:KongPlugin/default/test:HTTPRoute/default/test/0:192.0.2.1:"), "{keys}");
    assert!(keys.trim().ends_with(":year"), "{keys}");
    assert_eq!(server.ask(&["GET", keys.trim()]).trim(), "5");
    let seconds: u64 = server.ask(&["TTL", keys.trim()]).trim().parse().unwrap();
    assert!((1..=366 * 86_400 + 1).contains(&seconds), "{seconds}");
    assert_eq!(world.told("KongPlugin/default/test"), None, "nothing is wrong");
}

// kong-compat §4.25
#[tokio::test]
async fn every_period_is_counted() {
    let server = Server::start(&[]).await;
    let all = json!({"second": 90, "minute": 91, "hour": 92, "day": 93, "month": 94, "year": 95});
    let outcome = visit(&replica(&config(&server, &all), &World::knowing("redis.shop"))).await;
    for (period, left) in [("second", 89), ("minute", 90), ("hour", 91), ("day", 92), ("month", 93), ("year", 94)] {
        let left = left.to_string();
        assert_eq!(outcome.header(&format!("x-ratelimit-remaining-{period}")), Some(left.as_str()));
    }
    let keys = server.ask(&["DBSIZE"]);
    assert!(["5", "6"].contains(&keys.trim()), "the one of the second may have gone: {keys}");
}

// kong-compat §4.25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_than_the_limit_however_many_come_at_once() {
    let server = Server::start(&[]).await;
    let world = World::knowing("redis.shop");
    let chain = replica(&config(&server, &json!({"year": 25})), &world);
    let visits = (0..60).map(|_| visit(&chain));
    let outcomes = futures_util::future::join_all(visits).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.reply.is_none()).count(), 25);
}

// kong-compat §4.25
#[tokio::test]
async fn a_server_may_go_and_come_while_requests_flow() {
    let mut server = Server::start(&[]).await;
    let world = World::knowing("redis.shop");
    let tolerant = replica(&config(&server, &json!({})), &world);
    let strict = replica(&config(&server, &json!({"fault_tolerant": false, "limit_by": "service"})), &world);
    assert_eq!(left(&tolerant).await, Some(99));
    assert_eq!(left(&strict).await, Some(99));

    server.stop();
    until("the end of the counting", async || left(&tolerant).await.is_none()).await;
    for _ in 0..20 {
        let outcome = visit(&tolerant).await;
        assert!(outcome.reply.is_none() && outcome.header("ratelimit-limit").is_none());
        assert_eq!(visit(&strict).await.replied().map(|status| status.as_u16()), Some(500));
    }
    until("what is wrong", async || world.told("KongPlugin/default/test").is_some()).await;
    let trouble = world.told("KongPlugin/default/test").unwrap();
    assert_eq!(trouble.field, "config.redis");
    assert!(trouble.message.contains("redis.shop"), "{trouble:?}");

    server.start_again().await;
    until("counting again", async || left(&tolerant).await.is_some()).await;
    until("counting again", async || visit(&strict).await.replied().is_none()).await;
    until("nothing is wrong", async || world.told("KongPlugin/default/test").is_none()).await;
    assert_eq!(visit(&tolerant).await.header("ratelimit-limit"), Some("100"));
}

// kong-compat §4.0
#[tokio::test]
async fn a_password_and_a_database_are_used() {
    let server = Server::start(&["--requirepass", "s3cret", "--user", "shop", "on", ">pass", "~*", "+@all"]).await;
    let world = World::knowing("redis.shop");
    let redis = |more: Value| {
        let mut redis = json!({"host": "redis.shop", "port": server.port});
        redis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config(&server, &json!({"redis": redis}))
    };
    for (login, is_let_in) in [
        (json!({"password": "s3cret"}), true),
        (json!({"password": "s3cret", "database": 3}), true),
        (json!({"username": "shop", "password": "pass"}), true),
        (json!({"password": "wrong"}), false),
        (json!({}), false),
    ] {
        let world = World::knowing("redis.shop");
        let chain = replica(&redis(login.clone()), &world);
        assert_eq!(left(&chain).await.is_some(), is_let_in, "{login}");
        if !is_let_in {
            until("what is wrong", async || world.told("KongPlugin/default/test").is_some()).await;
            let trouble = world.told("KongPlugin/default/test").unwrap();
            assert!(!format!("{trouble:?}").contains("wrong"), "a secret is told: {trouble:?}");
        }
    }
    let flat = config(
        &server,
        &json!({"redis": null, "redis_host": "redis.shop", "redis_port": server.port,
        "redis_password": "s3cret", "redis_database": 5}),
    );
    assert_eq!(left(&replica(&flat, &world)).await, Some(99));
    let database = |number: &'static str| ["-a", "s3cret", "--no-auth-warning", "-n", number, "DBSIZE"];
    assert_eq!(server.ask(&database("3")).trim(), "1");
    assert_eq!(server.ask(&database("5")).trim(), "1");
}

// kong-compat §4.0
#[tokio::test]
async fn tls_is_used_and_checked_as_asked() {
    let authority = server::Authority::new();
    let server = Server::start_with_tls(&authority, "redis.shop").await;
    let other = server::Authority::new();
    for (tls, trusted, is_let_in) in [
        (json!({"ssl": true}), &other, true),
        (json!({"ssl": true, "ssl_verify": true}), &authority, true),
        (json!({"ssl": true, "ssl_verify": true}), &other, false),
        (json!({"ssl": true, "ssl_verify": true, "server_name": "redis.example"}), &authority, false),
        (json!({"ssl": true, "ssl_verify": true, "host": "127.0.0.1", "server_name": "redis.shop"}), &authority, true),
        (json!({}), &authority, false),
    ] {
        let world = World::trusting("redis.shop", trusted);
        let mut redis = json!({"host": "redis.shop", "port": server.port});
        redis.as_object_mut().unwrap().extend(tls.as_object().unwrap().clone());
        let chain = replica(&config(&server, &json!({"redis": redis})), &world);
        assert_eq!(left(&chain).await.is_some(), is_let_in, "{tls}");
    }
}

// kong-compat §4.25
#[tokio::test]
async fn replicas_that_tell_now_and_then_learn_of_each_other() {
    let server = Server::start(&[]).await;
    let world = World::knowing("redis.shop");
    let limits = config(&server, &json!({"year": 50, "sync_rate": 0.02}));
    let (one, two) = (replica(&limits, &world), replica(&limits, &world));
    assert_eq!(left(&one).await, Some(49), "it counts here first");
    for _ in 0..9 {
        left(&one).await;
    }
    let sum = "local s=0 for _,k in ipairs(redis.call('KEYS','*')) do s=s+redis.call('GET',k) end return s";
    let told = || server.ask(&["--raw", "EVAL", sum, "0"]).trim().to_owned();
    until("what one counted", async || told() == "10").await;
    assert_eq!(left(&two).await, Some(49), "nobody told it yet");
    until("what both counted", async || told() == "11").await;
    // What is told is learned from before the next is told.
    for count in 2..5 {
        let left = left(&two).await;
        assert!(count == 2 || left == Some(50 - 10 - count), "{left:?} after {count}");
        until("what both counted", async || told() == (10 + count).to_string()).await;
    }
    // What is refused is not counted.
    until("the end", async || visit(&two).await.reply.is_some()).await;
    for _ in 0..5 {
        assert!(visit(&two).await.reply.is_some());
    }
    until("everything", async || told() == "50").await;
}

// kong-compat §4.25
#[tokio::test]
async fn what_could_not_be_told_is_told_later() {
    let mut server = Server::start(&[]).await;
    let world = World::knowing("redis.shop");
    let strict = json!({"sync_rate": 0.02, "fault_tolerant": false, "limit_by": "service"});
    let (one, two) =
        (replica(&config(&server, &json!({"sync_rate": 0.02})), &world), replica(&config(&server, &strict), &world));
    assert_eq!((left(&one).await, left(&two).await), (Some(99), Some(99)));
    until("both", async || server.ask(&["DBSIZE"]).trim() == "2").await;
    server.stop();
    assert_eq!(left(&one).await, Some(98), "it goes on counting here");
    until("a refusal", async || visit(&two).await.replied().is_some_and(|status| status == 500)).await;
    server.start_again().await;
    until("what was counted meanwhile", async || server.ask(&["DBSIZE"]).trim() == "2").await;
    until("service", async || visit(&two).await.reply.is_none()).await;
}
