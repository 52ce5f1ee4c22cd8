//! Annotations as values: what cannot be read counts as not written, as it does for Kong, but somebody is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::verdict::Problem;
use crate::api::Meta;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, FORCE_SSL_REDIRECT,
    HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE, INGRESS_PREFIX,
    KONG_PREFIX, METHODS, OVERRIDE, PATH, PATH_HANDLING, PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT,
    REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING, RETRIES, REWRITE, SERVICE_UPSTREAM, SNIS,
    STRIP_PATH, TAGS, TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};

/// Reads the annotations of one object.
#[derive(Debug)]
pub(in crate::compile) struct Annotations<'a> {
    all: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// What was written and is not in effect.
    pub(in crate::compile) notes: Vec<Problem>,
    /// Those of the notes that are about what cannot be heeded, by whomever: values and names that mean nothing.
    pub(in crate::compile) unheeded: Vec<Problem>,
}

impl<'a> Annotations<'a> {
    pub(in crate::compile) fn of(meta: &'a Meta) -> Self {
        Annotations { all: &meta.annotations, notes: Vec::new(), unheeded: Vec::new() }
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.all.get(key).map(|value| &**value)
    }

    /// `remedy` says what would be right.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl FnOnce(&'a str) -> Option<T>, remedy: &str) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(text);
        if value.is_none() {
            let message = format!("{text:?} cannot be read, so it has no effect");
            self.unheeded(Problem::new(field(key), message, remedy));
        }
        value
    }

    pub(super) fn bool(&mut self, key: &str) -> Option<bool> {
        self.read(key, flag, "write \"true\" or \"false\"")
    }

    pub(super) fn note(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.notes.push(Problem::new(field(key), message, remedy));
    }

    pub(super) fn unheeded(&mut self, problem: Problem) {
        self.notes.push(problem.clone());
        self.unheeded.push(problem);
    }

    /// Those that begin with a prefix, with what follows it.
    pub(super) fn beginning(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = prefix.to_owned();
        let all = self.all.iter();
        all.filter_map(move |(key, value)| Some((key.strip_prefix(&*prefix)?, &**value)))
    }

    /// A misspelt annotation is one that nobody reads. `known` are the keys that mean something on such an object.
    pub(super) fn note_unknown(&mut self, known: &[&str], on: &str) {
        let foreign = |key: &str| {
            let ours = key.starts_with(KONG_PREFIX) || key.starts_with(INGRESS_PREFIX);
            ours && !known.contains(&key) && !key.starts_with(HEADERS_PREFIX)
        };
        for key in self.all.keys().map(|key| &**key).filter(|key| foreign(key)) {
            let is_elsewhere = ON_ROUTES.contains(&key) || ON_SERVICES.contains(&key);
            let (message, remedy) = match is_elsewhere {
                true if ON_SERVICES.contains(&key) => ("means nothing here", "write it on the Service"),
                true => ("means nothing here", "write it on the Ingress"),
                false => ("is not known", "correct its name, or remove it"),
            };
            self.unheeded(Problem::new(field(key), format!("this annotation of {on} {message}"), remedy));
        }
    }
}

pub(in crate::compile) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

fn flag(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// What an Ingress may have (`kong-compat.md` §2.2).
pub(super) const ON_ROUTES: &[&str] = &[
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

/// What a Service may have, and a facade in its place (§2.1).
pub(super) const ON_SERVICES: &[&str] = &[
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
