//! The violations of one object, limited in number and length.

use serde_json::Value;

use super::path::ObjectPath;
use super::quote::truncate;
use crate::diagnostic::Diagnostic;

/// The maximum number of violations listed per object; the rest is counted.
const MAX_VIOLATIONS: usize = 50;

/// Collects violations during the validation of an object.
pub(super) struct ViolationReport {
    violations: Vec<Diagnostic>,
    omitted: usize,
    /// Paths of values that are missing or unusable. Rules that may read them would report them again.
    blocked: Vec<String>,
    /// Whether a `not` rejected a value.
    excluded: bool,
    /// False for Secrets, whose values must never be quoted.
    quotes_values: bool,
}

impl ViolationReport {
    /// An empty report that quotes values. Use [`ViolationReport::for_secret`] for a Secret.
    pub(super) fn new() -> Self {
        ViolationReport {
            violations: Vec::new(),
            omitted: 0,
            blocked: Vec::new(),
            excluded: false,
            quotes_values: true,
        }
    }

    /// An empty report that never quotes values.
    pub(super) fn for_secret() -> Self {
        ViolationReport { quotes_values: false, ..ViolationReport::new() }
    }

    /// An empty report that quotes values if this one does, for checks whose violations may be dropped.
    pub(super) fn empty_copy(&self) -> Self {
        ViolationReport { quotes_values: self.quotes_values, ..ViolationReport::new() }
    }

    pub(super) fn add(&mut self, path: &ObjectPath<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Diagnostic::error(path.to_string(), message, remedy));
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    /// Like `add`, and skips the rules that may read this value.
    pub(super) fn add_blocking(
        &mut self,
        path: &ObjectPath<'_>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.block(path.to_string());
        self.add(path, message, remedy);
    }

    /// Skips the rules that may read the value at this path.
    pub(super) fn block(&mut self, path: String) {
        // With more than `MAX_VIOLATIONS` paths, every path is blocked (see `is_path_blocked`), so no more are needed.
        if self.blocked.len() <= MAX_VIOLATIONS {
            self.blocked.push(path);
        }
    }

    /// Skips the rules that the other report skips.
    pub(super) fn block_paths_of(&mut self, other: &ViolationReport) {
        other.blocked.iter().for_each(|path| self.block(path.clone()));
    }

    /// Whether the value at this path has parts that are missing or unusable, or is a part of such a value.
    pub(super) fn is_blocked(&self, path: &ObjectPath<'_>) -> bool {
        !self.blocked.is_empty() && self.is_path_blocked(&path.to_string())
    }

    /// Like [`ViolationReport::is_blocked`], for a formatted path.
    fn is_path_blocked(&self, path: &str) -> bool {
        let is_within = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.blocked.len() > MAX_VIOLATIONS
            || self.blocked.iter().any(|blocked| is_within(blocked, path) || is_within(path, blocked))
    }

    /// Adds the violations of another report, except those at blocked paths, which follow from missing or unusable
    /// values.
    pub(super) fn add_unblocked(&mut self, other: ViolationReport) {
        for violation in other.finish() {
            if self.blocked.is_empty() || !self.is_path_blocked(&violation.field) {
                self.push(violation);
            }
        }
    }

    /// Like `add`, for a value that a `not` excludes.
    pub(super) fn add_exclusion(
        &mut self,
        path: &ObjectPath<'_>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.excluded = true;
        self.add(path, message, remedy);
    }

    pub(super) fn excluded(&self) -> bool {
        self.excluded
    }

    pub(super) fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether values may be quoted.
    pub(super) fn quotes_values(&self) -> bool {
        self.quotes_values
    }

    /// The value for a message, truncated; "the value" for a Secret.
    pub(super) fn quote(&self, value: &Value) -> String {
        if !self.quotes_values {
            return "the value".to_owned();
        }
        match value {
            Value::Array(_) => "the list".to_owned(),
            Value::Object(_) => "the mapping".to_owned(),
            Value::String(text) => self.quote_text(text),
            scalar => scalar.to_string(),
        }
    }

    /// A quoted text for a message, truncated; "the value" for a Secret.
    pub(super) fn quote_text(&self, text: &str) -> String {
        if self.quotes_values { format!("{:?}", truncate(text)) } else { "the value".to_owned() }
    }

    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        if self.omitted > 0 {
            let message = format!("{} more violations are not shown", self.omitted);
            self.violations.push(Diagnostic::of_object(message, "correct the ones above first"));
        }
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::quote::printable;

    #[test]
    fn violations_above_the_limit_are_counted() {
        let mut report = ViolationReport::new();
        for index in 0..53 {
            report.add(&ObjectPath::Root.index(index), "is wrong", "write it right");
        }
        let violations = report.finish();
        assert_eq!(violations.len(), 51);
        assert_eq!(violations[49].field, "[49]");
        assert_eq!(violations[50].message, "3 more violations are not shown");
    }

    #[test]
    fn values_are_truncated_and_secret_values_hidden() {
        let report = ViolationReport::new();
        assert_eq!(report.quote(&json!("a\"b\n")), r#""a\"b\n""#);
        assert_eq!(report.quote(&json!(7)), "7");
        assert_eq!(report.quote(&json!({"a": 1})), "the mapping");
        assert!(report.quote(&json!("ä".repeat(10_000))).chars().count() < 100);
        assert_eq!(printable("a\u{1b}[31mb\n"), r"a\u{1b}[31mb\n");
        let secret_report = ViolationReport::for_secret();
        assert_eq!(secret_report.quote(&json!("hunter2")), "the value");
        assert_eq!(secret_report.quote(&json!(1234)), "the value");
    }
}
