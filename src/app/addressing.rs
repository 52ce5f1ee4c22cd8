//! Assigns addresses to Gateways and publishes the Services that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::host_addresses::host_addresses;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::args::{AddressSource, GatewayOptions};
use crate::compile::addresses::{
    self, AddressProvider, AddressState, ClientPath, GatewayAddressPool, GatewayAddresses,
};
use crate::compile::{
    Budgets, ExposedGateway, ListenerSetPorts, RouteKind, addressable_gateways, exposed_gateways, foreign_gateways,
    routes_to_gateways,
};
use crate::k8s::Observed;
use crate::k8s::services::{
    DesiredBackendService, DesiredService, DesiredServices, GatewayServiceState, GatewayServicesView,
};
use crate::store::{Changes, Store};

/// The addresses of Gateways, and the state from which they are assigned.
#[derive(Debug)]
pub(super) struct GatewayAddressing {
    provider: AddressProvider,
    state: AddressState,
    addresses: GatewayAddresses,
    /// UIDs of the Gateways in the cluster.
    uids: BTreeMap<ObjectKey, Arc<str>>,
    desired_services: watch::Sender<Arc<DesiredServices>>,
    listener_set_ports: ListenerSetPorts,
    /// Whether `state` or `uids` changed since the last assignment.
    stale: bool,
}

impl GatewayAddressing {
    pub(super) fn new(options: &GatewayOptions) -> Self {
        let provider = match &options.addresses {
            AddressSource::Pool(pool) if pool.explicit => {
                AddressProvider::Pool(GatewayAddressPool::explicit(pool.networks.clone(), host_addresses()))
            }
            AddressSource::Pool(_) => AddressProvider::Pool(GatewayAddressPool::loopback(host_addresses())),
            AddressSource::Services(kind) => AddressProvider::Services(*kind),
        };
        GatewayAddressing {
            provider,
            state: AddressState::default(),
            addresses: GatewayAddresses::default(),
            uids: BTreeMap::new(),
            desired_services: watch::Sender::new(Arc::default()),
            listener_set_ports: ListenerSetPorts::default(),
            stale: false,
        }
    }

    pub(super) fn addresses(&self) -> &GatewayAddresses {
        &self.addresses
    }

    /// The desired Services in front of the Gateways, for the task that reconciles them.
    pub(super) fn desired_services(&self) -> watch::Receiver<Arc<DesiredServices>> {
        self.desired_services.subscribe()
    }

    /// Stores the addresses that the statuses of Gateways contain.
    pub(super) fn observe_statuses<'a>(
        &mut self,
        observed: impl IntoIterator<Item = (&'a ObjectId, &'a Option<Observed>)>,
    ) {
        for (id, observed) in observed {
            if id.kind != Kind::Gateway {
                continue;
            }
            match observed {
                Some(observed) => {
                    let previous_uid = self.uids.insert(id.key.clone(), observed.uid.clone());
                    let written = status_addresses(&observed.status);
                    self.stale |= previous_uid.as_ref() != Some(&observed.uid);
                    self.stale |= self.state.status_addresses.get(&id.key) != Some(&written);
                    self.state.status_addresses.insert(id.key.clone(), written);
                }
                None => {
                    self.uids.remove(&id.key);
                    self.stale |= self.state.status_addresses.remove(&id.key).is_some();
                }
            }
        }
    }

    /// Whether addresses have to be assigned again although no object changed.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Sets whether this replica is the leader and may assign new addresses.
    pub(super) fn set_leading(&mut self, leading: bool) {
        self.stale |= self.state.is_leader != leading;
        self.state.is_leader = leading;
    }

    /// Stores the observed Services in front of the Gateways.
    pub(super) fn observe_services(&mut self, view: &GatewayServicesView) {
        let services = view.services.iter().map(|(key, service)| (key.clone(), to_gateway_service(service))).collect();
        let unspecified_addresses = unspecified_addresses(&view.pod_ips);
        self.stale |=
            self.state.gateway_services != services || self.state.unspecified_addresses != unspecified_addresses;
        self.stale |= self.state.replica_addresses != view.replicas;
        self.stale |= self.state.ready_addresses != view.ready_addresses;
        self.state.ready_addresses.clone_from(&view.ready_addresses);
        self.state.replica_addresses.clone_from(&view.replicas);
        self.state.gateway_services = services;
        self.state.unspecified_addresses = unspecified_addresses;
    }

    /// Assigns addresses; marks the Gateways whose addresses changed.
    pub(super) fn assign(&mut self, store: &Store, controllers: &[String], budgets: &Budgets, changes: &mut Changes) {
        let may_affect = |id: &ObjectId| match id.kind {
            Kind::Gateway | Kind::GatewayClass | Kind::GatewayParameters => true,
            // Its labels decide whether a Gateway allows its ListenerSets.
            Kind::Namespace => !store.listener_sets.is_empty(),
            _ => false,
        };
        let sets = changes.iter().filter(|id| id.kind == Kind::ListenerSet).map(|id| &id.key);
        let gateways_changed = self.listener_set_ports.update(store, sets) || changes.iter().any(may_affect);
        let has_backends = !store.x_backends.is_empty() || !self.desired_services.borrow().backends.is_empty();
        let uses_backends = |id: &ObjectId| id.kind == Kind::XBackend || RouteKind::of(id.kind).is_some();
        let backends_changed = has_backends && changes.iter().any(uses_backends);
        if !gateways_changed && !backends_changed && !self.stale {
            return;
        }
        self.stale = false;
        let exposed: Vec<_> = exposed_gateways(store, controllers, budgets).collect();
        let service_types = exposed
            .iter()
            .filter_map(|exposed| Some((exposed.gateway.meta.key.clone(), exposed.settings.as_ref()?.known_type()?)));
        self.state.service_types = service_types.collect();
        let readdressed = self.addresses.assign(&self.provider, &self.state, addressable_gateways(store, controllers));
        changes.extend(readdressed.into_iter().map(|key| ObjectId::new(Kind::Gateway, key)));
        let desired = self.compute_desired_services(store, controllers, exposed);
        self.desired_services.send_if_modified(|published| {
            let differs = **published != desired;
            if differs {
                *published = Arc::new(desired);
            }
            differs
        });
    }

    fn compute_desired_services(
        &self,
        store: &Store,
        controllers: &[String],
        exposed: Vec<ExposedGateway<'_>>,
    ) -> DesiredServices {
        let mut gateways = BTreeMap::new();
        for exposed in exposed {
            let key = &exposed.gateway.meta.key;
            // A Gateway from a file has no UID, so it cannot own a Service.
            let Some(uid) = self.uids.get(key).cloned() else { continue };
            let spec = &exposed.gateway.spec;
            let unsupported = self.addresses.get(key).is_some_and(|assigned| !assigned.unsupported.is_empty());
            let address = match self.addresses.get(key).map(|assigned| assigned.client_path) {
                Some(ClientPath::Service(kind)) => addresses::requested_service_address(kind, spec),
                _ => None,
            };
            let hold = exposed.settings.is_none() || unsupported;
            let infrastructure = spec.infrastructure.as_ref();
            let service = DesiredService {
                uid,
                class: spec.gateway_class_name.clone(),
                controller: exposed.controller.to_owned(),
                labels: infrastructure.map(|infrastructure| infrastructure.labels.clone()).unwrap_or_default(),
                annotations: infrastructure
                    .map(|infrastructure| infrastructure.annotations.clone())
                    .unwrap_or_default(),
                ports: exposed.ports,
                address,
                settings: exposed.settings.unwrap_or_default(),
                hold,
            };
            gateways.insert(key.clone(), service);
        }
        let foreign =
            foreign_gateways(store, controllers).filter_map(|key| Some((key.clone(), self.uids.get(key)?.clone())));
        let backends = desired_backend_services(store, controllers);
        DesiredServices { gateways, foreign: foreign.collect(), backends }
    }
}

/// The Services of the XBackends that select Pods, and to which routes of served Gateways refer. An XBackend from a
/// file has no uid.
fn desired_backend_services(store: &Store, controllers: &[String]) -> BTreeMap<ObjectKey, DesiredBackendService> {
    if store.x_backends.is_empty() {
        return BTreeMap::new();
    }
    let is_served = routes_to_gateways(store, controllers);
    let desired = store.x_backends.values().filter_map(|backend| {
        let key = &backend.meta.key;
        let mut routes = store.dependency_index().dependents(&ObjectId::new(Kind::XBackend, key.clone()));
        let service = DesiredBackendService {
            uid: backend.meta.uid.clone()?,
            selector: backend.spec.pod_selector()?.match_labels.clone(),
            port: u16::try_from(backend.spec.port.number?).ok().filter(|port| *port > 0)?,
        };
        let is_wanted = !service.selector.is_empty() && routes.any(&is_served);
        is_wanted.then(|| (key.clone(), service))
    });
    desired.collect()
}

/// Parses the addresses in a Gateway's status. Other controllers write it too, so it may hold any JSON.
fn status_addresses(status: &Value) -> Vec<IpAddr> {
    let addresses = status["addresses"].as_array().map_or(&[][..], |addresses| addresses);
    addresses.iter().filter_map(|address| address["value"].as_str()?.parse().ok()).collect()
}

/// The unspecified address of each IP family of the Pod; listening on another family would fail.
fn unspecified_addresses(pod_ips: &[IpAddr]) -> Vec<IpAddr> {
    let unspecified = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    pod_ips.iter().map(unspecified).collect::<BTreeSet<_>>().into_iter().collect()
}

fn to_gateway_service(state: &GatewayServiceState) -> addresses::GatewayService {
    addresses::GatewayService {
        name: state.name.clone(),
        ports: state.ports.clone(),
        addresses: state.addresses.clone(),
        problem: state.error.clone(),
    }
}

#[cfg(test)]
mod tests {

    use serde_json::json;

    use super::*;
    use crate::api::core::ServiceType;
    use crate::args::AddressSource;
    use crate::store::{AnyObject, Batch};
    use crate::transport_protocol::TransportPort;

    const OURS: &str = "portico.dev/gateway-controller";

    fn observed(uid: &str, addresses: &[&str]) -> Option<Observed> {
        let addresses: Vec<_> = addresses.iter().map(|value| json!({"type": "IPAddress", "value": value})).collect();
        Some(Observed {
            uid: Arc::from(uid),
            resource_version: Arc::from("1"),
            generation: 1,
            status: Arc::new(json!({"addresses": addresses})),
            listed: false,
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

    /// Addressing with a Service in front of each Gateway, and the names of its controllers.
    fn addressing_with_services() -> (GatewayAddressing, [String; 1]) {
        let controllers = [OURS.to_owned()];
        let addresses = AddressSource::Services(ServiceType::LoadBalancer);
        let options = GatewayOptions { controller_names: controllers.to_vec(), addresses };
        (GatewayAddressing::new(&options), controllers)
    }

    #[test]
    fn each_gateway_requests_its_service() {
        let (mut addressing, controllers) = addressing_with_services();
        let desired = addressing.desired_services();
        let mut store = Store::default();
        let infrastructure = json!({"infrastructure": {"labels": {"l": "1"}, "annotations": {"a": "2"}}});
        let upserts = vec![
            class("portico", OURS),
            class("foreign", "example.com/other"),
            gateway("plain", "portico", infrastructure),
            gateway("requests", "portico", json!({"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]})),
            gateway("odd", "portico", json!({"addresses": [{"type": "Hostname", "value": "a.example"}]})),
            gateway("file", "portico", json!({})),
            gateway("other", "foreign", json!({})),
            gateway("no-class", "missing", json!({})),
        ];
        let mut changes = store.apply(Batch { upserts, removes: vec![] });
        // The store does not contain the Gateway "malformed".
        let names = ["plain", "requests", "odd", "other", "no-class", "malformed"];
        let statuses: BTreeMap<_, _> = names.map(|name| (id(name), observed(&format!("uid of {name}"), &[]))).into();
        addressing.observe_statuses(&statuses);
        addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);

        let desired = desired.borrow().clone();
        let names: Vec<_> = desired.gateways.keys().map(|key| &*key.name).collect();
        assert_eq!(names, ["odd", "plain", "requests"], "a Gateway from a file cannot own a Service");
        let service_of = |name: &str| desired.gateways[&ObjectKey::new("ns", name)].clone();
        let plain = service_of("plain");
        assert_eq!((&*plain.uid, &*plain.class, &*plain.controller), ("uid of plain", "portico", OURS));
        assert_eq!((&*plain.labels["l"], &*plain.annotations["a"]), ("1", "2"));
        assert_eq!(
            (plain.ports, plain.address, plain.hold),
            ([TransportPort::tcp(80), TransportPort::udp(53)].into(), None, false)
        );
        assert_eq!(service_of("requests").address, Some("192.0.2.1".parse().unwrap()));
        assert!(service_of("odd").hold, "the Gateway is not accepted");
        let foreign: Vec<_> = desired.foreign.keys().map(|key| &*key.name).collect();
        assert_eq!(foreign, ["other"]);
    }

    #[test]
    fn x_backends_of_served_routes_request_a_service() {
        let (mut addressing, controllers) = addressing_with_services();
        let desired = addressing.desired_services();
        let backend = |name: &str, uid: Option<&str>, spec: Value| {
            let mut spec = spec;
            spec["port"] = json!({"number": 8080});
            let object = json!({"metadata": {"namespace": "ns", "name": name, "uid": uid}, "spec": spec});
            AnyObject::parse(Kind::XBackend, object).unwrap()
        };
        let route = |name: &str, gateway: &str, backend: &str| {
            let backend = json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": backend});
            let spec = json!({"parentRefs": [{"name": gateway}], "rules": [{"backendRefs": [backend]}]});
            let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
            AnyObject::parse(Kind::HttpRoute, object).unwrap()
        };
        let pods = || json!({"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"app": "shop"}}});
        let host = json!({"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}});
        let mut store = Store::default();
        let mut after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let mut changes = store.apply(Batch { upserts, removes });
            addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
            desired.borrow().backends.clone()
        };
        let objects = vec![
            class("portico", OURS),
            class("foreign", "example.com/other"),
            gateway("web", "portico", json!({})),
            gateway("other", "foreign", json!({})),
            backend("pods", Some("u"), pods()),
            backend("file", None, pods()),
            backend("host", Some("v"), host),
            backend("unused", Some("w"), pods()),
            backend("foreign", Some("x"), pods()),
            route("file", "web", "file"),
            route("host", "web", "host"),
            route("foreign", "other", "foreign"),
        ];
        assert_eq!(after(objects, vec![]), BTreeMap::new());
        let service = DesiredBackendService {
            uid: "u".into(),
            selector: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
            port: 8080,
        };
        let expected = BTreeMap::from([(ObjectKey::new("ns", "pods"), service)]);
        assert_eq!(after(vec![route("pods", "web", "pods")], vec![]), expected);

        let with_parents = |fields: Value| {
            let mut object = json!({"metadata": {"namespace": "ns", "name": "pods"}, "spec": fields});
            let backend = json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "pods"});
            object["spec"]["rules"] = json!([{"backendRefs": [backend]}]);
            AnyObject::parse(Kind::HttpRoute, object).unwrap()
        };
        let of_set = with_parents(json!({"parentRefs": [{"kind": "ListenerSet", "name": "set"}]}));
        assert_eq!(after(vec![of_set], vec![]), BTreeMap::new());
        let set = |gateway: &str| {
            let spec = json!({"parentRef": {"name": gateway}, "listeners": []});
            AnyObject::parse(Kind::ListenerSet, json!({"metadata": {"namespace": "ns", "name": "set"}, "spec": spec}))
                .unwrap()
        };
        assert_eq!(after(vec![set("other")], vec![]), BTreeMap::new());
        assert_eq!(after(vec![set("web")], vec![]), expected);

        let of_defaults = with_parents(json!({"useDefaultGateways": "All"}));
        assert_eq!(after(vec![of_defaults], vec![]), BTreeMap::new());
        assert_eq!(after(vec![gateway("web", "portico", json!({"defaultScope": "All"}))], vec![]), expected);
        let removed = ObjectId::new(Kind::XBackend, ObjectKey::new("ns", "pods"));
        assert_eq!(after(vec![], vec![removed]), BTreeMap::new());
    }

    #[test]
    fn parameters_are_merged_and_hold_the_service_while_they_are_missing() {
        let (mut addressing, controllers) = addressing_with_services();
        let desired = addressing.desired_services();
        let mut store = Store::default();
        let parameters = |name: &str, service: Value| {
            let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"service": service}});
            AnyObject::parse(Kind::GatewayParameters, object).unwrap()
        };
        let reference = |name: &str| json!({"group": "portico.dev", "kind": "GatewayParameters", "name": name});
        let mut of_class = reference("class");
        of_class["namespace"] = json!("ns");
        let class = json!({
            "metadata": {"name": "portico"}, "spec": {"controllerName": OURS, "parametersRef": of_class},
        });
        addressing.observe_statuses(&BTreeMap::from([(id("web"), observed("u", &[]))]));
        let mut after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let mut changes = store.apply(Batch { upserts, removes });
            addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
            let web = desired.borrow().gateways[&ObjectKey::new("ns", "web")].clone();
            let client_path = addressing.addresses().get(&ObjectKey::new("ns", "web")).unwrap().client_path;
            (web.hold, web.settings.external_traffic_policy, web.settings.load_balancer_class, client_path)
        };
        let upserts = vec![
            AnyObject::parse(Kind::GatewayClass, class).unwrap(),
            gateway("web", "portico", json!({"infrastructure": {"parametersRef": reference("own")}})),
            parameters("class", json!({"externalTrafficPolicy": "Local", "loadBalancerClass": "a.example/b"})),
        ];
        let balanced = ClientPath::Service(ServiceType::LoadBalancer);
        assert_eq!(after(upserts, vec![]), (true, None, None, balanced), "its own parameters do not exist");
        let own = parameters("own", json!({"externalTrafficPolicy": "Cluster", "type": "NodePort"}));
        let (policy, class) = (Some("Cluster".to_owned()), Some("a.example/b".to_owned()));
        let by_node = ClientPath::Service(ServiceType::NodePort);
        assert_eq!(after(vec![own], vec![]), (false, policy, class, by_node));
        let of_class = ObjectId::new(Kind::GatewayParameters, ObjectKey::new("ns", "class"));
        assert!(after(vec![], vec![of_class]).0, "those of the class were deleted");
    }

    #[test]
    fn removed_class_keeps_the_services() {
        let (mut addressing, controllers) = addressing_with_services();
        let desired = addressing.desired_services();
        let mut store = Store::default();
        addressing.observe_statuses(&BTreeMap::from([(id("web"), observed("u", &[]))]));
        // The numbers of desired and of foreign Gateways. Services of Gateways that are neither stay as they are.
        let mut after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let mut changes = store.apply(Batch { upserts, removes });
            addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
            let desired = desired.borrow();
            (desired.gateways.len(), desired.foreign.len())
        };
        let this_class = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
        assert_eq!(after(vec![class("portico", OURS), gateway("web", "portico", json!({}))], vec![]), (1, 0));
        assert_eq!(after(vec![], vec![this_class]), (1, 0), "the Gateway is served as before");
        assert_eq!(after(vec![gateway("new", "portico", json!({}))], vec![]), (1, 0), "it never had the class");
        assert_eq!(after(vec![], vec![id("new")]), (1, 0));
        assert_eq!(after(vec![class("portico", OURS)], vec![]), (1, 0));
        assert_eq!(after(vec![class("portico", "example.com/other")], vec![]), (0, 1));
    }

    #[test]
    fn class_removed_before_the_start_keeps_the_service_as_it_is() {
        let (mut addressing, controllers) = addressing_with_services();
        let desired = addressing.desired_services();
        let mut store = Store::default();
        let accepted = |name: &str, controller: &str| {
            let AnyObject::Gateway(mut gateway) = gateway(name, "portico", json!({})) else { panic!("not a Gateway") };
            Arc::make_mut(&mut gateway).body.accepted_by = Some(controller.to_owned());
            AnyObject::Gateway(gateway)
        };
        let statuses = BTreeMap::from(["web", "other", "new"].map(|name| (id(name), observed("u", &[]))));
        addressing.observe_statuses(&statuses);
        let upserts =
            vec![accepted("web", OURS), accepted("other", "example.com/other"), gateway("new", "portico", json!({}))];
        let mut changes = store.apply(Batch { upserts, removes: vec![] });
        addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
        let (web, desired) = (ObjectKey::new("ns", "web"), desired.borrow().clone());
        assert_eq!(desired.gateways.keys().collect::<Vec<_>>(), [&web]);
        assert!(desired.gateways[&web].hold, "the parameters of the class are unknown");
    }

    #[test]
    fn only_changed_inputs_cause_reassignment() {
        let (mut addressing, controllers) = addressing_with_services();
        let mut store = Store::default();
        let upserts = vec![class("portico", OURS), gateway("web", "portico", json!({}))];
        let mut changes = store.apply(Batch { upserts, removes: vec![] });
        let statuses = BTreeMap::from([(id("web"), observed("u", &[]))]);
        addressing.observe_statuses(&statuses);
        addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
        let mut reassigns = |apply: &dyn Fn(&mut GatewayAddressing)| {
            apply(&mut addressing);
            let mut changes = Changes::new();
            addressing.assign(&store, &controllers, &Budgets::default(), &mut changes);
            !changes.is_empty()
        };
        let service = GatewayServiceState {
            name: "web-portico".to_owned(),
            ports: [(TransportPort::tcp(80), 10080)].into(),
            ..GatewayServiceState::default()
        };
        let view = GatewayServicesView {
            complete: true,
            services: BTreeMap::from([(ObjectKey::new("ns", "web"), service)]),
            pod_ips: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ..GatewayServicesView::default()
        };
        assert!(reassigns(&|addressing| addressing.observe_services(&view)), "a Service");
        assert!(!reassigns(&|addressing| addressing.observe_services(&view)), "the same Service");
        let joined = GatewayServicesView { replicas: ["10.0.0.3".parse().unwrap()].into(), ..view.clone() };
        assert!(!reassigns(&|addressing| addressing.observe_services(&joined)), "another replica has no addresses");
        assert!(!reassigns(&|addressing| addressing.observe_statuses(&statuses)), "the status written by Portico");
        assert!(!reassigns(&|addressing| addressing.set_leading(true)), "leading without a change of addresses");
        let no_services = GatewayServicesView::default();
        assert!(reassigns(&|addressing| addressing.observe_services(&no_services)), "the Service is gone");
        let deleted = BTreeMap::from([(id("web"), None)]);
        assert!(reassigns(&|addressing| addressing.observe_statuses(&deleted)), "the Gateway comes from a file now");
    }

    #[test]
    fn malformed_status_addresses_are_skipped() {
        let status = json!({"addresses": [
            {"type": "IPAddress", "value": "192.0.2.1"}, {"type": "Hostname", "value": "a.example"}, {"value": 5}, "x",
            {"value": "2001:db8::1"},
        ]});
        let addresses: Vec<_> = status_addresses(&status).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        for nothing in [json!(null), json!({}), json!({"addresses": {}}), json!([1])] {
            assert!(status_addresses(&nothing).is_empty());
        }
    }
}
