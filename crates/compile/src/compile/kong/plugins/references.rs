//! Finds the objects that refer to a plugin, and the plugin that a reference resolves to (docs/kong-compatibility.md,
//! 1.4).
//!
//! If routes refer to a plugin, and consumers or groups do as well, it runs on these routes for these consumers and
//! groups only. All referrers of a KongPlugin are combined, because they are in its namespace or allowed by a grant.
//! Any namespace can refer to a KongClusterPlugin, so its referrers are combined per namespace; otherwise a reference
//! from a consumer of one namespace would disable a guard on routes of another namespace for all other clients.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::gateway::LocalObjectReference;
use crate::api::kind::KONG_GROUP;
use crate::api::kong::annotations::{PLUGINS, list};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::ingress_class::dialect;
use crate::compile::kong::consumers::{identity, served};
use crate::compile::kong::known_annotations::misspelled_guard;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::compile::objects::request_route::RequestRoute;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::parents::references::is_served_route;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Scopes;
use crate::store::Store;
use crate::verdict::Code;

/// All objects that refer to one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PluginReferrers {
    /// Whether the referrers of all namespaces are combined, instead of those of each namespace separately.
    is_shared: bool,
    /// The combined referrers: per namespace, or under "" if `is_shared`.
    combined_referrers: BTreeMap<Arc<str>, CombinedReferrers>,
    /// References that have no effect because the plugin does not support them.
    pub(super) misplaced: MisplacedReferences,
}

/// Referrers whose references are combined.
#[derive(Debug, Default, PartialEq, Eq)]
struct CombinedReferrers {
    /// Whether one of them is a served route or a backend.
    is_attached: bool,
    subjects: PluginSubjects,
    /// Whether consumer groups are ignored because consumers refer to the plugin as well.
    ignores_consumer_groups: bool,
}

/// The consumers and groups that a plugin is restricted to.
#[derive(Debug, Default)]
pub(super) struct PluginSubjects {
    /// KongConsumers, sorted.
    consumers: Vec<ObjectKey>,
    /// The ids of `consumers`, which the chains of all rules share. Unset until a chain needs them: plugins that run on
    /// all routes are in no chain.
    consumer_ids: OnceCell<Box<[Arc<str>]>>,
    /// KongConsumerGroups, sorted.
    pub(super) groups: Vec<ObjectKey>,
}

/// Which kinds of objects refer to a plugin that does not support them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MisplacedReferences {
    pub(super) consumers: bool,
    pub(super) groups: bool,
}

impl PluginReferrers {
    /// Whether a reference to the plugin has an effect.
    pub(super) fn has_effect(&self) -> bool {
        self.combined_referrers.values().any(|combined| combined.is_attached || !combined.subjects.is_empty())
    }

    /// The consumers and groups to which the plugin is restricted if an object of this namespace attaches it. `None`:
    /// it is not restricted.
    pub(super) fn subjects(&self, namespace: &str) -> Option<&PluginSubjects> {
        let combined = self.combined_referrers.get(if self.is_shared { "" } else { namespace })?;
        Some(&combined.subjects).filter(|subjects| !subjects.is_empty())
    }

    /// The consumers and groups for which the plugin runs on all routes, because they refer to it and none of the
    /// routes and backends with which they are combined does.
    pub(super) fn subjects_on_all_routes(&self) -> impl Iterator<Item = (Kind, &ObjectKey)> {
        let combined = self.combined_referrers.values().filter(|combined| !combined.is_attached);
        combined.flat_map(|combined| combined.subjects.iter())
    }

    /// Whether the plugin runs on all routes for this consumer or group.
    pub(super) fn runs_on_all_routes_for(&self, subject: &ObjectId) -> bool {
        let namespace = if self.is_shared { "" } else { &*subject.key.namespace };
        let combined = self.combined_referrers.get(namespace).filter(|combined| !combined.is_attached);
        combined.is_some_and(|combined| combined.subjects.contains(subject))
    }

    /// Whether the plugin runs on all routes for some consumers although routes of other namespaces refer to it.
    pub(super) fn is_combined_per_namespace(&self) -> bool {
        let is_attached = self.combined_referrers.values().any(|combined| combined.is_attached);
        is_attached && self.subjects_on_all_routes().next().is_some()
    }

    /// Whether groups are ignored because consumers refer to the plugin as well.
    pub(super) fn ignores_consumer_groups(&self) -> bool {
        self.combined_referrers.values().any(|combined| combined.ignores_consumer_groups)
    }

    /// Updates the referrers after these objects changed, without looking at all the others. Adds the consumers for
    /// which the plugin begins or ceases to run on all routes to `subjects_to_update`. Returns whether the referrers
    /// are complete; otherwise they must be found again.
    pub(super) fn update(
        &mut self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        plugin: &ObjectId,
        changed: &[ObjectId],
        subjects_to_update: &mut BTreeSet<ObjectId>,
    ) -> bool {
        // The combinations of which another member is known to attach the plugin.
        let mut attached = BTreeSet::new();
        changed.iter().all(|id| match id.kind {
            Kind::KongConsumer => self.update_consumer(cx, plugin, id, subjects_to_update),
            Kind::KongConsumerGroup => self.keeps_group(&id.key, is_referring_subject(cx, plugin, id)),
            _ => self.keeps_attachment(cx, parents, plugin, id, &mut attached),
        })
    }

    /// Updates whether the consumer refers to the plugin, if the plugin neither begins nor ceases to run on all routes.
    fn update_consumer(
        &mut self,
        cx: CompileContext<'_>,
        plugin: &ObjectId,
        id: &ObjectId,
        subjects_to_update: &mut BTreeSet<ObjectId>,
    ) -> bool {
        let refers = is_referring_subject(cx, plugin, id);
        let combined = self.combined_referrers.get_mut(if self.is_shared { "" } else { &*id.key.namespace });
        let position = combined.as_ref().map_or(Err(0), |combined| combined.subjects.consumers.binary_search(&id.key));
        if position.is_ok() == refers {
            // The list is always empty if the plugin does not support consumers.
            return !self.misplaced.consumers;
        }
        // The first and the last consumer also decide whether groups are ignored.
        let consumers =
            combined.filter(|combined| !combined.is_attached).map(|combined| combined.subjects.consumers_mut());
        let Some(consumers) = consumers.filter(|consumers| !consumers.is_empty()) else { return false };
        match position {
            Ok(_) if consumers.len() == 1 => return false,
            Ok(index) => drop(consumers.remove(index)),
            Err(index) => consumers.insert(index, id.key.clone()),
        }
        subjects_to_update.insert(id.clone());
        true
    }

    /// Whether the group refers to the plugin as before. Unknown for groups that are ignored.
    fn keeps_group(&self, group: &ObjectKey, refers: bool) -> bool {
        let combined = self.combined_referrers.get(if self.is_shared { "" } else { &*group.namespace });
        let referred = combined.is_some_and(|combined| combined.subjects.groups.binary_search(group).is_ok());
        let are_groups_ignored =
            self.misplaced.groups || combined.is_some_and(|combined| combined.ignores_consumer_groups);
        referred == refers && !are_groups_ignored
    }

    /// Whether the plugin is attached in the combination of this object as before. `attached` has the combinations for
    /// which another member that attaches it was found.
    fn keeps_attachment(
        &self,
        cx: CompileContext<'_>,
        parents: &ParentPlans,
        plugin: &ObjectId,
        id: &ObjectId,
        attached: &mut BTreeSet<Arc<str>>,
    ) -> bool {
        let namespace: Arc<str> = if self.is_shared { "".into() } else { Arc::clone(&id.key.namespace) };
        let was_attached = self.combined_referrers.get(&namespace).is_some_and(|combined| combined.is_attached);
        let attaches_now = attaches(cx, parents, id, plugin);
        if was_attached == attaches_now || attached.contains(&namespace) {
            return true;
        }
        let others = || {
            let of_kind = |kind| cx.store.dependency_index().dependents_of_kind(plugin, kind);
            ATTACHING_KINDS
                .iter()
                .copied()
                .flat_map(of_kind)
                .filter(|other| self.is_shared || other.key.namespace == namespace)
        };
        let keeps = was_attached && others().any(|other| attaches(cx, parents, other, plugin));
        if keeps {
            attached.insert(namespace);
        }
        keeps
    }

    fn combined_referrers_mut(&mut self, namespace: &Arc<str>) -> &mut CombinedReferrers {
        self.combined_referrers.entry(if self.is_shared { "".into() } else { Arc::clone(namespace) }).or_default()
    }

    /// Removes the consumers and groups that the plugin does not support, and groups that consumers override.
    fn restrict_to(mut self, scopes: Scopes) -> Self {
        for combined in self.combined_referrers.values_mut() {
            let subjects = &mut combined.subjects;
            if !scopes.consumer {
                self.misplaced.consumers |= !std::mem::take(subjects.consumers_mut()).is_empty();
            }
            if !scopes.consumer_group {
                self.misplaced.groups |= !std::mem::take(&mut subjects.groups).is_empty();
            }
            if !subjects.consumers.is_empty() {
                combined.ignores_consumer_groups = !std::mem::take(&mut subjects.groups).is_empty();
            }
        }
        self
    }
}

impl PluginSubjects {
    /// The ids of the KongConsumers.
    pub(super) fn consumer_ids(&self) -> &[Arc<str>] {
        let id = |key| Arc::from(&*identity::consumer_id(key));
        self.consumer_ids.get_or_init(|| self.consumers.iter().map(id).collect())
    }

    fn consumers_mut(&mut self) -> &mut Vec<ObjectKey> {
        self.consumer_ids.take();
        &mut self.consumers
    }

    fn is_empty(&self) -> bool {
        self.consumers.is_empty() && self.groups.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (Kind, &ObjectKey)> {
        let consumers = self.consumers.iter().map(|key| (Kind::KongConsumer, key));
        consumers.chain(self.groups.iter().map(|key| (Kind::KongConsumerGroup, key)))
    }

    fn contains(&self, subject: &ObjectId) -> bool {
        let keys = if subject.kind == Kind::KongConsumer { &self.consumers } else { &self.groups };
        keys.binary_search(&subject.key).is_ok()
    }
}

/// The ids follow from the consumers.
impl PartialEq for PluginSubjects {
    fn eq(&self, other: &Self) -> bool {
        (&self.consumers, &self.groups) == (&other.consumers, &other.groups)
    }
}

impl Eq for PluginSubjects {}

/// The consumers and groups for which a plugin runs on all routes before or after a change, but not both. Includes
/// others if several changed.
pub(super) fn changed_subjects(
    before: Option<&PluginReferrers>,
    after: Option<&PluginReferrers>,
) -> impl Iterator<Item = ObjectId> {
    let subjects = |referrers: Option<&PluginReferrers>| -> Vec<_> {
        let subjects = referrers.into_iter().flat_map(PluginReferrers::subjects_on_all_routes);
        subjects.map(|(kind, key)| ObjectId::new(kind, key.clone())).collect()
    };
    let (mut before, mut after) = (subjects(before), subjects(after));
    // One edit adds or removes one of many subjects, so the lists have the same beginning and the same end.
    let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    drop((before.drain(..same), after.drain(..same)));
    let same = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    before.truncate(before.len() - same);
    after.truncate(after.len() - same);
    before.into_iter().chain(after)
}

/// A reference in the annotation: its text, and the plugin or the reason why there is none.
pub(super) struct PluginReference {
    pub(super) token: String,
    pub(super) target: Result<ObjectId, UnresolvedPlugin>,
}

/// Why a reference leads to no plugin: what a condition of the route says, and the diagnostic.
pub(super) type UnresolvedPlugin = (Code, Diagnostic);

/// The references in the annotation of an object, in order, for the chain of a rule. If there are more than the budget
/// allows, the last one is an error instead: a plugin that is left out may restrict access.
pub(super) fn references_within_budget(cx: CompileContext<'_>, kind: Kind, meta: &Meta) -> Vec<PluginReference> {
    let entries = meta.annotations.get(PLUGINS).map_or(0, |value| list(value).count());
    match cx.inputs.budgets.too_many_plugins(entries) {
        Some(problem) => {
            let target = Err((Code::RouteInvalidPlugin, problem));
            vec![PluginReference { token: "of a list that is too long".to_owned(), target }]
        }
        None => plugin_references(cx.store, cx.inputs.absent_kinds, kind, meta),
    }
}

/// The references in the annotation of an object, in order. `absent`: the kinds that the cluster does not have.
pub(super) fn plugin_references(
    store: &Store,
    absent: &BTreeSet<Kind>,
    kind: Kind,
    meta: &Meta,
) -> Vec<PluginReference> {
    let value = meta.annotations.get(PLUGINS).map(|value| &**value).unwrap_or_default();
    let named = list(value).map(|token| PluginReference {
        token: token.to_owned(),
        target: resolve_reference(store, absent, kind, &meta.key, token),
    });
    named.chain(meta.annotations.keys().filter_map(|key| misspelled_reference(kind, key))).collect()
}

/// The reference for an annotation that would restrict requests, and that is misspelled. It leads to no plugin:
/// requests of a route or to a backend are rejected, and for a consumer or a group it is only reported.
fn misspelled_reference(kind: Kind, key: &str) -> Option<PluginReference> {
    let guard = misspelled_guard(kind, key)?;
    let problem =
        Diagnostic::error(annotation_field(key), "this annotation is unknown", format!("did you mean {guard}?"));
    Some(PluginReference {
        token: format!("of the annotation {key}"),
        target: Err((Code::RouteInvalidPlugin, problem)),
    })
}

fn resolve_reference(
    store: &Store,
    absent: &BTreeSet<Kind>,
    from: Kind,
    referrer: &ObjectKey,
    token: &str,
) -> Result<ObjectId, UnresolvedPlugin> {
    let field = || annotation_field(PLUGINS);
    if token.contains(|character: char| character == ';' || character.is_whitespace()) {
        let message = format!("{token:?} is not the name of a plugin");
        return Err((Code::RoutePluginNotFound, Diagnostic::error(field(), message, "separate names with commas")));
    }
    if let Some((namespace, name)) = token.split_once(':') {
        let target = ObjectKey::new(namespace, name);
        let crossing = CrossNamespaceReference {
            from: Referrer { kind: from, namespace: &referrer.namespace },
            to: Kind::KongPlugin,
            target: &target,
        };
        if !crossing.is_allowed(store) {
            return Err((Code::RoutePluginRefNotPermitted, crossing.problem(store, field())));
        }
        if store.kong_plugins.contains_key(&target) {
            return Ok(ObjectId::new(Kind::KongPlugin, target));
        }
        let plugin = format!("KongPlugin {target}");
        let problem = match not_installed(absent, &[Kind::KongPlugin]) {
            Some((reason, remedy)) => Diagnostic::error(field(), format!("{plugin} does not exist: {reason}"), remedy),
            None => Diagnostic::not_found(field(), plugin, CREATE_PLUGIN),
        };
        return Err((Code::RoutePluginNotFound, problem));
    }
    let namespaced = ObjectKey { namespace: referrer.namespace.clone(), name: token.into() };
    if store.kong_plugins.contains_key(&namespaced) {
        return Ok(ObjectId::new(Kind::KongPlugin, namespaced));
    }
    let cluster_wide = ObjectKey::cluster(token);
    if store.kong_cluster_plugins.contains_key(&cluster_wide) {
        return Ok(ObjectId::new(Kind::KongClusterPlugin, cluster_wide));
    }
    let message = format!("there is neither a KongPlugin {namespaced} nor a KongClusterPlugin {token}");
    let problem = match not_installed(absent, &[Kind::KongPlugin, Kind::KongClusterPlugin]) {
        Some((reason, remedy)) => Diagnostic::error(field(), format!("{message}: {reason}"), remedy),
        None => Diagnostic::error(field(), message, CREATE_EITHER_PLUGIN),
    };
    Err((Code::RoutePluginNotFound, problem))
}

const CREATE_PLUGIN: &str = "create it or correct the name";
/// KongPlugins of other namespaces are not looked for: the message would reveal that they exist.
const CREATE_EITHER_PLUGIN: &str = "create one of them or correct the name; for a KongPlugin of another namespace, \
                                    write NAMESPACE:NAME and create a ReferenceGrant there";

/// The diagnostic at `field` of a filter that refers to a KongPlugin that does not exist.
pub(in crate::compile) fn missing_filter_plugin(cx: CompileContext<'_>, field: &str, name: &str) -> Diagnostic {
    let message = format!("KongPlugin {name} does not exist in this namespace");
    match not_installed(cx.inputs.absent_kinds, &[Kind::KongPlugin]) {
        Some((reason, remedy)) => Diagnostic::error(field, format!("{message}: {reason}"), remedy),
        None => Diagnostic::error(field, message, CREATE_PLUGIN),
    }
}

/// Says which of these kinds the cluster does not have, and how to install them. `None` if it has all of them.
fn not_installed(absent: &BTreeSet<Kind>, kinds: &[Kind]) -> Option<(String, &'static str)> {
    let missing: Vec<_> = kinds.iter().filter(|kind| absent.contains(*kind)).map(|kind| kind.name()).collect();
    let reason = match &missing[..] {
        [] => return None,
        [kind] => format!("the kind {kind} is not installed"),
        kinds => format!("the kinds {} are not installed", kinds.join(" and ")),
    };
    Some((reason, "install Kong's kinds with: portico crds | kubectl apply --server-side -f -"))
}

/// The objects that refer to this plugin. `scopes`: the kinds of objects that it supports.
///
/// A name without namespace refers to a KongClusterPlugin only if no KongPlugin has that name. Only served objects
/// count, so that routes of other controllers do not affect the plugin.
pub(super) fn referrers(
    cx: CompileContext<'_>,
    parents: &ParentPlans,
    plugin: &ObjectId,
    scopes: Scopes,
) -> PluginReferrers {
    // With `fail_open`, the referrers of a KongClusterPlugin are combined as in Kong.
    let is_shared = plugin.kind == Kind::KongPlugin || cx.inputs.plugin_factory.fail_open;
    let mut referrers = PluginReferrers { is_shared, ..PluginReferrers::default() };
    for id in cx.store.dependency_index().dependents(plugin) {
        match id.kind {
            Kind::KongConsumer | Kind::KongConsumerGroup if !is_referring_subject(cx, plugin, id) => {}
            Kind::KongConsumer => {
                referrers.combined_referrers_mut(&id.key.namespace).subjects.consumers_mut().push(id.key.clone());
            }
            Kind::KongConsumerGroup => {
                referrers.combined_referrers_mut(&id.key.namespace).subjects.groups.push(id.key.clone());
            }
            _ if attaches(cx, parents, id, plugin) => {
                referrers.combined_referrers_mut(&id.key.namespace).is_attached = true;
            }
            _ => {}
        }
    }
    referrers.restrict_to(scopes)
}

/// The kinds of objects that attach plugins to requests or connections. Plugins do not run for kinds that are not
/// served.
const ATTACHING_KINDS: [Kind; 10] = [
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::UdpRoute,
    Kind::Ingress,
    Kind::TcpIngress,
    Kind::UdpIngress,
    Kind::KongServiceFacade,
    Kind::Service,
];

/// Whether an object attaches the plugin to its requests or connections.
fn attaches(cx: CompileContext<'_>, parents: &ParentPlans, id: &ObjectId, plugin: &ObjectId) -> bool {
    let Some(meta) = cx.store.meta(id) else { return false };
    let refers_to_plugin = || refers_to(cx, id.kind, meta, plugin);
    let is_served = || is_served_route(cx.store, parents, id);
    match id.kind {
        Kind::HttpRoute | Kind::GrpcRoute => {
            let route = RequestRoute::find(cx.store, id).filter(|_| is_served());
            route.is_some_and(|route| refers_to_plugin() || has_filter(&route, plugin))
        }
        Kind::TcpRoute | Kind::TlsRoute | Kind::UdpRoute => is_served() && refers_to_plugin(),
        Kind::Ingress => {
            let ingress = cx.store.ingresses.get(&id.key);
            ingress.is_some_and(|ingress| dialect::attaches_plugins(cx, ingress)) && refers_to_plugin()
        }
        Kind::KongServiceFacade | Kind::TcpIngress | Kind::UdpIngress => {
            cx.inputs.classes.serves_object(cx.store, meta, None) && refers_to_plugin()
        }
        Kind::Service => refers_to_plugin(),
        _ => false,
    }
}

/// Whether a served consumer or group refers to the plugin.
fn is_referring_subject(cx: CompileContext<'_>, plugin: &ObjectId, id: &ObjectId) -> bool {
    let meta = cx.store.meta(id).filter(|_| served::is_served(cx, id));
    meta.is_some_and(|meta| refers_to(cx, id.kind, meta, plugin))
}

/// Whether the annotation of an object refers to the plugin.
fn refers_to(cx: CompileContext<'_>, kind: Kind, meta: &Meta, plugin: &ObjectId) -> bool {
    let names = meta.annotations.get(PLUGINS).map(|value| &**value).unwrap_or_default();
    let (store, absent) = (cx.store, cx.inputs.absent_kinds);
    list(names).any(|token| resolve_reference(store, absent, kind, &meta.key, token).as_ref() == Ok(plugin))
}

/// Whether a filter of a rule refers to the plugin; filters can refer to KongPlugins of the route's namespace only.
fn has_filter(route: &RequestRoute<'_>, plugin: &ObjectId) -> bool {
    let names_plugin = |reference: &LocalObjectReference| {
        reference.group == KONG_GROUP
            && reference.kind == Kind::KongPlugin.name()
            && *reference.name == *plugin.key.name
    };
    plugin.kind == Kind::KongPlugin
        && plugin.key.namespace == route.meta.key.namespace
        && (route.rules.iter().flat_map(|rule| rule.filters))
            .any(|filter| filter.kind == "ExtensionRef" && filter.extension_ref.as_ref().is_some_and(names_plugin))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;

    #[test]
    fn references_in_clusters_without_plugins_report_the_missing_kind() {
        use Kind::{KongClusterPlugin, KongPlugin};
        let store = Store::default();
        let annotations = json!({"konghq.com/plugins": "p, a:q"});
        let meta: Meta =
            serde_json::from_value(json!({"namespace": "a", "name": "r", "annotations": annotations})).unwrap();
        let install = "install Kong's kinds with: portico crds | kubectl apply --server-side -f -";
        let neither = "there is neither a KongPlugin a/p nor a KongClusterPlugin p";
        for (absent, unqualified, qualified, in_filter) in [
            (
                &[][..],
                format!("{neither}; {CREATE_EITHER_PLUGIN}"),
                format!("KongPlugin a/q does not exist; {CREATE_PLUGIN}"),
                format!("KongPlugin p does not exist in this namespace; {CREATE_PLUGIN}"),
            ),
            (
                &[KongPlugin],
                format!("{neither}: the kind KongPlugin is not installed; {install}"),
                format!("KongPlugin a/q does not exist: the kind KongPlugin is not installed; {install}"),
                format!(
                    "KongPlugin p does not exist in this namespace: the kind KongPlugin is not installed; {install}"
                ),
            ),
            (
                &[KongClusterPlugin],
                format!("{neither}: the kind KongClusterPlugin is not installed; {install}"),
                format!("KongPlugin a/q does not exist; {CREATE_PLUGIN}"),
                format!("KongPlugin p does not exist in this namespace; {CREATE_PLUGIN}"),
            ),
            (
                &[KongPlugin, KongClusterPlugin],
                format!("{neither}: the kinds KongPlugin and KongClusterPlugin are not installed; {install}"),
                format!("KongPlugin a/q does not exist: the kind KongPlugin is not installed; {install}"),
                format!(
                    "KongPlugin p does not exist in this namespace: the kind KongPlugin is not installed; {install}"
                ),
            ),
        ] {
            let mut inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            inputs.absent_kinds = absent.iter().copied().collect();
            let inputs = inputs.as_inputs();
            let cx = CompileContext::new(&store, &inputs);
            let references = references_within_budget(cx, Kind::HttpRoute, &meta).into_iter();
            let texts: Vec<_> = references.map(|reference| reference.target.unwrap_err().1.to_string()).collect();
            let at_annotation = |text: &str| format!("{}: {text}", annotation_field(PLUGINS));
            assert_eq!(texts, [at_annotation(&unqualified), at_annotation(&qualified)], "{absent:?}");
            let filter = missing_filter_plugin(cx, "spec", "p");
            assert_eq!(filter.to_string(), format!("spec: {in_filter}"), "{absent:?}");
        }
    }

    /// Routes with `konghq.com/plugin` were served without the plugin that the annotation names.
    #[test]
    fn misspelled_guards_lead_to_no_plugin() {
        let kinds = [Kind::HttpRoute, Kind::Ingress, Kind::Service, Kind::TcpRoute];
        for (key, guard, guarded) in [
            ("konghq.com/plugin", "konghq.com/plugins", &kinds[..]),
            ("konghq.com/plugns", "konghq.com/plugins", &kinds),
            ("konghq.com/lpugins", "konghq.com/plugins", &kinds),
            ("konghq.com/protocls", "konghq.com/protocols", &[Kind::HttpRoute, Kind::Ingress]),
            ("konghq.com/method", "konghq.com/methods", &[Kind::Ingress]),
            ("konghq.com/tls-verfy", "konghq.com/tls-verify", &[Kind::Service]),
            // These have effects of their own, or are no annotations of this prefix.
            ("konghq.com/protocol", "", &[]),
            ("konghq.com/path", "", &[]),
            ("konghq.com/tags", "", &[]),
            ("konghq.com/headers.plugin", "", &[]),
            ("konghq.com/plugins-of-team", "", &[]),
            ("konghq.com/strip-pth", "", &[]),
            ("example.com/plugin", "", &[]),
        ] {
            let annotations = json!({key: "keys", "konghq.com/strip-path": "true"});
            let meta: Meta =
                serde_json::from_value(json!({"namespace": "a", "name": "r", "annotations": annotations})).unwrap();
            let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            let (inputs, store) = (inputs.as_inputs(), Store::default());
            let cx = CompileContext::new(&store, &inputs);
            for kind in kinds {
                let references = references_within_budget(cx, kind, &meta).into_iter();
                let problems: Vec<_> =
                    references.map(|reference| reference.target.unwrap_err().1.to_string()).collect();
                let expected = guarded
                    .contains(&kind)
                    .then(|| format!("metadata.annotations[{key}]: this annotation is unknown; did you mean {guard}?"));
                assert_eq!(problems, Vec::from_iter(expected), "{key} on {kind}");
            }
        }
    }

    #[test]
    fn names_are_separated_by_commas() {
        for names in ["a;b", "a b", "other:a; b"] {
            let annotations = json!({"konghq.com/plugins": names});
            let meta: Meta =
                serde_json::from_value(json!({"namespace": "a", "name": "r", "annotations": annotations})).unwrap();
            let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            let (inputs, store) = (inputs.as_inputs(), Store::default());
            let references = references_within_budget(CompileContext::new(&store, &inputs), Kind::Ingress, &meta);
            let references = references.into_iter();
            let texts: Vec<_> = references.map(|reference| reference.target.unwrap_err().1.to_string()).collect();
            let expected = format!("{names:?} is not the name of a plugin; separate names with commas");
            assert_eq!(texts, [format!("{}: {expected}", annotation_field(PLUGINS))]);
        }
    }

    #[test]
    fn ids_of_consumers_are_computed_once() {
        let [anna, bert] = ["anna", "bert"].map(|name| ObjectKey::new("a", name));
        let mut subjects = PluginSubjects { consumers: vec![anna.clone()], ..PluginSubjects::default() };
        let id = Arc::clone(&subjects.consumer_ids()[0]);
        assert_eq!(*id, *identity::consumer_id(&anna));
        assert!(Arc::ptr_eq(&id, &subjects.consumer_ids()[0]));
        assert_eq!(subjects, PluginSubjects { consumers: vec![anna], ..PluginSubjects::default() });
        subjects.consumers_mut().push(bert.clone());
        assert_eq!(*subjects.consumer_ids()[1], *identity::consumer_id(&bert));
    }
}
