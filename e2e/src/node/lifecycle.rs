//! The lifecycle of one Pod, from its binding to this node until its object is deleted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::container::Container;
use super::health;
use super::log::ContainerKey;
use super::mounted_volumes::MountedVolumes;
use super::plan::{PodPlan, TerminationMode};
use super::program::{RunningProcess, terminate};
use super::sandbox::Sandbox;
use super::status::{ContainerPhase, PodState, PodStatusWriter};
use super::{NodeContext, RETRY_DELAY};

/// Runs the lifecycle of a Pod. `updates` has the latest object and closes when it is deleted.
pub(crate) async fn run_pod(host: Arc<NodeContext>, updates: watch::Receiver<Arc<Pod>>) {
    let pod = updates.borrow().clone();
    if pod.metadata.deletion_timestamp.is_some() {
        // From an earlier run of this node, or never started: nothing runs.
        return delete(&host, &pod).await;
    }
    let (seen, receiver) = watch::channel(PodState::initial(&pod));
    let writer = PodStatusWriter::new(host.client.clone(), &pod);
    let life = PodLifecycle { host: &host, pod: &pod, state: seen, sandbox: None, running: None };
    // The last status is written before the object is deleted.
    let ((end, sandbox), ()) = tokio::join!(life.run(updates), writer.write(receiver));
    let removed = spawn_blocking(move || drop(sandbox));
    if end == EndReason::Requested {
        delete(&host, &pod).await;
    }
    host.logs.forget(&container_key(&pod), pod.metadata.uid.as_deref().unwrap_or_default());
    // The task never panics, and logs what it cannot remove.
    drop(removed.await);
}

struct PodLifecycle<'a> {
    host: &'a Arc<NodeContext>,
    pod: &'a Arc<Pod>,
    state: watch::Sender<PodState>,
    // Created in this order.
    sandbox: Option<Sandbox>,
    running: Option<RunningProcess>,
}

/// Why a Pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReason {
    /// Its object is marked for deletion and must be deleted by the node.
    Requested,
    /// Its object is already deleted.
    Deleted,
}

impl PodLifecycle<'_> {
    /// Runs the Pod until it must end, and ends its process. The caller removes the sandbox.
    async fn run(mut self, mut updates: watch::Receiver<Arc<Pod>>) -> (EndReason, Option<Sandbox>) {
        let plan = match PodPlan::from_pod(self.pod, &self.host.images) {
            Ok(plan) => plan,
            Err(reason) => {
                self.state.send_if_modified(|seen| seen.wait("CreateContainerConfigError", reason));
                return (wait_for_end(&mut updates).await, None);
            }
        };
        let end = tokio::select! {
            biased;
            end = wait_for_end(&mut updates) => end,
            () = self.run_container(&plan) => wait_for_end(&mut updates).await,
        };
        if let Some(mut running) = self.running.take() {
            if end == EndReason::Requested
                && let Some(sandbox) = &self.sandbox
            {
                let ending = with_requested_grace(&updates.borrow(), plan.termination);
                let id = running.identity.id;
                tokio::select! {
                    () = terminate(&mut running, ending) => {}
                    () = wait_until_deleted(&mut updates) => {}
                    // A terminating Pod keeps reporting its readiness until it has ended.
                    never = health::track_readiness(&plan.probes, sandbox, id, &self.state) => never,
                }
            }
            let ended = running.kill().await;
            // For Pods that end at once, the exit status is not written: it saves one write before the deletion.
            if let Ok(ended) = ended
                && plan.termination != TerminationMode::Immediate
            {
                self.state.send_modify(|seen| seen.end(ContainerPhase::Terminated(ended)));
            }
        }
        (end, self.sandbox)
    }

    /// Runs the Pod. Returns when the container has ended and will not be restarted.
    async fn run_container(&mut self, plan: &PodPlan) {
        let sandbox = loop {
            match self.create_sandbox(plan).await {
                Ok(sandbox) => break self.sandbox.insert(sandbox),
                Err(error) => {
                    let error = format!("{error:#}");
                    self.state.send_if_modified(|seen| seen.wait("FailedCreatePodSandBox", error));
                }
            }
            sleep(RETRY_DELAY).await;
        };
        self.state.send_modify(|seen| seen.address = Some(sandbox.address));
        let mut mounted = MountedVolumes::new(self.host, self.pod, plan, sandbox);
        while let Err(error) = mounted.mount().await {
            self.state.send_if_modified(|seen| seen.wait("ContainerCreating", error));
            sleep(RETRY_DELAY).await;
        }
        let container = Container {
            host: self.host,
            pod: self.pod,
            plan,
            sandbox,
            state: &self.state,
            key: container_key(self.pod),
        };
        tokio::select! {
            () = container.run(&mut self.running) => {}
            never = mounted.refresh() => never,
        }
    }

    async fn create_sandbox(&self, plan: &PodPlan) -> Result<Sandbox> {
        let (host, pod) = (self.host.clone(), self.pod.clone());
        let (image, settings) = (plan.image.clone(), plan.sysctls.clone());
        let made = spawn_blocking(move || {
            let sandbox = Sandbox::create(&host, &pod)?;
            image.fill(&sandbox.root())?;
            sandbox.set_sysctls(&settings)?;
            Ok(sandbox)
        });
        made.await?
    }
}

/// Waits until the Pod must end.
async fn wait_for_end(updates: &mut watch::Receiver<Arc<Pod>>) -> EndReason {
    loop {
        if updates.borrow_and_update().metadata.deletion_timestamp.is_some() {
            return EndReason::Requested;
        }
        if updates.changed().await.is_err() {
            return EndReason::Deleted;
        }
    }
}

/// Waits until the object is deleted, for forced deletions during the grace period.
async fn wait_until_deleted(updates: &mut watch::Receiver<Arc<Pod>>) {
    while updates.changed().await.is_ok() {}
}

/// The termination of a Pod, with the grace period of the deletion request.
fn with_requested_grace(pod: &Pod, ending: TerminationMode) -> TerminationMode {
    let given = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match (ending, given) {
        (TerminationMode::Graceful { pause, .. }, Some(seconds)) => {
            TerminationMode::Graceful { pause, grace: Duration::from_secs(seconds) }
        }
        _ => ending,
    }
}

/// Deletes the object after all processes have ended.
async fn delete(host: &NodeContext, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(host.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
    loop {
        match api.delete(name, &parameters).await {
            Ok(_) => return,
            // Already deleted, or replaced by another Pod of this name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(_) => sleep(RETRY_DELAY).await,
        }
    }
}

fn container_key(pod: &Pod) -> ContainerKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    ContainerKey {
        namespace: text(&pod.metadata.namespace),
        pod: text(&pod.metadata.name),
        container: container.map_or_else(String::new, |container| container.name.clone()),
    }
}
