//! Reads the entries of the configuration, such as `name:value`, and collects all errors with their paths.

use http::header::HOST;
use http::{HeaderName, HeaderValue};

use crate::diagnostic::Diagnostic;
use crate::json_fields::JsonPath;
use crate::plugin_api::field_names::{WrittenValue, refusal};
use crate::plugin_api::kind::BuildCx;

/// Reads lists of entries. Entries with errors are left out of the result and reported by [`ConfigReader::finish`].
pub(super) struct ConfigReader<'a> {
    cx: &'a BuildCx<'a>,
    errors: Vec<Diagnostic>,
}

impl<'a> ConfigReader<'a> {
    pub(super) fn new(cx: &'a BuildCx<'a>) -> Self {
        ConfigReader { cx, errors: Vec::new() }
    }

    pub(super) fn finish(self) -> Result<(), Vec<Diagnostic>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }

    pub(super) fn error(&mut self, path: &str, message: impl Into<String>, remedy: &str) {
        self.errors.push(Diagnostic::in_config(path, message, remedy));
    }

    /// Adds a remark about an entry that is accepted and has less effect than it seems.
    pub(super) fn note(&self, path: &str, message: impl Into<String>, remedy: &str) {
        self.cx.note(Diagnostic::in_config(path, message, remedy));
    }

    /// The name and the value of an entry, of which the value may be missing.
    pub(super) fn name_and_value<'e>(
        &mut self,
        path: &str,
        entry: &'e str,
        form: &str,
    ) -> Option<(&'e str, Option<&'e str>)> {
        let (name, value) = split(entry);
        if name.is_empty() {
            self.error(path, "has no name", &format!("write {form}"));
            return None;
        }
        Some((name, value))
    }

    /// The two parts of an entry that must have both. The second part may be empty.
    pub(super) fn pair<'e>(&mut self, path: &str, entry: &'e str, form: &str) -> Option<(&'e str, &'e str)> {
        let (name, value) = self.name_and_value(path, entry, form)?;
        if value.is_none() {
            self.error(path, "has no colon", &format!("write {form}"));
        }
        Some((name, value?))
    }

    /// The field of a JSON body that an entry names.
    pub(super) fn json_path(&mut self, path: &str, name: &str, has_paths: bool) -> Option<JsonPath> {
        if !has_paths {
            return Some(JsonPath::member(name));
        }
        let parsed = JsonPath::parse(name);
        let remedy = "write a path such as customers[*].name, or set dots_in_keys to true";
        parsed.map_err(|message| self.error(path, format!("{name:?} {message}"), remedy)).ok()
    }

    pub(super) fn header_name(&mut self, path: &str, name: &str) -> Option<HeaderName> {
        let parsed = HeaderName::from_bytes(name.trim().as_bytes()).ok();
        if parsed.is_none() {
            let message = format!("{name:?} is not a valid header name");
            self.error(path, message, "use letters, digits and `-`, without spaces");
        }
        parsed
    }

    /// The name of a header that the plugin sets.
    pub(super) fn settable_header_name(&mut self, path: &str, name: &str) -> Option<HeaderName> {
        let name = self.header_name(path, name)?;
        // A response has no host, so a field of this name is one of the backend's own.
        if let Some(reason) = refusal(&name, WrittenValue::Configured).filter(|_| name != HOST) {
            let message = format!("{name} {reason}, and cannot be set");
            self.error(path, message, "remove the entry");
            return None;
        }
        Some(name)
    }

    /// The value of a header. The message does not quote the value, which may be a secret.
    pub(super) fn header_value(&mut self, path: &str, value: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_bytes(value.trim().as_bytes()).ok();
        if parsed.is_none() {
            self.error(path, "the value is not a valid header value", "remove line breaks and control characters");
        }
        parsed
    }
}

/// Splits an entry at its first colon. Further colons after it are ignored, as in Kong.
fn split(entry: &str) -> (&str, Option<&str>) {
    match entry.split_once(':') {
        Some((name, value)) => (name, Some(value.trim_start_matches(':'))),
        None => (entry, None),
    }
}
