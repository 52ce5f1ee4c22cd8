//! Which dialect of Ingresses a class selects.

use crate::api::kong::INGRESS_CONTROLLER as KONG_INGRESS_CONTROLLER;
use crate::api::names::{DIALECT_ANNOTATION, PORTICO_PREFIX};
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::schema::nearest;

/// The meaning of Ingresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) enum Dialect {
    /// That of Kong's ingress controller, with its annotations and plugins. A class without the annotation has it.
    #[default]
    Kong,
    /// That of the Kubernetes specification, without annotations.
    Kubernetes,
    /// That of ingress-nginx, with its annotations.
    Nginx,
}

impl Dialect {
    /// Its value of [`DIALECT_ANNOTATION`].
    pub(in crate::compile) fn name(self) -> &'static str {
        match self {
            Dialect::Kong => "kong",
            Dialect::Kubernetes => "kubernetes",
            Dialect::Nginx => "nginx",
        }
    }

    /// Whether Kong's annotations, plugins and parameters have an effect.
    fn has_kong_annotations(self) -> bool {
        match self {
            Dialect::Kong => true,
            Dialect::Kubernetes | Dialect::Nginx => false,
        }
    }
}

/// The values of [`DIALECT_ANNOTATION`], for messages.
pub(in crate::compile) const VALUES: &str = "kong, kubernetes or nginx";

/// The dialect of a served Ingress, with its class, which may be missing. The error is the value of the annotation of
/// the class if it is unknown.
pub(in crate::compile) fn of_served_ingress<'c>(
    cx: CompileContext<'_>,
    ingress: &Object<Ingress>,
    class: Option<&'c Object<IngressClass>>,
) -> Result<Dialect, &'c str> {
    if cx.inputs.classes.claims_for_nginx(cx.store, &ingress.meta, ingress.spec.ingress_class_name.as_deref()) {
        return Ok(Dialect::Nginx);
    }
    class.map_or(Ok(Dialect::Kong), of_class)
}

/// Whether the Ingresses of a class may have regular expressions as paths.
pub fn has_path_expressions(class: Option<&Object<IngressClass>>) -> bool {
    match class.map_or(Ok(Dialect::Kong), of_class) {
        // Paths of an unknown dialect are not checked as if they were plain.
        Ok(Dialect::Kong | Dialect::Nginx) | Err(_) => true,
        Ok(Dialect::Kubernetes) => false,
    }
}

/// Whether this process serves the Ingress in a dialect in which the annotation with host aliases has an effect.
pub(in crate::compile) fn has_host_aliases(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> bool {
    has_kong_annotations(cx, ingress)
}

/// Whether this process serves the Ingress in the dialect in which `server-alias` has an effect.
pub(in crate::compile) fn has_server_aliases(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> bool {
    super::served_class(cx, ingress).is_some_and(|class| of_served_ingress(cx, ingress, class) == Ok(Dialect::Nginx))
}

/// Whether this process serves the Ingress in a dialect in which annotations attach plugins.
pub(in crate::compile) fn attaches_plugins(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> bool {
    has_kong_annotations(cx, ingress)
}

fn has_kong_annotations(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> bool {
    super::served_class(cx, ingress)
        .is_some_and(|class| of_served_ingress(cx, ingress, class).is_ok_and(Dialect::has_kong_annotations))
}

/// Whether the class uses its IngressClassParameters, whose settings are those of Kong.
pub(super) fn uses_parameters(class: &Object<IngressClass>) -> bool {
    of_class(class).is_ok_and(Dialect::has_kong_annotations)
}

/// The dialect, or the value if it is unknown. Classes of Kong's controller have Kong's dialect.
fn of_class(class: &Object<IngressClass>) -> Result<Dialect, &str> {
    match class.meta.annotations.get(DIALECT_ANNOTATION).map(|value| &**value) {
        _ if class.spec.controller == KONG_INGRESS_CONTROLLER => Ok(Dialect::Kong),
        None | Some("kong") => Ok(Dialect::Kong),
        Some("kubernetes") => Ok(Dialect::Kubernetes),
        Some("nginx") => Ok(Dialect::Nginx),
        Some(other) => Err(other),
    }
}

/// Diagnostics about Portico's annotations of a served class. `controller`: the name of this installation's controller.
pub(super) fn class_notes(class: &Object<IngressClass>, controller: &str) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let mut report = |key: &str, message: String, remedy: String| {
        notes.push(Diagnostic::warning(annotation_field(key), message, remedy).with_topic(Topic::Annotation));
    };
    if let Err(value) = of_class(class) {
        let message = format!("{value:?} is not a dialect, so all Ingresses of this class get status 503");
        report(DIALECT_ANNOTATION, message, format!("write {VALUES}"));
    }
    for key in class.meta.annotations.keys().filter(|key| key.starts_with(PORTICO_PREFIX)) {
        if &**key != DIALECT_ANNOTATION {
            report(key, "this annotation is unknown".to_owned(), unknown_annotation_remedy(key, [DIALECT_ANNOTATION]));
        } else if class.spec.controller == KONG_INGRESS_CONTROLLER {
            let message = format!("it has no effect on a class of controller {}", class.spec.controller);
            report(key, message, format!("set spec.controller of a new class to {controller}"));
        }
    }
    if class.spec.parameters.is_some() && !uses_parameters(class) {
        let message = format!("an {} has no effect on a class with this dialect", Kind::IngressClassParameters);
        notes.push(Diagnostic::warning("spec.parameters", message, "remove the reference"));
    }
    notes
}

/// Diagnostics about a class of ingress-nginx.
pub(super) fn nginx_class_notes(class: &Object<IngressClass>) -> Vec<Diagnostic> {
    let annotations = class.meta.annotations.keys().filter(|key| key.starts_with(PORTICO_PREFIX));
    let of_annotations = annotations.map(|key| {
        let message = format!("it has no effect on a class of controller {}", class.spec.controller);
        Diagnostic::warning(annotation_field(key), message, "remove it").with_topic(Topic::Annotation)
    });
    let parameters = class.spec.parameters.is_some().then(|| {
        let message = "parameters have no effect on a class of ingress-nginx, as they have none there";
        Diagnostic::warning("spec.parameters", message, "remove the reference")
    });
    of_annotations.chain(parameters).collect()
}

/// The remedy for an unknown annotation. `known`: the annotations that it may misspell.
pub(in crate::compile) fn unknown_annotation_remedy(
    key: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> String {
    match nearest(key, known) {
        Some(known) => format!("did you mean {known}? If not, remove it"),
        None => "remove it".to_owned(),
    }
}
