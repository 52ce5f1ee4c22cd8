//! The idle connections of plugins to HTTP servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::observed_stream::Traffic;
use crate::plugin_api::http_proxy::ProxyRoute;
use crate::plugin_api::remote::Remote;

/// A connection to a server. Dropping it closes it.
pub(super) struct RemoteConnection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) traffic: Arc<Traffic>,
    /// When the connection is closed; `None` while a request uses it.
    pub(super) idle_until: watch::Sender<Option<Instant>>,
}

/// What a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionTarget {
    pub(super) remote: Remote,
    /// The proxy on the way.
    pub(super) route: Option<ProxyRoute>,
}

/// The idle connections to all servers. Clones share them.
#[derive(Clone, Default)]
pub struct IdleConnections {
    /// The newest connection to each server last.
    by_server: Arc<Mutex<HashMap<ConnectionTarget, Vec<IdleRemoteConnection>>>>,
}

struct IdleRemoteConnection {
    connection: RemoteConnection,
    idle_since: Instant,
}

impl IdleConnections {
    /// Takes the newest connection to a server that is still open.
    pub(super) fn take(&self, target: &ConnectionTarget) -> Option<RemoteConnection> {
        let mut by_server = self.by_server.lock();
        let connections = by_server.get_mut(target)?;
        while let Some(IdleRemoteConnection { connection, .. }) = connections.pop() {
            if connection.sender.is_ready() {
                connection.idle_until.send_replace(None);
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for this time, unless there are enough to the server.
    pub(super) fn keep(&self, target: ConnectionTarget, connection: RemoteConnection, keep_alive: Duration) {
        let idle_since = Instant::now();
        connection.idle_until.send_replace(Some(idle_since + keep_alive));
        let mut by_server = self.by_server.lock();
        by_server.retain(|_, connections| {
            connections.retain(|idle| !idle.connection.sender.is_closed());
            !connections.is_empty()
        });
        let connections = by_server.entry(target).or_default();
        if connections.len() < MAX_IDLE_CONNECTIONS {
            connections.push(IdleRemoteConnection { connection, idle_since });
        }
    }

    /// Closes the connection that has been idle for longest, of those for a namespace. Returns whether there was one.
    pub fn close_oldest_of(&self, namespace: &str) -> bool {
        self.close_oldest(|remote| remote.share() == namespace)
    }

    /// Closes the connection that has been idle for longest. Returns whether there was one.
    pub fn close_oldest_of_all(&self) -> bool {
        self.close_oldest(|_| true)
    }

    fn close_oldest(&self, may_close: impl Fn(&Remote) -> bool) -> bool {
        let mut by_server = self.by_server.lock();
        let may_close = |(target, _): &(&ConnectionTarget, &mut Vec<IdleRemoteConnection>)| may_close(&target.remote);
        let oldest = by_server.iter_mut().filter(may_close).filter_map(|(_, connections)| {
            // An expired connection may not have been removed yet, but makes no room.
            connections.retain(|idle| !idle.connection.sender.is_closed());
            Some((connections.first()?.idle_since, connections))
        });
        let Some((_, connections)) = oldest.min_by_key(|(idle_since, _)| *idle_since) else { return false };
        drop(connections.remove(0));
        true
    }
}

/// Idle connections to one server.
const MAX_IDLE_CONNECTIONS: usize = 16;
