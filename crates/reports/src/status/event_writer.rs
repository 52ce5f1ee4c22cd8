//! Writes the due events, one after the other, and defers or drops those that the API server rejects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::notices::Notice;
use super::queue::{EventSource, NextEvent, StatusQueue};
use crate::api::ObjectId;
use crate::k8s::{ApiError, Event, EventRecorder, event_namespace};

/// The task that writes events.
#[derive(Debug)]
pub struct EventWriter {
    queue: StatusQueue,
    recorder: EventRecorder,
    /// The label of the last error; None after a success. Repeated errors are not logged.
    last_error: Option<&'static str>,
    /// Namespaces in which events are forbidden, and when to try again.
    forbidden_until: HashMap<Arc<str>, Instant>,
}

impl EventWriter {
    pub fn new(queue: StatusQueue, recorder: EventRecorder) -> Self {
        EventWriter { queue, recorder, last_error: None, forbidden_until: HashMap::new() }
    }

    /// Never returns. While another replica leads, the queue has no due events.
    pub async fn run(mut self) {
        loop {
            match self.queue.next_event() {
                NextEvent::Now { id, uid, api_version, notice, known, source } => {
                    if let Some(until) = self.forbidden_until(&id).filter(|until| Instant::now() < *until) {
                        self.queue.defer_event(&id, until, source);
                        continue;
                    }
                    let Notice { warning, reason, ref note, .. } = notice;
                    let event = Event { id: &id, api_version: &api_version, uid: &uid, warning, reason, note };
                    let outcome = self.recorder.record(&event, known).await;
                    // All events go to the same API server, so a delay applies to all.
                    sleep(self.handle_result(&id, notice, known, source, outcome)).await;
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

    /// Returns how long to wait before the next event.
    fn handle_result(
        &mut self,
        id: &ObjectId,
        notice: Notice,
        known: bool,
        source: EventSource,
        outcome: Result<(), ApiError>,
    ) -> Duration {
        let Err(failure) = outcome else {
            self.last_error = None;
            self.forbidden_until.remove(event_namespace(id));
            self.queue.event_written(id, notice, known, source);
            return Duration::ZERO;
        };
        let is_new_error = self.last_error.replace(failure.label()) != Some(failure.label());
        match failure {
            ApiError::Forbidden(_) => {
                if is_new_error {
                    warn!(
                        "Cannot write events in namespace {}: {failure}; allow create, get and patch on events of \
                         events.k8s.io there",
                        event_namespace(id)
                    );
                }
                // A role may allow events in other namespaces, so only the events of this namespace wait.
                let until = Instant::now() + FORBIDDEN_RETRY;
                self.forbidden_until.insert(event_namespace(id).into(), until);
                self.queue.defer_event(id, until, source);
                Duration::ZERO
            }
            ApiError::Unreachable(_) | ApiError::Conflict => {
                self.queue.event_failed(id, source);
                RETRY_DELAY
            }
            ApiError::Throttled(wait) => {
                self.queue.event_failed(id, source);
                wait.unwrap_or_default().max(RETRY_DELAY)
            }
            // The namespace is being deleted, or the event whose count was to rise has just expired: not retried.
            ApiError::NotFound | ApiError::AlreadyExists => {
                self.queue.event_written(id, notice, known, source);
                Duration::ZERO
            }
            ApiError::Rejected(_) => {
                if is_new_error {
                    info!(object = %id, reason = notice.reason, "An event was not written: {failure}");
                }
                self.queue.event_written(id, notice, known, source);
                Duration::ZERO
            }
        }
    }
}

/// The delay after an error that is likely to pass soon.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// A missing permission is not granted within seconds.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(60);
