//! XMesh: which controller serves a mesh. Read so that it is known, not served.

use schemars::JsonSchema;
use serde::Deserialize;

use super::gateway_class::unchanged;
use super::reference::ObjectReference;
use super::schema::form;
use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct XMesh {
    pub spec: XMeshSpec,
}

impl Resource for XMesh {
    const KIND: Kind = Kind::XMesh;
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XMeshSpec {
    #[schemars(transform = form::controller_name, transform = unchanged())]
    pub controller_name: String,
    pub parameters_ref: Option<ObjectReference>,
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}
