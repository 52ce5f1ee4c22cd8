//! Which classes of Ingresses, consumers and the like are ours (`interface.md` §1).

use crate::api::kong::annotations::{INGRESS_CLASS, IS_DEFAULT_CLASS};
use crate::api::names::INGRESS_CONTROLLER;
use crate::api::networking::IngressClass;
use crate::api::{Meta, Object, ObjectKey};
use crate::store::Store;

/// The names under which we serve Ingresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The class that is ours also if there is no IngressClass of this name.
    pub name: String,
    /// Controllers of the IngressClasses that are ours.
    pub controllers: Vec<String>,
}

impl Default for Classes {
    fn default() -> Self {
        Classes { name: "portico".to_owned(), controllers: vec![INGRESS_CONTROLLER.to_owned()] }
    }
}

impl Classes {
    /// Whether an object is for us. `field` is what its spec says, which the annotation overrides.
    pub fn own(&self, store: &Store, meta: &Meta, field: Option<&str>) -> bool {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(field) {
            Some(name) => match store.ingress_classes.get(&ObjectKey::cluster(name)) {
                Some(class) => self.is_ours(class),
                None => name == self.name,
            },
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

    /// Taking a class over by its name is what `--ingress-class` is for; otherwise its controller decides.
    pub(super) fn is_ours(&self, class: &Object<IngressClass>) -> bool {
        self.controllers.contains(&class.spec.controller)
    }
}
