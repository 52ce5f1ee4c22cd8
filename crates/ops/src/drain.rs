//! Graceful shutdown: a signal starts a sequence of phases, and every task can read the phase or wait for one. The file
//! also holds the signal that reopens log files.
//!
//! ```text
//!   Serving ──signal──▶ Leaving ──delay──▶ Draining ──timeout──▶ Ended
//!                          └───────second signal──────────┴────────▲
//! ```

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

/// Progress of the shutdown. Phases only ever advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// No stop was requested.
    Serving,
    /// Not ready any more but still serving: load balancers may not have noticed yet.
    Leaving,
    /// Idle connections are closed; requests may finish until `until`.
    Draining { until: Instant },
    /// Everything still running is aborted.
    Ended,
}

/// Reads the phase and waits for it. Clones share one phase.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<DrainPhase>,
}

impl Drain {
    pub fn phase(&self) -> DrainPhase {
        *self.phase.borrow()
    }

    /// Waits until readiness should be withdrawn.
    pub async fn leaving(&self) {
        self.wait_for(|phase| phase >= DrainPhase::Leaving).await;
    }

    /// Waits until no new work should start. Returns the deadline of running work, which is now if the shutdown has
    /// ended.
    pub async fn draining(&self) -> Instant {
        match self.wait_for(|phase| phase > DrainPhase::Leaving).await {
            DrainPhase::Draining { until } => until,
            DrainPhase::Serving | DrainPhase::Leaving | DrainPhase::Ended => Instant::now(),
        }
    }

    /// Waits until everything still running has to be aborted.
    pub async fn ended(&self) {
        self.wait_for(|phase| phase == DrainPhase::Ended).await;
    }

    /// Waits for a matching phase. A dropped [`DrainController`] counts as [`DrainPhase::Ended`].
    async fn wait_for(&self, wanted: impl Fn(DrainPhase) -> bool) -> DrainPhase {
        let mut phase = self.phase.clone();
        phase.wait_for(|phase| wanted(*phase)).await.map_or(DrainPhase::Ended, |phase| *phase)
    }
}

/// Advances the phases while `run` is polled. Dropping the controller has the effect of [`DrainPhase::Ended`] on every
/// task that waits for a phase.
#[derive(Debug)]
pub struct DrainController<S> {
    stop_source: S,
    delay: Duration,
    timeout: Duration,
    phase: watch::Sender<DrainPhase>,
}

/// Source of stop requests.
pub trait StopSource: Send {
    /// Waits for the next stop request and returns its name, for example `SIGTERM`.
    fn next(&mut self) -> impl Future<Output = &'static str> + Send;
}

/// A controller and the [`Drain`] that reads its phase. `Leaving` lasts for `delay`, `Draining` for `timeout`.
pub fn drain_controller<S: StopSource>(
    stop_source: S,
    delay: Duration,
    timeout: Duration,
) -> (DrainController<S>, Drain) {
    let (phase, receiver) = watch::channel(DrainPhase::Serving);
    (DrainController { stop_source, delay, timeout, phase }, Drain { phase: receiver })
}

impl<S: StopSource> DrainController<S> {
    /// Waits for the first stop request, advances through the phases and returns at the end.
    pub async fn run(mut self) {
        let signal = self.stop_source.next().await;
        info!(signal, delay = ?self.delay, timeout = ?self.timeout, "Stopping; a second signal ends at once");
        let phase = &self.phase;
        let advance_phases = async {
            // Sent even without a delay because tasks wait for this phase.
            phase.send_replace(DrainPhase::Leaving);
            sleep(self.delay).await;
            let until = Instant::now() + self.timeout;
            phase.send_replace(DrainPhase::Draining { until });
            sleep_until(until).await;
        };
        tokio::select! {
            // The phases are polled first, so that a signal at the moment of the timeout is not logged as the cause.
            biased;
            () = advance_phases => {}
            signal = self.stop_source.next() => warn!(signal, "Stopping at once"),
        }
        phase.send_replace(DrainPhase::Ended);
    }
}

/// SIGTERM, sent by Kubernetes, and SIGINT, sent by Ctrl-C.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Replaces the default action of these signals, which ends the process. Needs a runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl StopSource for StopSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: log files were rotated and have to be reopened.
#[derive(Debug)]
pub struct HangupSignals(Signal);

impl HangupSignals {
    /// Replaces the default action of the signal, which ends the process. Needs a runtime.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(HangupSignals)
    }

    /// Waits for the next signal. Several signals between two calls count as one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct ScriptedStops(mpsc::Receiver<&'static str>);

    impl StopSource for ScriptedStops {
        async fn next(&mut self) -> &'static str {
            match self.0.recv().await {
                Some(name) => name,
                None => std::future::pending().await,
            }
        }
    }

    const DELAY: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn start(delay: Duration) -> (mpsc::Sender<&'static str>, Drain, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(2);
        let (controller, drain) = drain_controller(ScriptedStops(receiver), delay, TIMEOUT);
        (sender, drain, tokio::spawn(controller.run()))
    }

    #[tokio::test(start_paused = true)]
    async fn one_signal_runs_all_phases() {
        let (stop, drain, controller_task) = start(DELAY);
        assert_eq!(drain.phase(), DrainPhase::Serving);
        let begin = Instant::now();
        stop.send("SIGTERM").await.unwrap();
        drain.leaving().await;
        assert_eq!((drain.phase(), begin.elapsed()), (DrainPhase::Leaving, Duration::ZERO));
        let until = drain.draining().await;
        assert_eq!((begin.elapsed(), until), (DELAY, begin + DELAY + TIMEOUT));
        drain.ended().await;
        assert_eq!(begin.elapsed(), DELAY + TIMEOUT);
        controller_task.await.unwrap();
        assert_eq!(drain.phase(), DrainPhase::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn second_signal_ends_immediately() {
        for wait in [Duration::ZERO, DELAY + Duration::from_secs(1)] {
            let (stop, drain, controller_task) = start(DELAY);
            let begin = Instant::now();
            stop.send("SIGTERM").await.unwrap();
            drain.leaving().await;
            sleep(wait).await; // Time is paused.
            stop.send("SIGINT").await.unwrap();
            controller_task.await.unwrap();
            assert_eq!((drain.phase(), begin.elapsed()), (DrainPhase::Ended, wait));
            assert_eq!(drain.draining().await, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_delay_drains_immediately() {
        let (stop, drain, _controller_task) = start(Duration::ZERO);
        stop.send("SIGTERM").await.unwrap();
        let begin = Instant::now();
        drain.leaving().await;
        assert_eq!(drain.draining().await, begin + TIMEOUT);
        // Only the resolution of the timer may pass.
        assert!(begin.elapsed() <= Duration::from_millis(1));
    }

    #[tokio::test]
    async fn dropped_controller_ends_drain() {
        let (controller, drain) = drain_controller(ScriptedStops(mpsc::channel(1).1), DELAY, TIMEOUT);
        drop(controller);
        drain.ended().await;
        drain.leaving().await;
    }

    #[tokio::test]
    async fn hangup_is_reported_and_process_survives() {
        let mut hangups = HangupSignals::listen().unwrap();
        let process = std::process::id().to_string();
        let kill = std::process::Command::new("kill").args(["-s", "HUP", &process]).status().unwrap();
        assert!(kill.success());
        hangups.next().await;
    }
}
