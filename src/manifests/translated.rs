//! Files of another format than manifests, which a translator turns into objects.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;

/// Turns the content of a file into objects.
#[derive(Clone)]
pub struct FileTranslator(Arc<dyn Fn(Value) -> Translation + Send + Sync>);

impl FileTranslator {
    pub fn new(translate: impl Fn(Value) -> Translation + Send + Sync + 'static) -> Self {
        FileTranslator(Arc::new(translate))
    }

    pub(super) fn translate(&self, value: Value) -> Translation {
        (self.0)(value)
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
    /// The path in the file.
    pub source: Arc<str>,
}
