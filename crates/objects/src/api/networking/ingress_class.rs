//! IngressClass: the controller of all Ingresses with this class.

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IngressClass {
    #[serde(default)]
    pub spec: IngressClassSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressClassSpec {
    #[serde(default)]
    pub controller: String,
    pub parameters: Option<IngressClassParametersReference>,
}

/// Reference to settings for all Ingresses of the class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParametersReference {
    /// `None` for the core group.
    pub api_group: Option<String>,
    pub kind: String,
    pub name: String,
    /// Set if and only if the scope is `Namespace`.
    pub namespace: Option<String>,
    /// `Cluster` (also when absent) or `Namespace`.
    pub scope: Option<String>,
}
