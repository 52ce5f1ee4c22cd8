//! ReferenceGrant: allows references from other namespaces to objects in its namespace.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ReferenceGrant {
    pub spec: ReferenceGrantSpec,
}

/// Every `from` may refer to every `to`; grants are additive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReferenceGrantSpec {
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<ReferenceGrantFrom>,
    #[schemars(length(min = 1, max = 16))]
    pub to: Vec<ReferenceGrantTo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReferenceGrantFrom {
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::namespace)]
    pub namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReferenceGrantTo {
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
    /// If absent, all objects of the kind in the namespace of the grant.
    #[schemars(transform = form::object_name)]
    pub name: Option<String>,
}
