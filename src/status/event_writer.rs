//! Writes events, one after the other, while this replica leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::notices::Notice;
use super::queue::{NextEvent, StatusQueue};
use crate::api::ObjectId;
use crate::k8s::{ApiError, Event, EventRecorder, event_namespace};

/// The task that writes events.
#[derive(Debug)]
pub struct EventWriter {
    queue: StatusQueue,
    recorder: EventRecorder,
    last_logged: Option<&'static str>,
    /// Namespaces in which events are forbidden, and when to try again.
    forbidden_until: HashMap<Arc<str>, Instant>,
}

impl EventWriter {
    pub fn new(queue: StatusQueue, recorder: EventRecorder) -> Self {
        EventWriter { queue, recorder, last_logged: None, forbidden_until: HashMap::new() }
    }

    /// Never returns. The queue holds the due events; it is empty while another replica leads.
    pub async fn run(mut self) {
        loop {
            match self.queue.next_event() {
                NextEvent::Now { id, .. } if self.forbidden_until(&id).is_some_and(|until| Instant::now() < until) => {
                    self.queue.defer_event(&id, self.forbidden_until(&id).unwrap_or_else(Instant::now));
                }
                NextEvent::Now { id, uid, api_version, notice, known } => {
                    let Notice { warning, reason, ref note } = notice;
                    let event = Event { id: &id, api_version: &api_version, uid: &uid, warning, reason, note };
                    let outcome = self.recorder.record(&event, known).await;
                    // All events go to the same API server, so a delay applies to all.
                    sleep(self.handle_result(&id, notice, outcome)).await;
                }
                NextEvent::At(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.queue.events_changed() => {}
                },
                NextEvent::Nothing => self.queue.events_changed().await,
            }
        }
    }

    fn forbidden_until(&self, id: &ObjectId) -> Option<Instant> {
        self.forbidden_until.get(event_namespace(id)).copied()
    }

    fn handle_result(&mut self, id: &ObjectId, notice: Notice, outcome: Result<(), ApiError>) -> Duration {
        let Err(failure) = outcome else {
            self.last_logged = None;
            self.forbidden_until.remove(event_namespace(id));
            self.queue.event_written(id, notice);
            return Duration::ZERO;
        };
        let first = self.last_logged.replace(failure.label()) != Some(failure.label());
        match failure {
            ApiError::Forbidden(_) => {
                if first {
                    warn!(
                        "Cannot write events in namespace {}: {failure}; allow create, get and patch on events of \
                         events.k8s.io there. Statuses say the same",
                        event_namespace(id)
                    );
                }
                // Other namespaces may have other roles.
                let until = Instant::now() + FORBIDDEN_RETRY;
                self.forbidden_until.insert(event_namespace(id).into(), until);
                self.queue.defer_event(id, until);
                Duration::ZERO
            }
            ApiError::Unreachable(_) | ApiError::Conflict => {
                self.queue.event_failed(id);
                RETRY_DELAY
            }
            ApiError::Throttled(wait) => {
                self.queue.event_failed(id);
                wait.unwrap_or_default().max(RETRY_DELAY)
            }
            // The namespace is being deleted, or the event to count up has just expired.
            ApiError::NotFound | ApiError::AlreadyExists => {
                self.queue.event_written(id, notice);
                Duration::ZERO
            }
            ApiError::Rejected(_) => {
                if first {
                    info!(object = %id, reason = notice.reason, "An event was not written: {failure}");
                }
                self.queue.event_written(id, notice);
                Duration::ZERO
            }
        }
    }
}

const RETRY_DELAY: Duration = Duration::from_secs(2);
/// A missing permission is not granted within seconds.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(60);
