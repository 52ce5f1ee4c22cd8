//! The loop that propagates every change from files and the cluster to the store, the snapshot, the listeners and the
//! statuses.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::announce::{Announcer, AppliedEdit};
use super::change_meters::ChangeMeters;
use super::cluster::ClusterSource;
use super::control::{ApplySummary, Control, VerdictChanges};
use super::diagnostic_meters::DiagnosticMeters;
use super::endpoint_names::EndpointNameChanges;
use super::gateway_services::GatewayServicesHandle;
use super::source_overlap::SourceOverlap;
use super::status_publisher;
use super::views::ViewQuery;
use crate::api::ObjectId;
use crate::k8s::Delivery;
use crate::manifests::{ChangedPaths, ManifestDiagnostic, ManifestUpdate, ManifestWatcher, Manifests};
use crate::plugin_api::vault::VaultValues;
use crate::plugin_services::{PluginDiagnostics, ServiceLookup};
use crate::proxy::{BindState, BindStates, Proxy};
use crate::ready::ReadyGuard;
use crate::snapshot::Snapshot;
use crate::status::BindOutcome;
use crate::upstream::dns::DnsFollower;

/// How long a process without values of vaults waits for them before it is ready. What needs them then fails.
const MAX_WAIT_FOR_VALUES: Duration = Duration::from_secs(10);

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// State that only the control loop writes.
pub(super) struct ControlLoop {
    pub(super) files: ManifestFiles,
    pub(super) cluster: Option<ClusterSource>,
    /// Present only with a cluster.
    pub(super) gateway_services: Option<GatewayServicesHandle>,
    /// Present only with both sources.
    pub(super) overlap: Option<SourceOverlap>,
    pub(super) control: Control,
    /// Objects whose changed verdicts are not queued as statuses, because something that they refer to is not fetched
    /// yet.
    pub(super) withheld_statuses: BTreeSet<ObjectId>,
    pub(super) announcer: Announcer,
    pub(super) proxy: Arc<Proxy>,
    pub(super) bind_retry: BindRetry,
    /// Held until the first snapshot is served.
    pub(super) first_snapshot: Option<ReadyGuard>,
    pub(super) dns: DnsFollower,
    /// Errors reported by running plugins.
    pub(super) plugin_diagnostics: Arc<PluginDiagnostics>,
    /// Values that servers of vaults have.
    pub(super) vaults: Arc<VaultValues>,
    /// Held from the first snapshot until the values that it needs are read, or until this time.
    pub(super) first_values: Option<(ReadyGuard, Instant)>,
    pub(super) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) meters: ChangeMeters,
    pub(super) diagnostic_meters: DiagnosticMeters,
}

/// The manifests of the command line and their last state.
pub(super) struct ManifestFiles {
    manifests: Manifests,
    watcher: ManifestWatcher,
    /// The last reading, without its batch, which was moved to the store.
    update: ManifestUpdate,
    /// The diagnostics of `update` without the warnings about objects that the cluster has too.
    rejections: Vec<ManifestDiagnostic>,
}

impl ManifestFiles {
    pub(super) fn new(manifests: Manifests, watcher: ManifestWatcher) -> Self {
        ManifestFiles { manifests, watcher, update: ManifestUpdate::default(), rejections: Vec::new() }
    }
}

impl ControlLoop {
    /// Runs until the task is aborted.
    pub(super) async fn run(
        mut self,
        mut ticks: mpsc::Receiver<()>,
        mut queries: mpsc::Receiver<ViewQuery>,
        mut lookups: mpsc::Receiver<ServiceLookup>,
    ) {
        self.read_files(&ChangedPaths::Anything);
        self.process_changes(Instant::now()).await;
        loop {
            tokio::select! {
                Some(()) = ticks.recv() => {
                    let first_event = Instant::now();
                    let changed = self.files.watcher.changed();
                    self.read_files(&changed);
                    self.process_changes(first_event).await;
                }
                delivery = next_delivery(self.cluster.as_ref()) => {
                    let first_event = delivery.since.unwrap_or_else(Instant::now);
                    self.apply_delivery(delivery);
                    self.process_changes(first_event).await;
                }
                () = gateway_services_changed(self.gateway_services.as_mut()) => {
                    self.process_changes(Instant::now()).await;
                }
                () = wait_for_references(self.cluster.as_ref()) => self.process_changes(Instant::now()).await,
                () = self.bind_retry.due() => {
                    self.reconcile_listeners().await;
                    self.publish_verdict_changes();
                }
                Some(query) = queries.recv() => query.run(&self.control),
                () = self.vaults.changed() => {
                    self.control.recompile_vault_users();
                    self.process_changes(Instant::now()).await;
                    if !self.vaults.is_waiting() {
                        self.first_values = None;
                    }
                }
                () = wait_until(self.first_values.as_ref().map(|(_, end)| *end)) => self.first_values = None,
                () = self.plugin_diagnostics.changed() => {
                    self.control.set_plugin_diagnostics(self.plugin_diagnostics.snapshot());
                    self.publish_verdict_changes();
                }
                Some(lookup) = lookups.recv() => lookup.run(|service, port| self.control.addresses(service, port)),
            }
        }
    }

    /// Publishes and reports verdicts that changed without a change of an object.
    fn publish_verdict_changes(&mut self) {
        let changes = self.control.take_verdict_changes();
        self.queue_statuses(&changes);
        self.announcer.report_verdicts(&changes, &self.control, &self.files.manifests);
    }

    /// Reads changed files and applies them to the store.
    fn read_files(&mut self, changed: &ChangedPaths) {
        let mut update = tokio::task::block_in_place(|| self.files.manifests.read_changed(changed));
        let batch = std::mem::take(&mut update.batch);
        let batch = match &mut self.overlap {
            Some(overlap) => overlap.filter_files(batch),
            None => batch,
        };
        self.control.stage(batch);
        if self.cluster.is_none() {
            // Nothing is fetched. Without a reader, the changes would add up.
            drop(self.control.take_reference_changes());
        }
        self.files.watcher.watch_only(self.files.manifests.folders());
        self.files.rejections.clone_from(&update.diagnostics);
        self.files.update = update;
        self.update_overlap_warnings();
    }

    /// Applies a delivery of the cluster to the store.
    fn apply_delivery(&mut self, delivery: Delivery) {
        let Some(cluster) = &mut self.cluster else { return };
        let changes_objects = !(delivery.batch.upserts.is_empty() && delivery.batch.removes.is_empty());
        cluster.apply(delivery, &mut self.control, self.overlap.as_mut());
        if changes_objects {
            self.update_overlap_warnings();
        }
    }

    /// Updates the warnings about objects that exist in both sources.
    fn update_overlap_warnings(&mut self) {
        if let Some(overlap) = &self.overlap {
            let warnings = overlap.warnings(&self.files.manifests);
            self.files.update.diagnostics = self.files.rejections.iter().cloned().chain(warnings).collect();
        }
    }

    /// Compiles and publishes the pending changes if the state is complete enough. `first_event`: the time of the first
    /// event that led to them.
    async fn process_changes(&mut self, first_event: Instant) {
        if self.waits_for_files() {
            return;
        }
        if let Some(cluster) = &mut self.cluster {
            let may_compile = cluster.may_compile(&mut self.control);
            if let Some(ready_guard) = &self.first_snapshot {
                ready_guard.rename(match cluster.pending_references(self.control.store.unfetched()) {
                    Some(pending) => format!("first snapshot, which needs {pending}"),
                    None => "first snapshot".to_owned(),
                });
            }
            if !may_compile {
                return;
            }
        }
        if let Some(gateway_services) = &mut self.gateway_services {
            if self.first_snapshot.is_some() {
                // Requests the Services of Gateways, which are observed only after that.
                self.control.assign();
                if !gateway_services.may_compile() {
                    return;
                }
            }
            gateway_services.update(&mut self.control);
        }
        let first_event = self
            .cluster
            .as_mut()
            .and_then(ClusterSource::take_first_event)
            .map_or(first_event, |since| since.min(first_event));
        let is_first = self.first_snapshot.is_some();
        // Most events of a cluster result from Portico's own status writes and change no stored object.
        let applied = if is_first || self.control.has_changes() { self.compile() } else { ApplySummary::default() };
        let swapped = applied.swapped;
        let took = first_event.elapsed();
        if swapped || is_first {
            if swapped && !is_first {
                self.meters.record_propagation(took);
            }
            self.reconcile_listeners().await;
        } else {
            // A port may serve another Gateway with the same snapshot.
            self.publish_bound_ports();
        }
        self.count_rejections();
        let changes = self.control.take_verdict_changes();
        // Statuses are written after the configuration is served.
        self.queue_statuses(&changes);
        if let Some(ready_guard) = self.first_snapshot.take() {
            // Dropped before the report, so that a blocked terminal does not delay readiness.
            if self.vaults.is_waiting() {
                ready_guard.rename("values of vaults".to_owned());
                self.first_values = Some((ready_guard, Instant::now() + MAX_WAIT_FOR_VALUES));
            } else {
                drop(ready_guard);
            }
            let snapshot = self.snapshots.load_full();
            self.announcer.report_start(&self.control, &self.files.manifests, &self.files.update, &snapshot);
        } else {
            let edit = AppliedEdit { applied, revision: self.meters.revision(), took };
            self.announcer.report_edit(&edit, &changes, &self.control, &self.files.manifests, &self.files.update);
        }
    }

    /// Whether the first snapshot waits for files of which some objects are not known: they may restrict requests to
    /// what the other files have.
    fn waits_for_files(&mut self) -> bool {
        let (Some(ready_guard), [first, others @ ..]) = (&self.first_snapshot, &*self.files.update.unread) else {
            return false;
        };
        let others = if others.is_empty() { String::new() } else { format!(", and of {} more", others.len()) };
        let (position, error) = (&first.position, &first.diagnostic);
        ready_guard.rename(format!("first snapshot, which needs the objects of {position} ({error}){others}"));
        self.announcer.report_unread(&self.control, &self.files.manifests, &self.files.update);
        self.count_rejections();
        true
    }

    fn count_rejections(&mut self) {
        let malformed = self.cluster.iter().flat_map(|cluster| &cluster.malformed);
        self.diagnostic_meters.set_rejected(&self.files.update.diagnostics, malformed);
    }

    fn compile(&mut self) -> ApplySummary {
        let started = Instant::now();
        let applied = tokio::task::block_in_place(|| self.control.compile());
        if applied.changes > 0 {
            self.meters.record_compile(started.elapsed(), applied.routers_built, applied.swapped);
        }
        self.resolve_endpoint_names();
        applied
    }

    fn queue_statuses(&mut self, changes: &VerdictChanges) {
        self.diagnostic_meters.update_verdicts(changes);
        let Some(cluster) = &mut self.cluster else { return };
        let mut unchanged = cluster.take_recreated();
        if let Some(queue) = &cluster.status_queue {
            let withheld = self.control.affected_by_unfetched();
            unchanged.extend(self.withheld_statuses.extract_if(.., |id| !withheld.contains(id)));
            self.withheld_statuses.extend(changes.after.keys().filter(|id| withheld.contains(*id)).cloned());
            status_publisher::queue_statuses(queue, changes, &withheld, self.control.owns_all_gateway_classes());
            for id in unchanged.into_iter().filter(|id| !changes.after.contains_key(id)) {
                if withheld.contains(&id) {
                    self.withheld_statuses.insert(id);
                } else {
                    queue.set_verdict(id.clone(), self.control.verdicts().get(&id).cloned());
                }
            }
        }
    }

    /// Resolves the current host names of endpoints. Known addresses are also set on upstreams that newly use a name.
    fn resolve_endpoint_names(&mut self) {
        let EndpointNameChanges { names, upstreams } = self.control.take_endpoint_name_changes();
        if let Some(names) = names {
            self.dns.follow(names);
        }
        for upstream in upstreams {
            for name in upstream.names() {
                if let Some(addresses) = self.dns.addresses(&name) {
                    upstream.set_resolved(&name, addresses);
                }
            }
        }
    }

    /// Binds and closes listeners as the snapshot requires, and stores the results.
    async fn reconcile_listeners(&mut self) {
        if !self.proxy.refresh().await {
            let binds = self.proxy.reconcile().await;
            self.bind_retry.schedule(&binds);
            let binds = binds.into_iter().map(|(address, state)| (address, bind_outcome(state))).collect();
            self.control.set_binds(binds);
        }
        self.publish_bound_ports();
    }

    fn publish_bound_ports(&self) {
        if let Some(gateway_services) = &self.gateway_services {
            gateway_services.publish_bound_ports(&self.control);
        }
    }
}

/// Pends forever without a cluster.
async fn next_delivery(cluster: Option<&ClusterSource>) -> Delivery {
    match cluster {
        Some(cluster) => cluster.next().await,
        None => pending().await,
    }
}

async fn gateway_services_changed(gateway_services: Option<&mut GatewayServicesHandle>) {
    match gateway_services {
        Some(gateway_services) => gateway_services.changed().await,
        None => pending().await,
    }
}

async fn wait_for_references(cluster: Option<&ClusterSource>) {
    match cluster {
        Some(cluster) => cluster.wait_for_references().await,
        None => pending().await,
    }
}

/// Back-off for failed binds, which may succeed later without a change of the configuration.
#[derive(Debug, Default)]
pub(super) struct BindRetry {
    next_attempt: Option<Instant>,
    delay: Duration,
}

impl BindRetry {
    const MIN_DELAY: Duration = Duration::from_millis(500);
    const MAX_DELAY: Duration = Duration::from_secs(15);

    async fn due(&self) {
        match self.next_attempt {
            Some(next_attempt) => sleep_until(next_attempt).await,
            None => pending().await,
        }
    }

    fn schedule(&mut self, binds: &BindStates) {
        if binds.values().all(|state| *state == BindState::Bound) {
            *self = BindRetry::default();
        } else {
            self.delay = (self.delay * 2).clamp(Self::MIN_DELAY, Self::MAX_DELAY);
            self.next_attempt = Some(Instant::now() + self.delay);
        }
    }
}

fn bind_outcome(state: BindState) -> BindOutcome {
    match state {
        BindState::Bound => BindOutcome::Bound,
        BindState::InUse => BindOutcome::InUse,
        BindState::NotPermitted => BindOutcome::NotPermitted,
        BindState::NotLocal => BindOutcome::NotLocal,
        BindState::Failed(error) => BindOutcome::Failed(error),
    }
}
