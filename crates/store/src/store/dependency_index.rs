//! Reverse index of references, so that a change affects exactly the objects that depend on it.
//!
//! References are by name, whether or not the object exists: a Secret that is created later affects the Gateway that
//! refers to it. ReferenceGrants are indexed by namespace, since any grant there may apply.
//!
//! Some objects have an effect only through the objects that refer to them: if a KongPlugin's Secret changes, the
//! Ingresses with this plugin are affected. [`DependencyIndex::affected_by`] follows these chains:
//!
//! ```text
//!   Secret ◀─ KongPlugin, KongClusterPlugin ◀─ Ingress, HTTPRoute, KongConsumer, KongConsumerGroup …
//!   Secret ◀─ KongPlugin, KongClusterPlugin ◀─ Service, KongServiceFacade ◀─ Ingress …
//!   Secret, ConfigMap, KongUpstreamPolicy, KongIngress ◀─ Service, KongServiceFacade ◀─ Ingress …
//!   Service ◀─ Ingress, HTTPRoute, TLSRoute, TCPRoute …
//!   Service ◀─ KongServiceFacade ◀─ Ingress
//!   IngressClassParameters ◀─ IngressClass ◀─ Ingress, KongConsumer, KongClusterPlugin …
//!   IngressClass ◀─ KongConsumerGroup ◀─ KongConsumer
//!   GatewayParameters ◀─ GatewayClass ◀─ Gateway
//!   Service, Secret, ConfigMap, ClusterTrustBundle ◀─ XBackend ◀─ HTTPRoute, GRPCRoute, TCPRoute …
//! ```
//!
//! Dependents of a Gateway or ListenerSet are added by the compiler, because only it knows whether the change matters
//! to them.

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
    /// The default IngressClass, for objects without a class. Any IngressClass may become it, so each one counts.
    DefaultClass,
    /// The default Gateways, to which a route attaches without naming them.
    DefaultGateways,
}

/// The dependents of each dependency. The opposite direction is computed from the object when needed.
#[derive(Debug, Default)]
pub struct DependencyIndex {
    reverse: BTreeMap<Dependency, Dependents>,
}

/// The objects with one dependency: usually a single one, for which a set would waste memory.
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

    /// The objects of one kind.
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let (one, several) = match self {
            Dependents::One(one) => (Some(one), None),
            Dependents::Several(several) => (None, Some(several)),
        };
        // The kind comes first in the order of the set.
        let first = ObjectId::new(kind, ObjectKey::cluster(""));
        let several = several.into_iter().flat_map(move |several| several.range(first.clone()..));
        one.into_iter().filter(move |id| id.kind == kind).chain(several.take_while(move |id| id.kind == kind))
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
    /// The objects that depend on this one. ReferenceGrants match by namespace. Objects without a class depend on every
    /// IngressClass.
    pub fn dependents<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let dependency = match id.kind {
            Kind::ReferenceGrant => Dependency::GrantsIn(id.key.namespace.clone()),
            _ => Dependency::Object(id.clone()),
        };
        let without_class =
            (id.kind == Kind::IngressClass).then(|| self.reverse.get(&Dependency::DefaultClass)).flatten();
        let dependents = self.reverse.get(&dependency).into_iter().chain(without_class).flat_map(Dependents::iter);
        dependents.inspect(|_| {
            #[cfg(debug_assertions)]
            VISITED.set(VISITED.get() + 1);
        })
    }

    /// The objects of one kind that depend on an object, without looking at those of other kinds. `id` is neither a
    /// ReferenceGrant nor an IngressClass, on which objects also depend without naming them.
    pub fn dependents_of_kind<'a>(&'a self, id: &ObjectId, kind: Kind) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        debug_assert!(!matches!(id.kind, Kind::ReferenceGrant | Kind::IngressClass));
        let dependents = self.reverse.get(&Dependency::Object(id.clone()));
        dependents.into_iter().flat_map(move |dependents| dependents.of_kind(kind)).inspect(|_| {
            #[cfg(debug_assertions)]
            VISITED.set(VISITED.get() + 1);
        })
    }

    /// The routes that attach to the default Gateways.
    pub fn users_of_default_gateways(&self) -> impl Iterator<Item = &ObjectId> {
        self.reverse.get(&Dependency::DefaultGateways).into_iter().flat_map(Dependents::iter)
    }

    /// The objects affected by these changes: their dependents, followed through kinds that only have an effect through
    /// the objects that refer to them. The changed objects are not included unless they depend on each other.
    pub fn affected_by<'a>(&'a self, changed: impl IntoIterator<Item = &'a ObjectId>) -> BTreeSet<ObjectId> {
        let mut affected = BTreeSet::new();
        let mut pending: Vec<&ObjectId> = changed.into_iter().collect();
        while let Some(id) = pending.pop() {
            // The compiler adds the dependents of a Gateway or ListenerSet.
            if matches!(id.kind, Kind::Gateway | Kind::ListenerSet) {
                continue;
            }
            for dependent in self.dependents(id) {
                let is_new = affected.insert(dependent.clone());
                // A consumer is a member of a group only if the group has a served class, so a change of the class
                // affects the members; a change of another object that the group refers to does not. The group may be
                // affected by such an object already, so `is_new` does not matter here.
                let decides_membership = id.kind == Kind::IngressClass && dependent.kind == Kind::KongConsumerGroup;
                if (is_new && is_intermediate(dependent.kind)) || decides_membership {
                    pending.push(dependent);
                }
            }
        }
        affected
    }

    /// The objects of a kind that other objects refer to, whether they exist or not.
    pub fn referenced(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let first = Dependency::Object(ObjectId::new(kind, ObjectKey::cluster("")));
        self.reverse.range(first..).map_while(move |(dependency, _)| match dependency {
            Dependency::Object(id) if id.kind == kind => Some(id),
            Dependency::Object(_)
            | Dependency::GrantsIn(_)
            | Dependency::DefaultClass
            | Dependency::DefaultGateways => None,
        })
    }

    pub(super) fn insert(&mut self, id: &ObjectId, dependencies: Vec<Dependency>) {
        for dependency in dependencies {
            match self.reverse.entry(dependency) {
                Entry::Vacant(vacant) => drop(vacant.insert(Dependents::One(id.clone()))),
                Entry::Occupied(mut dependents) => dependents.get_mut().insert(id),
            }
        }
    }

    /// `dependencies` are those that the object had when it was inserted.
    pub(super) fn remove(&mut self, id: &ObjectId, dependencies: &[Dependency]) {
        for dependency in dependencies {
            if self.reverse.get_mut(dependency).is_some_and(|dependents| dependents.remove(id)) {
                self.reverse.remove(dependency);
            }
        }
    }

    /// Rebuilds the index without unused memory. `key_of` returns the key stored in an existing object, so that its
    /// strings are shared.
    pub(super) fn compact<'s>(&mut self, key_of: impl Fn(&ObjectId) -> Option<&'s ObjectKey>) {
        let compacted = std::mem::take(&mut self.reverse).into_iter().map(|(dependency, dependents)| {
            let dependency = match dependency {
                Dependency::Object(id) => {
                    let key = key_of(&id).cloned().unwrap_or(id.key);
                    Dependency::Object(ObjectId::new(id.kind, key))
                }
                Dependency::GrantsIn(_) | Dependency::DefaultClass | Dependency::DefaultGateways => dependency,
            };
            let dependents = match dependents {
                Dependents::One(one) => Dependents::One(one),
                Dependents::Several(several) => Dependents::Several(several.into_iter().collect()),
            };
            (dependency, dependents)
        });
        self.reverse = compacted.collect();
    }
}

#[cfg(debug_assertions)]
thread_local! {
    /// The number of dependents that this thread has looked at, for tests of how work grows. They are in other crates,
    /// so that `cfg(test)` does not select it.
    pub static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether objects of this kind only have an effect through the objects that refer to them.
fn is_intermediate(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Service
            | Kind::KongServiceFacade
            | Kind::KongPlugin
            | Kind::KongClusterPlugin
            | Kind::IngressClass
            | Kind::GatewayClass
            | Kind::XBackend
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

    fn dependents(index: &DependencyIndex, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
        let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
        index.dependents(&id).map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn changes_affect_exactly_the_dependents() {
        let mut index = DependencyIndex::default();
        for object in [route("near", "web", None), route("far", "web", Some("b"))] {
            index.insert(&object.id(), dependencies(&object));
        }
        assert_eq!(dependents(&index, Kind::Service, "a", "web"), ["near"]);
        assert_eq!(dependents(&index, Kind::Service, "b", "web"), ["far"]);
        assert_eq!(dependents(&index, Kind::ReferenceGrant, "b", "any"), ["far"]);
        assert_eq!(dependents(&index, Kind::ReferenceGrant, "a", "any"), [""; 0]);
        assert_eq!(dependents(&index, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        assert_eq!(dependents(&index, Kind::Namespace, "", "a"), ["far", "near"]);
        for (service, kind, expected) in [
            (("a", "web"), Kind::HttpRoute, 1),
            (("a", "web"), Kind::BackendTlsPolicy, 0),
            (("a", "other"), Kind::HttpRoute, 0),
        ] {
            let id = ObjectId::new(Kind::Service, ObjectKey::new(service.0, service.1));
            assert_eq!(index.dependents_of_kind(&id, kind).count(), expected, "{service:?} {kind}");
        }
        let gateway = ObjectId::new(Kind::Gateway, ObjectKey::new("a", "gateway"));
        assert_eq!(index.dependents_of_kind(&gateway, Kind::HttpRoute).count(), 2);
        assert_eq!(index.dependents_of_kind(&gateway, Kind::Gateway).count(), 0);

        let referenced =
            |index: &DependencyIndex, kind| index.referenced(kind).map(ObjectId::to_string).collect::<Vec<_>>();
        assert_eq!(referenced(&index, Kind::Service), ["Service a/web", "Service b/web"]);
        assert_eq!(referenced(&index, Kind::Namespace), ["Namespace a"]);
        assert_eq!(referenced(&index, Kind::Secret), [""; 0]);

        let (before, moved) = (route("near", "web", None), route("near", "api", None));
        index.remove(&before.id(), &dependencies(&before));
        index.insert(&moved.id(), dependencies(&moved));
        assert_eq!(dependents(&index, Kind::Service, "a", "web"), [""; 0]);
        assert_eq!(dependents(&index, Kind::Service, "a", "api"), ["near"]);
        index.compact(|_| None);
        assert_eq!(dependents(&index, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        index.remove(&moved.id(), &dependencies(&moved));
        assert_eq!(dependents(&index, Kind::Service, "a", "api"), [""; 0]);
    }

    fn index_of(objects: impl IntoIterator<Item = (Kind, serde_json::Value)>) -> DependencyIndex {
        let mut index = DependencyIndex::default();
        for (kind, mut object) in objects {
            if kind.namespaced() {
                object["metadata"]["namespace"] = json!("a");
            }
            let object = AnyObject::parse(kind, object).unwrap();
            index.insert(&object.id(), dependencies(&object));
        }
        index
    }

    fn named(name: &str, annotations: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "annotations": annotations})
    }

    // docs/kong-compatibility.md, 1.3, 1.4, 1.7, 1.12, 1.14, 2.1
    #[test]
    fn changes_propagate_through_intermediate_objects() {
        let service = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let facade = json!({"resource": {
            "apiGroup": "incubator.ingress-controller.konghq.com", "kind": "KongServiceFacade", "name": "front",
        }});
        let patch = json!({"path": "/a", "valueFrom": {"secretKeyRef": {"name": "patch", "key": "a"}}});
        let index = index_of([
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
        let affected = |kind, namespace: &str, name: &str| {
            let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
            let affected: Vec<_> = index.affected_by([&id]).iter().map(ObjectId::to_string).collect();
            affected.join(", ")
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
            (Kind::IngressClass, "", "another", WITHOUT_CLASS),
        ] {
            assert_eq!(affected(kind, namespace, name), expected, "{kind} {namespace}/{name}");
        }
    }

    #[test]
    fn parameters_affect_the_gateways_that_use_them() {
        let parameters = |name: &str| json!({"group": "portico.dev", "kind": "GatewayParameters", "name": name});
        let mut of_class = parameters("class");
        of_class["namespace"] = json!("system");
        let gateway = |name: &str, class: &str, infrastructure| {
            let spec = json!({"gatewayClassName": class, "listeners": [], "infrastructure": infrastructure});
            (Kind::Gateway, json!({"metadata": {"name": name}, "spec": spec}))
        };
        let index = index_of([
            (
                Kind::GatewayClass,
                json!({"metadata": {"name": "tuned"}, "spec": {"controllerName": "a/b", "parametersRef": of_class}}),
            ),
            gateway("of-class", "tuned", json!({})),
            gateway("own", "plain", json!({"parametersRef": parameters("own")})),
        ]);
        for (namespace, name, expected) in [
            ("system", "class", "GatewayClass tuned, Gateway a/of-class"),
            ("a", "own", "Gateway a/own"),
            ("a", "class", ""),
        ] {
            let id = ObjectId::new(Kind::GatewayParameters, ObjectKey::new(namespace, name));
            let affected: Vec<_> = index.affected_by([&id]).iter().map(ObjectId::to_string).collect();
            assert_eq!(affected.join(", "), expected, "{id}");
        }
    }

    /// What a change of class `mine` affects: the objects of this class, and those without a class.
    const OF_CLASS: &str = "Ingress a/other, Ingress a/shop, KongClusterPlugin auth, KongConsumer a/ann, \
                            KongConsumerGroup a/gold, KongServiceFacade a/front";
    /// What a change of any other class affects.
    const WITHOUT_CLASS: &str =
        "Ingress a/other, KongConsumer a/ann, KongConsumerGroup a/gold, KongServiceFacade a/front";
}
