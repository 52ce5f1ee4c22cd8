//! The health of a running container: from its probes, or from its listening sockets if it has none.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::probe::{Probe, ProbeControl, Probes};
use super::sandbox::Sandbox;
use super::sockets::is_listening;
use super::status::PodState;

/// Keeps the observed state of a container up to date. Ends with the reason when it must be restarted.
pub(crate) async fn run_probes(
    probes: &Probes,
    sandbox: &Sandbox,
    process_id: u32,
    state: &watch::Sender<PodState>,
) -> String {
    if let Some(startup) = &probes.startup
        && let Err(error) = wait_for_startup(startup, sandbox).await
    {
        return format!("startup probe: {error}");
    }
    state.send_modify(|state| state.started = true);
    tokio::select! {
        error = wait_for_liveness_failure(probes, sandbox) => format!("liveness probe: {error}"),
        () = track_readiness(probes, sandbox, process_id, state) => never().await,
    }
}

/// Keeps the readiness of the container up to date, forever.
pub(crate) async fn track_readiness(
    probes: &Probes,
    sandbox: &Sandbox,
    process_id: u32,
    state: &watch::Sender<PodState>,
) {
    let set_ready = |ready: bool| {
        state.send_if_modified(|state| std::mem::replace(&mut state.ready, ready) != ready);
    };
    match &probes.readiness {
        Some(probe) => {
            let is_ready = state.borrow().ready;
            let on_change = |result: Result<(), String>| {
                set_ready(result.is_ok());
                ProbeControl::Continue
            };
            probe.run(sandbox.address, is_ready, on_change).await;
        }
        None => {
            // The kubelet would report the container as ready as soon as it runs, and the first requests would fail. A
            // socket on any port counts, because declared ports are only informational.
            let mut interval = Duration::from_millis(5);
            while !is_listening(&sandbox.netns, process_id) {
                sleep(interval).await;
                interval = (interval * 2).min(Duration::from_millis(100));
            }
            set_ready(true);
        }
    }
    never().await
}

async fn wait_for_startup(probe: &Probe, sandbox: &Sandbox) -> Result<(), String> {
    let mut outcome = Ok(());
    let on_change = |result| {
        outcome = result;
        ProbeControl::Stop
    };
    probe.run(sandbox.address, false, on_change).await;
    outcome
}

/// Ends with the reason when the liveness probe fails.
async fn wait_for_liveness_failure(probes: &Probes, sandbox: &Sandbox) -> String {
    let Some(probe) = &probes.liveness else { return never().await };
    let mut reason = String::new();
    let on_change = |result: Result<(), String>| match result {
        Ok(()) => ProbeControl::Continue,
        Err(error) => {
            reason = error;
            ProbeControl::Stop
        }
    };
    probe.run(sandbox.address, true, on_change).await;
    reason
}

/// For tasks that run until they are dropped.
async fn never<Output>() -> Output {
    std::future::pending().await
}
