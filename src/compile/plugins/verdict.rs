//! The verdict on an object that configures a plugin.

use super::super::verdict::{Code, Condition, Verdict};
use super::references::{MisplacedReferences, PluginUses};
use super::{CompiledPlugin, GlobalPlugins};
use crate::api::{Kind, ObjectId};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

pub(super) fn build(
    store: &Store,
    id: &ObjectId,
    made: &CompiledPlugin,
    uses: &PluginUses,
    everywhere: &GlobalPlugins,
) -> Verdict {
    let mut problems = made.problems.clone();
    if everywhere.ambiguous.contains(id) {
        let message =
            format!("another KongClusterPlugin with this label also configures {}, so neither runs", made.name);
        problems.push(Diagnostic::error("metadata.labels[global]", message, "keep the label on only one of them"));
    }
    let misplaced = match uses.misplaced {
        MisplacedReferences { consumers: true, groups: true } => Some("consumers and groups"),
        MisplacedReferences { consumers: true, groups: false } => Some("consumers"),
        MisplacedReferences { consumers: false, groups: true } => Some("groups"),
        MisplacedReferences { consumers: false, groups: false } => None,
    };
    if let Some(holders) = misplaced {
        let message = format!("{} cannot be attached to {holders}, so it has no effect there", made.name);
        problems.push(Diagnostic::error("plugin", message, "remove it from their annotation konghq.com/plugins"));
    }
    let is_used = uses.is_any() || everywhere.global.contains(id);
    let condition = if !problems.is_empty() {
        Condition::new(Code::KongInvalid, problems)
    } else if is_used {
        Condition::without_diagnostics(Code::KongProgrammed)
    } else {
        let remedy = if id.kind == Kind::KongClusterPlugin {
            "refer to it in an annotation konghq.com/plugins, or set the label global: \"true\" and the class"
        } else {
            "refer to it in an annotation konghq.com/plugins, or in an ExtensionRef filter of an HTTPRoute"
        };
        Condition::new(Code::KongPending, vec![Diagnostic::of_object("nothing refers to it", remedy)])
    };
    let generation = store.meta(id).map_or(0, |meta| meta.generation);
    let diagnostics = made.ineffective_settings.iter().chain(&made.notes).cloned().chain(notes(uses)).collect();
    Verdict { generation, conditions: vec![condition], diagnostics, ..Verdict::default() }
}

/// Notes about effects that users may not expect.
fn notes(uses: &PluginUses) -> impl Iterator<Item = Diagnostic> {
    let apart = uses.is_combined_per_namespace().then(|| {
        let message = "both consumers or groups and routes of other namespaces refer to it: it runs for all requests \
                       of these consumers, and for all requests of these routes";
        let remedy = "to run it only for these consumers on these routes, make it a KongPlugin that both use with a \
                      ReferenceGrant";
        Diagnostic::of_object(message, remedy).into_warning()
    });
    let passed_over = uses.ignores_consumer_groups().then(|| {
        let message = "both consumers and groups refer to it, so the groups are ignored, as in Kong";
        Diagnostic::of_object(message, "configure a second plugin for the groups").into_warning()
    });
    apart.into_iter().chain(passed_over)
}
