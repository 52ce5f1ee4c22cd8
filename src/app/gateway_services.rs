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

/// The control loop's handle to these Services.
#[derive(Debug)]
pub(super) struct GatewayServicesHandle {
    view: watch::Receiver<Arc<GatewayServicesView>>,
    desired: watch::Receiver<Arc<DesiredServices>>,
    leading: watch::Receiver<bool>,
    bound: watch::Sender<Option<Arc<ListeningPorts>>>,
    /// Gateways get their addresses from these Services.
    needed: bool,
}

/// Removes this Pod from the Services at the end of the process.
#[derive(Debug)]
pub(super) struct GatewayServicesShutdown {
    stay: watch::Sender<ReplicaLifecycle>,
    reconciler: JoinHandle<()>,
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
        let shape = match gateways.addresses {
            AddressSource::Pool(_) => GatewayExposure::Headless,
            AddressSource::Services(_) if pod.is_none() => bail!(
                "Gateways get Services that select this Pod, but its name is unknown; set POD_NAME and POD_NAMESPACE \
                 from metadata.name and metadata.namespace of the Pod, as manifests/ does, or give \
                 --gateway-address-pool"
            ),
            AddressSource::Services(kind) => GatewayExposure::Exposed(kind),
        };
        let settings = ReconcilerSettings {
            namespaces: flags.namespaces.clone(),
            exposure: shape,
            controllers: gateways.controller_names.clone(),
            pod,
        };
        let (lifecycle, lifecycle_changes) = watch::channel(ReplicaLifecycle::Serving);
        let bound = watch::Sender::new(None);
        let desired = control.addressing.desired_services();
        let inputs = ReconcilerInputs {
            desired: desired.clone(),
            leading: leading.clone(),
            listening_ports: bound.subscribe(),
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
        let needed = matches!(shape, GatewayExposure::Exposed(_));
        Ok((
            GatewayServicesHandle { view, desired, leading, bound, needed },
            GatewayServicesShutdown { stay: lifecycle, reconciler, drain_watch },
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

    /// Whether the Services were observed; before, every Gateway would appear to have lost its address.
    pub(super) fn may_compile(&self) -> bool {
        let view = self.view.borrow();
        !self.needed || view.complete && view.desired == *self.desired.borrow()
    }

    /// Publishes the open ports and the Gateway of each, so that Services route traffic to them.
    pub(super) fn publish_bound_ports(&self, control: &Control) {
        let mut ports: BTreeSet<u16> = BTreeSet::new();
        let mut closed: BTreeSet<u16> = BTreeSet::new();
        for (address, bind) in control.binds().iter().filter(|(address, _)| address.socket.ip().is_unspecified()) {
            let list = if *bind == BindOutcome::Bound { &mut ports } else { &mut closed };
            list.insert(address.socket.port());
        }
        // A port that is open for one address family only cannot serve all clients.
        ports.retain(|port| !closed.contains(port));
        let gateways = control.addressing.addresses().service_target_ports();
        let bound: ListeningPorts =
            gateways.filter(|(port, _)| ports.contains(port)).map(|(port, key)| (port, key.clone())).collect();
        self.bound.send_if_modified(|known| {
            let differs = known.as_deref() != Some(&bound);
            if differs {
                *known = Some(Arc::new(bound));
            }
            differs
        });
    }
}

impl GatewayServicesShutdown {
    /// Removes this Pod from all Services. If the API server does not respond in time, the other replicas do it.
    pub(super) async fn run(self) {
        self.drain_watch.abort();
        self.stay.send_replace(ReplicaLifecycle::Stopped);
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

/// An API server that does not respond must not delay shutdown longer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
