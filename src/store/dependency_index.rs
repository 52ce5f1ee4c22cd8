//! Reverse index of references, so that a change affects exactly the objects that depend on it.
//!
//! References are by name, whether or not the object exists: a Secret that is created later affects the Gateway that
//! refers to it. ReferenceGrants are indexed by namespace, since any grant there may apply.
//!
//! Some objects have an effect only through the objects that refer to them, so a change of their references also
//! affects their referrers. [`DependencyIndex::affected_by`] follows such chains:
//!
//! ```text
//!   Secret ◀─ KongPlugin ◀─┬─ Ingress, HTTPRoute, KongConsumer, KongConsumerGroup
//!   Secret, ConfigMap ◀────┴─ Service ◀─┬─ Ingress, HTTPRoute
//!   KongUpstreamPolicy ◀──────┘    └ KongServiceFacade ◀─ Ingress
//!   IngressClassParameters ◀─ IngressClass ◀─ Ingress, KongConsumer, KongClusterPlugin …
//! ```
//!
//! Dependents of a Gateway are added by the compiler, which knows whether the Gateway's plan changed for its routes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};

/// Something that an object depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    Object(ObjectId),
    /// Any ReferenceGrant of this namespace.
    GrantsIn(Arc<str>),
    /// Any IngressClass, for objects without a class, which belong to the default one.
    DefaultClass,
}

/// The reverse index. Forward references are computed from the object when needed.
#[derive(Debug, Default)]
pub struct DependencyIndex {
    reverse: BTreeMap<Dependency, Dependents>,
}

/// The dependents of one object: usually one, for which a set would waste memory.
#[derive(Debug)]
enum Dependents {
    One(ObjectId),
    Several(BTreeSet<ObjectId>),
}

impl Dependents {
    fn iter(&self) -> impl Iterator<Item = &ObjectId> {
        let (one, several) = match self {
            Dependents::One(one) => (Some(one), None),
            Dependents::Several(several) => (None, Some(several)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    fn insert(&mut self, id: &ObjectId) {
        match self {
            Dependents::One(one) if one == id => {}
            Dependents::One(one) => *self = Dependents::Several(BTreeSet::from([one.clone(), id.clone()])),
            Dependents::Several(several) => drop(several.insert(id.clone())),
        }
    }

    /// Returns whether no dependent is left.
    fn remove(&mut self, id: &ObjectId) -> bool {
        match self {
            Dependents::One(one) => one == id,
            Dependents::Several(several) => {
                several.remove(id);
                several.is_empty()
            }
        }
    }
}

impl DependencyIndex {
    /// The objects that depend on this one. ReferenceGrants match by namespace, and an IngressClass also matches
    /// objects without a class.
    pub fn dependents<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let mention = match id.kind {
            Kind::ReferenceGrant => Dependency::GrantsIn(id.key.namespace.clone()),
            _ => Dependency::Object(id.clone()),
        };
        let of_any_class =
            (id.kind == Kind::IngressClass).then(|| self.reverse.get(&Dependency::DefaultClass)).flatten();
        self.reverse.get(&mention).into_iter().chain(of_any_class).flat_map(Dependents::iter)
    }

    /// The objects affected by these changes: their dependents, followed through kinds that only have an effect through
    /// their referrers. The changed objects are not included unless they depend on each other.
    pub fn affected_by<'a>(&'a self, changed: impl IntoIterator<Item = &'a ObjectId>) -> BTreeSet<ObjectId> {
        let mut touched = BTreeSet::new();
        let mut open: Vec<&ObjectId> = changed.into_iter().collect();
        while let Some(id) = open.pop() {
            if id.kind == Kind::Gateway {
                continue;
            }
            for dependent in self.dependents(id) {
                if touched.insert(dependent.clone()) && is_intermediate(dependent.kind) {
                    open.push(dependent);
                }
            }
        }
        touched
    }

    /// The objects of a kind that other objects refer to, whether they exist or not.
    pub fn referenced(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let first = Dependency::Object(ObjectId::new(kind, ObjectKey::cluster("")));
        self.reverse.range(first..).map_while(move |(mention, _)| match mention {
            Dependency::Object(id) if id.kind == kind => Some(id),
            Dependency::Object(_) | Dependency::GrantsIn(_) | Dependency::DefaultClass => None,
        })
    }

    pub(super) fn insert(&mut self, id: &ObjectId, mentions: Vec<Dependency>) {
        for mention in mentions {
            match self.reverse.entry(mention) {
                Entry::Vacant(vacant) => drop(vacant.insert(Dependents::One(id.clone()))),
                Entry::Occupied(mut sources) => sources.get_mut().insert(id),
            }
        }
    }

    /// `mentions` are the references of the object when it was inserted.
    pub(super) fn remove(&mut self, id: &ObjectId, mentions: &[Dependency]) {
        for mention in mentions {
            if self.reverse.get_mut(mention).is_some_and(|sources| sources.remove(id)) {
                self.reverse.remove(mention);
            }
        }
    }

    /// Rebuilds the index without unused memory. `key_of` returns the key stored in an existing object, so that its
    /// strings are shared.
    pub(super) fn compact<'s>(&mut self, key_of: impl Fn(&ObjectId) -> Option<&'s ObjectKey>) {
        let compacted = std::mem::take(&mut self.reverse).into_iter().map(|(mention, sources)| {
            let mention = match mention {
                Dependency::Object(id) => {
                    let key = key_of(&id).cloned().unwrap_or(id.key);
                    Dependency::Object(ObjectId::new(id.kind, key))
                }
                Dependency::GrantsIn(_) | Dependency::DefaultClass => mention,
            };
            let sources = match sources {
                Dependents::One(one) => Dependents::One(one),
                Dependents::Several(several) => Dependents::Several(several.into_iter().collect()),
            };
            (mention, sources)
        });
        self.reverse = compacted.collect();
    }
}

/// Whether objects of this kind only have an effect through the objects that refer to them.
fn is_intermediate(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Service | Kind::KongServiceFacade | Kind::KongPlugin | Kind::KongClusterPlugin | Kind::IngressClass
    )
}

#[cfg(test)]
mod tests {
    use super::super::AnyObject;
    use super::super::dependencies::dependencies;
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

    fn dependents(refs: &DependencyIndex, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
        let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
        refs.dependents(&id).map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn changes_affect_exactly_the_dependents() {
        let mut refs = DependencyIndex::default();
        for object in [route("near", "web", None), route("far", "web", Some("b"))] {
            refs.insert(&object.id(), dependencies(&object));
        }
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), ["near"]);
        assert_eq!(dependents(&refs, Kind::Service, "b", "web"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "b", "any"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "a", "any"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        assert_eq!(dependents(&refs, Kind::Namespace, "", "a"), ["far", "near"]);

        let mentioned =
            |refs: &DependencyIndex, kind| refs.referenced(kind).map(ObjectId::to_string).collect::<Vec<_>>();
        assert_eq!(mentioned(&refs, Kind::Service), ["Service a/web", "Service b/web"]);
        assert_eq!(mentioned(&refs, Kind::Namespace), ["Namespace a"]);
        assert_eq!(mentioned(&refs, Kind::Secret), [""; 0]);

        let (before, moved) = (route("near", "web", None), route("near", "api", None));
        refs.remove(&before.id(), &dependencies(&before));
        refs.insert(&moved.id(), dependencies(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), ["near"]);
        refs.compact(|_| None);
        assert_eq!(dependents(&refs, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        refs.remove(&moved.id(), &dependencies(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), [""; 0]);
    }

    fn refs_of(objects: impl IntoIterator<Item = (Kind, serde_json::Value)>) -> DependencyIndex {
        let mut refs = DependencyIndex::default();
        for (kind, mut object) in objects {
            if kind.namespaced() {
                object["metadata"]["namespace"] = json!("a");
            }
            let object = AnyObject::parse(kind, object).unwrap();
            refs.insert(&object.id(), dependencies(&object));
        }
        refs
    }

    fn named(name: &str, annotations: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "annotations": annotations})
    }

    // kong-compat §1.3, §1.4, §1.7, §1.12, §1.14, §2.1
    #[test]
    fn changes_propagate_through_intermediate_objects() {
        let service = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let facade = json!({"resource": {
            "apiGroup": "incubator.ingress-controller.konghq.com", "kind": "KongServiceFacade", "name": "front",
        }});
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
                json!({"metadata": named("web", &json!({
                    "konghq.com/plugins": "limit", "konghq.com/upstream-policy": "hash",
                    "konghq.com/override": "old", "konghq.com/client-cert": "client",
                    "konghq.com/ca-certificates-secrets": "ca-1, ca-2",
                    "konghq.com/ca-certificates-configmaps": "bundle",
                }))}),
            ),
            (
                Kind::KongServiceFacade,
                json!({"metadata": {"name": "front"}, "spec": {"backendRef": {"name": "behind", "port": 80}}}),
            ),
            (
                Kind::Ingress,
                json!({"metadata": named("shop", &json!({"konghq.com/plugins": "auth, b:shared"})), "spec": {
                    "ingressClassName": "mine", "defaultBackend": service("web"), "tls": [{"secretName": "tls"}],
                }}),
            ),
            (Kind::Ingress, json!({"metadata": {"name": "other"}, "spec": {"defaultBackend": facade}})),
            (
                Kind::IngressClass,
                json!({"metadata": {"name": "mine"}, "spec": {"controller": "x", "parameters": {
                    "apiGroup": "configuration.konghq.com", "kind": "IngressClassParameters", "scope": "Namespace",
                    "namespace": "b", "name": "settings",
                }}}),
            ),
            (
                Kind::HttpRoute,
                json!({"metadata": {"name": "route"}, "spec": {"rules": [{
                    "backendRefs": [{"name": "web", "port": 80}],
                    "filters": [{"type": "ExtensionRef", "extensionRef": {
                        "group": "configuration.konghq.com", "kind": "KongPlugin", "name": "cors",
                    }}],
                }]}}),
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
            let touched: Vec<_> = refs.affected_by([&id]).iter().map(ObjectId::to_string).collect();
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
                "HTTPRoute a/route, Ingress a/shop, KongPlugin a/limit, KongConsumer a/ann, \
                 KongConsumerGroup a/gold, Service a/web",
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

    /// Objects with a class, and objects that belong to the default class, whichever that is.
    const OF_CLASS: &str = "Ingress a/other, Ingress a/shop, KongClusterPlugin auth, KongConsumer a/ann, \
                            KongConsumerGroup a/gold, KongServiceFacade a/front";
    const OF_ANY_CLASS: &str =
        "Ingress a/other, KongConsumer a/ann, KongConsumerGroup a/gold, KongServiceFacade a/front";
}
