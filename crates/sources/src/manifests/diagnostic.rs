//! Diagnostics about a file or an object in it.

use super::position::FilePosition;
use crate::diagnostic::Diagnostic;

/// A diagnostic about a file or object that was rejected, or accepted with a warning, with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDiagnostic {
    pub position: FilePosition,
    /// The object, if known: `HTTPRoute default/web`.
    pub object: Option<String>,
    pub diagnostic: Diagnostic,
    /// What stays in use, if anything: a sentence.
    pub meanwhile: Option<String>,
}

impl ManifestDiagnostic {
    /// A diagnostic about a file or folder rather than an object.
    pub fn for_file(position: FilePosition, diagnostic: Diagnostic) -> Self {
        ManifestDiagnostic { position, object: None, diagnostic, meanwhile: None }
    }

    /// An identifier in upper camel case: `NotYaml`, `UnknownField`, `Duplicate` …
    pub fn reason(&self) -> &'static str {
        self.diagnostic.reason.name().unwrap_or("Invalid")
    }
}
