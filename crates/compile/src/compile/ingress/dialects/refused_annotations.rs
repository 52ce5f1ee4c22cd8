//! Kong's and Portico's annotations on an Ingress of another dialect than Kong's: none has an effect. One that protects
//! requests in Kong's dialect takes the Ingress out of service, so that an Ingress that changes its class is not
//! exposed.

use crate::api::Meta;
use crate::api::foreign_annotations::classify;
use crate::api::kong::annotations::{
    ANNOTATION_PREFIX, FORCE_SSL_REDIRECT, HEADERS_PREFIX, HTTPS_REDIRECT_STATUS_CODE, INGRESS_PREFIX, METHODS,
    PLUGINS, PROTOCOLS, SNIS, list,
};
use crate::api::names::{
    ADDRESS_ANNOTATION, BALANCE_ANNOTATION, DIALECT_ANNOTATION, ENDPOINT_WEIGHTS_ANNOTATION, IGNORE_GUARDS_ANNOTATION,
    PORTICO_PREFIX, PROXY_PROTOCOL_ANNOTATION,
};
use crate::compile::ingress_class::dialect::{Dialect, unknown_annotation_remedy};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// The diagnostics about annotations.
#[derive(Debug, Default)]
pub(super) struct CheckedAnnotations {
    /// Errors for annotations that protect requests. With any of these, no request is forwarded.
    pub unsupported_protection: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

pub(super) fn check(meta: &Meta, dialect: Dialect) -> CheckedAnnotations {
    let dialect = dialect.name();
    let mut checked = CheckedAnnotations::default();
    for (key, value) in &meta.annotations {
        if protects_requests(key, value) {
            let message = format!("an Ingress of dialect {dialect} does not support it, so requests get status 503");
            let remedy = format!(
                "remove it if requests may be served without it; otherwise set the class of the Ingress to one of \
                 Portico's without annotation {DIALECT_ANNOTATION}"
            );
            checked.unsupported_protection.push(Diagnostic::error(annotation_field(key), message, remedy));
        } else if let Some((message, remedy)) = ineffective(key, dialect).filter(|_| classify(key, value).is_none()) {
            let note = Diagnostic::warning(annotation_field(key), message, remedy);
            checked.notes.push(note.with_topic(Topic::Annotation));
        }
    }
    checked
}

/// Whether an annotation restricts requests in Kong's dialect: by plugins, protocols, or further conditions.
pub(super) fn protects_requests(key: &str, value: &str) -> bool {
    match key {
        // An empty list attaches no plugin.
        PLUGINS => list(value).next().is_some(),
        FORCE_SSL_REDIRECT => !value.eq_ignore_ascii_case("false"),
        PROTOCOLS | HTTPS_REDIRECT_STATUS_CODE | METHODS | SNIS => true,
        _ => key.starts_with(HEADERS_PREFIX),
    }
}

/// Message and remedy for an annotation that has no effect; `None` for annotations of other programs.
fn ineffective(key: &str, dialect: &str) -> Option<(String, String)> {
    if key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX) {
        let remedy = format!("remove it, or set the class to one of Portico's without annotation {DIALECT_ANNOTATION}");
        return Some((format!("it has no effect on an Ingress of dialect {dialect}"), remedy));
    }
    let message = "this annotation has no effect on an Ingress".to_owned();
    match key {
        ADDRESS_ANNOTATION | BALANCE_ANNOTATION | ENDPOINT_WEIGHTS_ANNOTATION | PROXY_PROTOCOL_ANNOTATION => {
            Some((message, "move it to the Service".to_owned()))
        }
        // Its entries are checked with the annotations that they name.
        IGNORE_GUARDS_ANNOTATION => None,
        DIALECT_ANNOTATION => Some((message, "move it to the IngressClass".to_owned())),
        key if key.starts_with(PORTICO_PREFIX) => {
            let known = [
                ADDRESS_ANNOTATION,
                BALANCE_ANNOTATION,
                DIALECT_ANNOTATION,
                ENDPOINT_WEIGHTS_ANNOTATION,
                IGNORE_GUARDS_ANNOTATION,
                PROXY_PROTOCOL_ANNOTATION,
            ];
            Some(("this annotation is unknown".to_owned(), unknown_annotation_remedy(key, known)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The fields of the errors, and the texts of the notes.
    fn check_annotations(annotations: &Value) -> (Vec<String>, Vec<String>) {
        let meta = serde_json::from_value(json!({"name": "a", "annotations": annotations})).unwrap();
        let CheckedAnnotations { unsupported_protection, notes } = check(&meta, Dialect::Kubernetes);
        let fields = unsupported_protection.into_iter().map(|problem| problem.field);
        (fields.collect(), notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn annotations_that_protect_are_errors() {
        for (key, value, is_error) in [
            ("konghq.com/plugins", "key-auth", true),
            ("konghq.com/plugins", " , ", false),
            ("konghq.com/protocols", "https", true),
            ("konghq.com/https-redirect-status-code", "301", true),
            ("konghq.com/methods", "GET", true),
            ("konghq.com/snis", "a.example", true),
            ("konghq.com/headers.x-team", "a", true),
            ("ingress.kubernetes.io/force-ssl-redirect", "true", true),
            ("ingress.kubernetes.io/force-ssl-redirect", "yes", true),
            ("ingress.kubernetes.io/force-ssl-redirect", "False", false),
            ("konghq.com/strip-path", "true", false),
            ("konghq.com/unheard-of", "true", false),
        ] {
            let (errors, notes) = check_annotations(&json!({key: value}));
            assert_eq!((errors.len(), notes.len()), if is_error { (1, 0) } else { (0, 1) }, "{key}: {value}");
        }
    }

    #[test]
    fn annotations_without_effect_are_noted() {
        for (key, expected) in [
            ("portico.dev/balence", Some("this annotation is unknown; did you mean portico.dev/balance")),
            ("portico.dev/dialect", Some("this annotation has no effect on an Ingress; move it to the IngressClass")),
            ("portico.dev/address", Some("this annotation has no effect on an Ingress; move it to the Service")),
            ("portico.dev/quite-another-thing-with-a-long-name", Some("this annotation is unknown; remove it")),
            ("portico.dev/ignore-foreign-guards", None),
            ("kubernetes.io/ingress.class", None),
            ("nginx.ingress.kubernetes.io/rewrite-target", None),
        ] {
            let (errors, notes) = check_annotations(&json!({key: "x"}));
            assert!(errors.is_empty(), "{key}");
            assert_eq!(notes.len(), usize::from(expected.is_some()), "{key}: {notes:?}");
            let begin = expected.map(|text| format!("metadata.annotations[{key}]: {text}"));
            assert!(notes.iter().zip(&begin).all(|(note, begin)| note.starts_with(begin)), "{notes:?}");
        }
    }
}
