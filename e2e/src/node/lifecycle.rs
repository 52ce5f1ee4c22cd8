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
pub(crate) async fn run_pod(node: Arc<NodeContext>, updates: watch::Receiver<Arc<Pod>>) {
    let pod = updates.borrow().clone();
    if pod.metadata.deletion_timestamp.is_some() {
        // The Pod is from an earlier run of this node or was never started, so it has no process.
        return delete(&node, &pod).await;
    }
    let (state, receiver) = watch::channel(PodState::initial(&pod));
    let writer = PodStatusWriter::new(node.client.clone(), &pod);
    let lifecycle = PodLifecycle { node: &node, pod: &pod, state, sandbox: None, running: None };
    // The last status is written before the object is deleted.
    let ((end_reason, sandbox), ()) = tokio::join!(lifecycle.run(updates), writer.write(receiver));
    let removal = spawn_blocking(move || drop(sandbox));
    if end_reason == EndReason::Requested {
        delete(&node, &pod).await;
    }
    node.logs.forget(&container_key(&pod), pod.metadata.uid.as_deref().unwrap_or_default());
    // The task never panics, and logs what it cannot remove.
    drop(removal.await);
}

struct PodLifecycle<'a> {
    node: &'a Arc<NodeContext>,
    pod: &'a Arc<Pod>,
    state: watch::Sender<PodState>,
    // The sandbox is created first, the process last.
    sandbox: Option<Sandbox>,
    running: Option<RunningProcess>,
}

/// Why a Pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReason {
    /// The Pod is marked for deletion; the node must delete its object.
    Requested,
    /// The object of the Pod is already deleted.
    Deleted,
}

impl PodLifecycle<'_> {
    /// Runs the Pod until it must end, and ends its process. Returns why, and the sandbox, which the caller removes.
    async fn run(mut self, mut updates: watch::Receiver<Arc<Pod>>) -> (EndReason, Option<Sandbox>) {
        let plan = match PodPlan::from_pod(self.pod, &self.node.images) {
            Ok(plan) => plan,
            Err(reason) => {
                self.state.send_if_modified(|state| state.set_waiting("CreateContainerConfigError", reason));
                return (wait_for_end(&mut updates).await, None);
            }
        };
        let end_reason = tokio::select! {
            biased;
            end_reason = wait_for_end(&mut updates) => end_reason,
            () = self.run_container(&plan) => wait_for_end(&mut updates).await,
        };
        if let Some(mut running) = self.running.take() {
            if end_reason == EndReason::Requested
                && let Some(sandbox) = &self.sandbox
            {
                let termination = with_requested_grace(&updates.borrow(), plan.termination);
                let id = running.identity.id;
                tokio::select! {
                    () = terminate(&mut running, termination) => {}
                    () = wait_until_deleted(&mut updates) => {}
                    // A terminating Pod keeps reporting its readiness until it has ended.
                    never = health::track_readiness(&plan.probes, sandbox, id, &self.state) => never,
                }
            }
            let termination = running.kill().await;
            // Not for Pods that end at once, which saves one write before the deletion.
            if let Ok(termination) = termination
                && plan.termination != TerminationMode::Immediate
            {
                self.state.send_modify(|state| state.set_ended(ContainerPhase::Terminated(termination)));
            }
        }
        (end_reason, self.sandbox)
    }

    /// Creates the sandbox and runs the container. Returns when the container has ended and will not be restarted.
    async fn run_container(&mut self, plan: &PodPlan) {
        let sandbox = loop {
            match self.create_sandbox(plan).await {
                Ok(sandbox) => break self.sandbox.insert(sandbox),
                Err(error) => {
                    let error = format!("{error:#}");
                    self.state.send_if_modified(|state| state.set_waiting("FailedCreatePodSandBox", error));
                }
            }
            sleep(RETRY_DELAY).await;
        };
        self.state.send_modify(|state| state.address = Some(sandbox.address));
        let mut volumes = MountedVolumes::new(self.node, self.pod, plan, sandbox);
        while let Err(error) = volumes.mount().await {
            self.state.send_if_modified(|state| state.set_waiting("ContainerCreating", error));
            sleep(RETRY_DELAY).await;
        }
        let container = Container {
            node: self.node,
            pod: self.pod,
            plan,
            sandbox,
            state: &self.state,
            key: container_key(self.pod),
        };
        tokio::select! {
            () = container.run(&mut self.running) => {}
            never = volumes.refresh() => never,
        }
    }

    async fn create_sandbox(&self, plan: &PodPlan) -> Result<Sandbox> {
        let (node, pod) = (self.node.clone(), self.pod.clone());
        let (image, sysctls) = (plan.image.clone(), plan.sysctls.clone());
        let creation = spawn_blocking(move || {
            let sandbox = Sandbox::create(&node, &pod)?;
            image.fill(&sandbox.root())?;
            sandbox.set_sysctls(&sysctls)?;
            Ok(sandbox)
        });
        creation.await?
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
fn with_requested_grace(pod: &Pod, termination: TerminationMode) -> TerminationMode {
    let requested = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match (termination, requested) {
        (TerminationMode::Graceful { pause, .. }, Some(seconds)) => {
            TerminationMode::Graceful { pause, grace: Duration::from_secs(seconds) }
        }
        _ => termination,
    }
}

/// Deletes the object after all processes have ended.
async fn delete(node: &NodeContext, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(node.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
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
