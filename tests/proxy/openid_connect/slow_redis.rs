//! A Redis server whose response to the lock of a session comes too late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Site;
use super::provider::{Behavior, Provider};
use crate::redis_server::RedisProcess;

/// Forwards connections to the server. The one with the first command about a lock gets no responses from then on.
async fn slow_redis(port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let has_locked = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(forward(client, server, Arc::clone(&has_locked)));
        }
    });
    address
}

async fn forward(client: TcpStream, server: TcpStream, has_locked: Arc<AtomicBool>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let is_stalled = Arc::new(AtomicBool::new(false));
    let stalled = Arc::clone(&is_stalled);
    let requests = async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            if bytes[..length].windows(6).any(|part| part == b":lock:") && !has_locked.swap(true, Ordering::SeqCst) {
                stalled.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    let responses = async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
            if !is_stalled.load(Ordering::SeqCst) && to_client.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(requests, responses);
}

#[tokio::test]
async fn a_lock_that_was_set_too_late_is_removed() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let redis = json!({"host": "127.0.0.1", "port": slow_redis(server.port).await.port(), "timeout": 3000});
    let site = Site::start(&provider, json!({"session_storage": "redis", "redis": redis})).await;
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior::default());
    assert_eq!((site.get(&mut browser, "/").await.status, provider.refreshes()), (503, 0));
    assert_eq!(server.redis_cli(&["KEYS", "*:lock:*"]).trim(), "");
    assert_eq!((site.get(&mut browser, "/").await.status, provider.refreshes()), (200, 1));
}
