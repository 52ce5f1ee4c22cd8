//! What is to be done so that every Gateway has its Service: a pure function of what is wanted and what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::choice::{self, Bound, Chosen};
use super::service::{self, Known};
use super::{Shape, Trouble, Want, Wants, applied, names, ports};
use crate::api::ObjectKey;
use crate::api::names::MANAGED_BY;

/// Services of ours, by their keys.
pub(super) type Services = BTreeMap<ObjectKey, Arc<Known>>;

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Service,
    Slice,
}

/// One call of the API server about one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) what: What,
    /// For whose sake, if that is known.
    pub(super) gateway: Option<ObjectKey>,
    pub(super) key: ObjectKey,
    pub(super) call: Call,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    /// There is none of this name that is ours; somebody else's is left alone.
    Create(Value),
    /// Creates it or changes it. If the object says its uid, only this very one.
    Apply(Value),
    /// Only this very one.
    Delete { uid: String },
    /// There is nothing that could be asked for.
    GiveUp(Trouble),
}

/// The steps to take for the Services of Gateways, one at a time for each; none for what is as it should be, or what has
/// to wait.
pub(super) fn services(
    wants: &Wants,
    shape: Shape,
    controllers: &BTreeSet<String>,
    known: &Services,
    bound: &Bound,
) -> Vec<Step> {
    let chosen = choice::of_gateways(wants, known, bound);
    let ports = chosen.values().flat_map(|chosen| chosen.ports.values().copied()).collect();
    let mut taken = Taken { ports, names: BTreeSet::new() };
    let mut of_gateway: BTreeMap<&ObjectKey, Vec<&Known>> = BTreeMap::new();
    for service in known.values() {
        of_gateway.entry(&service.owner.gateway).or_default().push(service);
    }
    let mut steps = Vec::new();
    for (gateway, want) in &wants.gateways {
        let own = of_gateway.remove(gateway).unwrap_or_default();
        // Of a Gateway of the same name that is gone: the garbage collector would take it too, but later.
        let stale = own.iter().find(|service| service.owner.uid != want.uid && !service.going);
        steps.extend(match stale {
            Some(stale) => Some(delete(stale)),
            None => of_one(gateway, want, shape, chosen.get(gateway), known, &mut taken),
        });
    }
    for (gateway, uid) in &wants.foreign {
        let ours = |service: &&&Known| {
            let controller = service.controller.as_ref().is_some_and(|controller| controllers.contains(controller));
            controller && service.owner.uid == *uid && !service.going
        };
        let services = of_gateway.get(gateway).map_or(&[][..], |services| services);
        steps.extend(services.iter().find(ours).map(|service| delete(service)));
    }
    steps
}

fn of_one(
    gateway: &ObjectKey,
    want: &Want,
    shape: Shape,
    chosen: Option<&Chosen<'_>>,
    known: &Services,
    taken: &mut Taken,
) -> Option<Step> {
    let exposed = matches!(shape, Shape::Exposed(_));
    if want.hold || (exposed && want.ports.is_empty()) {
        return None;
    }
    let step = |key: &ObjectKey, call| {
        Some(Step { what: What::Service, gateway: Some(gateway.clone()), key: key.clone(), call })
    };
    let Some(Chosen { service: current, ports: kept }) = chosen else {
        let key = free_name(gateway, want, known, &taken.names)?;
        taken.names.insert(key.clone());
        return match if exposed {
            allocate(gateway, want, &BTreeMap::new(), &mut taken.ports)
        } else {
            Ok(BTreeMap::new())
        } {
            Ok(ports) => step(&key, Call::Create(service::wanted(gateway, want, &key.name, shape, &ports))),
            Err(trouble) => step(&key, Call::GiveUp(trouble)),
        };
    };
    if current.going {
        return None;
    }
    if current.headless == exposed {
        // Whether a Service has an address of its own cannot be changed.
        return Some(delete(current));
    }
    let ports = match if exposed { allocate(gateway, want, kept, &mut taken.ports) } else { Ok(BTreeMap::new()) } {
        Ok(ports) => ports,
        Err(trouble) => return step(&current.key, Call::GiveUp(trouble)),
    };
    let mut object = service::wanted(gateway, want, &current.key.name, shape, &ports);
    if applied::is_applied(&object, &current.whole, MANAGED_BY) {
        return None;
    }
    object["metadata"]["uid"] = Value::from(current.uid.as_str());
    step(&current.key, Call::Apply(object))
}

fn delete(service: &Known) -> Step {
    let gateway = Some(service.owner.gateway.clone());
    Step { what: What::Service, gateway, key: service.key.clone(), call: Call::Delete { uid: service.uid.clone() } }
}

/// What one plan must not give twice.
struct Taken {
    ports: BTreeSet<u16>,
    /// Of Services that are to be made.
    names: BTreeSet<ObjectKey>,
}

/// The name of a Service that is to be made; None as long as the one of its predecessor has to go first. `GATEWAY-CLASS`
/// may be that of another Gateway and another class too, which then has it.
fn free_name(gateway: &ObjectKey, want: &Want, known: &Services, taken: &BTreeSet<ObjectKey>) -> Option<ObjectKey> {
    let key = |name: &str| ObjectKey::new(&gateway.namespace, name);
    let plain = key(&names::service(&gateway.name, &want.class));
    match known.get(&plain) {
        None if !taken.contains(&plain) => Some(plain),
        Some(holder) if holder.owner.gateway == *gateway => None,
        _ => Some(key(&names::service_apart(&gateway.name, &want.class))).filter(|apart| !known.contains_key(apart)),
    }
}

/// Where each port of a Gateway goes: where it went before, or to a free one.
fn allocate(
    gateway: &ObjectKey,
    want: &Want,
    kept: &BTreeMap<u16, u16>,
    taken: &mut BTreeSet<u16>,
) -> Result<BTreeMap<u16, u16>, Trouble> {
    let mut ports = BTreeMap::new();
    for port in &want.ports {
        let Some(target) = kept.get(port).copied().or_else(|| ports::free(gateway, *port, taken)) else {
            return Err(Trouble {
                message: format!("no port of the Pods is left for its port {port}"),
                remedy: "delete Gateways or listeners that are not needed".to_owned(),
            });
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

    const EXPOSED: Shape = Shape::Exposed(ServiceType::LoadBalancer);

    fn want(uid: &str, ports: &[u16]) -> Want {
        Want {
            uid: Arc::from(uid),
            class: "portico".to_owned(),
            controller: "portico.dev/gateway-controller".to_owned(),
            ports: ports.iter().copied().collect(),
            ..Want::default()
        }
    }

    fn wants(gateways: &[(&str, Want)]) -> Wants {
        let gateways = gateways.iter().map(|(name, want)| (ObjectKey::new("ns", name), want.clone()));
        Wants { gateways: gateways.collect(), foreign: BTreeMap::new() }
    }

    /// The API server, as far as it matters here: what was applied is there, and ours.
    fn take(known: &mut Services, steps: &[Step]) {
        for Step { key, call, .. } in steps {
            match call {
                Call::Create(object) => {
                    let created = i64::try_from(known.len()).unwrap();
                    put(known, key, &format!("uid-{created}"), created, object);
                }
                Call::Apply(object) => {
                    let (uid, created) = (known[key].uid.clone(), known[key].created);
                    assert_eq!(object["metadata"]["uid"], *uid, "nothing but this very object is changed");
                    put(known, key, &uid, created, object);
                }
                Call::Delete { uid } => assert_eq!(&known.remove(key).unwrap().uid, uid),
                Call::GiveUp(trouble) => panic!("{trouble:?}"),
            }
        }
    }

    fn put(known: &mut Services, key: &ObjectKey, uid: &str, created: i64, object: &Value) {
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
        known.insert(key.clone(), Arc::new(Known::read(&service).unwrap()));
    }

    /// Managed fields, as the API server would write them.
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
            let ports = ports
                .iter()
                .map(|port| (format!("k:{{\"port\":{},\"protocol\":\"TCP\"}}", port["port"]), fields(port, &[])));
            of_spec["f:ports"] = ports.collect::<serde_json::Map<_, _>>().into();
        }
        json!({"f:metadata": of_metadata, "f:spec": of_spec})
    }

    /// Takes steps until there are none, and says which.
    fn settle(wants: &Wants, shape: Shape, known: &mut Services) -> Vec<String> {
        let controllers = BTreeSet::from(["portico.dev/gateway-controller".to_owned()]);
        let mut taken = Vec::new();
        loop {
            let steps = services(wants, shape, &controllers, known, &Bound::new());
            if steps.is_empty() {
                return taken;
            }
            taken.extend(steps.iter().map(|step| {
                let call = match step.call {
                    Call::Create(_) => "create",
                    Call::Apply(_) => "apply",
                    Call::Delete { .. } => "delete",
                    Call::GiveUp(_) => "give up",
                };
                format!("{call} {}", step.key.name)
            }));
            assert!(taken.len() < 10, "it does not come to rest: {taken:?}");
            take(known, &steps);
        }
    }

    #[test]
    fn the_service_of_a_pool_carries_what_the_gateway_wants_on_it() {
        let mut known = Services::new();
        let mut web = want("1", &[80]);
        web.labels.insert("team".to_owned(), "a".to_owned());
        web.labels.insert("app.kubernetes.io/managed-by".to_owned(), "somebody".to_owned());
        web.annotations.insert("example.com/a".to_owned(), "b".to_owned());
        assert_eq!(settle(&wants(&[("web", web.clone())]), Shape::Headless, &mut known), ["create web-portico"]);
        let service = &known[&ObjectKey::new("ns", "web-portico")].whole;
        assert_eq!(service["spec"]["clusterIP"], "None");
        assert!(service["spec"]["ports"].is_null() && service["spec"]["selector"].is_null());
        let metadata = &service["metadata"];
        let expected = json!({
            "team": "a",
            "app.kubernetes.io/managed-by": "portico",
            "gateway.networking.k8s.io/gateway-name": "web",
            "gateway.networking.k8s.io/gateway-class-name": "portico",
        });
        assert_eq!(metadata["labels"], expected, "what we find it by cannot be set by others");
        assert_eq!(metadata["annotations"]["example.com/a"], "b");
        let owner = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": "1", "controller": true,
        }]);
        assert_eq!(metadata["ownerReferences"], owner);

        web.labels.clear();
        web.annotations.clear();
        assert_eq!(settle(&wants(&[("web", web)]), Shape::Headless, &mut known), ["apply web-portico"]);
        let metadata = &known[&ObjectKey::new("ns", "web-portico")].whole["metadata"];
        assert!(metadata["labels"]["team"].is_null() && metadata["annotations"]["example.com/a"].is_null());
    }

    #[test]
    fn ports_are_given_once_and_stay() {
        let mut known = Services::new();
        let of = |known: &Services, name: &str| known[&ObjectKey::new("ns", name)].ports.clone();
        settle(&wants(&[("a", want("1", &[80, 443])), ("b", want("2", &[80]))]), EXPOSED, &mut known);
        let (first, other) = (of(&known, "a-portico"), of(&known, "b-portico"));
        let all: BTreeSet<_> = first.values().chain(other.values()).collect();
        assert_eq!(all.len(), 3, "each has its own");
        let grown = wants(&[("a", want("1", &[80, 8080])), ("b", want("2", &[80]))]);
        assert_eq!(settle(&grown, EXPOSED, &mut known), ["apply a-portico"]);
        let now = of(&known, "a-portico");
        assert_eq!((now.get(&80), now.get(&443)), (first.get(&80), None), "what stays stays where it is");
        assert_eq!(now.len(), 2);
        assert_eq!(of(&known, "b-portico"), other);
    }

    #[test]
    fn of_two_services_with_one_port_the_older_keeps_it() {
        let mut known = Services::new();
        let both = wants(&[("a", want("1", &[80])), ("b", want("2", &[80]))]);
        settle(&both, EXPOSED, &mut known);
        let key = |name: &str| ObjectKey::new("ns", name);
        let mut same = Known::clone(&known[&key("b-portico")]);
        same.ports.clone_from(&known[&key("a-portico")].ports);
        same.whole["spec"]["ports"][0]["targetPort"] = json!(same.ports[&80]);
        known.insert(key("b-portico"), Arc::new(same));
        assert_eq!(settle(&both, EXPOSED, &mut known), ["apply b-portico"]);
        assert_ne!(known[&key("a-portico")].ports, known[&key("b-portico")].ports);
    }

    #[test]
    fn a_port_that_is_open_for_a_gateway_stays_with_it_whatever_an_older_service_says() {
        let mut known = Services::new();
        let both = wants(&[("a", want("1", &[80])), ("b", want("2", &[80]))]);
        settle(&both, EXPOSED, &mut known);
        let key = |name: &str| ObjectKey::new("ns", name);
        let open = known[&key("b-portico")].ports[&80];
        let mut edited = Known::clone(&known[&key("a-portico")]);
        edited.whole["spec"]["ports"][0]["targetPort"] = json!(open);
        edited.ports = [(80, open)].into();
        known.insert(key("a-portico"), Arc::new(edited));
        let bound = Bound::from([(open, key("b"))]);
        let controllers = BTreeSet::from(["portico.dev/gateway-controller".to_owned()]);
        let steps = services(&both, EXPOSED, &controllers, &known, &bound);
        let names: Vec<_> = steps.iter().map(|step| &*step.key.name).collect();
        assert_eq!(names, ["a-portico"], "it is the older one that has to move");
    }

    #[test]
    fn two_gateways_whose_services_would_have_one_name_get_two() {
        let mut known = Services::new();
        let of_class = |class: &str, uid: &str| Want { class: class.to_owned(), ..want(uid, &[80]) };
        let both = wants(&[("web-internal", of_class("portico", "1")), ("web", of_class("internal-portico", "2"))]);
        let created = settle(&both, EXPOSED, &mut known);
        assert_eq!((created.len(), known.len()), (2, 2), "{created:?}");
        assert_eq!(created[0], "create web-internal-portico");
    }

    #[test]
    fn what_others_wrote_over_is_set_right() {
        type Edit = fn(&mut Known);
        let edits: &[(&str, Edit)] = &[
            ("a label", |known| known.whole["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("x")),
            ("the type", |known| known.whole["spec"]["type"] = json!("NodePort")),
            ("a port sent elsewhere", |known| {
                known.whole["spec"]["ports"][0]["targetPort"] = json!(22);
                known.ports.clear();
            }),
        ];
        for (what, edit) in edits {
            let mut known = Services::new();
            let wants = wants(&[("a", want("1", &[80]))]);
            settle(&wants, EXPOSED, &mut known);
            let key = ObjectKey::new("ns", "a-portico");
            let mut edited = Known::clone(&known[&key]);
            edit(&mut edited);
            known.insert(key, Arc::new(edited));
            assert_eq!(settle(&wants, EXPOSED, &mut known), ["apply a-portico"], "{what}");
        }
    }

    #[test]
    fn who_is_gone_or_went_to_another_controller_keeps_no_service() {
        let mut known = Services::new();
        settle(&wants(&[("a", want("1", &[80]))]), EXPOSED, &mut known);
        let again = wants(&[("a", want("2", &[80]))]);
        let renewed = ["delete a-portico", "create a-portico"];
        assert_eq!(settle(&again, EXPOSED, &mut known), renewed, "a Gateway of the same name is another one");
        assert_eq!(settle(&again, Shape::Headless, &mut known), renewed, "from one kind of provider to the other");
        assert_eq!(settle(&Wants::default(), EXPOSED, &mut known), [""; 0], "the garbage collector does that");
        let mut wants = Wants::default();
        wants.foreign.insert(ObjectKey::new("ns", "a"), Arc::from("1"));
        assert_eq!(settle(&wants, EXPOSED, &mut known), [""; 0], "another Gateway of this name");
        wants.foreign.insert(ObjectKey::new("ns", "a"), Arc::from("2"));
        let others =
            services(&wants, EXPOSED, &BTreeSet::from(["example.com/other".to_owned()]), &known, &Bound::new());
        assert!(others.is_empty(), "what another Portico made");
        assert_eq!(settle(&wants, EXPOSED, &mut known), ["delete a-portico"]);
    }

    #[test]
    fn who_is_not_accepted_keeps_what_there_is() {
        let mut known = Services::new();
        let held = |ports: &[u16], hold: bool| wants(&[("a", Want { hold, ..want("1", ports) })]);
        assert_eq!(settle(&held(&[80], true), EXPOSED, &mut known), [""; 0]);
        assert_eq!(settle(&held(&[], false), EXPOSED, &mut known), [""; 0], "no Service is without ports");
        settle(&held(&[80], false), EXPOSED, &mut known);
        assert_eq!(settle(&held(&[81], true), EXPOSED, &mut known), [""; 0]);
        assert_eq!(settle(&held(&[], false), EXPOSED, &mut known), [""; 0]);
    }

    #[test]
    fn the_address_asked_for_is_asked_of_the_balancer() {
        let mut known = Services::new();
        let with = |address: Option<&str>| {
            wants(&[("a", Want { address: address.map(|text| text.parse().unwrap()), ..want("1", &[80]) })])
        };
        settle(&with(Some("192.0.2.1")), EXPOSED, &mut known);
        let asked =
            |known: &Services| known[&ObjectKey::new("ns", "a-portico")].whole["spec"]["loadBalancerIP"].clone();
        assert_eq!(asked(&known), "192.0.2.1");
        assert_eq!(settle(&with(None), EXPOSED, &mut known), ["apply a-portico"]);
        assert!(asked(&known).is_null());
    }
}
