//! Load during a scenario: clients that repeat a request, and record responses and failures.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use portico_e2e::wait::until;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::scenarios::client::{Connection, Target};
use crate::scenarios::objects::SCENARIO_TIMEOUT;

/// The time between two requests of a client: short, but some tests have two loads for minutes, which should leave the
/// CPU to what they test.
const REQUEST_INTERVAL: Duration = Duration::from_millis(25);

/// Clients that repeat a request, half of them on a keep-alive connection, the others on a new connection for each.
/// Dropping it stops them.
pub(crate) struct Load {
    results: Arc<Mutex<LoadResults>>,
    is_stopping: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LoadResults {
    pub(crate) responses: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) bodies: BTreeSet<String>,
    pub(crate) certificates: HashSet<CertificateDer<'static>>,
}

impl Load {
    pub(crate) fn start(target: &Target) -> Load {
        let (_, address) = watch::channel(target.address);
        Load::start_resolving(target, &address)
    }

    /// Clients that connect to the address that is current when they open a connection, as with a name in DNS.
    pub(crate) fn start_resolving(target: &Target, address: &watch::Receiver<SocketAddr>) -> Load {
        let (results, is_stopping) = (Arc::default(), Arc::default());
        let mut clients = JoinSet::new();
        for keep_alive in [true, false, true, false] {
            let client = Client { target: target.clone(), address: address.clone(), keep_alive };
            clients.spawn(client.run(Arc::clone(&results), Arc::clone(&is_stopping)));
        }
        Load { results, is_stopping, clients }
    }

    pub(crate) fn results(&self) -> LoadResults {
        self.results.lock().clone()
    }

    /// Waits until this number of additional requests has ended.
    pub(crate) async fn wait_for_more(&self, number: usize) -> Result<()> {
        let ended = || {
            let results = self.results.lock();
            results.responses + results.failures.len()
        };
        let goal = ended() + number;
        until(&format!("{number} more requests end"), SCENARIO_TIMEOUT, async || match ended() {
            ended if ended >= goal => Ok(()),
            ended => bail!("{ended} of {goal} have ended"),
        })
        .await
    }

    /// Stops the load; fails if any request failed. Waits for the requests in flight, so that one without a response is
    /// a failure, too.
    pub(crate) async fn stop(self) -> Result<LoadResults> {
        self.is_stopping.store(true, Relaxed);
        self.clients.join_all().await;
        let results = self.results.lock().clone();
        let (failed, total) = (results.failures.len(), results.failures.len() + results.responses);
        ensure!(failed == 0, "{failed} of {total} requests failed: {:#?}", &results.failures[..failed.min(5)]);
        ensure!(total > 0, "no request was sent");
        Ok(results)
    }
}

/// One client of a load.
struct Client {
    target: Target,
    address: watch::Receiver<SocketAddr>,
    keep_alive: bool,
}

impl Client {
    async fn run(mut self, results: Arc<Mutex<LoadResults>>, is_stopping: Arc<AtomicBool>) {
        let mut ticks = interval(REQUEST_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open_connection = None;
        while !is_stopping.load(Relaxed) {
            ticks.tick().await;
            self.target.address = *self.address.borrow();
            let outcome = send_request(&self.target, &mut open_connection, &results).await;
            if !self.keep_alive || outcome.is_err() {
                open_connection = None;
            }
            if let Err(error) = outcome {
                results.lock().failures.push(format!("{error:#}"));
            }
        }
    }
}

async fn send_request(
    target: &Target,
    open_connection: &mut Option<Connection>,
    results: &Mutex<LoadResults>,
) -> Result<()> {
    let reused = match open_connection.take() {
        Some(mut connection) => connection.try_request(target).await?.map(|response| (connection, response)),
        None => None,
    };
    // A server may close a connection between two requests. A new connection must get a response.
    let (connection, response) = match reused {
        Some(reused) => reused,
        None => {
            let mut connection = target.connect().await?;
            let response = connection.request(target).await?;
            (connection, response)
        }
    };
    ensure!(response.status == 200, "{response:?}");
    let mut results = results.lock();
    results.responses += 1;
    results.bodies.insert(response.body);
    results.certificates.extend(connection.certificate.clone());
    *open_connection = Some(connection);
    Ok(())
}
