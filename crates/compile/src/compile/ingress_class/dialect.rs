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
}

impl Dialect {
    /// Its value of [`DIALECT_ANNOTATION`].
    pub(in crate::compile) fn name(self) -> &'static str {
        match self {
            Dialect::Kong => "kong",
            Dialect::Kubernetes => "kubernetes",
        }
    }

    /// Whether Kong's annotations, plugins and parameters have an effect.
    fn has_annotations(self) -> bool {
        match self {
            Dialect::Kong => true,
            Dialect::Kubernetes => false,
        }
    }
}

/// The values of [`DIALECT_ANNOTATION`], for messages.
pub(in crate::compile) const VALUES: &str = "kong or kubernetes";

/// The dialect of a served Ingress, from its class, which may be missing. The error is the value of the annotation if
/// it is unknown.
pub(in crate::compile) fn of_served_class(class: Option<&Object<IngressClass>>) -> Result<Dialect, &str> {
    class.map_or(Ok(Dialect::Kong), of_class)
}

/// Whether the Ingresses of a class have regular expressions as paths.
pub fn has_path_expressions(class: Option<&Object<IngressClass>>) -> bool {
    match of_served_class(class) {
        // Paths of an unknown dialect are not checked as if they were plain.
        Ok(Dialect::Kong) | Err(_) => true,
        Ok(Dialect::Kubernetes) => false,
    }
}

/// Whether the annotation with host aliases has an effect on the Ingresses of a class.
pub(in crate::compile) fn has_host_aliases(class: Option<&Object<IngressClass>>) -> bool {
    of_served_class(class).is_ok_and(Dialect::has_annotations)
}

/// Whether this process serves the Ingress in a dialect in which annotations attach plugins.
pub(in crate::compile) fn attaches_plugins(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> bool {
    super::served_class(cx, ingress).is_some_and(|class| of_served_class(class).is_ok_and(Dialect::has_annotations))
}

/// Whether the class uses its IngressClassParameters, whose settings are those of Kong.
pub(super) fn uses_parameters(class: &Object<IngressClass>) -> bool {
    of_class(class).is_ok_and(Dialect::has_annotations)
}

/// The dialect, or the value if it is unknown. Classes of Kong's controller have Kong's dialect.
fn of_class(class: &Object<IngressClass>) -> Result<Dialect, &str> {
    match class.meta.annotations.get(DIALECT_ANNOTATION).map(|value| &**value) {
        _ if class.spec.controller == KONG_INGRESS_CONTROLLER => Ok(Dialect::Kong),
        None | Some("kong") => Ok(Dialect::Kong),
        Some("kubernetes") => Ok(Dialect::Kubernetes),
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
            report(key, "this annotation is unknown".to_owned(), unknown_annotation_remedy(key, &[DIALECT_ANNOTATION]));
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

/// The remedy for an unknown annotation. `known`: the annotations that it may misspell.
pub(in crate::compile) fn unknown_annotation_remedy(key: &str, known: &[&'static str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(known) => format!("did you mean {known}? If not, remove it"),
        None => "remove it".to_owned(),
    }
}
