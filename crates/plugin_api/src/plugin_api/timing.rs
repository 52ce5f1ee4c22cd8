//! Durations of the plugins of a chain for one request, recorded as they run and counted when the request ends.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::turn_clock;

/// The phases that delay a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginPhase {
    Access,
    BeforeForward,
    Response,
    /// Buffered filters of response bodies.
    Body,
}

impl PluginPhase {
    /// In the order of their declaration.
    pub const ALL: [PluginPhase; 4] =
        [PluginPhase::Access, PluginPhase::BeforeForward, PluginPhase::Response, PluginPhase::Body];

    pub fn as_str(self) -> &'static str {
        match self {
            PluginPhase::Access => "access",
            PluginPhase::BeforeForward => "before_forward",
            PluginPhase::Response => "response",
            PluginPhase::Body => "body",
        }
    }
}

/// The time of one plugin in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseTiming {
    pub plugin: &'static str,
    pub phase: PluginPhase,
    pub started_at: Instant,
    pub duration: Duration,
}

/// The durations of all plugins for one request. The clock is read once per plugin: the end of one plugin is the
/// beginning of the next. Each reading becomes the time of the current turn, so that what follows the plugins needs no
/// reading of its own.
#[derive(Debug, Default)]
pub struct PhaseTimings {
    completed: SmallVec<[PhaseTiming; 4]>,
    /// The running plugin and its start. Remains set if the request is aborted while the plugin waits.
    running: Option<(&'static str, PluginPhase, Instant)>,
    /// The end of the previous plugin, or the start of the phase.
    previous_end: Option<Instant>,
}

impl PhaseTimings {
    /// Called before the first plugin of a phase.
    pub fn start(&mut self) {
        self.previous_end = Some(turn_clock::refresh());
    }

    /// Called before a plugin runs.
    pub fn begin(&mut self, plugin: &'static str, phase: PluginPhase) {
        self.running = self.previous_end.map(|start| (plugin, phase, start));
    }

    /// Called after a plugin has run.
    pub fn end(&mut self) {
        let Some((plugin, phase, start)) = self.running.take() else { return };
        let now = turn_clock::refresh();
        self.completed.push(PhaseTiming { plugin, phase, started_at: start, duration: now - start });
        self.previous_end = Some(now);
    }

    /// Records the duration of a body filter, which runs after the response phase of all plugins.
    pub fn record_body_filter(&mut self, plugin: &'static str, duration: Duration) {
        let now = turn_clock::now();
        let started_at = now.checked_sub(duration).unwrap_or(now);
        self.completed.push(PhaseTiming { plugin, phase: PluginPhase::Body, started_at, duration });
    }

    /// All durations so far. A plugin that is still running is timed until now.
    pub fn all(&self) -> impl Iterator<Item = PhaseTiming> {
        let running = self.running.map(|(plugin, phase, started_at)| {
            let duration = started_at.elapsed();
            PhaseTiming { plugin, phase, started_at, duration }
        });
        self.completed.iter().copied().chain(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn running_plugins_are_timed_until_now() {
        let mut timings = PhaseTimings::default();
        let began_at = Instant::now();
        let advance = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        timings.start();
        timings.begin("key-auth", PluginPhase::Access);
        advance(1).await;
        timings.end();
        timings.begin("acl", PluginPhase::Access);
        advance(2).await;
        timings.end();
        // The time that the endpoint takes is not measured.
        advance(60).await;
        timings.start();
        timings.begin("cors", PluginPhase::Response);
        advance(3).await;
        timings.end();
        let timing = |plugin, phase, start, seconds| {
            let started_at = began_at + Duration::from_secs(start);
            PhaseTiming { plugin, phase, started_at, duration: Duration::from_secs(seconds) }
        };
        let mut expected = vec![
            timing("key-auth", PluginPhase::Access, 0, 1),
            timing("acl", PluginPhase::Access, 1, 2),
            timing("cors", PluginPhase::Response, 63, 3),
        ];
        assert_eq!(timings.all().collect::<Vec<_>>(), expected);
        timings.begin("rate-limiting", PluginPhase::Access);
        advance(10).await;
        expected.push(timing("rate-limiting", PluginPhase::Access, 66, 10));
        assert_eq!(timings.all().collect::<Vec<_>>(), expected);
    }
}
