//! Selects the Ingresses, consumers and other objects that this process serves, by their class.

use std::collections::BTreeMap;

use crate::api::kong::INGRESS_CONTROLLER as OTHER_INGRESS_CONTROLLER;
use crate::api::kong::annotations::{INGRESS_CLASS, IS_DEFAULT_CLASS};
use crate::api::names::{INGRESS_CLASS_NAME, INGRESS_CONTROLLER};
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::store::Store;

/// Decides which classes this process serves: the configured one, and all classes of its controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The configured class, which is served even if no IngressClass of this name exists. If it is not Portico's own
    /// class, it is also served if its IngressClass belongs to Kong's ingress controller.
    pub name: String,
    /// The name of this installation's controller, all of whose classes are served.
    pub controller: String,
    /// The classes of ingress-nginx whose Ingresses are served, too.
    pub nginx: Option<NginxClasses>,
}

/// Which Ingresses ingress-nginx would serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxClasses {
    /// The controller of the IngressClasses.
    pub controller: String,
    /// The value of the annotation `kubernetes.io/ingress.class`, which needs no IngressClass.
    pub annotated: String,
    /// Whether an IngressClass with this name counts, whatever its controller is.
    pub by_name: bool,
    /// Whether Ingresses with neither the field nor the annotation are served.
    pub without_class: bool,
}

/// The objects that are left out: by the name of their class, the number of objects of each kind.
pub type LeftOutObjects = BTreeMap<String, BTreeMap<&'static str, usize>>;

impl Default for Classes {
    fn default() -> Self {
        Classes { name: INGRESS_CLASS_NAME.to_owned(), controller: INGRESS_CONTROLLER.to_owned(), nginx: None }
    }
}

impl Classes {
    /// Whether the configured class is not Portico's own. Its manifests were then written for another controller, such
    /// as Kong's, and the conventions of that controller apply.
    pub(super) fn replaces_other_controller(&self) -> bool {
        self.name != INGRESS_CLASS_NAME
    }

    /// Whether to serve a class, given its name and the controller of its IngressClass, if that exists. All classes of
    /// this installation's controller are served. Of Kong's classes, which may belong to several installations, only
    /// the one with the configured name is.
    fn serves_class_name(&self, class: &str, controller: Option<&str>) -> bool {
        match controller {
            None => class == self.name,
            Some(controller) if controller == self.controller => true,
            Some(OTHER_INGRESS_CONTROLLER) => self.replaces_other_controller() && class == self.name,
            Some(_) => false,
        }
    }

    /// Whether this process serves an object. `spec_class` is the class in its spec, if its kind has such a field; the
    /// annotation overrides it.
    pub(crate) fn serves_object(&self, store: &Store, meta: &Meta, spec_class: Option<&str>) -> bool {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(spec_class) {
            Some(name) => {
                let class = store.ingress_classes.get(&ObjectKey::cluster(name));
                self.serves_class_name(name, class.map(|class| class.spec.controller.as_str()))
            }
            None => self.default_class(store).is_some(),
        }
    }

    /// Whether to serve an Ingress in place of ingress-nginx. Its field decides if it is set; the annotation is for
    /// Ingresses without it. A class that is marked as default has no effect, because the API server has written it
    /// into the field.
    pub fn claims_for_nginx(&self, store: &Store, meta: &Meta, spec_class: Option<&str>) -> bool {
        let Some(nginx) = &self.nginx else { return false };
        match spec_class {
            Some(name) => {
                let class = store.ingress_classes.get(&ObjectKey::cluster(name));
                class.is_some_and(|class| self.serves_nginx_class(class))
            }
            None => match meta.annotations.get(INGRESS_CLASS) {
                Some(class) => **class == *nginx.annotated,
                None => nginx.without_class,
            },
        }
    }

    /// Whether this process serves an Ingress.
    pub(crate) fn serves_ingress(&self, store: &Store, ingress: &Object<Ingress>) -> bool {
        let class = ingress.spec.ingress_class_name.as_deref();
        self.claims_for_nginx(store, &ingress.meta, class) || self.serves_object(store, &ingress.meta, class)
    }

    /// The served class that is marked as default and so owns objects without a class.
    pub fn default_class<'s>(&self, store: &'s Store) -> Option<&'s Object<IngressClass>> {
        let is_default = |class: &&Object<IngressClass>| {
            class.meta.annotations.get(IS_DEFAULT_CLASS).is_some_and(|value| &**value == "true")
        };
        store.ingress_classes.values().map(|class| &**class).filter(is_default).find(|class| self.serves_class(class))
    }

    /// The Ingresses, consumers and consumer groups of classes of Kong's ingress controller that this process leaves
    /// out and would serve with another configured class: by class, the number of each kind.
    pub fn left_out_objects(&self, store: &Store) -> LeftOutObjects {
        let mut left_out = LeftOutObjects::new();
        if self.replaces_other_controller() {
            return left_out;
        }
        let mut count = |kind: Kind, meta: &Meta, spec_class: Option<&str>| {
            let annotation = meta.annotations.get(INGRESS_CLASS).map(|class| &**class);
            let Some(name) = annotation.or(spec_class) else { return };
            let class = store.ingress_classes.get(&ObjectKey::cluster(name));
            let is_of_other_controller =
                class.map_or(name == "kong", |class| class.spec.controller == OTHER_INGRESS_CONTROLLER);
            if is_of_other_controller {
                *left_out.entry(name.to_owned()).or_default().entry(kind.name()).or_default() += 1;
            }
        };
        for ingress in store.ingresses.values() {
            count(Kind::Ingress, &ingress.meta, ingress.spec.ingress_class_name.as_deref());
        }
        for (kind, meta) in store.consumers_and_groups() {
            count(kind, meta, None);
        }
        left_out
    }

    /// Whether an IngressClass is one of ingress-nginx whose Ingresses are served.
    pub(super) fn serves_nginx_class(&self, class: &Object<IngressClass>) -> bool {
        self.nginx.as_ref().is_some_and(|nginx| {
            class.spec.controller == nginx.controller || nginx.by_name && *class.meta.key.name == *nginx.annotated
        })
    }

    pub(super) fn serves_class(&self, class: &Object<IngressClass>) -> bool {
        self.serves_class_name(&class.meta.key.name, Some(&class.spec.controller))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::ObjectId;
    use crate::api::names::GATEWAY_CONTROLLER;
    use crate::compile::Compiler;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch};

    fn class(name: &str, controller: &str, annotations: Value) -> AnyObject {
        let metadata = json!({"name": name, "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"controller": controller}});
        AnyObject::parse(Kind::IngressClass, object).unwrap()
    }

    /// The API server rejects creating an Ingress with both, but a later edit may leave both. The annotation takes
    /// precedence, as in Kong's ingress controller.
    #[test]
    fn class_annotation_overrides_field_then_default_class_applies() {
        let classes = Classes { name: "kong".to_owned(), ..Classes::default() };
        let (mut store, mut with_default) = (Store::default(), Store::default());
        let ours = || class("kong", OTHER_INGRESS_CONTROLLER, json!({}));
        let foreign = || class("nginx", "nginx.example/controller", json!({}));
        store.apply(Batch { upserts: vec![ours(), foreign()], removes: vec![] });
        let default_class = class("usual", INGRESS_CONTROLLER, json!({IS_DEFAULT_CLASS: "true"}));
        with_default.apply(Batch { upserts: vec![ours(), foreign(), default_class], removes: vec![] });
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
            let is_served =
                (classes.serves_object(&store, &meta, field), classes.serves_object(&with_default, &meta, field));
            assert_eq!(is_served, (is_ours, is_ours_with_default), "{annotation:?} {field:?}");
        }
    }

    #[test]
    fn ingresses_of_ingress_nginx_are_served_by_field_or_annotation() {
        const CONTROLLER: &str = "k8s.io/ingress-nginx";
        let served = |by_name, without_class| {
            let (controller, annotated) = (CONTROLLER.to_owned(), "nginx".to_owned());
            let nginx = NginxClasses { controller, annotated, by_name, without_class };
            Classes { nginx: Some(nginx), ..Classes::default() }
        };
        let (classes, more) = (served(false, false), served(true, true));
        let mut store = Store::default();
        let default = json!({IS_DEFAULT_CLASS: "true"});
        let upserts = vec![class("web", CONTROLLER, default), class("nginx", "other.example/controller", json!({}))];
        store.apply(Batch { upserts, removes: vec![] });
        for (annotation, field, is_served, is_served_with_more) in [
            (None, Some("web"), true, true),
            // The class belongs to another controller, or does not exist.
            (None, Some("nginx"), false, true),
            (None, Some("absent"), false, false),
            // The field decides.
            (Some("nginx"), Some("absent"), false, false),
            (Some("nginx"), None, true, true),
            (Some("web"), None, false, false),
            (Some(""), None, false, false),
            (None, None, false, true),
        ] {
            let annotations = annotation.map_or(json!({}), |class| json!({INGRESS_CLASS: class}));
            let meta: Meta = serde_json::from_value(json!({"name": "b", "annotations": annotations})).unwrap();
            assert_eq!(classes.claims_for_nginx(&store, &meta, field), is_served, "{annotation:?} {field:?}");
            assert_eq!(more.claims_for_nginx(&store, &meta, field), is_served_with_more, "{annotation:?} {field:?}");
            assert!(!Classes::default().claims_for_nginx(&store, &meta, field));
        }
    }

    #[test]
    fn left_out_objects_are_counted_unless_a_class_is_configured() {
        let ingress = |name: &str, class: Option<&str>, annotations: Value| {
            let metadata = json!({"namespace": "a", "name": name, "annotations": annotations});
            AnyObject::parse(Kind::Ingress, json!({"metadata": metadata, "spec": {"ingressClassName": class}})).unwrap()
        };
        let subject = |kind: Kind, name: &str, class: Option<&str>| {
            let annotations = class.map_or(json!({}), |class| json!({INGRESS_CLASS: class}));
            let metadata = json!({"namespace": "a", "name": name, "annotations": annotations});
            AnyObject::parse(kind, json!({"metadata": metadata})).unwrap()
        };
        let mut store = Store::default();
        let upserts = vec![
            class("blue", OTHER_INGRESS_CONTROLLER, json!({})),
            class("nginx", "nginx.example/controller", json!({})),
            ingress("a", Some("blue"), json!({})),
            ingress("b", None, json!({INGRESS_CLASS: "blue"})),
            ingress("c", Some("kong"), json!({})),
            ingress("d", Some("nginx"), json!({})),
            ingress("e", Some("other"), json!({})),
            ingress("f", Some(INGRESS_CLASS_NAME), json!({})),
            ingress("g", None, json!({})),
            subject(Kind::KongConsumer, "a", Some("blue")),
            subject(Kind::KongConsumer, "b", Some("kong")),
            subject(Kind::KongConsumer, "c", Some("kong")),
            subject(Kind::KongConsumer, "d", Some("nginx")),
            subject(Kind::KongConsumer, "e", Some(INGRESS_CLASS_NAME)),
            subject(Kind::KongConsumer, "f", Some("")),
            subject(Kind::KongConsumer, "g", None),
            subject(Kind::KongConsumerGroup, "a", Some("kong")),
            subject(Kind::KongConsumerGroup, "b", Some("other")),
            subject(Kind::KongConsumerGroup, "c", None),
        ];
        store.apply(Batch { upserts, removes: vec![] });
        let kinds = |counts: &[(&'static str, usize)]| counts.iter().copied().collect::<BTreeMap<_, _>>();
        let expected: LeftOutObjects = BTreeMap::from([
            ("blue".to_owned(), kinds(&[("Ingress", 2), ("KongConsumer", 1)])),
            ("kong".to_owned(), kinds(&[("Ingress", 1), ("KongConsumer", 2), ("KongConsumerGroup", 1)])),
        ]);
        assert_eq!(Classes::default().left_out_objects(&store), expected);
        let configured = Classes { name: "blue".to_owned(), ..Classes::default() };
        assert_eq!(configured.left_out_objects(&store), BTreeMap::new());
    }

    #[test]
    fn installations_with_other_controller_names_serve_other_classes() {
        let of_installation = |name: &str, gateway_controller: &str, ingress_controller: &str| TestInputs {
            controllers: vec![gateway_controller.to_owned()],
            classes: Classes { name: name.to_owned(), controller: ingress_controller.to_owned(), ..Classes::default() },
            ..TestInputs::new(PluginRegistry { kinds: &[], internal: &[] })
        };
        let public = of_installation("public", GATEWAY_CONTROLLER, INGRESS_CONTROLLER);
        let internal = of_installation("internal", "example.com/internal", "example.com/internal-ingress");
        let mut objects = Vec::new();
        for (name, inputs) in [("public", &public), ("internal", &internal)] {
            let gateway_class = json!({"metadata": {"name": name}, "spec": {"controllerName": inputs.controllers[0]}});
            let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
            let gateway = json!({"metadata": {"namespace": "a", "name": name},
                "spec": {"gatewayClassName": name, "listeners": [listener]}});
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let ingress = json!({"metadata": {"namespace": "a", "name": name},
                "spec": {"ingressClassName": name, "defaultBackend": backend}});
            objects.extend([
                AnyObject::parse(Kind::GatewayClass, gateway_class).unwrap(),
                AnyObject::parse(Kind::Gateway, gateway).unwrap(),
                class(name, &inputs.classes.controller, json!({IS_DEFAULT_CLASS: "true"})),
                AnyObject::parse(Kind::Ingress, ingress).unwrap(),
            ]);
        }
        let mut store = Store::default();
        let changes = store.apply(Batch { upserts: objects, removes: vec![] });
        for (own, other, inputs) in [("public", "internal", &public), ("internal", "public", &internal)] {
            let mut compiler = Compiler::default();
            inputs.compile(&mut compiler, &store, &changes);
            let verdict = |kind, name| compiler.verdicts().get(&ObjectId::new(kind, ObjectKey::new("a", name)));
            let has_conditions =
                |name| verdict(Kind::Gateway, name).is_some_and(|verdict| verdict.all_conditions().next().is_some());
            assert_eq!((has_conditions(own), has_conditions(other)), (true, false), "Gateways for {own}");
            let serves_ingress = |name: &str| {
                let ingress = &store.ingresses[&ObjectKey::new("a", name)];
                inputs.classes.serves_ingress(&store, ingress)
            };
            assert_eq!((serves_ingress(own), serves_ingress(other)), (true, false), "Ingresses for {own}");
            let default = inputs.classes.default_class(&store).map(|class| &*class.meta.key.name);
            assert_eq!(default, Some(own));
        }
    }
}
