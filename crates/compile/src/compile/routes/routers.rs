//! Maintains the routers of Gateway listeners, and the snapshot. Rebuilds only the HTTP routers of hosts whose routes
//! changed, and the rules for connections with their Gateway. Maps of hosts and of listeners are copy-on-write, so that
//! an edit does not cost what all other hosts and listeners would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::plan::{PlannedRules, RoutePlan, RoutePlans};
use super::shadowed_routes::{self, ShadowedMatch, ShadowedMatches};
use crate::api::{ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::compile::gateways::gateway::GatewayPlan;
use crate::compile::gateways::listener::{ListenerId, ListenerPlan};
use crate::compile::gateways::listener_protocol::ListenerProtocol;
use crate::compile::objects::hostname::intersects;
use crate::compile::parents::planner::ChangedListeners;
use crate::compile::parents::plans::ParentPlans;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::ConsumerDirectory;
use crate::plugin_chain::Chain;
use crate::snapshot::access_logs::{AccessLogSettings, GatewayAccessLog, LocationAccessLog};
use crate::snapshot::gateway_traces::GatewayTraces;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::own_udp_listeners::OwnUdpListeners;
use crate::snapshot::port_tls::{PortTls, StreamHosts, TlsListener};
use crate::snapshot::router::{HostRouter, RouteMatches};
use crate::snapshot::rule_options::UnmatchedStyle;
use crate::snapshot::stream::{StreamRoute, StreamRule};
use crate::snapshot::{Bind, HttpListener, Routes, Snapshot, TransportProtocol};

/// All listeners with their attached routes, and the snapshot built from them.
#[derive(Debug, Default)]
pub(in crate::compile) struct Routers {
    listeners: BTreeMap<ListenerId, AttachedRoutes>,
    /// The sockets of each Gateway in the snapshot.
    sockets: BTreeMap<ObjectKey, BTreeSet<BindAddress>>,
    /// Gateways whose binds must be rebuilt.
    dirty: BTreeSet<ObjectKey>,
    /// Listeners whose routes changed. If nothing else of their Gateways changed, only these listeners are replaced.
    dirty_listeners: BTreeSet<ListenerId>,
    gateway_binds: GatewayBinds,
    /// Binds of Ingresses. A socket that is also a Gateway's serves the Gateway.
    ingress_binds: BTreeMap<BindAddress, Arc<Bind>>,
    snapshot: Arc<Snapshot>,
    /// The routes with other matches that get no request than before.
    shadows_changed: BTreeSet<ObjectId>,
}

/// The binds of Gateways.
#[derive(Debug, Default)]
struct GatewayBinds {
    binds: BTreeMap<BindAddress, Arc<Bind>>,
    /// The addresses whose bind changed since the last snapshot.
    changed: BTreeSet<BindAddress>,
}

impl GatewayBinds {
    /// Sets or removes the bind of an address.
    fn set(&mut self, address: BindAddress, bind: Option<Arc<Bind>>) {
        self.changed.insert(address);
        match bind {
            Some(bind) => self.binds.insert(address, bind),
            None => self.binds.remove(&address),
        };
    }
}

/// The listeners of one port.
#[derive(Default)]
struct PortListeners {
    listeners: Vec<(HostPattern, Arc<HttpListener>)>,
    tls: Vec<(HostPattern, TlsListener)>,
    /// The TCP or UDP listener, which no other listener shares the port with.
    stream: Option<Arc<StreamRule>>,
}

/// The routes of one listener.
#[derive(Debug)]
struct AttachedRoutes {
    /// The Gateway whose binds have the listener.
    gateway: ObjectKey,
    /// The routes that the listener's status counts as attached.
    counted: BTreeSet<ObjectId>,
    /// The routes with each host pattern, sorted. Most hosts have one route.
    hosts: BTreeMap<HostPattern, SmallVec<[ObjectId; 1]>>,
    /// Host patterns whose router must be rebuilt.
    dirty: BTreeSet<HostPattern>,
    /// The routers of the host patterns that intersect `hostname`. The snapshot has a copy, which shares most of it.
    routers: HostMap<Arc<HostRouter>>,
    /// The hostname of the listener at the last build.
    hostname: HostPattern,
    /// The last build, which the snapshot shares. `None` before the first one.
    built: Option<Arc<HttpListener>>,
    /// The routes for connections or datagrams.
    streams: BTreeSet<ObjectId>,
    shadowed: ShadowedMatches,
}

impl Routers {
    /// The number of routes that are attached to a listener.
    pub(in crate::compile) fn attached_count(&self, listener: &ListenerId) -> u32 {
        let count = self.listeners.get(listener).map_or(0, |attached| attached.counted.len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The routes with other matches that get no request than at the last call, with what their verdicts say of that.
    pub(in crate::compile) fn take_shadowed(&mut self) -> Vec<(ObjectId, Vec<Diagnostic>)> {
        let notes = |route: ObjectId| {
            let notes = shadowed_routes::notes(self.listeners.values().map(|attached| &attached.shadowed), &route);
            (route, notes)
        };
        std::mem::take(&mut self.shadows_changed).into_iter().map(notes).collect()
    }

    pub(in crate::compile) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Sets the consumers that plugins can authenticate.
    pub(in crate::compile) fn set_consumers(&mut self, consumers: Arc<ConsumerDirectory>) {
        if !Arc::ptr_eq(&consumers, &self.snapshot.consumers) {
            self.change_snapshot(|snapshot| snapshot.consumers = consumers);
        }
    }

    /// Sets what Gateways set about their access log.
    pub(in crate::compile) fn set_access_logs(&mut self, gateways: BTreeMap<Arc<str>, GatewayAccessLog>) {
        let AccessLogSettings { gateways: before, locations } = &*self.snapshot.access_logs;
        if gateways != *before {
            let settings = Arc::new(AccessLogSettings { gateways, locations: locations.clone() });
            self.change_snapshot(|snapshot| snapshot.access_logs = settings);
        }
    }

    /// Sets what a dialect of Ingresses sets about its access log.
    pub(in crate::compile) fn set_location_log(&mut self, locations: &LocationAccessLog) {
        let AccessLogSettings { gateways, locations: before } = &*self.snapshot.access_logs;
        if locations != before {
            let settings = AccessLogSettings { gateways: gateways.clone(), locations: locations.clone() };
            self.change_snapshot(|snapshot| snapshot.access_logs = Arc::new(settings));
        }
    }

    /// Sets what Gateways set about their traces.
    pub(in crate::compile) fn set_traces(&mut self, traces: GatewayTraces) {
        if traces != *self.snapshot.traces {
            self.change_snapshot(|snapshot| snapshot.traces = Arc::new(traces));
        }
    }

    /// Sets the plugins that run for responses to requests without a rule.
    pub(in crate::compile) fn set_unmatched_plugins(&mut self, chain: Option<Arc<Chain>>) {
        if chain != self.snapshot.unmatched_plugins {
            self.change_snapshot(|snapshot| snapshot.unmatched_plugins = chain);
        }
    }

    /// Sets the addresses of UDP listeners, whose datagrams are dropped.
    pub(in crate::compile) fn set_own_udp_listeners(&mut self, listeners: OwnUdpListeners) {
        if listeners != *self.snapshot.own_udp_listeners {
            self.change_snapshot(|snapshot| snapshot.own_udp_listeners = Arc::new(listeners));
        }
    }

    /// Adds and removes listeners after the object that declares them was planned again or deleted. `route_changed`
    /// updates their routes.
    pub(in crate::compile) fn listeners_changed(&mut self, changed: &ChangedListeners) {
        let ChangedListeners { declared_by, gateway, listeners } = changed;
        self.dirty.insert(gateway.clone());
        let first = ListenerId { declared_by: declared_by.clone(), name: Arc::from("") };
        let known = self.listeners.range(first..).take_while(|(id, _)| id.declared_by == *declared_by);
        let is_outdated =
            |id: &ListenerId, attached: &AttachedRoutes| attached.gateway != *gateway || !listeners.contains(id);
        let outdated = known.filter(|(id, attached)| is_outdated(id, attached)).map(|(id, _)| id.clone());
        for id in outdated.collect::<Vec<_>>() {
            if let Some(removed) = self.listeners.remove(&id) {
                self.shadows_changed.extend(removed.shadowed.routes());
                self.dirty.insert(removed.gateway);
            }
        }
        for listener in listeners {
            self.listeners.entry(listener.clone()).or_insert_with(|| AttachedRoutes::new(gateway.clone()));
        }
    }

    /// Moves a route to its current listeners after it was planned again or deleted. Returns the Gateways and
    /// ListenerSets with another number of attached routes than before.
    pub(in crate::compile) fn route_changed(
        &mut self,
        id: &ObjectId,
        before: Option<&RoutePlan>,
        after: Option<&RoutePlan>,
    ) -> BTreeSet<ObjectId> {
        let attachments = || [before, after].into_iter().flatten().flat_map(|plan| &plan.attachments);
        let listeners: BTreeSet<&ListenerId> = attachments().flat_map(|attachment| &attachment.listeners).collect();
        let counts: Vec<u32> = listeners.iter().map(|listener| self.attached_count(listener)).collect();
        for (plan, is_after) in [(before, false), (after, true)] {
            let Some(plan) = plan else { continue };
            for attachment in &plan.attachments {
                for listener in &attachment.listeners {
                    // A removed listener was removed with its routes.
                    let Some(attached) = self.listeners.get_mut(listener) else { continue };
                    match plan.rules {
                        PlannedRules::Http { .. } => drop(self.dirty_listeners.insert(listener.clone())),
                        PlannedRules::Stream { .. } => drop(self.dirty.insert(attachment.gateway.clone())),
                    }
                    if is_after {
                        attached.add(id, plan, attachment.is_counted);
                    } else {
                        attached.remove(id, plan);
                    }
                }
            }
        }
        let counted = listeners.into_iter().zip(counts);
        let changed = counted.filter(|(listener, count)| self.attached_count(listener) != *count);
        changed.map(|(listener, _)| listener.declared_by.clone()).collect()
    }

    /// Rebuilds outdated routers, binds and the snapshot; returns the number of routers built.
    pub(in crate::compile) fn build(&mut self, plans: &ParentPlans, routes: &RoutePlans) -> usize {
        if self.dirty.is_empty() && self.dirty_listeners.is_empty() {
            return 0;
        }
        let mut built = 0;
        let mut binds = std::mem::take(&mut self.gateway_binds);
        let dirty = std::mem::take(&mut self.dirty);
        for id in std::mem::take(&mut self.dirty_listeners) {
            let Some(attached) = self.listeners.get_mut(&id).filter(|attached| !dirty.contains(&attached.gateway))
            else {
                continue;
            };
            if let Some(gateway) = plans.gateways.get(&attached.gateway)
                && let Some(listener) = plans.listener(&attached.gateway, &id)
            {
                let shadows = &mut self.shadows_changed;
                built += attached.replace_listener(gateway, listener, routes, &mut binds, shadows);
            }
        }
        // Remove all old binds first: a port may move from one Gateway to another.
        for address in dirty.iter().filter_map(|key| self.sockets.remove(key)).flatten() {
            binds.set(address, None);
        }
        for key in dirty {
            if let Some(gateway) = plans.gateways.get(&key) {
                built += self.build_binds(gateway, plans, routes, &mut binds);
            }
        }
        let changed = std::mem::take(&mut binds.changed);
        self.gateway_binds = binds;
        self.update_snapshot(changed);
        built
    }

    /// Builds the binds of a Gateway; returns the number of routers built.
    fn build_binds(
        &mut self,
        plan: &GatewayPlan,
        plans: &ParentPlans,
        routes: &RoutePlans,
        binds: &mut GatewayBinds,
    ) -> usize {
        let mut built = 0;
        // By the port that this process binds.
        let mut ports: BTreeMap<(TransportProtocol, u16), PortListeners> = BTreeMap::new();
        let gateway: Arc<str> = Arc::from(plan.key.to_string());
        for (listener, certificates) in plans.listeners_of(plan).filter(|(listener, _)| listener.opens_port()) {
            let Some(bound_port) = listener.bound_port else { continue };
            let Some(attached) = self.listeners.get_mut(&listener.id) else { continue };
            let port = ports.entry((listener.transport(), bound_port)).or_default();
            let stream_rule = |route: Option<Arc<StreamRoute>>| {
                let (gateway, listener, port) = (gateway.clone(), listener.id.label(), listener.port);
                Arc::new(StreamRule { gateway, listener, port, route })
            };
            match listener.protocol {
                ListenerProtocol::Tcp | ListenerProtocol::Udp => {
                    let route = attached.oldest_streams(listener, routes).into_values().next();
                    port.stream = Some(stream_rule(route));
                    continue;
                }
                ListenerProtocol::TlsPassthrough | ListenerProtocol::TlsTerminate => {
                    let by_host = attached.oldest_streams(listener, routes).into_iter();
                    let hosts = by_host.map(|(host, route)| (host, stream_rule(Some(route)))).collect();
                    let hosts = StreamHosts { hosts, unrouted: stream_rule(None) };
                    let tls_listener = match listener.protocol {
                        ListenerProtocol::TlsTerminate => TlsListener::TerminateStream(certificates.clone(), hosts),
                        _ => TlsListener::Passthrough(hosts),
                    };
                    port.tls.push((listener.hostname.clone(), tls_listener));
                    continue;
                }
                _ => {}
            }
            let (http_listener, routers_built) =
                attached.build(listener, gateway.clone(), routes, &mut self.shadows_changed);
            built += routers_built;
            port.listeners.push((listener.hostname.clone(), http_listener));
            if listener.secure {
                port.tls.push((listener.hostname.clone(), TlsListener::Terminate(certificates.clone())));
            }
        }
        for ((transport, port), PortListeners { listeners, tls, stream }) in ports {
            let bind = Arc::new(match (stream, transport) {
                (Some(rule), TransportProtocol::Tcp) => Bind::with_tcp(rule),
                (Some(rule), TransportProtocol::Udp) => Bind::with_udp(rule),
                (None, _) => {
                    // HTTP and HTTPS on one port conflict, so either all of these listeners are for TLS or none is.
                    let tls = (!tls.is_empty()).then(|| PortTls::new(HostMap::new(tls)));
                    Bind::with_http(HostMap::new(listeners), tls)
                }
            });
            for address in &plan.bind_addresses {
                let address = BindAddress::new(transport, *address, port);
                binds.set(address, Some(Arc::clone(&bind)));
                self.sockets.entry(plan.key.clone()).or_default().insert(address);
            }
        }
        built
    }

    /// Replaces the binds of Ingresses.
    pub(in crate::compile) fn set_ingress_binds(&mut self, binds: BTreeMap<BindAddress, Arc<Bind>>) {
        let is_same = |address: &BindAddress| match (self.ingress_binds.get(address), binds.get(address)) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (before, after) => before.is_none() && after.is_none(),
        };
        let addresses = self.ingress_binds.keys().chain(binds.keys());
        let changed: BTreeSet<BindAddress> = addresses.filter(|address| !is_same(address)).copied().collect();
        if !changed.is_empty() {
            self.ingress_binds = binds;
            self.update_snapshot(changed);
        }
    }

    /// The Ingress sockets that serve Gateways instead.
    pub(in crate::compile) fn sockets_taken_by_gateways(&self) -> BTreeSet<BindAddress> {
        self.ingress_binds.keys().filter(|address| self.gateway_binds.binds.contains_key(address)).copied().collect()
    }

    /// Replaces the snapshot by one with the current binds of these addresses.
    fn update_snapshot(&mut self, changed: BTreeSet<BindAddress>) {
        let mut binds = self.snapshot.binds.clone();
        for address in changed {
            let bind = self.gateway_binds.binds.get(&address).or_else(|| self.ingress_binds.get(&address));
            binds.set(address, bind.cloned());
        }
        self.change_snapshot(|snapshot| snapshot.binds = binds);
    }

    /// Replaces the snapshot by a changed copy, which shares the rest.
    fn change_snapshot(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let Snapshot { binds, consumers, unmatched_plugins, own_udp_listeners, access_logs, traces } = &*self.snapshot;
        let mut snapshot = Snapshot {
            binds: binds.clone(),
            consumers: Arc::clone(consumers),
            unmatched_plugins: unmatched_plugins.clone(),
            own_udp_listeners: Arc::clone(own_udp_listeners),
            access_logs: Arc::clone(access_logs),
            traces: Arc::clone(traces),
        };
        change(&mut snapshot);
        self.snapshot = Arc::new(snapshot);
    }
}

impl AttachedRoutes {
    fn new(gateway: ObjectKey) -> Self {
        AttachedRoutes {
            gateway,
            counted: BTreeSet::new(),
            hosts: BTreeMap::new(),
            dirty: BTreeSet::new(),
            routers: HostMap::default(),
            hostname: HostPattern::Any,
            built: None,
            streams: BTreeSet::new(),
            shadowed: ShadowedMatches::default(),
        }
    }

    fn add(&mut self, id: &ObjectId, plan: &RoutePlan, is_counted: bool) {
        if is_counted {
            self.counted.insert(id.clone());
        }
        match &plan.rules {
            PlannedRules::Http { hosts, .. } => {
                for host in hosts {
                    let routes = self.hosts.entry(host.clone()).or_default();
                    if let Err(position) = routes.binary_search(id) {
                        routes.insert(position, id.clone());
                    }
                    self.dirty.insert(host.clone());
                }
            }
            PlannedRules::Stream { .. } => drop(self.streams.insert(id.clone())),
        }
    }

    fn remove(&mut self, id: &ObjectId, plan: &RoutePlan) {
        self.counted.remove(id);
        match &plan.rules {
            PlannedRules::Http { hosts, .. } => {
                for host in hosts {
                    if let Some(routes) = self.hosts.get_mut(host) {
                        routes.retain(|route| *route != *id);
                    }
                    self.dirty.insert(host.clone());
                }
            }
            PlannedRules::Stream { .. } => drop(self.streams.remove(id)),
        }
    }

    /// The route that gets the connections of each host that intersects the hostname of a listener, `Any` for TCP: the
    /// oldest, then the first by namespace and name. As everywhere, a route whose age is unknown counts as the oldest.
    fn oldest_streams(&self, listener: &ListenerPlan, routes: &RoutePlans) -> BTreeMap<HostPattern, Arc<StreamRoute>> {
        let passes_through = listener.protocol == ListenerProtocol::TlsPassthrough;
        let candidates = self.streams.iter().filter_map(|id| match routes.get(id)?.rules_for(&self.gateway) {
            PlannedRules::Stream { hosts, created, route, passthrough } => {
                let route = passthrough.as_ref().filter(|_| passes_through).unwrap_or(route);
                Some(((*created, id), hosts, route))
            }
            PlannedRules::Http { .. } => None,
        });
        let mut by_age: Vec<_> = candidates.collect();
        by_age.sort_by_key(|(precedence, ..)| *precedence);
        let mut oldest = BTreeMap::new();
        for (_, hosts, route) in by_age {
            for host in hosts.iter().filter(|host| intersects(host, &listener.hostname)) {
                oldest.entry(host.clone()).or_insert_with(|| Arc::clone(route));
            }
        }
        oldest
    }

    /// Builds a listener again whose plan did not change, in the binds of its Gateway. Returns the number of routers
    /// built.
    fn replace_listener(
        &mut self,
        plan: &GatewayPlan,
        listener: &ListenerPlan,
        routes: &RoutePlans,
        binds: &mut GatewayBinds,
        shadows_changed: &mut BTreeSet<ObjectId>,
    ) -> usize {
        let Some(port) = listener.bound_port.filter(|_| listener.opens_port()) else { return 0 };
        let (http_listener, built) = self.build(listener, plan.key.to_string().into(), routes, shadows_changed);
        // All addresses of a Gateway share a bind.
        let mut replaced: Option<Arc<Bind>> = None;
        for address in &plan.bind_addresses {
            let address = BindAddress::new(listener.transport(), *address, port);
            if let Some(bind) = binds.binds.get(&address) {
                let replace = || bind.with_listener(&listener.hostname, &http_listener).map(Arc::new);
                replaced = replaced.or_else(replace);
                if let Some(replacement) = &replaced {
                    binds.set(address, Some(Arc::clone(replacement)));
                }
            }
        }
        built
    }

    /// The listener with its routes, and the number of routers built. It is the same as before if neither its hostname
    /// and port nor its routes changed: another ListenerSet of the Gateway did.
    fn build(
        &mut self,
        listener: &ListenerPlan,
        gateway: Arc<str>,
        routes: &RoutePlans,
        shadows_changed: &mut BTreeSet<ObjectId>,
    ) -> (Arc<HttpListener>, usize) {
        let has_same_routes = self.dirty.is_empty() && self.hostname == listener.hostname;
        if let Some(before) = self.built.as_ref().filter(|before| has_same_routes && before.port == listener.port) {
            return (Arc::clone(before), 0);
        }
        let routers_built = self.build_routers(&listener.hostname, routes, shadows_changed);
        let built = Arc::new(HttpListener {
            gateway,
            name: listener.id.label(),
            port: listener.port,
            routes: Routes::ByHost(self.routers.clone()),
            unmatched: UnmatchedStyle::default(),
        });
        self.built = Some(Arc::clone(&built));
        (built, routers_built)
    }

    /// Builds the routers of the hosts that changed and intersect the listener's hostname. Returns their number, and
    /// adds the routes with other matches that get no request than before.
    fn build_routers(
        &mut self,
        hostname: &HostPattern,
        routes: &RoutePlans,
        shadows_changed: &mut BTreeSet<ObjectId>,
    ) -> usize {
        let mut dirty = std::mem::take(&mut self.dirty);
        if self.hostname != *hostname {
            self.hostname = hostname.clone();
            let known = std::mem::take(&mut self.routers);
            for host in self.hosts.keys().filter(|host| intersects(host, hostname)) {
                match known.get(host) {
                    Some(router) => self.routers.insert(host.clone(), Arc::clone(router)),
                    None => drop(dirty.insert(host.clone())),
                }
            }
        }
        // Hosts with the same routes share one router: a route may have thousands of hosts.
        let mut built: BTreeMap<SmallVec<[ObjectId; 1]>, BuiltRouter> = BTreeMap::new();
        for host in dirty {
            let routes_of_host = self.hosts.get(&host).filter(|routes| !routes.is_empty());
            let router = routes_of_host.filter(|_| intersects(&host, hostname)).map(|ids| {
                let router = built.entry(ids.clone()).or_insert_with(|| {
                    let plans = ids.iter().filter_map(|id| routes.get(id));
                    BuiltRouter::of(RouteMatches::join(plans.filter_map(|plan| plan.matches(&self.gateway))), ids)
                });
                router.clone()
            });
            let (router, shadowed) = router.map(|built| (built.router, built.shadowed)).unzip();
            self.shadowed.set(&host, shadowed.unwrap_or_default(), shadows_changed);
            if routes_of_host.is_none() {
                self.hosts.remove(&host);
            }
            self.routers.set(host, router);
        }
        built.len()
    }
}

/// A router, and its matches that get no request.
#[derive(Clone)]
struct BuiltRouter {
    router: Arc<HostRouter>,
    shadowed: Arc<[ShadowedMatch]>,
}

impl BuiltRouter {
    /// `routes`: those with these matches. Within one route, its author sees the order.
    fn of(matches: RouteMatches, routes: &[ObjectId]) -> Self {
        let router = HostRouter::of(matches);
        let shadowed = match routes.len() {
            1 => Arc::default(),
            _ => ShadowedMatch::of_router(&router, routes),
        };
        BuiltRouter { router: Arc::new(router), shadowed }
    }
}
