//! Who refers to a plugin, and which plugin a reference means (`kong-compat.md` §1.4).

use std::sync::Arc;

use super::super::Inputs;
use super::super::consumers;
use super::super::grants::Reference;
use super::super::verdict::Problem;
use crate::api::kong::annotations::{PLUGINS, list};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::store::Store;

/// Everybody who refers to one plugin.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Some route or backend does.
    attached: bool,
    pub(super) people: People,
}

/// Whom a plugin is for, if it is not for everybody.
#[derive(Debug, Default)]
pub(super) struct People {
    /// Ids.
    pub(super) consumers: Vec<Arc<str>>,
    /// Names.
    pub(super) groups: Vec<Arc<str>>,
}

impl Uses {
    pub(super) fn is_attached(&self) -> bool {
        self.attached
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
    let field = || format!("metadata.annotations[{PLUGINS}]");
    if let Some((namespace, name)) = token.split_once(':') {
        let target = ObjectKey::new(namespace, name);
        let crossing = Reference { from, namespace: &referrer.namespace, to: Kind::KongPlugin, target: &target };
        if !crossing.is_allowed(store) {
            return Err(crossing.problem(field()));
        }
        if store.kong_plugins.contains_key(&target) {
            return Ok(ObjectId::new(Kind::KongPlugin, target));
        }
        let message = format!("KongPlugin {target} does not exist");
        return Err(Problem::new(field(), message, "create it or correct the name"));
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
    Err(Problem::new(field(), message, "create one of them or correct the name"))
}

/// Who refers to this plugin. Only what means it counts: a name alone is a KongClusterPlugin only where there is no
/// KongPlugin of that name.
pub(super) fn uses(store: &Store, inputs: &Inputs<'_>, plugin: &ObjectId) -> Uses {
    let mut uses = Uses::default();
    for id in store.refs().dependents(plugin) {
        let means_it = |meta: &Meta| {
            let names = meta.annotations.get(PLUGINS).map(|value| &**value).unwrap_or_default();
            list(names).any(|token| meant(store, id.kind, &meta.key, token).as_ref() == Ok(plugin))
        };
        let Some(meta) = store.meta(id) else { continue };
        match id.kind {
            Kind::KongConsumer => {
                if inputs.classes.own(store, meta, None) && means_it(meta) {
                    uses.people.consumers.push(consumers::id(&meta.key));
                }
            }
            Kind::KongConsumerGroup => {
                if inputs.classes.own(store, meta, None) && means_it(meta) {
                    uses.people.groups.push(consumers::group(&meta.key));
                }
            }
            // These name it by a filter as well.
            Kind::HttpRoute => uses.attached = true,
            Kind::KongCustomEntity => {}
            _ => uses.attached |= means_it(meta),
        }
    }
    uses
}
