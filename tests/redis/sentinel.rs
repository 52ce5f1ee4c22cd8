//! Tests with Redis Sentinel: a master, its replica and a server of Sentinel.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;

use super::server::{RedisProcess, SentinelProcess};
use super::services::TestServices;
use super::store::store_of;
use crate::harness::polling::until;
use crate::harness::ports::free_port;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn failover_of_the_master_is_followed() {
    let mut master = RedisProcess::start(&[]).await;
    let replica = RedisProcess::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let sentinel = SentinelProcess::start(master.port, &["requirepass s3cret"]).await;
    let knows = |port: u16| sentinel.redis_cli(&["SENTINEL", "replicas", "mymaster"]).contains(&port.to_string());
    until("Sentinel knows the replica", async || knows(replica.port)).await;
    // The first server of Sentinel does not exist.
    let absent = free_port(Ipv4Addr::LOCALHOST);
    let redis = json!({
        "sentinel_master": "mymaster", "sentinel_role": "master", "sentinel_password": "s3cret", "timeout": 2000,
        "sentinel_nodes": [{"host": "127.0.0.1", "port": absent}, {"host": "redis.shop", "port": sentinel.port}],
    });
    let services = TestServices::resolving("redis.shop");
    let store = store_of("KongPlugin/default/test", &redis, &services);
    store.set("a", b"1", HOUR).await.unwrap();
    let copied = || replica.redis_cli(&["GET", "portico:session:default:a"]);
    until("the replica has the value", async || copied().trim() == "1").await;

    master.stop();
    until("values can be set again", async || store.set("a", b"2", HOUR).await.is_ok()).await;
    assert_eq!(copied().trim(), "2", "the replica is the master now");
    assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&b"2"[..]));
    until("the diagnostic is removed", async || services.diagnostic("KongPlugin/default/test").is_none()).await;
}

#[tokio::test]
async fn unknown_masters_and_wrong_passwords_are_reported() {
    let master = RedisProcess::start(&[]).await;
    let sentinel = SentinelProcess::start(master.port, &["requirepass s3cret"]).await;
    for (master, password, expected) in [("other", "s3cret", "knows no master other"), ("mymaster", "wrong", "reject")]
    {
        let redis = json!({
            "sentinel_master": master, "sentinel_password": password, "timeout": 60_000,
            "sentinel_nodes": [{"host": "127.0.0.1", "port": sentinel.port}],
        });
        let services = TestServices::resolving("redis.shop");
        let store = store_of("KongPlugin/default/test", &redis, &services);
        assert!(store.get("a").await.is_err());
        until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
        let message = services.diagnostic("KongPlugin/default/test").unwrap().message;
        assert!(message.contains(expected) && !message.contains("s3cret"), "{message}");
    }
}

#[tokio::test]
async fn replicas_that_refuse_writes_are_left_for_the_master() {
    // A fixed address can lead to a replica after a failover. The connection is opened again, for a proxy or a Service
    // that leads to the new master by then.
    let master = RedisProcess::start(&[]).await;
    let server = RedisProcess::start(&[]).await;
    let redis = json!({"host": "127.0.0.1", "port": server.port, "timeout": 60_000});
    let services = TestServices::resolving("redis.shop");
    let store = store_of("KongPlugin/default/test", &redis, &services);
    store.set("a", b"1", HOUR).await.unwrap();
    server.redis_cli(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    assert!(store.set("a", b"2", HOUR).await.is_err());
    until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
    server.redis_cli(&["REPLICAOF", "NO", "ONE"]);
    until("values can be set again", async || store.set("a", b"3", HOUR).await.is_ok()).await;
}
