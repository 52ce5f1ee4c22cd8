//! KongLicense: accepted so that manifests with one stay valid; Portico needs no license.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// A license of Kong. It is accepted and has no effect, since no feature of Portico requires a license.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongLicense {
    /// Text of the license.
    pub raw_license_string: String,
    /// Whether the license is enabled. Has no effect.
    #[serde(default = "enabled_by_default")]
    pub enabled: bool,
}

/// Omits the license, which is a secret.
impl fmt::Debug for KongLicense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KongLicense").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

fn enabled_by_default() -> bool {
    true
}
