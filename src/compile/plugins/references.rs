//! Who refers to a plugin, and which plugin a reference means (`kong-compat.md` §1.4).
//!
//! What consumers and groups name together with routes runs for these people on these routes, and for nobody else there.
//! Whoever refers to a KongPlugin is of its namespace or has been let by it, so all of them are taken together. Anybody
//! can refer to a KongClusterPlugin: there each namespace is taken for itself, or a consumer of one would take the guards
//! of routes of another away, and a route of one those of consumers of another.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Inputs;
use super::super::consumers;
use super::super::grants::Reference;
use super::super::ingress::annotations::field;
use super::super::verdict::Problem;
use crate::api::gateway::{HttpRoute, LocalObjectReference};
use crate::api::kind::{GATEWAY_GROUP, KONG_GROUP};
use crate::api::kong::annotations::{PLUGINS, list};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::plugin::Scopes;
use crate::store::Store;

/// Everybody who refers to one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Whether references of all namespaces are taken together.
    is_shared: bool,
    /// Those that are taken together, by their namespace if that counts.
    together: BTreeMap<Arc<str>, Together>,
    /// What names the plugin although it cannot be attached there.
    pub(super) misplaced: Misplaced,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Together {
    /// Some route or backend of ours does.
    is_attached: bool,
    people: People,
    /// Groups that do not count, since consumers refer to it as well.
    passed_over: bool,
}

/// Whom a plugin is for, if it is not for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct People {
    /// Ids.
    pub(super) consumers: Vec<Arc<str>>,
    /// Names.
    pub(super) groups: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Misplaced {
    pub(super) consumers: bool,
    pub(super) groups: bool,
}

impl Uses {
    /// Whether anything refers to it where it can be.
    pub(super) fn is_any(&self) -> bool {
        self.together.values().any(|together| together.is_attached || !together.people.is_nobody())
    }

    /// Whom it is for on what an object of this namespace attaches it to.
    pub(super) fn people(&self, namespace: &str) -> Option<&People> {
        let together = self.together.get(if self.is_shared { "" } else { namespace })?;
        Some(&together.people).filter(|people| !people.is_nobody())
    }

    /// Those who take it along wherever they go, since nothing else refers to it.
    pub(super) fn everywhere(&self) -> People {
        let mut people = People::default();
        for together in self.together.values().filter(|together| !together.is_attached) {
            people.consumers.extend(together.people.consumers.iter().cloned());
            people.groups.extend(together.people.groups.iter().cloned());
        }
        people
    }

    /// Whether there are people who take it along although routes of other namespaces have it.
    pub(super) fn is_kept_apart(&self) -> bool {
        let is_attached = self.together.values().any(|together| together.is_attached);
        is_attached && !self.everywhere().is_nobody()
    }

    /// Whether there are groups that do not count, since consumers refer to it as well.
    pub(super) fn passes_groups_over(&self) -> bool {
        self.together.values().any(|together| together.passed_over)
    }

    fn of(&mut self, namespace: &Arc<str>) -> &mut Together {
        self.together.entry(if self.is_shared { "".into() } else { Arc::clone(namespace) }).or_default()
    }

    /// Leaves those out whom the plugin cannot be for.
    fn within(mut self, scopes: Scopes) -> Self {
        for together in self.together.values_mut() {
            let people = &mut together.people;
            if !scopes.consumer {
                self.misplaced.consumers |= !std::mem::take(&mut people.consumers).is_empty();
            }
            if !scopes.consumer_group {
                self.misplaced.groups |= !std::mem::take(&mut people.groups).is_empty();
            }
            if !people.consumers.is_empty() {
                together.passed_over = !std::mem::take(&mut people.groups).is_empty();
            }
        }
        self
    }
}

impl People {
    pub(super) fn is_nobody(&self) -> bool {
        self.consumers.is_empty() && self.groups.is_empty()
    }
}

/// A reference in the annotation: the token, where it stands, and what it means.
pub(super) struct Named {
    pub(super) token: String,
    pub(super) meant: Result<ObjectId, Problem>,
}

/// What the annotation of an object names, in its order.
pub(super) fn named(store: &Store, kind: Kind, meta: &Meta) -> Vec<Named> {
    let Some(value) = meta.annotations.get(PLUGINS) else { return Vec::new() };
    list(value).map(|token| Named { token: token.to_owned(), meant: meant(store, kind, &meta.key, token) }).collect()
}

fn meant(store: &Store, from: Kind, referrer: &ObjectKey, token: &str) -> Result<ObjectId, Problem> {
    if let Some((namespace, name)) = token.split_once(':') {
        let target = ObjectKey::new(namespace, name);
        let crossing = Reference { from, namespace: &referrer.namespace, to: Kind::KongPlugin, target: &target };
        if !crossing.is_allowed(store) {
            return Err(crossing.problem(field(PLUGINS)));
        }
        if store.kong_plugins.contains_key(&target) {
            return Ok(ObjectId::new(Kind::KongPlugin, target));
        }
        let message = format!("KongPlugin {target} does not exist");
        return Err(Problem::new(field(PLUGINS), message, "create it or correct the name"));
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
    Err(Problem::new(field(PLUGINS), message, "create one of them or correct the name"))
}

/// Who refers to this plugin, which can be attached within `scopes`. Only what means it counts: a name alone is a
/// KongClusterPlugin only where there is no KongPlugin of that name. And only what is ours: of a route that somebody else
/// serves nobody's plugin depends.
pub(super) fn uses(store: &Store, inputs: &Inputs<'_>, plugin: &ObjectId, scopes: Scopes) -> Uses {
    let is_shared = plugin.kind == Kind::KongPlugin || inputs.workshop.fail_open;
    let mut uses = Uses { is_shared, ..Uses::default() };
    for id in store.refs().dependents(plugin) {
        let Some(meta) = store.meta(id) else { continue };
        let means_it = || {
            let names = meta.annotations.get(PLUGINS).map(|value| &**value).unwrap_or_default();
            list(names).any(|token| meant(store, id.kind, &meta.key, token).as_ref() == Ok(plugin))
        };
        let is_attached = match id.kind {
            Kind::KongConsumer => {
                if consumers::is_ours(store, inputs, id) && means_it() {
                    uses.of(&id.key.namespace).people.consumers.push(Arc::from(&*consumers::id(&meta.key)));
                }
                continue;
            }
            Kind::KongConsumerGroup => {
                if consumers::is_ours(store, inputs, id) && means_it() {
                    uses.of(&id.key.namespace).people.groups.push(consumers::group(&meta.key));
                }
                continue;
            }
            Kind::HttpRoute => {
                let route = store.http_routes.get(&id.key).filter(|route| is_for_us(store, inputs, route));
                route.is_some_and(|route| means_it() || has_filter(route, plugin))
            }
            Kind::Ingress => {
                let ingress = store.ingresses.get(&id.key);
                let class = ingress.and_then(|ingress| ingress.spec.ingress_class_name.as_deref());
                inputs.classes.own(store, meta, class) && means_it()
            }
            Kind::KongServiceFacade => inputs.classes.own(store, meta, None) && means_it(),
            Kind::Service => means_it(),
            // No plugin runs for what is not served.
            _ => continue,
        };
        if is_attached {
            uses.of(&id.key.namespace).is_attached = true;
        }
    }
    uses.within(scopes)
}
/// Whether the route names a Gateway of ours.
fn is_for_us(store: &Store, inputs: &Inputs<'_>, route: &Object<HttpRoute>) -> bool {
    let gateways = route.spec.parent_refs.iter().filter_map(|parent| {
        let is_gateway = parent.group == GATEWAY_GROUP && parent.kind == Kind::Gateway.name();
        let namespace = parent.namespace.as_deref().unwrap_or(&route.meta.key.namespace);
        store.gateways.get(&ObjectKey::new(namespace, &parent.name)).filter(|_| is_gateway)
    });
    let mut classes =
        gateways.filter_map(|gateway| store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name)));
    classes.any(|class| inputs.controllers.contains(&class.spec.controller_name))
}

/// Whether a rule names the plugin by a filter, which reaches KongPlugins of the own namespace.
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
