//! IngressClassParameters: settings for all Ingresses of a class.

use schemars::JsonSchema;
use serde::Deserialize;

/// Settings for all Ingresses of a class. An IngressClass refers to this object in `spec.parameters`, with
/// the scope `Namespace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct IngressClassParameters {
    /// The settings.
    #[serde(default)]
    pub spec: IngressClassParametersSpec,
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParametersSpec {
    /// Sends requests to the ClusterIP of each Service instead of its endpoints, as if every Service had the annotation
    /// `ingress.kubernetes.io/service-upstream: "true"`.
    #[serde(default)]
    pub service_upstream: bool,
    /// Treats paths of type ImplementationSpecific as regular expressions if they contain characters that are special
    /// in regular expressions, even without the prefix `/~`.
    #[serde(default)]
    pub enable_legacy_regex_detection: bool,
}
