//! KongClusterPlugin: a plugin configuration for all namespaces.

use std::ops::Deref;

use schemars::JsonSchema;
use serde::Deserialize;

use super::plugin_settings::PluginSettings;
use super::secret_ref;

/// A plugin configuration that objects in any namespace may refer to, in the same way as to a KongPlugin in their own
/// namespace. With the label `global: "true"` it runs on every route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = secret_ref::in_any_namespace)]
pub struct KongClusterPlugin {
    pub settings: PluginSettings,
}

impl Deref for KongClusterPlugin {
    type Target = PluginSettings;

    fn deref(&self) -> &PluginSettings {
        &self.settings
    }
}
