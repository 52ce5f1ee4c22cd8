//! Parses annotations. A malformed value is ignored, as in Kong, and reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::Meta;
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

    pub(in crate::compile) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.annotations.keys().map(|key| &**key)
    }

    /// The annotations with a prefix, without that prefix.
    pub(in crate::compile) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = prefix.to_owned();
        let annotations = self.annotations.iter();
        annotations.filter_map(move |(key, value)| Some((key.strip_prefix(&*prefix)?, &**value)))
    }
}

/// The path of an annotation, for diagnostics.
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
