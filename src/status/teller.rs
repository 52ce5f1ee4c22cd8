//! Tells events, one after the other, for as long as this replica leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::desk::{Desk, Telling};
use super::notices::Notice;
use crate::api::ObjectId;
use crate::k8s::{Event, Failure, Recorder, events_of};

/// The task that tells.
#[derive(Debug)]
pub struct Teller {
    desk: Desk,
    recorder: Recorder,
    complained: Option<&'static str>,
    /// Namespaces in which we may not tell any, and when to try again.
    barred: HashMap<Arc<str>, Instant>,
}

impl Teller {
    pub fn new(desk: Desk, recorder: Recorder) -> Self {
        Teller { desk, recorder, complained: None, barred: HashMap::new() }
    }

    /// Never returns by itself. What there is to tell is known to the desk, and nothing is while another replica leads.
    pub async fn run(mut self) {
        loop {
            match self.desk.next_event() {
                Telling::Now { id, .. } if self.barred_until(&id).is_some_and(|until| Instant::now() < until) => {
                    self.desk.tell_later(&id, self.barred_until(&id).unwrap_or_else(Instant::now));
                }
                Telling::Now { id, uid, api_version, notice, known } => {
                    let Notice { warning, reason, ref note } = notice;
                    let event = Event { id: &id, api_version: &api_version, uid: &uid, warning, reason, note };
                    let outcome = self.recorder.record(&event, known).await;
                    // All of them are told to the same one, so what one meets with awaits the others too.
                    sleep(self.settle(&id, notice, outcome)).await;
                }
                Telling::At(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.desk.noticed() => {}
                },
                Telling::Nothing => self.desk.noticed().await,
            }
        }
    }

    fn barred_until(&self, id: &ObjectId) -> Option<Instant> {
        self.barred.get(events_of(id)).copied()
    }

    fn settle(&mut self, id: &ObjectId, notice: Notice, outcome: Result<(), Failure>) -> Duration {
        let Err(failure) = outcome else {
            self.complained = None;
            self.barred.remove(events_of(id));
            self.desk.told(id, notice);
            return Duration::ZERO;
        };
        let first = self.complained.replace(failure.word()) != Some(failure.word());
        match failure {
            Failure::Forbidden(_) => {
                if first {
                    warn!(
                        "Cannot tell events in namespace {}: {failure}; allow create, get and patch on events of \
                         events.k8s.io there. Statuses say the same",
                        events_of(id)
                    );
                }
                // Other namespaces may have other roles.
                let until = Instant::now() + FORBIDDEN;
                self.barred.insert(events_of(id).into(), until);
                self.desk.tell_later(id, until);
                Duration::ZERO
            }
            Failure::Unreachable(_) | Failure::Conflict => {
                self.desk.not_told(id);
                LATER
            }
            Failure::Throttled(wait) => {
                self.desk.not_told(id);
                wait.unwrap_or_default().max(LATER)
            }
            // Its namespace is going, or the event that it was to be counted in has run out just now.
            Failure::Gone | Failure::Exists => {
                self.desk.told(id, notice);
                Duration::ZERO
            }
            Failure::Refused(_) => {
                if first {
                    info!(object = %id, reason = notice.reason, "An event was not told: {failure}");
                }
                self.desk.told(id, notice);
                Duration::ZERO
            }
        }
    }
}

const LATER: Duration = Duration::from_secs(2);
/// Permissions are not given every few seconds.
const FORBIDDEN: Duration = Duration::from_secs(60);
