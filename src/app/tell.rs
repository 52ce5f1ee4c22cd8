//! What the cluster is told: verdicts become the statuses of its objects, written by the one replica that leads.

use std::env;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use super::cluster::Cluster;
use super::control::News;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::args::{ClusterOptions, GatewayOptions};
use crate::drain::Drain;
use crate::k8s::{Pen, Recorder, Seat, Statuses, campaign};
use crate::status::{Desk, Teller, Writer, Writes};

/// The tasks that tell.
#[derive(Debug)]
pub(super) struct Telling {
    desk: Desk,
    election: JoinHandle<()>,
    writer: JoinHandle<()>,
    teller: JoinHandle<()>,
    pub(super) leading: watch::Receiver<bool>,
}

impl Telling {
    /// Stands for election, and writes while elected, until this process is told to stop.
    pub(super) fn start(
        cluster: &Cluster,
        options: &ClusterOptions,
        gateways: &GatewayOptions,
        writes: Writes,
        drain: Drain,
    ) -> Telling {
        let seat = seat(options);
        info!(namespace = seat.namespace, identity = seat.identity, "Stands for election");
        let recorder = Recorder::new(cluster.source.client(), GATEWAY_CONTROLLER, &seat.identity);
        let (leads, leading) = watch::channel(false);
        let pen = Pen::default();
        let election =
            campaign(cluster.source.client(), seat, leads, pen.clone(), async move { drain.leaving().await });
        let desk = Desk::new();
        let teller = Teller::new(desk.clone(), recorder);
        let controllers = gateways.controller_names.iter().cloned().collect();
        let writer = Writer::new(desk.clone(), Statuses::new(cluster.source.client()), controllers, writes);
        let writer = tokio::spawn(writer.run(leading.clone(), pen));
        Telling { desk, election: tokio::spawn(election), writer, teller: tokio::spawn(teller.run()), leading }
    }

    pub(super) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Waits until another replica may lead. That takes a second at most, once the process was told to stop.
    pub(super) async fn end(self) {
        // A task that failed has said so, and has nothing to give back.
        self.election.await.ok();
        self.writer.abort();
        self.teller.abort();
    }
}

/// What the desk is told, when it is being served. `alone`: no GatewayClass is another controller's.
pub(super) fn want(desk: &Desk, news: &News, alone: bool) {
    desk.alone(alone);
    for id in news.before.keys().filter(|id| !news.after.contains_key(*id)) {
        desk.want(id.clone(), None);
    }
    for (id, verdict) in &news.after {
        desk.want(id.clone(), Some(verdict.clone()));
    }
}

/// In the namespace and under the name of our Pod; elsewhere in the one that manifests use, under the name of the host.
fn seat(options: &ClusterOptions) -> Seat {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let namespace = options.election_namespace.clone().or_else(|| variable("POD_NAMESPACE"));
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let process = variable("POD_NAME").or_else(host).unwrap_or_else(|| "portico".to_owned());
    Seat::new(namespace.unwrap_or_else(|| NAMESPACE.to_owned()), &process)
}

const NAMESPACE: &str = "portico-system";
