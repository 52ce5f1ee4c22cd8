//! What the API server is told of a Pod: the latest state only, written until it is taken.

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

use super::RETRY;
use super::program::Exit;
use crate::cluster::ADDRESS;

/// A Pod as its node sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) state: State,
    /// How the container ended before it was started again.
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    /// Whether the startup probe, if there is one, has succeeded.
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        since: Timestamp,
    },
    /// For good.
    Ended(Ended),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) since: Timestamp,
    pub(crate) at: Timestamp,
}

impl Seen {
    /// Before anything was done. Restarts go on counting where the last run of this node stopped.
    pub(crate) fn first(pod: &Pod) -> Seen {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts = containers.and_then(|containers| containers.first()).map_or(0, |first| first.restart_count);
        let state = State::Waiting { reason: "ContainerCreating", message: String::new() };
        Seen { address: None, state, last: None, restarts, started: false, ready: false }
    }

    /// The container does not run yet, or not now. Says whether that is new.
    pub(crate) fn wait(&mut self, reason: &'static str, message: impl Into<String>) -> bool {
        let next = State::Waiting { reason, message: message.into() };
        let new = self.state != next;
        self.end(next);
        new
    }

    /// The container does not run any more.
    pub(crate) fn end(&mut self, state: State) {
        self.state = state;
        self.started = false;
        self.ready = false;
    }

    fn phase(&self) -> &'static str {
        match &self.state {
            State::Ended(ended) if ended.exit.good() => "Succeeded",
            State::Ended(_) => "Failed",
            State::Waiting { .. } if self.last.is_none() => "Pending",
            State::Waiting { .. } | State::Running { .. } => "Running",
        }
    }
}

/// Writes what is seen of one Pod, until the sender is gone and the last of it is written, or the Pod is.
pub(crate) struct Writer {
    api: Api<Pod>,
    name: String,
    uid: String,
    container: String,
    image: String,
    since: Timestamp,
    conditions: Vec<PodCondition>,
}

impl Writer {
    pub(crate) fn new(client: Client, pod: &Pod) -> Writer {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        Writer {
            api: Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default()),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            container: container.map_or_else(String::new, |container| container.name.clone()),
            image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
            since: Timestamp::now(),
            conditions: Vec::new(),
        }
    }

    pub(crate) async fn write(mut self, mut seen: watch::Receiver<Seen>) {
        loop {
            let status = self.status(&seen.borrow_and_update().clone());
            // With its uid, so that another Pod of the same name is never meant.
            let mut patch = json!({ "metadata": { "uid": self.uid }, "status": status });
            if let Some(Value::Array(addresses)) = patch["status"].get_mut("podIPs") {
                // Otherwise the address of an earlier run of this node stays beside.
                addresses.push(json!({ "$patch": "replace" }));
            }
            match self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    if seen.changed().await.is_err() {
                        return;
                    }
                }
                Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409 | 422) => return,
                // Away, or too busy: what is seen by then is written then.
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    fn status(&mut self, seen: &Seen) -> PodStatus {
        let now = Timestamp::now();
        self.conditions = ["Initialized", "ContainersReady", "Ready"]
            .map(|kind| {
                let holds = kind == "Initialized" || seen.ready;
                let status = if holds { "True" } else { "False" };
                let before = self.conditions.iter().find(|condition| condition.type_ == kind);
                match before {
                    Some(before) if before.status == status => before.clone(),
                    _ => PodCondition {
                        type_: kind.to_owned(),
                        status: status.to_owned(),
                        last_transition_time: Some(Time(now)),
                        // Never absent: a patch would leave the last one as it is.
                        reason: Some(if holds { "" } else { "ContainersNotReady" }.to_owned()),
                        ..PodCondition::default()
                    },
                }
            })
            .into();
        let container = ContainerStatus {
            name: self.container.clone(),
            image: self.image.clone(),
            image_id: self.image.clone(),
            ready: seen.ready,
            started: Some(seen.started),
            restart_count: seen.restarts,
            state: Some(seen.state.render()),
            last_state: seen
                .last
                .map(|ended| ContainerState { terminated: Some(ended.render()), ..Default::default() }),
            ..ContainerStatus::default()
        };
        let address = seen.address.map(|address| address.to_string());
        PodStatus {
            phase: Some(seen.phase().to_owned()),
            // Here `kubectl describe` shows it. Never absent, as above.
            message: Some(match &seen.state {
                State::Waiting { message, .. } => message.clone(),
                State::Running { .. } | State::Ended(_) => String::new(),
            }),
            host_ip: Some(ADDRESS.to_string()),
            host_ips: Some(vec![HostIP { ip: ADDRESS.to_string() }]),
            pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
            pod_ip: address,
            start_time: Some(Time(self.since)),
            conditions: Some(self.conditions.clone()),
            container_statuses: Some(vec![container]),
            ..PodStatus::default()
        }
    }
}

impl State {
    fn render(&self) -> ContainerState {
        match self {
            State::Waiting { reason, message } => {
                let message = (!message.is_empty()).then(|| message.clone());
                let waiting = ContainerStateWaiting { reason: Some((*reason).to_owned()), message };
                ContainerState { waiting: Some(waiting), ..ContainerState::default() }
            }
            State::Running { since } => {
                let running = ContainerStateRunning { started_at: Some(Time(*since)) };
                ContainerState { running: Some(running), ..ContainerState::default() }
            }
            State::Ended(ended) => ContainerState { terminated: Some(ended.render()), ..ContainerState::default() },
        }
    }
}

impl Ended {
    fn render(&self) -> ContainerStateTerminated {
        ContainerStateTerminated {
            exit_code: self.exit.code,
            signal: self.exit.signal,
            reason: Some(if self.exit.good() { "Completed" } else { "Error" }.to_owned()),
            started_at: Some(Time(self.since)),
            finished_at: Some(Time(self.at)),
            ..ContainerStateTerminated::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: State, ready: bool) -> Seen {
        Seen { address: Some(Ipv4Addr::new(198, 18, 128, 1)), state, last: None, restarts: 0, started: ready, ready }
    }

    fn running() -> State {
        State::Running { since: Timestamp::UNIX_EPOCH }
    }

    fn ended(code: i32) -> Ended {
        Ended { exit: Exit { code, signal: None }, since: Timestamp::UNIX_EPOCH, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn phases_follow_the_container() {
        let waiting = State::Waiting { reason: "CrashLoopBackOff", message: String::new() };
        let crashed = Seen { last: Some(ended(1)), ..seen(waiting.clone(), false) };
        for (seen, phase) in [
            (seen(waiting, false), "Pending"),
            (crashed, "Running"),
            (seen(running(), false), "Running"),
            (seen(State::Ended(ended(0)), false), "Succeeded"),
            (seen(State::Ended(ended(1)), false), "Failed"),
        ] {
            assert_eq!(seen.phase(), phase, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn nothing_of_an_earlier_state_stays_behind() {
        let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let mut writer = Writer::new(Client::try_from(config).unwrap(), &Pod::default());
        let ready = |status: &PodStatus| {
            let conditions = status.conditions.clone().unwrap();
            conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap()
        };
        let late = State::Waiting { reason: "ContainerCreating", message: "Secret a/b does not exist".to_owned() };
        let waiting = writer.status(&seen(late, false));
        assert_eq!(waiting.message.as_deref(), Some("Secret a/b does not exist"));
        assert_eq!(ready(&waiting).reason.as_deref(), Some("ContainersNotReady"));
        let first = writer.status(&seen(running(), true));
        // A patch leaves what is absent as it is, so these have to be there.
        assert_eq!(first.message.as_deref(), Some(""));
        assert_eq!(ready(&first).reason.as_deref(), Some(""));
        // The same again did not happen now.
        assert_eq!(ready(&writer.status(&seen(running(), true))), ready(&first));
    }
}
