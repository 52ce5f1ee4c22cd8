//! Decides by its class whether this process serves an Ingress, and reads the parameters of the class.
//!
//! It is separate from `../ingress`, so that what all kinds of routes share, such as plugins, can ask it, too.

pub(super) mod dialect;
pub(super) mod foreign_annotations;
pub(super) mod unknown_annotation;

use std::sync::Arc;

use self::dialect::Dialect;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::kong::{INGRESS_CONTROLLER as OTHER_INGRESS_CONTROLLER, IngressClassParametersSpec};
use crate::api::networking::{Ingress, IngressClass, IngressClassParametersReference};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::label_selector;
use crate::diagnostic::{Diagnostic, Topic};
use crate::schema::nearest;
use crate::verdict::Verdict;

/// The parameters of a class, or defaults if the class or its parameters do not exist.
pub(super) fn class_parameters(
    cx: CompileContext<'_>,
    class: Option<&Object<IngressClass>>,
) -> IngressClassParametersSpec {
    let parameters =
        class.and_then(|class| class.spec.parameters.as_ref()).and_then(|reference| parameters_key(reference).ok());
    let parameters = parameters.and_then(|key| cx.store.ingress_class_parameters.get(&key));
    parameters.map(|parameters| parameters.spec.clone()).unwrap_or_default()
}

/// The IngressClass of a served Ingress, which may be missing. `None` if this process does not serve the Ingress.
pub(super) fn served_class<'s>(
    cx: CompileContext<'s>,
    ingress: &Object<Ingress>,
) -> Option<Option<&'s Object<IngressClass>>> {
    claimed_class(cx, ingress).filter(|class| nginx_exclusion(cx, ingress, *class).is_none())
}

/// The same, also for an Ingress that flags leave out.
fn claimed_class<'s>(cx: CompileContext<'s>, ingress: &Object<Ingress>) -> Option<Option<&'s Object<IngressClass>>> {
    let field = ingress.spec.ingress_class_name.as_deref();
    let find = |name: &str| cx.store.ingress_classes.get(&ObjectKey::cluster(name)).map(|class| &**class);
    if cx.inputs.classes.claims_for_nginx(cx.store, &ingress.meta, field) {
        return Some(field.and_then(find));
    }
    if !cx.inputs.classes.serves_object(cx.store, &ingress.meta, field) {
        return None;
    }
    Some(match class_name(ingress) {
        Some(name) => find(name),
        None => cx.inputs.classes.default_class(cx.store),
    })
}

/// Why flags leave out an Ingress of this class, which may be missing; `None` if they do not, or if it is not of the
/// dialect of ingress-nginx.
fn nginx_exclusion(
    cx: CompileContext<'_>,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
) -> Option<Diagnostic> {
    let settings = cx.inputs.ingress;
    let excludes_catch_all = settings.nginx_excludes_catch_all && ingress.spec.default_backend.is_some();
    if !excludes_catch_all && settings.nginx_namespaces.is_none()
        || dialect::of_served_ingress(cx, ingress, class) != Ok(Dialect::Nginx)
    {
        return None;
    }
    if excludes_catch_all {
        let message = "--nginx-disable-catch-all leaves out Ingresses with a default backend, so it is not served";
        return Some(Diagnostic::warning("spec.defaultBackend", message, "remove it, or the flag"));
    }
    let namespace = &ingress.meta.key.namespace;
    let labels = cx.store.namespaces.get(&ObjectKey::cluster(namespace)).map(|namespace| &namespace.meta.labels);
    let is_selected = |selector| labels.is_some_and(|labels| label_selector::matches(selector, labels));
    let is_left_out = settings.nginx_namespaces.as_ref().is_some_and(|selector| !is_selected(selector));
    is_left_out.then(|| {
        let message =
            format!("--nginx-namespace-selector does not match the labels of {} {namespace}", Kind::Namespace);
        let message = message + ", so the Ingress is not served";
        Diagnostic::warning("metadata.namespace", message, "add the labels to it, or change the flag")
    })
}

/// Whether a served Ingress of this class, which may be missing, was written for Kong's ingress controller.
pub(super) fn is_of_other_controller(ingress: &Object<Ingress>, class: Option<&Object<IngressClass>>) -> bool {
    class.map_or_else(|| class_name(ingress) == Some("kong"), |class| class.spec.controller == OTHER_INGRESS_CONTROLLER)
}

fn class_name(ingress: &Object<Ingress>) -> Option<&str> {
    let annotation = ingress.meta.annotations.get(INGRESS_CLASS).map(|class| &**class);
    annotation.or(ingress.spec.ingress_class_name.as_deref())
}

/// The verdict on an Ingress of another class. A class that belongs to another controller needs no note.
pub(super) fn foreign_verdict(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> Verdict {
    if let Some(note) = claimed_class(cx, ingress).and_then(|class| nginx_exclusion(cx, ingress, class)) {
        return Verdict { generation: ingress.meta.generation, diagnostics: vec![note], ..Verdict::default() };
    }
    let configured_class = &cx.inputs.classes.name;
    let is_annotated = ingress.meta.annotations.contains_key(INGRESS_CLASS);
    let field = if is_annotated { annotation_field(INGRESS_CLASS) } else { "spec.ingressClassName".to_owned() };
    let note = match class_name(ingress) {
        None => {
            let message = "the Ingress has no class, and no class of Portico is the default class";
            let remedy = format!("set it to {configured_class} to serve the Ingress with Portico");
            let note = Diagnostic::warning(field, message, remedy);
            // Another controller may serve Ingresses without a class, which needs no event.
            let is_of_portico = |class: &Arc<Object<IngressClass>>| cx.inputs.classes.serves_class(class);
            let has_others = !cx.store.ingress_classes.values().all(is_of_portico);
            Some(if has_others { note } else { note.with_topic(Topic::MissingClass) })
        }
        Some("") => Some(Diagnostic::warning(
            field,
            "the class is empty, so no controller serves the Ingress",
            match is_annotated {
                true => format!("write {configured_class} to serve the Ingress with Portico, or remove the annotation"),
                false => format!("write {configured_class} to serve the Ingress with Portico"),
            },
        )),
        Some(name) if cx.store.ingress_classes.contains_key(&ObjectKey::cluster(name)) => None,
        Some(name) => {
            let remedy = match &cx.inputs.classes.nginx {
                Some(nginx) if *name == *nginx.annotated => {
                    format!("create IngressClass {name} with controller {}", nginx.controller)
                }
                _ => format!("set it to {configured_class}, or run Portico with --ingress-class {name}"),
            };
            let note = Diagnostic::warning(
                field,
                format!("IngressClass {name} does not exist, and Portico serves {configured_class}"),
                remedy,
            );
            // Controllers serve classes of annotations without an IngressClass, and then need no event.
            let is_of_nobody = !is_annotated || nearest(name, [&**configured_class]).is_some();
            Some(if is_of_nobody { note.with_topic(Topic::MissingClass) } else { note })
        }
    };
    Verdict { generation: ingress.meta.generation, diagnostics: note.into_iter().collect(), ..Verdict::default() }
}

/// The verdict on an IngressClass; without diagnostics for a class of another controller.
pub(super) fn verdict(cx: CompileContext<'_>, class: &Object<IngressClass>) -> Verdict {
    let mut verdict = Verdict { generation: class.meta.generation, ..Verdict::default() };
    if cx.inputs.classes.serves_nginx_class(class) {
        verdict.diagnostics = dialect::nginx_class_notes(class);
        return verdict;
    }
    if !cx.inputs.classes.serves_class(class) {
        return verdict;
    }
    verdict.diagnostics = dialect::class_notes(class, &cx.inputs.classes.controller);
    let Some(reference) = class.spec.parameters.as_ref().filter(|_| dialect::uses_parameters(class)) else {
        return verdict;
    };
    match parameters_key(reference) {
        Err(problem) => verdict.diagnostics.push(problem.into_warning()),
        Ok(key) if !cx.store.ingress_class_parameters.contains_key(&key) => {
            let parameters = format!("{} {key}", Kind::IngressClassParameters);
            let mut missing =
                Diagnostic::not_found("spec.parameters.name", parameters, "create it or correct the name");
            missing.message.push_str(", so its settings have no effect");
            verdict.diagnostics.push(missing.into_warning());
        }
        Ok(key) if cx.store.is_rejected(&ObjectId::new(Kind::IngressClassParameters, key.clone())) => {
            let message = format!(
                "{} {key} was rejected, so only those of its settings that can be read have an effect",
                Kind::IngressClassParameters
            );
            let remedy = "fix the error reported for it";
            verdict.diagnostics.push(Diagnostic::warning("spec.parameters.name", message, remedy));
        }
        Ok(_) => {}
    }
    verdict
}

fn parameters_key(reference: &IngressClassParametersReference) -> Result<ObjectKey, Diagnostic> {
    let kind = Kind::IngressClassParameters;
    if reference.api_group.as_deref() != Some(kind.group()) || reference.kind != kind.name() {
        let message = format!("parameters of kind {} are not supported, so they have no effect", reference.kind);
        return Err(Diagnostic::error(
            "spec.parameters.kind",
            message,
            format!("refer to an {kind} of group {}", kind.group()),
        ));
    }
    match &reference.namespace {
        Some(namespace) => Ok(ObjectKey::new(namespace, &reference.name)),
        None => {
            let message = "the namespace is missing, so the parameters have no effect";
            Err(Diagnostic::error(
                "spec.parameters.namespace",
                message,
                "set scope to Namespace, and set the namespace",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Store};

    #[test]
    fn notes_name_the_field_with_the_class() {
        const ANNOTATION: &str = "metadata.annotations[kubernetes.io/ingress.class]";
        let (inputs, store) = (TestInputs::new(PluginRegistry { kinds: &[], internal: &[] }), Store::default());
        let (inputs, annotated) = (inputs.as_inputs(), |class: &str| json!({ "kubernetes.io/ingress.class": class }));
        let cases: [(Value, Option<&str>, &str, &str); 5] = [
            (json!({}), None, "spec.ingressClassName", "the Ingress has no class"),
            (json!({}), Some(""), "spec.ingressClassName", "the class is empty"),
            (json!({}), Some("x"), "spec.ingressClassName", "IngressClass x does not exist"),
            (annotated(""), Some("x"), ANNOTATION, "the class is empty"),
            (annotated("x"), None, ANNOTATION, "IngressClass x does not exist"),
        ];
        for (annotations, class, field, message) in cases {
            let metadata = json!({"namespace": "a", "name": "b", "annotations": annotations});
            let object = json!({"metadata": metadata, "spec": {"ingressClassName": class}});
            let AnyObject::Ingress(ingress) = AnyObject::parse(Kind::Ingress, object).unwrap() else {
                panic!("not an Ingress")
            };
            let verdict = foreign_verdict(CompileContext::new(&store, &inputs), &ingress);
            let [note] = &verdict.diagnostics[..] else { panic!("{verdict:?}") };
            assert_eq!(note.field, field, "{annotations} {class:?}");
            assert!(note.message.starts_with(message), "{note}");
        }
    }
}
