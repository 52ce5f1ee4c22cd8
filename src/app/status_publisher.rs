//! Publishes verdicts as statuses of the cluster's objects, written by the elected leader.

use std::env;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use super::cluster::ClusterSource;
use super::control::VerdictChanges;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::args::{ClusterOptions, GatewayOptions};
use crate::drain::Drain;
use crate::k8s::{EventRecorder, LeaderCandidate, LeaderWriteGuard, StatusClient, run_leader_election};
use crate::status::{EventWriter, StatusQueue, StatusWriteMetrics, StatusWriter};

/// Tasks of the leader election and the status writer.
#[derive(Debug)]
pub(super) struct StatusPublisher {
    queue: StatusQueue,
    election: JoinHandle<()>,
    writer: JoinHandle<()>,
    event_recorder: JoinHandle<()>,
    pub(super) leading: watch::Receiver<bool>,
}

impl StatusPublisher {
    /// Joins the leader election and writes statuses while elected, until the process stops.
    pub(super) fn start(
        cluster: &ClusterSource,
        options: &ClusterOptions,
        gateways: &GatewayOptions,
        writes: StatusWriteMetrics,
        drain: Drain,
    ) -> StatusPublisher {
        let seat = election_candidate(options);
        info!(namespace = seat.namespace, identity = seat.identity, "Joining the leader election");
        let recorder = EventRecorder::new(cluster.source.client(), GATEWAY_CONTROLLER, &seat.identity);
        let (leads, leading) = watch::channel(false);
        let write_guard = LeaderWriteGuard::default();
        let election = run_leader_election(cluster.source.client(), seat, leads, write_guard.clone(), async move {
            drain.leaving().await
        });
        let queue = StatusQueue::new();
        let teller = EventWriter::new(queue.clone(), recorder);
        let controllers = gateways.controller_names.iter().cloned().collect();
        let writer = StatusWriter::new(queue.clone(), StatusClient::new(cluster.source.client()), controllers, writes);
        let writer = tokio::spawn(writer.run(leading.clone(), write_guard));
        StatusPublisher {
            queue,
            election: tokio::spawn(election),
            writer,
            event_recorder: tokio::spawn(teller.run()),
            leading,
        }
    }

    pub(super) fn queue(&self) -> StatusQueue {
        self.queue.clone()
    }

    /// Waits until another replica may become the leader, at most a second after the stop was requested.
    pub(super) async fn shutdown(self) {
        // A task that panicked was reported already and holds no Lease.
        self.election.await.ok();
        self.writer.abort();
        self.event_recorder.abort();
    }
}

/// Queues the changed verdicts. `alone`: no GatewayClass belongs to another controller.
pub(super) fn queue_statuses(queue: &StatusQueue, changes: &VerdictChanges, alone: bool) {
    queue.set_sole_controller(alone);
    for id in changes.before.keys().filter(|id| !changes.after.contains_key(*id)) {
        queue.set_verdict(id.clone(), None);
    }
    for (id, verdict) in &changes.after {
        queue.set_verdict(id.clone(), Some(verdict.clone()));
    }
}

/// Lease in the namespace and under the name of this Pod; outside of a Pod, in the default namespace under the host
/// name.
fn election_candidate(options: &ClusterOptions) -> LeaderCandidate {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let namespace = options.election_namespace.clone().or_else(|| variable("POD_NAMESPACE"));
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let process = variable("POD_NAME").or_else(host).unwrap_or_else(|| "portico".to_owned());
    LeaderCandidate::new(namespace.unwrap_or_else(|| NAMESPACE.to_owned()), &process)
}

const NAMESPACE: &str = "portico-system";
