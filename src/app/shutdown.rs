//! What happens when the process stops: readiness is withdrawn first, clients close their connections, and requests in
//! flight may end.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::drain::{Drain, DrainPhase};
use crate::proxy::Proxy;
use crate::ready::Readiness;

/// Withdraws readiness when the stop begins, so that load balancers stop sending requests before listeners close.
pub(super) async fn withdraw_readiness(ready: Readiness, drain: Drain) {
    drain.leaving().await;
    let _leaving = ready.guard("stopping");
    drain.ended().await;
}

/// While the process is leaving, responses ask HTTP/1 clients to close their connections, before the drain does.
pub(super) async fn announce_close(proxy: Arc<Proxy>, drain: Drain) {
    drain.leaving().await;
    proxy.announce_close().await;
}

/// Waits for requests in flight until the deadline or a second signal.
pub(super) async fn drain_until(proxy: &Proxy, deadline: Instant, drain: &Drain) {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let mut draining = std::pin::pin!(proxy.drain(timeout));
    let at_once = match drain.phase() {
        DrainPhase::Ended => true,
        _ => tokio::select! {
            biased;
            cut = &mut draining => return log_drained(cut),
            () = drain.ended() => Instant::now() < deadline,
        },
    };
    if at_once {
        warn!("Stopped at once; requests in flight were aborted");
    } else {
        // The drain timeout ended, and `proxy.drain` ends with it.
        log_drained(draining.await);
    }
}

/// `cut` is the number of aborted requests.
fn log_drained(cut: usize) {
    match cut {
        0 => info!("Stopped; all requests completed"),
        cut => warn!(cut, "Stopped; the drain timeout aborted requests in flight"),
    }
}
