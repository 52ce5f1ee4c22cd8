//! GatewayClass: which controller serves the Gateways that name this class.

use schemars::JsonSchema;
use serde::Deserialize;

use super::reference::ObjectReference;
use super::schema::form;
use super::schema::rule::{Rule, rule};
use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct GatewayClass {
    pub spec: GatewayClassSpec,
}

impl Resource for GatewayClass {
    const KIND: Kind = Kind::GatewayClass;
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    #[schemars(transform = form::controller_name, transform = unchanged())]
    pub controller_name: String,
    pub parameters_ref: Option<ObjectReference>,
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}

/// Another controller is another class: Gateways of this one would change hands unasked.
pub(super) fn unchanged() -> Rule {
    rule("oldSelf == self", "controllerName was changed; keep it, and make another object for another controller")
}
