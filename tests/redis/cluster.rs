//! Tests with a Redis cluster: redirections, moved slots and a lost node.

use std::sync::Arc;
use std::time::Duration;

use portico::plugin_kit::redis::RedisStore;
use serde_json::{Value, json};

use super::server::{ClusterServers, RedisProcess};
use super::services::TestServices;
use super::store::store_of;
use crate::harness::polling::until;

const HOUR: Duration = Duration::from_secs(3600);

/// Settings that name only this node.
pub(super) fn settings(node: &RedisProcess) -> Value {
    json!({"cluster_nodes": [{"ip": "127.0.0.1", "port": node.port}], "timeout": 5000})
}

fn store(node: &RedisProcess, services: &Arc<TestServices>) -> RedisStore {
    store_of("KongPlugin/default/test", &settings(node), services)
}

/// Keys of the store, one for each node.
async fn key_of_each_node(cluster: &ClusterServers, store: &RedisStore) -> Vec<String> {
    let mut keys = Vec::new();
    for node in &cluster.nodes {
        let mut found = None;
        for index in 0..200 {
            let key = format!("key {index}");
            store.set(&key, b"1", HOUR).await.unwrap();
            if node.redis_cli(&["EXISTS", &format!("portico:session:default:{key}")]).trim() == "1" {
                found = Some(key);
                break;
            }
        }
        keys.push(found.expect("a third of the keys belong to each node"));
    }
    keys
}

#[tokio::test]
async fn values_are_on_the_nodes_of_their_slots() {
    let cluster = ClusterServers::start(3).await;
    let store = store(&cluster.nodes[0], &TestServices::resolving("redis.shop"));
    for index in 0..100 {
        let key = index.to_string();
        store.set(&key, key.as_bytes(), HOUR).await.unwrap();
        assert_eq!(store.take(&key).await.unwrap().as_deref(), Some(key.as_bytes()), "{key}");
        assert_eq!(store.set_if_absent(&key, b"kept", HOUR).await, Ok(true), "{key}");
    }
    let sizes: Vec<u32> =
        cluster.nodes.iter().map(|node| node.redis_cli(&["DBSIZE"]).trim().parse().unwrap()).collect();
    assert!(sizes.iter().all(|size| *size > 10) && sizes.iter().sum::<u32>() == 100, "{sizes:?}");
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    let cluster = ClusterServers::start(3).await;
    let store = store(&cluster.nodes[0], &TestServices::resolving("redis.shop"));
    let key = key_of_each_node(&cluster, &store).await.remove(1);
    let server_key = format!("portico:session:default:{key}");
    let (from, to) = (&cluster.nodes[1], &cluster.nodes[2]);
    let slot = from.redis_cli(&["CLUSTER", "KEYSLOT", &server_key]).trim().to_owned();
    let id = |node: &RedisProcess| node.redis_cli(&["CLUSTER", "MYID"]).trim().to_owned();
    assert_eq!(store.delete(&key).await, Ok(true));
    to.redis_cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    from.redis_cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    // The former node redirects with ASK, as the slot is being moved and it does not have the key.
    store.set(&key, b"2", HOUR).await.unwrap();
    assert_eq!(to.redis_cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).trim(), "1");
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(&b"2"[..]));
    // The former node redirects with MOVED.
    for node in [to, from] {
        node.redis_cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.take(&key).await.unwrap().as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn lost_nodes_are_replaced_by_their_replicas() {
    let mut cluster = ClusterServers::start(3).await;
    let replica = cluster.add_replica(0).await;
    let services = TestServices::resolving("redis.shop");
    let store = store(&cluster.nodes[1], &services);
    let keys = key_of_each_node(&cluster, &store).await;
    cluster.nodes[0].stop();
    until("the node is lost", async || store.get(&keys[0]).await.is_err()).await;
    assert_eq!(store.get(&keys[1]).await.unwrap().as_deref(), Some(&b"1"[..]), "other nodes are not affected");
    until("the replica has the slots", async || store.set(&keys[0], b"2", HOUR).await.is_ok()).await;
    let value = replica.redis_cli(&["GET", &format!("portico:session:default:{}", keys[0])]);
    assert_eq!(value.trim(), "2");
    until("the diagnostic is removed", async || services.diagnostic("KongPlugin/default/test").is_none()).await;
}
