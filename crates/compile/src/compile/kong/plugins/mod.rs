//! Builds plugins once per configuring object, and attaches them to the chains of the rules that refer to them.
//!
//! ```text
//!   KongPlugin, KongClusterPlugin ─ configuration.rs ─▶ PluginFactory ─▶ CompiledPlugin
//!   annotations, ExtensionRef ─ references.rs ─▶ plugins_of_rule.rs ─ chain.rs ─▶ Chain
//!                                            ├─▶ plugins of a stream route ─ stream_chain.rs ─▶ StreamChain
//!                                            └─▶ plugins of a consumer ─ subjects.rs ─▶ ConsumerDirectory
//! ```
//!
//! update.rs rebuilds what a change touches. compiled_plugin.rs builds one plugin; custom_entities.rs adds the fields
//! of KongCustomEntities to the configurations of plugins. hidden_values.rs keeps the values of Secrets and vaults out
//! of all diagnostics.
//!
//! A guard is a plugin that protects routes, such as authentication. A guard that cannot be built is replaced by a
//! plugin that rejects all requests (rejecting_guard.rs), unless plugins fail open.

mod chain;
mod chosen_backends;
mod compiled_plugin;
mod configuration;
mod configured_names;
mod consumer_grants;
mod custom_entities;
mod degraded;
mod global_plugins;
mod hidden_values;
mod ordering;
mod own_urls;
mod plugin_site;
mod plugins_of_rule;
mod protocols;
mod references;
mod rejecting_guard;
mod route_description;
mod secret_values;
mod stream_chain;
mod stream_plugin_site;
mod subjects;
mod unsupported_plugins;
mod update;
mod vault_values;
mod verdict;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub(in crate::compile) use chain::{OwnParts, RuleChain};
pub(in crate::compile) use chosen_backends::{ChoiceSettings, ChosenService};
pub use degraded::with_degraded_plugins;
pub(in crate::compile) use plugin_site::PluginSite;
pub(in crate::compile) use references::missing_filter_plugin;
pub(in crate::compile) use route_description::RouteFacts;
pub(in crate::compile) use stream_chain::StreamPlugins;
pub(in crate::compile) use stream_plugin_site::StreamPluginSite;
pub(in crate::compile) use subjects::{plugin_subject, touched_groups};

use crate::api::gateway::LocalObjectReference;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::snapshot::Snapshot;
use crate::store::{Changes, Store};
use crate::verdict::Verdict;
use compiled_plugin::CompiledPlugin;
use configured_names::ConfiguredNames;
use consumer_grants::ConsumerGrants;
use custom_entities::EntityParents;
use global_plugins::GlobalPlugins;
use references::PluginReferrers;

/// All plugin objects with their built plugins, and where they run.
#[derive(Debug, Default)]
pub(in crate::compile) struct Plugins {
    plugins: BTreeMap<ObjectId, CompiledPlugin>,
    /// The plugins to which each object referred at the last update. They are kept because a deleted object no longer
    /// has its references.
    referenced: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// The objects that refer to each existing plugin.
    referrers: BTreeMap<ObjectId, PluginReferrers>,
    global_plugins: GlobalPlugins,
    configured_names: ConfiguredNames,
    /// Consumers whose objects were rejected.
    rejected_consumers: BTreeSet<ObjectId>,
    entity_parents: EntityParents,
    consumer_grants: ConsumerGrants,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(in crate::compile) struct PluginUpdate {
    /// Plugins and KongCustomEntities whose verdict must be updated.
    pub verdicts_to_update: BTreeSet<ObjectId>,
    /// Routes and Ingresses whose chains changed.
    pub routes_to_update: Changes,
    /// Consumers and groups whose plugins on all routes may have changed.
    pub subjects_to_update: BTreeSet<ObjectId>,
}

impl Plugins {
    /// The changes, with the plugins to which affected KongCustomEntities belong or belonged.
    pub(in crate::compile) fn with_entity_parents<'c>(
        &mut self,
        store: &Store,
        changes: &'c Changes,
    ) -> Cow<'c, Changes> {
        self.entity_parents.with_parents(store, changes)
    }

    /// What the configurations of plugins name.
    pub(in crate::compile) fn configured_names(&self) -> &ConfiguredNames {
        &self.configured_names
    }

    /// The verdict on an object that configures a plugin, or is a part of its configuration. `snapshot` has the routes
    /// and the consumers that requests are compared with.
    pub(in crate::compile) fn verdict(
        &self,
        cx: CompileContext<'_>,
        snapshot: &Snapshot,
        id: &ObjectId,
    ) -> Option<Verdict> {
        if id.kind == Kind::KongCustomEntity {
            return custom_entities::verdict(cx, &id.key, |plugin| {
                self.plugins.get(plugin)?.entities.get(&id.key).cloned()
            });
        }
        let compiled = self.plugins.get(id)?;
        Some(verdict::build(cx, id, compiled, self.referrers.get(id)?, &self.global_plugins, snapshot))
    }
}

/// For each reference in the annotation of an object: the plugin, or the reason why the reference cannot be resolved.
pub(in crate::compile) fn referenced_plugins<'s>(
    cx: CompileContext<'s>,
    kind: Kind,
    meta: &'s Meta,
) -> impl Iterator<Item = Result<ObjectId, Diagnostic>> {
    let references = references::plugin_references(cx.store, cx.inputs.absent_kinds, kind, meta).into_iter();
    references.map(|reference| reference.target.map_err(|(_, problem)| problem))
}

/// Whether a filter refers to a KongPlugin. The reference has no namespace: that of the route applies.
pub(in crate::compile) fn is_plugin_reference(reference: &LocalObjectReference) -> bool {
    reference.group == Kind::KongPlugin.group() && reference.kind == Kind::KongPlugin.name()
}

/// Whether the namespace has a KongPlugin of this name.
pub(in crate::compile) fn exists(store: &Store, namespace: &str, name: &str) -> bool {
    store.kong_plugins.contains_key(&ObjectKey::new(namespace, name))
}
