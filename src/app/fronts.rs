//! The Services in front of Gateways, between those who keep them and the control loop.

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::control::Control;
use crate::api::ObjectKey;
use crate::args::{AddressSource, ClusterOptions, GatewayOptions};
use crate::drain::Drain;
use crate::k8s::services::{self, Bound, Inputs, Settings, Shape, Stay, View, Wants};
use crate::status::Bind;

/// What the control loop has to do with them.
#[derive(Debug)]
pub(super) struct Fronts {
    view: watch::Receiver<Arc<View>>,
    wants: watch::Receiver<Arc<Wants>>,
    leading: watch::Receiver<bool>,
    bound: watch::Sender<Option<Arc<Bound>>>,
    /// Gateways have no address without them.
    needed: bool,
}

/// Lets go of them when the process ends.
#[derive(Debug)]
pub(super) struct Goodbye {
    stay: watch::Sender<Stay>,
    keeping: JoinHandle<()>,
    leaving: JoinHandle<()>,
}

impl Fronts {
    /// Begins to keep them.
    pub(super) fn start(
        cluster: &Cluster,
        flags: &ClusterOptions,
        gateways: &GatewayOptions,
        control: &Control,
        leading: watch::Receiver<bool>,
        drain: &Drain,
    ) -> anyhow::Result<(Fronts, Goodbye)> {
        let pod = own_pod();
        let shape = match gateways.addresses {
            AddressSource::Pool(_) => Shape::Headless,
            AddressSource::Services(_) if pod.is_none() => bail!(
                "Gateways get Services that lead to this Pod, but which one that is is not known; set POD_NAME and \
                 POD_NAMESPACE from its metadata.name and metadata.namespace, as manifests/ does, or give \
                 --gateway-address-pool"
            ),
            AddressSource::Services(kind) => Shape::Exposed(kind),
        };
        let settings = Settings {
            namespaces: flags.namespaces.clone(),
            shape,
            controllers: gateways.controller_names.clone(),
            pod,
        };
        let (stay, stays) = watch::channel(Stay::Serving);
        let bound = watch::Sender::new(None);
        let wants = control.addressing.wants();
        let inputs = Inputs { wants: wants.clone(), leading: leading.clone(), bound: bound.subscribe(), stay: stays };
        let (views, view) = watch::channel(Arc::default());
        let keeping = tokio::spawn(services::keep(settings, cluster.source.client(), inputs, views));
        let leaving = tokio::spawn({
            let (drain, stay) = (drain.clone(), stay.clone());
            async move {
                drain.leaving().await;
                stay.send_replace(Stay::Leaving);
            }
        });
        let needed = matches!(shape, Shape::Exposed(_));
        Ok((Fronts { view, wants, leading, bound, needed }, Goodbye { stay, keeping, leaving }))
    }

    /// Waits until there is something to `see`. May be dropped while it waits.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            // Their senders live as long as the process does.
            Ok(()) = self.view.changed() => {}
            Ok(()) = self.leading.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Hands what there is to the control side.
    pub(super) fn see(&mut self, control: &mut Control) {
        control.addressing.lead(*self.leading.borrow_and_update());
        control.addressing.see(&self.view.borrow_and_update());
    }

    /// Whether enough is known of them: before, every Gateway would look as if it had lost its address.
    pub(super) fn let_compile(&self) -> bool {
        let view = self.view.borrow();
        !self.needed || view.complete && view.of == *self.wants.borrow()
    }

    /// Says which ports are open and for which Gateway, so that its clients are sent to them.
    pub(super) fn tell_bound(&self, control: &Control) {
        let mut ports: BTreeSet<u16> = BTreeSet::new();
        let mut closed: BTreeSet<u16> = BTreeSet::new();
        for (address, bind) in control.binds().iter().filter(|(address, _)| address.ip().is_unspecified()) {
            let list = if *bind == Bind::Bound { &mut ports } else { &mut closed };
            list.insert(address.port());
        }
        // For one address family only is not for all clients.
        ports.retain(|port| !closed.contains(port));
        let gateways = control.addressing.addresses().sent();
        let bound: Bound =
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

impl Goodbye {
    /// Takes this Pod out of all Services, if the API server answers in time; else the other replicas do.
    pub(super) async fn say(self) {
        self.leaving.abort();
        self.stay.send_replace(Stay::Gone);
        let mut keeping = self.keeping;
        if timeout(PATIENCE, &mut keeping).await.is_err() {
            keeping.abort();
        }
    }
}

/// The Pod that this process runs in, as its manifest says.
fn own_pod() -> Option<ObjectKey> {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    Some(ObjectKey::new(&variable("POD_NAMESPACE")?, &variable("POD_NAME")?))
}

/// Stopping must not take longer because of an API server that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
