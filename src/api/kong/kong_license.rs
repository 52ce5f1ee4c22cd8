//! KongLicense: taken so that manifests with one are whole; nothing here asks for a license.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

/// The license of another product. It is accepted and has no effect: everything works without one.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongLicense {
    /// Text of the license.
    pub raw_license_string: String,
    /// Whether the license is meant to be used.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Resource for KongLicense {
    const KIND: Kind = Kind::KongLicense;
}

/// A license is a secret.
impl fmt::Debug for KongLicense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KongLicense").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}
