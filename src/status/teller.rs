//! Tells events, one after the other, for as long as this replica leads.

use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use super::desk::{Desk, Telling};
use super::notices::Notice;
use crate::api::ObjectId;
use crate::k8s::{Event, Failure, Recorder};

/// The task that tells.
#[derive(Debug)]
pub struct Teller {
    desk: Desk,
    recorder: Recorder,
    complained: Option<&'static str>,
}

impl Teller {
    pub fn new(desk: Desk, recorder: Recorder) -> Self {
        Teller { desk, recorder, complained: None }
    }

    /// Never returns by itself. What there is to tell is known to the desk, and nothing is while another replica leads.
    pub async fn run(mut self) {
        loop {
            match self.desk.next_event() {
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

    fn settle(&mut self, id: &ObjectId, notice: Notice, outcome: Result<(), Failure>) -> Duration {
        let Err(failure) = outcome else {
            self.complained = None;
            self.desk.told(id, notice);
            return Duration::ZERO;
        };
        let first = self.complained.replace(failure.word()) != Some(failure.word());
        match failure {
            Failure::Forbidden(_) => {
                if first {
                    warn!(
                        "Cannot tell events: {failure}; allow create, get and patch on events of events.k8s.io. \
                         Statuses say the same"
                    );
                }
                self.desk.not_told(id);
                FORBIDDEN
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
