//! Addresses that the cluster gives to the Service in front of a Gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Assigned, Memory, Ports, Wish, explicit, wish};
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::gateway::GatewaySpec;
use crate::compile::verdict::Problem;

/// What the Service in front of a Gateway says, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// The Service's name; empty if there is none.
    pub name: String,
    /// Its ports, and where it sends each.
    pub ports: BTreeMap<u16, u16>,
    /// Where clients find it: IP addresses, or names that a balancer has.
    pub addresses: Vec<String>,
    /// Why it is not as it should be.
    pub problem: Option<Problem>,
}

/// The address that the Service in front of a Gateway is to ask for.
pub fn asked_for(kind: ServiceType, spec: &GatewaySpec) -> Option<IpAddr> {
    explicit(spec).next().filter(|_| kind == ServiceType::LoadBalancer)
}

pub(super) fn assign_one(kind: ServiceType, memory: &Memory, key: &ObjectKey, spec: &GatewaySpec) -> Assigned {
    let mut result = Assigned { ports: Ports::Sent(BTreeMap::new()), ..Assigned::default() };
    let mut asked = None;
    for index in 0..spec.addresses.len() {
        let Some(Wish::This(address)) = wish(spec, index, &mut result) else { continue };
        let field = format!("spec.addresses[{index}].value");
        if kind != ServiceType::LoadBalancer {
            let message = format!("a Service of type {} cannot ask for {address}", kind.name());
            let remedy = "leave the value out, or run Portico with --gateway-service-type LoadBalancer";
            result.unusable.push(Problem::new(field, message, remedy));
        } else if let Some(first) = asked {
            let message = format!("a balancer can be asked for one address, and {first} is asked for already");
            result.unusable.push(Problem::new(field, message, "use a Gateway for each address"));
        } else {
            asked = Some(address);
        }
    }
    if !memory.written.contains_key(key) {
        let message = "a Gateway that comes from a file has no Service, and so no address";
        let remedy = "apply it to the cluster, or run Portico with --gateway-address-pool";
        result.unassigned.push(Problem::new("", message, remedy));
        return result;
    }
    let Some(front) = memory.fronts.get(key) else {
        result.unassigned.push(Problem::new("", "it has no Service yet", "the replica that leads creates it"));
        return result;
    };
    if memory.interfaces.is_empty() {
        let message = "the addresses of Portico's own Pod are not known";
        let remedy =
            "set POD_NAME and POD_NAMESPACE in the Pod, and let its ServiceAccount list Pods, as manifests/ does";
        result.unassigned.push(Problem::new("", message, remedy));
    }
    if let Some(problem) = &front.problem {
        // With a Service that serves, this is no reason to stop.
        let list = if front.addresses.is_empty() { &mut result.unassigned } else { &mut result.remarks };
        list.push(problem.clone());
    } else if front.addresses.is_empty() {
        let message = format!("Service {}/{} has no address yet", key.namespace, front.name);
        result.unassigned.push(Problem::new("", message, remedy(kind)));
    }
    result.reported.clone_from(&front.addresses);
    if let Some(asked) = asked.filter(|_| !front.addresses.is_empty()) {
        if front.addresses.iter().any(|given| given.parse() == Ok(asked)) {
            result.reported = vec![asked.to_string()];
        } else {
            let given = front.addresses.join(" and ");
            let message = format!("the balancer gave {given} instead of {asked}");
            let remedy = "ask for an address that the balancer has, or leave the value out";
            result.unusable.push(Problem::new("spec.addresses", message, remedy));
        }
    }
    if result.unsupported.is_empty() && result.unusable.is_empty() {
        result.ports = Ports::Sent(front.ports.clone());
        result.bind.clone_from(&memory.interfaces);
    } else {
        result.reported.clear();
    }
    result
}

/// What gives such a Service its address.
fn remedy(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::LoadBalancer => {
            "the cluster's balancer gives it one; where there is none, run Portico with --gateway-service-type NodePort \
             or --gateway-address-pool"
        }
        ServiceType::NodePort => "it gets those of the nodes on which Pods of Portico are ready",
        ServiceType::ClusterIp => "the API server gives it one",
    }
}
