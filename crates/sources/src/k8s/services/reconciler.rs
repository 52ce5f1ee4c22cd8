//! The tasks that reconcile the Services of Gateways and publish their state.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use super::observed_state::{ObservedState, ReplicaState};
use super::plan::PlanStep;
use super::selection::ListeningPorts;
use super::slices::ReplicaLifecycle;
use super::watch::{WatchUpdate, watch_objects};
use super::{DesiredServices, GatewayExposure, GatewayServicesView, write};
use crate::api::ObjectKey;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::k8s::sleep_until_deadline;

/// The settings of the reconciler.
#[derive(Clone, Debug)]
pub struct ReconcilerSettings {
    /// The watched namespaces; empty for all.
    pub namespaces: Vec<String>,
    pub exposure: GatewayExposure,
    /// Whether Gateways listen on all interfaces of Portico's Pods, so that they have the addresses of these.
    pub on_all_interfaces: bool,
    /// The controller names of this installation.
    pub controllers: BTreeSet<String>,
    /// The Pod of this process, if it runs in one.
    pub pod: Option<ObjectKey>,
}

/// The inputs of the reconciler, all of which may change at any time.
#[derive(Clone, Debug)]
pub struct ReconcilerInputs {
    pub desired: watch::Receiver<Arc<DesiredServices>>,
    /// Whether this replica is the leader, which writes the Services.
    pub leading: watch::Receiver<bool>,
    /// None until this process listens for the first time.
    pub listening_ports: watch::Receiver<Option<Arc<ListeningPorts>>>,
    pub lifecycle: watch::Receiver<ReplicaLifecycle>,
}

impl ReconcilerSettings {
    pub(super) fn is_exposed(&self) -> bool {
        matches!(self.exposure, GatewayExposure::Exposed(_))
    }

    /// Whether the Pods of Portico decide the addresses of Gateways.
    pub(super) fn needs_pods(&self) -> bool {
        self.pod.is_some() && (self.is_exposed() || self.on_all_interfaces)
    }
}

/// The observed state that watches, view and plans share. `changed` notifies of every change.
struct SharedState {
    observed: Mutex<ObservedState>,
    changed: watch::Sender<()>,
}

/// Reconciles until this process is `Stopped` and no step is due: its EndpointSlices are deleted, or a failed deletion
/// has to wait. Publishes to `view` whenever the state of the Services changes.
pub async fn reconcile(
    settings: ReconcilerSettings,
    mut client: watch::Receiver<Client>,
    inputs: ReconcilerInputs,
    view: watch::Sender<Arc<GatewayServicesView>>,
) {
    let shared = SharedState { observed: Mutex::new(ObservedState::new(&settings)), changed: watch::Sender::new(()) };
    loop {
        let current_client = client.borrow_and_update().clone();
        tokio::select! {
            () = watch_all(&settings, &current_client, &shared) => {}
            () = publish_view(&settings, &shared, inputs.desired.clone(), inputs.listening_ports.clone(), &view) => {}
            () = run_plans(&settings, &current_client, &shared, inputs.clone()) => return,
            // Everything starts again with a client that has new credentials.
            Ok(()) = client.changed() => {}
        }
    }
}

/// Watches the Services, EndpointSlices and Pods; never returns.
async fn watch_all(settings: &ReconcilerSettings, client: &Client, shared: &SharedState) {
    let selector = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let services = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let report =
            move |update: WatchUpdate<_>| shared.update(|observed| observed.apply_service_event(number, update));
        watch_objects("the Services of Gateways", api, selector.clone(), report)
    }));
    let slices = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let report = move |update: WatchUpdate<_>| shared.update(|observed| observed.apply_slice_event(number, update));
        watch_objects("the EndpointSlices of Gateways", api, selector.clone(), report)
    }));
    let pods = async {
        if let Some(pod) = settings.pod.as_ref().filter(|_| settings.needs_pods()) {
            let api = Api::namespaced(client.clone(), &pod.namespace);
            let report = |update: WatchUpdate<_>| shared.update(|observed| observed.apply_pod_event(update));
            watch_objects("the Pods of this namespace", api, watcher::Config::default(), report).await;
        }
    };
    if settings.is_exposed() {
        tokio::join!(services, slices, pods);
    } else {
        tokio::join!(services, pods);
    }
    pending().await
}

/// One API for each watched namespace, or one for all.
fn apis<K>(settings: &ReconcilerSettings, client: &Client) -> Vec<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    if settings.namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    settings.namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

impl SharedState {
    /// `update` returns whether anything changed.
    fn update(&self, update: impl FnOnce(&mut ObservedState) -> bool) {
        let changed = update(&mut self.observed.lock());
        if changed {
            self.changed.send_replace(());
        }
    }
}

/// Publishes the view of the Services whenever it changes; never returns.
async fn publish_view(
    settings: &ReconcilerSettings,
    shared: &SharedState,
    mut desired_services: watch::Receiver<Arc<DesiredServices>>,
    mut listening_ports: watch::Receiver<Option<Arc<ListeningPorts>>>,
    view: &watch::Sender<Arc<GatewayServicesView>>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        let (desired, ports) =
            (desired_services.borrow_and_update().clone(), listening_ports.borrow_and_update().clone());
        let next = shared.observed.lock().view(settings, &desired, &ports.unwrap_or_default());
        view.send_if_modified(|published| {
            let differs = **published != next;
            if differs {
                *published = Arc::new(next);
            }
            differs
        });
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = desired_services.changed() => {}
            Ok(()) = listening_ports.changed() => {}
        }
    }
}

/// Plans and carries out steps until this process is `Stopped` and no step is due.
async fn run_plans(settings: &ReconcilerSettings, client: &Client, shared: &SharedState, inputs: ReconcilerInputs) {
    let ReconcilerInputs { desired: mut desired_services, mut leading, mut listening_ports, mut lifecycle } = inputs;
    let mut changed = shared.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let (steps, next_retry) = {
            let (desired_services, listening_ports) =
                (desired_services.borrow_and_update().clone(), listening_ports.borrow_and_update().clone());
            let (leading, lifecycle) = (*leading.borrow_and_update(), *lifecycle.borrow_and_update());
            shared.observed.lock().due_steps(
                settings,
                &desired_services,
                ReplicaState { leading, lifecycle, listening_ports: listening_ports.as_deref() },
            )
        };
        if *lifecycle.borrow() == ReplicaLifecycle::Stopped && steps.is_empty() {
            return;
        }
        run_steps(settings, client, shared, steps, &leading).await;
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = desired_services.changed() => {}
            Ok(()) = leading.changed() => {}
            Ok(()) = listening_ports.changed() => {}
            Ok(()) = lifecycle.changed() => {}
            () = sleep_until_deadline(next_retry) => {}
        }
        // Changes that arrive together make one plan.
        sleep(BATCH_DELAY).await;
    }
}

/// Carries out steps concurrently and records their results.
async fn run_steps(
    settings: &ReconcilerSettings,
    client: &Client,
    shared: &SharedState,
    steps: Vec<PlanStep>,
    leading: &watch::Receiver<bool>,
) {
    let was_leading = *leading.borrow();
    let calls = stream::iter(steps).map(|step| async move {
        // After a change of leadership, the other steps are skipped: the next plan takes the change into account.
        let outcome = if *leading.borrow() == was_leading { Some(write::run_step(client, &step).await) } else { None };
        (step, outcome)
    });
    let mut calls = std::pin::pin!(calls.buffer_unordered(MAX_CONCURRENT_CALLS));
    while let Some((step, outcome)) = calls.next().await {
        if let Some(outcome) = outcome {
            shared.observed.lock().record_result(settings, step, outcome);
        }
        shared.changed.send_replace(());
    }
}

/// Concurrent calls: enough for a thousand Gateways within minutes, too few to overload the API server.
const MAX_CONCURRENT_CALLS: usize = 8;
const BATCH_DELAY: Duration = Duration::from_millis(10);
