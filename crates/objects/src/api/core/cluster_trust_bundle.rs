//! ClusterTrustBundle: certificates of authorities for the whole cluster.

use std::sync::Arc;

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClusterTrustBundle {
    pub spec: ClusterTrustBundleSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTrustBundleSpec {
    /// PEM.
    #[serde(default)]
    pub trust_bundle: Arc<str>,
}
