//! The annotations with Kong's prefixes that have an effect, and warnings about all others. A misspelled annotation
//! that would restrict requests is an error of its object: without it, requests would be served that were to be
//! refused.

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
/// one; `object`: the kind with its article.
pub(super) fn note_unknown(reader: &mut AnnotationReader<'_>, known: &[&str], object: &str) {
    let is_unknown = |key: &str| {
        let is_of_kong = key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX);
        is_of_kong && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
    };
    // Guards of other controllers have messages of their own.
    let is_foreign = |key: &str| reader.text(key).is_some_and(|value| classify(key, value).is_some());
    let is_reported = |key: &str| misspelled_guard(key).is_some();
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

/// The annotation that an unknown one misspells, if that restricts requests or what is trusted.
pub(super) fn misspelled_guard(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(ANNOTATION_PREFIX)?;
    // Before the comparison of names: an object may have thousands of annotations for headers.
    if key.starts_with(HEADERS_PREFIX) || ROUTE_ANNOTATIONS.contains(&key) || SERVICE_ANNOTATIONS.contains(&key) {
        return None;
    }
    GUARDS.iter().find(|guard| misspells(name, name_of(guard))).copied()
}

/// The annotations without which more requests are served, or servers are trusted without a check.
const GUARDS: &[&str] =
    &[PLUGINS, PROTOCOLS, METHODS, SNIS, TLS_VERIFY, CA_CERTIFICATES_SECRETS, CA_CERTIFICATES_CONFIG_MAPS];

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
