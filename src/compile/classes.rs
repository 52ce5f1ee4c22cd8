//! Which classes of Ingresses, consumers and the like are ours (`interface.md` §1).

use crate::api::kong::annotations::{INGRESS_CLASS, IS_DEFAULT_CLASS};
use crate::api::names::{INGRESS_CONTROLLER, KONG_INGRESS_CONTROLLER};
use crate::api::networking::IngressClass;
use crate::api::{Meta, Object, ObjectKey};
use crate::store::Store;

/// The names under which we serve Ingresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The class that is ours also if there is no IngressClass of this name, or one of Kong's ingress controller.
    pub name: String,
}

impl Default for Classes {
    fn default() -> Self {
        Classes { name: OWN.to_owned() }
    }
}

/// The class of our own manifests.
const OWN: &str = "portico";

impl Classes {
    /// Whether the manifests were written for another controller, whose ways count then.
    pub(super) fn takes_over(&self) -> bool {
        self.name != OWN
    }

    /// Whether a class is ours, by its name and the controller of its IngressClass, if there is one. Every class of our own
    /// controller is; of Kong's, which may be several with a controller each, only the one that is taken over by its name.
    fn serves(&self, class: &str, controller: Option<&str>) -> bool {
        match controller {
            None => class == self.name,
            Some(INGRESS_CONTROLLER) => true,
            Some(KONG_INGRESS_CONTROLLER) => self.takes_over() && class == self.name,
            Some(_) => false,
        }
    }

    /// Whether an object is for us. `field` is what its spec says, which the annotation overrides.
    pub fn own(&self, store: &Store, meta: &Meta, field: Option<&str>) -> bool {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(field) {
            Some(name) => {
                let class = store.ingress_classes.get(&ObjectKey::cluster(name));
                self.serves(name, class.map(|class| class.spec.controller.as_str()))
            }
            None => self.default_one(store).is_some(),
        }
    }

    /// The class of ours that owns what names none.
    pub(super) fn default_one<'s>(&self, store: &'s Store) -> Option<&'s Object<IngressClass>> {
        let is_default = |class: &&Object<IngressClass>| {
            class.meta.annotations.get(IS_DEFAULT_CLASS).is_some_and(|value| &**value == "true")
        };
        store.ingress_classes.values().map(|class| &**class).filter(is_default).find(|class| self.is_ours(class))
    }

    pub(super) fn is_ours(&self, class: &Object<IngressClass>) -> bool {
        self.serves(&class.meta.key.name, Some(&class.spec.controller))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::Kind;
    use crate::store::{AnyObject, Batch};

    fn class(name: &str, controller: &str, annotations: Value) -> AnyObject {
        let metadata = json!({"name": name, "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"controller": controller}});
        AnyObject::parse(Kind::IngressClass, object).unwrap()
    }

    /// An API server lets nobody create an Ingress with both, but whoever edits one may leave both in it.
    // kong-compat §3.1
    #[test]
    fn the_annotation_goes_before_the_field_and_the_default_class_is_for_who_has_neither() {
        let classes = Classes { name: "kong".to_owned() };
        let (mut store, mut with_default) = (Store::default(), Store::default());
        let ours = || class("kong", KONG_INGRESS_CONTROLLER, json!({}));
        let foreign = || class("nginx", "nginx.example/controller", json!({}));
        store.apply(Batch { upserts: vec![ours(), foreign()], removes: vec![] });
        let usual = class("usual", INGRESS_CONTROLLER, json!({IS_DEFAULT_CLASS: "true"}));
        with_default.apply(Batch { upserts: vec![ours(), foreign(), usual], removes: vec![] });
        for (annotation, field, is_ours, is_ours_with_default) in [
            (Some("kong"), None, true, true),
            (None, Some("kong"), true, true),
            (Some("kong"), Some("nginx"), true, true),
            (Some("nginx"), Some("kong"), false, false),
            (Some("nginx"), None, false, false),
            (None, Some("nginx"), false, false),
            (None, Some("usual"), false, true),
            (None, None, false, true),
        ] {
            let annotations = annotation.map_or(json!({}), |class| json!({INGRESS_CLASS: class}));
            let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
            let meta: Meta = serde_json::from_value(meta).unwrap();
            let found = (classes.own(&store, &meta, field), classes.own(&with_default, &meta, field));
            assert_eq!(found, (is_ours, is_ours_with_default), "{annotation:?} {field:?}");
        }
    }
}
