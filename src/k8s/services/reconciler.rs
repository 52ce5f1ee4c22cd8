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
    /// Only these namespaces; all if empty.
    pub namespaces: Vec<String>,
    pub exposure: GatewayExposure,
    /// The controller names of this installation.
    pub controllers: BTreeSet<String>,
    /// The Pod of this process, if it runs in one.
    pub pod: Option<ObjectKey>,
}

/// The inputs of the tasks, all of which may change at any time.
#[derive(Clone, Debug)]
pub struct ReconcilerInputs {
    pub desired: watch::Receiver<Arc<DesiredServices>>,
    /// Services are written by the leader.
    pub leading: watch::Receiver<bool>,
    /// None until this process listens for the first time.
    pub listening_ports: watch::Receiver<Option<Arc<ListeningPorts>>>,
    pub lifecycle: watch::Receiver<ReplicaLifecycle>,
}

impl ReconcilerSettings {
    pub(super) fn is_exposed(&self) -> bool {
        matches!(self.exposure, GatewayExposure::Exposed(_))
    }
}

/// Shared by the watches and the planner; `changed` is notified of every change.
struct SharedState {
    observed: Mutex<ObservedState>,
    changed: watch::Sender<()>,
}

/// Reconciles until this process is `Stopped` and its EndpointSlices are deleted, or the rest of them cannot be deleted
/// now. Publishes to `view` whenever the Services change.
pub async fn reconcile(
    settings: ReconcilerSettings,
    mut client: watch::Receiver<Client>,
    inputs: ReconcilerInputs,
    view: watch::Sender<Arc<GatewayServicesView>>,
) {
    let shared = SharedState { observed: Mutex::new(ObservedState::new(&settings)), changed: watch::Sender::new(()) };
    loop {
        let now = client.borrow_and_update().clone();
        tokio::select! {
            () = watch_all(&settings, &now, &shared) => {}
            () = publish_view(&settings, &shared, inputs.desired.clone(), inputs.listening_ports.clone(), &view) => {}
            () = run_plans(&settings, &now, &shared, inputs.clone()) => return,
            // A client with new credentials restarts everything.
            Ok(()) = client.changed() => {}
        }
    }
}

async fn watch_all(settings: &ReconcilerSettings, client: &Client, shared: &SharedState) {
    let selector = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let services = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let report = move |seen: WatchUpdate<_>| shared.update(|world| world.apply_service_event(number, seen));
        watch_objects("the Services of Gateways", api, selector.clone(), report)
    }));
    let slices = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let report = move |seen: WatchUpdate<_>| shared.update(|world| world.apply_slice_event(number, seen));
        watch_objects("the EndpointSlices of Gateways", api, selector.clone(), report)
    }));
    let pods = async {
        if let Some(pod) = &settings.pod {
            let api = Api::namespaced(client.clone(), &pod.namespace);
            let report = |seen: WatchUpdate<_>| shared.update(|world| world.apply_pod_event(seen));
            watch_objects("the Pods of this namespace", api, watcher::Config::default(), report).await;
        }
    };
    if settings.is_exposed() {
        tokio::join!(services, slices, pods);
    } else {
        services.await;
    }
    pending().await
}

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
    fn update(&self, see: impl FnOnce(&mut ObservedState) -> bool) {
        let changed = see(&mut self.observed.lock());
        if changed {
            self.changed.send_replace(());
        }
    }
}

/// Publishes the view of the Services.
async fn publish_view(
    settings: &ReconcilerSettings,
    shared: &SharedState,
    mut wants: watch::Receiver<Arc<DesiredServices>>,
    mut bound: watch::Receiver<Option<Arc<ListeningPorts>>>,
    view: &watch::Sender<Arc<GatewayServicesView>>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        let (wanted, listening) = (wants.borrow_and_update().clone(), bound.borrow_and_update().clone());
        let next = shared.observed.lock().view(settings, &wanted, &listening.unwrap_or_default());
        view.send_if_modified(|view| {
            let differs = **view != next;
            if differs {
                *view = Arc::new(next);
            }
            differs
        });
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = wants.changed() => {}
            Ok(()) = bound.changed() => {}
        }
    }
}

/// Applies the plan until this process has stopped.
async fn run_plans(settings: &ReconcilerSettings, client: &Client, shared: &SharedState, inputs: ReconcilerInputs) {
    let ReconcilerInputs { desired: mut wants, mut leading, listening_ports: mut bound, lifecycle: mut stay } = inputs;
    let mut changed = shared.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let (steps, again) = {
            let (wants, bound) = (wants.borrow_and_update().clone(), bound.borrow_and_update().clone());
            let (leading, stay) = (*leading.borrow_and_update(), *stay.borrow_and_update());
            shared.observed.lock().due_steps(
                settings,
                &wants,
                ReplicaState { leading, lifecycle: stay, bound: bound.as_deref() },
            )
        };
        if *stay.borrow() == ReplicaLifecycle::Stopped && steps.is_empty() {
            return;
        }
        run_steps(settings, client, shared, steps, &leading).await;
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = wants.changed() => {}
            Ok(()) = leading.changed() => {}
            Ok(()) = bound.changed() => {}
            Ok(()) = stay.changed() => {}
            () = sleep_until_deadline(again) => {}
        }
        // Changes that arrive together make one plan.
        sleep(BATCH_DELAY).await;
    }
}

async fn run_steps(
    settings: &ReconcilerSettings,
    client: &Client,
    shared: &SharedState,
    steps: Vec<PlanStep>,
    leading: &watch::Receiver<bool>,
) {
    let led = *leading.borrow();
    let calls = stream::iter(steps).map(|step| async move {
        // After a change of leadership, the new leader has its own plan.
        let done = if *leading.borrow() == led { Some(write::run_step(client, &step).await) } else { None };
        (step, done)
    });
    let mut calls = std::pin::pin!(calls.buffer_unordered(MAX_CONCURRENT_CALLS));
    while let Some((step, done)) = calls.next().await {
        if let Some(done) = done {
            shared.observed.lock().record_result(settings, step, done);
        }
        shared.changed.send_replace(());
    }
}

/// Concurrent calls: enough for a thousand Gateways within minutes, too few to load the API server.
const MAX_CONCURRENT_CALLS: usize = 8;
const BATCH_DELAY: Duration = Duration::from_millis(10);
