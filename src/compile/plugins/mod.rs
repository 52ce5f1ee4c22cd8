//! Plugins: built once for each object that configures them, and put into the chains of the rules that refer to them.
//!
//! ```text
//!   KongPlugin, KongClusterPlugin ─ configuration.rs ─▶ Workshop ─▶ Made
//!   annotations, ExtensionRef ─ references.rs ─▶ which of them ─ chain.rs ─▶ Chain of a rule
//! ```
//!
//! What guards and cannot be built refuses everybody in its place (`kong-compat.md` §3.12): a route is never served without
//! the authentication that somebody wrote down for it.

mod chain;
mod configuration;
mod known;
mod references;
mod trouble;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub(super) use chain::{Chained, Site};
pub use trouble::with_troubles;

use super::Inputs;
use super::verdict::{Problem, Verdict};
use crate::api::kong::PluginSettings;
use crate::api::kong::annotations::GLOBAL_LABEL;
use crate::api::{Kind, Meta, ObjectId};
use crate::plugin::chain::Protocols;
use crate::plugin::kind::HTTP_FAMILY;
use crate::plugin::{AnyKind, Plugin, Scopes};
use crate::store::{Changes, Store};
use references::{People, Uses};

/// Every plugin object with what was made of it, and where plugins run.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    made: BTreeMap<ObjectId, Made>,
    /// The plugins that each object mentioned, since one that is gone no longer says.
    mentioned: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// Who refers to each plugin that is there.
    uses: BTreeMap<ObjectId, Uses>,
    everywhere: Everywhere,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(super) struct Updated {
    /// Plugins that have to be judged again.
    pub again: BTreeSet<ObjectId>,
    /// Routes and Ingresses that have other plugins than before, or for other people.
    pub rerouted: Changes,
}

/// What an object that configures a plugin has become.
struct Made {
    /// None if we have no such plugin.
    kind: Option<&'static dyn AnyKind>,
    name: String,
    config: Value,
    /// What tells `config` and `protocols` from others, in every process alike, without anything by which secrets in it could be
    /// guessed.
    configuration: u64,
    plugin: Result<Arc<dyn Plugin>, ()>,
    /// Why it cannot be used, or settings that are not in effect.
    problems: Vec<Problem>,
    /// Settings that mean nothing.
    idle: Vec<Problem>,
    /// What was said when it was built.
    notes: Vec<Problem>,
    disabled: bool,
    protocols: Protocols,
    /// `KongPlugin/default/limit`.
    object: Arc<str>,
}

/// What runs on rules that do not name it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Everywhere {
    /// One of each kind, with the label `global`.
    global: BTreeSet<ObjectId>,
    /// Several of one kind with that label, none of which counts.
    ambiguous: BTreeSet<ObjectId>,
    /// Those of consumers and groups, who take them along.
    personal: BTreeMap<ObjectId, People>,
}

impl Plugins {
    /// Makes what was touched anew.
    pub(super) fn update(&mut self, store: &Store, inputs: &Inputs<'_>, touched: &Changes) -> Updated {
        let mut again = BTreeSet::new();
        for id in touched {
            let now: BTreeSet<ObjectId> = store.plugins_of(id).collect();
            let before = self.mentioned.remove(id).unwrap_or_default();
            again.extend(now.union(&before).cloned());
            if !now.is_empty() {
                self.mentioned.insert(id.clone(), now);
            }
        }
        // Whether a plugin is attached to what is ours depends on the Gateways of its routes.
        for gateway in touched.iter().filter(|id| id.kind == Kind::Gateway) {
            let routes = store.refs().dependents(gateway).filter(|id| id.kind == Kind::HttpRoute);
            again.extend(routes.flat_map(|route| store.plugins_of(route)));
        }
        for id in touched.iter().filter(|id| matches!(id.kind, Kind::KongPlugin | Kind::KongClusterPlugin)) {
            again.insert(id.clone());
            match settings(store, id) {
                Some((meta, settings)) => {
                    let before = self.made.remove(id);
                    self.made.insert(id.clone(), make(store, inputs, id, meta, settings, before));
                }
                None => drop(self.made.remove(id)),
            }
        }
        let mut rerouted = Changes::new();
        let mut is_everywhere = self.find_globals(store, inputs, &mut again);
        for id in &again {
            is_everywhere |= self.find_uses(store, inputs, id, &mut rerouted);
        }
        // A plugin that runs everywhere and is another one now changes every chain.
        if is_everywhere || touched.iter().any(|id| self.everywhere.contains(id)) {
            rerouted.extend(store.http_routes.keys().map(|key| ObjectId::new(Kind::HttpRoute, key.clone())));
            rerouted.extend(store.ingresses.keys().map(|key| ObjectId::new(Kind::Ingress, key.clone())));
        }
        Updated { again, rerouted }
    }

    /// Which plugins are for everything. Says whether these are others than before, which have to be judged again then.
    fn find_globals(&mut self, store: &Store, inputs: &Inputs<'_>, again: &mut BTreeSet<ObjectId>) -> bool {
        if !again.iter().any(|id| id.kind == Kind::KongClusterPlugin) {
            return false;
        }
        let mut by_name: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
        for (id, made) in &self.made {
            let Some(meta) = store.meta(id).filter(|_| id.kind == Kind::KongClusterPlugin) else { continue };
            let is_global = meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
            if is_global && inputs.classes.own(store, meta, None) {
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

    /// Who refers to a plugin. If that differs from before, so do the chains of those who do; says whether all chains do.
    fn find_uses(&mut self, store: &Store, inputs: &Inputs<'_>, id: &ObjectId, rerouted: &mut Changes) -> bool {
        let uses = self.made.get(id).map(|made| references::uses(store, inputs, id, made.scopes()));
        if uses.as_ref() == self.uses.get(id) {
            return false;
        }
        let is_site = |id: &ObjectId| matches!(id.kind, Kind::HttpRoute | Kind::Ingress);
        rerouted.extend(store.refs().touched_by([id]).into_iter().filter(is_site));
        let people = uses.as_ref().map(Uses::everywhere).filter(|people| !people.is_nobody());
        match uses {
            Some(uses) => self.uses.insert(id.clone(), uses),
            None => self.uses.remove(id),
        };
        let before = match people.clone() {
            Some(people) => self.everywhere.personal.insert(id.clone(), people),
            None => self.everywhere.personal.remove(id),
        };
        before != people
    }

    /// What there is to say about an object that configures a plugin.
    pub(super) fn verdict(&self, store: &Store, id: &ObjectId) -> Option<Verdict> {
        let made = self.made.get(id)?;
        Some(verdict::of(store, id, made, self.uses.get(id)?, &self.everywhere))
    }
}

/// What the annotation of an object names: each plugin, or why there is none.
pub(super) fn named<'s>(
    store: &'s Store,
    kind: Kind,
    meta: &'s Meta,
) -> impl Iterator<Item = Result<ObjectId, Problem>> {
    references::named(store, kind, meta).into_iter().map(|named| named.meant)
}

impl Everywhere {
    fn contains(&self, id: &ObjectId) -> bool {
        self.global.contains(id) || self.ambiguous.contains(id) || self.personal.contains_key(id)
    }
}

impl Made {
    /// Whether requests must not be served without it. What we do not know may be anything.
    fn is_guard(&self) -> bool {
        self.kind.map_or_else(|| known::may_guard(&self.name), AnyKind::is_guard)
    }

    fn scopes(&self) -> Scopes {
        self.kind.map_or(Scopes::ALL, AnyKind::scopes)
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the configuration, which may hold what came from Secrets.
        formatter.debug_struct("Made").field("object", &self.object).field("problems", &self.problems).finish()
    }
}

fn settings<'s>(store: &'s Store, id: &ObjectId) -> Option<(&'s Meta, &'s PluginSettings)> {
    match id.kind {
        Kind::KongPlugin => store.kong_plugins.get(&id.key).map(|object| (&object.meta, &object.settings)),
        Kind::KongClusterPlugin => {
            store.kong_cluster_plugins.get(&id.key).map(|object| (&object.meta, &object.settings))
        }
        _ => None,
    }
}

fn make(
    store: &Store,
    inputs: &Inputs<'_>,
    id: &ObjectId,
    meta: &Meta,
    settings: &PluginSettings,
    before: Option<Made>,
) -> Made {
    let object: Arc<str> = format!("{}/{}", id.kind, meta.key).into();
    let kind = inputs.workshop.registry.find(&settings.plugin);
    let names = settings.protocols.iter().map(String::as_str);
    let protocols = match kind {
        Some(kind) if settings.protocols.is_empty() => Protocols::of(kind.protocols().iter().copied()),
        _ if settings.protocols.is_empty() => Protocols::ALL,
        _ => Protocols::of(names),
    };
    let mut made = Made {
        kind,
        name: settings.plugin.clone(),
        config: Value::Null,
        configuration: 0,
        plugin: Err(()),
        problems: ineffective(settings),
        idle: idle(settings),
        notes: Vec::new(),
        disabled: settings.disabled,
        protocols,
        object,
    };
    let Some(kind) = kind else {
        made.problems.push(known::unknown(&settings.plugin, &inputs.workshop.registry));
        return made;
    };
    let foreign = foreign_protocols(kind, settings);
    if !foreign.is_empty() {
        made.problems.extend(foreign);
        return made;
    }
    made.problems.extend(only_streams(settings));
    match configuration::of(store, &meta.key, settings) {
        Err(problem) => made.problems.push(problem),
        Ok(config) => {
            // The same configuration is the same plugin: whatever it remembers stays.
            let same = before.filter(|before| before.name == made.name && before.config == config);
            if let Some(Made { plugin: Ok(plugin), notes, .. }) = same {
                made.plugin = Ok(plugin);
                made.notes = notes;
            } else {
                match inputs.workshop.build(kind, &made.object, &config) {
                    Ok((plugin, notes)) => {
                        made.plugin = Ok(plugin);
                        made.notes = notes.into_iter().map(problem).collect();
                    }
                    Err(invalid) => made.problems.extend(invalid.into_iter().map(problem)),
                }
            }
            made.configuration = configuration::told_apart(store, &meta.key, settings, made.protocols);
            made.config = config;
        }
    }
    made
}

fn problem(invalid: crate::plugin::Invalid) -> Problem {
    Problem::new(invalid.field, invalid.message, invalid.remedy)
}

/// Protocols that the plugin knows nothing of: with these alone it would run for nobody.
fn foreign_protocols(kind: &dyn AnyKind, settings: &PluginSettings) -> Vec<Problem> {
    let known = kind.protocols();
    let foreign = settings.protocols.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str()));
    let problem = |(index, name): (usize, &String)| {
        let message = format!("{} is not made for {name}", kind.name());
        Problem::new(format!("protocols[{index}]"), message, format!("use some of {}", known.join(", ")))
    };
    foreign.map(problem).collect()
}

/// Settings that somebody may count on and that we do not honor.
fn ineffective(settings: &PluginSettings) -> Vec<Problem> {
    let ordering = settings.ordering.iter().map(|_| {
        let message = "plugins run in the order of their priorities here, so it has no effect";
        Problem::new("ordering", message, "remove it, if that order will do")
    });
    ordering.collect()
}

/// There are no requests of these alone.
fn only_streams(settings: &PluginSettings) -> Option<Problem> {
    let is_stream = |name: &String| !HTTP_FAMILY.contains(&name.as_str());
    let never = !settings.protocols.is_empty() && settings.protocols.iter().all(is_stream);
    let message = "these are protocols of streams, which are not served by this version, so it never runs";
    never.then(|| Problem::new("protocols", message, format!("use some of {}", HTTP_FAMILY.join(", "))))
}

/// Settings that mean nothing, here as in Kong.
fn idle(settings: &PluginSettings) -> Vec<Problem> {
    let mut notes = Vec::new();
    if settings.consumer_ref.is_some() {
        let remedy = "name the plugin in the annotation konghq.com/plugins of the KongConsumer";
        notes.push(Problem::new("consumerRef", "it has no effect, as in Kong", remedy));
    }
    if settings.run_on.as_deref().is_some_and(|side| side != "first") {
        notes.push(Problem::new("run_on", "it has no effect, as in Kong", "remove it"));
    }
    notes
}
