//! Builds plugins once per configuring object, and attaches them to the chains of the rules that refer to them.
//!
//! ```text
//!   KongPlugin, KongClusterPlugin ─ configuration.rs ─▶ PluginFactory ─▶ CompiledPlugin
//!   annotations, ExtensionRef ─ references.rs ─▶ plugins of a rule ─ chain.rs ─▶ Chain
//!                                            ├─▶ plugins of a stream route ─ stream_chain.rs ─▶ StreamChain
//!                                            └─▶ plugins of a consumer ─ subjects.rs ─▶ ConsumerDirectory
//! ```
//!
//! compiled_plugin.rs builds one of them; custom_entities.rs adds the fields of KongCustomEntities to the
//! configurations of plugins. hidden_values.rs keeps the values of Secrets and vaults out of all diagnostics.
//!
//! A guard is a plugin that protects routes, such as authentication. A guard that cannot be built is replaced by a
//! plugin that rejects all requests (docs/kong-compatibility.md, 3.12), unless plugins fail open.

mod chain;
mod chosen_backends;
mod compiled_plugin;
mod configuration;
mod consumer_grants;
mod custom_entities;
mod degraded;
mod hidden_values;
mod ordering;
mod own_urls;
mod protocols;
mod references;
mod route_description;
mod secret_values;
mod stream_chain;
mod subjects;
mod unsupported_plugins;
mod vault_values;
mod verdict;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(in crate::compile) use chain::{PluginSite, RuleChain};
pub(in crate::compile) use chosen_backends::ChoiceSettings;
pub use degraded::with_degraded_plugins;
pub(in crate::compile) use references::missing_filter_plugin;
pub(in crate::compile) use route_description::RouteFacts;
pub(in crate::compile) use stream_chain::{StreamPluginSite, StreamPlugins};
pub(in crate::compile) use subjects::{plugin_subject, touched_groups};

use crate::api::gateway::LocalObjectReference;
use crate::api::kong::PluginSettings;
use crate::api::kong::annotations::GLOBAL_LABEL;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::parents::plans::ParentPlans;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::vault::VaultQuery;
use crate::snapshot::Snapshot;
use crate::store::{Changes, Store};
use crate::verdict::Verdict;
use compiled_plugin::{CompiledPlugin, compile_plugin};
use consumer_grants::ConsumerGrants;
use custom_entities::EntityParents;
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
    /// The usable plugins whose configurations name consumers or groups.
    naming_consumers: BTreeSet<ObjectId>,
    /// The usable plugins with URLs to which their own routes respond.
    with_own_urls: BTreeSet<ObjectId>,
    /// The Services that usable plugins may choose for requests.
    choosing_services: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
    /// The plugins whose configurations refer to vaults, with what must be read from servers.
    using_vaults: BTreeMap<ObjectId, Vec<Arc<VaultQuery>>>,
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

/// Plugins that run for all requests, on rules without a reference to them.
#[derive(Debug, Default, PartialEq, Eq)]
struct GlobalPlugins {
    /// Objects with the label `global`, each of which configures a different plugin.
    global: BTreeSet<ObjectId>,
    /// Objects with that label of which several configure the same plugin, so that none of them runs.
    ambiguous: BTreeSet<ObjectId>,
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

    /// Rebuilds the touched plugins. `reattached` are the routes that a change of Gateways or ListenerSets affects.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        touched: &Changes,
        reattached: &BTreeSet<ObjectId>,
    ) -> PluginUpdate {
        let mut affected_plugins = BTreeSet::new();
        // The changed referrers of each plugin. Plugins with other changes are in `affected_plugins`.
        let mut changed_referrers: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
        for id in touched {
            let references: BTreeSet<ObjectId> = cx.store.plugins_referenced_by(id).collect();
            let before = self.referenced.remove(id).unwrap_or_default();
            for plugin in references.union(&before) {
                changed_referrers.entry(plugin.clone()).or_default().push(id.clone());
            }
            if !references.is_empty() {
                self.referenced.insert(id.clone(), references);
            }
        }
        // Whether a plugin is attached to a served route depends on the route's parents.
        for route in reattached.difference(touched) {
            for plugin in self.referenced.get(route).into_iter().flatten() {
                changed_referrers.entry(plugin.clone()).or_default().push(route.clone());
            }
        }
        for id in touched.iter().filter(|id| matches!(id.kind, Kind::KongPlugin | Kind::KongClusterPlugin)) {
            affected_plugins.insert(id.clone());
            match plugin_settings(cx.store, id) {
                Some((meta, settings)) => {
                    let mut before = self.plugins.remove(id);
                    let for_subjects = before.as_mut().and_then(|before| before.for_subjects.take());
                    let mut compiled = compile_plugin(cx, id, meta, settings, before);
                    compiled.for_subjects = compiled.for_subjects(cx.inputs.plugin_factory.fail_open, for_subjects);
                    let names_consumers = compiled
                        .plugin
                        .as_ref()
                        .is_ok_and(|plugin| !plugin.named_consumers().is_empty() || !plugin.named_groups().is_empty());
                    match compiled.vault_queries.take() {
                        Some(queries) => drop(self.using_vaults.insert(id.clone(), queries)),
                        None => drop(self.using_vaults.remove(id)),
                    }
                    let services = compiled.plugin.as_ref().map_or(&[][..], |plugin| plugin.chosen_backends()).iter();
                    let services: BTreeSet<ObjectKey> =
                        services.filter_map(|name| chosen_backends::service_key(id, name).ok()).collect();
                    match services.is_empty() {
                        true => drop(self.choosing_services.remove(id)),
                        false => drop(self.choosing_services.insert(id.clone(), services)),
                    }
                    match compiled.plugin.as_ref().is_ok_and(|plugin| !plugin.own_urls().is_empty()) {
                        true => self.with_own_urls.insert(id.clone()),
                        false => self.with_own_urls.remove(id),
                    };
                    match names_consumers {
                        true => self.naming_consumers.insert(id.clone()),
                        false => self.naming_consumers.remove(id),
                    };
                    self.plugins.insert(id.clone(), compiled);
                }
                None => {
                    self.with_own_urls.remove(id);
                    self.naming_consumers.remove(id);
                    self.using_vaults.remove(id);
                    self.choosing_services.remove(id);
                    self.plugins.remove(id);
                }
            }
        }
        let mut routes_to_update = Changes::new();
        let have_globals_changed = self.update_globals(cx, &mut affected_plugins);
        let mut subjects_to_update = BTreeSet::new();
        let mut verdicts_to_update = affected_plugins.clone();
        for (id, changed) in changed_referrers {
            let referrers = self.referrers.get_mut(&id).filter(|_| !affected_plugins.contains(&id));
            let is_complete = referrers
                .is_some_and(|referrers| referrers.update(cx, parents, &id, &changed, &mut subjects_to_update));
            if !is_complete {
                affected_plugins.insert(id.clone());
            }
            verdicts_to_update.insert(id);
        }
        for id in &affected_plugins {
            self.update_referrers(cx, parents, id, &mut routes_to_update, &mut subjects_to_update);
        }
        verdicts_to_update.extend(touched.iter().filter(|id| id.kind == Kind::KongCustomEntity).cloned());
        for referrers in touched.iter().filter_map(|id| self.referrers.get(id)) {
            let subjects = referrers.subjects_on_all_routes();
            subjects_to_update.extend(subjects.map(|(kind, key)| ObjectId::new(kind, key.clone())));
        }
        for id in touched.iter().filter(|id| id.kind == Kind::KongConsumer) {
            let has_changed = match cx.store.is_rejected(id) {
                true => self.rejected_consumers.insert(id.clone()),
                false => self.rejected_consumers.remove(id),
            };
            subjects_to_update.extend(has_changed.then(|| id.clone()));
        }
        // A change of a plugin that runs without a reference changes every chain.
        if have_globals_changed || touched.iter().any(|id| self.global_plugins.contains(id)) {
            routes_to_update.extend(cx.store.http_routes.keys().map(|key| ObjectId::new(Kind::HttpRoute, key.clone())));
            routes_to_update.extend(cx.store.grpc_routes.keys().map(|key| ObjectId::new(Kind::GrpcRoute, key.clone())));
            routes_to_update.extend(cx.store.tcp_routes.keys().map(|key| ObjectId::new(Kind::TcpRoute, key.clone())));
            routes_to_update.extend(cx.store.tls_routes.keys().map(|key| ObjectId::new(Kind::TlsRoute, key.clone())));
            routes_to_update.extend(cx.store.udp_routes.keys().map(|key| ObjectId::new(Kind::UdpRoute, key.clone())));
            routes_to_update.extend(cx.store.ingresses.keys().map(|key| ObjectId::new(Kind::Ingress, key.clone())));
            let (tcp, udp) = (cx.store.tcp_ingresses.keys(), cx.store.udp_ingresses.keys());
            routes_to_update.extend(tcp.map(|key| ObjectId::new(Kind::TcpIngress, key.clone())));
            routes_to_update.extend(udp.map(|key| ObjectId::new(Kind::UdpIngress, key.clone())));
        }
        routes_to_update.extend(self.consumer_grants.update(cx.store, touched));
        PluginUpdate { verdicts_to_update, routes_to_update, subjects_to_update }
    }

    /// Updates the plugins with the label `global`, which has an effect on KongClusterPlugins only. Returns whether
    /// they changed, and adds those that became or ceased to be global or ambiguous to `affected_plugins`.
    fn update_globals(&mut self, cx: CompileContext<'_>, affected_plugins: &mut BTreeSet<ObjectId>) -> bool {
        if !affected_plugins.iter().any(|id| id.kind == Kind::KongClusterPlugin) {
            return false;
        }
        let mut by_name: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
        for (id, compiled) in &self.plugins {
            let Some(meta) = cx.store.meta(id).filter(|_| id.kind == Kind::KongClusterPlugin) else { continue };
            let is_global = meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
            let is_served = || cx.inputs.classes.serves_object(cx.store, meta, None);
            if is_global && (is_served() || cx.store.has_unreadable_class(id)) {
                by_name.entry(&compiled.name).or_default().push(id);
            }
        }
        let (mut global, mut ambiguous) = (BTreeSet::new(), BTreeSet::new());
        for ids in by_name.into_values() {
            let target = if ids.len() == 1 { &mut global } else { &mut ambiguous };
            target.extend(ids.into_iter().cloned());
        }
        let globals = &mut self.global_plugins;
        if (&global, &ambiguous) == (&globals.global, &globals.ambiguous) {
            return false;
        }
        affected_plugins.extend(global.symmetric_difference(&globals.global).cloned());
        affected_plugins.extend(ambiguous.symmetric_difference(&globals.ambiguous).cloned());
        (globals.global, globals.ambiguous) = (global, ambiguous);
        true
    }

    /// Updates the referrers of a plugin. If they changed, adds the routes and Ingresses that use the plugin to
    /// `routes_to_update`, and the consumers and groups for which it begins or ceases to run on all routes to
    /// `subjects_to_update`.
    fn update_referrers(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        id: &ObjectId,
        routes_to_update: &mut Changes,
        subjects_to_update: &mut BTreeSet<ObjectId>,
    ) {
        let referrers = self.plugins.get(id).map(|compiled| references::referrers(cx, parents, id, compiled.scopes()));
        if referrers.as_ref() == self.referrers.get(id) {
            return;
        }
        subjects_to_update.extend(references::changed_subjects(self.referrers.get(id), referrers.as_ref()));
        let index = cx.store.dependency_index();
        let is_subject = |id: &ObjectId| matches!(id.kind, Kind::KongConsumer | Kind::KongConsumerGroup);
        // Of many consumers, none has a chain.
        if !index.dependents(id).all(is_subject) {
            let has_chains = |id: &ObjectId| INGRESSES.contains(&id.kind) || GATEWAY_ROUTES.contains(&id.kind);
            routes_to_update.extend(index.affected_by([id]).into_iter().filter(has_chains));
        }
        match referrers {
            Some(referrers) => self.referrers.insert(id.clone(), referrers),
            None => self.referrers.remove(id),
        };
    }

    /// The plugins whose configurations refer to vaults.
    pub(in crate::compile) fn using_vaults(&self) -> impl Iterator<Item = &ObjectId> {
        self.using_vaults.keys()
    }

    /// What must be read from servers. Of the queries of one namespace, all but the first are left out.
    pub(in crate::compile) fn vault_queries(&self) -> BTreeSet<Arc<VaultQuery>> {
        let mut by_namespace: BTreeMap<&str, BTreeSet<&Arc<VaultQuery>>> = BTreeMap::new();
        for (id, queries) in &self.using_vaults {
            let of_namespace = by_namespace.entry(&id.key.namespace).or_default();
            for query in queries {
                if of_namespace.len() < MAX_VAULT_QUERIES || of_namespace.contains(query) {
                    of_namespace.insert(query);
                }
            }
        }
        by_namespace.into_values().flatten().cloned().collect()
    }

    /// The plugins that may choose a Service to which requests may now be sent in another way. `endpoints_changed`: the
    /// Services of which only the endpoints and the settings of upstreams changed.
    pub(in crate::compile) fn choosing_touched_services(
        &self,
        touched: &Changes,
        endpoints_changed: &BTreeSet<ObjectId>,
    ) -> Vec<ObjectId> {
        let is_affected = |service: &ObjectKey| {
            let id = ObjectId::new(Kind::Service, service.clone());
            let is_granted = |grant: &ObjectKey| grant.namespace == service.namespace;
            touched.contains(&id) && !endpoints_changed.contains(&id)
                || keys_of_kind(touched, Kind::ReferenceGrant).any(is_granted)
        };
        let choosing = self.choosing_services.iter().filter(|(_, services)| services.iter().any(is_affected));
        choosing.map(|(id, _)| id.clone()).collect()
    }

    /// The plugins whose verdicts depend on all routes.
    pub(in crate::compile) fn with_own_urls(&self) -> impl Iterator<Item = &ObjectId> {
        self.with_own_urls.iter()
    }

    /// The plugins whose verdicts depend on which consumers and groups exist, if any was touched, and on which
    /// consumers of other namespaces the routes of the plugin's namespace admit, if a ReferenceGrant there was.
    pub(in crate::compile) fn naming_touched_consumers(&self, touched: &Changes) -> impl Iterator<Item = &ObjectId> {
        let kinds = [Kind::KongConsumer, Kind::KongConsumerGroup];
        let is_touched = kinds.into_iter().any(|kind| keys_of_kind(touched, kind).next().is_some());
        let granting: BTreeSet<_> = keys_of_kind(touched, Kind::ReferenceGrant).map(|key| &key.namespace).collect();
        self.naming_consumers.iter().filter(move |id| is_touched || granting.contains(&id.key.namespace))
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

/// How many secrets of vaults the plugins of one namespace may use.
const MAX_VAULT_QUERIES: usize = 200;

/// The kinds of routes that have plugins: those without a Gateway, and those of Gateways.
const INGRESSES: [Kind; 3] = [Kind::Ingress, Kind::TcpIngress, Kind::UdpIngress];
const GATEWAY_ROUTES: [Kind; 5] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute, Kind::TlsRoute, Kind::UdpRoute];

/// For each reference in the annotation of an object: the plugin, or the reason why the reference cannot be resolved.
pub(in crate::compile) fn referenced_plugins<'s>(
    cx: CompileContext<'s>,
    kind: Kind,
    meta: &'s Meta,
) -> impl Iterator<Item = Result<ObjectId, Diagnostic>> {
    let references = references::plugin_references(cx.store, cx.inputs.absent_kinds, kind, meta).into_iter();
    references.map(|reference| reference.target.map_err(|(_, problem)| problem))
}

impl GlobalPlugins {
    fn contains(&self, id: &ObjectId) -> bool {
        self.global.contains(id) || self.ambiguous.contains(id)
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

/// Whether a filter refers to a KongPlugin. The reference has no namespace: that of the route applies.
pub(in crate::compile) fn is_plugin_reference(reference: &LocalObjectReference) -> bool {
    reference.group == Kind::KongPlugin.group() && reference.kind == Kind::KongPlugin.name()
}

/// Whether the namespace has a KongPlugin of this name.
pub(in crate::compile) fn exists(store: &Store, namespace: &str, name: &str) -> bool {
    store.kong_plugins.contains_key(&ObjectKey::new(namespace, name))
}
