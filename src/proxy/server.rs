//! The running data plane, as the rest of the program sees it: started, brought in line with the snapshot, drained.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::kong::naming::{KongHeaders, Naming, Product};
use super::limits::Limits;
use super::stats::Stats;
use super::tls::{Terminator, TlsPolicy};
use super::worker::{self, Command, Shared};
use super::{BindState, Binds, bind};
use crate::snapshot::Snapshot;

/// How the data plane runs. What it serves is the snapshot's business.
#[derive(Clone, Debug)]
pub struct Config {
    /// One thread each; as many as there are cores, unless somebody knows better.
    pub workers: NonZeroUsize,
    pub limits: Limits,
    /// Peers whose word about the client counts (`--trusted-ips`).
    pub trusted: Vec<IpNet>,
    pub access_log: Arc<AccessLog>,
    pub tls: TlsPolicy,
    /// Peers that begin every connection with a PROXY header (`--proxy-protocol-from`).
    pub balancers: Vec<IpNet>,
    /// Two processes on one port, on purpose.
    pub allow_port_sharing: bool,
    /// Whether and how we name ourselves (`--kong-headers`, `--product-token`).
    pub kong_headers: KongHeaders,
    pub product: Product,
    /// Label sets of the request metrics (`--metrics-max-series`).
    pub max_series: usize,
}

/// The running data plane. Dropping it ends it at once; `drain` is the kind way.
#[derive(Debug)]
pub struct Proxy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    workers: Vec<mpsc::Sender<Command>>,
    stats: Arc<Stats>,
    allow_port_sharing: bool,
    /// Its lock makes reconciling and draining take turns.
    listening: Mutex<Listening>,
}

#[derive(Debug, Default)]
struct Listening {
    addresses: BTreeSet<SocketAddr>,
    /// Draining is the end; nothing is bound any more.
    drained: bool,
}

impl Proxy {
    /// Starts the workers. Nothing is listened on before the first `reconcile`.
    pub fn start(config: Config, snapshot: Arc<ArcSwap<Snapshot>>) -> io::Result<Proxy> {
        let count = config.workers.get();
        let lost = Arc::clone(config.access_log.lost());
        let stats = Arc::new(Stats::new(count, config.max_series, lost));
        let shared = Shared {
            snapshot: Arc::clone(&snapshot),
            connections: Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS))),
            sockets: Arc::new(Semaphore::new(config.limits.max_upstream_connections.min(Semaphore::MAX_PERMITS))),
            handshakes: Arc::new(Semaphore::new(config.limits.max_handshakes.min(Semaphore::MAX_PERMITS))),
            limits: config.limits,
            tls: Arc::new(Terminator::new(&config.tls).map_err(io::Error::other)?),
            balancers: config.balancers,
            naming: Arc::new(Naming::new(config.kong_headers, config.product)),
            trusted: config.trusted,
            log: config.access_log,
            stats: Arc::clone(&stats),
        };
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = mpsc::channel(COMMANDS);
            // The thread ends when its sender is dropped, also if a later one cannot be started.
            worker::start(number, shared.clone(), receiver)?;
            workers.push(sender);
        }
        Ok(Proxy {
            snapshot,
            workers,
            stats,
            allow_port_sharing: config.allow_port_sharing,
            listening: Mutex::default(),
        })
    }

    /// What is counted; register it with the metrics.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Listens on the addresses of the present snapshot and on no others, and says what became of each. What failed is tried
    /// again by the next call.
    ///
    /// To be called after every swap and before the next one: who is still in the queue of an address that the next snapshot
    /// lacks is served as this one says, which only workers that have seen it know.
    pub async fn reconcile(&self) -> Binds {
        let mut listening = self.listening.lock().await;
        if listening.drained {
            return Binds::new();
        }
        self.tell_all(Command::Look).await;
        let wanted: BTreeSet<_> = self.snapshot.load().binds.keys().copied().collect();
        let gone: Vec<_> = listening.addresses.difference(&wanted).copied().collect();
        // First what comes: who moves from one address to all of them, or back, is listened to all the time.
        let mut binds = Binds::new();
        for address in wanted {
            let state = if listening.addresses.contains(&address) {
                BindState::Bound
            } else {
                // A port of ours that is about to go may be shared; it would look occupied otherwise.
                let sharing = self.allow_port_sharing || gone.iter().any(|gone| gone.port() == address.port());
                self.bind(address, sharing).await
            };
            if state == BindState::Bound && listening.addresses.insert(address) {
                tracing::info!(%address, "Listening");
            }
            binds.insert(address, state);
        }
        for address in gone {
            self.tell_all(|done| Command::Unbind(address, done)).await;
            listening.addresses.remove(&address);
            tracing::info!(%address, "Stopped listening");
        }
        binds
    }

    async fn bind(&self, address: SocketAddr, sharing: bool) -> BindState {
        let sockets = match bind::listen(address, self.workers.len(), sharing) {
            Ok(sockets) => sockets,
            Err(state) => return state,
        };
        let mut sockets = sockets.into_iter();
        let outcomes = self
            .tell_all(|done| {
                let socket = sockets.next().expect("there are as many sockets as workers");
                Command::Bind(address, socket, done)
            })
            .await;
        let failure = outcomes.into_iter().find_map(|outcome| match outcome {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("a worker has ended".to_owned()),
        });
        let Some(failure) = failure else { return BindState::Bound };
        // All or none, so that the next attempt finds the address free.
        self.tell_all(|done| Command::Unbind(address, done)).await;
        BindState::Failed(failure)
    }

    /// Stops listening, lets what is in flight finish, and cuts what has not by then. Returns the number of connections that
    /// were cut.
    pub async fn drain(&self, timeout: Duration) -> usize {
        // Let go at once: reconciling has nothing to wait for any more.
        *self.listening.lock().await = Listening { addresses: BTreeSet::new(), drained: true };
        let end = Instant::now() + timeout;
        self.tell_all(|done| Command::Drain(end, done)).await.into_iter().flatten().sum()
    }

    /// Tells every worker and waits for all of them. None from a worker that is gone.
    async fn tell_all<T>(&self, mut command: impl FnMut(oneshot::Sender<T>) -> Command) -> Vec<Option<T>> {
        let answers = self.workers.iter().map(|worker| {
            let (done, answer) = oneshot::channel();
            let command = command(done);
            async move {
                worker.send(command).await.ok()?;
                answer.await.ok()
            }
        });
        join_all(answers).await
    }
}

/// Commands that may wait for a worker; whoever tells waits for the answer anyway.
const COMMANDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The control side calls from a runtime of many threads.
    #[test]
    fn the_handle_may_be_used_from_any_thread() {
        fn sent<T: Send>(_: impl Fn(&'static Proxy) -> T) {}
        fn shared<T: Send + Sync>() {}
        shared::<Proxy>();
        sent(Proxy::reconcile);
        sent(|proxy| proxy.drain(Duration::ZERO));
    }
}
