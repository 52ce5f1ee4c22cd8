//! Connects the reconciler of the Services in front of Gateways to the control loop.

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cluster::ClusterSource;
use super::control::Control;
use crate::api::ObjectKey;
use crate::args::{AddressSource, ClusterOptions, GatewayOptions};
use crate::drain::Drain;
use crate::k8s::services::{
    self, DesiredServices, GatewayExposure, GatewayServicesView, ListeningPorts, ReconcilerInputs, ReconcilerSettings,
    ReplicaLifecycle,
};
use crate::status::BindOutcome;

/// The control loop's handle to the Services in front of Gateways.
#[derive(Debug)]
pub(super) struct GatewayServicesHandle {
    view: watch::Receiver<Arc<GatewayServicesView>>,
    desired: watch::Receiver<Arc<DesiredServices>>,
    leading: watch::Receiver<bool>,
    listening_ports: watch::Sender<Option<Arc<ListeningPorts>>>,
    /// Whether Gateways get their addresses from these Services, or from the Pods of Portico.
    needed: bool,
}

/// Removes this Pod from the Services at the end of the process.
#[derive(Debug)]
pub(super) struct GatewayServicesShutdown {
    lifecycle: watch::Sender<ReplicaLifecycle>,
    reconciler: JoinHandle<()>,
    /// Sets `lifecycle` to `Draining` when the stop begins.
    drain_watch: JoinHandle<()>,
}

impl GatewayServicesHandle {
    /// Starts the reconciler.
    pub(super) fn start(
        cluster: &ClusterSource,
        flags: &ClusterOptions,
        gateways: &GatewayOptions,
        control: &Control,
        leading: watch::Receiver<bool>,
        drain: &Drain,
    ) -> anyhow::Result<(GatewayServicesHandle, GatewayServicesShutdown)> {
        let pod = current_pod();
        let exposure = match gateways.addresses {
            AddressSource::Pool(_) => GatewayExposure::Headless,
            AddressSource::Services(_) if pod.is_none() => bail!(
                "Gateways get Services that send clients to this Pod, but its name is unknown; set POD_NAME and \
                 POD_NAMESPACE from metadata.name and metadata.namespace of the Pod, as manifests/ does, or give \
                 --gateway-address-pool"
            ),
            AddressSource::Services(kind) => GatewayExposure::Exposed(kind),
        };
        // Outside of a Pod, Gateways have the addresses of this machine.
        let on_all_interfaces = match &gateways.addresses {
            AddressSource::Pool(pool) => {
                pod.is_some() && pool.networks.iter().any(|network| network.addr().is_unspecified())
            }
            AddressSource::Services(_) => false,
        };
        let settings = ReconcilerSettings {
            namespaces: flags.namespaces.clone(),
            exposure,
            on_all_interfaces,
            controllers: gateways.controller_names.iter().cloned().collect(),
            pod,
        };
        let (lifecycle, lifecycle_changes) = watch::channel(ReplicaLifecycle::Serving);
        let listening_ports = watch::Sender::new(None);
        let desired = control.addressing.desired_services();
        let inputs = ReconcilerInputs {
            desired: desired.clone(),
            leading: leading.clone(),
            listening_ports: listening_ports.subscribe(),
            lifecycle: lifecycle_changes,
        };
        let (views, view) = watch::channel(Arc::default());
        let reconciler = tokio::spawn(services::reconcile(settings, cluster.source.client(), inputs, views));
        let drain_watch = tokio::spawn({
            let (drain, lifecycle) = (drain.clone(), lifecycle.clone());
            async move {
                drain.leaving().await;
                lifecycle.send_replace(ReplicaLifecycle::Draining);
            }
        });
        let needed = on_all_interfaces || matches!(exposure, GatewayExposure::Exposed(_));
        Ok((
            GatewayServicesHandle { view, desired, leading, listening_ports, needed },
            GatewayServicesShutdown { lifecycle, reconciler, drain_watch },
        ))
    }

    /// Waits until `update` has something new. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            // The senders live as long as the process.
            Ok(()) = self.view.changed() => {}
            Ok(()) = self.leading.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Passes the observed state to the control loop.
    pub(super) fn update(&mut self, control: &mut Control) {
        control.addressing.set_leading(*self.leading.borrow_and_update());
        control.addressing.observe_services(&self.view.borrow_and_update());
    }

    /// Whether the Services and Pods that Gateways need were observed. Before that, every Gateway would lose its
    /// address.
    pub(super) fn may_compile(&self) -> bool {
        let view = self.view.borrow();
        !self.needed || view.complete && view.desired == *self.desired.borrow()
    }

    /// Publishes the open ports and the Gateway of each, so that Services route traffic to them.
    pub(super) fn publish_bound_ports(&self, control: &Control) {
        let mut open: BTreeSet<u16> = BTreeSet::new();
        let mut closed: BTreeSet<u16> = BTreeSet::new();
        for (address, bind) in control.binds().iter().filter(|(address, _)| address.socket.ip().is_unspecified()) {
            let port_set = if *bind == BindOutcome::Bound { &mut open } else { &mut closed };
            port_set.insert(address.socket.port());
        }
        // A port that is open for one address family only cannot serve all clients.
        open.retain(|port| !closed.contains(port));
        let target_ports = control.addressing.addresses().service_target_ports();
        let listening_ports: ListeningPorts =
            target_ports.filter(|(port, _)| open.contains(port)).map(|(port, key)| (port, key.clone())).collect();
        self.listening_ports.send_if_modified(|published| {
            let differs = published.as_deref() != Some(&listening_ports);
            if differs {
                *published = Some(Arc::new(listening_ports));
            }
            differs
        });
    }
}

impl GatewayServicesShutdown {
    /// Removes this Pod from all Services. If the API server does not respond in time, the leader does it later.
    pub(super) async fn run(self) {
        self.drain_watch.abort();
        self.lifecycle.send_replace(ReplicaLifecycle::Stopped);
        let mut reconciler = self.reconciler;
        if timeout(SHUTDOWN_TIMEOUT, &mut reconciler).await.is_err() {
            reconciler.abort();
        }
    }
}

/// The Pod of this process, from environment variables set by its manifest.
fn current_pod() -> Option<ObjectKey> {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    Some(ObjectKey::new(&variable("POD_NAMESPACE")?, &variable("POD_NAME")?))
}

/// The longest time by which an API server that does not respond may delay shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
