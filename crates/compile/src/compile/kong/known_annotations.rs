//! The annotations with Kong's prefixes that have an effect, and warnings about all others. A misspelled annotation
//! that would restrict requests is an error of its object: without it, requests would be served that were to be
//! refused.

use crate::api::Kind;
use crate::api::foreign_annotations::classify;
use crate::api::kong::annotations::{
    ANNOTATION_PREFIX, CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT,
    FORCE_SSL_REDIRECT, HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE,
    INGRESS_PREFIX, METHODS, OVERRIDE, PATH, PATH_HANDLING, PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT,
    REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE, SERVICE_UPSTREAM, SNIS,
    STRIP_PATH, TAGS, TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::compile::objects::annotation_reader::{AnnotationReader, annotation_field};
use crate::diagnostic::Diagnostic;
use crate::schema::{misspells, nearest};

/// Warns of annotations with a prefix of Kong that have no effect on this kind of object. `known`: the keys that have
/// one, or a warning of their own; `object`: the kind with its article.
pub(super) fn note_unknown(reader: &mut AnnotationReader<'_>, kind: Kind, known: &[&str], object: &str) {
    let is_unknown = |key: &str| {
        let is_of_kong = key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX);
        is_of_kong && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
    };
    // Guards of other controllers have messages of their own.
    let is_foreign = |key: &str| reader.text(key).is_some_and(|value| classify(key, value).is_some());
    let is_reported = |key: &str| misspelled_guard(kind, key).is_some();
    let unknown = reader.keys().filter(|key| is_unknown(key) && !is_foreign(key) && !is_reported(key));
    let unknown: Vec<_> = unknown.collect();
    for key in unknown {
        let no_effect = format!("this annotation has no effect on {object}");
        let (message, remedy) = if SERVICE_ANNOTATIONS.contains(&key) {
            (no_effect, "move it to the Service".to_owned())
        } else if ROUTE_ANNOTATIONS.contains(&key) {
            (no_effect, "move it to the Ingress, HTTPRoute or GRPCRoute".to_owned())
        } else {
            let remedy = match nearest(name_of(key), known.iter().map(|known| name_of(known))) {
                Some(similar) => format!("did you mean {ANNOTATION_PREFIX}{similar}?"),
                None => "correct its name, or remove it".to_owned(),
            };
            (format!("this annotation of {object} is unknown"), remedy)
        };
        reader.ignore(Diagnostic::error(annotation_field(key), message, remedy));
    }
}

/// The annotation that an unknown one misspells, if that restricts requests or what is trusted on objects of this kind.
pub(super) fn misspelled_guard(kind: Kind, key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(ANNOTATION_PREFIX)?;
    // Before the comparison of names: an object may have thousands of annotations for headers.
    if key.starts_with(HEADERS_PREFIX) || ROUTE_ANNOTATIONS.contains(&key) || SERVICE_ANNOTATIONS.contains(&key) {
        return None;
    }
    guards(kind).iter().find(|guard| misspells(name, name_of(guard))).copied()
}

/// The annotations of this kind without which more requests are served, or servers are trusted without a check. Those
/// that have no effect on it even if they are spelled correctly are not among them.
fn guards(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Ingress => &[PLUGINS, PROTOCOLS, METHODS, SNIS],
        // Their matches have the methods.
        Kind::HttpRoute | Kind::GrpcRoute => &[PLUGINS, PROTOCOLS, SNIS],
        Kind::Service | Kind::KongServiceFacade => {
            &[PLUGINS, TLS_VERIFY, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS]
        }
        // Routes of connections, consumers and groups have only plugins.
        _ => &[PLUGINS],
    }
}

/// The key of an annotation without the prefix.
fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// The annotations of an Ingress (docs/kong-compatibility.md, 2.2).
pub(in crate::compile) const ROUTE_ANNOTATIONS: &[&str] = &[
    PLUGINS,
    STRIP_PATH,
    PRESERVE_HOST,
    PROTOCOLS,
    HTTPS_REDIRECT_STATUS_CODE,
    FORCE_SSL_REDIRECT,
    REGEX_PRIORITY,
    METHODS,
    SNIS,
    HOST_ALIASES,
    HEADERS_SEPARATOR,
    PATH_HANDLING,
    REQUEST_BUFFERING,
    RESPONSE_BUFFERING,
    REGEX_PREFIX,
    REWRITE,
    TAGS,
];

/// The annotations of a Service or KongServiceFacade (docs/kong-compatibility.md, 2.1).
pub(in crate::compile) const SERVICE_ANNOTATIONS: &[&str] = &[
    PLUGINS,
    PROTOCOL,
    PATH,
    CLIENT_CERT,
    CONNECT_TIMEOUT,
    WRITE_TIMEOUT,
    READ_TIMEOUT,
    RETRIES,
    HOST_HEADER,
    OVERRIDE,
    UPSTREAM_POLICY,
    TLS_VERIFY,
    TLS_VERIFY_DEPTH,
    CA_CERTIFICATES_SECRETS,
    CA_CERTIFICATES_CONFIG_MAPS,
    TAGS,
    SERVICE_UPSTREAM,
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Meta;

    /// A Service with `konghq.com/method` closed all routes to it, although not even `methods` has an effect on it.
    #[test]
    fn only_guards_of_the_kind_are_misspelled() {
        for (kind, key, expected) in [
            (Kind::Ingress, "konghq.com/method", Some(METHODS)),
            (Kind::HttpRoute, "konghq.com/method", None),
            (Kind::Service, "konghq.com/method", None),
            (Kind::Service, "konghq.com/snies", None),
            (Kind::GrpcRoute, "konghq.com/snies", Some(SNIS)),
            (Kind::Service, "konghq.com/tls-verfy", Some(TLS_VERIFY)),
            (Kind::KongServiceFacade, "konghq.com/tls-verfy", Some(TLS_VERIFY)),
            (Kind::Ingress, "konghq.com/tls-verfy", None),
            (Kind::TcpRoute, "konghq.com/protocls", None),
            (Kind::TcpRoute, "konghq.com/plugin", Some(PLUGINS)),
            (Kind::KongConsumer, "konghq.com/plugin", Some(PLUGINS)),
        ] {
            assert_eq!(misspelled_guard(kind, key), expected, "{key} on {kind}");
        }
    }

    /// It is a warning instead.
    #[test]
    fn misspelled_guards_of_other_kinds_are_noted() {
        let notes = |kind: Kind, known: &[&str], key: &str| {
            let meta = json!({"namespace": "a", "name": "x", "annotations": {key: "GET"}});
            let meta: Meta = serde_json::from_value(meta).unwrap();
            let mut reader = AnnotationReader::new(&meta);
            note_unknown(&mut reader, kind, known, "an object");
            reader.notes.len()
        };
        assert_eq!(notes(Kind::Service, SERVICE_ANNOTATIONS, "konghq.com/method"), 1);
        assert_eq!(notes(Kind::HttpRoute, ROUTE_ANNOTATIONS, "konghq.com/tls-verfy"), 1);
        assert_eq!(notes(Kind::Ingress, ROUTE_ANNOTATIONS, "konghq.com/method"), 0, "the error is elsewhere");
    }
}
