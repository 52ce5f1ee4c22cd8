//! The transitions of endpoints: a log line each, within bounds, and the last ones of each endpoint for reports.

use std::collections::VecDeque;

use super::{ObservedEndpoint, OutlierDetection};
use crate::upstream::health::EjectionCause;

/// What an endpoint has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    Available,
    Suspect,
    HalfOpen,
    Ejected,
    /// It would be ejected, but the policy is a dry run.
    DryEjected,
}

impl HealthState {
    /// The name in logs and debug output.
    pub fn name(self) -> &'static str {
        match self {
            HealthState::Available => "available",
            HealthState::Suspect => "suspect",
            HealthState::HalfOpen => "half_open",
            HealthState::Ejected => "ejected",
            HealthState::DryEjected => "dry_ejected",
        }
    }
}

/// A transition of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTransition {
    /// Milliseconds of the upstream's clock; in a report, those that have passed since.
    pub millis: u64,
    pub to: HealthState,
    /// Why the endpoint is ejected, or was until then.
    pub cause: Option<EjectionCause>,
    /// What happened, cut to a few words.
    pub error: Option<Box<str>>,
}

/// A transition to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HealthChange {
    pub(super) to: HealthState,
    pub(super) cause: Option<EjectionCause>,
    /// When the ejection ends, in milliseconds of the upstream's clock.
    pub(super) until: Option<u64>,
}

/// The last transitions of one endpoint, oldest first.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most endpoints have no transitions, and a box has a quarter of the size")]
pub(super) struct Transitions(Option<Box<VecDeque<HealthTransition>>>);

impl Transitions {
    fn push(&mut self, transition: HealthTransition) {
        let transitions = self.0.get_or_insert_default();
        if transitions.len() >= MAX_TRANSITIONS {
            transitions.pop_front();
        }
        transitions.push_back(transition);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HealthTransition> {
        self.0.iter().flat_map(|transitions| transitions.iter())
    }
}

/// How many lines are written.
#[derive(Debug, Default)]
pub(super) struct TransitionLog {
    /// When the current window began, in milliseconds of the upstream's clock.
    since: u64,
    lines: u32,
    left_out: u64,
}

impl TransitionLog {
    /// Whether a line may be written, and how many were left out before it.
    fn take(&mut self, now: u64) -> Option<u64> {
        if now.saturating_sub(self.since) >= WINDOW_MILLIS {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl OutlierDetection {
    /// Records and logs a transition that was made.
    pub(super) fn announce(&self, seen: &ObservedEndpoint<'_>, change: HealthChange) {
        self.update_degraded();
        let HealthChange { to, cause, until } = change;
        let now = self.clock.now();
        let error = seen.error.map(|error| cut(error.to_string()));
        if let Some(member) = self.members.lock().get_mut(seen.address) {
            let error = error.clone();
            member.transitions.push(HealthTransition { millis: now, to, cause, error });
        }
        let (upstream, endpoint) = (seen.upstream, seen.address);
        let cause = cause.map_or("none", EjectionCause::name);
        let error = error.as_deref().unwrap_or("none");
        if to == HealthState::Suspect || cause == "none" {
            // Endpoints close idle connections all the time.
            tracing::debug!(%upstream, %endpoint, state = to.name(), error, "An endpoint is checked by a connection");
            return;
        }
        let Some(left_out) = self.log.lock().take(now) else { return };
        match to {
            HealthState::Ejected | HealthState::DryEjected => {
                let for_millis = until.map_or(0, |until| until.saturating_sub(now));
                let dry_run = to == HealthState::DryEjected;
                tracing::info!(
                    %upstream, %endpoint, cause, error, for_millis, dry_run, left_out,
                    "Ejected an endpoint"
                );
            }
            HealthState::HalfOpen => {
                tracing::info!(%upstream, %endpoint, cause, left_out, "An endpoint is tried with single requests");
            }
            HealthState::Available | HealthState::Suspect => {
                tracing::info!(%upstream, %endpoint, cause, left_out, "An endpoint is available again");
            }
        }
    }
}

/// Errors may repeat what an endpoint has sent.
fn cut(text: String) -> Box<str> {
    text.chars().filter(|char| !char.is_control()).take(MAX_ERROR).collect::<String>().into()
}

/// How many transitions of an endpoint are kept.
const MAX_TRANSITIONS: usize = 16;
/// How many lines are written for an upstream in a window.
const MAX_LINES: u32 = 20;
const WINDOW_MILLIS: u64 = 10_000;
/// How many characters of an error are kept.
const MAX_ERROR: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_counted() {
        let mut log = TransitionLog::default();
        for _ in 0..MAX_LINES {
            assert_eq!(log.take(1), Some(0));
        }
        assert_eq!([log.take(1), log.take(WINDOW_MILLIS - 1)], [None, None]);
        assert_eq!([log.take(WINDOW_MILLIS), log.take(WINDOW_MILLIS)], [Some(2), Some(0)]);
    }

    #[test]
    fn last_transitions_are_kept() {
        let mut transitions = Transitions::default();
        for millis in 0..20 {
            transitions.push(HealthTransition { millis, to: HealthState::Ejected, cause: None, error: None });
        }
        assert!(transitions.iter().map(|transition| transition.millis).eq(4..20));
    }

    #[test]
    fn errors_are_cut() {
        assert_eq!(&*cut("a\nb".to_owned()), "ab");
        assert_eq!(cut("ä".repeat(300)).chars().count(), MAX_ERROR);
    }
}
