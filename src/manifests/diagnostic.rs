//! Diagnostics about a file or an object in it.

use super::position::FilePosition;

/// A file or object that was rejected, or accepted with a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDiagnostic {
    pub position: FilePosition,
    /// The object, if known: `HTTPRoute default/web`.
    pub object: Option<String>,
    /// The path in the object, or empty.
    pub field: String,
    /// An identifier in upper camel case: `NotYaml`, `UnknownField`, `Duplicate` …
    pub reason: &'static str,
    /// What is wrong: a clause without a full stop.
    pub message: String,
    /// What would be right: a clause without a full stop.
    pub remedy: String,
    /// What stays in use, if anything: a sentence.
    pub meanwhile: Option<String>,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl ManifestDiagnostic {
    /// An error about a file or folder rather than an object.
    pub(super) fn for_file(position: FilePosition, reason: &'static str, message: String, remedy: &str) -> Self {
        ManifestDiagnostic {
            position,
            object: None,
            field: String::new(),
            reason,
            message,
            remedy: remedy.to_owned(),
            meanwhile: None,
            severity: Severity::Error,
        }
    }

    /// Turns the error into a warning.
    pub(super) fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}
