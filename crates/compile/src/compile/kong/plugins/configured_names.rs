//! What the configurations of plugins name: consumers, Services, vaults and URLs. A change of these concerns the
//! plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chosen_backends;
use super::compiled_plugin::CompiledPlugin;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::affected::keys_of_kind;
use crate::plugin_api::vault::VaultQuery;
use crate::store::Changes;

/// The plugins whose configurations name something, by what they name.
#[derive(Debug, Default)]
pub(in crate::compile) struct ConfiguredNames {
    /// The usable plugins whose configurations name consumers or groups.
    naming_consumers: BTreeSet<ObjectId>,
    /// The usable plugins with URLs to which their own routes respond.
    with_own_urls: BTreeSet<ObjectId>,
    /// The Services that usable plugins may choose for requests.
    choosing_services: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
    /// The plugins whose configurations refer to vaults, with what must be read from servers.
    using_vaults: BTreeMap<ObjectId, Vec<Arc<VaultQuery>>>,
}

impl ConfiguredNames {
    /// Sets what a plugin names. Takes its queries of vaults.
    pub(super) fn set(&mut self, id: &ObjectId, compiled: &mut CompiledPlugin) {
        self.remove(id);
        if let Some(queries) = compiled.vault_queries.take() {
            self.using_vaults.insert(id.clone(), queries);
        }
        let Ok(plugin) = &compiled.plugin else { return };
        if !plugin.named_consumers().is_empty() || !plugin.named_groups().is_empty() {
            self.naming_consumers.insert(id.clone());
        }
        if !plugin.own_urls().is_empty() {
            self.with_own_urls.insert(id.clone());
        }
        let services = plugin.chosen_backends().iter();
        let services: BTreeSet<ObjectKey> =
            services.filter_map(|name| chosen_backends::service_key(id, name).ok()).collect();
        if !services.is_empty() {
            self.choosing_services.insert(id.clone(), services);
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.naming_consumers.remove(id);
        self.with_own_urls.remove(id);
        self.choosing_services.remove(id);
        self.using_vaults.remove(id);
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
}

/// How many secrets of vaults the plugins of one namespace may use.
const MAX_VAULT_QUERIES: usize = 200;
