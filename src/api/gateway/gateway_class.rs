//! GatewayClass: which controller serves the Gateways that name this class.

use serde::Deserialize;

use super::reference::ObjectReference;
use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GatewayClass {
    pub spec: GatewayClassSpec,
}

impl Resource for GatewayClass {
    const KIND: Kind = Kind::GatewayClass;
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    pub controller_name: String,
    pub parameters_ref: Option<ObjectReference>,
    pub description: Option<String>,
}
