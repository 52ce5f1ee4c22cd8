//! Compiles the store into a snapshot and verdicts: a total function without clock, I/O or randomness.
//!
//! ```text
//!   changed objects ─▶ Gateways they touch ─▶ routes they touch ─▶ routers they touch ─▶ binds ─▶ Snapshot
//!                         gateway.rs             http_route.rs        routers.rs
//!                           listener.rs            attach.rs
//!                           certificates.rs        matches.rs  filters.rs  cors.rs  backend_reference.rs  retry.rs
//!                      Ingresses, which share two ports of their own: ingress/ ────▶ binds
//! ```
//!
//! Invalid input becomes a verdict on the invalid object; everything else is compiled as if that input did not exist.
//! The [`Compiler`] caches the plan of each object and recompiles only what a change can affect. The cache is an
//! optimization: a new compiler produces the same bytes.

pub mod addresses;
pub mod testing;
pub mod verdict;

mod attachment;
mod backend;
mod backend_reference;
mod certificates;
mod classes;
mod consumers;
mod context;
mod cors;
mod filters;
mod forbidden_addresses;
mod gateway;
mod hostname;
mod http_route;
mod ingress;
mod label_selector;
mod listener;
mod listener_overlaps;
mod matches;
mod notes;
mod plugins;
mod reference_grants;
mod retry;
mod routers;
mod service_notes;
mod unserved_kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::gateway::{Gateway, GatewaySpec};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::snapshot::{BindAddress, Snapshot};
use crate::store::{Changes, Store};
use crate::upstream::{EndpointAddress, Endpoints, UpstreamKey};
use certificates::SecretCache;
pub use classes::Classes;
use consumers::Consumers;
pub use context::{CompileContext, CompileInputs};
use forbidden_addresses::ForbiddenAddresses;
use gateway::{GatewayPlan, PortOwners};
use http_route::RoutePlan;
use ingress::IngressCompiler;
use ingress::policy_conflicts::PolicyConflicts;
pub use ingress::{IngressListener, IngressSettings, PublishSource};
use plugins::Plugins;
pub use plugins::with_degraded_plugins;
use routers::Routers;
use verdict::{Verdict, Verdicts};

/// The result of one compilation.
#[derive(Debug)]
pub struct Compiled {
    /// The same `Arc` as after the previous compilation if no part of it was rebuilt.
    pub snapshot: Arc<Snapshot>,
    /// Endpoints to set before the snapshot is swapped, so that new upstreams never serve without endpoints.
    pub endpoints: BTreeMap<UpstreamKey, Endpoints>,
    /// All upstreams of the snapshot; others may be removed after the swap. `None` if the set did not change.
    pub used_upstreams: Option<BTreeSet<UpstreamKey>>,
    /// Objects whose verdict was added, changed or removed.
    pub verdicts_changed: BTreeSet<ObjectId>,
    /// Number of host routers that were rebuilt.
    pub routers_built: usize,
}

type PlanMap<T> = BTreeMap<ObjectKey, Arc<T>>;
/// By kind too, since routes of different kinds may have the same name.
type RoutePlans = BTreeMap<ObjectId, Arc<RoutePlan>>;

/// Incremental compiler: caches plans and recompiles only what a change can affect.
#[derive(Debug, Default)]
pub struct Compiler {
    port_owners: PortOwners,
    secrets: SecretCache,
    gateways: PlanMap<GatewayPlan>,
    routes: RoutePlans,
    plugins: Plugins,
    consumers: Consumers,
    ingresses: IngressCompiler,
    routers: Routers,
    /// Sockets of Ingresses, and those of them that belong to a Gateway.
    ingress_sockets: BTreeSet<BindAddress>,
    sockets_taken_by_gateways: BTreeSet<BindAddress>,
    forbidden: ForbiddenAddresses,
    /// The admin listener, which no route may use as a backend.
    admin_address: Option<SocketAddr>,
    /// Number of routes that use each upstream.
    use_counts: BTreeMap<UpstreamKey, usize>,
    /// The Services that each EndpointSlice and policy referred to, because a deleted object no longer has its
    /// references.
    services_by_referrer: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
    /// The policies that each Service and facade referred to, for the same reason.
    policies_by_referrer: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    policy_conflicts: PolicyConflicts,
    verdicts: Verdicts,
    /// The last verdict, reused because consecutive objects often have equal verdicts.
    last_verdict: Arc<Verdict>,
}

impl Compiler {
    /// Sets the address of the admin listener, which is excluded from endpoints. Call it before the first compilation.
    pub fn set_admin_address(&mut self, admin: SocketAddr) {
        self.admin_address = Some(admin);
    }

    /// All verdicts as of the last compilation.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// The current addresses of a Service port. `None` if the Service does not exist.
    pub fn addresses(&self, store: &Store, service: &ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        let ObjectKey { namespace, name } = store.services.get(service)?.meta.key.clone();
        let key = UpstreamKey { namespace, service: name, port, ..UpstreamKey::default() };
        Some(backend::endpoints::build(store, &key, &self.forbidden, &self.policy_conflicts).addresses)
    }

    /// Compiles what `changes` can affect; a new compiler needs [`Store::everything`]. If the addresses in `inputs`
    /// changed, `changes` contains the Gateways.
    pub fn compile(&mut self, cx: CompileContext<'_>, changes: &Changes) -> Compiled {
        let services = self.affected_services(cx.store, changes);
        let mut touched = affected_objects(cx.store, changes, &services);
        for key in keys_of_kind(changes, Kind::Secret) {
            self.secrets.remove_if_deleted(cx.store, key);
        }
        let mut run = CompileRun::default();

        let plugins = self.plugins.update(cx, &touched);
        touched.extend(plugins.routes_to_update);
        let routes = self.plan_gateways(cx, &touched, &mut run);
        let mut upstreams = self.plan_routes(cx, &touched, routes, &mut run);
        let updated = self.ingresses.update(cx, &self.plugins, &mut self.secrets, &touched);
        for (before, after) in &updated.upstreams {
            self.update_use_counts(before, after, &mut upstreams);
        }
        self.routers.set_ingress_binds(self.ingresses.binds());
        let routers_built = self.routers.build(&self.gateways, &self.routes) + usize::from(updated.router_built);
        let ingresses = self.ingresses.binds().keys().copied();
        let gateways = self.gateways.values().map(|plan| &**plan);
        let forbidden = ForbiddenAddresses::new(
            gateways,
            ingresses,
            self.admin_address,
            cx.inputs.addresses,
            cx.inputs.upstreams.trust_model(),
        );
        if forbidden != self.forbidden {
            self.forbidden = forbidden;
            // Any endpoint may have become, or ceased to be, one of this process's sockets.
            touched.extend(cx.store.services.keys().map(|key| ObjectId::new(Kind::Service, key.clone())));
        }
        // The verdict on a Service or facade depends on whether routes use it.
        let id = |kind, key: &UpstreamKey, name: &Arc<str>| {
            ObjectId::new(kind, ObjectKey { namespace: key.namespace.clone(), name: name.clone() })
        };
        touched.extend(upstreams.iter().map(|key| id(Kind::Service, key, &key.service)));
        let facade = |key: &UpstreamKey| Some(id(Kind::KongServiceFacade, key, key.facade.as_ref()?));
        touched.extend(upstreams.iter().filter_map(facade));
        let services = std::mem::take(&mut run.services_to_update);
        touched.extend(services.into_iter().map(|key| ObjectId::new(Kind::Service, key)));
        self.update_gateway_verdicts(&mut run);
        self.update_ingress_verdicts(cx, updated.verdicts_to_update, &mut run);
        self.update_policy_verdicts(cx.store, &touched, &mut run);
        for id in self.consumers.update(cx, &touched) {
            let verdict = self.consumers.verdict(cx, &id);
            self.set_verdict(id, verdict, &mut run);
        }
        self.routers.set_consumers(self.consumers.directory());
        for id in plugins.verdicts_to_update {
            let verdict = self.plugins.verdict(cx.store, &id);
            self.set_verdict(id, verdict, &mut run);
        }
        self.update_other_verdicts(cx, &touched, &mut run);
        let endpoints = self.endpoints(cx.store, &touched, &upstreams);
        if run.verdicts_changed.len() > self.verdicts.len() / 2 {
            // A map collected at once has full nodes; a map that grew in key order has half-empty ones.
            self.verdicts = std::mem::take(&mut self.verdicts).into_iter().collect();
        }

        Compiled {
            snapshot: self.routers.snapshot(),
            endpoints,
            used_upstreams: (!upstreams.is_empty()).then(|| self.use_counts.keys().cloned().collect()),
            verdicts_changed: run.verdicts_changed,
            routers_built,
        }
    }

    /// The Services that changed EndpointSlices and policies refer to now or referred to before.
    fn affected_services(&mut self, store: &Store, changes: &Changes) -> BTreeMap<ObjectKey, ServiceChange> {
        let mut services: BTreeMap<ObjectKey, ServiceChange> = BTreeMap::new();
        for id in changes {
            let behind = match id.kind {
                Kind::EndpointSlice => ServiceChange::Endpoints,
                Kind::BackendTlsPolicy => ServiceChange::Policy,
                _ => continue,
            };
            let mut now: BTreeSet<ObjectKey> = store.services_referenced_by(id).collect();
            if id.kind == Kind::BackendTlsPolicy
                && store.guards.get(&id.key).is_some_and(|guard| guard.targets.is_none())
            {
                now.extend(store.services.keys().filter(|key| key.namespace == id.key.namespace).cloned());
            }
            let before = self.services_by_referrer.remove(id).unwrap_or_default();
            for service in now.iter().chain(&before) {
                let strongest = services.entry(service.clone()).or_insert(behind);
                *strongest = (*strongest).max(behind);
            }
            if !now.is_empty() {
                self.services_by_referrer.insert(id.clone(), now);
            }
        }
        services
    }

    /// Plans the affected Gateways; returns the routes that must be planned again.
    fn plan_gateways(&mut self, cx: CompileContext<'_>, touched: &Changes, run: &mut CompileRun) -> BTreeSet<ObjectId> {
        let mut gateways: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::Gateway).cloned().collect();
        if !gateways.is_empty() {
            let owners = gateway::port_owners(cx);
            if owners != self.port_owners {
                // A Gateway that did not change itself may have lost or gained a port.
                gateways.extend(self.port_owners.values().chain(owners.values()).cloned());
                gateways.extend(self.gateways.keys().cloned());
                self.port_owners = owners;
            }
        }
        let mut routes = BTreeSet::new();
        for key in gateways {
            let object = cx.store.gateways.get(&key);
            let plan = object.and_then(|object| gateway::plan(cx, &self.port_owners, &mut self.secrets, object));
            if plan.is_none() {
                let verdict = object.map(|object| gateway::foreign_verdict(cx, object));
                self.set_verdict(ObjectId::new(Kind::Gateway, key.clone()), verdict, run);
            }
            if self.gateways.get(&key).map(|plan| &**plan) == plan.as_ref() {
                // Routes may still refer to a Gateway of another controller that was just created or deleted.
                if plan.is_some() || !touched.contains(&ObjectId::new(Kind::Gateway, key.clone())) {
                    continue;
                }
            }
            let before = self.gateways.get(&key);
            if !plan.as_ref().zip(before).is_some_and(|(plan, before)| plan.is_equivalent_for_routes(before)) {
                let id = ObjectId::new(Kind::Gateway, key.clone());
                let dependents = cx.store.dependency_index().dependents(&id).filter(|id| id.kind == Kind::HttpRoute);
                routes.extend(dependents.cloned());
            }
            run.gateways_to_update.insert(key.clone());
            match plan {
                Some(plan) => self.gateways.insert(key.clone(), Arc::new(plan)),
                None => self.gateways.remove(&key),
            };
            self.routers.gateway_changed(&key, self.gateways.get(&key).map(|plan| &**plan));
        }
        routes
    }

    /// Plans the affected routes; returns the upstreams that became used or unused.
    fn plan_routes(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        mut routes: BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) -> BTreeSet<UpstreamKey> {
        let mut upstreams = BTreeSet::new();
        routes.extend(touched.iter().filter(|id| id.kind == Kind::HttpRoute).cloned());
        for id in routes {
            let object = cx.store.http_routes.get(&id.key);
            let plan = object.map(|object| Arc::new(http_route::plan(cx, &self.gateways, &self.plugins, object)));
            let verdict = plan.as_ref().map(|plan| plan.verdict.clone());
            self.set_verdict(id.clone(), verdict, run);
            let attached = plan.as_ref().filter(|plan| !plan.attachments.is_empty()).and(object);
            run.services_to_update.extend(self.policy_conflicts.update_route(
                cx.store,
                &id,
                attached.map(|route| &**route),
            ));
            let before = match &plan {
                Some(plan) => self.routes.insert(id.clone(), plan.clone()),
                None => self.routes.remove(&id),
            };
            let unspoken =
                [&before, &plan].into_iter().flatten().flat_map(|plan| plan.unreachable_services.iter().cloned());
            run.services_to_update.extend(unspoken);
            let nothing = BTreeSet::new();
            let of = |plan: &Option<Arc<RoutePlan>>| plan.as_ref().map_or(&nothing, |plan| &plan.upstreams).clone();
            self.update_use_counts(&of(&before), &of(&plan), &mut upstreams);
            run.gateways_to_update.extend(self.routers.route_changed(&id, before.as_deref(), plan.as_deref()));
        }
        upstreams
    }

    /// Updates the use count of each upstream; those that become used or unused are added to `upstreams`.
    fn update_use_counts(
        &mut self,
        before: &BTreeSet<UpstreamKey>,
        after: &BTreeSet<UpstreamKey>,
        upstreams: &mut BTreeSet<UpstreamKey>,
    ) {
        for upstream in after {
            let users = self.use_counts.entry(upstream.clone()).or_insert_with(|| {
                upstreams.insert(upstream.clone());
                0
            });
            *users += 1;
        }
        for upstream in before {
            if let Some(users) = self.use_counts.get_mut(upstream) {
                *users -= 1;
                if *users == 0 {
                    self.use_counts.remove(upstream);
                    upstreams.insert(upstream.clone());
                }
            }
        }
    }

    fn update_ingress_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        mut again: BTreeSet<ObjectKey>,
        run: &mut CompileRun,
    ) {
        let lost = self.routers.sockets_taken_by_gateways();
        let sockets = self.ingresses.binds().keys().copied().collect();
        if (lost != self.sockets_taken_by_gateways) || (sockets != self.ingress_sockets) {
            (self.sockets_taken_by_gateways, self.ingress_sockets) = (lost, sockets);
            again.extend(self.ingresses.keys().cloned());
        }
        for key in again {
            let verdict = self.ingresses.verdict(cx, &key, &self.sockets_taken_by_gateways);
            self.set_verdict(ObjectId::new(Kind::Ingress, key), verdict, run);
        }
    }

    /// Updates the verdicts on policies that changed or whose referring Services changed.
    fn update_policy_verdicts(&mut self, store: &Store, touched: &Changes, run: &mut CompileRun) {
        let mut again = BTreeSet::new();
        for id in touched {
            match id.kind {
                Kind::KongUpstreamPolicy | Kind::KongIngress => drop(again.insert(id.clone())),
                Kind::Service | Kind::KongServiceFacade => {
                    let now: BTreeSet<_> =
                        store.meta(id).into_iter().flat_map(ingress::policy::referenced_policies).collect();
                    again.extend(now.iter().cloned());
                    again.extend(self.policies_by_referrer.remove(id).unwrap_or_default());
                    if !now.is_empty() {
                        self.policies_by_referrer.insert(id.clone(), now);
                    }
                }
                _ => {}
            }
        }
        for id in again {
            let verdict = ingress::policy::verdict(store, &id, &self.policy_conflicts);
            self.set_verdict(id, verdict, run);
        }
    }

    /// Updates the verdicts on Gateways whose plan or attached routes changed.
    fn update_gateway_verdicts(&mut self, run: &mut CompileRun) {
        for key in std::mem::take(&mut run.gateways_to_update) {
            let Some(plan) = self.gateways.get(&key) else { continue };
            let verdict = plan.verdict(|listener| self.routers.attached_count(listener));
            self.set_verdict(ObjectId::new(Kind::Gateway, key), Some(verdict), run);
        }
    }

    /// Updates the verdicts on all other kinds.
    fn update_other_verdicts(&mut self, cx: CompileContext<'_>, touched: &Changes, run: &mut CompileRun) {
        for id in touched {
            let verdict = match id.kind {
                Kind::Gateway | Kind::HttpRoute | Kind::KongPlugin | Kind::KongClusterPlugin => continue,
                Kind::KongConsumer | Kind::KongConsumerGroup => continue,
                Kind::Ingress | Kind::KongUpstreamPolicy | Kind::KongIngress => continue,
                Kind::IngressClass => {
                    cx.store.ingress_classes.get(&id.key).map(|class| ingress::class_verdict(cx, class))
                }
                Kind::GatewayClass => {
                    cx.store.gateway_classes.get(&id.key).map(|class| gateway::class_verdict(cx.inputs, class))
                }
                Kind::KongVault | Kind::KongCustomEntity | Kind::TcpIngress | Kind::UdpIngress | Kind::KongLicense => {
                    unserved_kinds::verdict(cx, id)
                }
                _ => notes::verdict(cx.store, id, &self.forbidden, &self.policy_conflicts, self.is_used(cx.store, id)),
            };
            self.set_verdict(id.clone(), verdict, run);
        }
    }

    /// Whether routes use a Service with its own settings, or would if TLS to it were possible; for a facade, whether
    /// routes use its Service through it.
    fn is_used(&self, store: &Store, id: &ObjectId) -> bool {
        let leads = |route: &ObjectId| {
            self.routes
                .get(route)
                .is_some_and(|plan| !plan.attachments.is_empty() && plan.unreachable_services.contains(&id.key))
        };
        match id.kind {
            Kind::Service => {
                self.upstreams_of(&id.key).any(|upstream| upstream.facade.is_none())
                    || store.dependency_index().dependents(id).any(leads)
            }
            Kind::KongServiceFacade => store.kong_service_facades.get(&id.key).is_some_and(|facade| {
                let behind = ObjectKey::new(&id.key.namespace, &facade.spec.backend_ref.name);
                self.upstreams_of(&behind).any(|upstream| upstream.facade.as_ref() == Some(&id.key.name))
            }),
            _ => false,
        }
    }

    fn upstreams_of(&self, service: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        let ObjectKey { namespace, name } = service.clone();
        let first = UpstreamKey { namespace: namespace.clone(), service: name.clone(), ..UpstreamKey::default() };
        let all = self.use_counts.range(first..).map(|(upstream, _)| upstream);
        all.take_while(move |upstream| upstream.namespace == namespace && upstream.service == name)
    }

    fn set_verdict(&mut self, id: ObjectId, verdict: Option<Verdict>, run: &mut CompileRun) {
        if self.verdicts.get(&id).map(|known| &**known) == verdict.as_ref() {
            return;
        }
        match verdict {
            Some(verdict) => {
                if *self.last_verdict != verdict {
                    self.last_verdict = Arc::new(verdict);
                }
                self.verdicts.insert(id.clone(), Arc::clone(&self.last_verdict))
            }
            None => self.verdicts.remove(&id),
        };
        run.verdicts_changed.insert(id);
    }

    /// Endpoints of the used upstreams that are new or whose Service or slices changed.
    fn endpoints(
        &self,
        store: &Store,
        touched: &Changes,
        upstreams: &BTreeSet<UpstreamKey>,
    ) -> BTreeMap<UpstreamKey, Endpoints> {
        let mut wanted: BTreeSet<&UpstreamKey> =
            upstreams.iter().filter(|key| self.use_counts.contains_key(key)).collect();
        // The annotations of a facade may select another load-balancing algorithm for its Service.
        let facades =
            keys_of_kind(touched, Kind::KongServiceFacade).filter_map(|key| store.kong_service_facades.get(key));
        let behind: BTreeSet<ObjectKey> =
            facades.map(|facade| ObjectKey::new(&facade.meta.key.namespace, &facade.spec.backend_ref.name)).collect();
        for service in keys_of_kind(touched, Kind::Service).chain(&behind) {
            wanted.extend(self.upstreams_of(service));
        }
        let of = |key| backend::endpoints::build(store, key, &self.forbidden, &self.policy_conflicts);
        wanted.into_iter().map(|key| (key.clone(), of(key))).collect()
    }
}

/// Why a Service is compiled again; `Policy`, the stronger reason, also affects the routes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServiceChange {
    Endpoints,
    Policy,
}

/// What one compilation collects.
#[derive(Default)]
struct CompileRun {
    verdicts_changed: BTreeSet<ObjectId>,
    /// Gateways whose verdict must be updated.
    gateways_to_update: BTreeSet<ObjectKey>,
    /// Services whose verdict may change: their policies start or stop to apply, or a route cannot connect to them.
    services_to_update: BTreeSet<ObjectKey>,
}

/// The changed objects and all objects that refer to them. Dependents of a Gateway are added later if its plan changed;
/// a changed EndpointSlice affects its Service but not the routes to it.
fn affected_objects(store: &Store, changes: &Changes, services: &BTreeMap<ObjectKey, ServiceChange>) -> Changes {
    let mut touched = changes.clone();
    touched.extend(store.dependency_index().affected_by(changes));
    for (service, behind) in services {
        let id = ObjectId::new(Kind::Service, service.clone());
        if *behind == ServiceChange::Policy {
            touched.extend(store.dependency_index().dependents(&id).cloned());
        }
        touched.insert(id);
    }
    touched
}

fn keys_of_kind(ids: &Changes, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
    ids.iter().filter(move |id| id.kind == kind).map(|id| &id.key)
}

/// A Gateway of this controller that may need a Service in front of it.
#[derive(Clone, Debug)]
pub struct ExposedGateway<'a> {
    pub gateway: &'a Object<Gateway>,
    /// The controller name of its class.
    pub controller: &'a str,
    /// The ports of the listeners that can be served.
    pub ports: BTreeSet<u16>,
    /// Whether the Gateway is rejected regardless of its addresses.
    pub is_rejected: bool,
}

/// The Gateways of these controllers, with what their Services need.
pub fn exposed_gateways<'a>(store: &'a Store, controllers: &'a [String]) -> impl Iterator<Item = ExposedGateway<'a>> {
    gateway::gateways_by_age(store, controllers).into_iter().filter_map(|gateway| gateway::expose(store, gateway))
}

/// The Gateways that belong to another controller. A Gateway whose class does not exist, possibly only for a moment, is
/// not one of them.
pub fn foreign_gateways<'a>(store: &'a Store, controllers: &'a [String]) -> impl Iterator<Item = &'a ObjectKey> {
    let is_foreign = |gateway: &&Arc<Object<Gateway>>| {
        let class = store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name));
        class.is_some_and(|class| !controllers.contains(&class.spec.controller_name))
    };
    store.gateways.values().filter(is_foreign).map(|gateway| &gateway.meta.key)
}

/// The Gateways of these controllers, which need addresses, oldest first.
pub fn addressable_gateways<'a>(
    store: &'a Store,
    controllers: &'a [String],
) -> impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone {
    gateway::gateways_by_age(store, controllers).into_iter().map(|gateway| (&gateway.meta.key, &gateway.spec))
}
