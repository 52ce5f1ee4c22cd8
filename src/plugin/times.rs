//! How long the plugins of a chain take for one request: noted as they go, counted when it ends.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// What plugins do with a request, where it takes time that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Access,
    Answer,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Access => "access",
            Phase::Answer => "answer",
        }
    }
}

/// One plugin in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    pub plugin: &'static str,
    pub phase: Phase,
    pub time: Duration,
}

/// The clock is read once per plugin: where one ends the next begins.
#[derive(Debug, Default)]
pub struct Times {
    took: SmallVec<[Took; 4]>,
    /// Who is at work, since when. Left behind by a request that does not wait for the end.
    at_work: Option<(&'static str, Instant)>,
    last: Option<Instant>,
}

impl Times {
    /// Before the first plugin of a phase.
    pub(super) fn start(&mut self) {
        self.last = Some(Instant::now());
    }

    pub(super) fn begin(&mut self, plugin: &'static str) {
        self.at_work = self.last.map(|last| (plugin, last));
    }

    pub(super) fn end(&mut self, phase: Phase) {
        let Some((plugin, since)) = self.at_work.take() else { return };
        let now = Instant::now();
        self.took.push(Took { plugin, phase, time: now - since });
        self.last = Some(now);
    }

    /// Everything so far. Who is still at work was waited for until now.
    pub fn all(&self) -> impl Iterator<Item = Took> {
        let at_work = self.at_work.map(|(plugin, since)| Took { plugin, phase: Phase::Access, time: since.elapsed() });
        self.took.iter().copied().chain(at_work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_time_and_who_is_not_waited_for_has_it_until_then() {
        let mut times = Times::default();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        times.start();
        times.begin("key-auth");
        pass(1).await;
        times.end(Phase::Access);
        times.begin("acl");
        pass(2).await;
        times.end(Phase::Access);
        // Meanwhile the endpoint answers.
        pass(60).await;
        times.start();
        times.begin("cors");
        pass(3).await;
        times.end(Phase::Answer);
        let took = |plugin, phase, seconds| Took { plugin, phase, time: Duration::from_secs(seconds) };
        let mut expected =
            vec![took("key-auth", Phase::Access, 1), took("acl", Phase::Access, 2), took("cors", Phase::Answer, 3)];
        assert_eq!(times.all().collect::<Vec<_>>(), expected);
        times.begin("rate-limiting");
        pass(10).await;
        expected.push(took("rate-limiting", Phase::Access, 10));
        assert_eq!(times.all().collect::<Vec<_>>(), expected);
    }
}
