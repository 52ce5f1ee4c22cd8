//! Durations of the plugins of a chain for one request, recorded as they run and counted when the request ends.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// The phases that delay a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginPhase {
    Access,
    Response,
}

impl PluginPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            PluginPhase::Access => "access",
            PluginPhase::Response => "response",
        }
    }
}

/// The duration of one plugin in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseTiming {
    pub plugin: &'static str,
    pub phase: PluginPhase,
    pub duration: Duration,
}

/// The clock is read once per plugin: the end of one plugin is the beginning of the next.
#[derive(Debug, Default)]
pub struct PhaseTimings {
    completed: SmallVec<[PhaseTiming; 4]>,
    /// The running plugin and its start. Remains set if the request is aborted while the plugin waits.
    running: Option<(&'static str, Instant)>,
    last: Option<Instant>,
}

impl PhaseTimings {
    /// Called before the first plugin of a phase.
    pub(super) fn start(&mut self) {
        self.last = Some(Instant::now());
    }

    pub(super) fn begin(&mut self, plugin: &'static str) {
        self.running = self.last.map(|last| (plugin, last));
    }

    pub(super) fn end(&mut self, phase: PluginPhase) {
        let Some((plugin, since)) = self.running.take() else { return };
        let now = Instant::now();
        self.completed.push(PhaseTiming { plugin, phase, duration: now - since });
        self.last = Some(now);
    }

    /// All durations so far. A plugin that is still running counts until now.
    pub fn all(&self) -> impl Iterator<Item = PhaseTiming> {
        let at_work = self.running.map(|(plugin, since)| PhaseTiming {
            plugin,
            phase: PluginPhase::Access,
            duration: since.elapsed(),
        });
        self.completed.iter().copied().chain(at_work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn running_plugins_are_timed_until_now() {
        let mut times = PhaseTimings::default();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        times.start();
        times.begin("key-auth");
        pass(1).await;
        times.end(PluginPhase::Access);
        times.begin("acl");
        pass(2).await;
        times.end(PluginPhase::Access);
        // Time of the endpoint.
        pass(60).await;
        times.start();
        times.begin("cors");
        pass(3).await;
        times.end(PluginPhase::Response);
        let took = |plugin, phase, seconds| PhaseTiming { plugin, phase, duration: Duration::from_secs(seconds) };
        let mut expected = vec![
            took("key-auth", PluginPhase::Access, 1),
            took("acl", PluginPhase::Access, 2),
            took("cors", PluginPhase::Response, 3),
        ];
        assert_eq!(times.all().collect::<Vec<_>>(), expected);
        times.begin("rate-limiting");
        pass(10).await;
        expected.push(took("rate-limiting", PluginPhase::Access, 10));
        assert_eq!(times.all().collect::<Vec<_>>(), expected);
    }
}
