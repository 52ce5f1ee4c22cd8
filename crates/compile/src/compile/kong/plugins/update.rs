//! Rebuilds the plugins that a change touches, and finds what else changes with them.

use std::collections::{BTreeMap, BTreeSet};

use super::compiled_plugin::compile_plugin;
use super::global_plugins::GlobalPlugins;
use super::references;
use super::{PluginUpdate, Plugins};
use crate::api::kong::PluginSettings;
use crate::api::{Kind, Meta, ObjectId, Resource};
use crate::compile::CompileContext;
use crate::compile::parents::plans::ParentPlans;
use crate::store::{Changes, ObjectTable, Store};

/// The objects that refer to a plugin and changed, by plugin.
type ChangedReferrers = BTreeMap<ObjectId, Vec<ObjectId>>;

impl Plugins {
    /// Rebuilds the touched plugins. `reattached` are the routes that a change of Gateways or ListenerSets affects.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        touched: &Changes,
        reattached: &BTreeSet<ObjectId>,
    ) -> PluginUpdate {
        let changed_referrers = self.update_references(cx.store, touched, reattached);
        let mut affected = self.rebuild(cx, touched);
        let have_globals_changed = self.update_globals(cx, &mut affected);
        let mut update = PluginUpdate { verdicts_to_update: affected.clone(), ..PluginUpdate::default() };
        update.verdicts_to_update.extend(changed_referrers.keys().cloned());
        update.verdicts_to_update.extend(touched.iter().filter(|id| id.kind == Kind::KongCustomEntity).cloned());
        affected.extend(self.update_changed_referrers(cx, parents, &changed_referrers, &affected, &mut update));
        for id in &affected {
            self.update_referrers(cx, parents, id, &mut update);
        }
        self.update_touched_subjects(cx.store, touched, &mut update.subjects_to_update);
        // A change of a plugin that runs without a reference changes every chain.
        if have_globals_changed || touched.iter().any(|id| self.global_plugins.contains(id)) {
            update.routes_to_update.extend(all_with_chains(cx.store));
            update.routes_to_update.extend(cx.inputs.ingress.stream_config_maps());
        }
        update.routes_to_update.extend(self.consumer_grants.update(cx.store, touched));
        update
    }

    /// Updates the references of the touched objects.
    fn update_references(
        &mut self,
        store: &Store,
        touched: &Changes,
        reattached: &BTreeSet<ObjectId>,
    ) -> ChangedReferrers {
        let mut changed = ChangedReferrers::new();
        for id in touched {
            let references: BTreeSet<ObjectId> = store.plugins_referenced_by(id).collect();
            let before = self.referenced.remove(id).unwrap_or_default();
            for plugin in references.union(&before) {
                changed.entry(plugin.clone()).or_default().push(id.clone());
            }
            if !references.is_empty() {
                self.referenced.insert(id.clone(), references);
            }
        }
        // Whether a plugin is attached to a served route depends on the route's parents.
        for route in reattached.difference(touched) {
            for plugin in self.referenced.get(route).into_iter().flatten() {
                changed.entry(plugin.clone()).or_default().push(route.clone());
            }
        }
        changed
    }

    /// Builds the touched plugins again. Returns them.
    fn rebuild(&mut self, cx: CompileContext<'_>, touched: &Changes) -> BTreeSet<ObjectId> {
        let is_plugin = |id: &&ObjectId| matches!(id.kind, Kind::KongPlugin | Kind::KongClusterPlugin);
        let plugins: BTreeSet<ObjectId> = touched.iter().filter(is_plugin).cloned().collect();
        for id in &plugins {
            let mut before = self.plugins.remove(id);
            let Some((meta, settings)) = plugin_settings(cx.store, id) else {
                self.configured_names.remove(id);
                continue;
            };
            let for_subjects = before.as_mut().and_then(|before| before.for_subjects.take());
            let mut compiled = compile_plugin(cx, id, meta, settings, before);
            compiled.for_subjects = compiled.for_subjects(cx.inputs.plugin_factory.fail_open, for_subjects);
            self.configured_names.set(id, &mut compiled);
            self.plugins.insert(id.clone(), compiled);
        }
        plugins
    }

    /// Updates the global plugins. Returns whether they changed, and adds those that became or ceased to be global or
    /// ambiguous to `affected`.
    fn update_globals(&mut self, cx: CompileContext<'_>, affected: &mut BTreeSet<ObjectId>) -> bool {
        if !affected.iter().any(|id| id.kind == Kind::KongClusterPlugin) {
            return false;
        }
        let before = std::mem::replace(&mut self.global_plugins, GlobalPlugins::find(cx, &self.plugins));
        affected.extend(before.difference(&self.global_plugins).cloned());
        before != self.global_plugins
    }

    /// Updates the referrers of plugins of which only referrers changed. Returns the plugins whose referrers must be
    /// found again.
    fn update_changed_referrers(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        changed: &ChangedReferrers,
        affected: &BTreeSet<ObjectId>,
        update: &mut PluginUpdate,
    ) -> Vec<ObjectId> {
        let mut incomplete = Vec::new();
        for (id, changed) in changed.iter().filter(|(id, _)| !affected.contains(*id)) {
            let subjects = &mut update.subjects_to_update;
            let referrers = self.referrers.get_mut(id);
            if !referrers.is_some_and(|referrers| referrers.update(cx, parents, id, changed, subjects)) {
                incomplete.push(id.clone());
            }
        }
        incomplete
    }

    /// Finds the referrers of a plugin again. If they changed, adds the routes and Ingresses that use the plugin, and
    /// the consumers and groups for which it begins or ceases to run on all routes, to `update`.
    fn update_referrers(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        id: &ObjectId,
        update: &mut PluginUpdate,
    ) {
        let referrers = self.plugins.get(id).map(|compiled| references::referrers(cx, parents, id, compiled.scopes()));
        if referrers.as_ref() == self.referrers.get(id) {
            return;
        }
        update.subjects_to_update.extend(references::changed_subjects(self.referrers.get(id), referrers.as_ref()));
        let index = cx.store.dependency_index();
        let is_subject = |id: &ObjectId| matches!(id.kind, Kind::KongConsumer | Kind::KongConsumerGroup);
        // Of many consumers, none has a chain.
        if !index.dependents(id).all(is_subject) {
            let has_chains = |id: &ObjectId| INGRESSES.contains(&id.kind) || GATEWAY_ROUTES.contains(&id.kind);
            let affected = index.affected_by([id]);
            if affected.iter().any(|id| id.kind == Kind::Service) {
                // No reference leads from these to the Service.
                update.routes_to_update.extend(cx.inputs.ingress.stream_config_maps());
            }
            update.routes_to_update.extend(affected.into_iter().filter(has_chains));
        }
        match referrers {
            Some(referrers) => self.referrers.insert(id.clone(), referrers),
            None => self.referrers.remove(id),
        };
    }

    /// Adds the consumers and groups for which touched plugins run on all routes, and the consumers whose objects began
    /// or ceased to be rejected.
    fn update_touched_subjects(&mut self, store: &Store, touched: &Changes, to_update: &mut BTreeSet<ObjectId>) {
        for referrers in touched.iter().filter_map(|id| self.referrers.get(id)) {
            let subjects = referrers.subjects_on_all_routes();
            to_update.extend(subjects.map(|(kind, key)| ObjectId::new(kind, key.clone())));
        }
        for id in touched.iter().filter(|id| id.kind == Kind::KongConsumer) {
            let has_changed = match store.is_rejected(id) {
                true => self.rejected_consumers.insert(id.clone()),
                false => self.rejected_consumers.remove(id),
            };
            to_update.extend(has_changed.then(|| id.clone()));
        }
    }
}

/// The kinds of routes that have plugins: those without a Gateway, and those of Gateways.
const INGRESSES: [Kind; 3] = [Kind::Ingress, Kind::TcpIngress, Kind::UdpIngress];
const GATEWAY_ROUTES: [Kind; 5] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute, Kind::TlsRoute, Kind::UdpRoute];

/// All objects whose rules have chains.
fn all_with_chains(store: &Store) -> impl Iterator<Item = ObjectId> + '_ {
    fn ids<T: Resource>(table: &ObjectTable<T>) -> impl Iterator<Item = ObjectId> + '_ {
        table.keys().map(|key| ObjectId::new(T::KIND, key.clone()))
    }
    let ingresses = ids(&store.ingresses).chain(ids(&store.tcp_ingresses)).chain(ids(&store.udp_ingresses));
    let routes = ids(&store.http_routes).chain(ids(&store.grpc_routes)).chain(ids(&store.tcp_routes));
    ingresses.chain(routes).chain(ids(&store.tls_routes)).chain(ids(&store.udp_routes))
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
