//! Tests of values in Redis: on one server, with a master that Sentinel names, and in a cluster.

use std::sync::Arc;
use std::time::Duration;

use portico::plugin_api::{BuildCx, BuildNotes, PluginServices, PluginState};
use portico::plugin_kit::redis::{RedisConfig, RedisStore, RedisStoreError, ReplacedValue};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::server::RedisProcess;
use super::services::TestServices;
use crate::harness::polling::until;

const HOUR: Duration = Duration::from_secs(3600);
const MAX_VALUE: usize = 100_000;

/// A store of the plugin `session` for an object, with these settings of the server.
pub(super) fn store_of(object: &str, redis: &Value, services: &Arc<TestServices>) -> RedisStore {
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let cx = BuildCx { object, state: &state, services: &services, node: "test", notes: &notes };
    let config: RedisConfig = serde_json::from_value(redis.clone()).unwrap();
    let server = config.validate("redis", &cx).unwrap_or_else(|invalid| panic!("{invalid:?}"));
    RedisStore::connect(&server, "redis", "session", MAX_VALUE, &cx)
}

fn store(server: &RedisProcess, services: &Arc<TestServices>) -> RedisStore {
    store_of(
        "KongPlugin/default/test",
        &json!({"host": "redis.shop", "port": server.port, "timeout": 60_000}),
        services,
    )
}

#[tokio::test]
async fn values_are_kept_until_they_expire_or_are_deleted() {
    let server = RedisProcess::start(&[]).await;
    let store = store(&server, &TestServices::resolving("redis.shop"));
    assert_eq!(store.get("a").await, Ok(None));
    let binary: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    store.set("a", &binary, HOUR).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&*binary), "longer than replies to counters");
    assert_eq!(server.redis_cli(&["KEYS", "*"]).trim(), "portico:session:default:a");
    let ttl: u64 = server.redis_cli(&["TTL", "portico:session:default:a"]).trim().parse().unwrap();
    assert!((3500..=3600).contains(&ttl), "{ttl}");
    assert_eq!(store.delete("a").await, Ok(true));
    assert_eq!(store.delete("a").await, Ok(false));
    store.set("short", b"1", Duration::from_millis(20)).await.unwrap();
    until("the value expires", async || store.get("short").await == Ok(None)).await;
    store.set("now", b"1", Duration::ZERO).await.unwrap();
    store.set("forever", b"1", Duration::MAX).await.unwrap();
    assert_eq!(store.get("forever").await.unwrap().as_deref(), Some(&b"1"[..]));
    let left = || server.redis_cli(&["TTL", "portico:session:default:a"]).trim().parse::<i64>().unwrap();
    store.set("a", b"1", HOUR).await.unwrap();
    assert_eq!(store.confirm("a", b"1", HOUR / 2).await, Ok(true));
    assert!(left() > 3500, "the time is not shortened: {}", left());
    assert_eq!(store.confirm("a", b"1", 2 * HOUR).await, Ok(true));
    assert!(left() > 7100, "{}", left());
    assert_eq!(store.confirm("a", b"2", HOUR).await, Ok(false));
    assert_eq!(store.confirm("b", b"", HOUR).await, Ok(false), "an absent value is not an empty one");
    assert_eq!(store.delete_if("a", b"2").await, Ok(false), "another value");
    assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.delete_if("a", b"1").await, Ok(true));
    assert_eq!(store.delete_if("a", b"1").await, Ok(false));
    assert_eq!(store.delete_if("b", b"").await, Ok(false), "an absent value is not an empty one");
    store.set("a", b"1", HOUR).await.unwrap();
    assert_eq!(store.replace_if("a", b"2", b"3", HOUR).await, Ok(ReplacedValue::Changed));
    assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.replace_if("a", b"1", &binary, 2 * HOUR).await, Ok(ReplacedValue::Replaced));
    assert_eq!((store.get("a").await.unwrap().as_deref(), left() > 7100), (Some(&*binary), true));
    assert_eq!(store.replace_if("b", b"", b"3", HOUR).await, Ok(ReplacedValue::Absent));
    assert_eq!(store.get("b").await, Ok(None), "a value that was deleted does not come back");
    let too_long = vec![0; MAX_VALUE + 1];
    assert_eq!(store.replace_if("a", &binary, &too_long, HOUR).await, Err(RedisStoreError::TooLong));
    assert_eq!(store.set("long", &too_long, HOUR).await, Err(RedisStoreError::TooLong));
    assert_eq!(store.set_if_absent("long", &too_long[1..], HOUR).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_replicas_gets_a_value() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let replicas = [store(&server, &services), store(&server, &services)];
    for round in 0..20 {
        let key = format!("code {round}");
        let calls = (0..20).map(|index| {
            let (store, key) = (replicas[index % 2].clone(), key.clone());
            tokio::spawn(async move { store.set_if_absent(&key, b"used", HOUR).await.unwrap() })
        });
        let set = futures_util::future::join_all(calls).await;
        assert_eq!(set.into_iter().filter(|set| *set.as_ref().unwrap()).count(), 1);
        let calls = (0..20).map(|index| {
            let (store, key) = (replicas[index % 2].clone(), key.clone());
            tokio::spawn(async move { store.take(&key).await.unwrap() })
        });
        let taken = futures_util::future::join_all(calls).await;
        assert_eq!(taken.into_iter().filter(|taken| taken.as_ref().unwrap().is_some()).count(), 1);
        assert_eq!(replicas[0].get(&key).await, Ok(None));
    }
}

#[tokio::test]
async fn namespaces_cannot_read_values_of_each_other() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let redis = json!({"host": "127.0.0.1", "port": server.port, "timeout": 60_000});
    let first = store_of("KongPlugin/default/a", &redis, &services);
    let second = store_of("KongPlugin/default/b", &redis, &services);
    first.set("key", b"secret", HOUR).await.unwrap();
    assert_eq!(second.get("key").await.unwrap().as_deref(), Some(&b"secret"[..]), "objects of one namespace share");
    server.redis_cli(&["SET", "portico:session:other:key", "of another namespace"]);
    assert_eq!(first.get("other:key").await, Ok(None));
    assert_eq!(first.get(":other:key").await, Ok(None));
}

#[tokio::test]
async fn calls_fail_at_once_while_the_server_is_away() {
    let mut server = RedisProcess::start(&[]).await;
    let store = store(&server, &TestServices::resolving("redis.shop"));
    store.set("a", b"1", HOUR).await.unwrap();
    server.stop();
    until("calls fail", async || store.get("a").await.is_err()).await;
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.take("a").await, Err(RedisStoreError::Unavailable));
    }
    assert!(start.elapsed() < Duration::from_secs(30), "no call waits for a timeout of 60 s");
    server.start_again().await;
    until("calls succeed", async || store.set("a", b"2", HOUR).await.is_ok()).await;
}

#[tokio::test]
async fn values_beyond_the_limit_are_not_read() {
    let server = RedisProcess::start(&[]).await;
    let store = store(&server, &TestServices::resolving("redis.shop"));
    server.redis_cli(&[
        "EVAL",
        "redis.call('SET', KEYS[1], string.rep('x', 10000000))",
        "1",
        "portico:session:default:a",
    ]);
    assert_eq!(store.get("a").await, Err(RedisStoreError::Unavailable));
    until("other values are available", async || store.get("b").await == Ok(None)).await;
    let many = (0..50).map(|_| store.get("b"));
    let replies = timeout(Duration::from_secs(30), futures_util::future::join_all(many)).await.unwrap();
    assert!(replies.iter().all(|reply| *reply == Ok(None)));
}
