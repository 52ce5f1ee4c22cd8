//! Finds the objects that refer to a plugin, and the plugin that a reference resolves to (docs/kong-compatibility.md,
//! 1.4).
//!
//! A plugin that both consumers or groups and routes refer to runs on these routes for these consumers and groups only.
//! All referrers of a KongPlugin are combined, because they are in its namespace or allowed by a grant. Any namespace
//! can refer to a KongClusterPlugin, so its referrers are combined per namespace; otherwise a consumer of one namespace
//! would disable guards on routes of another.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::CompileContext;
use super::super::consumers;
use super::super::ingress::annotations::annotation_field;
use super::super::reference_grants::{CrossNamespaceReference, Referrer};
use crate::api::gateway::{HttpRoute, LocalObjectReference};
use crate::api::kind::{GATEWAY_GROUP, KONG_GROUP};
use crate::api::kong::annotations::{PLUGINS, list};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Scopes;
use crate::store::Store;

/// All objects that refer to one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PluginUses {
    /// Whether referrers of all namespaces are combined.
    is_shared: bool,
    /// The combined referrers, per namespace unless `is_shared`.
    groups: BTreeMap<Arc<str>, ReferrerGroup>,
    /// Kinds of objects that refer to the plugin but do not support it.
    pub(super) misplaced: MisplacedReferences,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ReferrerGroup {
    /// Whether a served route or backend refers to it.
    is_attached: bool,
    subjects: PluginSubjects,
    /// Whether groups are ignored because consumers refer to it as well.
    ignores_consumer_groups: bool,
}

/// The consumers and groups that a plugin is restricted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PluginSubjects {
    /// Consumer ids.
    pub(super) consumers: Vec<Arc<str>>,
    /// Group names.
    pub(super) groups: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MisplacedReferences {
    pub(super) consumers: bool,
    pub(super) groups: bool,
}

impl PluginUses {
    /// Whether any object refers to it where it is supported.
    pub(super) fn is_any(&self) -> bool {
        self.groups.values().any(|together| together.is_attached || !together.subjects.is_empty())
    }

    /// The consumers and groups it is restricted to when an object of this namespace attaches it.
    pub(super) fn subjects(&self, namespace: &str) -> Option<&PluginSubjects> {
        let together = self.groups.get(if self.is_shared { "" } else { namespace })?;
        Some(&together.subjects).filter(|people| !people.is_empty())
    }

    /// The consumers and groups for which it runs on all routes, because no route refers to it.
    pub(super) fn everywhere(&self) -> PluginSubjects {
        let mut people = PluginSubjects::default();
        for together in self.groups.values().filter(|together| !together.is_attached) {
            people.consumers.extend(together.subjects.consumers.iter().cloned());
            people.groups.extend(together.subjects.groups.iter().cloned());
        }
        people
    }

    /// Whether it runs on all routes for some consumers although routes of other namespaces refer to it.
    pub(super) fn is_combined_per_namespace(&self) -> bool {
        let is_attached = self.groups.values().any(|together| together.is_attached);
        is_attached && !self.everywhere().is_empty()
    }

    /// Whether groups are ignored because consumers refer to the plugin as well.
    pub(super) fn ignores_consumer_groups(&self) -> bool {
        self.groups.values().any(|together| together.ignores_consumer_groups)
    }

    fn group_mut(&mut self, namespace: &Arc<str>) -> &mut ReferrerGroup {
        self.groups.entry(if self.is_shared { "".into() } else { Arc::clone(namespace) }).or_default()
    }

    /// Removes the consumers and groups that the plugin does not support.
    fn restrict_to(mut self, scopes: Scopes) -> Self {
        for together in self.groups.values_mut() {
            let people = &mut together.subjects;
            if !scopes.consumer {
                self.misplaced.consumers |= !std::mem::take(&mut people.consumers).is_empty();
            }
            if !scopes.consumer_group {
                self.misplaced.groups |= !std::mem::take(&mut people.groups).is_empty();
            }
            if !people.consumers.is_empty() {
                together.ignores_consumer_groups = !std::mem::take(&mut people.groups).is_empty();
            }
        }
        self
    }
}

impl PluginSubjects {
    pub(super) fn is_empty(&self) -> bool {
        self.consumers.is_empty() && self.groups.is_empty()
    }
}

/// A reference in the annotation: its token, and the plugin or the reason why there is none.
pub(super) struct PluginReference {
    pub(super) token: String,
    pub(super) target: Result<ObjectId, Diagnostic>,
}

/// The references in the annotation of an object, in order.
pub(super) fn plugin_references(store: &Store, kind: Kind, meta: &Meta) -> Vec<PluginReference> {
    let Some(value) = meta.annotations.get(PLUGINS) else { return Vec::new() };
    list(value)
        .map(|token| PluginReference {
            token: token.to_owned(),
            target: resolve_reference(store, kind, &meta.key, token),
        })
        .collect()
}

fn resolve_reference(store: &Store, from: Kind, referrer: &ObjectKey, token: &str) -> Result<ObjectId, Diagnostic> {
    if let Some((namespace, name)) = token.split_once(':') {
        let target = ObjectKey::new(namespace, name);
        let crossing = CrossNamespaceReference {
            from: Referrer { kind: from, namespace: &referrer.namespace },
            to: Kind::KongPlugin,
            target: &target,
        };
        if !crossing.is_allowed(store) {
            return Err(crossing.problem(annotation_field(PLUGINS)));
        }
        if store.kong_plugins.contains_key(&target) {
            return Ok(ObjectId::new(Kind::KongPlugin, target));
        }
        let plugin = format!("KongPlugin {target}");
        return Err(Diagnostic::not_found(annotation_field(PLUGINS), plugin, "create it or correct the name"));
    }
    let own = ObjectKey { namespace: referrer.namespace.clone(), name: token.into() };
    if store.kong_plugins.contains_key(&own) {
        return Ok(ObjectId::new(Kind::KongPlugin, own));
    }
    let common = ObjectKey::cluster(token);
    if store.kong_cluster_plugins.contains_key(&common) {
        return Ok(ObjectId::new(Kind::KongClusterPlugin, common));
    }
    let message = format!("there is neither a KongPlugin {own} nor a KongClusterPlugin {token}");
    Err(Diagnostic::error(annotation_field(PLUGINS), message, "create one of them or correct the name"))
}

/// The objects that refer to this plugin, which can be attached within `scopes`.
///
/// A name without namespace refers to a KongClusterPlugin only if no KongPlugin has that name. Only served objects
/// count, so that routes of other controllers do not affect the plugin.
pub(super) fn uses(cx: CompileContext<'_>, plugin: &ObjectId, scopes: Scopes) -> PluginUses {
    let is_shared = plugin.kind == Kind::KongPlugin || cx.inputs.plugin_factory.fail_open;
    let mut uses = PluginUses { is_shared, ..PluginUses::default() };
    for id in cx.store.dependency_index().dependents(plugin) {
        let Some(meta) = cx.store.meta(id) else { continue };
        let means_it = || {
            let names = meta.annotations.get(PLUGINS).map(|value| &**value).unwrap_or_default();
            list(names).any(|token| resolve_reference(cx.store, id.kind, &meta.key, token).as_ref() == Ok(plugin))
        };
        let is_attached = match id.kind {
            Kind::KongConsumer => {
                if consumers::is_served(cx, id) && means_it() {
                    uses.group_mut(&id.key.namespace)
                        .subjects
                        .consumers
                        .push(Arc::from(&*consumers::consumer_id(&meta.key)));
                }
                continue;
            }
            Kind::KongConsumerGroup => {
                if consumers::is_served(cx, id) && means_it() {
                    uses.group_mut(&id.key.namespace).subjects.groups.push(consumers::group_name(&meta.key));
                }
                continue;
            }
            Kind::HttpRoute => {
                let route = cx.store.http_routes.get(&id.key).filter(|route| is_served_route(cx, route));
                route.is_some_and(|route| means_it() || has_filter(route, plugin))
            }
            Kind::Ingress => {
                let ingress = cx.store.ingresses.get(&id.key);
                let class = ingress.and_then(|ingress| ingress.spec.ingress_class_name.as_deref());
                cx.inputs.classes.serves_object(cx.store, meta, class) && means_it()
            }
            Kind::KongServiceFacade => cx.inputs.classes.serves_object(cx.store, meta, None) && means_it(),
            Kind::Service => means_it(),
            // Plugins do not run for kinds that are not served.
            _ => continue,
        };
        if is_attached {
            uses.group_mut(&id.key.namespace).is_attached = true;
        }
    }
    uses.restrict_to(scopes)
}
/// Whether the route refers to a served Gateway.
fn is_served_route(cx: CompileContext<'_>, route: &Object<HttpRoute>) -> bool {
    let gateways = route.spec.parent_refs.iter().filter_map(|parent| {
        let is_gateway = parent.group == GATEWAY_GROUP && parent.kind == Kind::Gateway.name();
        let namespace = parent.namespace.as_deref().unwrap_or(&route.meta.key.namespace);
        cx.store.gateways.get(&ObjectKey::new(namespace, &parent.name)).filter(|_| is_gateway)
    });
    let mut classes = gateways
        .filter_map(|gateway| cx.store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name)));
    classes.any(|class| cx.inputs.controllers.contains(&class.spec.controller_name))
}

/// Whether a filter of a rule refers to the plugin; filters can refer to KongPlugins of the route's namespace only.
fn has_filter(route: &Object<HttpRoute>, plugin: &ObjectId) -> bool {
    let names_it = |reference: &LocalObjectReference| {
        reference.group == KONG_GROUP
            && reference.kind == Kind::KongPlugin.name()
            && *reference.name == *plugin.key.name
    };
    plugin.kind == Kind::KongPlugin
        && plugin.key.namespace == route.meta.key.namespace
        && (route.spec.rules.iter().flat_map(|rule| &rule.filters))
            .any(|filter| filter.kind == "ExtensionRef" && filter.extension_ref.as_ref().is_some_and(names_it))
}
