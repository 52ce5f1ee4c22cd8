//! Floods for other programs, which stop them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::RETRY_DELAY;
use super::attack::attack;
use super::kinds;

/// Connections of a running flood.
#[derive(Debug, Default)]
pub struct FloodCounts {
    /// Number of concurrent connections.
    pub connections: AtomicUsize,
    /// Connections that were attempted so far.
    pub opened: AtomicUsize,
}

/// The names of all kinds.
pub fn flood_names() -> Result<Vec<&'static str>> {
    Ok(kinds::all()?.into_iter().map(|flood| flood.name).collect())
}

/// Floods the listeners for HTTP and HTTPS until `is_stopped`, in the way with this position in [`flood_names`]. Must
/// be called on a runtime of a single thread.
pub async fn flood(
    kind: usize,
    [plain, secure]: [SocketAddr; 2],
    max_connections: usize,
    counts: &FloodCounts,
    is_stopped: impl Fn() -> bool,
) -> Result<()> {
    let flood = kinds::all()?.into_iter().nth(kind).context("there is no such kind of flood")?;
    let target = if flood.over_tls { secure } else { plain };
    let connections = flood.connections.min(max_connections);
    counts.connections.store(connections, Relaxed);
    let (flood, opened) = (Rc::new(flood), Rc::new(AtomicUsize::new(0)));
    let tasks = LocalSet::new();
    for _ in 0..connections {
        let (flood, opened) = (Rc::clone(&flood), Rc::clone(&opened));
        tasks.spawn_local(async move {
            let mut open_connection = None;
            loop {
                opened.fetch_add(1, Relaxed);
                attack(&flood, target, &mut open_connection).await;
                sleep(RETRY_DELAY).await;
            }
        });
    }
    let until_stopped = async {
        while !is_stopped() {
            counts.opened.store(opened.load(Relaxed), Relaxed);
            sleep(STOP_INTERVAL).await;
        }
    };
    // Dropping the tasks closes their connections.
    tasks.run_until(until_stopped).await;
    Ok(())
}

const STOP_INTERVAL: Duration = Duration::from_millis(20);
