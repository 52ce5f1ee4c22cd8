//! Clients that flood the Gateway in one of the ways of `portico-load floods`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use portico_load::FloodCounts;
use tokio::runtime::Builder;

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::objects::EFFECT_TIMEOUT;
use crate::chaos::site::ChaosSite;
use crate::wait::until;

pub(in crate::chaos) struct HostileClients {
    kind: usize,
    name: &'static str,
    running: Option<RunningFlood>,
}

/// A thread of its own, so that floods delay neither the disruptions nor the polite client.
struct RunningFlood {
    counts: Arc<FloodCounts>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

/// Connections of a flood, at most: fewer than on a machine that runs nothing else.
const MAX_CONNECTIONS: usize = 200;
/// More connections than the polite client and probes have.
const CONNECTIONS_WITHOUT_FLOOD: f64 = 150.0;

impl HostileClients {
    pub(in crate::chaos) fn new(kind: usize, name: &'static str) -> HostileClients {
        HostileClients { kind, name, running: None }
    }
}

impl Disruption for HostileClients {
    fn name(&self) -> String {
        format!("flood: {}", self.name)
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let counts = Arc::<FloodCounts>::default();
            let stop = Arc::new(AtomicBool::new(false));
            let (kind, netns) = (self.kind, site.cluster.netns().clone());
            let [plain, secure] = [80, 443].map(|port| SocketAddr::new(site.gateway, port));
            let (thread_counts, thread_stop) = (Arc::clone(&counts), Arc::clone(&stop));
            let thread = std::thread::spawn(move || {
                netns.enter()?;
                let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
                let is_stopped = || thread_stop.load(Relaxed);
                let flood = portico_load::flood(kind, [plain, secure], MAX_CONNECTIONS, &thread_counts, is_stopped);
                runtime.block_on(flood)
            });
            let running = self.running.insert(RunningFlood { counts, stop, thread });
            until("the flood has opened its connections", EFFECT_TIMEOUT, async || {
                let (opened, goal) = (running.counts.opened.load(Relaxed), running.counts.connections.load(Relaxed));
                ensure!(goal > 0 && opened >= goal, "{opened} of {goal} connections");
                Ok(())
            })
            .await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let running = self.running.take().context("no flood is running")?;
            running.stop.store(true, Relaxed);
            running.thread.join().map_err(|_| anyhow!("the flood panicked"))??;
            site.until_both("the connections of the flood are closed", async |replica| {
                let connections = replica.metric("portico_connections", &[]).await?;
                ensure!(connections < CONNECTIONS_WITHOUT_FLOOD, "{connections} connections");
                Ok(())
            })
            .await
        })
    }
}
