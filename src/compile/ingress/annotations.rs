//! Parses annotations: a malformed value is ignored, as in Kong, and reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::Meta;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, FORCE_SSL_REDIRECT,
    HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE, INGRESS_PREFIX,
    KONG_PREFIX, METHODS, OVERRIDE, PATH, PATH_HANDLING, PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT,
    REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE, SERVICE_UPSTREAM, SNIS,
    STRIP_PATH, TAGS, TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::diagnostic::{Diagnostic, Topic};

/// Parses the annotations of one object.
#[derive(Debug)]
pub(in crate::compile) struct AnnotationReader<'a> {
    all: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// Warnings about annotations without effect. Those about unknown annotations and malformed values have the topic
    /// `Annotation`.
    pub(in crate::compile) notes: Vec<Diagnostic>,
}

impl<'a> AnnotationReader<'a> {
    pub(in crate::compile) fn new(meta: &'a Meta) -> Self {
        AnnotationReader { all: &meta.annotations, notes: Vec::new() }
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.all.get(key).map(|value| &**value)
    }

    /// `remedy` describes valid values.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl FnOnce(&'a str) -> Option<T>, remedy: &str) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(text);
        if value.is_none() {
            let message = format!("{text:?} is not a valid value, so it has no effect");
            self.ignore(Diagnostic::error(annotation_field(key), message, remedy));
        }
        value
    }

    pub(super) fn bool(&mut self, key: &str) -> Option<bool> {
        self.read(key, parse_bool, "write \"true\" or \"false\"")
    }

    pub(super) fn note(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.notes.push(Diagnostic::warning(annotation_field(key), message, remedy));
    }

    pub(super) fn ignore(&mut self, problem: Diagnostic) {
        self.notes.push(problem.into_warning().with_topic(Topic::Annotation));
    }

    /// The annotations with a prefix, without that prefix.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = prefix.to_owned();
        let all = self.all.iter();
        all.filter_map(move |(key, value)| Some((key.strip_prefix(&*prefix)?, &**value)))
    }

    /// Reports misspelled annotations. `known` has the keys that are valid on this kind of object.
    pub(super) fn note_unknown(&mut self, known: &[&str], on: &str) {
        let foreign = |key: &str| {
            let ours = key.starts_with(KONG_PREFIX) || key.starts_with(INGRESS_PREFIX);
            ours && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
        };
        for key in self.all.keys().map(|key| &**key).filter(|key| foreign(key)) {
            let is_elsewhere = ROUTE_ANNOTATIONS.contains(&key) || SERVICE_ANNOTATIONS.contains(&key);
            let (message, remedy) = match is_elsewhere {
                true if SERVICE_ANNOTATIONS.contains(&key) => ("has no effect here", "move it to the Service"),
                true => ("has no effect here", "move it to the Ingress"),
                false => ("is unknown", "correct its name, or remove it"),
            };
            self.ignore(Diagnostic::error(annotation_field(key), format!("this annotation of {on} {message}"), remedy));
        }
    }
}

pub(in crate::compile) fn annotation_field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// The annotations of an Ingress (docs/kong-compatibility.md, 2.2).
pub(super) const ROUTE_ANNOTATIONS: &[&str] = &[
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
pub(super) const SERVICE_ANNOTATIONS: &[&str] = &[
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
