//! GatewayClass: the controller of all Gateways with this class.

use schemars::JsonSchema;
use serde::Deserialize;

use super::reference::ObjectReference;
use super::schema::form;
use super::schema::rule::{CelRule, rule};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct GatewayClass {
    pub spec: GatewayClassSpec,
}

impl GatewayClass {
    /// A class of which only the controller is known.
    pub fn of_controller(controller_name: String) -> Self {
        GatewayClass { spec: GatewayClassSpec { controller_name, parameters_ref: None, description: None } }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    #[schemars(transform = form::controller_name, transform = immutable_controller_name())]
    pub controller_name: String,
    pub parameters_ref: Option<ObjectReference>,
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}

/// The controller is immutable: a change would move all Gateways of the class to another controller.
pub(super) fn immutable_controller_name() -> CelRule {
    rule("oldSelf == self", "controllerName is immutable; create another object for another controller")
}
