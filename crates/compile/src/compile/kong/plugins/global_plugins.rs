//! The plugins that run for all requests, on rules without a reference to them.

use std::collections::{BTreeMap, BTreeSet};

use super::compiled_plugin::CompiledPlugin;
use crate::api::kong::annotations::GLOBAL_LABEL;
use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;

/// Plugins that run for all requests, on rules without a reference to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GlobalPlugins {
    /// Objects with the label `global`, each of which configures a different plugin.
    pub(super) global: BTreeSet<ObjectId>,
    /// Objects with that label of which several configure the same plugin, so that none of them runs.
    pub(super) ambiguous: BTreeSet<ObjectId>,
}

impl GlobalPlugins {
    /// The plugins with the label, which has an effect on KongClusterPlugins only.
    pub(super) fn find(cx: CompileContext<'_>, plugins: &BTreeMap<ObjectId, CompiledPlugin>) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
        for (id, compiled) in plugins {
            let Some(meta) = cx.store.meta(id).filter(|_| id.kind == Kind::KongClusterPlugin) else { continue };
            let is_global = meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
            let is_served = || cx.inputs.classes.serves_object(cx.store, meta, None);
            if is_global && (is_served() || cx.store.has_unreadable_class(id)) {
                by_name.entry(&compiled.name).or_default().push(id);
            }
        }
        let mut found = GlobalPlugins::default();
        for ids in by_name.into_values() {
            let target = if ids.len() == 1 { &mut found.global } else { &mut found.ambiguous };
            target.extend(ids.into_iter().cloned());
        }
        found
    }

    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        self.global.contains(id) || self.ambiguous.contains(id)
    }

    /// The plugins that are global or ambiguous in one of the two, but not in the other.
    pub(super) fn difference<'g>(&'g self, other: &'g Self) -> impl Iterator<Item = &'g ObjectId> {
        let ambiguous = self.ambiguous.symmetric_difference(&other.ambiguous);
        self.global.symmetric_difference(&other.global).chain(ambiguous)
    }
}
