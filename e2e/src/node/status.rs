//! Writes the status of a Pod: always the latest state, retried until the API server accepts it.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::RETRY_DELAY;
use super::program::ContainerExit;
use crate::cluster::ADDRESS;

/// The observed state of a Pod.
#[derive(Clone, Debug)]
pub(crate) struct PodState {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) container_phase: ContainerPhase,
    /// How the container ended before its last restart.
    pub(crate) last_termination: Option<Termination>,
    pub(crate) restarts: i32,
    /// Whether the startup probe, if any, has succeeded.
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

/// The state of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerPhase {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        since: Timestamp,
    },
    /// The container will not be restarted.
    Terminated(Termination),
}

/// How and when a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    pub(crate) exit: ContainerExit,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
}

impl PodState {
    /// The initial state. The number of restarts continues after a restart of the node.
    pub(crate) fn initial(pod: &Pod) -> PodState {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts = containers.and_then(|containers| containers.first()).map_or(0, |first| first.restart_count);
        let container_phase = ContainerPhase::Waiting { reason: "ContainerCreating", message: String::new() };
        PodState { address: None, container_phase, last_termination: None, restarts, started: false, ready: false }
    }

    /// Records that the container is not running yet, or waits for a restart. Returns whether the state changed.
    pub(crate) fn set_waiting(&mut self, reason: &'static str, message: impl Into<String>) -> bool {
        let next = ContainerPhase::Waiting { reason, message: message.into() };
        let has_changed = self.container_phase != next;
        self.set_ended(next);
        has_changed
    }

    /// Records that the container is not running any more.
    pub(crate) fn set_ended(&mut self, state: ContainerPhase) {
        self.container_phase = state;
        self.started = false;
        self.ready = false;
    }

    fn phase(&self) -> &'static str {
        match &self.container_phase {
            ContainerPhase::Terminated(termination) if termination.exit.is_success() => "Succeeded",
            ContainerPhase::Terminated(_) => "Failed",
            ContainerPhase::Waiting { .. } if self.last_termination.is_none() => "Pending",
            ContainerPhase::Waiting { .. } | ContainerPhase::Running { .. } => "Running",
        }
    }
}

/// Writes the observed state of one Pod until the sender is dropped and the last state is written, or the Pod is
/// deleted.
pub(crate) struct PodStatusWriter {
    api: Api<Pod>,
    name: String,
    uid: String,
    container: String,
    image: String,
    start_time: Timestamp,
    conditions: Vec<PodCondition>,
}

impl PodStatusWriter {
    pub(crate) fn new(client: Client, pod: &Pod) -> PodStatusWriter {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        PodStatusWriter {
            api: Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default()),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            container: container.map_or_else(String::new, |container| container.name.clone()),
            image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
            start_time: Timestamp::now(),
            conditions: Vec::new(),
        }
    }

    /// Writes the state now and after each change.
    pub(crate) async fn write(mut self, mut state: watch::Receiver<PodState>) {
        loop {
            let status = self.status(&state.borrow_and_update().clone());
            // With the UID, so that another Pod of this name is never modified.
            let mut patch = json!({ "metadata": { "uid": self.uid }, "status": status });
            if let Some(Value::Array(addresses)) = patch["status"].get_mut("podIPs") {
                // Otherwise, the address of an earlier run of this node would be kept.
                addresses.push(json!({ "$patch": "replace" }));
            }
            match self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    if state.changed().await.is_err() {
                        return;
                    }
                }
                // Deleted, or replaced by another Pod of this name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return,
                // The API server is unavailable or overloaded: the latest state is written at the retry.
                Err(_) => sleep(RETRY_DELAY).await,
            }
        }
    }

    fn status(&mut self, state: &PodState) -> PodStatus {
        let now = Timestamp::now();
        self.conditions = ["Initialized", "ContainersReady", "Ready"]
            .map(|kind| {
                let is_true = kind == "Initialized" || state.ready;
                let status = if is_true { "True" } else { "False" };
                let previous = self.conditions.iter().find(|condition| condition.type_ == kind);
                match previous {
                    Some(previous) if previous.status == status => previous.clone(),
                    _ => PodCondition {
                        type_: kind.to_owned(),
                        status: status.to_owned(),
                        last_transition_time: Some(Time(now)),
                        // Always present, because a strategic patch keeps absent fields.
                        reason: Some(if is_true { "" } else { "ContainersNotReady" }.to_owned()),
                        ..PodCondition::default()
                    },
                }
            })
            .into();
        let container = ContainerStatus {
            name: self.container.clone(),
            image: self.image.clone(),
            image_id: self.image.clone(),
            ready: state.ready,
            started: Some(state.started),
            restart_count: state.restarts,
            state: Some(state.container_phase.render()),
            last_state: state
                .last_termination
                .map(|termination| ContainerState { terminated: Some(termination.render()), ..Default::default() }),
            ..ContainerStatus::default()
        };
        let address = state.address.map(|address| address.to_string());
        PodStatus {
            phase: Some(state.phase().to_owned()),
            // `kubectl describe` shows this field. Always present, because a strategic patch keeps absent fields.
            message: Some(match &state.container_phase {
                ContainerPhase::Waiting { message, .. } => message.clone(),
                ContainerPhase::Running { .. } | ContainerPhase::Terminated(_) => String::new(),
            }),
            host_ip: Some(ADDRESS.to_string()),
            host_ips: Some(vec![HostIP { ip: ADDRESS.to_string() }]),
            pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
            pod_ip: address,
            start_time: Some(Time(self.start_time)),
            conditions: Some(self.conditions.clone()),
            container_statuses: Some(vec![container]),
            ..PodStatus::default()
        }
    }
}

impl ContainerPhase {
    fn render(&self) -> ContainerState {
        match self {
            ContainerPhase::Waiting { reason, message } => {
                let message = (!message.is_empty()).then(|| message.clone());
                let waiting = ContainerStateWaiting { reason: Some((*reason).to_owned()), message };
                ContainerState { waiting: Some(waiting), ..ContainerState::default() }
            }
            ContainerPhase::Running { since } => {
                let running = ContainerStateRunning { started_at: Some(Time(*since)) };
                ContainerState { running: Some(running), ..ContainerState::default() }
            }
            ContainerPhase::Terminated(termination) => {
                ContainerState { terminated: Some(termination.render()), ..ContainerState::default() }
            }
        }
    }
}

impl Termination {
    fn render(&self) -> ContainerStateTerminated {
        ContainerStateTerminated {
            exit_code: self.exit.code,
            signal: self.exit.signal,
            reason: Some(if self.exit.is_success() { "Completed" } else { "Error" }.to_owned()),
            started_at: Some(Time(self.started_at)),
            finished_at: Some(Time(self.finished_at)),
            ..ContainerStateTerminated::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_state(state: ContainerPhase, ready: bool) -> PodState {
        PodState {
            address: Some(Ipv4Addr::new(198, 18, 128, 1)),
            container_phase: state,
            last_termination: None,
            restarts: 0,
            started: ready,
            ready,
        }
    }

    fn running() -> ContainerPhase {
        ContainerPhase::Running { since: Timestamp::UNIX_EPOCH }
    }

    fn termination(code: i32) -> Termination {
        Termination {
            exit: ContainerExit { code, signal: None },
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn phase_follows_the_container() {
        let waiting = ContainerPhase::Waiting { reason: "CrashLoopBackOff", message: String::new() };
        let crashed = PodState { last_termination: Some(termination(1)), ..pod_state(waiting.clone(), false) };
        for (pod_state, phase) in [
            (pod_state(waiting, false), "Pending"),
            (crashed, "Running"),
            (pod_state(running(), false), "Running"),
            (pod_state(ContainerPhase::Terminated(termination(0)), false), "Succeeded"),
            (pod_state(ContainerPhase::Terminated(termination(1)), false), "Failed"),
        ] {
            assert_eq!(pod_state.phase(), phase, "{pod_state:?}");
        }
    }

    #[tokio::test]
    async fn earlier_state_is_fully_overwritten() {
        let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let mut writer = PodStatusWriter::new(Client::try_from(config).unwrap(), &Pod::default());
        let ready = |status: &PodStatus| {
            let conditions = status.conditions.clone().unwrap();
            conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap()
        };
        let waiting_for_secret =
            ContainerPhase::Waiting { reason: "ContainerCreating", message: "Secret a/b does not exist".to_owned() };
        let waiting = writer.status(&pod_state(waiting_for_secret, false));
        assert_eq!(waiting.message.as_deref(), Some("Secret a/b does not exist"));
        assert_eq!(ready(&waiting).reason.as_deref(), Some("ContainersNotReady"));
        let running_status = writer.status(&pod_state(running(), true));
        // A patch keeps absent fields, so these must be present.
        assert_eq!(running_status.message.as_deref(), Some(""));
        assert_eq!(ready(&running_status).reason.as_deref(), Some(""));
        // An unchanged condition keeps its transition time.
        assert_eq!(ready(&writer.status(&pod_state(running(), true))), ready(&running_status));
    }
}
