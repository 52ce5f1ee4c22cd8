//! The shares of clients in the requests that the plugins of a namespace send for them.
//!
//! A client may have seven times as many as its namespace can still get, so that one alone can use most of what the
//! namespace may have, and others find room nevertheless. The first request of a client always waits together with
//! those of the namespace.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::counted_address::counted_address;
use crate::shared_limit::{HeldShare, SHARE_CHECK_INTERVAL, Shares};

#[derive(Debug, Default)]
pub(super) struct ClientShares {
    shares: Shares,
    /// Notified when a request ends, for those that wait.
    released: Arc<Notify>,
}

/// A request that its client may have. Dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct RequestOfClient {
    /// Always some, until the value is dropped.
    held: Option<HeldShare>,
    released: Arc<Notify>,
}

impl ClientShares {
    /// Waits until the client may have one more request, if the namespace can get `room` more. After the deadline, the
    /// error is the number of requests that the client has.
    pub(super) async fn take(
        &self,
        namespace: &str,
        client: IpAddr,
        room: impl Fn() -> usize,
        deadline: Instant,
    ) -> Result<RequestOfClient, usize> {
        let share = self.shares.of(&format!("{namespace} {}", counted_address(client)));
        let waiting = async {
            loop {
                let released = self.released.notified();
                if let Some(held) = share.try_hold(1, room()).or_else(|| share.try_hold_up_to(1, 1)) {
                    return held;
                }
                // The room of the namespace also grows when a request of another one ends.
                drop(timeout(SHARE_CHECK_INTERVAL, released).await);
            }
        };
        match timeout_at(deadline, waiting).await {
            Ok(held) => Ok(RequestOfClient { held: Some(held), released: Arc::clone(&self.released) }),
            Err(_) => Err(share.held()),
        }
    }
}

impl Drop for RequestOfClient {
    fn drop(&mut self) {
        // Before the notification, so that the one that waits finds room.
        drop(self.held.take());
        self.released.notify_one();
    }
}
