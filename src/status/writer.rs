//! Carries out what the desk says is due, for as long as this replica leads.

use std::collections::HashMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::desk::{Desk, Job, Next, Outcome};
use super::{Merged, merge, to_json};
use crate::api::{Kind, ObjectId};
use crate::k8s::{Failure, Pen, Statuses, until};

/// Writes at a time. The API server does a few hundred a second at most; this keeps it busy without flooding it.
const AT_ONCE: usize = 16;
/// The same complaint is not repeated sooner.
const SILENCE: Duration = Duration::from_secs(60);

/// `portico_status_writes_total{kind,result}`.
#[derive(Clone, Debug, Default)]
pub struct Writes(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    result: &'static str,
}

impl Writes {
    pub fn register(registry: &mut Registry) -> Self {
        let writes = Writes::default();
        registry.register(
            "portico_status_writes",
            "Writes of an object's status, by what became of them",
            writes.0.clone(),
        );
        writes
    }

    fn count(&self, kind: Kind, result: &'static str) {
        self.0.get_or_create(&Labels { kind: kind.name(), result }).inc();
    }
}

/// The task that writes.
#[derive(Debug)]
pub struct Writer {
    desk: Desk,
    statuses: Statuses,
    /// The names under which we speak.
    controllers: Vec<String>,
    writes: Writes,
    complaints: HashMap<(Kind, &'static str), Instant>,
}

impl Writer {
    pub fn new(desk: Desk, statuses: Statuses, controllers: Vec<String>, writes: Writes) -> Self {
        Writer { desk, statuses, controllers, writes, complaints: HashMap::new() }
    }

    /// Writes while `leading` is true; returns when its other end is gone.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, pen: Pen) {
        while leading.wait_for(|leading| *leading).await.is_ok() {
            let _held = pen.hold().await;
            if !*leading.borrow() {
                // It was lost before the pen was taken, so nobody waits for it to be put down.
                continue;
            }
            self.desk.lead(true);
            let lost = self.write_until_lost(&mut leading).await;
            self.desk.lead(false);
            if lost.is_err() {
                return;
            }
        }
    }

    async fn write_until_lost(&mut self, leading: &mut watch::Receiver<bool>) -> Result<(), watch::error::RecvError> {
        // Ended with whatever is in flight: from that moment on another replica may write.
        let mut in_flight = JoinSet::new();
        let lost = loop {
            let due = self.hand_out(&mut in_flight);
            tokio::select! {
                biased;
                lost = leading.wait_for(|leading| !*leading) => break lost.map(drop),
                Some(done) = in_flight.join_next() => {
                    match done {
                        Ok((job, result)) => self.settle(job, result),
                        // Nobody knows which write that was, so everything is compared again.
                        Err(_) => {
                            in_flight = JoinSet::new();
                            self.desk.lead(false);
                            self.desk.lead(true);
                        }
                    }
                }
                () = self.desk.changed() => {}
                () = until(due) => {}
            }
        };
        in_flight.shutdown().await;
        lost
    }

    /// Starts everything that is due, and says when the next will be.
    fn hand_out(&mut self, in_flight: &mut JoinSet<(Job, Result<Outcome, Failure>)>) -> Option<Instant> {
        loop {
            match self.desk.next(AT_ONCE) {
                Next::Nothing => return None,
                Next::At(due) => return Some(due),
                Next::Job(job) if job.stale => {
                    let statuses = self.statuses.clone();
                    in_flight.spawn(async move {
                        let fetched = statuses.read(&job.id, &job.api_version).await;
                        (*job, fetched.map(Outcome::Fetched))
                    });
                }
                Next::Job(job) => match self.compare(&job) {
                    None => self.desk.done(&job, Outcome::Settled),
                    Some((before, after)) => {
                        let statuses = self.statuses.clone();
                        in_flight.spawn(async move {
                            let version = &job.resource_version;
                            let written = statuses.write(&job.id, &job.api_version, version, &before, &after).await;
                            (*job, written.map(|answer| Outcome::Written(answer, after)))
                        });
                    }
                },
            }
        }
    }

    /// The status as it is and as it should be. None if there is nothing to write.
    fn compare(&mut self, job: &Job) -> Option<(Value, Value)> {
        let before: Value = serde_json::from_str(&job.status).ok()?;
        let ours = to_json(&job.verdict);
        let Merged { status, left_out } = merge(job.id.kind, &before, &ours, &self.controllers, &now());
        for what in &left_out {
            self.complain(job.id.kind, "full", || warn!(object = %job.id, "{what}; remove entries that nobody needs"));
        }
        self.desk.left_out(&job.id, &left_out);
        let after = status?;
        let clipped = job.clipped.as_ref().is_some_and(|clipped| clipped.sent == after && clipped.kept == job.status);
        (!clipped).then_some((before, after))
    }

    fn settle(&mut self, job: Job, result: Result<Outcome, Failure>) {
        let outcome = match result {
            Ok(outcome) => {
                if matches!(outcome, Outcome::Written(..)) {
                    self.writes.count(job.id.kind, "written");
                    if self.desk.is_contested(&job.id) {
                        self.complain(job.id.kind, "contested", || {
                            warn!(
                                object = %job.id,
                                "Another controller writes the status as well, again and again; let only one serve the \
                                 GatewayClass. Until then it is written less often"
                            );
                        });
                    }
                    debug!(object = %job.id, took = ?job.started.elapsed(), "Wrote the status");
                }
                outcome
            }
            Err(failure) => {
                self.writes.count(job.id.kind, failure.word());
                self.explain(&job.id, &failure);
                match failure {
                    Failure::Conflict => Outcome::Conflict,
                    Failure::Gone => Outcome::Gone,
                    Failure::Throttled(wait) => Outcome::Failed(wait),
                    Failure::Forbidden(_) => Outcome::Forbidden,
                    Failure::Refused(_) | Failure::Exists => Outcome::Refused,
                    Failure::Unreachable(_) => Outcome::Failed(None),
                }
            }
        };
        self.desk.done(&job, outcome);
    }

    fn explain(&mut self, id: &ObjectId, failure: &Failure) {
        let kind = id.kind;
        self.complain(kind, failure.word(), || match failure {
            Failure::Conflict | Failure::Gone | Failure::Exists => {
                debug!(object = %id, "Did not write the status: {failure}");
            }
            Failure::Throttled(_) | Failure::Unreachable(_) => {
                info!(object = %id, "Cannot write the status now: {failure}; it is tried again");
            }
            Failure::Forbidden(_) => {
                let what = format!("{}/status", kind.plural());
                let group = kind.group();
                warn!(object = %id, "Cannot write the status: {failure}; allow `patch` on {what} of {group}");
            }
            Failure::Refused(_) => {
                warn!(object = %id, "Cannot write the status: {failure}; what is served is not affected");
            }
        });
    }

    fn complain(&mut self, kind: Kind, what: &'static str, say: impl FnOnce()) {
        let now = Instant::now();
        let last = self.complaints.get(&(kind, what));
        if last.is_none_or(|last| now.saturating_duration_since(*last) >= SILENCE) {
            self.complaints.insert((kind, what), now);
            say();
        }
    }
}

/// As the API server writes times: to the second.
fn now() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
