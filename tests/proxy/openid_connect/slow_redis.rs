//! A Redis server whose response to the lock of a session comes too late.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Site;
use super::provider::{Behavior, Provider};
use crate::polling;
use crate::redis_server::RedisProcess;

/// A server that carries out the first command about a lock, and then seems to have stopped until it is resumed.
struct SlowRedis {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The connection with the command gets no response, and what is sent is kept.
    Stopped,
    Resumed,
}

impl SlowRedis {
    async fn start(port: u16) -> SlowRedis {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(watch::Sender::new(State::Running)));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, Arc::clone(&shared)));
                tokio::spawn(forward(from_server, to_client, Arc::clone(&shared)));
            }
        });
        SlowRedis { address, state }
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<watch::Sender<State>>) {
    let (mut bytes, mut changes) = (vec![0; 64 * 1024], state.subscribe());
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let locks = bytes[..length].windows(6).any(|part| part == b":lock:");
        let stops = locks
            && state.send_if_modified(|state| match state {
                State::Running => {
                    *state = State::Stopped;
                    true
                }
                State::Stopped | State::Resumed => false,
            });
        if !stops {
            changes.wait_for(|state| *state != State::Stopped).await.unwrap();
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_lock_that_was_set_too_late_is_removed() {
    let (server, provider) = (RedisProcess::start(&[]).await, Provider::start().await);
    let slow = SlowRedis::start(server.port).await;
    let redis = json!({"host": "127.0.0.1", "port": slow.address.port(), "timeout": 3000});
    let site = Site::start(&provider, json!({"session_storage": "redis", "redis": redis})).await;
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior::default());
    assert_eq!((site.get(&mut browser, "/").await.status, provider.refreshes()), (503, 0));
    let locks = || server.redis_cli(&["KEYS", "*:lock:*"]).trim().to_owned();
    let lock = locks();
    assert_ne!(lock, "", "the response does not wait until the server runs again");
    server.redis_cli(&["PERSIST", &lock]); // So that it cannot expire.
    slow.state.send_replace(State::Resumed);
    polling::until("the lock to be removed", || async { locks().is_empty() }).await;
    assert_eq!((site.get(&mut browser, "/").await.status, provider.refreshes()), (200, 1));
}
