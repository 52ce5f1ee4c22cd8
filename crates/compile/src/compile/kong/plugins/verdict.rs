//! The verdict on an object that configures a plugin.

use super::compiled_plugin::CompiledPlugin;
use super::hidden_values::hide_value_at_field;
use super::references::{MisplacedReferences, PluginReferrers};
use super::{GlobalPlugins, consumer_grants, own_urls};
use crate::api::kong::annotations::{GLOBAL_LABEL, INGRESS_CLASS};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::ConsumerDirectory;
use crate::plugin_api::{NamedConsumer, NamedGroup};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::verdict::{Code, Condition, Verdict};

/// `global_plugins`: the plugins that run without a reference.
pub(super) fn build(
    cx: CompileContext<'_>,
    id: &ObjectId,
    compiled: &CompiledPlugin,
    referrers: &PluginReferrers,
    global_plugins: &GlobalPlugins,
    snapshot: &Snapshot,
) -> Verdict {
    let store = cx.store;
    let mut problems = compiled.problems.clone();
    problems.extend(missing_consumers(compiled, &snapshot.consumers));
    if global_plugins.ambiguous.contains(id) {
        let message =
            format!("another KongClusterPlugin with this label also configures {}, so neither runs", compiled.name);
        problems.push(Diagnostic::error(LABEL_FIELD, message, "keep the label on only one of them"));
    }
    let misplaced = match referrers.misplaced {
        MisplacedReferences { consumers: true, groups: true } => Some("consumers and groups"),
        MisplacedReferences { consumers: true, groups: false } => Some("consumers"),
        MisplacedReferences { consumers: false, groups: true } => Some("groups"),
        MisplacedReferences { consumers: false, groups: false } => None,
    };
    if let Some(objects) = misplaced {
        let message = format!("{} cannot be attached to {objects}, so it has no effect there", compiled.name);
        problems.push(Diagnostic::error("plugin", message, "remove it from their annotation konghq.com/plugins"));
    }
    let is_used = referrers.has_effect() || global_plugins.global.contains(id);
    let condition = if !problems.is_empty() {
        Condition::new(Code::ObjectInvalid, problems)
    } else if is_used {
        Condition::without_diagnostics(Code::ObjectProgrammed)
    } else {
        Condition::new(Code::ObjectPending, vec![unused(store, id)])
    };
    let generation = store.meta(id).map_or(0, |meta| meta.generation);
    let diagnostics = compiled
        .ineffective_in_kong
        .iter()
        .chain(&compiled.notes)
        .cloned()
        .chain(missing_groups(compiled, store))
        .chain(consumers_of_other_namespaces(cx, id, compiled, &snapshot.consumers))
        .chain(referrer_warnings(referrers))
        .chain(own_url_warnings(cx, compiled, snapshot, is_used))
        .collect();
    Verdict { generation, conditions: vec![condition], diagnostics, ..Verdict::default() }
}

/// Why an object runs nowhere.
fn unused(store: &Store, id: &ObjectId) -> Diagnostic {
    if id.kind != Kind::KongClusterPlugin {
        let remedy = "refer to it in an annotation konghq.com/plugins, or in an ExtensionRef filter of an HTTPRoute or \
                      GRPCRoute";
        return Diagnostic::of_object("nothing refers to it", remedy);
    }
    let label = store.meta(id).and_then(|meta| meta.labels.get(GLOBAL_LABEL)).map(|value| &**value);
    match label {
        // With the class, it would be global.
        Some("true") => {
            let message = "nothing refers to it, and it has the label global, but not the class";
            let remedy = format!(
                "set its annotation {INGRESS_CLASS} to the class, or refer to it in an annotation konghq.com/plugins"
            );
            Diagnostic::error(LABEL_FIELD, message, remedy)
        }
        None | Some("false") => {
            let remedy =
                "refer to it in an annotation konghq.com/plugins, or set the label global: \"true\" and the class";
            Diagnostic::of_object("nothing refers to it", remedy)
        }
        Some(other) => {
            let message = format!("nothing refers to it, and its label global is {other:?}");
            let remedy = "write \"true\", or refer to it in an annotation konghq.com/plugins";
            Diagnostic::error(LABEL_FIELD, message, remedy)
        }
    }
}

/// The consumers that the configuration names and that do not exist here.
fn missing_consumers(compiled: &CompiledPlugin, consumers: &ConsumerDirectory) -> Vec<Diagnostic> {
    let Ok(plugin) = &compiled.plugin else { return Vec::new() };
    let mut named = plugin.named_consumers();
    named.retain(|consumer| consumers.by_id_or_username(consumer.name).is_none());
    let problem = |NamedConsumer { path, name, consequence }: NamedConsumer<'_>| {
        let message = format!("no KongConsumer that Portico serves has the id or username {name:?}, so {consequence}");
        let remedy = format!("create it with the class in its annotation {INGRESS_CLASS}, or correct the name");
        Diagnostic::in_config(path, message, remedy)
    };
    named.into_iter().map(|consumer| hide_value_at_field(&compiled.origins, problem(consumer))).collect()
}

/// Warnings about consumers that the configuration names and that no route of the namespace of the plugin admits.
fn consumers_of_other_namespaces(
    cx: CompileContext<'_>,
    id: &ObjectId,
    compiled: &CompiledPlugin,
    consumers: &ConsumerDirectory,
) -> Vec<Diagnostic> {
    let Ok(plugin) = &compiled.plugin else { return Vec::new() };
    // A KongClusterPlugin has no namespace.
    if id.kind != Kind::KongPlugin || cx.inputs.plugin_factory.shares_consumers {
        return Vec::new();
    }
    let own = &id.key.namespace;
    let problem = |NamedConsumer { path, name, .. }: NamedConsumer<'_>| {
        let namespace = consumers.by_id_or_username(name)?.namespace().filter(|namespace| *namespace != own)?;
        let is_admitted = consumer_grants::permits_some(cx.store, own, namespace);
        let message = format!(
            "consumer {name:?} is of namespace {namespace}, and routes of namespace {own} admit its own consumers only"
        );
        let remedy = format!(
            "name a consumer of namespace {own}, or create a ReferenceGrant there from KongConsumer of namespace \
             {namespace} to the routes"
        );
        (!is_admitted).then(|| Diagnostic::in_config(path, message, remedy).into_warning())
    };
    let problems = plugin.named_consumers().into_iter().filter_map(problem);
    problems.map(|problem| hide_value_at_field(&compiled.origins, problem)).collect()
}

/// Warnings about groups that the configuration names and that do not exist.
fn missing_groups(compiled: &CompiledPlugin, store: &Store) -> Vec<Diagnostic> {
    let Ok(plugin) = &compiled.plugin else { return Vec::new() };
    let mut named = plugin.named_groups();
    named.retain(|group| {
        let (namespace, name) = group.name.split_once('/').unwrap_or_default();
        !store.kong_consumer_groups.contains_key(&ObjectKey::new(namespace, name))
    });
    let problem = |NamedGroup { path, name, consequence }: NamedGroup<'_>| {
        let message = format!("no KongConsumerGroup {name} exists, so {consequence}");
        let remedy = "create it, correct the name, or ignore this if the claims of tokens name the group";
        Diagnostic::in_config(path, message, remedy).into_warning()
    };
    named.into_iter().map(|group| hide_value_at_field(&compiled.origins, problem(group))).collect()
}

/// Warnings about URLs to which the plugin cannot respond. `is_used`: whether the plugin runs anywhere.
fn own_url_warnings(
    cx: CompileContext<'_>,
    compiled: &CompiledPlugin,
    snapshot: &Snapshot,
    is_used: bool,
) -> Vec<Diagnostic> {
    let Some(plugin) = compiled.plugin.as_ref().ok().filter(|_| is_used && compiled.is_active) else {
        return Vec::new();
    };
    let has_trusted_peers = cx.inputs.plugin_factory.has_trusted_peers;
    let warnings = own_urls::warnings(snapshot, plugin.own_urls(), has_trusted_peers);
    warnings.map(|warning| hide_value_at_field(&compiled.origins, warning)).collect()
}

/// Warnings about combinations of referrers whose effect users may not expect.
fn referrer_warnings(referrers: &PluginReferrers) -> impl Iterator<Item = Diagnostic> {
    let per_namespace_warning = referrers.is_combined_per_namespace().then(|| {
        let message = "consumers or groups, and routes of other namespaces, refer to it: it runs for all requests of \
                       these consumers and groups, and for all requests of these routes";
        let remedy = "to run it only for these consumers and groups on these routes, make it a KongPlugin to which \
                      both refer, with a ReferenceGrant";
        Diagnostic::of_object(message, remedy).into_warning()
    });
    let ignored_groups_warning = referrers.ignores_consumer_groups().then(|| {
        let message = "both consumers and groups refer to it, so the groups are ignored, as in Kong";
        Diagnostic::of_object(message, "configure a second plugin for the groups").into_warning()
    });
    per_namespace_warning.into_iter().chain(ignored_groups_warning)
}

const LABEL_FIELD: &str = "metadata.labels[global]";
