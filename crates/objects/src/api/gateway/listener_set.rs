//! ListenerSet: additional listeners for a Gateway, in a separate object.

use schemars::JsonSchema;
use serde::Deserialize;

use super::listener::{self, Listener};
use super::reference::ParentReference;
use super::schema::transforms::{keyed_by, without};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ListenerSet {
    pub spec: ListenerSetSpec,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// Refers to the whole Gateway and therefore has neither section nor port.
    #[schemars(transform = without(["sectionName", "port"]))]
    pub parent_ref: ParentReference,
    #[schemars(length(min = 1, max = 64), transform = keyed_by(["name"]), transform = listener::listeners)]
    pub listeners: Vec<Listener>,
}
