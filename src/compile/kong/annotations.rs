//! Parses annotations, and lists the supported ones. A malformed value is ignored, as in Kong, and reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::Meta;
use crate::api::kong::annotations::{
    ANNOTATION_PREFIX, CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT,
    FORCE_SSL_REDIRECT, HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE,
    INGRESS_PREFIX, METHODS, OVERRIDE, PATH, PATH_HANDLING, PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT,
    REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE, SERVICE_UPSTREAM, SNIS,
    STRIP_PATH, TAGS, TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::diagnostic::{Diagnostic, Topic};

/// Parses the annotations of one object.
#[derive(Debug)]
pub(in crate::compile) struct AnnotationReader<'a> {
    annotations: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// Warnings about annotations without effect. Those added by `ignore` have the topic `Annotation`.
    pub(in crate::compile) notes: Vec<Diagnostic>,
}

impl<'a> AnnotationReader<'a> {
    pub(in crate::compile) fn new(meta: &'a Meta) -> Self {
        AnnotationReader { annotations: &meta.annotations, notes: Vec::new() }
    }

    pub(in crate::compile) fn text(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(|value| &**value)
    }

    /// The parsed value of an annotation. `None` if it is missing, or invalid, which adds a warning; `remedy` describes
    /// valid values.
    pub(in crate::compile) fn read<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
        remedy: &str,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(text);
        if value.is_none() {
            let message = format!("{text:?} is not a valid value, so it has no effect");
            self.ignore(Diagnostic::error(annotation_field(key), message, remedy));
        }
        value
    }

    pub(in crate::compile) fn bool(&mut self, key: &str) -> Option<bool> {
        self.read(key, parse_bool, "write \"true\" or \"false\"")
    }

    pub(in crate::compile) fn note(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.notes.push(Diagnostic::warning(annotation_field(key), message, remedy));
    }

    /// Adds a warning that an annotation has no effect, because of `problem`.
    pub(in crate::compile) fn ignore(&mut self, problem: Diagnostic) {
        self.notes.push(problem.into_warning().with_topic(Topic::Annotation));
    }

    /// The annotations with a prefix, without that prefix.
    pub(in crate::compile) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = prefix.to_owned();
        let annotations = self.annotations.iter();
        annotations.filter_map(move |(key, value)| Some((key.strip_prefix(&*prefix)?, &**value)))
    }

    /// Warns of annotations with a prefix of Kong that have no effect on this kind of object. `known`: the keys that
    /// have one; `object`: the kind with its article.
    pub(in crate::compile) fn note_unknown(&mut self, known: &[&str], object: &str) {
        let is_unknown = |key: &str| {
            let is_of_kong = key.starts_with(ANNOTATION_PREFIX) || key.starts_with(INGRESS_PREFIX);
            is_of_kong && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
        };
        for key in self.annotations.keys().map(|key| &**key).filter(|key| is_unknown(key)) {
            let no_effect = format!("this annotation has no effect on {object}");
            let (message, remedy) = if SERVICE_ANNOTATIONS.contains(&key) {
                (no_effect, "move it to the Service")
            } else if ROUTE_ANNOTATIONS.contains(&key) {
                (no_effect, "move it to the Ingress or HTTPRoute")
            } else {
                (format!("this annotation of {object} is unknown"), "correct its name, or remove it")
            };
            self.ignore(Diagnostic::error(annotation_field(key), message, remedy));
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
