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
use crate::compile::{addressed, foreign, fronted};
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
        self.stale |= self.memory.replicas != view.replicas;
        self.memory.replicas.clone_from(&view.replicas);
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
        let mut gateways = BTreeMap::new();
        for fronted in fronted(store, controllers) {
            let key = &fronted.gateway.meta.key;
            let Some(uid) = self.uids.get(key).cloned() else { continue };
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
        let foreign = foreign(store, controllers).filter_map(|key| Some((key.clone(), self.uids.get(key)?.clone())));
        Wants { gateways, foreign: foreign.collect() }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::api::core::ServiceType;
    use crate::args::AddressSource;
    use crate::store::{AnyObject, Batch};

    const OURS: &str = "portico.dev/gateway-controller";

    fn observed(uid: &str, addresses: &[&str]) -> Option<Observed> {
        let addresses: Vec<_> = addresses.iter().map(|value| json!({"type": "IPAddress", "value": value})).collect();
        Some(Observed {
            uid: Arc::from(uid),
            resource_version: Arc::from("1"),
            generation: 1,
            status: Arc::new(json!({"addresses": addresses})),
        })
    }

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::Gateway, ObjectKey::new("ns", name))
    }

    fn class(name: &str, controller: &str) -> AnyObject {
        let class = json!({"metadata": {"name": name}, "spec": {"controllerName": controller}});
        AnyObject::parse(Kind::GatewayClass, class).unwrap()
    }

    fn gateway(name: &str, class: &str, extra: Value) -> AnyObject {
        let mut spec = json!({
            "gatewayClassName": class,
            "listeners": [
                {"name": "a", "port": 80, "protocol": "HTTP"},
                {"name": "b", "port": 80, "protocol": "HTTP", "hostname": "x.example"},
                {"name": "c", "port": 53, "protocol": "UDP"},
            ],
        });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        AnyObject::parse(Kind::Gateway, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    }

    #[test]
    fn each_gateway_of_the_cluster_says_what_it_needs_of_its_service() {
        let options = GatewayOptions {
            controller_names: BTreeSet::from([OURS.to_owned()]),
            addresses: AddressSource::Services(ServiceType::LoadBalancer),
        };
        let controllers = [OURS.to_owned()];
        let mut addressing = Addressing::new(&options);
        let wants = addressing.wants();
        let mut store = Store::default();
        let infrastructure = json!({"infrastructure": {"labels": {"l": "1"}, "annotations": {"a": "2"}}});
        let upserts = vec![
            class("portico", OURS),
            class("foreign", "example.com/other"),
            gateway("plain", "portico", infrastructure),
            gateway("asks", "portico", json!({"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]})),
            gateway("odd", "portico", json!({"addresses": [{"type": "Hostname", "value": "a.example"}]})),
            gateway("file", "portico", json!({})),
            gateway("other", "foreign", json!({})),
            gateway("waits", "missing", json!({})),
        ];
        let mut changes = store.apply(Batch { upserts, removes: vec![] });
        // "unread" cannot be read as a Gateway, so that the store has nothing of it.
        let names = ["plain", "asks", "odd", "other", "waits", "unread"];
        let seen: BTreeMap<_, _> = names.map(|name| (id(name), observed(&format!("uid of {name}"), &[]))).into();
        addressing.observe(&seen);
        addressing.assign(&store, &controllers, &mut changes);

        let wants = wants.borrow().clone();
        let names: Vec<_> = wants.gateways.keys().map(|key| &*key.name).collect();
        assert_eq!(names, ["asks", "odd", "plain"], "what comes from a file cannot own anything in a cluster");
        let of = |name: &str| wants.gateways[&ObjectKey::new("ns", name)].clone();
        let plain = of("plain");
        assert_eq!((&*plain.uid, &*plain.class, &*plain.controller), ("uid of plain", "portico", OURS));
        assert_eq!((&*plain.labels["l"], &*plain.annotations["a"]), ("1", "2"));
        assert_eq!((plain.ports, plain.address, plain.hold), ([80].into(), None, false), "UDP is not served");
        assert_eq!(of("asks").address, Some("192.0.2.1".parse().unwrap()));
        assert!(of("odd").hold, "it is not accepted");
        let foreign: Vec<_> = wants.foreign.keys().map(|key| &*key.name).collect();
        assert_eq!(foreign, ["other"]);
    }

    #[test]
    fn a_class_that_is_gone_for_a_moment_costs_no_gateway_its_service() {
        let options = GatewayOptions {
            controller_names: BTreeSet::from([OURS.to_owned()]),
            addresses: AddressSource::Services(ServiceType::LoadBalancer),
        };
        let controllers = [OURS.to_owned()];
        let mut addressing = Addressing::new(&options);
        let wants = addressing.wants();
        let mut store = Store::default();
        addressing.observe(&BTreeMap::from([(id("web"), observed("u", &[]))]));
        let mut after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let mut changes = store.apply(Batch { upserts, removes });
            addressing.assign(&store, &controllers, &mut changes);
            let wants = wants.borrow();
            (wants.gateways.len(), wants.foreign.len())
        };
        let this_class = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
        assert_eq!(after(vec![class("portico", OURS), gateway("web", "portico", json!({}))], vec![]), (1, 0));
        assert_eq!(after(vec![], vec![this_class]), (0, 0));
        assert_eq!(after(vec![class("portico", OURS)], vec![]), (1, 0));
        assert_eq!(after(vec![class("portico", "example.com/other")], vec![]), (0, 1));
    }

    #[test]
    fn only_what_differs_is_looked_at_again() {
        let options = GatewayOptions {
            controller_names: BTreeSet::from([OURS.to_owned()]),
            addresses: AddressSource::Services(ServiceType::LoadBalancer),
        };
        let controllers = [OURS.to_owned()];
        let mut addressing = Addressing::new(&options);
        let mut store = Store::default();
        let upserts = vec![class("portico", OURS), gateway("web", "portico", json!({}))];
        let mut changes = store.apply(Batch { upserts, removes: vec![] });
        let seen = BTreeMap::from([(id("web"), observed("u", &[]))]);
        addressing.observe(&seen);
        addressing.assign(&store, &controllers, &mut changes);
        let mut again = |what: &str, act: &dyn Fn(&mut Addressing), expected: bool| {
            act(&mut addressing);
            let mut changes = Changes::new();
            addressing.assign(&store, &controllers, &mut changes);
            assert_eq!(!changes.is_empty(), expected, "{what}");
        };
        let front = Front { name: "web-portico".to_owned(), ports: [(80, 10080)].into(), ..Front::default() };
        let view = View {
            complete: true,
            fronts: BTreeMap::from([(ObjectKey::new("ns", "web"), front)]),
            pod_ips: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ..View::default()
        };
        again("a Service", &|addressing| addressing.see(&view), true);
        again("the same again", &|addressing| addressing.see(&view), false);
        let joined = View { replicas: ["10.0.0.3".parse().unwrap()].into(), ..view.clone() };
        again("another replica", &|addressing| addressing.see(&joined), true);
        again("its own status, written", &|addressing| addressing.observe(&seen), false);
        again("leading, with nothing to give", &|addressing| addressing.lead(true), false);
        again("no Service any more", &|addressing| addressing.see(&View::default()), true);
        let gone = BTreeMap::from([(id("web"), None)]);
        again("the Gateway is that of a file now", &|addressing| addressing.observe(&gone), true);
    }

    #[test]
    fn what_stands_in_a_status_may_be_anything() {
        let status = json!({"addresses": [
            {"type": "IPAddress", "value": "192.0.2.1"}, {"type": "Hostname", "value": "a.example"}, {"value": 5}, "x",
            {"value": "2001:db8::1"},
        ]});
        let found: Vec<_> = written(&status).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
        for nothing in [json!(null), json!({}), json!({"addresses": {}}), json!([1])] {
            assert!(written(&nothing).is_empty());
        }
    }
}
