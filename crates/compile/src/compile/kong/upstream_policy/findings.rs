//! What the translation of a policy reports.

use crate::diagnostic::Diagnostic;

/// Diagnostics about the fields of one object.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Fields that are not in effect although they would be in Kong.
    pub(super) problems: Vec<Diagnostic>,
    /// Fields with less effect than their author may expect.
    pub(super) notes: Vec<Diagnostic>,
}

impl Findings {
    pub(super) fn problem(&mut self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Diagnostic::error(field, message, remedy));
    }

    pub(super) fn note(&mut self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.notes.push(Diagnostic::warning(field, message, remedy));
    }
}
