//! Plans the write calls that give every Gateway its Service: a pure function of desired and observed state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::selection::{self, ListeningPorts, SelectedService};
use super::service::{self, KnownService};
use super::{DesiredService, DesiredServices, GatewayExposure, applied, balancer_class, names, ports};
use crate::api::ObjectKey;
use crate::api::names::MANAGED_BY;
use crate::diagnostic::Diagnostic;
use crate::transport_protocol::TransportPort;

/// Portico's Services.
pub(super) type ServicesByKey = BTreeMap<ObjectKey, Arc<KnownService>>;

/// The kind of object of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StepTarget {
    Service,
    Slice,
}

/// One call to the API server about one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlanStep {
    pub(super) target: StepTarget,
    /// The Gateway for which the object exists, if known.
    pub(super) gateway: Option<ObjectKey>,
    pub(super) key: ObjectKey,
    pub(super) call: ApiCall,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ApiCall {
    /// Creates a Service. An existing one of this name is not changed; if it is not Portico's, the call fails.
    Create(Value),
    /// Creates or changes the object; if it has a uid, changes only the object of that uid.
    Apply(Value),
    /// Deletes only the object of this uid.
    Delete { uid: String },
    /// Makes no call, because none can succeed, and reports the reason.
    GiveUp(Diagnostic),
}

/// The steps for the Services of Gateways: at most one for each Gateway, and none if its Service is as it should be or
/// has to wait.
pub(super) fn plan_services(
    desired_services: &DesiredServices,
    exposure: GatewayExposure,
    controllers: &BTreeSet<String>,
    services: &ServicesByKey,
    listening_ports: &ListeningPorts,
) -> Vec<PlanStep> {
    let selected = selection::select_services(desired_services, services, listening_ports);
    let ports = selected.values().flat_map(|selected| selected.ports.values().copied()).collect();
    let mut taken = Reservations { ports, names: BTreeSet::new() };
    let mut of_gateway: BTreeMap<&ObjectKey, Vec<&KnownService>> = BTreeMap::new();
    for service in services.values() {
        of_gateway.entry(&service.owner.gateway).or_default().push(service);
    }
    let mut steps = Vec::new();
    for (gateway, desired) in &desired_services.gateways {
        let owned = of_gateway.remove(gateway).unwrap_or_default();
        // A stale Service belongs to a deleted Gateway of the same name. The garbage collector would delete it later.
        let stale = owned.iter().find(|service| service.owner.uid != desired.uid && !service.terminating);
        steps.extend(match stale {
            Some(stale) => Some(delete_step(stale)),
            None => plan_gateway(gateway, desired, exposure, selected.get(gateway), services, &mut taken),
        });
    }
    for (gateway, uid) in &desired_services.foreign {
        let must_go = |service: &&&KnownService| {
            let is_of_installation = service.controller.as_ref().is_some_and(|name| controllers.contains(name));
            is_of_installation && service.owner.uid == *uid && !service.terminating
        };
        let of_foreign = of_gateway.get(gateway).map_or(&[][..], |services| services);
        steps.extend(of_foreign.iter().find(must_go).map(|service| delete_step(service)));
    }
    steps
}

fn plan_gateway(
    gateway: &ObjectKey,
    desired: &DesiredService,
    exposure: GatewayExposure,
    selected: Option<&SelectedService<'_>>,
    services: &ServicesByKey,
    taken: &mut Reservations,
) -> Option<PlanStep> {
    let exposed = matches!(exposure, GatewayExposure::Exposed(_));
    if desired.hold || (exposed && desired.ports.is_empty()) {
        return None;
    }
    let step = |key: &ObjectKey, call| {
        Some(PlanStep { target: StepTarget::Service, gateway: Some(gateway.clone()), key: key.clone(), call })
    };
    let Some(SelectedService { service: current, ports: kept }) = selected else {
        let key = free_name(gateway, desired, services, &taken.names)?;
        taken.names.insert(key.clone());
        let ports = if exposed {
            allocate_pod_ports(gateway, desired, &BTreeMap::new(), &mut taken.ports)
        } else {
            Ok(BTreeMap::new())
        };
        return match ports {
            Ok(ports) => {
                step(&key, ApiCall::Create(service::desired_service(gateway, desired, &key.name, exposure, &ports)))
            }
            Err(service_error) => step(&key, ApiCall::GiveUp(service_error)),
        };
    };
    if current.terminating {
        return None;
    }
    if current.headless == exposed {
        // A Service cannot change between headless and not headless.
        return Some(delete_step(current));
    }
    let ports =
        if exposed { allocate_pod_ports(gateway, desired, kept, &mut taken.ports) } else { Ok(BTreeMap::new()) };
    let ports = match ports {
        Ok(ports) => ports,
        Err(service_error) => return step(&current.key, ApiCall::GiveUp(service_error)),
    };
    let mut object = service::desired_service(gateway, desired, &current.key.name, exposure, &ports);
    balancer_class::keep(&mut object, current);
    if applied::is_applied(&object, &current.object, MANAGED_BY) {
        return None;
    }
    object["metadata"]["uid"] = Value::from(current.uid.as_str());
    step(&current.key, ApiCall::Apply(object))
}

fn delete_step(service: &KnownService) -> PlanStep {
    let gateway = Some(service.owner.gateway.clone());
    PlanStep {
        target: StepTarget::Service,
        gateway,
        key: service.key.clone(),
        call: ApiCall::Delete { uid: service.uid.clone() },
    }
}

/// The ports and names that are taken, so that one plan does not use any of them twice.
struct Reservations {
    ports: BTreeSet<u16>,
    /// Names of Services to be created.
    names: BTreeSet<ObjectKey>,
}

/// The name of a Service to create; None while the Gateway's previous Service still has to be deleted. If another pair
/// of Gateway and class has the name `GATEWAY-CLASS` already, the name is made unique with a hash.
fn free_name(
    gateway: &ObjectKey,
    desired: &DesiredService,
    services: &ServicesByKey,
    taken: &BTreeSet<ObjectKey>,
) -> Option<ObjectKey> {
    let key = |name: &str| ObjectKey::new(&gateway.namespace, name);
    let plain = key(&names::service_name(&gateway.name, &desired.class));
    match services.get(&plain) {
        None if !taken.contains(&plain) => Some(plain),
        Some(holder) if holder.owner.gateway == *gateway => None,
        _ => Some(key(&names::unique_service_name(&gateway.name, &desired.class)))
            .filter(|unique| !services.contains_key(unique)),
    }
}

/// The target port of each port of a Gateway: the one in `kept`, or a free one. A target port has one transport
/// protocol only, so that it identifies the Gateway.
fn allocate_pod_ports(
    gateway: &ObjectKey,
    desired: &DesiredService,
    kept: &BTreeMap<TransportPort, u16>,
    taken: &mut BTreeSet<u16>,
) -> Result<BTreeMap<TransportPort, u16>, Diagnostic> {
    let mut ports = BTreeMap::new();
    for port in &desired.ports {
        let Some(target) = kept.get(port).copied().or_else(|| ports::find_free_port(gateway, *port, taken)) else {
            let (first, last) = ports::POD_PORT_RANGE.into_inner();
            return Err(Diagnostic::of_object(
                format!(
                    "listener port {port} is not served: all ports from {first} to {last} of Portico's Pods are taken"
                ),
                "delete unused Gateways or listeners of any namespace",
            ));
        };
        taken.insert(target);
        ports.insert(*port, target);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::core::ServiceType;

    const EXPOSED: GatewayExposure = GatewayExposure::Exposed(ServiceType::LoadBalancer);
    const HTTP: TransportPort = TransportPort::tcp(80);

    fn desired(uid: &str, ports: &[u16]) -> DesiredService {
        DesiredService {
            uid: Arc::from(uid),
            class: "portico".to_owned(),
            controller: "portico.dev/gateway-controller".to_owned(),
            ports: ports.iter().copied().map(TransportPort::tcp).collect(),
            ..DesiredService::default()
        }
    }

    fn desired_services(gateways: &[(&str, DesiredService)]) -> DesiredServices {
        let gateways = gateways.iter().map(|(name, desired)| (ObjectKey::new("ns", name), desired.clone()));
        DesiredServices { gateways: gateways.collect(), ..DesiredServices::default() }
    }

    /// A minimal API server: carries out the calls of steps.
    fn carry_out(known: &mut ServicesByKey, steps: &[PlanStep]) {
        for PlanStep { key, call, .. } in steps {
            match call {
                ApiCall::Create(object) => {
                    let created = i64::try_from(known.len()).unwrap();
                    put(known, key, &format!("uid-{created}"), created, object);
                }
                ApiCall::Apply(object) => {
                    let (uid, created) = (known[key].uid.clone(), known[key].created);
                    assert_eq!(object["metadata"]["uid"], *uid, "only the object of this uid is changed");
                    put(known, key, &uid, created, object);
                }
                ApiCall::Delete { uid } => assert_eq!(&known.remove(key).unwrap().uid, uid),
                ApiCall::GiveUp(service_error) => panic!("{service_error:?}"),
            }
        }
    }

    fn put(known: &mut ServicesByKey, key: &ObjectKey, uid: &str, created: i64, object: &Value) {
        let mut whole = object.clone();
        let metadata = &mut whole["metadata"];
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!("1");
        metadata["creationTimestamp"] = json!(jiff::Timestamp::from_second(created).unwrap().to_string());
        if object["spec"]["clusterIP"] == "None" {
            whole["spec"]["clusterIPs"] = json!(["None"]);
        }
        let mut service: k8s_openapi::api::core::v1::Service = serde_json::from_value(whole.clone()).unwrap();
        let fields = owned(object);
        let entry = json!({"manager": "portico", "operation": "Apply", "fieldsV1": fields});
        service.metadata.managed_fields = Some(vec![serde_json::from_value(entry).unwrap()]);
        known.insert(key.clone(), Arc::new(KnownService::read(&service).unwrap()));
    }

    /// Managed fields as the API server would write them.
    fn owned(object: &Value) -> Value {
        let fields = |value: &Value, without: &[&str]| -> Value {
            let keys = value.as_object().unwrap().keys().filter(|key| !without.contains(&key.as_str()));
            keys.map(|key| (format!("f:{key}"), json!({}))).collect::<serde_json::Map<_, _>>().into()
        };
        let metadata = &object["metadata"];
        let mut of_metadata = fields(metadata, &["name", "namespace", "uid"]);
        of_metadata["f:labels"] = fields(&metadata["labels"], &[]);
        of_metadata["f:annotations"] = fields(&metadata["annotations"], &[]);
        let owner = &metadata["ownerReferences"][0];
        of_metadata["f:ownerReferences"] = json!({format!("k:{{\"uid\":{}}}", owner["uid"]): {}});
        let mut of_spec = fields(&object["spec"], &[]);
        if let Some(ports) = object["spec"]["ports"].as_array() {
            let ports = ports.iter().map(|port| {
                (format!("k:{{\"port\":{},\"protocol\":{}}}", port["port"], port["protocol"]), fields(port, &[]))
            });
            of_spec["f:ports"] = ports.collect::<serde_json::Map<_, _>>().into();
        }
        json!({"f:metadata": of_metadata, "f:spec": of_spec})
    }

    /// Takes steps until none is left, and returns them.
    fn settle(desired_services: &DesiredServices, exposure: GatewayExposure, known: &mut ServicesByKey) -> Vec<String> {
        let controllers = BTreeSet::from(["portico.dev/gateway-controller".to_owned()]);
        let mut taken = Vec::new();
        loop {
            let steps = plan_services(desired_services, exposure, &controllers, known, &ListeningPorts::new());
            if steps.is_empty() {
                return taken;
            }
            taken.extend(steps.iter().map(|step| {
                let call = match step.call {
                    ApiCall::Create(_) => "create",
                    ApiCall::Apply(_) => "apply",
                    ApiCall::Delete { .. } => "delete",
                    ApiCall::GiveUp(_) => "give up",
                };
                format!("{call} {}", step.key.name)
            }));
            assert!(taken.len() < 10, "the plan does not converge: {taken:?}");
            carry_out(known, &steps);
        }
    }

    #[test]
    fn headless_service_carries_labels_and_annotations() {
        let mut known = ServicesByKey::new();
        let mut web = desired("1", &[80]);
        web.labels.insert("team".to_owned(), "a".to_owned());
        web.labels.insert("app.kubernetes.io/managed-by".to_owned(), "helm".to_owned());
        web.annotations.insert("example.com/a".to_owned(), "b".to_owned());
        assert_eq!(
            settle(&desired_services(&[("web", web.clone())]), GatewayExposure::Headless, &mut known),
            ["create web-portico"]
        );
        let service = &known[&ObjectKey::new("ns", "web-portico")].object;
        assert_eq!(service["spec"]["clusterIP"], "None");
        assert!(service["spec"]["ports"].is_null() && service["spec"]["selector"].is_null());
        let metadata = &service["metadata"];
        let expected = json!({
            "team": "a",
            "app.kubernetes.io/managed-by": "portico",
            "gateway.networking.k8s.io/gateway-name": "web",
            "gateway.networking.k8s.io/gateway-class-name": "portico",
        });
        assert_eq!(metadata["labels"], expected, "users cannot set the labels that Portico selects by");
        assert_eq!(metadata["annotations"]["example.com/a"], "b");
        let owner = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": "1",
            "controller": true,
        }]);
        assert_eq!(metadata["ownerReferences"], owner);

        web.labels.clear();
        web.annotations.clear();
        assert_eq!(
            settle(&desired_services(&[("web", web)]), GatewayExposure::Headless, &mut known),
            ["apply web-portico"]
        );
        let metadata = &known[&ObjectKey::new("ns", "web-portico")].object["metadata"];
        assert!(metadata["labels"]["team"].is_null() && metadata["annotations"]["example.com/a"].is_null());
    }

    #[test]
    fn ports_are_unique_and_stable() {
        let mut known = ServicesByKey::new();
        let ports_of = |known: &ServicesByKey, name: &str| known[&ObjectKey::new("ns", name)].ports.clone();
        settle(&desired_services(&[("a", desired("1", &[80, 443])), ("b", desired("2", &[80]))]), EXPOSED, &mut known);
        let (a_ports, b_ports) = (ports_of(&known, "a-portico"), ports_of(&known, "b-portico"));
        let all: BTreeSet<_> = a_ports.values().chain(b_ports.values()).collect();
        assert_eq!(all.len(), 3, "each port has its own target");
        let grown = desired_services(&[("a", desired("1", &[80, 8080])), ("b", desired("2", &[80]))]);
        assert_eq!(settle(&grown, EXPOSED, &mut known), ["apply a-portico"]);
        let changed = ports_of(&known, "a-portico");
        assert_eq!(
            (changed.get(&HTTP), changed.get(&TransportPort::tcp(443))),
            (a_ports.get(&HTTP), None),
            "ports that stay keep their targets"
        );
        assert_eq!(changed.len(), 2);
        assert_eq!(ports_of(&known, "b-portico"), b_ports);
    }

    #[test]
    fn tcp_and_udp_share_a_port_number() {
        let mut known = ServicesByKey::new();
        let both = [TransportPort::tcp(53), TransportPort::udp(53)];
        let dns = DesiredService { ports: both.into(), ..desired("1", &[]) };
        let desired = desired_services(&[("a", dns)]);
        assert_eq!(settle(&desired, EXPOSED, &mut known), ["create a-portico"]);
        let service = &known[&ObjectKey::new("ns", "a-portico")];
        let ports = service.object["spec"]["ports"].as_array().unwrap().iter();
        let ports: Vec<_> = ports.map(|port| format!("{} {}", port["name"], port["protocol"])).collect();
        assert_eq!(ports, [r#""tcp-53" "TCP""#, r#""udp-53" "UDP""#]);
        let targets: BTreeSet<_> = both.iter().map(|port| service.ports[port]).collect();
        assert_eq!(targets.len(), 2, "a target port belongs to one port of the Gateway");
    }

    #[test]
    fn older_service_keeps_a_disputed_port() {
        let mut known = ServicesByKey::new();
        let both = desired_services(&[("a", desired("1", &[80])), ("b", desired("2", &[80]))]);
        settle(&both, EXPOSED, &mut known);
        let key = |name: &str| ObjectKey::new("ns", name);
        let mut edited = KnownService::clone(&known[&key("b-portico")]);
        edited.ports.clone_from(&known[&key("a-portico")].ports);
        edited.object["spec"]["ports"][0]["targetPort"] = json!(edited.ports[&HTTP]);
        known.insert(key("b-portico"), Arc::new(edited));
        assert_eq!(settle(&both, EXPOSED, &mut known), ["apply b-portico"]);
        assert_ne!(known[&key("a-portico")].ports, known[&key("b-portico")].ports);
    }

    #[test]
    fn bound_ports_win_over_older_services() {
        let mut known = ServicesByKey::new();
        let both = desired_services(&[("a", desired("1", &[80])), ("b", desired("2", &[80]))]);
        settle(&both, EXPOSED, &mut known);
        let key = |name: &str| ObjectKey::new("ns", name);
        let listening_port = known[&key("b-portico")].ports[&HTTP];
        let mut edited = KnownService::clone(&known[&key("a-portico")]);
        edited.object["spec"]["ports"][0]["targetPort"] = json!(listening_port);
        edited.ports = [(HTTP, listening_port)].into();
        known.insert(key("a-portico"), Arc::new(edited));
        let listening_ports = ListeningPorts::from([(listening_port, key("b"))]);
        let controllers = BTreeSet::from(["portico.dev/gateway-controller".to_owned()]);
        let steps = plan_services(&both, EXPOSED, &controllers, &known, &listening_ports);
        let names: Vec<_> = steps.iter().map(|step| &*step.key.name).collect();
        assert_eq!(names, ["a-portico"], "the older one has to move");
    }

    #[test]
    fn colliding_service_names_are_made_unique() {
        let mut known = ServicesByKey::new();
        let of_class = |class: &str, uid: &str| DesiredService { class: class.to_owned(), ..desired(uid, &[80]) };
        let both =
            desired_services(&[("web-internal", of_class("portico", "1")), ("web", of_class("internal-portico", "2"))]);
        let created = settle(&both, EXPOSED, &mut known);
        assert_eq!((created.len(), known.len()), (2, 2), "{created:?}");
        assert_eq!(created[0], "create web-internal-portico");
    }

    #[test]
    fn foreign_edits_are_reverted() {
        type Edit = fn(&mut KnownService);
        let edits: &[(&str, Edit)] = &[
            ("a label", |known| known.object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("x")),
            ("the type", |known| known.object["spec"]["type"] = json!("NodePort")),
            ("a port sent elsewhere", |known| {
                known.object["spec"]["ports"][0]["targetPort"] = json!(22);
                known.ports.clear();
            }),
        ];
        for (what, edit) in edits {
            let mut known = ServicesByKey::new();
            let desired_services = desired_services(&[("a", desired("1", &[80]))]);
            settle(&desired_services, EXPOSED, &mut known);
            let key = ObjectKey::new("ns", "a-portico");
            let mut edited = KnownService::clone(&known[&key]);
            edit(&mut edited);
            known.insert(key, Arc::new(edited));
            assert_eq!(settle(&desired_services, EXPOSED, &mut known), ["apply a-portico"], "{what}");
        }
    }

    #[test]
    fn services_of_deleted_and_foreign_gateways_are_deleted() {
        let mut known = ServicesByKey::new();
        settle(&desired_services(&[("a", desired("1", &[80]))]), EXPOSED, &mut known);
        let new_gateway = desired_services(&[("a", desired("2", &[80]))]);
        let renewed = ["delete a-portico", "create a-portico"];
        assert_eq!(settle(&new_gateway, EXPOSED, &mut known), renewed, "a new Gateway of the same name");
        assert_eq!(settle(&new_gateway, GatewayExposure::Headless, &mut known), renewed, "from exposed to headless");
        assert_eq!(settle(&DesiredServices::default(), EXPOSED, &mut known), [""; 0], "left to the garbage collector");
        let mut desired_services = DesiredServices::default();
        desired_services.foreign.insert(ObjectKey::new("ns", "a"), Arc::from("1"));
        assert_eq!(settle(&desired_services, EXPOSED, &mut known), [""; 0], "another Gateway of this name");
        desired_services.foreign.insert(ObjectKey::new("ns", "a"), Arc::from("2"));
        let steps_of_other_installation = plan_services(
            &desired_services,
            EXPOSED,
            &BTreeSet::from(["example.com/other".to_owned()]),
            &known,
            &ListeningPorts::new(),
        );
        assert!(steps_of_other_installation.is_empty(), "the Service is not of that installation");
        assert_eq!(settle(&desired_services, EXPOSED, &mut known), ["delete a-portico"]);
    }

    #[test]
    fn gateways_not_accepted_keep_their_service() {
        let mut known = ServicesByKey::new();
        let accepted = |ports: &[u16]| desired_services(&[("a", desired("1", ports))]);
        let held = |ports: &[u16]| desired_services(&[("a", DesiredService { hold: true, ..desired("1", ports) })]);
        assert_eq!(settle(&held(&[80]), EXPOSED, &mut known), [""; 0]);
        assert_eq!(settle(&accepted(&[]), EXPOSED, &mut known), [""; 0], "a Service needs ports");
        settle(&accepted(&[80]), EXPOSED, &mut known);
        assert_eq!(settle(&held(&[81]), EXPOSED, &mut known), [""; 0]);
        assert_eq!(settle(&accepted(&[]), EXPOSED, &mut known), [""; 0]);
    }

    fn with_settings(settings: Value) -> DesiredServices {
        let settings = serde_json::from_value(settings).unwrap();
        desired_services(&[("a", DesiredService { settings, ..desired("1", &[80, 443]) })])
    }

    #[test]
    fn settings_become_fields_of_the_service() {
        let key = ObjectKey::new("ns", "a-portico");
        let mut known = ServicesByKey::new();
        let all = json!({
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster", "loadBalancerClass": "a.example/b",
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "allocateLoadBalancerNodePorts": false,
            "nodePorts": [{"port": 443, "nodePort": 30443}, {"port": 8080, "nodePort": 30080}],
        });
        assert_eq!(settle(&with_settings(all.clone()), EXPOSED, &mut known), ["create a-portico"]);
        let spec = known[&key].object["spec"].clone();
        for field in all.as_object().unwrap().keys().filter(|field| **field != "nodePorts") {
            assert_eq!(spec[field], all[field], "{field}");
        }
        let node_ports: Vec<_> =
            spec["ports"].as_array().unwrap().iter().map(|port| (&port["port"], &port["nodePort"])).collect();
        assert_eq!(node_ports, [(&json!(80), &Value::Null), (&json!(443), &json!(30443))]);

        let class = json!({"loadBalancerClass": "a.example/b"});
        assert_eq!(settle(&with_settings(class), EXPOSED, &mut known), ["apply a-portico"], "fields are removed");
        let spec = &known[&key].object["spec"];
        assert!(spec["externalTrafficPolicy"].is_null() && spec["ports"][1]["nodePort"].is_null(), "{spec}");
        let mut internal = all;
        internal["type"] = json!("ClusterIP");
        assert_eq!(settle(&with_settings(internal), EXPOSED, &mut known), ["apply a-portico"]);
        let spec = &known[&key].object["spec"];
        let fields: Vec<_> = spec.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            ["internalTrafficPolicy", "ipFamilyPolicy", "ports", "type"],
            "only those that the type has"
        );
    }

    /// The API server rejects changes of `loadBalancerClass`.
    #[test]
    fn load_balancer_class_of_a_service_is_kept() {
        let key = ObjectKey::new("ns", "a-portico");
        let class = |name: &str| json!({"loadBalancerClass": name});
        let difference = |desired: &DesiredServices, known: &ServicesByKey| {
            let desired = &desired.gateways[&ObjectKey::new("ns", "a")];
            balancer_class::difference(&known[&key], desired, EXPOSED).map(|problem| problem.message)
        };
        let mut known = ServicesByKey::new();
        settle(&with_settings(class("a.example/b")), EXPOSED, &mut known);
        for (settings, instead) in
            [(class("a.example/c"), "loadBalancerClass a.example/c"), (json!({}), "no loadBalancerClass")]
        {
            let desired = with_settings(settings);
            assert_eq!(settle(&desired, EXPOSED, &mut known), [""; 0], "the Service stays as it is");
            let expected = format!(
                "Service ns/a-portico has loadBalancerClass a.example/b instead of {instead}, because Kubernetes does \
                 not allow changing it"
            );
            assert_eq!(difference(&desired, &known), Some(expected));
        }
        let mut changed = class("a.example/c");
        changed["externalTrafficPolicy"] = json!("Local");
        assert_eq!(settle(&with_settings(changed), EXPOSED, &mut known), ["apply a-portico"], "other fields change");
        assert_eq!(known[&key].object["spec"]["loadBalancerClass"], "a.example/b");
        assert_eq!(difference(&with_settings(class("a.example/b")), &known), None);

        let mut known = ServicesByKey::new();
        settle(&with_settings(json!({})), EXPOSED, &mut known);
        let mut chosen = KnownService::clone(&known[&key]);
        chosen.object["spec"]["loadBalancerClass"] = json!("webhook.example/d");
        known.insert(key.clone(), Arc::new(chosen));
        assert_eq!(settle(&with_settings(json!({})), EXPOSED, &mut known), [""; 0]);
        assert_eq!(difference(&with_settings(json!({})), &known), None, "another program chose the class");
        assert_eq!(settle(&with_settings(class("a.example/b")), EXPOSED, &mut known), [""; 0]);
        assert!(difference(&with_settings(class("a.example/b")), &known).is_some());
    }

    #[test]
    fn requested_address_becomes_load_balancer_ip() {
        let mut known = ServicesByKey::new();
        let with = |address: Option<&str>| {
            desired_services(&[(
                "a",
                DesiredService { address: address.map(|text| text.parse().unwrap()), ..desired("1", &[80]) },
            )])
        };
        settle(&with(Some("192.0.2.1")), EXPOSED, &mut known);
        let requested =
            |known: &ServicesByKey| known[&ObjectKey::new("ns", "a-portico")].object["spec"]["loadBalancerIP"].clone();
        assert_eq!(requested(&known), "192.0.2.1");
        assert_eq!(settle(&with(None), EXPOSED, &mut known), ["apply a-portico"]);
        assert!(requested(&known).is_null());
    }
}
