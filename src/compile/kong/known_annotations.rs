//! The annotations with Kong's prefixes that have an effect, and warnings about all others.

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

/// Warns of annotations with a prefix of Kong that have no effect on this kind of object. `known`: the keys that have
/// one; `object`: the kind with its article.
pub(super) fn note_unknown(reader: &mut AnnotationReader<'_>, known: &[&str], object: &str) {
    let is_unknown = |key: &str| {
        let is_of_kong = key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX);
        is_of_kong && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
    };
    // Guards of other controllers have messages of their own.
    let is_foreign = |key: &str| reader.text(key).is_some_and(|value| classify(key, value).is_some());
    let unknown: Vec<_> = reader.keys().filter(|key| is_unknown(key) && !is_foreign(key)).collect();
    for key in unknown {
        let no_effect = format!("this annotation has no effect on {object}");
        let (message, remedy) = if SERVICE_ANNOTATIONS.contains(&key) {
            (no_effect, "move it to the Service")
        } else if ROUTE_ANNOTATIONS.contains(&key) {
            (no_effect, "move it to the Ingress, HTTPRoute or GRPCRoute")
        } else {
            (format!("this annotation of {object} is unknown"), "correct its name, or remove it")
        };
        reader.ignore(Diagnostic::error(annotation_field(key), message, remedy));
    }
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
