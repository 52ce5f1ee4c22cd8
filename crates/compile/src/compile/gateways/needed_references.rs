//! Selects the Secrets and ConfigMaps to fetch: those that a possibly served object refers to, and may use.

use std::sync::Arc;

use super::{allowed_listeners, listener_set};
use crate::api::gateway::Gateway;
use crate::api::{Kind, Object, ObjectId};
use crate::compile::classes::Classes;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::store::Store;

/// Whether the content of a Secret or ConfigMap is needed. Another controller's Gateways and Ingresses may refer to
/// thousands of Secrets, and no Gateway may make Portico read a Secret that it may not use. `controllers`: those of the
/// served GatewayClasses.
pub fn is_needed(store: &Store, classes: &Classes, controllers: &[String], target: &ObjectId) -> bool {
    store.dependency_index().dependents(target).any(|referrer| may_use(store, classes, controllers, referrer, target))
}

fn may_use(store: &Store, classes: &Classes, controllers: &[String], referrer: &ObjectId, target: &ObjectId) -> bool {
    if let Some(gateway) = gateway_of(store, referrer) {
        let class = gateway.and_then(|gateway| store.class_of(gateway));
        let is_served = class.is_some_and(|class| controllers.contains(&class.spec.controller_name));
        let from = Referrer { kind: referrer.kind, namespace: &referrer.key.namespace };
        return is_served && CrossNamespaceReference { from, to: target.kind, target: &target.key }.is_allowed(store);
    }
    if referrer.kind == Kind::XBackend && target.kind.namespaced() {
        let from = Referrer { kind: referrer.kind, namespace: &referrer.key.namespace };
        return CrossNamespaceReference { from, to: target.kind, target: &target.key }.is_allowed(store);
    }
    if referrer.kind.namespaced() && target.key.namespace != referrer.key.namespace {
        // Objects of the other kinds cannot use those of other namespaces.
        return false;
    }
    let Some(meta) = store.meta(referrer).filter(|_| store.has_class(referrer)) else { return true };
    match (referrer.kind == Kind::Ingress).then(|| store.ingresses.get(&referrer.key)).flatten() {
        Some(ingress) => classes.serves_ingress(store, ingress),
        None => classes.serves_object(store, meta, None),
    }
}

/// The Gateway that serves the listeners of an object, if the object is a Gateway or a ListenerSet that its Gateway
/// allows. The outer `None`: the object is of another kind.
fn gateway_of<'s>(store: &'s Store, referrer: &ObjectId) -> Option<Option<&'s Arc<Object<Gateway>>>> {
    match referrer.kind {
        Kind::Gateway => Some(store.gateways.get(&referrer.key)),
        Kind::ListenerSet => {
            let set = store.listener_sets.get(&referrer.key);
            let gateway = set.and_then(|set| store.gateways.get(&listener_set::gateway_key(set)?));
            Some(gateway.filter(|gateway| allowed_listeners::allows_namespace(store, gateway, &referrer.key.namespace)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ObjectKey;
    use crate::api::kong::annotations::INGRESS_CLASS;
    use crate::store::{AnyObject, Batch};

    fn ingress(name: &str, class: Option<&str>, annotation: Option<&str>) -> AnyObject {
        let annotations = annotation.map_or(json!({}), |class| json!({ INGRESS_CLASS: class }));
        let object = json!({
            "metadata": {"namespace": "a", "name": name, "annotations": annotations},
            "spec": {"ingressClassName": class, "tls": [{"secretName": name}, {"secretName": "shared"}]},
        });
        AnyObject::parse(Kind::Ingress, object).unwrap()
    }

    fn fetched(objects: Vec<AnyObject>) -> Vec<String> {
        let mut store = Store::default();
        store.apply(Batch { upserts: objects, removes: vec![] });
        let classes = Classes { name: "mine".to_owned(), ..Classes::default() };
        let referenced = store.take_changed_references();
        let controllers = ["x/mine".to_owned()];
        let needed = referenced.iter().filter(|id| is_needed(&store, &classes, &controllers, id));
        needed.map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn secrets_of_foreign_ingresses_are_not_fetched() {
        let theirs = vec![
            ingress("theirs", Some("nginx"), None),
            ingress("annotated", Some("mine"), Some("nginx")),
            ingress("without", None, None),
        ];
        assert_eq!(fetched(theirs.clone()), [""; 0]);
        let plugin = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "cors",
            "configFrom": {"secretKeyRef": {"name": "of-plugin", "key": "a"}}});
        let mut with_ours = theirs;
        with_ours.extend([
            ingress("ours", Some("mine"), None),
            ingress("annotated-ours", Some("nginx"), Some("mine")),
            AnyObject::parse(Kind::KongPlugin, plugin).unwrap(),
        ]);
        let of_another = json!({"metadata": {"namespace": "a", "name": "q"}, "plugin": "cors",
            "configFrom": {"secretKeyRef": {"name": "of-another", "namespace": "b", "key": "a"}}});
        with_ours.push(AnyObject::parse(Kind::KongPlugin, of_another).unwrap());
        assert_eq!(fetched(with_ours), ["annotated-ours", "of-plugin", "ours", "shared"]);
    }

    fn gateway_class(controller: &str) -> AnyObject {
        let object = json!({"metadata": {"name": "c"}, "spec": {"controllerName": controller}});
        AnyObject::parse(Kind::GatewayClass, object).unwrap()
    }

    #[test]
    fn secrets_of_foreign_gateways_are_not_fetched() {
        let tls = json!({"certificateRefs": [{"name": "own"}]});
        let listener = json!({"name": "x", "port": 443, "protocol": "HTTPS", "tls": tls});
        let gateway = json!({"metadata": {"namespace": "a", "name": "g"},
            "spec": {"gatewayClassName": "c", "listeners": [listener]}});
        let gateway = AnyObject::parse(Kind::Gateway, gateway).unwrap();
        assert_eq!(fetched(vec![gateway.clone()]), [""; 0], "whose class it will be is unknown");
        assert_eq!(fetched(vec![gateway_class("x/theirs"), gateway.clone()]), [""; 0]);
        assert_eq!(fetched(vec![gateway_class("x/mine"), gateway.clone()]), ["own"]);

        let mut store = Store::default();
        store.apply(Batch { upserts: vec![gateway], removes: vec![] });
        store.take_changed_references();
        store.apply(Batch { upserts: vec![gateway_class("x/mine")], removes: vec![] });
        let changed: Vec<_> = store.take_changed_references().iter().map(|id| id.key.to_string()).collect();
        assert_eq!(changed, ["a/own"], "a class changes what is needed");
    }

    #[test]
    fn secrets_of_other_namespaces_are_fetched_with_a_grant() {
        let certificates = json!([{"name": "own"}, {"name": "shared", "namespace": "b"}]);
        let listener = json!({"name": "x", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": certificates}});
        let gateway = json!({"metadata": {"namespace": "a", "name": "g"},
            "spec": {"gatewayClassName": "c", "listeners": [listener]}});
        let gateway = AnyObject::parse(Kind::Gateway, gateway).unwrap();
        let class = gateway_class("x/mine");
        assert_eq!(fetched(vec![class.clone(), gateway.clone()]), ["own"]);
        let grant = json!({"metadata": {"namespace": "b", "name": "any"}, "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "a"}],
            "to": [{"group": "", "kind": "Secret"}],
        }});
        let grant = AnyObject::parse(Kind::ReferenceGrant, grant).unwrap();
        assert_eq!(fetched(vec![class, gateway.clone(), grant.clone()]), ["own", "shared"]);

        let mut store = Store::default();
        store.apply(Batch { upserts: vec![gateway], removes: vec![] });
        store.take_changed_references();
        store.apply(Batch { upserts: vec![grant], removes: vec![] });
        let changed: Vec<_> = store.take_changed_references().iter().map(|id| id.key.to_string()).collect();
        assert!(changed.contains(&"b/shared".to_owned()), "a grant changes what is needed: {changed:?}");
    }

    /// The Gateway decides which ListenerSets it has, and its class which controller serves them, whatever arrives
    /// first.
    #[test]
    fn secrets_of_listener_sets_are_fetched_once_their_gateway_allows_them() {
        let tls = json!({"certificateRefs": [{"name": "of-set"}]});
        let listener = json!({"name": "x", "port": 443, "protocol": "HTTPS", "tls": tls});
        let set = json!({"metadata": {"namespace": "a", "name": "s"},
            "spec": {"parentRef": {"name": "g"}, "listeners": [listener]}});
        let set = AnyObject::parse(Kind::ListenerSet, set).unwrap();
        let gateway = |from: &str| {
            let listener = json!({"name": "x", "port": 80, "protocol": "HTTP"});
            let gateway = json!({"metadata": {"namespace": "a", "name": "g"}, "spec": {"gatewayClassName": "c",
                "listeners": [listener], "allowedListeners": {"namespaces": {"from": from}}}});
            AnyObject::parse(Kind::Gateway, gateway).unwrap()
        };
        let (class, theirs) = (gateway_class("x/mine"), gateway_class("x/theirs"));
        assert_eq!(fetched(vec![set.clone(), gateway("Same"), class.clone()]), ["of-set"]);
        assert_eq!(fetched(vec![set.clone(), gateway("None"), class.clone()]), [""; 0]);
        assert_eq!(fetched(vec![set.clone(), gateway("Same"), theirs.clone()]), [""; 0]);

        let mut store = Store::default();
        store.apply(Batch { upserts: vec![set], removes: vec![] });
        let id = ObjectId::new(Kind::Gateway, ObjectKey::new("a", "g"));
        let changes = [
            (vec![gateway("Same")], vec![]),
            (vec![class], vec![]),
            (vec![theirs], vec![]),
            (vec![gateway("All")], vec![]),
            (vec![], vec![id]),
        ];
        for (upserts, removes) in changes {
            store.take_changed_references();
            let change = format!("{upserts:?} {removes:?}");
            store.apply(Batch { upserts, removes });
            let changed = store.take_changed_references();
            assert!(changed.iter().any(|id| &*id.key.name == "of-set"), "{change} changes what is needed");
        }
    }

    #[test]
    fn secrets_of_other_namespaces_are_fetched_for_x_backends_with_a_grant() {
        let backend = |name: &str, secret: serde_json::Value| {
            let validation = json!({"hostname": "a.example", "wellKnownCACertificates": "System"});
            let tls = json!({"mode": "ClientAndServer", "validation": validation, "clientCertificateRef": secret});
            let object = json!({"metadata": {"namespace": "a", "name": name}, "spec": {"type": "ExternalHostname",
                "externalHostname": {"hostname": "a.example"}, "port": {"number": 443}, "tls": tls}});
            AnyObject::parse(Kind::XBackend, object).unwrap()
        };
        let backends =
            vec![backend("x", json!({"name": "own"})), backend("y", json!({"name": "shared", "namespace": "b"}))];
        assert_eq!(fetched(backends.clone()), ["own"]);
        let grant = json!({"metadata": {"namespace": "b", "name": "any"}, "spec": {
            "from": [{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "namespace": "a"}],
            "to": [{"group": "", "kind": "Secret"}],
        }});
        let with_grant = [backends, vec![AnyObject::parse(Kind::ReferenceGrant, grant).unwrap()]].concat();
        assert_eq!(fetched(with_grant), ["own", "shared"]);
    }
}
