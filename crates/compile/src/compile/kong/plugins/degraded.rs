//! Reports degraded plugins: a server that they require, for example for counters or key sets, does not respond. They
//! stay in effect, and behave as each plugin's documentation describes for this case.

use std::collections::BTreeSet;

use super::references;
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::diagnostic::{Diagnostic, Topic};
use crate::store::Store;
use crate::verdict::{Code, Condition, Verdict};

/// Adds the diagnostics of degraded plugins to a verdict: a condition on the plugin itself, and a diagnostic on objects
/// that refer to it. `degradation` returns why a plugin is degraded, if it is. Returns `None` if the verdict
/// stays the same.
pub fn with_degraded_plugins(
    store: &Store,
    id: &ObjectId,
    verdict: &Verdict,
    degradation: &dyn Fn(&ObjectId) -> Option<Diagnostic>,
) -> Option<Verdict> {
    let own_problem = degradation(id);
    let reference_problems: Vec<_> = referenced_plugins(store, id)
        .into_iter()
        .filter(|(plugin, _)| degradation(plugin).is_some())
        .map(|(plugin, field)| {
            let message = format!("{} {} runs without a server that it requires", plugin.kind, plugin.key);
            Diagnostic::error(field, message, "see its condition Degraded").with_topic(Topic::Plugin)
        })
        .collect();
    if own_problem.is_none() && reference_problems.is_empty() {
        return None;
    }
    let mut degraded = verdict.clone();
    degraded.conditions.extend(own_problem.map(|problem| Condition::new(Code::ObjectDegraded, vec![problem])));
    degraded.diagnostics.extend(reference_problems);
    Some(degraded)
}

/// The plugins that an object's references resolve to, each with the referring field.
fn referenced_plugins(store: &Store, id: &ObjectId) -> Vec<(ObjectId, String)> {
    let Some(meta) = store.meta(id) else { return Vec::new() };
    let annotation = format!("metadata.annotations[{PLUGINS}]");
    // Only references that lead to a plugin are used, so the reasons of others do not matter.
    let references = references::plugin_references(store, &BTreeSet::new(), id.kind, meta).into_iter();
    let annotated = references.filter_map(|reference| reference.target.ok());
    let mut plugins: Vec<_> = annotated.map(|plugin| (plugin, annotation.clone())).collect();
    if matches!(id.kind, Kind::HttpRoute | Kind::GrpcRoute) {
        // Filters refer to plugins of the route's namespace only.
        for plugin in store.plugins_referenced_by(id) {
            let is_from_filter = plugin.kind == Kind::KongPlugin && plugin.key.namespace == id.key.namespace;
            if is_from_filter && plugins.iter().all(|(known, _)| *known != plugin) {
                plugins.push((plugin, "spec.rules".to_owned()));
            }
        }
    }
    plugins
}
