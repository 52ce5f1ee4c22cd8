//! Plugins at work that lack a server which they need: a counter or a key set that does not answer. They stay in effect, each as it
//! says, and people are told.

use super::super::verdict::{Code, Condition, Problem, Verdict};
use super::references;
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::store::Store;

/// The verdict on an object now that some plugins are in trouble. What one says of itself becomes a condition; whoever
/// names it is told where to look. None if nothing of this concerns the object.
pub fn with_troubles(
    store: &Store,
    id: &ObjectId,
    verdict: &Verdict,
    trouble: &dyn Fn(&ObjectId) -> Option<Problem>,
) -> Option<Verdict> {
    let own = trouble(id);
    let pointers: Vec<_> = named_by(store, id)
        .into_iter()
        .filter(|(plugin, _)| trouble(plugin).is_some())
        .map(|(plugin, field)| {
            let message = format!("{} {} is at work without a server that it needs", plugin.kind, plugin.key);
            Problem::new(field, message, "see its condition Degraded")
        })
        .collect();
    if own.is_none() && pointers.is_empty() {
        return None;
    }
    let mut troubled = verdict.clone();
    troubled.conditions.extend(own.map(|problem| Condition::new(Code::KongDegraded, vec![problem])));
    troubled.notes.extend(pointers.iter().cloned());
    troubled.broken_plugins.extend(pointers);
    Some(troubled)
}

/// The plugins that an object really refers to, each with the field.
fn named_by(store: &Store, id: &ObjectId) -> Vec<(ObjectId, String)> {
    let Some(meta) = store.meta(id) else { return Vec::new() };
    let annotation = format!("metadata.annotations[{PLUGINS}]");
    let named = references::named(store, id.kind, meta).into_iter().filter_map(|named| named.meant.ok());
    let mut plugins: Vec<_> = named.map(|plugin| (plugin, annotation.clone())).collect();
    if id.kind == Kind::HttpRoute {
        // Filters name plugins of the route's own namespace, and no others.
        for plugin in store.plugins_of(id) {
            let is_near = plugin.kind == Kind::KongPlugin && plugin.key.namespace == id.key.namespace;
            if is_near && plugins.iter().all(|(known, _)| *known != plugin) {
                plugins.push((plugin, "spec.rules".to_owned()));
            }
        }
    }
    plugins
}
