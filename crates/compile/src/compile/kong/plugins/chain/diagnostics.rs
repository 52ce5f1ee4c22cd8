//! Collects the diagnostics of one route about its plugins.

use crate::diagnostic::{Diagnostic, Topic};
use crate::verdict::Code;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The diagnostics of a route about its plugins, without duplicates.
#[derive(Default)]
pub(super) struct ChainDiagnostics {
    /// The field with the reference to the plugin. Empty for plugins without one.
    pub(super) field: String,
    rejections: Vec<(Code, Diagnostic)>,
    others: UniqueDiagnostics,
}

impl ChainDiagnostics {
    /// Reports a plugin because of which requests get status 503.
    pub(super) fn report_rejection(&mut self, message: String, remedy: &str) {
        let problem = Diagnostic::error(self.field.as_str(), message, remedy).with_topic(Topic::Plugin);
        self.add_rejection(Code::RouteInvalidPlugin, problem);
    }

    pub(super) fn add_rejection(&mut self, code: Code, problem: Diagnostic) {
        let rejection = (code, problem);
        if !self.rejections.contains(&rejection) {
            self.rejections.push(rejection);
        }
    }

    /// Reports a plugin without which requests are served.
    pub(super) fn report(&mut self, message: String, remedy: &str) {
        self.add(Diagnostic::error(self.field.as_str(), message, remedy).with_topic(Topic::Plugin));
    }

    pub(super) fn add(&mut self, problem: Diagnostic) {
        self.others.push(problem);
    }

    /// The diagnostics because of which requests get status 503, and the others.
    pub(super) fn into_parts(self) -> (Vec<(Code, Diagnostic)>, Vec<Diagnostic>) {
        (self.rejections, self.others.into_vec())
    }
}
