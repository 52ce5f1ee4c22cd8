//! Builds plugins once per configuring object, and attaches them to the chains of the rules that refer to them.
//!
//! ```text
//!   KongPlugin, KongClusterPlugin ─ configuration.rs ─▶ PluginFactory ─▶ CompiledPlugin
//!   annotations, ExtensionRef ─ references.rs ─▶ which of them ─ chain.rs ─▶ Chain of a rule
//! ```
//!
//! A guard that cannot be built is replaced by an instance that rejects all requests (docs/kong-compatibility.md,
//! 3.12): a route is never served without its configured authentication.

mod chain;
mod configuration;
mod degraded;
mod references;
mod unsupported_plugins;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub(super) use chain::{PluginSite, RuleChain};
pub use degraded::with_degraded_plugins;

use super::CompileContext;
use super::verdict::Verdict;
use crate::api::kong::PluginSettings;
use crate::api::kong::annotations::GLOBAL_LABEL;
use crate::api::{Kind, Meta, ObjectId};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::chain::Protocols;
use crate::plugin_api::kind::HTTP_FAMILY;
use crate::plugin_api::{AnyPluginKind, Plugin, Scopes};
use crate::store::{Changes, Store};
use references::{PluginSubjects, PluginUses};

/// All plugin objects with their built plugins, and where they run.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    plugins: BTreeMap<ObjectId, CompiledPlugin>,
    /// The plugins that each object referred to, because a deleted object no longer has its references.
    referenced: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// The referrers of each existing plugin.
    uses: BTreeMap<ObjectId, PluginUses>,
    everywhere: GlobalPlugins,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(super) struct PluginUpdate {
    /// Plugins whose verdict must be updated.
    pub verdicts_to_update: BTreeSet<ObjectId>,
    /// Routes and Ingresses whose chains changed.
    pub routes_to_update: Changes,
}

/// The plugin built from an object.
struct CompiledPlugin {
    /// `None` if Portico does not have the plugin.
    kind: Option<&'static dyn AnyPluginKind>,
    name: String,
    config: Value,
    /// A hash of `config` and `protocols`, equal in all processes, from which secrets in them cannot be guessed.
    configuration_hash: u64,
    plugin: Result<Arc<dyn Plugin>, ()>,
    /// Errors, and settings that are not in effect.
    problems: Vec<Diagnostic>,
    /// Settings that have no effect in Kong either.
    ineffective_settings: Vec<Diagnostic>,
    /// Notes from building the plugin.
    notes: Vec<Diagnostic>,
    disabled: bool,
    protocols: Protocols,
    /// `KongPlugin/default/limit`.
    object: Arc<str>,
}

/// Plugins that run on rules without a reference to them.
#[derive(Debug, Default, PartialEq, Eq)]
struct GlobalPlugins {
    /// Plugins with the label `global`, one per kind.
    global: BTreeSet<ObjectId>,
    /// Several plugins of one kind with that label, none of which runs.
    ambiguous: BTreeSet<ObjectId>,
    /// Plugins that run on all routes for these consumers and groups.
    consumer_bound: BTreeMap<ObjectId, PluginSubjects>,
}

impl Plugins {
    /// Rebuilds the touched plugins.
    pub(super) fn update(&mut self, cx: CompileContext<'_>, touched: &Changes) -> PluginUpdate {
        let mut again = BTreeSet::new();
        for id in touched {
            let now: BTreeSet<ObjectId> = cx.store.plugins_referenced_by(id).collect();
            let before = self.referenced.remove(id).unwrap_or_default();
            again.extend(now.union(&before).cloned());
            if !now.is_empty() {
                self.referenced.insert(id.clone(), now);
            }
        }
        // Whether a plugin is attached to a served route depends on the route's Gateways.
        for gateway in touched.iter().filter(|id| id.kind == Kind::Gateway) {
            let routes = cx.store.dependency_index().dependents(gateway).filter(|id| id.kind == Kind::HttpRoute);
            again.extend(routes.flat_map(|route| cx.store.plugins_referenced_by(route)));
        }
        for id in touched.iter().filter(|id| matches!(id.kind, Kind::KongPlugin | Kind::KongClusterPlugin)) {
            again.insert(id.clone());
            match plugin_settings(cx.store, id) {
                Some((meta, settings)) => {
                    let before = self.plugins.remove(id);
                    self.plugins.insert(id.clone(), compile_plugin(cx, id, meta, settings, before));
                }
                None => drop(self.plugins.remove(id)),
            }
        }
        let mut rerouted = Changes::new();
        let mut is_everywhere = self.update_globals(cx, &mut again);
        for id in &again {
            is_everywhere |= self.update_uses(cx, id, &mut rerouted);
        }
        // A change of a plugin that runs everywhere changes every chain.
        if is_everywhere || touched.iter().any(|id| self.everywhere.contains(id)) {
            rerouted.extend(cx.store.http_routes.keys().map(|key| ObjectId::new(Kind::HttpRoute, key.clone())));
            rerouted.extend(cx.store.ingresses.keys().map(|key| ObjectId::new(Kind::Ingress, key.clone())));
        }
        PluginUpdate { verdicts_to_update: again, routes_to_update: rerouted }
    }

    /// Updates the global plugins. Returns whether they changed; changed plugins are added to `again`.
    fn update_globals(&mut self, cx: CompileContext<'_>, again: &mut BTreeSet<ObjectId>) -> bool {
        if !again.iter().any(|id| id.kind == Kind::KongClusterPlugin) {
            return false;
        }
        let mut by_name: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
        for (id, made) in &self.plugins {
            let Some(meta) = cx.store.meta(id).filter(|_| id.kind == Kind::KongClusterPlugin) else { continue };
            let is_global = meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
            if is_global && cx.inputs.classes.serves_object(cx.store, meta, None) {
                by_name.entry(&made.name).or_default().push(id);
            }
        }
        let (mut global, mut ambiguous) = (BTreeSet::new(), BTreeSet::new());
        for ids in by_name.into_values() {
            let place = if ids.len() == 1 { &mut global } else { &mut ambiguous };
            place.extend(ids.into_iter().cloned());
        }
        let known = &mut self.everywhere;
        if (&global, &ambiguous) == (&known.global, &known.ambiguous) {
            return false;
        }
        again.extend(global.symmetric_difference(&known.global).cloned());
        again.extend(ambiguous.symmetric_difference(&known.ambiguous).cloned());
        (known.global, known.ambiguous) = (global, ambiguous);
        true
    }

    /// Updates the referrers of a plugin, and adds their chains to `rerouted` if they changed. Returns whether all
    /// chains changed.
    fn update_uses(&mut self, cx: CompileContext<'_>, id: &ObjectId, rerouted: &mut Changes) -> bool {
        let uses = self.plugins.get(id).map(|made| references::uses(cx, id, made.scopes()));
        if uses.as_ref() == self.uses.get(id) {
            return false;
        }
        let is_site = |id: &ObjectId| matches!(id.kind, Kind::HttpRoute | Kind::Ingress);
        rerouted.extend(cx.store.dependency_index().affected_by([id]).into_iter().filter(is_site));
        let people = uses.as_ref().map(PluginUses::everywhere).filter(|people| !people.is_empty());
        match uses {
            Some(uses) => self.uses.insert(id.clone(), uses),
            None => self.uses.remove(id),
        };
        let before = match people.clone() {
            Some(people) => self.everywhere.consumer_bound.insert(id.clone(), people),
            None => self.everywhere.consumer_bound.remove(id),
        };
        before != people
    }

    /// The verdict on an object that configures a plugin.
    pub(super) fn verdict(&self, store: &Store, id: &ObjectId) -> Option<Verdict> {
        let made = self.plugins.get(id)?;
        Some(verdict::build(store, id, made, self.uses.get(id)?, &self.everywhere))
    }
}

/// The plugins that the annotation of an object refers to, or why a reference cannot be resolved.
pub(super) fn referenced_plugins<'s>(
    store: &'s Store,
    kind: Kind,
    meta: &'s Meta,
) -> impl Iterator<Item = Result<ObjectId, Diagnostic>> {
    references::plugin_references(store, kind, meta).into_iter().map(|named| named.target)
}

impl GlobalPlugins {
    fn contains(&self, id: &ObjectId) -> bool {
        self.global.contains(id) || self.ambiguous.contains(id) || self.consumer_bound.contains_key(id)
    }
}

impl CompiledPlugin {
    /// Whether requests must not be served without it. An unknown plugin may be a guard.
    fn is_guard(&self) -> bool {
        self.kind.map_or_else(|| unsupported_plugins::may_guard(&self.name), AnyPluginKind::fails_closed)
    }

    fn scopes(&self) -> Scopes {
        self.kind.map_or(Scopes::ALL, AnyPluginKind::scopes)
    }
}

impl std::fmt::Debug for CompiledPlugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Omit the configuration, which may contain values from Secrets.
        formatter.debug_struct("Made").field("object", &self.object).field("problems", &self.problems).finish()
    }
}

fn plugin_settings<'s>(store: &'s Store, id: &ObjectId) -> Option<(&'s Meta, &'s PluginSettings)> {
    match id.kind {
        Kind::KongPlugin => store.kong_plugins.get(&id.key).map(|object| (&object.meta, &object.settings)),
        Kind::KongClusterPlugin => {
            store.kong_cluster_plugins.get(&id.key).map(|object| (&object.meta, &object.settings))
        }
        _ => None,
    }
}

fn compile_plugin(
    cx: CompileContext<'_>,
    id: &ObjectId,
    meta: &Meta,
    settings: &PluginSettings,
    before: Option<CompiledPlugin>,
) -> CompiledPlugin {
    let object: Arc<str> = format!("{}/{}", id.kind, meta.key).into();
    let kind = cx.inputs.plugin_factory.registry.find(&settings.plugin);
    let names = settings.protocols.iter().map(String::as_str);
    let protocols = match kind {
        Some(kind) if settings.protocols.is_empty() => Protocols::from_names(kind.protocols().iter().copied()),
        _ if settings.protocols.is_empty() => Protocols::ALL,
        _ => Protocols::from_names(names),
    };
    let mut made = CompiledPlugin {
        kind,
        name: settings.plugin.clone(),
        config: Value::Null,
        configuration_hash: 0,
        plugin: Err(()),
        problems: ineffective(settings),
        ineffective_settings: ineffective_in_kong(settings),
        notes: Vec::new(),
        disabled: settings.disabled,
        protocols,
        object,
    };
    let Some(kind) = kind else {
        made.problems.push(unsupported_plugins::unknown_plugin(&settings.plugin, &cx.inputs.plugin_factory.registry));
        return made;
    };
    let foreign = foreign_protocols(kind, settings);
    if !foreign.is_empty() {
        made.problems.extend(foreign);
        // The plugin is not used, but the errors of its configuration are reported, too.
        let config = configuration::build(cx.store, &meta.key, settings).map_err(|problem| vec![problem]);
        let built = config.and_then(|config| cx.inputs.plugin_factory.build(kind, &made.object, &config));
        made.problems.extend(built.err().unwrap_or_default());
        return made;
    }
    made.problems.extend(only_streams(settings));
    match configuration::build(cx.store, &meta.key, settings) {
        Err(problem) => made.problems.push(problem),
        Ok(config) => {
            // Keep the plugin if its configuration did not change, so that it keeps its state.
            let same = before.filter(|before| before.name == made.name && before.config == config);
            if let Some(CompiledPlugin { plugin: Ok(plugin), notes, .. }) = same {
                made.plugin = Ok(plugin);
                made.notes = notes;
            } else {
                match cx.inputs.plugin_factory.build(kind, &made.object, &config) {
                    Ok((plugin, notes)) => {
                        made.plugin = Ok(plugin);
                        made.notes = notes;
                    }
                    Err(invalid) => made.problems.extend(invalid),
                }
            }
            made.configuration_hash = configuration::configuration_hash(cx.store, &meta.key, settings, made.protocols);
            made.config = config;
        }
    }
    made
}

/// Diagnostics about protocols that the plugin does not support: it would never run for them.
fn foreign_protocols(kind: &dyn AnyPluginKind, settings: &PluginSettings) -> Vec<Diagnostic> {
    let known = kind.protocols();
    let foreign = settings.protocols.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str()));
    let problem = |(index, name): (usize, &String)| {
        let message = format!("{} does not support {name}", kind.name());
        Diagnostic::error(format!("protocols[{index}]"), message, format!("use some of {}", known.join(", ")))
    };
    foreign.map(problem).collect()
}

/// Diagnostics about settings that are not in effect.
fn ineffective(settings: &PluginSettings) -> Vec<Diagnostic> {
    let ordering = settings.ordering.iter().map(|_| {
        let message = "plugins run in order of their priorities, so it has no effect";
        Diagnostic::error("ordering", message, "remove it if that order is acceptable")
    });
    ordering.collect()
}

/// A diagnostic if all protocols are stream protocols, for which there are no requests.
fn only_streams(settings: &PluginSettings) -> Option<Diagnostic> {
    let is_stream = |name: &String| !HTTP_FAMILY.contains(&name.as_str());
    let never = !settings.protocols.is_empty() && settings.protocols.iter().all(is_stream);
    let message = "these are stream protocols, which are not supported by this version, so it never runs";
    never.then(|| Diagnostic::error("protocols", message, format!("use some of {}", HTTP_FAMILY.join(", "))))
}

/// Notes on settings that have no effect in Kong either.
fn ineffective_in_kong(settings: &PluginSettings) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    if settings.consumer_ref.is_some() {
        let remedy = "refer to the plugin in the annotation konghq.com/plugins of the KongConsumer";
        notes.push(Diagnostic::warning("consumerRef", "it has no effect, as in Kong", remedy));
    }
    if settings.run_on.as_deref().is_some_and(|side| side != "first") {
        notes.push(Diagnostic::warning("run_on", "it has no effect, as in Kong", "remove it"));
    }
    notes
}
