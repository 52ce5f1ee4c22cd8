//! What runs in place of a guard that cannot run: a plugin that rejects all requests (docs/kong-compatibility.md,
//! 3.12).

use std::sync::Arc;

use super::compiled_plugin::CompiledPlugin;
use crate::plugin_api::Phases;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_chain::chain::BrokenPlugin;

/// The kind in a chain of plugins of which the kind is unknown. At most one of them runs, which suffices.
pub(super) const UNKNOWN: &str = "unknown";

/// Runs in place of a plugin, when that would run. `message` is in the responses.
pub(super) fn in_place_of(
    compiled: &CompiledPlugin,
    counter_scope: &Arc<str>,
    message: String,
) -> (ExecutionPlace, PluginInstance) {
    let (mut place, instance) = in_place_of_unknown(Arc::clone(&compiled.object), counter_scope, message);
    if let Some(kind) = compiled.kind {
        place = ExecutionPlace { kind: kind.name(), priority: kind.priority() };
    }
    (place, instance)
}

/// Runs before all plugins, in place of one of which only a name is known.
pub(super) fn in_place_of_unknown(
    object: Arc<str>,
    counter_scope: &Arc<str>,
    message: String,
) -> (ExecutionPlace, PluginInstance) {
    let instance = PluginInstance {
        plugin: BrokenPlugin::with_message(message),
        phases: Phases::ACCESS,
        scope: Arc::clone(counter_scope),
        object,
        configuration_hash: 0,
        first_backend: 0,
        assertions: None,
    };
    (ExecutionPlace { kind: UNKNOWN, priority: i32::MAX }, instance)
}
