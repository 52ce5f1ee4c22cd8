//! The annotations of an Ingress that have no effect: those of ingress-nginx that are not supported, and those of other
//! controllers. One that restricts requests takes the Ingress out of service.

use super::config_keys::STREAM_REMEDY;
use super::modsecurity;
use super::supported::READ;
use super::value_reader::written;
use super::waf_engine;
use crate::api::Meta;
use crate::api::foreign_annotations::classify;
use crate::api::ingress_nginx::{self, AnnotationScope, OnBadValue, PREFIX, find};
use crate::compile::ingress_class::foreign_annotations::{self, CheckedAnnotations, TlsUse};
use crate::compile::ingress_class::unknown_annotation;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// Checks all annotations that no other part reads.
pub(super) fn check(meta: &Meta, refuses_guards: bool) -> CheckedAnnotations {
    // What is specific to TLS is about annotations that are read here.
    let tls = TlsUse { serves_plain_text: true, has_certificates: true };
    let of_others = |key: &str| !key.starts_with(PREFIX);
    let mut checked = foreign_annotations::check_ingress_where(meta, tls, refuses_guards, of_others);
    let of_nginx = meta.annotations.iter().filter_map(|(key, value)| Some((&**key, key.strip_prefix(PREFIX)?, value)));
    let is_read = |name: &str| READ.contains(&name) || modsecurity::is_about(name);
    for (key, name, value) in of_nginx.filter(|(_, name, value)| !value.is_empty() && !is_read(name)) {
        let field = annotation_field(key);
        let refuses = refuses_guards && !foreign_annotations::is_ignored(meta, key);
        match (effect(meta, key, name, value), unknown_annotation::explain(key)) {
            (Effect::BadValue(remedy), _) => {
                let message = format!("{value:?} is not a valid value, so requests get status 503");
                checked.guards.push(Diagnostic::error(field, message, remedy));
            }
            (Effect::Restricts, _) if refuses => {
                let message = "it restricts requests and is not supported yet, so requests get status 503";
                checked.guards.push(Diagnostic::error(field, message, REMEDY));
            }
            (Effect::Restricts, _) => {
                let message = "it restricts requests in ingress-nginx, and not here, as the configuration permits";
                checked.notes.push(Diagnostic::warning(field, message, "remove it").with_topic(Topic::Annotation));
            }
            (Effect::None, _) => {}
            (Effect::Other, explanation) => {
                let (message, remedy) = explanation.unwrap_or_else(|| {
                    let remedy = match name {
                        "stream-snippet" => STREAM_REMEDY,
                        _ => "remove it, unless ingress-nginx still serves the Ingress",
                    };
                    ("it is not supported, so it has no effect", remedy.to_owned())
                });
                checked.notes.push(Diagnostic::warning(field, message, remedy).with_topic(Topic::Annotation));
            }
        }
    }
    checked
}

/// What an annotation does on an Ingress of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationSupport {
    /// It has its effect.
    Supported,
    /// It configures what Portico does in another way, without a difference for clients and backends.
    NotNeeded,
    /// It may restrict requests, so the Ingress is not served.
    Refused,
    /// It has no effect, and is reported.
    Reported,
}

/// What an annotation with this name, which follows the prefix, does.
pub fn annotation_support(name: &str) -> AnnotationSupport {
    let is_guard = || {
        let values = ["true", "on", "basic", "1"];
        values.iter().any(|value| classify(&format!("{PREFIX}{name}"), value).is_some_and(|found| found.is_guard()))
    };
    match name {
        name if READ.contains(&name) => AnnotationSupport::Supported,
        name if INTERNAL.contains(&name) => AnnotationSupport::NotNeeded,
        waf_engine::RULES => AnnotationSupport::Refused,
        // Alone, these only let ModSecurity log what it finds.
        name if modsecurity::is_about(name) => AnnotationSupport::Reported,
        _ if is_guard() => AnnotationSupport::Refused,
        _ => AnnotationSupport::Reported,
    }
}

/// An annotation of an Ingress that restricts the requests of all paths of its hosts, also of those of other Ingresses,
/// and is not supported. `None` if there is none.
pub(super) fn guard_of_host(meta: &Meta) -> Option<&str> {
    let of_nginx = meta.annotations.iter().filter_map(|(key, value)| Some((&**key, key.strip_prefix(PREFIX)?, value)));
    let mut unsupported = of_nginx.filter(|(_, name, value)| !value.is_empty() && !READ.contains(name));
    let restricts = |key: &str, name: &str, value: &str| match effect(meta, key, name, value) {
        Effect::Restricts => true,
        // What was meant would restrict requests.
        Effect::BadValue(_) => classify(key, value).is_some_and(|annotation| annotation.is_guard()),
        Effect::None | Effect::Other => false,
    };
    let found = unsupported.find(|(key, name, value)| {
        find(name).is_some_and(|row| row.scope == AnnotationScope::Host)
            && restricts(key, name, value)
            && !foreign_annotations::is_ignored(meta, key)
    });
    found.map(|(key, ..)| key)
}

/// What an annotation that is not read would do in ingress-nginx.
enum Effect {
    None,
    /// It restricts requests.
    Restricts,
    /// Its value takes the Ingress out of service. What would be right.
    BadValue(String),
    Other,
}

fn effect(meta: &Meta, key: &str, name: &str, value: &str) -> Effect {
    let row = find(name);
    if let Some(row) = row
        && matches!(row.consequence(value), Some(OnBadValue::Reject | OnBadValue::Deny503))
    {
        return Effect::BadValue(row.value.check(value).err().unwrap_or_default());
    }
    match name {
        _ if has_no_effect(meta, name, value) => Effect::None,
        _ if classify(key, value).is_some_and(|annotation| annotation.is_guard()) => Effect::Restricts,
        _ => Effect::Other,
    }
}

/// Whether an annotation would not change anything: it configures the inside of nginx, has its default as value, or
/// needs another one that is missing.
fn has_no_effect(meta: &Meta, name: &str, value: &str) -> bool {
    let is_off = |value: &str| ingress_nginx::flag(value) == Some(false) || value == "off";
    let is_missing = |other: &str| written(meta, other).is_none_or(is_off);
    INTERNAL.contains(&name)
        || find(name).is_some_and(|row| !row.default.is_empty() && row.default == value)
        || match name {
            name if name.starts_with("proxy-ssl-") => is_missing("proxy-ssl-secret"),
            name if name.starts_with("session-cookie-") || name.starts_with("affinity-") => is_missing("affinity"),
            _ => false,
        }
}

/// Annotations about what Portico does in another way, without a difference for clients and backends.
const INTERNAL: &[&str] = &[
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "client-body-buffer-size",
    "enable-rewrite-log",
    "http2-push-preload",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-max-temp-file-size",
    "proxy-request-buffering",
];

const REMEDY: &str = "remove it if requests may be served without it; or list it in annotation \
                      portico.dev/ignore-foreign-guards; otherwise let ingress-nginx serve the Ingress";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_annotation(name: &str, value: &str) -> (usize, usize) {
        let annotations = json!({format!("{PREFIX}{name}"): value});
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
        let CheckedAnnotations { guards, notes } = check(&meta, true);
        (guards.len(), notes.len())
    }

    #[test]
    fn guards_are_refused_and_others_are_reported() {
        for (name, value, expected) in [
            ("auth-tls-secret", "a/b", (0, 0)),
            ("custom-http-errors", "404", (0, 0)),
            ("global-rate-limit", "5", (1, 0)),
            ("proxy-ssl-secret", "a/b", (0, 0)),
            ("proxy-ssl-verify", "on", (0, 0)),
            ("proxy-buffer-size", "8k", (0, 0)),
            ("enable-modsecurity", "false", (0, 0)),
            ("rate-limit", "5", (0, 1)),
            ("whitelist-source-range", "10.0.0.0/8", (0, 0)),
        ] {
            assert_eq!(check_annotation(name, value), expected, "{name}: {value}");
        }
    }

    /// Each is read, has no effect by design, or is reported.
    #[test]
    fn every_annotation_that_is_not_read_is_reported() {
        let is_other = |name: &&str| !READ.contains(name) && !INTERNAL.contains(name) && !modsecurity::is_about(name);
        for name in ingress_nginx::names().filter(is_other) {
            // The value is no default, and switches nothing off.
            let reported = check_annotation(name, "x");
            let needs_another = ["session-cookie-", "affinity-", "proxy-ssl-"];
            let is_dependent = needs_another.iter().any(|start| name.starts_with(start));
            assert!(reported != (0, 0) || is_dependent, "{name}");
        }
    }
}
