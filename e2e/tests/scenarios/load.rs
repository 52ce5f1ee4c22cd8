//! Load during a scenario, which records failed requests.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use portico_e2e::wait::until;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::scenarios::client::{Connection, Target};
use crate::scenarios::objects::SCENARIO_TIMEOUT;

/// Between two requests of one client: frequent, without using much CPU.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);

/// Clients that repeat a request, half of them on a keep-alive connection, the others on a new connection for each.
/// Dropping it stops them.
pub(crate) struct Load {
    results: Arc<Mutex<LoadResults>>,
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
        let results = Arc::new(Mutex::new(LoadResults::default()));
        let mut clients = JoinSet::new();
        for keep in [true, false, true, false] {
            clients.spawn(run_client(target.clone(), keep, results.clone()));
        }
        Load { results, clients }
    }

    pub(crate) fn results(&self) -> LoadResults {
        self.results.lock().clone()
    }

    /// Waits until this number of additional requests has ended.
    pub(crate) async fn wait_for_more(&self, number: usize) -> Result<()> {
        let asked = || {
            let seen = self.results.lock();
            seen.responses + seen.failures.len()
        };
        let goal = asked() + number;
        until(&format!("{number} more requests end"), SCENARIO_TIMEOUT, async || match asked() {
            asked if asked >= goal => Ok(()),
            asked => bail!("{asked} of {goal} have ended"),
        })
        .await
    }

    /// Stops the load; fails if any request failed.
    pub(crate) fn stop(mut self) -> Result<LoadResults> {
        self.clients.abort_all();
        let seen = self.results();
        let (failed, of) = (seen.failures.len(), seen.failures.len() + seen.responses);
        ensure!(failed == 0, "{failed} of {of} requests failed: {:#?}", &seen.failures[..failed.min(5)]);
        ensure!(of > 0, "no request was sent");
        Ok(seen)
    }
}

async fn run_client(target: Target, keep: bool, seen: Arc<Mutex<LoadResults>>) {
    let mut pace = interval(REQUEST_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = None;
    loop {
        pace.tick().await;
        let outcome = send_request(&target, &mut kept, &seen).await;
        if !keep || outcome.is_err() {
            kept = None;
        }
        if let Err(error) = outcome {
            seen.lock().failures.push(format!("{error:#}"));
        }
    }
}

async fn send_request(target: &Target, kept: &mut Option<Connection>, seen: &Mutex<LoadResults>) -> Result<()> {
    let open = match kept.as_mut() {
        Some(connection) => connection.is_open().await,
        None => false,
    };
    let mut connection = match kept.take() {
        Some(connection) if open => connection,
        _ => target.connect().await?,
    };
    let answer = connection.request(target).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut seen = seen.lock();
    seen.responses += 1;
    seen.bodies.insert(answer.body);
    seen.certificates.extend(connection.certificate.clone());
    *kept = Some(connection);
    Ok(())
}
