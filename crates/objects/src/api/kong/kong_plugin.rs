//! KongPlugin: a plugin configuration for objects in its namespace.

use std::ops::Deref;

use schemars::JsonSchema;
use serde::Deserialize;

use super::plugin_settings::PluginSettings;
use super::secret_ref;

/// A plugin configuration. It runs where an object refers to it: by the annotation `konghq.com/plugins` of an Ingress,
/// a route, a Service, a KongConsumer or a KongConsumerGroup, or by an `ExtensionRef` filter of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = secret_ref::in_same_namespace)]
pub struct KongPlugin {
    pub settings: PluginSettings,
}

impl Deref for KongPlugin {
    type Target = PluginSettings;

    fn deref(&self) -> &PluginSettings {
        &self.settings
    }
}
