//! The GatewayParameters of a Gateway: its own and those of its class. Their settings of the Service, merged.

use ipnet::IpNet;

use crate::api::core::ServiceType;
use crate::api::gateway::{Gateway, GatewayClass};
use crate::api::portico::{GatewayParameters, GatewayServiceSettings, TRAFFIC_POLICIES};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::addresses::ClientPath;
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// The parameters of a class; an error at `spec.parametersRef` if they cannot be used. Those of a deleted class are not
/// read, because no change of them would affect its Gateways.
pub(in crate::compile) fn of_class<'s>(
    store: &'s Store,
    class: &Object<GatewayClass>,
) -> Result<Option<&'s Object<GatewayParameters>>, Diagnostic> {
    let Some(key) = key_of_class(class)?.filter(|_| !is_deleted(store, class)) else { return Ok(None) };
    find(store, "spec.parametersRef", &key).map(Some)
}

fn is_deleted(store: &Store, class: &Object<GatewayClass>) -> bool {
    !store.gateway_classes.contains_key(&class.meta.key)
}

/// The key in the reference of a class, whether or not the parameters exist.
fn key_of_class(class: &Object<GatewayClass>) -> Result<Option<ObjectKey>, Diagnostic> {
    let field = "spec.parametersRef";
    let Some(reference) = &class.spec.parameters_ref else { return Ok(None) };
    check_kind(field, &reference.group, &reference.kind)?;
    match &reference.namespace {
        Some(namespace) => Ok(Some(ObjectKey::new(namespace, &reference.name))),
        None => {
            let message = format!("the namespace of {} {} is missing", Kind::GatewayParameters, reference.name);
            Err(Diagnostic::error(format!("{field}.namespace"), message, "set the namespace of the object"))
        }
    }
}

/// The parameters to which a Gateway itself refers.
pub(in crate::compile) fn of_gateway<'s>(
    store: &'s Store,
    gateway: &Object<Gateway>,
) -> Result<Option<&'s Object<GatewayParameters>>, Diagnostic> {
    let field = "spec.infrastructure.parametersRef";
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref()) else {
        return Ok(None);
    };
    check_kind(field, &reference.group, &reference.kind)?;
    find(store, field, &ObjectKey::new(&gateway.meta.key.namespace, &reference.name)).map(Some)
}

/// The settings of the Service in front of a Gateway. `None` while they cannot be read: then an existing Service stays
/// as it is.
pub(in crate::compile) fn service_settings(store: &Store, gateway: &Object<Gateway>) -> Option<GatewayServiceSettings> {
    let class = store.class_of(gateway)?;
    let has_parameters = class.spec.parameters_ref.is_some() || store.has_unknown_class(gateway);
    if has_parameters && is_deleted(store, class) {
        return None;
    }
    let of_class = of_class(store, class).ok()?.map(|parameters| &parameters.spec.service);
    let own = of_gateway(store, gateway).ok()?.map(|parameters| parameters.spec.service.clone()).unwrap_or_default();
    Some(match of_class {
        Some(of_class) => own.or(of_class),
        None => own,
    })
}

/// Remarks on settings that have no effect on the Service of a Gateway.
pub(in crate::compile) fn remarks_on_ignored_settings(
    store: &Store,
    gateway: &Object<Gateway>,
    client_path: ClientPath,
) -> Vec<Diagnostic> {
    let kind = Kind::GatewayParameters;
    let Some(settings) = service_settings(store, gateway) else { return Vec::new() };
    let mut remarks = Vec::new();
    let mut remark =
        |message: String, remedy: &str| remarks.push(Diagnostic::of_object(message, remedy).into_warning());
    match client_path {
        ClientPath::Loopback => {}
        ClientPath::Pool if settings == GatewayServiceSettings::default() => {}
        ClientPath::Pool => remark(
            format!("the settings of its {kind} have no effect with an address pool"),
            "remove the reference, or run Portico without --gateway-address-pool",
        ),
        ClientPath::Service(service_type) => {
            for field in settings.fields_without_effect(service_type) {
                let message =
                    format!("{field} of its {kind} has no effect on a Service of type {}", service_type.name());
                remark(message, "remove the field, or set spec.service.type to a type that has it");
            }
            // Parameters of a class may list ports that only some of its Gateways have.
            let own = of_gateway(store, gateway).ok().flatten();
            for entry in own.iter().flat_map(|parameters| parameters.spec.service.node_ports.iter().flatten()) {
                if gateway.spec.listeners.iter().all(|listener| listener.port != entry.port) {
                    let message = format!("its {kind} has a node port for port {}, which no listener has", entry.port);
                    remark(message, "correct the port, or remove the entry");
                }
            }
        }
    }
    remarks
}

fn check_kind(field: &str, group: &str, kind: &str) -> Result<(), Diagnostic> {
    let supported = Kind::GatewayParameters;
    if group == supported.group() && kind == supported.name() {
        return Ok(());
    }
    let group = if group.is_empty() { "the core group" } else { group };
    let message = format!("parameters of kind {kind} of {group} are not supported");
    Err(Diagnostic::error(field, message, format!("refer to a {supported} of group {}", supported.group())))
}

/// Parameters that exist, and whose settings of the Service are valid: they may restrict the clients of the Gateway.
fn find<'s>(store: &'s Store, field: &str, key: &ObjectKey) -> Result<&'s Object<GatewayParameters>, Diagnostic> {
    let described = format!("{} {key}", Kind::GatewayParameters);
    let Some(parameters) = store.gateway_parameters.get(key) else {
        let remedy = "create it, or correct the reference; `portico crds` prints the definition of its kind";
        return Err(Diagnostic::not_found(format!("{field}.name"), described, remedy));
    };
    match invalid_value(&parameters.spec.service) {
        Some((name, value, expected)) => {
            let message = format!("{described} is invalid: spec.service.{name} is {value:?}");
            Err(Diagnostic::error(format!("{field}.name"), message, format!("set it to {expected}")))
        }
        None => Ok(parameters),
    }
}

/// A value that a newer or missing schema allowed, with its field and what it can be.
fn invalid_value(settings: &GatewayServiceSettings) -> Option<(&'static str, &str, String)> {
    if let Some(value) = settings.service_type.as_deref().filter(|name| ServiceType::from_name(name).is_none()) {
        return Some(("type", value, "LoadBalancer, NodePort or ClusterIP".to_owned()));
    }
    let policies = [
        ("externalTrafficPolicy", &settings.external_traffic_policy),
        ("internalTrafficPolicy", &settings.internal_traffic_policy),
    ];
    for (name, value) in policies {
        if let Some(value) = value.as_deref().filter(|value| !TRAFFIC_POLICIES.contains(value)) {
            return Some((name, value, TRAFFIC_POLICIES.join(" or ")));
        }
    }
    let ranges = settings.load_balancer_source_ranges.iter().flatten();
    let invalid_range = ranges.map(String::as_str).find(|range| range.parse::<IpNet>().is_err());
    invalid_range.map(|range| ("loadBalancerSourceRanges", range, "networks such as 192.0.2.0/24".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_restrict_clients_are_never_ignored() {
        for (yaml, field) in [
            ("{loadBalancerSourceRanges: [192.0.2.0/24, 192.0.2.0]}", Some("loadBalancerSourceRanges")),
            ("{externalTrafficPolicy: local}", Some("externalTrafficPolicy")),
            ("{type: Internal}", Some("type")),
            ("{loadBalancerSourceRanges: [192.0.2.0/24], type: ClusterIP}", None),
        ] {
            let settings: GatewayServiceSettings = serde_saphyr::from_str(yaml).unwrap();
            assert_eq!(invalid_value(&settings).map(|(field, ..)| field), field, "{yaml}");
        }
    }
}
