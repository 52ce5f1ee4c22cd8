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
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub(super) use chain::{Chained, Site};

use super::Inputs;
use super::verdict::{Problem, Verdict};
use crate::api::kong::PluginSettings;
use crate::api::kong::annotations::GLOBAL_LABEL;
use crate::api::{Kind, Meta, ObjectId};
use crate::plugin::chain::Protocols;
use crate::plugin::{AnyKind, Plugin};
use crate::store::{Changes, Store};

/// Every plugin object with what was made of it, and where plugins run.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    made: BTreeMap<ObjectId, Made>,
    /// The plugins that each object mentioned, since one that is gone no longer says.
    mentioned: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    everywhere: Everywhere,
}

/// What an object that configures a plugin has become.
struct Made {
    /// None if we have no such plugin.
    kind: Option<&'static dyn AnyKind>,
    name: String,
    config: Value,
    plugin: Result<Arc<dyn Plugin>, ()>,
    /// Why it cannot be used, or settings that are not in effect.
    problems: Vec<Problem>,
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
    /// Attached to consumers or groups, and to nothing else.
    personal: BTreeSet<ObjectId>,
}

impl Plugins {
    /// Makes what was touched anew. Says which plugins have to be judged again, and whether what runs everywhere is
    /// another than before.
    pub(super) fn update(
        &mut self,
        store: &Store,
        inputs: &Inputs<'_>,
        touched: &Changes,
    ) -> (BTreeSet<ObjectId>, bool) {
        let mut again = BTreeSet::new();
        for id in touched {
            let now: BTreeSet<ObjectId> = store.refs().plugins(id).cloned().collect();
            let before = self.mentioned.remove(id).unwrap_or_default();
            again.extend(now.union(&before).cloned());
            if !now.is_empty() {
                self.mentioned.insert(id.clone(), now);
            }
        }
        let mut personal_again = again.clone();
        for id in touched.iter().filter(|id| matches!(id.kind, Kind::KongPlugin | Kind::KongClusterPlugin)) {
            again.insert(id.clone());
            personal_again.insert(id.clone());
            match settings(store, id) {
                Some((meta, settings)) => {
                    let before = self.made.remove(id);
                    self.made.insert(id.clone(), make(store, inputs, id, meta, settings, before));
                }
                None => drop(self.made.remove(id)),
            }
        }
        if personal_again.is_empty() && !touched.iter().any(|id| id.kind == Kind::IngressClass) {
            return (again, false);
        }
        let everywhere = self.everywhere(store, inputs);
        let differs = everywhere != self.everywhere;
        if differs {
            again.extend(everywhere.ambiguous.symmetric_difference(&self.everywhere.ambiguous).cloned());
            again.extend(everywhere.global.symmetric_difference(&self.everywhere.global).cloned());
            self.everywhere = everywhere;
        }
        // A plugin that runs everywhere and is another one now changes every chain.
        let rebuilt = touched.iter().any(|id| self.everywhere.contains(id));
        (again, differs || rebuilt)
    }

    fn everywhere(&self, store: &Store, inputs: &Inputs<'_>) -> Everywhere {
        let mut by_name: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
        for (id, made) in &self.made {
            let Some(meta) = store.meta(id).filter(|_| id.kind == Kind::KongClusterPlugin) else { continue };
            let is_global = meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
            if is_global && inputs.classes.own(store, meta, None) {
                by_name.entry(&made.name).or_default().push(id);
            }
        }
        let mut everywhere = Everywhere::default();
        for ids in by_name.into_values() {
            let place = if ids.len() == 1 { &mut everywhere.global } else { &mut everywhere.ambiguous };
            place.extend(ids.into_iter().cloned());
        }
        for id in self.made.keys() {
            let uses = references::uses(store, inputs, id);
            if !uses.is_attached() && !uses.people.is_nobody() {
                everywhere.personal.insert(id.clone());
            }
        }
        everywhere
    }

    /// What there is to say about an object that configures a plugin.
    pub(super) fn verdict(&self, store: &Store, inputs: &Inputs<'_>, id: &ObjectId) -> Option<Verdict> {
        let made = self.made.get(id)?;
        Some(verdict::of(store, inputs, id, made, &self.everywhere))
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
        self.global.contains(id) || self.ambiguous.contains(id) || self.personal.contains(id)
    }
}

impl Made {
    /// Whether requests must not be served without it. What we do not know may be anything.
    fn is_guard(&self) -> bool {
        self.kind.map_or_else(|| known::may_guard(&self.name), AnyKind::is_guard)
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
        plugin: Err(()),
        problems: ineffective(settings),
        notes: idle(settings),
        disabled: settings.disabled,
        protocols,
        object,
    };
    let Some(kind) = kind else {
        made.problems.push(known::unknown(&settings.plugin, &inputs.workshop.registry));
        return made;
    };
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
                        made.notes.extend(notes.into_iter().map(problem));
                    }
                    Err(invalid) => made.problems.extend(invalid.into_iter().map(problem)),
                }
            }
            made.config = config;
        }
    }
    made
}

fn problem(invalid: crate::plugin::Invalid) -> Problem {
    Problem::new(invalid.field, invalid.message, invalid.remedy)
}

/// Settings that somebody may count on and that we do not honor.
fn ineffective(settings: &PluginSettings) -> Vec<Problem> {
    let ordering = settings.ordering.iter().map(|_| {
        let message = "plugins run in the order of their priorities here, so it has no effect";
        Problem::new("ordering", message, "remove it, if that order will do")
    });
    ordering.collect()
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
