//! XMesh: a service mesh and the controller that implements it. Objects are validated but not served.

use schemars::JsonSchema;
use serde::Deserialize;

use super::gateway_class::immutable_controller_name;
use super::reference::ObjectReference;
use super::schema::form;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct XMesh {
    pub spec: XMeshSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XMeshSpec {
    #[schemars(transform = form::controller_name, transform = immutable_controller_name())]
    pub controller_name: String,
    pub parameters_ref: Option<ObjectReference>,
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}
