//! What was found wrong with one object, bounded in number and in length.

use serde_json::Value;

use super::Violation;
use super::path::Path;

/// How many violations of one object are told; the rest are counted.
const SHOWN: usize = 50;

/// How many characters of a value are quoted.
const QUOTED: usize = 80;

/// Collects violations while an object is walked.
pub(super) struct Report {
    violations: Vec<Violation>,
    more: usize,
    /// Something was found that makes rules in CEL pointless: they would speak of a field that is missing or of another
    /// type.
    blocked: bool,
    /// Something was found that is only not among what an alternative is for.
    excluded: bool,
    /// False for Secrets, whose values must never be repeated.
    quoting: bool,
}

impl Report {
    pub(super) fn new(quoting: bool) -> Self {
        Report { violations: Vec::new(), more: 0, blocked: false, excluded: false, quoting }
    }

    /// An empty report that speaks of values as this one does, to try something on the side.
    pub(super) fn aside(&self) -> Self {
        Report::new(self.quoting)
    }

    pub(super) fn add(&mut self, path: &Path<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.add_at(path.to_string(), message, remedy);
    }

    pub(super) fn add_at(&mut self, field: String, message: impl Into<String>, remedy: impl Into<String>) {
        if self.violations.len() < SHOWN {
            self.violations.push(Violation { field, message: message.into(), remedy: remedy.into() });
        } else {
            self.more += 1;
        }
    }

    /// As `add`, and CEL rules are not asked about this object.
    pub(super) fn block(&mut self, path: &Path<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.blocked = true;
        self.add(path, message, remedy);
    }

    pub(super) fn block_if(&mut self, blocked: bool) {
        self.blocked |= blocked;
    }

    /// As `add`, of a value that belongs to another alternative.
    pub(super) fn exclude(&mut self, path: &Path<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.excluded = true;
        self.add(path, message, remedy);
    }

    pub(super) fn excluded(&self) -> bool {
        self.excluded
    }

    pub(super) fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked
    }

    /// Whether values may be told.
    pub(super) fn quotes(&self) -> bool {
        self.quoting
    }

    /// The value for a message, clipped; of a Secret only what it is.
    pub(super) fn quote(&self, value: &Value) -> String {
        if !self.quoting {
            return "the value".to_owned();
        }
        match value {
            Value::Array(_) => "the list".to_owned(),
            Value::Object(_) => "the mapping".to_owned(),
            Value::String(text) => self.quote_text(text),
            scalar => scalar.to_string(),
        }
    }

    /// A text for a message in quotes, clipped; of a Secret only that there is one.
    pub(super) fn quote_text(&self, text: &str) -> String {
        if self.quoting { format!("{:?}", clip(text)) } else { "the value".to_owned() }
    }

    pub(super) fn finish(mut self) -> Vec<Violation> {
        if self.more > 0 {
            self.violations.push(Violation {
                field: String::new(),
                message: format!("{} more violations are not shown", self.more),
                remedy: "correct the ones above first".to_owned(),
            });
        }
        self.violations
    }
}

/// The first characters of a text that may be of any length, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    escape_controls(&clip(text))
}

/// A stranger's control characters written as escapes, so that they command no terminal.
pub(super) fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, char| {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
        shown
    })
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fifty_first_violation_is_counted_and_not_shown() {
        let mut report = Report::new(true);
        for index in 0..53 {
            report.add(&Path::Root.index(index), "is wrong", "write it right");
        }
        let violations = report.finish();
        assert_eq!(violations.len(), 51);
        assert_eq!(violations[49].field, "[49]");
        assert_eq!(violations[50].message, "3 more violations are not shown");
    }

    #[test]
    fn values_are_clipped_and_those_of_secrets_not_told() {
        let open = Report::new(true);
        assert_eq!(open.quote(&json!("a\"b\n")), r#""a\"b\n""#);
        assert_eq!(open.quote(&json!(7)), "7");
        assert_eq!(open.quote(&json!({"a": 1})), "the mapping");
        assert!(open.quote(&json!("ä".repeat(10_000))).chars().count() < 100);
        assert_eq!(shown("a\u{1b}[31mb\n"), r"a\u{1b}[31mb\n");
        let closed = Report::new(false);
        assert_eq!(closed.quote(&json!("hunter2")), "the value");
        assert_eq!(closed.quote(&json!(1234)), "the value");
    }
}
