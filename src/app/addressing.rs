//! Where Gateways get their addresses from: what a cluster remembers goes in, and what its Services should be comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::host_addresses::host_addresses;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::args::{AddressSource, GatewayOptions};
use crate::compile::addresses::{self, Addresses, Memory, Pool, Provider};
use crate::compile::verdict::Problem;
use crate::compile::{addressed, fronted};
use crate::k8s::Observed;
use crate::k8s::services::{Front, View, Want, Wants};
use crate::store::{Changes, Store};

/// The addresses of Gateways, and whatever they depend on.
#[derive(Debug)]
pub(super) struct Addressing {
    provider: Provider,
    memory: Memory,
    addresses: Addresses,
    /// Of the Gateways of a cluster.
    uids: BTreeMap<ObjectKey, Arc<str>>,
    wants: watch::Sender<Arc<Wants>>,
    /// What is remembered changed since addresses were last given.
    stale: bool,
}

impl Addressing {
    pub(super) fn new(options: &GatewayOptions) -> Self {
        let provider = match &options.addresses {
            AddressSource::Pool(pool) if pool.explicit => {
                Provider::Pool(Pool::explicit(pool.networks.clone(), host_addresses()))
            }
            AddressSource::Pool(_) => Provider::Pool(Pool::loopback(host_addresses())),
            AddressSource::Services(kind) => Provider::Services(*kind),
        };
        Addressing {
            provider,
            memory: Memory::default(),
            addresses: Addresses::default(),
            uids: BTreeMap::new(),
            wants: watch::Sender::new(Arc::default()),
            stale: false,
        }
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the Services in front of the Gateways should be, for whoever keeps them.
    pub(super) fn wants(&self) -> watch::Receiver<Arc<Wants>> {
        self.wants.subscribe()
    }

    /// Takes over what is written in the status of Gateways.
    pub(super) fn observe<'a>(&mut self, observed: impl IntoIterator<Item = (&'a ObjectId, &'a Option<Observed>)>) {
        for (id, observed) in observed {
            if id.kind != Kind::Gateway {
                continue;
            }
            match observed {
                Some(observed) => {
                    let uid = self.uids.insert(id.key.clone(), observed.uid.clone());
                    let written = written(&observed.status);
                    self.stale |= uid.as_ref() != Some(&observed.uid);
                    self.stale |= self.memory.written.get(&id.key) != Some(&written);
                    self.memory.written.insert(id.key.clone(), written);
                }
                None => {
                    self.uids.remove(&id.key);
                    self.stale |= self.memory.written.remove(&id.key).is_some();
                }
            }
        }
    }

    /// Whether addresses have to be given anew although no object changed.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether new addresses may be given.
    pub(super) fn lead(&mut self, leading: bool) {
        self.stale |= self.memory.leading != leading;
        self.memory.leading = leading;
    }

    /// Takes over what the Services in front of the Gateways say.
    pub(super) fn see(&mut self, view: &View) {
        let fronts = view.fronts.iter().map(|(key, front)| (key.clone(), describe(front))).collect();
        let interfaces = interfaces(&view.pod_ips);
        self.stale |= self.memory.fronts != fronts || self.memory.interfaces != interfaces;
        self.memory.fronts = fronts;
        self.memory.interfaces = interfaces;
    }

    /// Gives Gateways their addresses; if that changed anything, all of them have to be looked at again.
    pub(super) fn assign(&mut self, store: &Store, controllers: &[String], changes: &mut Changes) {
        let concerned = changes.iter().any(|id| matches!(id.kind, Kind::Gateway | Kind::GatewayClass));
        if !concerned && !self.stale {
            return;
        }
        self.stale = false;
        if self.addresses.assign(&self.provider, &self.memory, addressed(store, controllers)) {
            changes.extend(store.gateways.keys().map(|key| ObjectId::new(Kind::Gateway, key.clone())));
        }
        let wants = self.wanted(store, controllers);
        self.wants.send_if_modified(|known| {
            let differs = **known != wants;
            if differs {
                *known = Arc::new(wants);
            }
            differs
        });
    }

    fn wanted(&self, store: &Store, controllers: &[String]) -> Wants {
        // Gateways of files have no uid: the API server knows nothing that a Service of theirs could belong to.
        let mut foreign = self.uids.clone();
        let mut gateways = BTreeMap::new();
        for fronted in fronted(store, controllers) {
            let key = &fronted.gateway.meta.key;
            let Some(uid) = foreign.remove(key) else { continue };
            let spec = &fronted.gateway.spec;
            let unsupported = self.addresses.of(key).is_some_and(|assigned| !assigned.unsupported.is_empty());
            let address = match &self.provider {
                Provider::Services(kind) => addresses::asked_for(*kind, spec),
                Provider::Pool(_) => None,
            };
            let infrastructure = spec.infrastructure.as_ref();
            let want = Want {
                uid,
                class: spec.gateway_class_name.clone(),
                controller: fronted.controller.to_owned(),
                labels: infrastructure.map(|parts| parts.labels.clone()).unwrap_or_default(),
                annotations: infrastructure.map(|parts| parts.annotations.clone()).unwrap_or_default(),
                ports: fronted.ports,
                address,
                hold: fronted.refused || unsupported,
            };
            gateways.insert(key.clone(), want);
        }
        Wants { gateways, foreign }
    }
}

/// The addresses in a Gateway's status; others write into it too, so it may hold anything.
fn written(status: &Value) -> Vec<IpAddr> {
    let addresses = status["addresses"].as_array().map_or(&[][..], |addresses| addresses);
    addresses.iter().filter_map(|address| address["value"].as_str()?.parse().ok()).collect()
}

/// All interfaces of the families that the Pod has: to listen on those of another would fail.
fn interfaces(pod_ips: &[IpAddr]) -> Vec<IpAddr> {
    let all = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    pod_ips.iter().map(all).collect::<BTreeSet<_>>().into_iter().collect()
}

fn describe(front: &Front) -> addresses::Front {
    let trouble = front.trouble.as_ref();
    addresses::Front {
        name: front.name.clone(),
        ports: front.ports.clone(),
        addresses: front.addresses.clone(),
        problem: trouble.map(|trouble| Problem::new("", &*trouble.message, &*trouble.remedy)),
    }
}
