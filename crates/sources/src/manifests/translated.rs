//! Files of another format than manifests, which a translator turns into objects.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;

/// Turns the content of a file into objects.
#[derive(Clone)]
pub struct FileTranslator {
    format: TranslatedFormat,
    translate: Arc<dyn Fn(Value) -> Translation + Send + Sync>,
}

/// What is known of a format before a text is parsed.
#[derive(Clone, Copy)]
pub struct TranslatedFormat {
    /// Whether a text is meant to have this format, although it may be broken.
    pub is_meant: fn(&str) -> bool,
    /// The text as YAML. Every character stays in its line.
    pub prepare: fn(&str) -> Cow<'_, str>,
}

impl FileTranslator {
    pub fn new(format: TranslatedFormat, translate: impl Fn(Value) -> Translation + Send + Sync + 'static) -> Self {
        FileTranslator { format, translate: Arc::new(translate) }
    }

    pub(super) fn is_meant(&self, text: &str) -> bool {
        (self.format.is_meant)(text)
    }

    pub(super) fn prepare<'t>(&self, text: &'t str) -> Cow<'t, str> {
        (self.format.prepare)(text)
    }

    pub(super) fn translate(&self, value: Value) -> Translation {
        (self.translate)(value)
    }
}

impl fmt::Debug for FileTranslator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FileTranslator")
    }
}

/// The result of a translation.
#[derive(Debug)]
pub enum Translation {
    /// The file is not used. The fields of the diagnostics are paths in the file.
    Rejected(Vec<Diagnostic>),
    /// The objects, and what is left out (errors) or differs (warnings).
    Objects(Vec<TranslatedObject>, Vec<Diagnostic>),
}

/// An object, and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatedObject {
    pub value: Value,
    pub source: ObjectSource,
}

/// The reason of errors about what a translation leaves out.
pub const LEFT_OUT: &str = "LeftOut";

/// Where a translated object is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectSource {
    /// The path of an entity in the file. Fields of the object that the entity has too have its positions.
    Entity(Arc<str>),
    /// A line of the file, which is no YAML.
    Line(u32),
}

impl ObjectSource {
    /// The path in the file of a field of the object, which may lead beyond what the file has.
    pub(super) fn path_of(&self, field: &str) -> String {
        let ObjectSource::Entity(entity) = self else { return String::new() };
        match field.strip_prefix("spec.").unwrap_or(field) {
            "" => entity.to_string(),
            field => format!("{entity}.{field}"),
        }
    }
}
