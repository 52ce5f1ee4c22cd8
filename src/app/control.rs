//! State of the control loop: everything between a changed object and the served snapshot, and the verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::addressing::GatewayAddressing;
use super::endpoint_names::{EndpointNameChanges, EndpointNames};
use super::ingress::IngressConfig;
use super::upstream_views;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::args::GatewayOptions;
use crate::bind_address::BindAddress;
use crate::compile::{
    self, Budgets, CompileContext, CompileInputs, Compiler, LeftOutObjects, PolicySources, ProcessLocation, RouteKind,
};
use crate::diagnostic::Diagnostic;
use crate::k8s::{InstalledApis, ReferenceChanges};
use crate::plugin_api::vault::VaultValues;
use crate::plugin_chain::PluginFactory;
use crate::snapshot::Snapshot;
use crate::status::{self, BindOutcome};
use crate::store::{Batch, Changes, Store};
use crate::upstream::{EndpointAddress, Endpoints, UpstreamKey, UpstreamRegistry};
use crate::verdict::{Verdict, Verdicts};

/// Store, compiler and their inputs. Owned by one task; other tasks query that task.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) store: Store,
    /// Changes in the store that are not compiled yet.
    uncompiled: Changes,
    compiler: Compiler,
    pub(super) addressing: GatewayAddressing,
    controllers: Vec<String>,
    upstreams: Arc<UpstreamRegistry>,
    plugin_factory: PluginFactory,
    /// Class and settings of Ingresses, consumers and other Kong resources.
    ingresses: IngressConfig,
    budgets: Budgets,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// The Secrets and ConfigMaps whose content is needed; it is fetched only on demand.
    needed_references: BTreeSet<ObjectId>,
    /// The host names in endpoints.
    endpoint_names: EndpointNames,
    /// Bind result of each address in the snapshot.
    binds: BTreeMap<BindAddress, BindOutcome>,
    /// Verdicts of the compiler, merged with `binds` and `installed`.
    verdicts: Verdicts,
    /// Which of the supported kinds the cluster has; `None` without a cluster.
    installed: Option<Arc<InstalledApis>>,
    /// The supported kinds that the cluster does not have.
    absent_kinds: BTreeSet<Kind>,
    /// Errors that running plugins report about the objects that configure them.
    plugin_diagnostics: BTreeMap<String, Diagnostic>,
    /// Previous verdicts of changed objects, since the last `take_verdict_changes`.
    previous_verdicts: BTreeMap<ObjectId, Option<Arc<Verdict>>>,
}

/// Changed verdicts, before and after.
#[derive(Debug, Default)]
pub(super) struct VerdictChanges {
    pub(super) before: Verdicts,
    pub(super) after: Verdicts,
}

/// Result of applying one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct ApplySummary {
    /// The number of changed objects, without Gateways that only got other addresses.
    pub(super) changes: usize,
    /// The first relevant objects.
    pub(super) named_objects: Vec<ObjectId>,
    /// The number of all relevant objects.
    pub(super) relevant_objects: usize,
    /// Whether a new snapshot was published.
    pub(super) swapped: bool,
    pub(super) routers_built: usize,
}

impl Control {
    pub(super) fn new(
        gateways: GatewayOptions,
        upstreams: Arc<UpstreamRegistry>,
        plugin_factory: PluginFactory,
        ingresses: IngressConfig,
        budgets: Budgets,
        snapshots: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        Control {
            store: Store::default(),
            uncompiled: Changes::new(),
            compiler: Compiler::default(),
            addressing: GatewayAddressing::new(&gateways),
            controllers: gateways.controller_names,
            upstreams,
            plugin_factory,
            ingresses,
            budgets,
            snapshots,
            needed_references: BTreeSet::new(),
            endpoint_names: EndpointNames::default(),
            binds: BTreeMap::new(),
            verdicts: Verdicts::new(),
            installed: None,
            absent_kinds: BTreeSet::new(),
            plugin_diagnostics: BTreeMap::new(),
            previous_verdicts: BTreeMap::new(),
        }
    }

    pub(super) fn upstreams(&self) -> &Arc<UpstreamRegistry> {
        &self.upstreams
    }

    /// What sets the settings of the upstreams that the selector names.
    pub(super) fn policy_sources(&self, selector: Option<&str>) -> BTreeMap<UpstreamKey, PolicySources> {
        let all = self.upstreams.all().into_iter().map(|upstream| upstream.key.clone());
        let selected = all.filter(|key| selector.is_none_or(|selector| upstream_views::is_selected(key, selector)));
        selected.map(|key| (key.clone(), self.compiler.policy_sources(&self.store, &key))).collect()
    }

    /// Forbids backends at the admin listener's address. Must be called before anything is compiled.
    pub(super) fn forbid_admin_backend(&mut self, admin: SocketAddr) {
        self.compiler.set_admin_address(admin);
    }

    /// Forbids backends at the addresses of this machine, on the ports of listeners on all interfaces. Must be called
    /// before anything is compiled.
    pub(super) fn forbid_machine_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.compiler.set_machine_addresses(addresses.into_iter().collect());
    }

    /// Sets the namespace of this Pod and where the process is. Must be called before anything is compiled.
    pub(super) fn set_location(&mut self, namespace: Option<Arc<str>>, configured: ProcessLocation) {
        self.compiler.set_location(namespace, configured);
    }

    /// Applies a batch, compiles and publishes the snapshot.
    pub(super) fn apply(&mut self, batch: Batch) -> ApplySummary {
        self.stage(batch);
        self.compile()
    }

    /// Applies a batch to the store without compiling.
    pub(super) fn stage(&mut self, batch: Batch) {
        self.uncompiled.extend(self.store.apply(batch));
    }

    /// Whether `compile` has anything to do.
    pub(super) fn has_changes(&self) -> bool {
        !self.uncompiled.is_empty() || self.addressing.is_stale()
    }

    /// Compiles the plugins again whose configurations refer to vaults, because values of these changed.
    pub(super) fn recompile_vault_users(&mut self) {
        self.uncompiled.extend(self.compiler.plugins_using_vaults().cloned());
    }

    /// Compiles all pending changes and publishes the snapshot.
    pub(super) fn compile(&mut self) -> ApplySummary {
        let count = self.uncompiled.len();
        self.assign();
        let changes = std::mem::take(&mut self.uncompiled);
        let relevant = || changes.iter().filter(|id| self.is_relevant(id));
        let (named_objects, relevant_objects) =
            (relevant().take(MAX_NAMED_OBJECTS).cloned().collect(), relevant().count());
        let addresses = self.addressing.addresses();
        // With files as the only source, every kind can be read.
        static NONE: BTreeSet<Kind> = BTreeSet::new();
        let unreadable_kinds =
            self.installed.as_ref().map_or(&NONE, |installed| &installed.unreadable_before_first_list);
        let absent_kinds = &self.absent_kinds;
        let (controllers, upstreams, plugin_factory) = (&self.controllers, &self.upstreams, &self.plugin_factory);
        let IngressConfig { classes, settings: ingress } = &self.ingresses;
        let inputs = CompileInputs {
            controllers,
            addresses,
            upstreams,
            classes,
            plugin_factory,
            ingress,
            unreadable_kinds,
            absent_kinds,
            budgets: &self.budgets,
        };
        let compiled = self.compiler.compile(CompileContext::new(&self.store, &inputs), &changes);

        VaultValues::of(&self.plugin_factory.state).want(self.compiler.vault_queries());

        // Endpoints are set before the snapshot is published, so that new routes never lack them.
        for (key, endpoints) in compiled.endpoints {
            let upstream = self.upstreams.set_endpoints(&key, endpoints);
            self.endpoint_names.set(&key, upstream);
        }
        let swapped = !Arc::ptr_eq(&compiled.snapshot, &self.snapshots.load());
        if swapped {
            self.snapshots.store(compiled.snapshot);
        }
        // Unused upstreams are dropped after that, because requests use them until then.
        if let Some(unused) = &compiled.unused_upstreams {
            // Connections to the endpoints of a removed Service or XBackend must end.
            let is_removed = |key: &&UpstreamKey| self.store.meta(&compile::upstream_object(key)).is_none();
            for key in unused.iter().filter(is_removed) {
                self.upstreams.upstream(key).set_endpoints(Endpoints::default());
            }
            let is_used = |upstream: &UpstreamKey| self.compiler.uses_upstream(upstream);
            self.upstreams.drop_unused(unused, self.compiler.used_upstream_count(), is_used);
            self.endpoint_names.remove(unused);
        }
        for id in compiled.verdicts_changed {
            self.update_verdict(id);
        }
        ApplySummary { changes: count, named_objects, relevant_objects, swapped, routers_built: compiled.routers_built }
    }

    /// The host names in endpoints that changed since the last call.
    pub(super) fn take_endpoint_name_changes(&mut self) -> EndpointNameChanges {
        self.endpoint_names.take_changes()
    }

    /// Assigns addresses to Gateways as far as they are known, and publishes the Services they need.
    pub(super) fn assign(&mut self) {
        self.addressing.assign(&self.store, &self.controllers, &self.budgets, &mut self.uncompiled);
    }

    /// Stores the results of binding addresses.
    pub(super) fn set_binds(&mut self, binds: BTreeMap<BindAddress, BindOutcome>) {
        if self.binds == binds {
            return;
        }
        self.binds = binds;
        let has_listeners = |id: &&ObjectId| {
            matches!(id.kind, Kind::Gateway | Kind::ListenerSet | Kind::Ingress | Kind::TcpIngress | Kind::UdpIngress)
        };
        let mut ids: Vec<_> = self.verdicts.keys().filter(has_listeners).cloned().collect();
        ids.extend(self.ingresses.settings.config_maps().into_iter().filter(|id| self.verdicts.contains_key(id)));
        for id in ids {
            self.update_verdict(id);
        }
    }

    /// Current endpoints of a port of a Service; `None` if the Service does not exist.
    pub(super) fn addresses(&self, service: &ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        self.compiler.addresses(&self.store, service, port)
    }

    /// The bind result of each address in the snapshot.
    pub(super) fn binds(&self) -> &BTreeMap<BindAddress, BindOutcome> {
        &self.binds
    }

    /// The Secrets and ConfigMaps whose content is needed since the last call, or no longer needed.
    pub(super) fn take_reference_changes(&mut self) -> ReferenceChanges {
        let IngressConfig { classes, settings } = &self.ingresses;
        let mut candidates = self.store.take_changed_references();
        // Flags refer to these, and no object does.
        let default_secret = settings.default_secret.clone().map(|key| ObjectId::new(Kind::Secret, key));
        let mut of_flags = settings.config_maps();
        of_flags.extend(default_secret);
        candidates.extend(of_flags.iter().filter(|id| !self.needed_references.contains(id)).cloned());
        let mut changes = ReferenceChanges::default();
        for id in candidates {
            let is_needed = of_flags.contains(&id) || compile::is_needed(&self.store, classes, &self.controllers, &id);
            if is_needed && self.needed_references.insert(id.clone()) {
                changes.added.insert(id);
            } else if !is_needed && self.needed_references.remove(&id) {
                changes.removed.insert(id);
            }
        }
        changes
    }

    /// Sets the Secrets and ConfigMaps that exist, but whose content was not fetched yet, or may not be.
    pub(super) fn set_unfetched(&mut self, unfetched: BTreeSet<ObjectId>, forbidden: BTreeSet<ObjectId>) {
        if *self.store.unfetched() != unfetched || *self.store.forbidden() != forbidden {
            self.uncompiled.extend(self.store.set_unfetched(unfetched, forbidden));
        }
    }

    /// Objects whose verdicts may be different once the unfetched Secrets and ConfigMaps are fetched.
    pub(super) fn affected_by_unfetched(&self) -> BTreeSet<ObjectId> {
        self.store.dependency_index().affected_by(self.store.unfetched())
    }

    /// Whether changes of an object are worth a log entry. A cluster has thousands of Services without a route, whose
    /// changes are not.
    pub(super) fn is_relevant(&self, id: &ObjectId) -> bool {
        match id.kind {
            // Objects from files are always relevant.
            _ if self.installed.is_none() => true,
            Kind::Service => self.is_routed_to(id),
            Kind::EndpointSlice => self
                .store
                .services_referenced_by(id)
                .any(|service| self.is_routed_to(&ObjectId::new(Kind::Service, service))),
            _ => true,
        }
    }

    /// Whether a route refers to a Service.
    pub(super) fn is_routed_to(&self, service: &ObjectId) -> bool {
        let is_route = |id: &ObjectId| {
            RouteKind::of(id.kind).is_some()
                || matches!(
                    id.kind,
                    Kind::Ingress | Kind::TcpIngress | Kind::UdpIngress | Kind::KongServiceFacade | Kind::XBackend
                )
        };
        self.store.dependency_index().dependents(service).any(is_route)
    }

    /// The objects that would be served with another `--ingress-class`: by class, the number of each kind.
    pub(super) fn left_out_objects(&self) -> LeftOutObjects {
        self.ingresses.classes.left_out_objects(&self.store)
    }

    /// Whether GatewayClasses exist and all of them belong to this controller.
    pub(super) fn owns_all_gateway_classes(&self) -> bool {
        let classes = &self.store.gateway_classes;
        !classes.is_empty() && classes.values().all(|class| self.controllers.contains(&class.spec.controller_name))
    }

    /// Stores which of the supported kinds the cluster has.
    pub(super) fn set_installed(&mut self, installed: Arc<InstalledApis>) {
        let before = self.installed.as_deref();
        let is_unreadable = |apis: &InstalledApis, kind: Kind| apis.unreadable_before_first_list.contains(&kind);
        let has_changed =
            |kind: Kind| before.is_some_and(|apis| is_unreadable(apis, kind)) != is_unreadable(&installed, kind);
        // While policies cannot be read, any Service may have one that requires TLS.
        if has_changed(Kind::BackendTlsPolicy) {
            self.uncompiled.extend(self.store.services.keys().map(|key| ObjectId::new(Kind::Service, key.clone())));
        }
        // The status of a Gateway without a class says whether the class was deleted or cannot be read.
        if has_changed(Kind::GatewayClass) {
            self.uncompiled.extend(self.store.gateways.keys().map(|key| ObjectId::new(Kind::Gateway, key.clone())));
        }
        // A reference to a bundle has another diagnostic while bundles cannot be read.
        if has_changed(Kind::ClusterTrustBundle) {
            let bundles = self.store.dependency_index().referenced(Kind::ClusterTrustBundle);
            self.uncompiled.extend(bundles.cloned());
        }
        let absent: BTreeSet<Kind> = Kind::ALL.iter().copied().filter(|kind| !installed.has(*kind)).collect();
        // A reference to an object of an absent kind has another diagnostic than one to a missing object.
        for kind in self.absent_kinds.symmetric_difference(&absent) {
            self.uncompiled.extend(self.store.dependency_index().referenced(*kind).cloned());
        }
        self.absent_kinds = absent;
        self.installed = Some(installed);
        let classes: Vec<_> = self.verdicts.keys().filter(|id| id.kind == Kind::GatewayClass).cloned().collect();
        for id in classes {
            self.update_verdict(id);
        }
    }

    /// Stores the errors reported by running plugins.
    pub(super) fn set_plugin_diagnostics(&mut self, reported: BTreeMap<String, Diagnostic>) {
        let reported = reported.into_iter().map(|(object, problem)| (object, status::with_stable_cause(problem)));
        let before = std::mem::replace(&mut self.plugin_diagnostics, reported.collect());
        let after = &self.plugin_diagnostics;
        let changed = before.keys().chain(after.keys()).filter(|object| before.get(*object) != after.get(*object));
        let with_verdict = changed.filter_map(|object| plugin_id(object)).filter(|id| self.verdicts.contains_key(id));
        let mut affected: BTreeSet<_> = with_verdict.collect();
        let referrers: Vec<_> =
            affected.iter().flat_map(|id| self.store.dependency_index().dependents(id)).cloned().collect();
        affected.extend(referrers);
        for id in affected {
            self.update_verdict(id);
        }
    }

    /// All current verdicts.
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Returns the changed verdicts since the last call.
    pub(super) fn take_verdict_changes(&mut self) -> VerdictChanges {
        let mut changes = VerdictChanges::default();
        for (id, before) in std::mem::take(&mut self.previous_verdicts) {
            let after = self.verdicts.get(&id).cloned();
            if before == after {
                continue;
            }
            if let Some(after) = after {
                changes.after.insert(id.clone(), after);
            }
            if let Some(before) = before {
                changes.before.insert(id, before);
            }
        }
        changes
    }

    /// Merges the compiler's verdict on an object with bind results, installed kinds and plugin errors.
    fn update_verdict(&mut self, id: ObjectId) {
        let verdict = self.compiler.verdicts().get(&id).map(|verdict| {
            let bind_outcome = |address: BindAddress| self.binds.get(&address).cloned();
            let merged = match (id.kind, &self.installed) {
                (Kind::GatewayClass, Some(installed)) => status::apply_installed(verdict, installed),
                _ => status::apply_bind_outcomes(verdict, &bind_outcome),
            };
            let merged = merged.map_or_else(|| verdict.clone(), Arc::new);
            if self.plugin_diagnostics.is_empty() {
                return merged;
            }
            let diagnostic = |plugin: &ObjectId| self.plugin_diagnostics.get(&object_name(plugin)).cloned();
            compile::with_degraded_plugins(&self.store, &id, &merged, &diagnostic).map_or(merged, Arc::new)
        });
        let before = match verdict {
            Some(verdict) => self.verdicts.insert(id.clone(), verdict),
            None => self.verdicts.remove(&id),
        };
        self.previous_verdicts.entry(id).or_insert(before);
    }
}

/// Maximum number of objects that are named in a log entry; further ones are counted.
const MAX_NAMED_OBJECTS: usize = 10;

/// Name under which plugins report errors about an object.
fn object_name(id: &ObjectId) -> String {
    format!("{}/{}", id.kind, id.key)
}

/// The plugin or vault with this name.
fn plugin_id(object_name: &str) -> Option<ObjectId> {
    let (kind_name, key) = object_name.split_once('/')?;
    let kinds = [Kind::KongPlugin, Kind::KongClusterPlugin, Kind::KongVault];
    let kind = kinds.into_iter().find(|kind| kind.name() == kind_name)?;
    let key = match key.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::cluster(key),
    };
    Some(ObjectId::new(kind, key))
}

#[cfg(test)]
mod tests;
