//! Compiles the objects of the store into a snapshot and verdicts, without clock, I/O or randomness.
//!
//! ```text
//!   changes ─▶ affected.rs ─▶ kong/plugins/ ─▶ parent_planning.rs ─▶ planning.rs ─▶ ingress/ ─▶ routers.rs
//!                                                                  Snapshot ◀───────────────────────┤
//!                                              Verdicts ◀─ verdict_updates.rs, kong/consumers/ ◀────┘
//!   parent_planning.rs ┬ gateway.rs       listener.rs  certificates.rs  gateway_parameters.rs
//!                      └ listener_set.rs  allowed_listeners.rs  listener_conflicts.rs ─▶ parent_plans.rs
//!   planning.rs ┬ request_route/   matches.rs  grpc_matches.rs  filters.rs  cors.rs  retry.rs ┬ route_plan.rs
//!               └ stream_route.rs  ───────────────────────────────────────────────────────────┤ attachment.rs
//!                                                                                             ▼
//!   ingress/kong/                  backend.rs ───▶ backend/: Service ─▶ upstream ◀─── backend_reference.rs
//! ```
//!
//! Invalid input never fails the compilation: the verdict on its object reports it, and other objects are compiled. The
//! [`Compiler`] caches the plan of each object and recompiles only what a change can affect. The cache is an
//! optimization: a new compiler produces an equal snapshot and equal verdicts.

pub mod addresses;
pub mod kong;
pub mod testing;
pub mod verdict;

mod affected;
mod allowed_listeners;
mod annotation_reader;
mod attachment;
mod backend;
mod backend_client;
mod backend_reference;
mod budgets;
mod ca_bundle;
mod certificates;
mod classes;
mod context;
mod cors;
mod external_auth;
mod filter_parts;
mod filters;
mod forbidden_addresses;
mod foreign_annotations;
mod frontend_validation;
mod gateway;
mod gateway_parameters;
mod gateway_ports;
mod grpc_matches;
mod hostname;
mod ingress;
mod ingress_class;
mod label_selector;
mod listener;
mod listener_conflicts;
mod listener_overlaps;
mod listener_protocol;
mod listener_set;
mod listener_set_ports;
mod literal_path;
mod matches;
mod missing_object;
mod needed_references;
mod notes;
mod oversized_objects;
mod parent_planning;
mod parent_plans;
mod path_expression;
mod planning;
mod policy_users;
mod port_owners;
mod reference_grants;
mod request_route;
mod request_route_source;
mod retry;
mod route_plan;
mod routers;
mod served_gateways;
mod service_policies;
mod session_persistence;
mod stream_route;
mod tls_policies;
mod traffic_policies;
mod unique_diagnostics;
mod unserved_objects;
mod upstream_usage;
mod verdict_updates;
mod x_backends;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::snapshot::own_udp_listeners::OwnUdpListeners;
use crate::snapshot::{BindAddress, Snapshot, TransportProtocol};
use crate::store::{Changes, Store};
use crate::upstream::{BackendTraffic, EndpointAddress, Endpoints, LoadBalancing, UpstreamKey, UpstreamSource};
use affected::{AffectedObjects, keys_of_kind};
use budgets::SharedBudgets;
pub use budgets::{Budgets, OVER_BUDGET};
use certificates::SecretCache;
pub use classes::{Classes, LeftOutObjects};
pub use context::{CompileContext, CompileInputs};
use forbidden_addresses::ForbiddenAddresses;
use gateway::GatewayPlan;
use ingress::IngressCompiler;
pub use ingress::{HostOwnership, IngressListener, IngressSettings, PublishSource};
pub use ingress_class::dialect::has_path_expressions;
use kong::consumers::Consumers;
use kong::plugins::Plugins;
pub use kong::plugins::with_degraded_plugins;
use kong::policy_conflicts::PolicyConflicts;
pub use listener_set_ports::ListenerSetPorts;
pub use needed_references::is_needed;
use oversized_objects::OversizedVerdicts;
use parent_plans::ParentPlans;
use policy_users::PolicyUsers;
use port_owners::PortOwners;
pub(crate) use route_plan::RouteKind;
use route_plan::RoutePlan;
use routers::Routers;
pub use served_gateways::{
    ExposedGateway, addressable_gateways, exposed_gateways, foreign_gateways, routes_to_gateways,
};
use unserved_objects::ServiceUsers;
use upstream_usage::UpstreamUsage;
use verdict::{Verdict, Verdicts};
use x_backends::XBackendUsers;

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

type PlanMap<T> = BTreeMap<ObjectKey, Arc<T>>;
/// The key includes the kind, since routes of different kinds may have the same name.
type RoutePlans = BTreeMap<ObjectId, Arc<RoutePlan>>;

/// Incremental compiler: caches plans and recompiles only what a change can affect.
#[derive(Debug, Default)]
pub struct Compiler {
    port_owners: PortOwners,
    listener_set_ports: ListenerSetPorts,
    secrets: SecretCache,
    parents: ParentPlans,
    routes: RoutePlans,
    /// What the HTTPRoutes of each namespace expand to.
    route_budgets: SharedBudgets,
    plugins: Plugins,
    consumers: Consumers,
    ingresses: IngressCompiler,
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
    upstream_usage: UpstreamUsage,
    affected: AffectedObjects,
    /// The policies to which each Service and facade referred at the last update. They are kept because a deleted
    /// object no longer has its references.
    policies_by_referrer: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    policy_conflicts: PolicyConflicts,
    service_users: ServiceUsers,
    tls_policy_users: PolicyUsers,
    traffic_policy_users: PolicyUsers,
    x_backend_users: XBackendUsers,
    verdicts: Verdicts,
    /// The last verdict, reused because consecutive objects often have equal verdicts.
    last_verdict: Arc<Verdict>,
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

    /// All verdicts as of the last compilation.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// The current addresses of a Service port. `None` if the Service does not exist.
    pub fn addresses(&self, store: &Store, service: &ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        let ObjectKey { namespace, name } = store.services.get(service)?.meta.key.clone();
        let key = UpstreamKey { namespace, service: name, port, ..UpstreamKey::default() };
        Some(backend::endpoints::addresses_of(store, &key, &self.forbidden).unwrap_or_default())
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
        let mut run = CompileRun { oversized: OversizedVerdicts::new(cx), ..CompileRun::default() };
        let mut touched = self.affected.find(cx.store, changes);
        for key in keys_of_kind(changes, Kind::Secret) {
            self.secrets.remove_if_deleted(cx.store, key);
        }

        // Gateways and ListenerSets are planned before routes, because routes attach to planned listeners, and before
        // plugins, because those of routes without a served parent are not attached.
        let routes_to_plan = self.plan_parents(cx, &touched, &mut run);
        // Plugins are built before routes and Ingresses are planned, because plugin chains contain them.
        let plugins = self.plugins.update(cx, &self.parents, &touched, &routes_to_plan);
        touched.extend(plugins.routes_to_update);
        self.plan_routes(cx, &touched, routes_to_plan, &mut run);
        let ingresses = self.ingresses.update(cx, &self.plugins, &mut self.secrets, &touched);
        for [before, after] in ingresses.upstreams() {
            self.upstream_usage.replace(before, after, &mut run.upstreams_changed);
        }

        // Routers are built after all plans, so that each is built at most once.
        self.routers.set_ingress_binds(self.ingresses.binds());
        let routers_built = self.routers.build(&self.parents, &self.routes) + usize::from(ingresses.router_built);
        // Forbidden addresses depend on all listeners, and endpoints depend on forbidden addresses.
        self.update_forbidden_addresses(cx, &run, &mut touched);

        // Verdicts are updated after all plans: they depend on the routes attached to a listener, on the sockets that
        // Gateways take from Ingresses, and on which Services are used.
        run.touch_services(&mut touched);
        self.update_parent_verdicts(cx, &mut run);
        if self.records_planned(cx.store) {
            let replanned = ingresses.verdicts_to_update.iter();
            run.replanned.extend(replanned.map(|key| ObjectId::new(Kind::Ingress, key.clone())));
        }
        self.update_ingress_verdicts(cx, ingresses.verdicts_to_update, &mut run);
        self.update_policy_verdicts(cx.store, &touched, &mut run);
        self.update_consumers(cx, &touched, plugins.subjects_to_update, &mut run);
        let mut plugins_to_update = plugins.verdicts_to_update;
        plugins_to_update.extend(self.plugins.naming_touched_consumers(&touched).cloned());
        let consumers = self.consumers.directory();
        for id in plugins_to_update {
            let verdict = self.plugins.verdict(cx.store, &consumers, &id);
            self.set_verdict(id, verdict, &mut run);
        }
        let replanned = std::mem::take(&mut run.replanned);
        self.update_unserved_verdicts(cx, &touched, &replanned, &mut run);
        self.update_tls_policy_verdicts(cx, &touched, &replanned, &mut run);
        self.update_traffic_policy_verdicts(cx, &touched, &replanned, &mut run);
        self.update_x_backend_verdicts(cx, &touched, &replanned, &mut run);
        self.update_other_verdicts(cx, &touched, &mut run);
        self.update_oversized_verdicts(&touched, &mut run);
        self.compact_verdicts(&run);

        Compiled {
            snapshot: self.routers.snapshot(),
            endpoints: self.endpoints(cx.store, &touched, &run.upstreams_changed),
            unused_upstreams: (!run.upstreams_changed.is_empty()).then(|| {
                run.upstreams_changed.iter().filter(|key| !self.upstream_usage.is_used(key)).cloned().collect()
            }),
            verdicts_changed: run.verdicts_changed,
            routers_built,
            objects_planned: run.objects_planned,
        }
    }

    /// Whether the routes and Ingresses that are planned must be recorded, because verdicts on other objects depend on
    /// them.
    fn records_planned(&self, store: &Store) -> bool {
        self.has_unserved_objects(store)
            || self.has_tls_policies(store)
            || self.has_traffic_policies(store)
            || self.has_x_backends(store)
    }

    /// Updates the forbidden addresses. Touches the Services with an endpoint that may have become forbidden or
    /// allowed.
    fn update_forbidden_addresses(&mut self, cx: CompileContext<'_>, run: &CompileRun, touched: &mut Changes) {
        let ingress_sockets = || self.ingresses.binds().keys().copied();
        let (replicas, trust_model) = (cx.inputs.addresses.replica_addresses(), cx.inputs.upstreams.trust_model());
        if !run.have_gateways_changed
            && self.forbidden.has_inputs(ingress_sockets(), self.admin_address, replicas, trust_model)
        {
            return;
        }
        let sockets_of = |gateway: &Arc<GatewayPlan>| {
            gateway.sockets(self.parents.listeners_of(gateway).map(|(listener, _)| listener))
        };
        let gateway_sockets: Vec<_> = self.parents.gateways.values().flat_map(sockets_of).collect();
        let udp_sockets = gateway_sockets.iter().filter(|address| address.transport == TransportProtocol::Udp);
        let hosts = self.machine_addresses.union(replicas).copied();
        self.routers.set_own_udp_listeners(OwnUdpListeners::new(udp_sockets.map(|address| address.socket), hosts));
        let forbidden = ForbiddenAddresses::new(
            gateway_sockets.into_iter(),
            ingress_sockets(),
            self.admin_address,
            &self.machine_addresses,
            replicas,
            trust_model,
        );
        if forbidden != self.forbidden {
            let difference = forbidden.difference(&self.forbidden);
            let services = backend::endpoints::services_with_address(cx.store, forbidden.address_sources(), |ip| {
                difference.contains(ip)
            });
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
        subjects_to_update: BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) {
        let mut verdicts_to_update = self.consumers.update(cx, touched);
        for subject in &subjects_to_update {
            self.consumers.set_plugins(&kong::plugins::plugin_subject(subject), self.plugins.of_subject(cx, subject));
        }
        verdicts_to_update.extend(subjects_to_update);
        for id in verdicts_to_update {
            let mut verdict = self.consumers.verdict(cx, &id);
            if let Some(verdict) = &mut verdict {
                verdict.diagnostics.extend(self.plugins.subject_diagnostics(cx, &id));
            }
            self.set_verdict(id, verdict, run);
        }
        self.routers.set_consumers(self.consumers.directory());
    }

    /// Endpoints of the used upstreams that are new or whose Service or slices changed.
    fn endpoints(
        &self,
        store: &Store,
        touched: &Changes,
        upstreams_changed: &BTreeSet<UpstreamKey>,
    ) -> BTreeMap<UpstreamKey, Endpoints> {
        let mut to_build: BTreeSet<&UpstreamKey> =
            upstreams_changed.iter().filter(|key| self.upstream_usage.is_used(key)).collect();
        let facade_services = kong::service_facade::services_of_changed(store, touched);
        let x_backends = x_backends::of_touched(store, touched);
        for key in keys_of_kind(touched, Kind::Service).chain(&facade_services).chain(&x_backends) {
            to_build.extend(self.upstream_usage.of_name(key));
        }
        let build = |key: &UpstreamKey| {
            let (balance, traffic) = match key.source {
                UpstreamSource::Service => {
                    let service = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
                    let balance = kong::upstream_policy::upstream_balance(store, key, &self.policy_conflicts);
                    (balance, traffic_policies::backend_traffic(store, &service))
                }
                UpstreamSource::XBackend => (LoadBalancing::default(), BackendTraffic::default()),
            };
            backend::endpoints::build(store, key, &self.forbidden, balance, traffic)
        };
        to_build.into_iter().map(|key| (key.clone(), build(key))).collect()
    }
}

/// The objects that one compilation changed, or must still update.
#[derive(Default)]
struct CompileRun {
    oversized: OversizedVerdicts,
    verdicts_changed: BTreeSet<ObjectId>,
    /// Gateways and routes that were planned.
    objects_planned: usize,
    /// Whether the plan of a Gateway or ListenerSet changed.
    have_gateways_changed: bool,
    /// Upstreams that became used or unused.
    upstreams_changed: BTreeSet<UpstreamKey>,
    /// Gateways and ListenerSets whose verdict must be updated.
    parents_to_update: BTreeSet<ObjectId>,
    /// Services whose verdict may change, because a policy starts or stops applying to them, or because a route becomes
    /// able or unable to connect to them.
    services_to_update: BTreeSet<ObjectKey>,
    /// Routes and Ingresses that were planned, if verdicts on other objects depend on them.
    replanned: BTreeSet<ObjectId>,
}

impl CompileRun {
    /// Adds the Services, XBackends and facades whose verdict depends on what routes use.
    fn touch_services(&mut self, touched: &mut Changes) {
        for upstream in &self.upstreams_changed {
            touched.insert(upstream_object(upstream));
            touched.extend(upstream.facade.iter().map(|facade| kong::service_facade::id(upstream, facade)));
        }
        let services = std::mem::take(&mut self.services_to_update);
        touched.extend(services.into_iter().map(|key| ObjectId::new(Kind::Service, key)));
    }
}

/// The Service or XBackend whose endpoints an upstream has.
pub fn upstream_object(upstream: &UpstreamKey) -> ObjectId {
    let kind = match upstream.source {
        UpstreamSource::Service => Kind::Service,
        UpstreamSource::XBackend => Kind::XBackend,
    };
    ObjectId::new(kind, ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() })
}
