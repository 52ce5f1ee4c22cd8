//! Stopping as values: signals become phases that anybody can read or wait for.
//!
//! ```text
//!   Serving ──signal──▶ Leaving ──delay──▶ Draining ──timeout──▶ Over
//!                          └───────second signal──────────┴────────▲
//! ```

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

/// How far stopping has come. Phases only ever advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody asked us to stop.
    Serving,
    /// Not ready any more, but still serving like before: those who send requests have not all heard of it.
    Leaving,
    /// Requests may finish until this moment; connections are closed as soon as they are idle.
    Draining { until: Instant },
    /// Whatever still runs is cut off.
    Over,
}

/// Reads the phase and waits for it. Clones speak of the same thing.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
}

impl Drain {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Until we should no longer count as ready.
    pub async fn leaving(&self) {
        self.reached(|phase| phase >= Phase::Leaving).await;
    }

    /// Until nothing new should begin; says by when all has to be finished. At once over is by now.
    pub async fn draining(&self) -> Instant {
        match self.reached(|phase| phase > Phase::Leaving).await {
            Phase::Draining { until } => until,
            Phase::Serving | Phase::Leaving | Phase::Over => Instant::now(),
        }
    }

    /// Until whatever still runs has to be cut off.
    pub async fn over(&self) {
        self.reached(|phase| phase == Phase::Over).await;
    }

    /// The phase that is or will be reached. Without a conductor there is nobody left to finish for, so it is over.
    async fn reached(&self, wanted: impl Fn(Phase) -> bool) -> Phase {
        let mut phase = self.phase.clone();
        phase.wait_for(|phase| wanted(*phase)).await.map_or(Phase::Over, |phase| *phase)
    }
}

/// Leads through the phases; `run` has to be polled for that, and dropping it means that it is over.
#[derive(Debug)]
pub struct Conductor<S> {
    stops: S,
    delay: Duration,
    timeout: Duration,
    phase: watch::Sender<Phase>,
}

/// Where the wish to stop comes from.
pub trait Stops: Send {
    /// Waits for the next wish, and says what it was: `SIGTERM`.
    fn next(&mut self) -> impl Future<Output = &'static str> + Send;
}

/// `delay` is how long `Leaving` takes, `timeout` how long `Draining` does.
pub fn conductor<S: Stops>(stops: S, delay: Duration, timeout: Duration) -> (Conductor<S>, Drain) {
    let (phase, receiver) = watch::channel(Phase::Serving);
    (Conductor { stops, delay, timeout, phase }, Drain { phase: receiver })
}

impl<S: Stops> Conductor<S> {
    /// Waits for the first wish to stop, leads through the phases, and returns when it is over.
    pub async fn run(mut self) {
        let signal = self.stops.next().await;
        info!(signal, delay = ?self.delay, timeout = ?self.timeout, "Stopping; a second signal ends at once");
        let phase = &self.phase;
        let phases = async {
            // Even without a delay, so that whoever waits for this phase sees it.
            phase.send_replace(Phase::Leaving);
            sleep(self.delay).await;
            let until = Instant::now() + self.timeout;
            phase.send_replace(Phase::Draining { until });
            sleep_until(until).await;
        };
        tokio::select! {
            // The end of the phases first, so that a signal at the very end is not reported as a reason.
            biased;
            () = phases => {}
            signal = self.stops.next() => warn!(signal, "Stopping at once"),
        }
        phase.send_replace(Phase::Over);
    }
}

/// SIGTERM, as Kubernetes stops a Pod, and SIGINT, as a person does.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From here on these signals no longer end the process by themselves. Needs a runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl Stops for StopSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: log files have been moved away and should be opened anew.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// From here on the signal no longer ends the process. Needs a runtime.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Hangups)
    }

    /// Waits for the next one. Several before it is asked for count as one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Wishes(mpsc::Receiver<&'static str>);

    impl Stops for Wishes {
        async fn next(&mut self) -> &'static str {
            match self.0.recv().await {
                Some(wish) => wish,
                None => std::future::pending().await,
            }
        }
    }

    const DELAY: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn start(delay: Duration) -> (mpsc::Sender<&'static str>, Drain, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(2);
        let (conductor, drain) = conductor(Wishes(receiver), delay, TIMEOUT);
        (sender, drain, tokio::spawn(conductor.run()))
    }

    #[tokio::test(start_paused = true)]
    async fn one_signal_leads_through_all_phases() {
        let (stop, drain, conducting) = start(DELAY);
        assert_eq!(drain.phase(), Phase::Serving);
        let begin = Instant::now();
        stop.send("SIGTERM").await.unwrap();
        drain.leaving().await;
        assert_eq!((drain.phase(), begin.elapsed()), (Phase::Leaving, Duration::ZERO));
        let until = drain.draining().await;
        assert_eq!((begin.elapsed(), until), (DELAY, begin + DELAY + TIMEOUT));
        drain.over().await;
        assert_eq!(begin.elapsed(), DELAY + TIMEOUT);
        conducting.await.unwrap();
        assert_eq!(drain.phase(), Phase::Over);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once() {
        for wait in [Duration::ZERO, DELAY + Duration::from_secs(1)] {
            let (stop, drain, conducting) = start(DELAY);
            let begin = Instant::now();
            stop.send("SIGTERM").await.unwrap();
            drain.leaving().await;
            sleep(wait).await;
            stop.send("SIGINT").await.unwrap();
            conducting.await.unwrap();
            assert_eq!((drain.phase(), begin.elapsed()), (Phase::Over, wait));
            assert_eq!(drain.draining().await, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_draining_begins_at_once() {
        let (stop, drain, _conducting) = start(Duration::ZERO);
        stop.send("SIGTERM").await.unwrap();
        let begin = Instant::now();
        drain.leaving().await;
        assert_eq!(drain.draining().await, begin + TIMEOUT);
        // Only the timer's resolution may pass.
        assert!(begin.elapsed() <= Duration::from_millis(1));
    }

    #[tokio::test]
    async fn without_a_conductor_it_is_over() {
        let (conductor, drain) = conductor(Wishes(mpsc::channel(1).1), DELAY, TIMEOUT);
        drop(conductor);
        drain.over().await;
        drain.leaving().await;
    }

    #[tokio::test]
    async fn a_hangup_does_not_end_the_process_and_is_told() {
        let mut hangups = Hangups::listen().unwrap();
        let process = std::process::id().to_string();
        let kill = std::process::Command::new("kill").args(["-s", "HUP", &process]).status().unwrap();
        assert!(kill.success());
        hangups.next().await;
    }
}
