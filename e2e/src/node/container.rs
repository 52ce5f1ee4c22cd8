//! The container of a Pod: starts it, watches it, and restarts it with back-off.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::environment::{Environment, environment, expand};
use super::health;
use super::log::ContainerKey;
use super::plan::{PodPlan, RestartPolicy};
use super::program::{Launch, RunningProcess, terminate};
use super::sandbox::Sandbox;
use super::status::{ContainerPhase, PodState};
use super::volume::VolumeContent;
use super::{NodeContext, RETRY_DELAY};

/// The first back-off of a crashed container; it doubles with each restart.
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
/// The maximum back-off. It is short, because tests wait for it.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A container that ran for this long resets the back-off.
const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// The container of one Pod.
pub(crate) struct Container<'a> {
    pub(crate) node: &'a NodeContext,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) plan: &'a PodPlan,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) state: &'a watch::Sender<PodState>,
    pub(crate) key: ContainerKey,
}

impl Container<'_> {
    /// Runs the container until it has ended and will not be restarted. `running` has its process, which the caller
    /// must kill when it drops this future.
    pub(crate) async fn run(&self, running: &mut Option<RunningProcess>) {
        let mut backoff = INITIAL_BACKOFF;
        loop {
            let started = Instant::now();
            let process = running.insert(self.start().await);
            let id = process.identity.id;
            self.state.send_modify(|state| state.container_phase = ContainerPhase::Running { since: process.since });
            tokio::select! {
                () = process.wait() => {}
                error = health::run_probes(&self.plan.probes, self.sandbox, id, self.state) => {
                    crate::progress::report(format_args!("Restarting {}: {error}", self.name()));
                    terminate(process, self.plan.termination).await;
                }
            }
            // Called even if the process has ended, to get its exit status.
            let Ok(termination) = process.kill().await else { return };
            self.node.logs.close(&self.key);
            *running = None;
            let must_restart = match self.plan.restart {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => !termination.exit.is_success(),
                RestartPolicy::Never => false,
            };
            if !must_restart {
                self.state.send_modify(|state| state.set_ended(ContainerPhase::Terminated(termination)));
                return;
            }
            if started.elapsed() >= BACKOFF_RESET {
                backoff = INITIAL_BACKOFF;
            }
            let message =
                format!("exited with code {}; restarting in {} ms", termination.exit.code, backoff.as_millis());
            // Watchers are notified, because the phase was Running.
            self.state.send_if_modified(|state| {
                state.last_termination = Some(termination);
                state.set_waiting("CrashLoopBackOff", message)
            });
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            self.state.send_modify(|state| state.restarts += 1);
        }
    }

    /// Starts the process. Retries while this fails, for example because a Secret does not exist yet.
    async fn start(&self) -> RunningProcess {
        loop {
            let variables = environment(&self.node.client, self.pod, self.plan, self.sandbox.address).await;
            let (reason, error) = match variables {
                Ok(variables) => match self.launch(&variables) {
                    Ok(running) => return running,
                    Err(error) => ("CreateContainerError", format!("{error:#}")),
                },
                Err(error) => ("CreateContainerConfigError", error),
            };
            self.state.send_if_modified(|state| state.set_waiting(reason, error));
            sleep(RETRY_DELAY).await;
        }
    }

    fn launch(&self, environment: &Environment) -> Result<RunningProcess> {
        let command: Vec<String> = self.plan.command.iter().map(|text| expand(text, environment)).collect();
        // Volumes of type emptyDir are writable even if the root is read-only.
        let is_empty_dir = |content: &VolumeContent| matches!(content, VolumeContent::Empty);
        let writable: Vec<_> = self.plan.mounts.iter().filter(|mount| is_empty_dir(&mount.content)).collect();
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let launch = Launch {
            netns: &self.sandbox.netns,
            root: &self.sandbox.root(),
            command: &command,
            environment,
            privileges: &self.plan.privileges,
            writable: &writable.into_iter().map(|mount| mount.path.clone()).collect::<Vec<_>>(),
            log: self.node.logs.open(&self.key, uid, self.state.borrow().restarts)?,
        };
        launch.start(&self.node.journal, Timestamp::now())
    }

    fn name(&self) -> String {
        format!("container {} of Pod {}/{}", self.key.container, self.key.namespace, self.key.pod)
    }
}
