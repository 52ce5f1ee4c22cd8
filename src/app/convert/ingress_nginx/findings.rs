//! What the compiler reports about an Ingress, without what is only missing in the input.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, NO_ENDPOINT, Reason};

/// The diagnostics of an Ingress.
#[derive(Debug, Default)]
pub(super) struct IngressFindings<'a> {
    pub(super) diagnostics: Vec<&'a Diagnostic>,
    /// The fields with references to objects that were not read, and these objects.
    missing: Vec<(&'a str, &'a str)>,
}

impl<'a> IngressFindings<'a> {
    pub(super) fn new(diagnostics: impl Iterator<Item = &'a Diagnostic>) -> Self {
        let mut found = IngressFindings::default();
        for diagnostic in diagnostics {
            match &diagnostic.reason {
                Reason::NotFound(object) => found.missing.push((&diagnostic.field, object)),
                // Endpoints are written by the cluster.
                Reason::Named(NO_ENDPOINT) => {}
                _ => found.diagnostics.push(diagnostic),
            }
        }
        found
    }

    /// The diagnostics about a field.
    pub(super) fn at(&self, field: &str) -> impl Iterator<Item = &'a Diagnostic> {
        self.diagnostics.iter().copied().filter(move |diagnostic| diagnostic.field == field)
    }

    /// The object that a field refers to and that was not read.
    pub(super) fn missing_at(&self, field: &str) -> Option<&'a str> {
        self.missing.iter().find(|(missing, _)| *missing == field).map(|(_, object)| *object)
    }

    /// All objects that were not read.
    pub(super) fn missing(&self) -> BTreeSet<String> {
        self.missing.iter().map(|(_, object)| (*object).to_owned()).collect()
    }
}

/// The field of an annotation with this key.
pub(super) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}
