//! KongServiceFacade: an alias for a Service with separate annotations.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::gateway::schema::form;

/// An alias for a Service. An Ingress refers to the alias in `backend.resource`. The annotations of the alias replace
/// those of the Service, so that one Service can be exposed with different settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongServiceFacade {
    /// The backing Service.
    pub spec: KongServiceFacadeSpec,
}

/// The backing Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongServiceFacadeSpec {
    /// A Service in the same namespace.
    pub backend_ref: ServiceFacadeBackend,
}

/// A Service in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ServiceFacadeBackend {
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Port of the Service.
    #[schemars(transform = form::port)]
    pub port: i32,
}
