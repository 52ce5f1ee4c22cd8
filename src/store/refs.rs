//! Who mentions whom, so that a change reaches exactly the objects it matters to.
//!
//! A mention is by name and does not ask whether the object exists: a Secret that appears later reaches the Gateway that
//! has been waiting for it. Grants are mentioned by namespace, since any grant there may be the one.
//!
//! Some objects are nothing by themselves and are read by those who mention them; a change of what they mention is a
//! change of theirs. [`Refs::touched_by`] goes through them:
//!
//! ```text
//!   Secret ◀─ KongPlugin ◀─┬─ Ingress, HTTPRoute, KongConsumer, KongConsumerGroup
//!   Secret, ConfigMap ◀────┴─ Service ◀─┬─ Ingress, HTTPRoute
//!   KongUpstreamPolicy ◀──────┘    └ KongServiceFacade ◀─ Ingress
//!   IngressClassParameters ◀─ IngressClass ◀─ Ingress, KongConsumer, KongClusterPlugin …
//! ```
//!
//! What mentions a Gateway is left to whoever plans it: only then is it known whether anything changed for its routes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};

/// What an object may depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mention {
    Object(ObjectId),
    /// Any ReferenceGrant of this namespace.
    GrantsIn(Arc<str>),
    /// Any IngressClass, since the object names none and belongs to the default one.
    DefaultClass,
}

/// Mentions in both directions.
#[derive(Debug, Default)]
pub struct Refs {
    forward: HashMap<ObjectId, Vec<Mention>>,
    reverse: BTreeMap<Mention, BTreeSet<ObjectId>>,
}

impl Refs {
    /// The Services that this object mentions.
    pub fn services<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        self.forward.get(id).into_iter().flatten().filter_map(|mention| match mention {
            Mention::Object(target) if target.kind == Kind::Service => Some(&target.key),
            Mention::Object(_) | Mention::GrantsIn(_) | Mention::DefaultClass => None,
        })
    }

    /// The objects that mention this one: a grant is mentioned through its namespace, and an IngressClass also by those who
    /// name none.
    pub fn dependents<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let mention = match id.kind {
            Kind::ReferenceGrant => Mention::GrantsIn(id.key.namespace.clone()),
            _ => Mention::Object(id.clone()),
        };
        let of_any_class = (id.kind == Kind::IngressClass).then(|| self.reverse.get(&Mention::DefaultClass)).flatten();
        self.reverse.get(&mention).into_iter().chain(of_any_class).flatten()
    }

    /// The objects whose meaning may change with these: who mentions them, and who mentions those that are only read by
    /// others. The given ones are not among them unless they depend on each other.
    pub fn touched_by<'a>(&'a self, changed: impl IntoIterator<Item = &'a ObjectId>) -> BTreeSet<ObjectId> {
        let mut touched = BTreeSet::new();
        let mut open: Vec<&ObjectId> = changed.into_iter().collect();
        while let Some(id) = open.pop() {
            if id.kind == Kind::Gateway {
                continue;
            }
            for dependent in self.dependents(id) {
                if touched.insert(dependent.clone()) && is_read_by_others(dependent.kind) {
                    open.push(dependent);
                }
            }
        }
        touched
    }

    /// The plugins that this object mentions, of either kind.
    pub fn plugins<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        self.forward.get(id).into_iter().flatten().filter_map(|mention| match mention {
            Mention::Object(target) if [Kind::KongPlugin, Kind::KongClusterPlugin].contains(&target.kind) => {
                Some(target)
            }
            Mention::Object(_) | Mention::GrantsIn(_) | Mention::DefaultClass => None,
        })
    }

    /// The objects of a kind that anything mentions, whether they exist or not.
    pub fn mentioned(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let first = Mention::Object(ObjectId::new(kind, ObjectKey::cluster("")));
        self.reverse.range(first..).map_while(move |(mention, _)| match mention {
            Mention::Object(id) if id.kind == kind => Some(id),
            Mention::Object(_) | Mention::GrantsIn(_) | Mention::DefaultClass => None,
        })
    }

    pub(super) fn insert(&mut self, id: &ObjectId, mentions: Vec<Mention>) {
        self.remove(id);
        for mention in &mentions {
            self.reverse.entry(mention.clone()).or_default().insert(id.clone());
        }
        if !mentions.is_empty() {
            self.forward.insert(id.clone(), mentions);
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        for mention in self.forward.remove(id).unwrap_or_default() {
            if let Some(sources) = self.reverse.get_mut(&mention) {
                sources.remove(id);
                if sources.is_empty() {
                    self.reverse.remove(&mention);
                }
            }
        }
    }
}

/// Whether objects of this kind say nothing by themselves but to those who mention them.
fn is_read_by_others(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Service | Kind::KongServiceFacade | Kind::KongPlugin | Kind::KongClusterPlugin | Kind::IngressClass
    )
}

#[cfg(test)]
mod tests {
    use super::super::AnyObject;
    use super::super::mentions::mentions;
    use super::*;
    use serde_json::json;

    fn route(name: &str, service: &str, namespace: Option<&str>) -> AnyObject {
        let mut backend = json!({"name": service, "port": 80});
        if let Some(namespace) = namespace {
            backend["namespace"] = json!(namespace);
        }
        let object = json!({
            "metadata": {"namespace": "a", "name": name},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [backend]}]},
        });
        AnyObject::parse(Kind::HttpRoute, object).unwrap()
    }

    fn dependents(refs: &Refs, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
        let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
        refs.dependents(&id).map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn a_change_reaches_who_mentions_it_and_nobody_else() {
        let mut refs = Refs::default();
        for object in [route("near", "web", None), route("far", "web", Some("b"))] {
            refs.insert(&object.id(), mentions(&object));
        }
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), ["near"]);
        assert_eq!(dependents(&refs, Kind::Service, "b", "web"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "b", "any"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "a", "any"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        assert_eq!(dependents(&refs, Kind::Namespace, "", "a"), ["far", "near"]);

        let mentioned = |refs: &Refs, kind| refs.mentioned(kind).map(ObjectId::to_string).collect::<Vec<_>>();
        assert_eq!(mentioned(&refs, Kind::Service), ["Service a/web", "Service b/web"]);
        assert_eq!(mentioned(&refs, Kind::Namespace), ["Namespace a"]);
        assert_eq!(mentioned(&refs, Kind::Secret), [""; 0]);

        let moved = route("near", "api", None);
        refs.insert(&moved.id(), mentions(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), ["near"]);
        refs.remove(&moved.id());
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), [""; 0]);
    }
}
