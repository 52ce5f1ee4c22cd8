//! The annotations of ingress-nginx, as its last release has them (version 1.15 of March 2026).
//!
//! ```text
//!   annotation.rs  a row of the table: kind of value, scope, and what a bad value does
//!   value.rs       the kinds of values, and parsers for the simple ones
//!   form.rs        values with a grammar: URLs, references, lists
//!   characters.rs  the sets of characters that values may contain
//!   config_keys.rs the keys of its ConfigMap
//!   prefixes.rs    what precedes the names
//!   risk.rs        how risky they are
//!   table/         the rows, by topic
//! ```
//!
//! Admission, `check`, `convert`, the compiler and the reference page read this one table.

mod annotation;
mod characters;
mod config_keys;
mod form;
mod prefixes;
mod risk;
mod table;
mod value;

pub use annotation::{AnnotationScope, NginxAnnotation, OnBadValue};
pub use characters::CharacterSet;
pub use config_keys::{config_keys, is_config_key};
pub use form::cache_seconds;
pub use prefixes::{has_other_prefixes, prefixes, set_prefixes, written_key};
pub use risk::{AnnotationRisk, risk};
pub use value::{ValueKind, flag, integer, items, size};

/// The prefix of its annotations, unless an installation has another one.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// All annotations, sorted by name.
pub fn annotations() -> &'static [NginxAnnotation] {
    table::BY_NAME
}

/// All names, sorted. They follow [`PREFIX`].
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    annotations().iter().map(|annotation| annotation.name)
}

/// The annotation with this name, which follows the prefix.
pub fn find(name: &str) -> Option<&'static NginxAnnotation> {
    let index = table::BY_NAME.binary_search_by(|annotation| annotation.name.cmp(name)).ok()?;
    table::BY_NAME.get(index)
}

/// Whether ingress-nginx reads an annotation with this name, which follows [`PREFIX`].
pub fn has(name: &str) -> bool {
    find(name).is_some()
}

/// What only earlier releases have read under this name.
pub fn removed(name: &str) -> Option<&'static RemovedAnnotation> {
    REMOVED.iter().find(|removed| removed.matches(name))
}

/// An annotation that ingress-nginx had once.
#[derive(Debug)]
pub struct RemovedAnnotation {
    /// A `*` at its end stands for any text.
    name: &'static str,
    /// The annotation with the same effect in the last release.
    pub successor: Option<&'static str>,
}

impl RemovedAnnotation {
    fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.name,
        }
    }
}

const fn gone(name: &'static str) -> RemovedAnnotation {
    RemovedAnnotation { name, successor: None }
}

const fn replaced(name: &'static str, successor: &'static str) -> RemovedAnnotation {
    RemovedAnnotation { name, successor: Some(successor) }
}

const REMOVED: &[RemovedAnnotation] = &[
    gone("add-base-url"),
    gone("base-url-scheme"),
    gone("enable-influxdb"),
    replaced("enable-opentracing", "enable-opentelemetry"),
    gone("global-rate-limit*"),
    replaced("grpc-backend", "backend-protocol"),
    gone("http2-insecure-port"),
    gone("influxdb-*"),
    replaced("mirror-uri", "mirror-target"),
    replaced("opentracing-operation-name", "opentelemetry-operation-name"),
    replaced("opentracing-trust-incoming-span", "opentelemetry-trust-incoming-span"),
    replaced("secure-backends", "backend-protocol"),
    replaced("secure-verify-ca-secret", "proxy-ssl-secret"),
    gone("session-cookie-hash"),
    gone("upstream-fail-timeout"),
    gone("upstream-max-fails"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_none_was_removed() {
        assert!(names().is_sorted_by(|one, other| one < other));
        assert_eq!(names().count(), 138);
        for name in names() {
            assert!(has(name), "{name}");
            assert!(removed(name).is_none(), "{name}");
        }
        for RemovedAnnotation { successor, .. } in REMOVED {
            assert!(successor.is_none_or(has), "{successor:?}");
        }
        assert!(!has(""));
        assert!(!has("proxy-body"));
    }
}
