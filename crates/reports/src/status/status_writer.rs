//! Executes the due status writes while this replica leads.

use std::collections::HashMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::json::status_in_cluster;
use super::queue::{NextWrite, StatusQueue, WriteJob, WriteOutcome};
use super::{MergedStatus, merge};
use crate::api::{Kind, ObjectId};
use crate::k8s::{ApiError, LeaderWriteGuard, StatusClient, sleep_until_deadline};

/// Concurrent writes. The API server handles a few hundred a second; this keeps it busy without flooding it.
const MAX_CONCURRENT_WRITES: usize = 16;
/// The minimum interval between two log lines about the same kind and topic.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// `portico_status_writes_total{kind,result}`.
#[derive(Clone, Debug, Default)]
pub struct StatusWriteMetrics(Family<StatusWriteLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusWriteLabels {
    kind: &'static str,
    result: &'static str,
}

impl StatusWriteMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let writes = StatusWriteMetrics::default();
        registry.register("portico_status_writes", "Writes of an object's status, by result", writes.0.clone());
        writes
    }

    fn count(&self, kind: Kind, result: &'static str) {
        self.0.get_or_create(&StatusWriteLabels { kind: kind.name(), result }).inc();
    }
}

/// The task that writes statuses.
#[derive(Debug)]
pub struct StatusWriter {
    queue: StatusQueue,
    statuses: StatusClient,
    /// Portico's controller names.
    controllers: Vec<String>,
    writes: StatusWriteMetrics,
    last_logged: HashMap<(Kind, &'static str), Instant>,
}

impl StatusWriter {
    pub fn new(
        queue: StatusQueue,
        statuses: StatusClient,
        controllers: Vec<String>,
        writes: StatusWriteMetrics,
    ) -> Self {
        StatusWriter { queue, statuses, controllers, writes, last_logged: HashMap::new() }
    }

    /// Writes while `leading` is true. Returns when the sender of `leading` is dropped.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, guard: LeaderWriteGuard) {
        while leading.wait_for(|leading| *leading).await.is_ok() {
            let _permit = guard.acquire().await;
            if !*leading.borrow() {
                // Leadership was lost before the guard was taken, so the Lease may be released already.
                continue;
            }
            self.queue.set_leading(true);
            let end = self.write_while_leading(&mut leading).await;
            self.queue.set_leading(false);
            if end.is_err() {
                return;
            }
        }
    }

    async fn write_while_leading(
        &mut self,
        leading: &mut watch::Receiver<bool>,
    ) -> Result<(), watch::error::RecvError> {
        // Aborted when leadership is lost: from then on, another replica may write.
        let mut in_flight = JoinSet::new();
        let end = loop {
            let next_due = self.start_due(&mut in_flight).await;
            tokio::select! {
                biased;
                end = leading.wait_for(|leading| !*leading) => break end.map(drop),
                Some(done) = in_flight.join_next() => {
                    match done {
                        Ok((job, result)) => self.handle_result(job, result),
                        // It is unknown which write panicked, so all objects are compared again.
                        Err(_) => {
                            in_flight = JoinSet::new();
                            self.queue.set_leading(false);
                            self.queue.set_leading(true);
                        }
                    }
                }
                () = self.queue.changed() => {}
                () = sleep_until_deadline(next_due) => {}
            }
        };
        in_flight.shutdown().await;
        end
    }

    /// Starts the due jobs, as far as the limit allows, and returns when the next one is due.
    async fn start_due(
        &mut self,
        in_flight: &mut JoinSet<(WriteJob, Result<WriteOutcome, ApiError>)>,
    ) -> Option<Instant> {
        loop {
            match self.queue.next(MAX_CONCURRENT_WRITES) {
                NextWrite::Nothing => return None,
                NextWrite::At(due) => return Some(due),
                NextWrite::Job(job) if job.stale => {
                    let statuses = self.statuses.clone();
                    in_flight.spawn(async move {
                        let fetched = statuses.read(&job.id, &job.api_version).await;
                        (*job, fetched.map(WriteOutcome::Fetched))
                    });
                }
                NextWrite::Job(job) => match self.current_and_new_status(&job) {
                    None => {
                        self.queue.done(&job, WriteOutcome::UpToDate);
                        // A new leader compares all objects, of which most need no write.
                        yield_now().await;
                    }
                    Some((before, after)) => {
                        let statuses = self.statuses.clone();
                        in_flight.spawn(async move {
                            let version = &job.resource_version;
                            let written = statuses.write(&job.id, &job.api_version, version, &before, &after).await;
                            (*job, written.map(|copy| WriteOutcome::Written(copy, after)))
                        });
                    }
                },
            }
        }
    }

    /// The current and the new status; None if there is nothing to write. A list that is full is logged and reported.
    fn current_and_new_status(&mut self, job: &WriteJob) -> Option<(Value, Value)> {
        let before: Value = serde_json::from_str(&job.status).ok()?;
        let desired = status_in_cluster(&job.verdict);
        let MergedStatus { status, left_out } =
            merge(job.id.kind, &before, &desired, &self.controllers, &now_seconds());
        for message in &left_out {
            self.log_throttled(job.id.kind, "full", || warn!(object = %job.id, "{message}; remove unused entries"));
        }
        self.queue.set_left_out(&job.id, &left_out);
        let after = status?;
        let was_sent =
            job.partially_stored.as_ref().is_some_and(|partial| partial.sent == after && partial.kept == job.status);
        (!was_sent).then_some((before, after))
    }

    fn handle_result(&mut self, job: WriteJob, result: Result<WriteOutcome, ApiError>) {
        let outcome = match result {
            Ok(outcome) => {
                if matches!(outcome, WriteOutcome::Written(..)) {
                    self.writes.count(job.id.kind, "written");
                    if self.queue.is_contested(&job.id) {
                        self.log_throttled(job.id.kind, "contested", || {
                            warn!(
                                object = %job.id,
                                "Another controller keeps overwriting the status; let only one serve the GatewayClass. \
                                 Until then, Portico writes it less often"
                            );
                        });
                    }
                    debug!(object = %job.id, took = ?job.started.elapsed(), "Wrote the status");
                }
                outcome
            }
            Err(failure) => {
                self.writes.count(job.id.kind, failure.label());
                self.log_failure(&job.id, &failure);
                match failure {
                    ApiError::Conflict => WriteOutcome::Conflict,
                    ApiError::NotFound => WriteOutcome::NotFound,
                    ApiError::Throttled(wait) => WriteOutcome::Failed(wait),
                    ApiError::Forbidden(_) => WriteOutcome::Forbidden,
                    ApiError::Rejected(_) | ApiError::AlreadyExists => WriteOutcome::Rejected,
                    ApiError::Unreachable(_) => WriteOutcome::Failed(None),
                }
            }
        };
        self.queue.done(&job, outcome);
    }

    fn log_failure(&mut self, id: &ObjectId, failure: &ApiError) {
        let kind = id.kind;
        self.log_throttled(kind, failure.label(), || match failure {
            ApiError::Conflict | ApiError::NotFound | ApiError::AlreadyExists => {
                debug!(object = %id, "Did not write the status: {failure}");
            }
            ApiError::Throttled(_) | ApiError::Unreachable(_) => {
                info!(object = %id, "Cannot write the status now: {failure}; Portico retries");
            }
            ApiError::Forbidden(_) => {
                let resource = format!("{}/status", kind.plural());
                let group = kind.group();
                warn!(object = %id, "Cannot write the status: {failure}; allow `patch` on {resource} of \"{group}\"");
            }
            ApiError::Rejected(_) => {
                warn!(object = %id, "Cannot write the status: {failure}; traffic is not affected");
            }
        });
    }

    fn log_throttled(&mut self, kind: Kind, topic: &'static str, log: impl FnOnce()) {
        let now = Instant::now();
        let last = self.last_logged.get(&(kind, topic));
        if last.is_none_or(|last| now.saturating_duration_since(*last) >= LOG_INTERVAL) {
            self.last_logged.insert((kind, topic), now);
            log();
        }
    }
}

/// The current time in the API server's format, to the second.
fn now_seconds() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::poll;
    use kube::Client;
    use serde_json::json;

    use super::*;
    use crate::api::ObjectKey;
    use crate::k8s::Observed;
    use crate::verdict::Verdict;

    /// A new leader compares tens of thousands of objects, on one of two threads.
    #[tokio::test]
    async fn other_tasks_run_between_comparisons() {
        const OBJECTS: usize = 5;
        let queue = StatusQueue::new();
        queue.set_leading(true);
        for index in 0..OBJECTS {
            let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", &format!("r{index}")));
            let status = Arc::new(json!({"parents": []}));
            let observed =
                Observed { uid: "u".into(), resource_version: "1".into(), generation: 1, status, listed: false };
            queue.observe(id.clone(), Some(observed));
            queue.set_verdict(id, Some(Arc::new(Verdict { generation: 1, ..Verdict::default() })));
        }
        let server = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::ready(Ok::<_, Infallible>(http::Response::new(kube::client::Body::empty())))
        });
        let (_sender, client) = watch::channel(Client::new(server, "default"));
        let mut writer = StatusWriter::new(queue, StatusClient::new(client), vec![], StatusWriteMetrics::default());
        let mut in_flight = JoinSet::new();
        let mut polls = 1;
        {
            let mut start_due = pin!(writer.start_due(&mut in_flight));
            while poll!(start_due.as_mut()).is_pending() {
                polls += 1;
                yield_now().await;
            }
        }
        assert_eq!((polls, in_flight.len()), (OBJECTS + 1, 0), "nothing is written, and each comparison yields");
    }
}
