//! Requests that flow while a scenario does something, and whether any of them failed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use portico_e2e::patience::until;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::client::{Connection, Target};
use crate::objects::PATIENCE;

/// Between two requests of one client: enough of them, and the machine has time for other things.
const PACE: Duration = Duration::from_millis(10);

/// Clients that ask the same again and again, half of them on one connection for all, the others on a new one for each.
/// Dropping it ends them.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) bodies: BTreeSet<String>,
    pub(crate) certificates: HashSet<CertificateDer<'static>>,
}

impl Load {
    pub(crate) fn start(target: &Target) -> Load {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut clients = JoinSet::new();
        for keep in [true, false, true, false] {
            clients.spawn(ask_on(target.clone(), keep, seen.clone()));
        }
        Load { seen, clients }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Waits until so many more requests were answered, or failed.
    pub(crate) async fn more(&self, number: usize) -> Result<()> {
        let asked = || {
            let seen = self.seen.lock();
            seen.answers + seen.failures.len()
        };
        let goal = asked() + number;
        until(&format!("{number} more requests end"), PATIENCE, async || match asked() {
            asked if asked >= goal => Ok(()),
            asked => bail!("{asked} of {goal} did"),
        })
        .await
    }

    /// Ends it; fails if a single request did.
    pub(crate) fn stop(mut self) -> Result<Seen> {
        self.clients.abort_all();
        let seen = self.seen();
        let (failed, of) = (seen.failures.len(), seen.failures.len() + seen.answers);
        ensure!(failed == 0, "{failed} of {of} requests failed: {:#?}", &seen.failures[..failed.min(5)]);
        ensure!(of > 0, "nothing was asked");
        Ok(seen)
    }
}

async fn ask_on(target: Target, keep: bool, seen: Arc<Mutex<Seen>>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = None;
    loop {
        pace.tick().await;
        let outcome = ask(&target, &mut kept, &seen).await;
        if !keep || outcome.is_err() {
            kept = None;
        }
        if let Err(error) = outcome {
            seen.lock().failures.push(format!("{error:#}"));
        }
    }
}

async fn ask(target: &Target, kept: &mut Option<Connection>, seen: &Mutex<Seen>) -> Result<()> {
    let open = match kept.as_mut() {
        Some(connection) => connection.is_open().await,
        None => false,
    };
    let mut connection = match kept.take() {
        Some(connection) if open => connection,
        _ => target.connect().await?,
    };
    let answer = connection.ask(target).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut seen = seen.lock();
    seen.answers += 1;
    seen.bodies.insert(answer.body);
    seen.certificates.extend(connection.certificate.clone());
    *kept = Some(connection);
    Ok(())
}
