//! Writes verdicts to the cluster as statuses and events. Only the elected leader writes; the other replicas write
//! events about what only they know.

use std::collections::BTreeSet;
use std::env;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use super::cluster::ClusterSource;
use super::control::VerdictChanges;
use crate::api::ObjectId;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::args::{ClusterOptions, GatewayOptions};
use crate::cluster_keys::KeySecretParts;
use crate::drain::Drain;
use crate::k8s::{EventRecorder, LeaderCandidate, LeaderWriteGuard, StatusClient, run_leader_election};
use crate::status::{EventWriter, StatusQueue, StatusWriteMetrics, StatusWriter};

/// Tasks of the leader election, the status writer and the event writer.
#[derive(Debug)]
pub(super) struct StatusPublisher {
    queue: StatusQueue,
    election: JoinHandle<()>,
    status_writer: JoinHandle<()>,
    event_writer: JoinHandle<()>,
    recorder: EventRecorder,
    write_guard: LeaderWriteGuard,
    pub(super) leading: watch::Receiver<bool>,
}

impl StatusPublisher {
    /// Joins the leader election, and writes statuses and events while elected, until the process stops. Events about
    /// this replica are written while another one leads.
    pub(super) fn start(
        cluster: &ClusterSource,
        options: &ClusterOptions,
        gateways: &GatewayOptions,
        writes: StatusWriteMetrics,
        drain: Drain,
    ) -> StatusPublisher {
        let candidate = election_candidate(options);
        info!(namespace = candidate.namespace, identity = candidate.identity, "Joining the leader election");
        let recorder = EventRecorder::new(cluster.source.client(), GATEWAY_CONTROLLER, &candidate.identity);
        let (leading_sender, leading) = watch::channel(false);
        let write_guard = LeaderWriteGuard::default();
        let election =
            run_leader_election(cluster.source.client(), candidate, leading_sender, write_guard.clone(), async move {
                drain.leaving().await
            });
        let queue = StatusQueue::new();
        queue.set_replica(&replica_name(&process_name()));
        let event_writer = EventWriter::new(queue.clone(), recorder.clone());
        let controllers = gateways.controller_names.clone();
        let status_writer =
            StatusWriter::new(queue.clone(), StatusClient::new(cluster.source.client()), controllers, writes);
        let status_writer = tokio::spawn(status_writer.run(leading.clone(), write_guard.clone()));
        StatusPublisher {
            queue,
            election: tokio::spawn(election),
            status_writer,
            event_writer: tokio::spawn(event_writer.run()),
            recorder,
            write_guard,
            leading,
        }
    }

    /// What the Secret with the keys of all replicas needs. It is in the namespace of this Pod.
    pub(super) fn key_secret_parts(&self) -> KeySecretParts {
        KeySecretParts {
            namespace: variable("POD_NAMESPACE").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            leading: self.leading.clone(),
            write_guard: self.write_guard.clone(),
            recorder: self.recorder.clone(),
        }
    }

    pub(super) fn queue(&self) -> StatusQueue {
        self.queue.clone()
    }

    /// Waits until the election has released the Lease, or has given up and lets it expire. The election takes at most
    /// two seconds for this, from the beginning of `DrainPhase::Leaving`.
    pub(super) async fn shutdown(self) {
        // An error means that the task panicked, which is logged already; its Lease expires.
        self.election.await.ok();
        self.status_writer.abort();
        self.event_writer.abort();
    }
}

/// Queues the changed verdicts, except those on `withheld` objects. `is_sole_controller`: all GatewayClasses belong to
/// this controller.
pub(super) fn queue_statuses(
    queue: &StatusQueue,
    changes: &VerdictChanges,
    withheld: &BTreeSet<ObjectId>,
    is_sole_controller: bool,
) {
    queue.set_sole_controller(is_sole_controller);
    for id in changes.before.keys().filter(|id| !changes.after.contains_key(*id)) {
        queue.set_verdict(id.clone(), None);
    }
    for (id, verdict) in changes.after.iter().filter(|(id, _)| !withheld.contains(*id)) {
        queue.set_verdict(id.clone(), Some(verdict.clone()));
    }
}

/// The candidate. Its name is that of this Pod, or the host name if Portico does not run in a Pod. The Lease is in
/// `election_namespace`, and if that is unset, in the namespace of this Pod or in the default one.
fn election_candidate(options: &ClusterOptions) -> LeaderCandidate {
    let namespace = options.election_namespace.clone().or_else(|| variable("POD_NAMESPACE"));
    LeaderCandidate::new(namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()), &process_name())
}

/// The name of this Pod, or of the host.
fn process_name() -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    variable("POD_NAME").or_else(host).unwrap_or_else(|| "portico".to_owned())
}

/// This replica in messages: `Pod NAME on node NAME`, as far as it is known.
fn replica_name(process: &str) -> String {
    match variable("NODE_NAME") {
        Some(node) => format!("Pod {process} on node {node}"),
        None => format!("replica {process}"),
    }
}

/// An environment variable; `None` if it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

const DEFAULT_NAMESPACE: &str = "portico-system";
