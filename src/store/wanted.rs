//! Which Secrets and ConfigMaps are worth fetching: those that somebody mentions who may be ours.

use std::collections::BTreeSet;

use super::Store;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::{Kind, ObjectId, ObjectKey};

impl Store {
    /// Beside another controller of Ingresses there may be thousands of Secrets that only its Ingresses mention. `ours` is
    /// asked about the name of a class, and about the controller of the IngressClass if there is one; what names no class
    /// may be of ours.
    pub fn wanted_bodies(&self, ours: impl Fn(&str, Option<&str>) -> bool) -> BTreeSet<ObjectId> {
        let may_be_ours = |id: &ObjectId| {
            self.class_of(id).is_none_or(|class| {
                let object = self.ingress_classes.get(&ObjectKey::cluster(class));
                ours(class, object.map(|object| object.spec.controller.as_str()))
            })
        };
        let mentioned = self.refs().mentioned(Kind::Secret).chain(self.refs().mentioned(Kind::ConfigMap));
        mentioned.filter(|id| self.refs().dependents(id).any(may_be_ours)).cloned().collect()
    }

    /// The class that an object names; the annotation goes before the field.
    fn class_of(&self, id: &ObjectId) -> Option<&str> {
        let annotated = || self.meta(id)?.annotations.get(INGRESS_CLASS).map(|class| &**class);
        match id.kind {
            Kind::Ingress => annotated().or_else(|| self.ingresses.get(&id.key)?.spec.ingress_class_name.as_deref()),
            Kind::TcpIngress
            | Kind::UdpIngress
            | Kind::KongClusterPlugin
            | Kind::KongConsumer
            | Kind::KongServiceFacade => annotated(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{AnyObject, Batch};
    use super::*;

    fn ingress(name: &str, class: Option<&str>, annotation: Option<&str>) -> AnyObject {
        let annotations = annotation.map_or(json!({}), |class| json!({ INGRESS_CLASS: class }));
        let object = json!({
            "metadata": {"namespace": "a", "name": name, "annotations": annotations},
            "spec": {"ingressClassName": class, "tls": [{"secretName": name}, {"secretName": "shared"}]},
        });
        AnyObject::parse(Kind::Ingress, object).unwrap()
    }

    fn wanted(objects: Vec<AnyObject>) -> Vec<String> {
        let mut store = Store::default();
        store.apply(Batch { upserts: objects, removes: vec![] });
        let ours = |class: &str, controller: Option<&str>| class == "mine" || controller == Some("example.com/mine");
        store.wanted_bodies(ours).iter().map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn what_only_others_mention_is_not_fetched() {
        let class = |name: &str, controller: &str| {
            let object: Value = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
            AnyObject::parse(Kind::IngressClass, object).unwrap()
        };
        let nobodys = vec![
            class("nginx", "example.com/nginx"),
            ingress("theirs", Some("nginx"), None),
            ingress("annotated", Some("mine"), Some("nginx")),
            ingress("nobodys", Some("missing"), None),
        ];
        assert_eq!(wanted(nobodys.clone()), [""; 0]);
        let mut with_ours = nobodys;
        with_ours.extend([
            class("second", "example.com/mine"),
            ingress("by-name", Some("mine"), None),
            ingress("by-controller", Some("second"), None),
            ingress("annotated-ours", Some("nginx"), Some("mine")),
            ingress("without", None, None),
        ]);
        assert_eq!(wanted(with_ours), ["annotated-ours", "by-controller", "by-name", "shared", "without"]);
    }
}
