//! The plugin factory, which lets `compile` build plugins without depending on the plugins or the runtime.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Plugin;
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::kind::{AnyPluginKind, BuildCx, BuildNotes, PluginRegistry};
use crate::plugin_api::services::{OfflineServices, PluginServices};
use crate::plugin_api::state::PluginState;

/// Builds plugins of all registered kinds.
#[derive(Clone)]
pub struct PluginFactory {
    pub registry: PluginRegistry,
    pub state: PluginState,
    pub services: Arc<dyn PluginServices>,
    /// Name of this replica.
    pub node: Arc<str>,
    /// Whether a broken plugin that would fail closed is skipped, as in Kong, instead of rejecting all requests.
    pub fail_open: bool,
    /// Whether the consumers of all namespaces may use all routes, as in Kong.
    pub shares_consumers: bool,
    /// Whether there are peers that may report other clients (`--trusted-ips`), or that is not known.
    pub has_trusted_peers: bool,
    /// A plugin that runs on every rule unless an object attaches a plugin of the same kind.
    pub builtin: Option<BuiltinPlugin>,
}

/// A plugin that is not configured by an object.
#[derive(Clone)]
pub struct BuiltinPlugin {
    pub kind: &'static dyn AnyPluginKind,
    pub plugin: Arc<dyn Plugin>,
    /// The flag that enables it, for dumps: `--kong-metrics`.
    pub enabled_by: Arc<str>,
}

impl BuiltinPlugin {
    /// Adds the plugin to a chain as a global one.
    pub fn add_to(&self, builder: &mut ChainBuilder, scope: &Arc<str>) {
        let instance = PluginInstance {
            plugin: Arc::clone(&self.plugin),
            phases: self.kind.phases(),
            scope: Arc::clone(scope),
            object: Arc::clone(&self.enabled_by),
            configuration_hash: 0,
            first_backend: 0,
            assertions: self.plugin.assertions(),
        };
        builder.add(self.kind.name(), self.kind.priority(), AttachmentPoint::Base(BaseScope::Global), instance);
    }
}

/// A plugin and the notes about its configuration.
pub type BuiltPlugin = (Arc<dyn Plugin>, Vec<Diagnostic>);

impl PluginFactory {
    /// A factory of plugins without network access, for checking configurations.
    pub fn offline(registry: PluginRegistry) -> Self {
        let services = Arc::new(OfflineServices);
        PluginFactory {
            registry,
            state: PluginState::default(),
            services,
            node: "".into(),
            fail_open: false,
            shares_consumers: false,
            has_trusted_peers: true,
            builtin: None,
        }
    }

    /// Builds a plugin. `object` is the one that holds the configuration, for example `KongPlugin/default/limit`.
    pub fn build(
        &self,
        kind: &dyn AnyPluginKind,
        object: &str,
        config: &Value,
    ) -> Result<BuiltPlugin, Vec<Diagnostic>> {
        let notes = BuildNotes::default();
        let cx = BuildCx { object, state: &self.state, services: &self.services, node: &self.node, notes: &notes };
        let plugin = kind.build(config, &cx)?;
        Ok((plugin, notes.into_vec()))
    }
}

impl fmt::Debug for PluginFactory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PluginFactory").field("kinds", &self.registry).finish_non_exhaustive()
    }
}
