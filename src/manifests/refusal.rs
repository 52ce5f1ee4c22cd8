//! What is wrong with a file or an object in it, for whoever wrote it.

use super::place::Place;

/// Something in a file that was not taken over, or was only with a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub place: Place,
    /// The object, as far as it is known: `HTTPRoute default/web`.
    pub object: Option<String>,
    /// Path in the object, or empty.
    pub field: String,
    /// One word in upper camel case: `NotYaml`, `UnknownField`, `Duplicate` …
    pub reason: &'static str,
    /// What is wrong: a clause without a full stop.
    pub message: String,
    /// What would be right: a clause without a full stop.
    pub remedy: String,
    /// What keeps being served meanwhile, if anything does: a sentence.
    pub meanwhile: Option<String>,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Refusal {
    /// An error about a file or a folder rather than an object.
    pub(super) fn of_file(place: Place, reason: &'static str, message: String, remedy: &str) -> Self {
        Refusal {
            place,
            object: None,
            field: String::new(),
            reason,
            message,
            remedy: remedy.to_owned(),
            meanwhile: None,
            severity: Severity::Error,
        }
    }

    /// The same as a warning.
    pub(super) fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}
