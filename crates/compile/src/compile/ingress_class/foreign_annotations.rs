//! Annotations of other ingress controllers, on objects that Portico serves. None has an effect. An Ingress that such
//! an annotation restricted is not served, so that a change of its class does not expose what it protected.

use crate::api::foreign_annotations::{self, ForeignAnnotation, Restriction};
use crate::api::kong::annotations::list;
use crate::api::names::IGNORE_GUARDS_ANNOTATION;
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Meta, Object};
use crate::compile::CompileContext;
use crate::compile::ingress_class;
use crate::compile::ingress_class::unknown_annotation;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// The diagnostics about the annotations of an Ingress.
#[derive(Debug, Default)]
pub(in crate::compile) struct CheckedAnnotations {
    /// Errors for guards. With any of these, no request is forwarded.
    pub guards: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

/// Whether guards of other controllers prevent an Ingress of this class, which may be missing, from being served. Kong
/// ignores them too, so they do not matter to Ingresses that come from there.
pub(in crate::compile) fn refuses_guards(
    cx: CompileContext<'_>,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
) -> bool {
    !cx.inputs.ingress.ignore_foreign_guards && !ingress_class::is_of_other_controller(ingress, class)
}

/// What an Ingress says about TLS.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct TlsUse {
    /// Whether Portico serves it without TLS.
    pub serves_plain_text: bool,
    /// Whether it has certificates.
    pub has_certificates: bool,
}

/// Checks the annotations of an Ingress. `refuses_guards`: the result of [`refuses_guards`].
pub(in crate::compile) fn check_ingress(meta: &Meta, tls: TlsUse, refuses_guards: bool) -> CheckedAnnotations {
    check_ingress_where(meta, tls, refuses_guards, |_| true)
}

/// Checks some of the annotations.
pub(in crate::compile) fn check_ingress_where(
    meta: &Meta,
    tls: TlsUse,
    refuses_guards: bool,
    is_checked: impl Fn(&str) -> bool,
) -> CheckedAnnotations {
    let mut checked = CheckedAnnotations { guards: Vec::new(), notes: ignore_notes(meta) };
    for (key, annotation) in foreign(meta).filter(|(key, _)| is_checked(key)) {
        let requires_tls = match annotation.restriction {
            None | Some(Restriction::Requests) => false,
            Some(Restriction::PlainText) => true,
            Some(Restriction::PlainTextBesideTls) if tls.has_certificates => true,
            // It requires nothing there either.
            Some(Restriction::PlainTextBesideTls) => {
                let harmless = ForeignAnnotation { restriction: None, ..annotation };
                checked.notes.push(note(key, harmless, "an Ingress"));
                continue;
            }
        };
        let controller = annotation.controller;
        if requires_tls && !tls.serves_plain_text {
            let message = format!("it requires TLS in {controller}, and Portico serves the Ingress with TLS only");
            checked.notes.push(annotation_note(key, message, "remove it, unless another controller reads it"));
        } else if annotation.is_guard() && is_ignored(meta, key) {
            checked.notes.push(ignored_note(key, controller));
        } else if annotation.is_guard() && refuses_guards {
            let (what, remedy) =
                if requires_tls { ("requires TLS", TLS_REMEDY) } else { ("restricts requests", REMEDY) };
            let message =
                format!("it {what} in {controller}, but Portico does not support it, so requests get status 503");
            checked.guards.push(Diagnostic::error(annotation_field(key), message, remedy));
        } else {
            checked.notes.push(note(key, annotation, "an Ingress"));
        }
    }
    checked
}

/// An error about a backend with a guard, for an Ingress that refuses them. `field`: the field of the backend.
pub(in crate::compile) fn check_backend(kind: Kind, meta: &Meta, field: impl FnOnce() -> String) -> Option<Diagnostic> {
    let is_refused = |(key, annotation): &(&str, ForeignAnnotation)| annotation.is_guard() && !is_ignored(meta, key);
    let (key, ForeignAnnotation { controller, .. }) = foreign(meta).find(is_refused)?;
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
pub(in crate::compile) fn notes(meta: &Meta, object: &str) -> Vec<Diagnostic> {
    let of_annotations = foreign(meta).map(|(key, annotation)| match annotation.is_guard() && is_ignored(meta, key) {
        true => ignored_note(key, annotation.controller),
        false => note(key, annotation, object),
    });
    of_annotations.chain(ignore_notes(meta)).collect()
}

const REMEDY: &str = "replace it by a plugin, such as key-auth or ip-restriction, and remove it; or, if requests may be \
                      served without it, list it in annotation portico.dev/ignore-foreign-guards, or run Portico with \
                      --ignore-foreign-guards";
const TLS_REMEDY: &str = "set annotation konghq.com/protocols to https, which refuses plain text in Kong's dialect; \
                          or, if plain text may be served, list it in annotation portico.dev/ignore-foreign-guards, or \
                          run Portico with --ignore-foreign-guards";

fn foreign(meta: &Meta) -> impl Iterator<Item = (&str, ForeignAnnotation)> {
    let annotations = meta.annotations.iter();
    annotations.filter_map(|(key, value)| Some((&**key, foreign_annotations::classify(key, value)?)))
}

/// The annotations that the object lists in [`IGNORE_GUARDS_ANNOTATION`].
fn ignored(meta: &Meta) -> impl Iterator<Item = &str> {
    meta.annotations.get(IGNORE_GUARDS_ANNOTATION).into_iter().flat_map(|value| list(value))
}

pub(in crate::compile) fn is_ignored(meta: &Meta, key: &str) -> bool {
    ignored(meta).any(|ignored| ignored == key)
}

/// Warnings about entries of [`IGNORE_GUARDS_ANNOTATION`] that name no guard of the object.
fn ignore_notes(meta: &Meta) -> Vec<Diagnostic> {
    let is_guard = |key: &str| foreign(meta).any(|(guard, annotation)| guard == key && annotation.is_guard());
    let unused = ignored(meta).filter(|key| !is_guard(key));
    let notes = unused.map(|key| {
        let message = format!("{key} is not an annotation of this object that restricts requests");
        annotation_note(IGNORE_GUARDS_ANNOTATION, message, "correct the name, or remove it from the list")
    });
    notes.collect()
}

fn ignored_note(key: &str, controller: &str) -> Diagnostic {
    let message = format!("it restricts requests in {controller}, and not here, as {IGNORE_GUARDS_ANNOTATION} permits");
    annotation_note(key, message, "remove both, unless another controller reads it")
}

fn note(key: &str, annotation: ForeignAnnotation, object: &str) -> Diagnostic {
    let ForeignAnnotation { controller, restriction, difference } = annotation;
    let (message, remedy) = match (restriction, difference) {
        (Some(_), _) => (
            format!("it restricts requests in {controller}, but has no effect on {object} here"),
            "replace it by a plugin, such as key-auth or ip-restriction, and remove it",
        ),
        (None, Some(difference)) => (
            difference.to_owned(),
            "set annotation konghq.com/protocols to https if plain text must not be served, and remove it, unless \
             another controller reads it",
        ),
        (None, None) => {
            if let Some((message, remedy)) = unknown_annotation::explain(key) {
                return annotation_note(key, message.to_owned(), &remedy);
            }
            (
                format!("it is an annotation of {controller} and has no effect on {object}"),
                foreign_annotations::replacement(key).unwrap_or("remove it, unless another controller reads it"),
            )
        }
    };
    annotation_note(key, message, remedy)
}

fn annotation_note(key: &str, message: String, remedy: &str) -> Diagnostic {
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
    const WITHOUT_TLS: TlsUse = TlsUse { serves_plain_text: true, has_certificates: false };

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
            let mut inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            inputs.ingress.ignore_foreign_guards = ignores;
            let (inputs, store) = (inputs.as_inputs(), Store::default());
            let refuses = refuses_guards(CompileContext::new(&store, &inputs), &ingress(name), class);
            assert_eq!(refuses, is_refused, "{name} {class:?} {ignores}");
            let CheckedAnnotations { guards, notes } =
                check_ingress(&meta(&json!({GUARD: "http://auth"})), WITHOUT_TLS, refuses);
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

    #[test]
    fn required_tls_is_a_guard_only_where_plain_text_is_served() {
        let certificates = TlsUse { has_certificates: true, ..WITHOUT_TLS };
        let tls_only = TlsUse { serves_plain_text: false, has_certificates: true };
        let (redirect, force) =
            ("nginx.ingress.kubernetes.io/ssl-redirect", "nginx.ingress.kubernetes.io/force-ssl-redirect");
        for (key, value, tls, is_refused) in [
            (redirect, "true", WITHOUT_TLS, false),
            (redirect, "true", certificates, true),
            (redirect, "true", tls_only, false),
            (redirect, "false", certificates, false),
            (force, "true", WITHOUT_TLS, true),
            (force, "true", certificates, true),
            (force, "true", tls_only, false),
            (force, "false", WITHOUT_TLS, false),
            ("traefik.ingress.kubernetes.io/router.tls", "true", certificates, true),
            ("traefik.ingress.kubernetes.io/router.tls", "true", tls_only, false),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "websecure", certificates, false),
            ("traefik.ingress.kubernetes.io/router.entrypoints", "internal", tls_only, true),
            (GUARD, "https://auth.example", tls_only, true),
        ] {
            let CheckedAnnotations { guards, notes } = check_ingress(&meta(&json!({key: value})), tls, true);
            assert_eq!(
                (guards.len(), notes.len()),
                if is_refused { (1, 0) } else { (0, 1) },
                "{key}: {value}, {tls:?}"
            );
        }
    }

    #[test]
    fn guards_that_the_object_lists_are_ignored() {
        let allow_list = "nginx.ingress.kubernetes.io/whitelist-source-range";
        let annotations = |ignored: &str| {
            meta(&json!({GUARD: "http://auth", allow_list: "10.0.0.0/8", IGNORE_GUARDS_ANNOTATION: ignored}))
        };
        for (ignored, refused, unused) in [
            (String::new(), &[GUARD, allow_list][..], 0),
            (allow_list.to_owned(), &[GUARD], 0),
            (format!("{GUARD} , {allow_list}"), &[], 0),
            ("*".to_owned(), &[GUARD, allow_list], 1),
            ("nginx.ingress.kubernetes.io/limit-rps".to_owned(), &[GUARD, allow_list], 1),
        ] {
            let meta = annotations(&ignored);
            let CheckedAnnotations { guards, notes } = check_ingress(&meta, WITHOUT_TLS, true);
            let fields: Vec<_> = guards.iter().map(|guard| guard.field.clone()).collect();
            let expected: Vec<_> = refused.iter().map(|key| format!("metadata.annotations[{key}]")).collect();
            assert_eq!(fields, expected, "{ignored}");
            assert_eq!(notes.len(), 2 - refused.len() + unused, "{ignored}: {notes:?}");
            let problem = check_backend(Kind::Service, &meta, || "spec.defaultBackend".to_owned());
            assert_eq!(problem.is_some(), !refused.is_empty(), "{ignored}");
        }
    }
}
