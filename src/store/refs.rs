//! Who is mentioned by whom, so that a change reaches exactly the objects it matters to.
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

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
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

/// Mentions, backwards. What an object itself mentions is read from it again when somebody asks.
#[derive(Debug, Default)]
pub struct Refs {
    reverse: BTreeMap<Mention, Sources>,
}

/// Who mentions something: most things are mentioned by one, and a set of its own for each would be most of the memory.
#[derive(Debug)]
enum Sources {
    One(ObjectId),
    Several(BTreeSet<ObjectId>),
}

impl Sources {
    fn iter(&self) -> impl Iterator<Item = &ObjectId> {
        let (one, several) = match self {
            Sources::One(one) => (Some(one), None),
            Sources::Several(several) => (None, Some(several)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    fn insert(&mut self, id: &ObjectId) {
        match self {
            Sources::One(one) if one == id => {}
            Sources::One(one) => *self = Sources::Several(BTreeSet::from([one.clone(), id.clone()])),
            Sources::Several(several) => drop(several.insert(id.clone())),
        }
    }

    /// Says whether nobody is left.
    fn remove(&mut self, id: &ObjectId) -> bool {
        match self {
            Sources::One(one) => one == id,
            Sources::Several(several) => {
                several.remove(id);
                several.is_empty()
            }
        }
    }
}

impl Refs {
    /// The objects that mention this one: a grant is mentioned through its namespace, and an IngressClass also by those who
    /// name none.
    pub fn dependents<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let mention = match id.kind {
            Kind::ReferenceGrant => Mention::GrantsIn(id.key.namespace.clone()),
            _ => Mention::Object(id.clone()),
        };
        let of_any_class = (id.kind == Kind::IngressClass).then(|| self.reverse.get(&Mention::DefaultClass)).flatten();
        self.reverse.get(&mention).into_iter().chain(of_any_class).flat_map(Sources::iter)
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

    /// The objects of a kind that anything mentions, whether they exist or not.
    pub fn mentioned(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let first = Mention::Object(ObjectId::new(kind, ObjectKey::cluster("")));
        self.reverse.range(first..).map_while(move |(mention, _)| match mention {
            Mention::Object(id) if id.kind == kind => Some(id),
            Mention::Object(_) | Mention::GrantsIn(_) | Mention::DefaultClass => None,
        })
    }

    pub(super) fn insert(&mut self, id: &ObjectId, mentions: Vec<Mention>) {
        for mention in mentions {
            match self.reverse.entry(mention) {
                Entry::Vacant(nobody) => drop(nobody.insert(Sources::One(id.clone()))),
                Entry::Occupied(mut sources) => sources.get_mut().insert(id),
            }
        }
    }

    /// `mentions` is what the object mentioned when it was inserted.
    pub(super) fn remove(&mut self, id: &ObjectId, mentions: &[Mention]) {
        for mention in mentions {
            if self.reverse.get_mut(mention).is_some_and(|sources| sources.remove(id)) {
                self.reverse.remove(mention);
            }
        }
    }

    /// Leaves no room between the entries. `key_of` gives the key that an object itself has, if it is there: its texts need
    /// not be in memory twice.
    pub(super) fn compact<'s>(&mut self, key_of: impl Fn(&ObjectId) -> Option<&'s ObjectKey>) {
        let compacted = std::mem::take(&mut self.reverse).into_iter().map(|(mention, sources)| {
            let mention = match mention {
                Mention::Object(id) => {
                    let key = key_of(&id).cloned().unwrap_or(id.key);
                    Mention::Object(ObjectId::new(id.kind, key))
                }
                Mention::GrantsIn(_) | Mention::DefaultClass => mention,
            };
            let sources = match sources {
                Sources::One(one) => Sources::One(one),
                Sources::Several(several) => Sources::Several(several.into_iter().collect()),
            };
            (mention, sources)
        });
        self.reverse = compacted.collect();
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

        let (before, moved) = (route("near", "web", None), route("near", "api", None));
        refs.remove(&before.id(), &mentions(&before));
        refs.insert(&moved.id(), mentions(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), ["near"]);
        refs.compact(|_| None);
        assert_eq!(dependents(&refs, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        refs.remove(&moved.id(), &mentions(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), [""; 0]);
    }

    fn refs_of(objects: impl IntoIterator<Item = (Kind, serde_json::Value)>) -> Refs {
        let mut refs = Refs::default();
        for (kind, mut object) in objects {
            if kind.namespaced() {
                object["metadata"]["namespace"] = json!("a");
            }
            let object = AnyObject::parse(kind, object).unwrap();
            refs.insert(&object.id(), mentions(&object));
        }
        refs
    }

    fn named(name: &str, annotations: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "annotations": annotations})
    }

    // kong-compat §1.3, §1.4, §1.7, §1.12, §1.14, §2.1
    #[test]
    fn what_is_read_by_others_passes_a_change_on() {
        let service = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let facade = json!({"resource": {"apiGroup": "incubator.ingress-controller.konghq.com", "kind": "KongServiceFacade", "name": "front"}});
        let patch = json!({"path": "/a", "valueFrom": {"secretKeyRef": {"name": "patch", "key": "a"}}});
        let refs = refs_of([
            (
                Kind::KongPlugin,
                json!({"metadata": {"name": "limit"}, "plugin": "rate-limiting", "configPatches": [patch]}),
            ),
            (
                Kind::KongClusterPlugin,
                json!({"metadata": named("auth", &json!({"kubernetes.io/ingress.class": "mine"})), "plugin": "jwt",
                    "configFrom": {"secretKeyRef": {"name": "whole", "key": "a", "namespace": "keys"}}}),
            ),
            (
                Kind::Service,
                json!({"metadata": named("web", &json!({"konghq.com/plugins": "limit", "konghq.com/upstream-policy": "hash",
                    "konghq.com/override": "old", "konghq.com/client-cert": "client",
                    "konghq.com/ca-certificates-secrets": "ca-1, ca-2", "konghq.com/ca-certificates-configmaps": "bundle"}))}),
            ),
            (
                Kind::KongServiceFacade,
                json!({"metadata": {"name": "front"}, "spec": {"backendRef": {"name": "behind", "port": 80}}}),
            ),
            (
                Kind::Ingress,
                json!({"metadata": named("shop", &json!({"konghq.com/plugins": "auth, b:shared"})),
                    "spec": {"ingressClassName": "mine", "defaultBackend": service("web"), "tls": [{"secretName": "tls"}]}}),
            ),
            (Kind::Ingress, json!({"metadata": {"name": "other"}, "spec": {"defaultBackend": facade}})),
            (
                Kind::IngressClass,
                json!({"metadata": {"name": "mine"}, "spec": {"controller": "x", "parameters": {"apiGroup": "configuration.konghq.com",
                    "kind": "IngressClassParameters", "scope": "Namespace", "namespace": "b", "name": "settings"}}}),
            ),
            (
                Kind::HttpRoute,
                json!({"metadata": {"name": "route"}, "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}],
                    "filters": [{"type": "ExtensionRef", "extensionRef": {"group": "configuration.konghq.com", "kind": "KongPlugin", "name": "cors"}}]}]}}),
            ),
            (
                Kind::KongConsumer,
                json!({"metadata": named("ann", &json!({"konghq.com/plugins": "limit"})), "username": "ann",
                    "credentials": ["key"], "consumerGroups": ["gold"]}),
            ),
            (Kind::KongConsumerGroup, json!({"metadata": named("gold", &json!({"konghq.com/plugins": "limit"}))})),
        ]);
        let touched = |kind, namespace: &str, name: &str| {
            let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
            let touched: Vec<_> = refs.touched_by([&id]).iter().map(ObjectId::to_string).collect();
            touched.join(", ")
        };
        let around_web = "HTTPRoute a/route, Ingress a/shop, Service a/web";
        let around_limit =
            "HTTPRoute a/route, Ingress a/shop, KongConsumer a/ann, KongConsumerGroup a/gold, Service a/web";
        for (kind, namespace, name, expected) in [
            (Kind::Service, "a", "web", "HTTPRoute a/route, Ingress a/shop"),
            (Kind::KongUpstreamPolicy, "a", "hash", around_web),
            (Kind::KongIngress, "a", "old", around_web),
            (Kind::Secret, "a", "client", around_web),
            (Kind::Secret, "a", "ca-2", around_web),
            (Kind::ConfigMap, "a", "bundle", around_web),
            (Kind::KongPlugin, "a", "limit", around_limit),
            (
                Kind::Secret,
                "a",
                "patch",
                "HTTPRoute a/route, Ingress a/shop, KongPlugin a/limit, KongConsumer a/ann, KongConsumerGroup a/gold, Service a/web",
            ),
            (Kind::Secret, "keys", "whole", "Ingress a/shop, KongClusterPlugin auth"),
            (Kind::Secret, "a", "whole", ""),
            (Kind::KongPlugin, "a", "auth", "Ingress a/shop"),
            (Kind::KongPlugin, "b", "shared", "Ingress a/shop"),
            (Kind::ReferenceGrant, "b", "any", "Ingress a/shop"),
            (Kind::KongPlugin, "a", "cors", "HTTPRoute a/route"),
            (Kind::KongClusterPlugin, "", "cors", ""),
            (Kind::Service, "a", "behind", "Ingress a/other, KongServiceFacade a/front"),
            (Kind::Secret, "a", "tls", "Ingress a/shop"),
            (Kind::Secret, "a", "key", "KongConsumer a/ann"),
            (Kind::KongConsumerGroup, "a", "gold", "KongConsumer a/ann"),
            (Kind::IngressClassParameters, "b", "settings", &OF_CLASS.replace("shop,", "shop, IngressClass mine,")),
            (Kind::IngressClass, "", "mine", OF_CLASS),
            (Kind::IngressClass, "", "another", OF_ANY_CLASS),
        ] {
            assert_eq!(touched(kind, namespace, name), expected, "{kind} {namespace}/{name}");
        }
    }

    /// Those that name a class, and those that belong to the default one, whichever that is.
    const OF_CLASS: &str = "Ingress a/other, Ingress a/shop, KongClusterPlugin auth, KongConsumer a/ann, KongConsumerGroup a/gold, KongServiceFacade a/front";
    const OF_ANY_CLASS: &str =
        "Ingress a/other, KongConsumer a/ann, KongConsumerGroup a/gold, KongServiceFacade a/front";
}
