//! The compiler: the steps of one compilation in their order, and what each of them keeps for the next one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::affected::{AffectedObjects, keys_of_kind};
use super::alternatives::UpstreamAlternatives;
use super::backend::forbidden_addresses::ForbiddenAddresses;
use super::backend::locality::{LocationFinder, ProcessLocation};
use super::backend::upstream_usage::{UpstreamUsage, upstream_object};
use super::backend::{endpoints, x_backend_verdict};
use super::certificates::SecretCache;
use super::gateways::gateway::GatewayPlan;
use super::gateways::observability;
use super::ingress::{IngressCompiler, StreamIngressCompiler};
use super::kong;
use super::kong::consumers::Consumers;
use super::kong::plugins::{PluginUpdate, Plugins};
use super::kong::policy_conflicts::PolicyConflicts;
use super::kong::verdict_updates::PolicyReferrers;
use super::parents::planner::ParentPlanner;
use super::policy_kinds::{self, KindsWithUsers, PolicySources};
use super::routes::planner::{RouteInputs, RouteOutputs, RoutePlanner};
use super::routes::routers::Routers;
use super::run::CompileRun;
use super::verdict_updates::other_kinds;
use super::verdict_updates::served::ServedObjects;
use super::verdict_updates::unserved_objects::ServiceUsers;
use super::verdicts::oversized_objects::OversizedVerdicts;
use super::verdicts::rejected_objects::RejectedVerdicts;
use super::verdicts::table::VerdictTable;
use super::{CompileContext, parents};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::plugin_api::vault::VaultQuery;
use crate::snapshot::own_udp_listeners::OwnUdpListeners;
use crate::snapshot::{Snapshot, TransportProtocol};
use crate::store::{Changes, Store};
use crate::upstream::{BackendTraffic, EndpointAddress, Endpoints, UpstreamKey};
use crate::verdict::Verdicts;

/// The result of one compilation.
#[derive(Debug)]
pub struct Compiled {
    /// The same `Arc` as after the previous compilation if no part of it was rebuilt.
    pub snapshot: Arc<Snapshot>,
    /// Endpoints to set before the snapshot is swapped, so that new upstreams never serve without endpoints.
    pub endpoints: BTreeMap<UpstreamKey, Endpoints>,
    /// The upstreams that the snapshot no longer uses; they may be removed after the swap. `None` if the set of used
    /// upstreams did not change.
    pub unused_upstreams: Option<Vec<UpstreamKey>>,
    /// Objects whose verdict was added, changed or removed.
    pub verdicts_changed: BTreeSet<ObjectId>,
    /// Number of host routers that were rebuilt.
    pub routers_built: usize,
    /// Number of Gateways, ListenerSets and routes that were planned. Tests check with it that the work of an edit does
    /// not grow with what the edit does not affect.
    pub objects_planned: usize,
}

/// Incremental compiler: caches plans and recompiles only what a change can affect.
#[derive(Debug, Default)]
pub struct Compiler {
    affected: AffectedObjects,
    secrets: SecretCache,
    parents: ParentPlanner,
    plugins: Plugins,
    consumers: Consumers,
    routes: RoutePlanner,
    ingresses: IngressCompiler,
    stream_ingresses: StreamIngressCompiler,
    routers: Routers,
    /// Sockets on which Ingresses are served, unless a Gateway takes them.
    ingress_sockets: BTreeSet<BindAddress>,
    /// The Ingress sockets that serve Gateways instead.
    sockets_taken_by_gateways: BTreeSet<BindAddress>,
    forbidden: ForbiddenAddresses,
    /// The admin listener, which no route may use as a backend.
    admin_address: Option<SocketAddr>,
    /// The addresses of this machine.
    machine_addresses: BTreeSet<IpAddr>,
    location: LocationFinder,
    upstream_usage: UpstreamUsage,
    alternatives: UpstreamAlternatives,
    policy_referrers: PolicyReferrers,
    policy_conflicts: PolicyConflicts,
    service_users: ServiceUsers,
    kinds_with_users: KindsWithUsers,
    verdicts: VerdictTable,
}

impl Compiler {
    /// Sets the address of the admin listener, which is excluded from endpoints. Call it before the first compilation.
    pub fn set_admin_address(&mut self, admin: SocketAddr) {
        self.admin_address = Some(admin);
    }

    /// Sets the addresses of this machine, at which listeners on all interfaces are reachable. Call it before the first
    /// compilation.
    pub fn set_machine_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.machine_addresses = addresses;
    }

    /// Sets where this process is, as far as the EndpointSlices in the namespace of this Pod do not say it. Call it
    /// before the first compilation.
    pub fn set_location(&mut self, namespace: Option<Arc<str>>, configured: ProcessLocation) {
        self.location = LocationFinder::new(namespace, configured);
    }

    /// All verdicts as of the last compilation.
    pub fn verdicts(&self) -> &Verdicts {
        self.verdicts.all()
    }

    /// The current addresses of a Service port. `None` if the Service does not exist.
    pub fn addresses(&self, store: &Store, service: &ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        let ObjectKey { namespace, name } = store.services.get(service)?.meta.key.clone();
        let key = UpstreamKey { namespace, service: name, port, ..UpstreamKey::default() };
        Some(endpoints::addresses_of(store, &key, &self.forbidden).unwrap_or_default())
    }

    /// Whether a route or an Ingress uses the upstream.
    pub fn uses_upstream(&self, upstream: &UpstreamKey) -> bool {
        self.upstream_usage.is_used(upstream)
    }

    /// The number of upstreams that routes and Ingresses use.
    pub fn used_upstream_count(&self) -> usize {
        self.upstream_usage.count()
    }

    /// Compiles what `changes` can affect; a new compiler needs [`Store::everything`]. If
    /// `cx.inputs.addresses` changed, `changes` must contain the Gateways with other addresses.
    ///
    /// Each step uses the results of the earlier ones, and adds to `touched` what it affects in later ones.
    pub fn compile(&mut self, cx: CompileContext<'_>, changes: &Changes) -> Compiled {
        let is_unreported = |kind, meta: &_| kong::verdict_updates::is_size_unreported(cx, kind, meta);
        self.verdicts.begin(OversizedVerdicts::new(cx, is_unreported), RejectedVerdicts::new(cx.store));
        let changes = &*self.with_vault_users(cx.store, changes);
        let changes = &*self.plugins.with_entity_parents(cx.store, changes);
        let mut run = CompileRun { records_planned: self.records_planned(cx.store), ..CompileRun::default() };
        let mut touched = self.affected.find(cx.store, changes, &self.kinds_with_users.changes());
        // The rules of these plugins contain the Services that the plugins may choose.
        let choosing =
            self.plugins.configured_names().choosing_touched_services(&touched, self.affected.endpoints_changed());
        touched.extend(cx.store.dependency_index().affected_by(&choosing));
        touched.extend(choosing);
        for key in keys_of_kind(changes, Kind::Secret) {
            self.secrets.remove_if_deleted(cx.store, key);
        }

        // Gateways and ListenerSets are planned before routes, because routes attach to planned listeners, and before
        // plugins, because those of routes without a served parent are not attached.
        let parents = self.parents.update(cx, &touched, &mut self.secrets, &mut run);
        for listeners in &parents.listeners {
            self.routers.listeners_changed(listeners);
        }
        if keys_of_kind(&touched, Kind::Gateway).next().is_some() {
            self.routers.set_access_logs(observability::access_logs(cx.store));
            self.routers.set_traces(observability::traces(cx.store));
        }
        // Plugins are built before routes and Ingresses are planned, because plugin chains contain them.
        let mut plugins = self.plugins.update(cx, &self.parents.plans, &touched, &parents.routes);
        touched.append(&mut plugins.routes_to_update);
        let inputs = RouteInputs { parents: &self.parents.plans, plugins: &self.plugins };
        let outputs = RouteOutputs {
            verdicts: &mut self.verdicts,
            routers: &mut self.routers,
            upstream_usage: &mut self.upstream_usage,
            policy_conflicts: &mut self.policy_conflicts,
            run: &mut run,
        };
        self.routes.update(cx, &touched, parents.routes, inputs, outputs);
        let ingresses =
            self.ingresses.update(cx, &self.plugins, &mut self.secrets, &touched, self.affected.endpoints_changed());
        self.routers.set_location_log(self.ingresses.location_log());
        for [before, after] in ingresses.upstreams() {
            self.upstream_usage.replace(before, after, &mut run.upstreams_changed);
        }

        let endpoints_changed = self.affected.endpoints_changed();
        let streams = self.stream_ingresses.update(cx, &self.plugins, &mut self.secrets, &touched, endpoints_changed);
        for [before, after] in &streams.upstreams {
            self.upstream_usage.replace(before, after, &mut run.upstreams_changed);
        }

        // Routers are built after all plans, so that each is built at most once.
        self.set_ingress_binds();
        let routers_built =
            self.routers.build(&self.parents.plans, &self.routes.plans) + usize::from(ingresses.router_built);
        for (route, notes) in self.routers.take_shadowed() {
            self.verdicts.set_notes(route, notes);
        }
        // Forbidden addresses depend on all listeners, and endpoints depend on forbidden addresses.
        self.update_forbidden_addresses(cx, &run, &mut touched);

        self.alternatives.update(cx, &touched, &mut self.upstream_usage, &mut run.upstreams_changed);
        let has_moved = self.location.update(cx.store, changes, &self.machine_addresses);

        touch_services(&mut run, &mut touched);
        self.update_verdicts(cx, &touched, ingresses.verdicts_to_update, streams.verdicts_to_update, plugins, &mut run);
        Compiled {
            snapshot: self.routers.snapshot(),
            endpoints: self.endpoints(cx.store, &touched, &run.upstreams_changed, has_moved),
            unused_upstreams: (!run.upstreams_changed.is_empty()).then(|| {
                run.upstreams_changed.iter().filter(|key| !self.upstream_usage.is_used(key)).cloned().collect()
            }),
            verdicts_changed: self.verdicts.end(&touched),
            routers_built,
            objects_planned: run.objects_planned,
        }
    }

    /// The changes, with the plugins whose values a change of vaults may affect.
    fn with_vault_users<'c>(&self, store: &Store, changes: &'c Changes) -> Cow<'c, Changes> {
        let is_affected = || kong::vaults::contains_vault(&store.dependency_index().affected_by(changes));
        let is_concerned = kong::vaults::contains_vault(changes) || kong::vaults::exist(store) && is_affected();
        if !is_concerned {
            return Cow::Borrowed(changes);
        }
        let vaults = kong::vaults::ids(store);
        let users = self.plugins.configured_names().using_vaults().cloned();
        Cow::Owned(changes.iter().cloned().chain(users).chain(vaults).collect())
    }

    /// The plugins to compile again when values of vaults change.
    pub fn plugins_using_vaults(&self) -> impl Iterator<Item = &ObjectId> {
        self.plugins.configured_names().using_vaults()
    }

    /// What must be read from servers of vaults.
    pub fn vault_queries(&self) -> BTreeSet<Arc<VaultQuery>> {
        self.plugins.configured_names().vault_queries()
    }

    /// Whether the routes and Ingresses that are planned must be recorded, because verdicts on other objects depend on
    /// them.
    fn records_planned(&self, store: &Store) -> bool {
        self.service_users.may_be_needed(store)
            || !store.unparseable.is_empty()
            || self.kinds_with_users.may_be_needed(store)
    }

    /// Updates the verdicts after all plans: they depend on the routes attached to a listener, on the sockets that
    /// Gateways take from Ingresses, and on which Services are used.
    fn update_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        ingresses: BTreeSet<ObjectKey>,
        streams: BTreeSet<ObjectId>,
        plugins: PluginUpdate,
        run: &mut CompileRun,
    ) {
        for id in std::mem::take(&mut run.parents_to_update) {
            let attached_routes = |listener: &_| self.routers.attached_count(listener);
            let verdict = parents::verdict::verdict(cx, &self.parents.plans, &attached_routes, &id);
            self.verdicts.set(id, verdict);
        }
        for key in &ingresses {
            run.record_planned(&ObjectId::new(Kind::Ingress, key.clone()));
        }
        for id in &streams {
            run.record_planned(id);
        }
        self.update_ingress_verdicts(cx, ingresses, streams);
        self.policy_referrers.update(cx.store, touched, &self.policy_conflicts, &mut self.verdicts);
        self.update_consumers(cx, touched, plugins.subjects_to_update);
        let mut plugins_to_update = plugins.verdicts_to_update;
        plugins_to_update.extend(self.plugins.configured_names().naming_touched_consumers(touched).cloned());
        plugins_to_update.extend(self.plugins.configured_names().with_own_urls().cloned());
        let snapshot = self.routers.snapshot();
        for id in plugins_to_update {
            let verdict = self.plugins.verdict(cx, &snapshot, &id);
            self.verdicts.set(id, verdict);
        }

        let replanned = std::mem::take(&mut run.replanned);
        let verdicts = &mut self.verdicts;
        let served = ServedObjects {
            parents: &self.parents.plans,
            routes: &self.routes.plans,
            ingresses: &self.ingresses,
            stream_ingresses: &self.stream_ingresses,
            upstream_usage: &self.upstream_usage,
            forbidden: &self.forbidden,
            policy_conflicts: &self.policy_conflicts,
        };
        self.service_users.update(cx, touched, &replanned, served, verdicts);
        self.kinds_with_users.update(cx, touched, &replanned, &served, verdicts);
        other_kinds::update(cx, touched, |kind| self.kinds_with_users.contains(kind), served, verdicts);
    }

    /// Updates the verdicts on `outdated` Ingresses, and on `streams`: TCPIngresses and UDPIngresses. If the sockets of
    /// these kinds or of Gateways changed, on all of them.
    fn update_ingress_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        mut outdated: BTreeSet<ObjectKey>,
        mut streams: BTreeSet<ObjectId>,
    ) {
        let taken_by_gateways = self.routers.sockets_taken_by_gateways();
        let ingress_sockets = self.ingress_sockets().collect();
        if taken_by_gateways != self.sockets_taken_by_gateways || ingress_sockets != self.ingress_sockets {
            (self.sockets_taken_by_gateways, self.ingress_sockets) = (taken_by_gateways, ingress_sockets);
            outdated.extend(self.ingresses.keys().cloned());
            streams.extend(self.stream_ingresses.ids().cloned());
        }
        for id in streams {
            let verdict = self.stream_ingresses.verdict(cx, &id, &self.sockets_taken_by_gateways);
            self.verdicts.set(id, verdict);
        }
        for key in outdated {
            let verdict = self.ingresses.verdict(cx, &key, &self.sockets_taken_by_gateways);
            self.verdicts.set(ObjectId::new(Kind::Ingress, key), verdict);
        }
    }

    /// The sockets of Ingresses, TCPIngresses and UDPIngresses, also those that serve Gateways instead.
    fn ingress_sockets(&self) -> impl Iterator<Item = BindAddress> {
        self.ingresses.binds().keys().chain(self.stream_ingresses.binds().keys()).copied()
    }

    fn set_ingress_binds(&mut self) {
        let mut binds = self.stream_ingresses.binds().clone();
        // Only a mistake in the flags makes them share an address.
        binds.extend(self.ingresses.binds().iter().map(|(address, bind)| (*address, Arc::clone(bind))));
        self.routers.set_ingress_binds(binds);
    }

    /// Updates the forbidden addresses. Touches the Services with an endpoint that may have become forbidden or
    /// allowed.
    fn update_forbidden_addresses(&mut self, cx: CompileContext<'_>, run: &CompileRun, touched: &mut Changes) {
        let ingress_sockets: Vec<_> = self.ingress_sockets().collect();
        let (replicas, trust_model) = (cx.inputs.addresses.replica_addresses(), cx.inputs.upstreams.trust_model());
        if !run.have_gateways_changed
            && self.forbidden.has_inputs(ingress_sockets.iter().copied(), self.admin_address, replicas, trust_model)
        {
            return;
        }
        let sockets_of = |gateway: &Arc<GatewayPlan>| {
            gateway.sockets(self.parents.plans.listeners_of(gateway).map(|(listener, _)| listener))
        };
        let gateway_sockets: Vec<_> = self.parents.plans.gateways.values().flat_map(sockets_of).collect();
        let all_sockets = gateway_sockets.iter().chain(&ingress_sockets);
        let udp_sockets = all_sockets.filter(|address| address.transport == TransportProtocol::Udp);
        let hosts = self.machine_addresses.union(replicas).copied();
        self.routers.set_own_udp_listeners(OwnUdpListeners::new(udp_sockets.map(|address| address.socket), hosts));
        let forbidden = ForbiddenAddresses::new(
            gateway_sockets.into_iter(),
            ingress_sockets.into_iter(),
            self.admin_address,
            &self.machine_addresses,
            replicas,
            trust_model,
        );
        if forbidden != self.forbidden {
            let difference = forbidden.difference(&self.forbidden);
            let services =
                endpoints::services_with_address(cx.store, forbidden.address_sources(), |ip| difference.contains(ip));
            touched.extend(services.map(|key| ObjectId::new(Kind::Service, key)));
            self.forbidden = forbidden;
        }
    }

    /// Updates the consumers, their plugins and verdicts, and the consumer directory in the snapshot.
    /// `subjects_to_update`: the consumers and groups whose plugins may have changed.
    fn update_consumers(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        mut subjects_to_update: BTreeSet<ObjectId>,
    ) {
        let mut verdicts_to_update = self.consumers.update(cx, touched);
        // Whether the plugins of a rejected group can be read may change, although no plugin changes.
        subjects_to_update.extend(kong::plugins::touched_groups(touched).cloned());
        for subject in &subjects_to_update {
            self.consumers.set_plugins(&kong::plugins::plugin_subject(subject), self.plugins.of_subject(cx, subject));
        }
        verdicts_to_update.extend(subjects_to_update);
        for id in verdicts_to_update {
            let mut verdict = self.consumers.verdict(cx, &id);
            if let Some(verdict) = &mut verdict {
                verdict.diagnostics.extend(self.plugins.subject_diagnostics(cx, &id));
            }
            self.verdicts.set(id, verdict);
        }
        self.routers.set_consumers(self.consumers.directory());
        self.routers.set_unmatched_plugins(self.plugins.unmatched_chain());
    }

    /// What sets each block of the settings of an upstream.
    pub fn policy_sources(&self, store: &Store, upstream: &UpstreamKey) -> PolicySources {
        policy_kinds::sources(store, upstream, &self.policy_conflicts)
    }

    /// Endpoints of the used upstreams that are new or whose Service or slices changed. Of all used upstreams, if the
    /// process `has_moved`.
    fn endpoints(
        &self,
        store: &Store,
        touched: &Changes,
        upstreams_changed: &BTreeSet<UpstreamKey>,
        has_moved: bool,
    ) -> BTreeMap<UpstreamKey, Endpoints> {
        let mut to_build: BTreeSet<&UpstreamKey> =
            upstreams_changed.iter().filter(|key| self.upstream_usage.is_used(key)).collect();
        let facade_services = kong::service_facade::services_of_changed(store, touched);
        let x_backends = x_backend_verdict::of_touched(store, touched);
        for key in keys_of_kind(touched, Kind::Service).chain(&facade_services).chain(&x_backends) {
            to_build.extend(self.upstream_usage.of_name(key));
        }
        if has_moved {
            to_build.extend(self.upstream_usage.all());
        }
        let build = |key: &UpstreamKey| {
            let (balance, traffic) = policy_kinds::settings(store, key, &self.policy_conflicts);
            let traffic = BackendTraffic { alternatives: self.alternatives.of(key), ..traffic };
            endpoints::build(store, key, &self.forbidden, self.location.current(), balance, traffic)
        };
        to_build.into_iter().map(|key| (key.clone(), build(key))).collect()
    }
}

/// Touches the Services, XBackends and facades whose verdict depends on what routes use.
fn touch_services(run: &mut CompileRun, touched: &mut Changes) {
    for upstream in &run.upstreams_changed {
        touched.insert(upstream_object(upstream));
        touched.extend(upstream.facade.iter().map(|facade| kong::service_facade::id(upstream, facade)));
    }
    let services = std::mem::take(&mut run.services_to_update);
    touched.extend(services.into_iter().map(|key| ObjectId::new(Kind::Service, key)));
}

#[cfg(test)]
mod tests;
