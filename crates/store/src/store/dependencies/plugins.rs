//! The references of plugins, and of the kinds that plugins read: consumers, groups, vaults and entities.

use serde_json::{Map, Value};

use super::collector::{DependencyCollector, HasReferences};
use crate::api::kong::{
    KongClusterPlugin, KongConsumer, KongConsumerGroup, KongCustomEntity, KongPlugin, KongVault, PluginSettings,
    ValueReference,
};
use crate::api::{Kind, Meta};

impl HasReferences for KongPlugin {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        collector.add_plugin_settings(&self.settings);
    }
}

impl HasReferences for KongClusterPlugin {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_plugin_settings(&self.settings);
    }
}

impl HasReferences for KongConsumer {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_plugins(meta);
        for credential in &self.credentials {
            collector.add_object(Kind::Secret, None, credential);
        }
        for group in &self.consumer_groups {
            collector.add_object(Kind::KongConsumerGroup, None, group);
        }
    }
}

impl HasReferences for KongConsumerGroup {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_plugins(meta);
    }
}

impl HasReferences for KongVault {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        if let Some(config) = &self.spec.config {
            collector.add_vault(&self.spec.backend, config);
        }
    }
}

impl HasReferences for KongCustomEntity {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        collector.add_object(Kind::IngressClass, Some(""), &self.spec.controller_name);
        let Some(parent) = &self.spec.parent_ref else { return };
        if parent.kind.as_deref() == Some(Kind::KongClusterPlugin.name()) {
            collector.add_object(Kind::KongClusterPlugin, Some(""), &parent.name);
        } else {
            collector.add_object(Kind::KongPlugin, parent.namespace.as_deref(), &parent.name);
            collector.add_grants(parent.namespace.as_deref());
        }
    }
}

impl DependencyCollector {
    /// The Secrets with the configuration. One without a namespace is in the plugin's namespace.
    fn add_plugin_settings(&mut self, plugin: &PluginSettings) {
        let patch_secrets = plugin.config_patches.iter().map(|patch| &patch.value_from.secret_key_ref);
        let config_secret = plugin.config_from.as_ref().map(|source| &source.secret_key_ref);
        for secret in patch_secrets.chain(config_secret) {
            self.add_object(Kind::Secret, secret.namespace.as_deref(), &secret.name);
        }
        for (_, ValueReference { kind, target, .. }) in plugin.config.iter().flat_map(ValueReference::find_all) {
            self.add_object(kind, target.namespace.as_deref(), &target.name);
        }
    }

    /// The Secrets whose values a vault has, and those with what it needs to log in.
    fn add_vault(&mut self, backend: &str, config: &Map<String, Value>) {
        if let Some(namespace) = config.get("namespace").and_then(Value::as_str)
            && backend == "kubernetes"
        {
            let secrets = config.get("secrets").and_then(Value::as_array).into_iter().flatten();
            for name in secrets.filter_map(Value::as_str) {
                self.add_object(Kind::Secret, Some(namespace), name);
            }
        }
        for (_, reference) in ValueReference::find_all(config) {
            if let Some(namespace) = &reference.target.namespace {
                self.add_object(reference.kind, Some(namespace), &reference.target.name);
            }
        }
    }
}
