//! KongServiceFacade: a Service under another name, with annotations of its own.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::gateway::schema::form;
use crate::api::kind::{Kind, Resource};

/// A Service under another name. An Ingress refers to it as `backend.resource`; its annotations take the place of the
/// Service's, so that one Service can be reached in several ways.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongServiceFacade {
    /// The Service behind it.
    pub spec: KongServiceFacadeSpec,
}

impl Resource for KongServiceFacade {
    const KIND: Kind = Kind::KongServiceFacade;
}

/// The Service behind it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongServiceFacadeSpec {
    /// A Service of the same namespace.
    pub backend_ref: ServiceFacadeBackend,
}

/// A Service of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ServiceFacadeBackend {
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Port of the Service.
    #[schemars(transform = form::port)]
    pub port: i32,
}
