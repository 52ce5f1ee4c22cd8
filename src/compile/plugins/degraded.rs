//! Reports running plugins whose server, such as a counter or a key set, does not respond. They stay in effect, each
//! with its documented behavior.

use super::super::verdict::{Code, Condition, Verdict};
use super::references;
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::diagnostic::{Diagnostic, Topic};
use crate::store::Store;

/// Adds the diagnostics of degraded plugins to a verdict: a condition on the plugin itself, and a note on objects that
/// refer to it. `None` if the object is not affected.
pub fn with_degraded_plugins(
    store: &Store,
    id: &ObjectId,
    verdict: &Verdict,
    trouble: &dyn Fn(&ObjectId) -> Option<Diagnostic>,
) -> Option<Verdict> {
    let own = trouble(id);
    let pointers: Vec<_> = referenced_plugins(store, id)
        .into_iter()
        .filter(|(plugin, _)| trouble(plugin).is_some())
        .map(|(plugin, field)| {
            let message = format!("{} {} runs without a server that it requires", plugin.kind, plugin.key);
            Diagnostic::error(field, message, "see its condition Degraded").with_topic(Topic::Plugin)
        })
        .collect();
    if own.is_none() && pointers.is_empty() {
        return None;
    }
    let mut troubled = verdict.clone();
    troubled.conditions.extend(own.map(|problem| Condition::new(Code::KongDegraded, vec![problem])));
    troubled.diagnostics.extend(pointers);
    Some(troubled)
}

/// The plugins that an object's references resolve to, each with the referring field.
fn referenced_plugins(store: &Store, id: &ObjectId) -> Vec<(ObjectId, String)> {
    let Some(meta) = store.meta(id) else { return Vec::new() };
    let annotation = format!("metadata.annotations[{PLUGINS}]");
    let named = references::plugin_references(store, id.kind, meta).into_iter().filter_map(|named| named.target.ok());
    let mut plugins: Vec<_> = named.map(|plugin| (plugin, annotation.clone())).collect();
    if id.kind == Kind::HttpRoute {
        // Filters refer to plugins of the route's namespace only.
        for plugin in store.plugins_referenced_by(id) {
            let is_near = plugin.kind == Kind::KongPlugin && plugin.key.namespace == id.key.namespace;
            if is_near && plugins.iter().all(|(known, _)| *known != plugin) {
                plugins.push((plugin, "spec.rules".to_owned()));
            }
        }
    }
    plugins
}
