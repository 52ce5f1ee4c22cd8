//! Whether a running container is well: what its probes say, or, if it has none, whether it listens.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::probe::{Probe, Probes, Told};
use super::sandbox::Sandbox;
use super::sockets::listening;
use super::status::Seen;

/// Keeps what is seen of a container up to date. Ends, with the reason, when it has to be started anew.
pub(crate) async fn watch(probes: &Probes, sandbox: &Sandbox, process: u32, seen: &watch::Sender<Seen>) -> String {
    if let Some(startup) = &probes.startup
        && let Err(error) = started(startup, sandbox).await
    {
        return format!("startup probe: {error}");
    }
    seen.send_modify(|seen| seen.started = true);
    tokio::select! {
        error = alive(probes, sandbox) => format!("liveness probe: {error}"),
        () = ready(probes, sandbox, process, seen) => unreachable_end().await,
    }
}

/// Keeps it up to date whether the container is ready. Does not end.
pub(crate) async fn ready(probes: &Probes, sandbox: &Sandbox, process: u32, seen: &watch::Sender<Seen>) {
    let tell = |ready: bool| {
        seen.send_if_modified(|seen| std::mem::replace(&mut seen.ready, ready) != ready);
    };
    match &probes.readiness {
        Some(probe) => {
            let first = seen.borrow().ready;
            let told = |answer: Result<(), String>| {
                tell(answer.is_ok());
                Told::GoOn
            };
            probe.ask(sandbox.address, first, told).await;
        }
        None => {
            // The kubelet would call it ready as soon as it runs; then its first requests fail. Any socket counts,
            // because what is declared as a port binds nobody.
            let mut pause = Duration::from_millis(5);
            while !listening(&sandbox.netns, process) {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            tell(true);
        }
    }
    unreachable_end().await
}

async fn started(probe: &Probe, sandbox: &Sandbox) -> Result<(), String> {
    let mut outcome = Ok(());
    let told = |answer| {
        outcome = answer;
        Told::Enough
    };
    probe.ask(sandbox.address, false, told).await;
    outcome
}

/// Ends with the reason when the container does not answer any more.
async fn alive(probes: &Probes, sandbox: &Sandbox) -> String {
    let Some(probe) = &probes.liveness else { return unreachable_end().await };
    let mut reason = String::new();
    let told = |answer: Result<(), String>| match answer {
        Ok(()) => Told::GoOn,
        Err(error) => {
            reason = error;
            Told::Enough
        }
    };
    probe.ask(sandbox.address, true, told).await;
    reason
}

/// For what goes on until it is given up.
async fn unreachable_end<Output>() -> Output {
    std::future::pending().await
}
