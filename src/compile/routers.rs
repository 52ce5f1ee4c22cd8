//! Routers of listeners, rebuilt only where a route came, went or changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Plans;
use super::gateway::GatewayPlan;
use super::hostname::intersects;
use super::http_route::RoutePlan;
use crate::api::ObjectKey;
use crate::plugin::Directory;
use crate::snapshot::certs::{Certificates, Tls};
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::router::HostRouter;
use crate::snapshot::{Bind, Listener, Routes, Snapshot};

/// A listener of a Gateway.
type ListenerKey = (ObjectKey, Arc<str>);

/// Every listener with what is attached to it, and the snapshot made of them.
#[derive(Debug, Default)]
pub(super) struct Routers {
    listeners: BTreeMap<ListenerKey, Attached>,
    /// Addresses of each Gateway in the snapshot.
    bound: BTreeMap<ObjectKey, BTreeSet<SocketAddr>>,
    /// Gateways whose binds have to be made again.
    dirty: BTreeSet<ObjectKey>,
    /// Of Gateways.
    binds: BTreeMap<SocketAddr, Arc<Bind>>,
    /// Of Ingresses. An address that a Gateway has, too, is the Gateway's.
    entrances: BTreeMap<SocketAddr, Arc<Bind>>,
    snapshot: Arc<Snapshot>,
}

/// The listeners of one port.
#[derive(Default)]
struct Port {
    listeners: Vec<(HostPattern, Arc<Listener>)>,
    /// Of those that are secure.
    certificates: Vec<(HostPattern, Arc<Certificates>)>,
}

/// The routes of one listener.
#[derive(Debug, Default)]
struct Attached {
    /// Those that count as attached.
    counted: BTreeSet<ObjectKey>,
    hosts: BTreeMap<HostPattern, Host>,
    dirty: BTreeSet<HostPattern>,
}

/// The routes that name one host pattern.
#[derive(Debug, Default)]
struct Host {
    routes: BTreeSet<ObjectKey>,
    router: Option<Arc<HostRouter>>,
}

impl Routers {
    /// How many routes are attached to a listener.
    pub(super) fn attached(&self, gateway: &ObjectKey, listener: &str) -> u32 {
        let key = (gateway.clone(), Arc::from(listener));
        let count = self.listeners.get(&key).map_or(0, |attached| attached.counted.len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Whom plugins can know from now on.
    pub(super) fn set_consumers(&mut self, consumers: Arc<Directory>) {
        if !Arc::ptr_eq(&consumers, &self.snapshot.consumers) {
            self.snapshot = Arc::new(Snapshot { binds: self.snapshot.binds.clone(), consumers });
        }
    }

    /// A Gateway was planned anew, or is gone. Its routes are planned anew too, so they are not looked at here.
    pub(super) fn gateway_changed(&mut self, key: &ObjectKey, plan: Option<&GatewayPlan>) {
        self.dirty.insert(key.clone());
        let keep = |name: &str| plan.is_some_and(|plan| plan.listeners.iter().any(|listener| &*listener.name == name));
        self.listeners.retain(|(gateway, name), _| gateway != key || keep(name));
        for listener in plan.iter().flat_map(|plan| &plan.listeners) {
            self.listeners.entry((key.clone(), listener.name.clone())).or_default();
        }
    }

    /// A route was planned anew, came or went. Gives the Gateways that gained or lost it.
    pub(super) fn route_changed(
        &mut self,
        key: &ObjectKey,
        before: Option<&RoutePlan>,
        after: Option<&RoutePlan>,
    ) -> BTreeSet<ObjectKey> {
        let mut gateways = BTreeSet::new();
        for (plan, is_after) in [(before, false), (after, true)] {
            let Some(plan) = plan else { continue };
            for attachment in &plan.attachments {
                gateways.insert(attachment.gateway.clone());
                self.dirty.insert(attachment.gateway.clone());
                for name in &attachment.listeners {
                    let listener = (attachment.gateway.clone(), name.clone());
                    // Listeners that are gone took their routes with them.
                    let Some(attached) = self.listeners.get_mut(&listener) else { continue };
                    if is_after {
                        attached.add(key, plan, attachment.accepted);
                    } else {
                        attached.remove(key, plan);
                    }
                }
            }
        }
        gateways
    }

    /// Brings routers and snapshot up to date; gives the number of routers built.
    pub(super) fn build(&mut self, gateways: &Plans<GatewayPlan>, routes: &Plans<RoutePlan>) -> usize {
        if self.dirty.is_empty() {
            return 0;
        }
        let mut built = 0;
        let mut binds = std::mem::take(&mut self.binds);
        let dirty = std::mem::take(&mut self.dirty);
        // All of the old ones first: a port may pass from one Gateway to another.
        for address in dirty.iter().filter_map(|key| self.bound.remove(key)).flatten() {
            binds.remove(&address);
        }
        for key in dirty {
            let Some(plan) = gateways.get(&key) else { continue };
            // By the port that we listen on.
            let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
            let gateway: Arc<str> = Arc::from(key.to_string());
            let listeners = plan.listeners.iter().zip(&plan.certificates);
            for (listener, certificates) in listeners.filter(|(listener, _)| listener.opens_port()) {
                let Some(bound) = listener.bound else { continue };
                let Some(attached) = self.listeners.get_mut(&(key.clone(), listener.name.clone())) else { continue };
                let (hosts, new) = attached.build(&listener.hostname, routes);
                built += new;
                let made = Listener {
                    gateway: gateway.clone(),
                    name: listener.name.clone(),
                    port: listener.port,
                    routes: Routes::Gateway(HostMap::new(hosts)),
                };
                let port = ports.entry(bound).or_default();
                port.listeners.push((listener.hostname.clone(), Arc::new(made)));
                if listener.secure {
                    port.certificates.push((listener.hostname.clone(), certificates.clone()));
                }
            }
            for (port, Port { listeners, certificates }) in ports {
                // Listeners of HTTP and HTTPS on one port contradict each other, so here are all of one or all of the other.
                let tls = (!certificates.is_empty()).then(|| Tls { listeners: HostMap::new(certificates) });
                let bind = Arc::new(Bind { listeners: HostMap::new(listeners), tls });
                for address in &plan.bind {
                    let address = SocketAddr::new(*address, port);
                    binds.insert(address, bind.clone());
                    self.bound.entry(key.clone()).or_default().insert(address);
                }
            }
        }
        self.binds = binds;
        self.publish();
        built
    }

    /// Serves Ingresses on these addresses and on no others.
    pub(super) fn set_entrances(&mut self, entrances: &BTreeMap<SocketAddr, Arc<Bind>>) {
        let same = |(one, other): (&Arc<Bind>, &Arc<Bind>)| Arc::ptr_eq(one, other);
        if !(self.entrances.keys().eq(entrances.keys()) && self.entrances.values().zip(entrances.values()).all(same)) {
            self.entrances.clone_from(entrances);
            self.publish();
        }
    }

    /// The addresses where Ingresses are not served since Gateways are.
    pub(super) fn lost_entrances(&self) -> BTreeSet<SocketAddr> {
        self.entrances.keys().filter(|address| self.binds.contains_key(address)).copied().collect()
    }

    fn publish(&mut self) {
        let mut binds = self.entrances.clone();
        binds.extend(self.binds.iter().map(|(address, bind)| (*address, Arc::clone(bind))));
        self.snapshot = Arc::new(Snapshot { binds, consumers: Arc::clone(&self.snapshot.consumers) });
    }
}

impl Attached {
    fn add(&mut self, key: &ObjectKey, plan: &RoutePlan, counted: bool) {
        if counted {
            self.counted.insert(key.clone());
        }
        for host in &plan.hosts {
            self.hosts.entry(host.clone()).or_default().routes.insert(key.clone());
            self.dirty.insert(host.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, plan: &RoutePlan) {
        self.counted.remove(key);
        for host in &plan.hosts {
            if let Some(entry) = self.hosts.get_mut(host) {
                entry.routes.remove(key);
            }
            self.dirty.insert(host.clone());
        }
    }

    /// The routers of the hosts that can be asked for on a listener of this hostname, and how many had to be built.
    fn build(
        &mut self,
        hostname: &HostPattern,
        routes: &Plans<RoutePlan>,
    ) -> (Vec<(HostPattern, Arc<HostRouter>)>, usize) {
        for host in std::mem::take(&mut self.dirty) {
            match self.hosts.get_mut(&host) {
                Some(entry) if entry.routes.is_empty() => drop(self.hosts.remove(&host)),
                Some(entry) => entry.router = None,
                None => {}
            }
        }
        let mut built = 0;
        let mut build = |entry: &mut Host| {
            built += 1;
            let plans = entry.routes.iter().filter_map(|key| routes.get(key));
            let candidates = plans.flat_map(|plan| plan.candidates.iter().cloned()).collect();
            Arc::new(HostRouter::build(candidates))
        };
        let hosts = self.hosts.iter_mut().filter(|(host, _)| intersects(host, hostname));
        let routers = hosts.map(|(host, entry)| {
            let router = entry.router.take().unwrap_or_else(|| build(entry));
            entry.router = Some(router.clone());
            (host.clone(), router)
        });
        (routers.collect(), built)
    }
}
