//! Assigns a Gateway the addresses that the cluster gives to the Service in front of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{
    AddressRequest, AddressState, AssignedAddresses, ClientPath, PortMapping, parse_request, requested_addresses,
};
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::gateway::GatewaySpec;
use crate::diagnostic::{Diagnostic, WAITING};
use crate::transport_protocol::TransportPort;

/// The state of the Service in front of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayService {
    /// The Service's name; empty if the Service could not be created, which `problem` explains.
    pub name: String,
    /// Its ports, with their target ports.
    pub ports: BTreeMap<TransportPort, u16>,
    /// Addresses for clients: IP addresses, or host names of a load balancer.
    pub addresses: Vec<String>,
    /// Why the Service is not in its desired state.
    pub problem: Option<Diagnostic>,
}

/// The address that the Service in front of a Gateway must request from the load balancer, if any.
pub fn requested_service_address(kind: ServiceType, spec: &GatewaySpec) -> Option<IpAddr> {
    requested_addresses(spec).next().filter(|_| kind == ServiceType::LoadBalancer)
}

/// The addresses of one Gateway.
pub(super) fn assign_one(
    kind: ServiceType,
    state: &AddressState,
    key: &ObjectKey,
    spec: &GatewaySpec,
) -> AssignedAddresses {
    let mut result = AssignedAddresses {
        client_path: ClientPath::Service(kind),
        ports: PortMapping::Mapped(BTreeMap::new()),
        ..AssignedAddresses::default()
    };
    let mut requested = None;
    for index in 0..spec.addresses.len() {
        // Adds a diagnostic to `unsupported` if the entry is not supported.
        let Some(AddressRequest::Specific(address)) = parse_request(spec, index, &mut result) else { continue };
        let field = format!("spec.addresses[{index}].value");
        if kind != ServiceType::LoadBalancer {
            let message = format!("a Service of type {} cannot request address {address}", kind.name());
            let remedy = "remove the value, or run Portico with --gateway-service-type LoadBalancer";
            result.unusable.push(Diagnostic::error(field, message, remedy));
        } else if let Some(first) = requested {
            let message = format!("a load balancer accepts one requested address, and {first} is already requested");
            result.unusable.push(Diagnostic::error(field, message, "use a separate Gateway for each address"));
        } else {
            requested = Some(address);
        }
    }
    let is_from_file = !state.status_addresses.contains_key(key);
    if is_from_file {
        let message = "a Gateway from a file has no Service, and therefore no address";
        let remedy = "apply it to the cluster, or run Portico with --gateway-address-pool";
        result.unassigned.push(Diagnostic::of_object(message, remedy));
        return result;
    }
    let Some(service) = state.gateway_services.get(key) else {
        let remedy = "the leading replica of Portico creates it";
        result.unassigned.push(Diagnostic::of_object("the Gateway has no Service yet", remedy).with_reason(WAITING));
        return result;
    };
    if state.unspecified_addresses.is_empty() {
        let message = "the addresses of Portico's Pod are unknown";
        let remedy =
            "set POD_NAME and POD_NAMESPACE in the Pod, and let its ServiceAccount list Pods, as manifests/ does";
        result.unassigned.push(Diagnostic::of_object(message, remedy));
    }
    if let Some(problem) = &service.problem {
        // A Service that already has addresses keeps the Gateway programmed in spite of a problem.
        let diagnostics = if service.addresses.is_empty() { &mut result.unassigned } else { &mut result.notes };
        diagnostics.push(problem.clone());
    } else if service.addresses.is_empty() {
        let message = format!("Service {}/{} has no address yet", key.namespace, service.name);
        result.unassigned.push(Diagnostic::of_object(message, assignment_remedy(kind)).with_reason(WAITING));
    }
    result.reported_addresses.clone_from(&service.addresses);
    if let Some(requested) = requested.filter(|_| !service.addresses.is_empty()) {
        if service.addresses.iter().any(|address| address.parse() == Ok(requested)) {
            result.reported_addresses = vec![requested.to_string()];
        } else {
            let assigned = service.addresses.join(" and ");
            let message = format!("the load balancer assigned {assigned} instead of {requested}");
            let remedy = "request an address that the load balancer can assign, or remove the value";
            result.unusable.push(Diagnostic::error("spec.addresses", message, remedy));
        }
    }
    if result.unsupported.is_empty() && result.unusable.is_empty() {
        result.ports = PortMapping::Mapped(service.ports.clone());
        result.bind_addresses.clone_from(&state.unspecified_addresses);
    } else {
        result.reported_addresses.clear();
    }
    result
}

/// The remedy while a Service of this type has no address.
fn assignment_remedy(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::LoadBalancer => {
            "the cluster's load balancer assigns one; without a load balancer, run Portico with --gateway-service-type \
             NodePort or --gateway-address-pool"
        }
        ServiceType::NodePort => "it gets the addresses of the nodes with ready Portico Pods",
        ServiceType::ClusterIp => "the API server assigns one",
    }
}
