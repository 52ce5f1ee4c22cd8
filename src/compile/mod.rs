//! Store in, snapshot and verdicts out: a total function without clock, I/O or randomness.
//!
//! ```text
//!   changed objects ─▶ Gateways they touch ─▶ routes they touch ─▶ routers they touch ─▶ binds ─▶ Snapshot
//!                         gateway.rs             http_route.rs        routers.rs
//!                           listener.rs            attach.rs
//!                           certificates.rs        matches.rs  filters.rs  cors.rs  backends.rs  tries.rs
//!                      Ingresses, all on two ports of their own: ingress/ ─────────▶ binds
//! ```
//!
//! Bad input becomes a verdict about the object that is bad; everything else is compiled as if it were not there. The
//! [`Compiler`] remembers what it made of each object and makes again only what a change can have touched; that is an
//! optimization, and a fresh one gives the same bytes.

pub mod addresses;
pub mod verdict;

mod attach;
mod backends;
mod certificates;
mod classes;
mod consumers;
mod cors;
mod endpoints;
mod filters;
mod forbidden;
mod gateway;
mod grants;
mod hostname;
mod http_route;
mod ingress;
mod listener;
mod matches;
mod notes;
mod overlaps;
mod plugins;
mod routers;
mod selector;
mod tries;
mod unserved;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::gateway::{Gateway, GatewaySpec};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::plugin::Workshop;
use crate::snapshot::Snapshot;
use crate::store::{Changes, Store};
use crate::upstream::{Address, Endpoints, Registry, UpstreamKey};
use addresses::Addresses;
use certificates::Secrets;
pub use classes::Classes;
use consumers::Consumers;
use forbidden::Forbidden;
use gateway::{GatewayPlan, PortOwners};
use http_route::RoutePlan;
use ingress::Ingresses;
use ingress::disagreements::Disagreements;
pub use ingress::{Entrance, IngressSettings, Publish};
use plugins::Plugins;
pub use plugins::with_troubles;
use routers::Routers;
use verdict::{Verdict, Verdicts};

/// What compiling needs besides the store.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Controller names of the GatewayClasses that are ours.
    pub controllers: &'a [String],
    pub addresses: &'a Addresses,
    /// Where upstreams are found by identity, so that the same one outlives every snapshot that uses it.
    pub upstreams: &'a Registry,
    /// Which Ingresses, consumers and the like are ours.
    pub classes: &'a Classes,
    /// Where plugins are built.
    pub workshop: &'a Workshop,
    /// Kinds of which there may be objects that nobody could read. What such an object could guard is not served. If this
    /// changed, `changes` names the Services.
    pub unknown: &'a BTreeSet<Kind>,
    pub ingress: &'a IngressSettings,
}

/// What one compile gave.
#[derive(Debug)]
pub struct Compiled {
    /// The same `Arc` as last time if nothing in it had to be built.
    pub snapshot: Arc<Snapshot>,
    /// Endpoints to set before the snapshot is swapped, so that nothing new is served without them.
    pub endpoints: BTreeMap<UpstreamKey, Endpoints>,
    /// Every upstream of the snapshot: the others may be forgotten after the swap. None if they are as they were.
    pub used: Option<BTreeSet<UpstreamKey>>,
    /// Objects whose verdict is new, different or gone.
    pub verdicts_changed: BTreeSet<ObjectId>,
    /// How many host routers had to be built.
    pub routers_built: usize,
}

type Plans<T> = BTreeMap<ObjectKey, Arc<T>>;

/// Compiles, and remembers what it needs to do less the next time.
#[derive(Debug, Default)]
pub struct Compiler {
    owners: PortOwners,
    secrets: Secrets,
    gateways: Plans<GatewayPlan>,
    routes: Plans<RoutePlan>,
    plugins: Plugins,
    consumers: Consumers,
    ingresses: Ingresses,
    routers: Routers,
    /// Addresses of Ingresses, and those of them that Gateways have.
    entrances: BTreeSet<SocketAddr>,
    lost: BTreeSet<SocketAddr>,
    forbidden: Forbidden,
    /// The admin listener, to which no route leads.
    admin: Option<SocketAddr>,
    /// Upstreams by how many routes use them.
    users: BTreeMap<UpstreamKey, usize>,
    /// The Services that each EndpointSlice and policy was about, since one that is gone no longer says.
    about: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
    /// The policies that each Service and facade named, for the same reason.
    policies: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    disagreements: Disagreements,
    verdicts: Verdicts,
    /// The last verdict that was given, since of many objects in a row the same is thought.
    last: Arc<Verdict>,
}

impl Compiler {
    /// Sends nothing to the admin listener, which is at this address. For a compiler that has not compiled yet.
    pub fn keep_away_from_admin(&mut self, admin: SocketAddr) {
        self.admin = Some(admin);
    }

    /// All verdicts as of the last compile.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Where a port of a Service listens now. None if there is no such Service.
    pub fn addresses(&self, store: &Store, service: &ObjectKey, port: u16) -> Option<Vec<Address>> {
        let ObjectKey { namespace, name } = store.services.get(service)?.meta.key.clone();
        let key = UpstreamKey { namespace, service: name, port, ..UpstreamKey::default() };
        Some(endpoints::of(store, &key, &self.forbidden, &self.disagreements).addresses)
    }

    /// Compiles what `changes` can have touched; a fresh compiler is given [`Store::everything`]. If the addresses in
    /// `inputs` changed, `changes` names the Gateways.
    pub fn compile(&mut self, store: &Store, changes: &Changes, inputs: &Inputs<'_>) -> Compiled {
        let services = self.services_behind(store, changes);
        let mut touched = touched(store, changes, &services);
        for key in keys(changes, Kind::Secret) {
            self.secrets.forget_if_gone(store, key);
        }
        let mut run = Run::default();

        let plugins = self.plugins.update(store, inputs, &touched);
        touched.extend(plugins.rerouted);
        let routes = self.plan_gateways(store, inputs, &touched, &mut run);
        let mut upstreams = self.plan_routes(store, inputs, &touched, routes, &mut run);
        let updated = self.ingresses.update(store, inputs, &self.plugins, &mut self.secrets, &touched);
        for (before, after) in &updated.upstreams {
            self.count_users(before, after, &mut upstreams);
        }
        self.routers.set_entrances(self.ingresses.binds());
        let routers_built = self.routers.build(&self.gateways, &self.routes) + usize::from(updated.router_built);
        let entrances = self.ingresses.binds().keys().copied();
        let gateways = self.gateways.values().map(|plan| &**plan);
        let forbidden = Forbidden::of(gateways, entrances, self.admin, inputs.addresses, inputs.upstreams.authors());
        if forbidden != self.forbidden {
            self.forbidden = forbidden;
            // Any endpoint may have become one of our own sockets, or ceased to be.
            touched.extend(store.services.keys().map(|key| ObjectId::new(Kind::Service, key.clone())));
        }
        // What is said of a Service, or of a facade, depends on whether requests go there.
        let id = |kind, key: &UpstreamKey, name: &Arc<str>| {
            ObjectId::new(kind, ObjectKey { namespace: key.namespace.clone(), name: name.clone() })
        };
        touched.extend(upstreams.iter().map(|key| id(Kind::Service, key, &key.service)));
        let facade = |key: &UpstreamKey| Some(id(Kind::KongServiceFacade, key, key.facade.as_ref()?));
        touched.extend(upstreams.iter().filter_map(facade));
        let services = std::mem::take(&mut run.services);
        touched.extend(services.into_iter().map(|key| ObjectId::new(Kind::Service, key)));
        self.judge_gateways(&mut run);
        self.judge_ingresses(store, inputs, updated.again, &mut run);
        self.judge_policies(store, &touched, &mut run);
        for id in self.consumers.update(store, inputs, &touched) {
            let verdict = self.consumers.verdict(store, inputs, &id);
            self.judge(id, verdict, &mut run);
        }
        self.routers.set_consumers(self.consumers.directory());
        for id in plugins.again {
            let verdict = self.plugins.verdict(store, &id);
            self.judge(id, verdict, &mut run);
        }
        self.judge_others(store, inputs, &touched, &mut run);
        let endpoints = self.endpoints(store, &touched, &upstreams);
        if run.verdicts_changed.len() > self.verdicts.len() / 2 {
            // Made in one go, a map has no room between its entries; one that grew in order is half empty.
            self.verdicts = std::mem::take(&mut self.verdicts).into_iter().collect();
        }

        Compiled {
            snapshot: self.routers.snapshot(),
            endpoints,
            used: (!upstreams.is_empty()).then(|| self.users.keys().cloned().collect()),
            verdicts_changed: run.verdicts_changed,
            routers_built,
        }
    }

    /// The Services that changed EndpointSlices and policies are about, or were.
    fn services_behind(&mut self, store: &Store, changes: &Changes) -> BTreeMap<ObjectKey, Behind> {
        let mut services: BTreeMap<ObjectKey, Behind> = BTreeMap::new();
        for id in changes {
            let behind = match id.kind {
                Kind::EndpointSlice => Behind::Endpoints,
                Kind::BackendTlsPolicy => Behind::Policy,
                _ => continue,
            };
            let mut now: BTreeSet<ObjectKey> = store.services_of(id).collect();
            if id.kind == Kind::BackendTlsPolicy
                && store.guards.get(&id.key).is_some_and(|guard| guard.targets.is_none())
            {
                now.extend(store.services.keys().filter(|key| key.namespace == id.key.namespace).cloned());
            }
            let before = self.about.remove(id).unwrap_or_default();
            for service in now.iter().chain(&before) {
                let strongest = services.entry(service.clone()).or_insert(behind);
                *strongest = (*strongest).max(behind);
            }
            if !now.is_empty() {
                self.about.insert(id.clone(), now);
            }
        }
        services
    }

    /// Plans the Gateways that were touched; gives the routes that have to look at them again.
    fn plan_gateways(
        &mut self,
        store: &Store,
        inputs: &Inputs<'_>,
        touched: &Changes,
        run: &mut Run,
    ) -> BTreeSet<ObjectKey> {
        let mut gateways: BTreeSet<ObjectKey> = keys(touched, Kind::Gateway).cloned().collect();
        if !gateways.is_empty() {
            let owners = gateway::port_owners(store, inputs);
            if owners != self.owners {
                // Who lost or won a port may be a Gateway that did not change at all.
                gateways.extend(self.owners.values().chain(owners.values()).cloned());
                gateways.extend(self.gateways.keys().cloned());
                self.owners = owners;
            }
        }
        let mut routes = BTreeSet::new();
        for key in gateways {
            let object = store.gateways.get(&key);
            let plan = object.and_then(|object| gateway::plan(store, inputs, &self.owners, &mut self.secrets, object));
            if plan.is_none() {
                let verdict = object.map(|object| gateway::foreign_verdict(store, inputs, object));
                self.judge(ObjectId::new(Kind::Gateway, key.clone()), verdict, run);
            }
            if self.gateways.get(&key).map(|plan| &**plan) == plan.as_ref() {
                // Routes may still be waiting for a Gateway that is not ours to exist at all.
                if plan.is_some() || !touched.contains(&ObjectId::new(Kind::Gateway, key.clone())) {
                    continue;
                }
            }
            let before = self.gateways.get(&key);
            if !plan.as_ref().zip(before).is_some_and(|(plan, before)| plan.is_alike_for_routes(before)) {
                let id = ObjectId::new(Kind::Gateway, key.clone());
                let dependents = store.refs().dependents(&id).filter(|id| id.kind == Kind::HttpRoute);
                routes.extend(dependents.map(|id| id.key.clone()));
            }
            run.rerouted.insert(key.clone());
            match plan {
                Some(plan) => self.gateways.insert(key.clone(), Arc::new(plan)),
                None => self.gateways.remove(&key),
            };
            self.routers.gateway_changed(&key, self.gateways.get(&key).map(|plan| &**plan));
        }
        routes
    }

    /// Plans the routes that were touched; gives the upstreams that came or went with them.
    fn plan_routes(
        &mut self,
        store: &Store,
        inputs: &Inputs<'_>,
        touched: &Changes,
        mut routes: BTreeSet<ObjectKey>,
        run: &mut Run,
    ) -> BTreeSet<UpstreamKey> {
        let mut upstreams = BTreeSet::new();
        routes.extend(keys(touched, Kind::HttpRoute).cloned());
        for key in routes {
            let object = store.http_routes.get(&key);
            let plan =
                object.map(|object| Arc::new(http_route::plan(store, inputs, &self.gateways, &self.plugins, object)));
            let verdict = plan.as_ref().map(|plan| plan.verdict.clone());
            self.judge(ObjectId::new(Kind::HttpRoute, key.clone()), verdict, run);
            let attached = plan.as_ref().filter(|plan| !plan.attachments.is_empty()).and(object);
            run.services.extend(self.disagreements.look(store, &key, attached.map(|route| &**route)));
            let before = match &plan {
                Some(plan) => self.routes.insert(key.clone(), plan.clone()),
                None => self.routes.remove(&key),
            };
            let unspoken = [&before, &plan].into_iter().flatten().flat_map(|plan| plan.unspoken.iter().cloned());
            run.services.extend(unspoken);
            let nothing = BTreeSet::new();
            let of = |plan: &Option<Arc<RoutePlan>>| plan.as_ref().map_or(&nothing, |plan| &plan.upstreams).clone();
            self.count_users(&of(&before), &of(&plan), &mut upstreams);
            run.rerouted.extend(self.routers.route_changed(&key, before.as_deref(), plan.as_deref()));
        }
        upstreams
    }

    /// Counts who uses which upstream; those that come or go are added to `upstreams`.
    fn count_users(
        &mut self,
        before: &BTreeSet<UpstreamKey>,
        after: &BTreeSet<UpstreamKey>,
        upstreams: &mut BTreeSet<UpstreamKey>,
    ) {
        for upstream in after {
            let users = self.users.entry(upstream.clone()).or_insert_with(|| {
                upstreams.insert(upstream.clone());
                0
            });
            *users += 1;
        }
        for upstream in before {
            if let Some(users) = self.users.get_mut(upstream) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(upstream);
                    upstreams.insert(upstream.clone());
                }
            }
        }
    }

    fn judge_ingresses(&mut self, store: &Store, inputs: &Inputs<'_>, mut again: BTreeSet<ObjectKey>, run: &mut Run) {
        let lost = self.routers.lost_entrances();
        let sockets = self.ingresses.binds().keys().copied().collect();
        if (lost != self.lost) || (sockets != self.entrances) {
            (self.lost, self.entrances) = (lost, sockets);
            again.extend(self.ingresses.keys().cloned());
        }
        for key in again {
            let verdict = self.ingresses.verdict(store, inputs, &key, &self.lost);
            self.judge(ObjectId::new(Kind::Ingress, key), verdict, run);
        }
    }

    /// The policies that changed, or that somebody else than before names.
    fn judge_policies(&mut self, store: &Store, touched: &Changes, run: &mut Run) {
        let mut again = BTreeSet::new();
        for id in touched {
            match id.kind {
                Kind::KongUpstreamPolicy | Kind::KongIngress => drop(again.insert(id.clone())),
                Kind::Service | Kind::KongServiceFacade => {
                    let now: BTreeSet<_> = store.meta(id).into_iter().flat_map(ingress::policy::named_by).collect();
                    again.extend(now.iter().cloned());
                    again.extend(self.policies.remove(id).unwrap_or_default());
                    if !now.is_empty() {
                        self.policies.insert(id.clone(), now);
                    }
                }
                _ => {}
            }
        }
        for id in again {
            let verdict = ingress::policy::verdict(store, &id, &self.disagreements);
            self.judge(id, verdict, run);
        }
    }

    /// Gateways whose plan changed or that gained or lost routes.
    fn judge_gateways(&mut self, run: &mut Run) {
        for key in std::mem::take(&mut run.rerouted) {
            let Some(plan) = self.gateways.get(&key) else { continue };
            let verdict = plan.verdict(|listener| self.routers.attached(&key, listener));
            self.judge(ObjectId::new(Kind::Gateway, key), Some(verdict), run);
        }
    }

    /// Everything that is neither Gateway nor route.
    fn judge_others(&mut self, store: &Store, inputs: &Inputs<'_>, touched: &Changes, run: &mut Run) {
        for id in touched {
            let verdict = match id.kind {
                Kind::Gateway | Kind::HttpRoute | Kind::KongPlugin | Kind::KongClusterPlugin => continue,
                Kind::KongConsumer | Kind::KongConsumerGroup => continue,
                Kind::Ingress | Kind::KongUpstreamPolicy | Kind::KongIngress => continue,
                Kind::IngressClass => {
                    store.ingress_classes.get(&id.key).map(|class| ingress::class_verdict(store, inputs, class))
                }
                Kind::GatewayClass => {
                    store.gateway_classes.get(&id.key).map(|class| gateway::class_verdict(class, inputs))
                }
                Kind::KongVault | Kind::KongCustomEntity | Kind::TcpIngress | Kind::UdpIngress | Kind::KongLicense => {
                    unserved::verdict(store, inputs, id)
                }
                _ => notes::verdict(store, id, &self.forbidden, &self.disagreements, self.is_used(store, id)),
            };
            self.judge(id.clone(), verdict, run);
        }
    }

    /// Whether requests go to a Service that speaks for itself, or would if it could be spoken to in TLS; or to one for which
    /// this facade speaks.
    fn is_used(&self, store: &Store, id: &ObjectId) -> bool {
        let leads = |route: &ObjectId| {
            let plan = self.routes.get(&route.key).filter(|_| route.kind == Kind::HttpRoute);
            plan.is_some_and(|plan| !plan.attachments.is_empty() && plan.unspoken.contains(&id.key))
        };
        match id.kind {
            Kind::Service => {
                self.users_of(&id.key).any(|upstream| upstream.facade.is_none())
                    || store.refs().dependents(id).any(leads)
            }
            Kind::KongServiceFacade => store.kong_service_facades.get(&id.key).is_some_and(|facade| {
                let behind = ObjectKey::new(&id.key.namespace, &facade.spec.backend_ref.name);
                self.users_of(&behind).any(|upstream| upstream.facade.as_ref() == Some(&id.key.name))
            }),
            _ => false,
        }
    }

    fn users_of(&self, service: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        let ObjectKey { namespace, name } = service.clone();
        let first = UpstreamKey { namespace: namespace.clone(), service: name.clone(), ..UpstreamKey::default() };
        let all = self.users.range(first..).map(|(upstream, _)| upstream);
        all.take_while(move |upstream| upstream.namespace == namespace && upstream.service == name)
    }

    fn judge(&mut self, id: ObjectId, verdict: Option<Verdict>, run: &mut Run) {
        if self.verdicts.get(&id).map(|known| &**known) == verdict.as_ref() {
            return;
        }
        match verdict {
            Some(verdict) => {
                if *self.last != verdict {
                    self.last = Arc::new(verdict);
                }
                self.verdicts.insert(id.clone(), Arc::clone(&self.last))
            }
            None => self.verdicts.remove(&id),
        };
        run.verdicts_changed.insert(id);
    }

    /// Endpoints of the upstreams in use that are new or whose Service or slices were touched.
    fn endpoints(
        &self,
        store: &Store,
        touched: &Changes,
        upstreams: &BTreeSet<UpstreamKey>,
    ) -> BTreeMap<UpstreamKey, Endpoints> {
        let mut wanted: BTreeSet<&UpstreamKey> = upstreams.iter().filter(|key| self.users.contains_key(key)).collect();
        // What a facade says may be another way of sharing requests to its Service.
        let facades = keys(touched, Kind::KongServiceFacade).filter_map(|key| store.kong_service_facades.get(key));
        let behind: BTreeSet<ObjectKey> =
            facades.map(|facade| ObjectKey::new(&facade.meta.key.namespace, &facade.spec.backend_ref.name)).collect();
        for service in keys(touched, Kind::Service).chain(&behind) {
            wanted.extend(self.users_of(service));
        }
        let of = |key| endpoints::of(store, key, &self.forbidden, &self.disagreements);
        wanted.into_iter().map(|key| (key.clone(), of(key))).collect()
    }
}

/// Why a Service is looked at again: the stronger reason also concerns the routes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Behind {
    Endpoints,
    Policy,
}

/// What one run collects on its way.
#[derive(Default)]
struct Run {
    verdicts_changed: BTreeSet<ObjectId>,
    /// Gateways whose own verdict has to be given again.
    rerouted: BTreeSet<ObjectKey>,
    /// Services of which something else is to be said: their policies begin to count, or cease to, or a route cannot speak to them.
    services: BTreeSet<ObjectKey>,
}

/// The changed objects and everybody that mentions them. A Gateway's dependents follow once it is known whether its plan
/// changed; and an endpoint that comes or goes touches its Service, not the routes to it.
fn touched(store: &Store, changes: &Changes, services: &BTreeMap<ObjectKey, Behind>) -> Changes {
    let mut touched = changes.clone();
    touched.extend(store.refs().touched_by(changes));
    for (service, behind) in services {
        let id = ObjectId::new(Kind::Service, service.clone());
        if *behind == Behind::Policy {
            touched.extend(store.refs().dependents(&id).cloned());
        }
        touched.insert(id);
    }
    touched
}

fn keys(ids: &Changes, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
    ids.iter().filter(move |id| id.kind == kind).map(|id| &id.key)
}

/// A Gateway of ours that may have something in front of it.
#[derive(Clone, Debug)]
pub struct Fronted<'a> {
    pub gateway: &'a Object<Gateway>,
    /// Of its class.
    pub controller: &'a str,
    /// The ports of the listeners that we serve.
    pub ports: BTreeSet<u16>,
    /// Nothing of it can be accepted, whatever its addresses are.
    pub refused: bool,
}

/// What is to be in front of the Gateways of our classes.
pub fn fronted<'a>(store: &'a Store, controllers: &'a [String]) -> impl Iterator<Item = Fronted<'a>> {
    gateway::by_age(store, controllers).into_iter().filter_map(|gateway| gateway::fronted(store, gateway))
}

/// The Gateways that are known to be another controller's. One whose class is not there, which may be for a moment, is
/// nobody's.
pub fn foreign<'a>(store: &'a Store, controllers: &'a [String]) -> impl Iterator<Item = &'a ObjectKey> {
    let is_foreign = |gateway: &&Arc<Object<Gateway>>| {
        let class = store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name));
        class.is_some_and(|class| !controllers.contains(&class.spec.controller_name))
    };
    store.gateways.values().filter(is_foreign).map(|gateway| &gateway.meta.key)
}

/// The Gateways that get addresses, oldest first: those of our classes.
pub fn addressed<'a>(
    store: &'a Store,
    controllers: &'a [String],
) -> impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone {
    gateway::by_age(store, controllers).into_iter().map(|gateway| (&gateway.meta.key, &gateway.spec))
}
