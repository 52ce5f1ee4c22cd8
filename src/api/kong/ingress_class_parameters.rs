//! IngressClassParameters: settings that all Ingresses of a class share.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

/// Settings that all Ingresses of a class share. An IngressClass refers to it in `spec.parameters`, with the scope
/// `Namespace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct IngressClassParameters {
    /// The settings.
    #[serde(default)]
    pub spec: IngressClassParametersSpec,
}

impl Resource for IngressClassParameters {
    const KIND: Kind = Kind::IngressClassParameters;
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParametersSpec {
    /// Sends requests to the address of each Service instead of its endpoints, as if all of them had the annotation
    /// `ingress.kubernetes.io/service-upstream: "true"`.
    #[serde(default)]
    pub service_upstream: bool,
    /// Reads paths of type ImplementationSpecific as regular expressions if they have the characters of one, without the
    /// prefix `/~`.
    #[serde(default)]
    pub enable_legacy_regex_detection: bool,
}
