//! Selects the Secrets and ConfigMaps to fetch: those that a possibly served object refers to.

use std::collections::BTreeSet;

use super::Store;
use crate::api::{Kind, Meta, ObjectId};

impl Store {
    /// The Secrets and ConfigMaps to fetch. `is_served` decides about referrers with a class, given their metadata and
    /// the class in their spec: another Ingress controller's Ingresses may refer to thousands of Secrets.
    pub fn objects_to_fetch(&self, is_served: impl Fn(&Meta, Option<&str>) -> bool) -> BTreeSet<ObjectId> {
        let may_be_served = |id: &ObjectId| {
            let Some(meta) = self.meta(id).filter(|_| has_class(id.kind)) else { return true };
            let ingress = (id.kind == Kind::Ingress).then(|| self.ingresses.get(&id.key)).flatten();
            is_served(meta, ingress.and_then(|ingress| ingress.spec.ingress_class_name.as_deref()))
        };
        let index = self.dependency_index();
        let referenced = index.referenced(Kind::Secret).chain(index.referenced(Kind::ConfigMap));
        referenced.filter(|id| index.dependents(id).any(may_be_served)).cloned().collect()
    }
}

/// Whether objects of this kind are served only if they have a class of this controller.
fn has_class(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Ingress
            | Kind::TcpIngress
            | Kind::UdpIngress
            | Kind::KongClusterPlugin
            | Kind::KongConsumer
            | Kind::KongServiceFacade
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{AnyObject, Batch};
    use super::*;
    use crate::api::kong::annotations::INGRESS_CLASS;

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
        let is_served = |meta: &Meta, field: Option<&str>| {
            meta.annotations.get(INGRESS_CLASS).map_or(field, |class| Some(&**class)) == Some("mine")
        };
        store.objects_to_fetch(is_served).iter().map(|id| id.key.name.to_string()).collect()
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
        assert_eq!(fetched(with_ours), ["annotated-ours", "of-plugin", "ours", "shared"]);
    }
}
