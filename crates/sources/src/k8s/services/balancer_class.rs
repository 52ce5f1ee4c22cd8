//! The field `loadBalancerClass` of a Service, which the API server does not allow to change while the Service has type
//! LoadBalancer: an existing Service keeps its class.

use serde_json::Value;

use super::applied;
use super::service::KnownService;
use super::{DesiredService, GatewayExposure};
use crate::api::core::ServiceType;
use crate::api::names::MANAGED_BY;
use crate::diagnostic::Diagnostic;

/// Sets the class in the desired object of a Service to the one that the existing Service has.
pub(super) fn keep(object: &mut Value, existing: &KnownService) {
    if !is_immutable(object["spec"]["type"].as_str(), existing)
        || object["spec"]["loadBalancerClass"] == *class(existing)
    {
        return;
    }
    if applied::is_owned(&existing.object, MANAGED_BY, &["spec", "loadBalancerClass"]) {
        // Portico has set it before, and the API server would reject the object without it.
        object["spec"]["loadBalancerClass"] = class(existing).clone();
    } else if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("loadBalancerClass");
    }
}

/// Reports that an existing Service has another class than the desired one.
pub(super) fn difference(
    existing: &KnownService,
    desired: &DesiredService,
    exposure: GatewayExposure,
) -> Option<Diagnostic> {
    let GatewayExposure::Exposed(kind) = desired.exposure(exposure) else { return None };
    if desired.hold || !is_immutable(Some(kind.name()), existing) {
        return None;
    }
    let desired_class = desired.settings.load_balancer_class.as_deref();
    let existing_class = class(existing).as_str();
    // Without a desired class, another controller may choose one.
    let is_owned = applied::is_owned(&existing.object, MANAGED_BY, &["spec", "loadBalancerClass"]);
    if existing_class == desired_class || (desired_class.is_none() && !is_owned) {
        return None;
    }
    let named = |class: Option<&str>| {
        class.map_or_else(|| "no loadBalancerClass".to_owned(), |class| format!("loadBalancerClass {class}"))
    };
    let message = format!(
        "Service {} has {} instead of {}, because Kubernetes does not allow changing it",
        existing.key,
        named(existing_class),
        named(desired_class)
    );
    let remedy = "change the GatewayParameters back, or delete the Service, which Portico creates again: its address \
                  may then change";
    Some(Diagnostic::of_object(message, remedy))
}

/// Whether an object of this type cannot change the class of the existing Service.
fn is_immutable(desired_type: Option<&str>, existing: &KnownService) -> bool {
    let balanced = ServiceType::LoadBalancer;
    desired_type == Some(balanced.name()) && existing.service_type == Some(balanced)
}

fn class(service: &KnownService) -> &Value {
    &service.object["spec"]["loadBalancerClass"]
}
