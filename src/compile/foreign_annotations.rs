//! Annotations of other ingress controllers, on objects that Portico serves. None has an effect. An Ingress that such
//! an annotation restricted is not served, so that a change of its class does not expose what it protected.

use super::CompileContext;
use super::annotation_reader::annotation_field;
use super::ingress_class;
use crate::api::foreign_annotations::{self, ForeignAnnotation};
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Meta, Object};
use crate::diagnostic::{Diagnostic, Topic};

/// The diagnostics about the annotations of an Ingress.
#[derive(Debug, Default)]
pub(super) struct CheckedAnnotations {
    /// Errors for guards. With any of these, no request is forwarded.
    pub guards: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

/// Whether guards of other controllers prevent an Ingress of this class, which may be missing, from being served. Kong
/// ignores them too, so they do not matter to Ingresses that come from there.
pub(super) fn refuses_guards(
    cx: CompileContext<'_>,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
) -> bool {
    !cx.inputs.ingress.ignore_foreign_guards && !ingress_class::is_of_other_controller(ingress, class)
}

/// Checks the annotations of an Ingress. `refuses_guards`: the result of [`refuses_guards`].
pub(super) fn check_ingress(meta: &Meta, refuses_guards: bool) -> CheckedAnnotations {
    let mut checked = CheckedAnnotations::default();
    for (key, annotation) in foreign(meta) {
        if annotation.is_guard && refuses_guards {
            let controller = annotation.controller;
            let message = format!(
                "it restricts requests in {controller}, but Portico does not support it, so requests get status 503"
            );
            checked.guards.push(Diagnostic::error(annotation_field(key), message, REMEDY));
        } else {
            checked.notes.push(note(key, annotation, "an Ingress"));
        }
    }
    checked
}

/// An error about a backend with a guard, for an Ingress that refuses them. `field`: the field of the backend.
pub(super) fn check_backend(kind: Kind, meta: &Meta, field: impl FnOnce() -> String) -> Option<Diagnostic> {
    let (key, ForeignAnnotation { controller, .. }) = foreign(meta).find(|(_, annotation)| annotation.is_guard)?;
    let message = format!(
        "{} of {kind} {} restricts requests in {controller}, but Portico does not support it, so requests get status \
         503",
        annotation_field(key),
        meta.key
    );
    Some(Diagnostic::error(field(), message, REMEDY))
}

/// Warnings about the annotations of an object whose requests are served nevertheless. `object`: its kind with the
/// article.
pub(super) fn notes(meta: &Meta, object: &str) -> Vec<Diagnostic> {
    foreign(meta).map(|(key, annotation)| note(key, annotation, object)).collect()
}

const REMEDY: &str = "replace it by a plugin, such as key-auth or ip-restriction, and remove it; or run Portico with \
                      --ignore-foreign-guards if requests may be served without it";

fn foreign(meta: &Meta) -> impl Iterator<Item = (&str, ForeignAnnotation)> {
    let annotations = meta.annotations.iter();
    annotations.filter_map(|(key, value)| Some((&**key, foreign_annotations::classify(key, value)?)))
}

fn note(key: &str, annotation: ForeignAnnotation, object: &str) -> Diagnostic {
    let ForeignAnnotation { controller, is_guard } = annotation;
    let (message, remedy) = match is_guard {
        true => (
            format!("it restricts requests in {controller}, but has no effect on {object} here"),
            "replace it by a plugin, such as key-auth or ip-restriction, and remove it",
        ),
        false => (
            format!("it is an annotation of {controller} and has no effect on {object}"),
            "remove it, unless another controller reads it",
        ),
    };
    Diagnostic::warning(annotation_field(key), message, remedy).with_topic(Topic::Annotation)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::kong::INGRESS_CONTROLLER as OTHER_INGRESS_CONTROLLER;
    use crate::api::names::INGRESS_CONTROLLER;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::Store;

    const GUARD: &str = "nginx.ingress.kubernetes.io/auth-url";

    fn meta(annotations: &Value) -> Meta {
        serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap()
    }

    #[test]
    fn guards_of_other_controllers_are_refused_unless_they_are_ignored() {
        let class = |controller: &str| -> Object<IngressClass> {
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"controller": controller}})).unwrap()
        };
        let ingress = |class: &str| -> Object<Ingress> {
            let metadata = json!({"namespace": "a", "name": "b"});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"ingressClassName": class}})).unwrap()
        };
        let (own, other) = (class(INGRESS_CONTROLLER), class(OTHER_INGRESS_CONTROLLER));
        for (name, class, ignores, is_refused) in [
            ("c", Some(&own), false, true),
            ("c", Some(&own), true, false),
            ("c", Some(&other), false, false),
            // The class does not exist.
            ("kong", None, false, false),
            ("nginx", None, false, true),
            ("nginx", None, true, false),
            ("kong", Some(&own), false, true),
        ] {
            let mut inputs = TestInputs::new(PluginRegistry(&[]));
            inputs.ingress.ignore_foreign_guards = ignores;
            let (inputs, store) = (inputs.as_inputs(), Store::default());
            let refuses = refuses_guards(CompileContext::new(&store, &inputs), &ingress(name), class);
            assert_eq!(refuses, is_refused, "{name} {class:?} {ignores}");
            let CheckedAnnotations { guards, notes } = check_ingress(&meta(&json!({GUARD: "http://auth"})), refuses);
            assert_eq!((guards.len(), notes.len()), if is_refused { (1, 0) } else { (0, 1) });
            let problem = guards.first().or(notes.first()).unwrap();
            assert_eq!(problem.is_error(), is_refused);
            assert_eq!(problem.field, format!("metadata.annotations[{GUARD}]"));
        }
    }

    #[test]
    fn guards_of_services_name_the_service() {
        for guard in [GUARD, "plugins.konghq.com", "key-auth.plugin.konghq.com", "configuration.konghq.com"] {
            let with_guard = meta(&json!({guard: "x", "nginx.ingress.kubernetes.io/rewrite-target": "/"}));
            for kind in [Kind::Service, Kind::KongServiceFacade] {
                let problem = check_backend(kind, &with_guard, || "spec.defaultBackend".to_owned()).unwrap();
                assert!(problem.is_error() && problem.field == "spec.defaultBackend", "{problem}");
                let begin = format!("metadata.annotations[{guard}] of {kind} a/b restricts requests in ");
                assert!(problem.message.starts_with(&begin), "{problem}");
            }
        }
        let harmless = meta(&json!({"nginx.ingress.kubernetes.io/rewrite-target": "/"}));
        assert!(check_backend(Kind::Service, &harmless, String::new).is_none());
        let warning = notes(&harmless, "a Service").pop().unwrap();
        assert!(!warning.is_error() && warning.message.contains("ingress-nginx and has no effect on a Service"));
    }
}
