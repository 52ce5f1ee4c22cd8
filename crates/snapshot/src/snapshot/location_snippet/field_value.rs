//! Names and values of header fields in snippets. What is known when a snippet is compiled is not computed per request.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::refusal::DirectiveRefusal;
use super::text::{KnownVariables, PartValues, SnippetText, TextPhase};

/// The value of a field. It is not empty when a snippet is compiled, but may be for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldText {
    Fixed(HeaderValue),
    Expanded(SnippetText),
}

/// A value for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpandedField {
    Value(HeaderValue),
    Empty,
    /// It has a byte that no field may have, such as a line break, or is too long.
    Invalid,
}

impl FieldText {
    /// `Ok(None)` if the text is empty.
    pub(super) fn parse(
        text: &str,
        scope: &KnownVariables,
        phase: TextPhase,
    ) -> Result<Option<Self>, DirectiveRefusal> {
        let text = SnippetText::parse_in(text, scope, phase)?;
        match text.literal() {
            Some("") => Ok(None),
            Some(literal) => match HeaderValue::from_bytes(literal.as_bytes()) {
                Ok(value) => Ok(Some(FieldText::Fixed(value))),
                Err(_) => {
                    let message = "has a line break or another control character in the value of a field";
                    Err(DirectiveRefusal::new(message, "write the value in one line"))
                }
            },
            None => Ok(Some(FieldText::Expanded(text))),
        }
    }

    pub(super) fn expand(&self, values: &dyn PartValues) -> ExpandedField {
        match self {
            FieldText::Fixed(value) => ExpandedField::Value(value.clone()),
            FieldText::Expanded(text) => match text.expand_parts(values) {
                Some(text) if text.is_empty() => ExpandedField::Empty,
                Some(text) => match HeaderValue::from_bytes(text.as_bytes()) {
                    Ok(value) => ExpandedField::Value(value),
                    Err(_) => ExpandedField::Invalid,
                },
                None => ExpandedField::Invalid,
            },
        }
    }

    /// The text, if it is expanded for each request.
    pub(super) fn expanded(&self) -> Option<&SnippetText> {
        match self {
            FieldText::Fixed(_) => None,
            FieldText::Expanded(text) => Some(text),
        }
    }

    pub(super) fn reads_upstream_fields(&self) -> bool {
        match self {
            FieldText::Fixed(_) => false,
            FieldText::Expanded(text) => text.reads_upstream_fields(),
        }
    }
}

/// One field, or all whose names begin with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldPattern {
    Name(HeaderName),
    /// In lower case.
    Prefix(Box<str>),
}

impl FieldPattern {
    /// Parses `X-Name` or `X-*`.
    pub(super) fn parse(text: &str) -> Result<Self, DirectiveRefusal> {
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.is_empty() && HeaderName::try_from(prefix).is_ok() => {
                Ok(FieldPattern::Prefix(prefix.to_ascii_lowercase().into()))
            }
            _ => Ok(FieldPattern::Name(editable_name(text)?)),
        }
    }

    /// Removes the fields. A prefix does not stand for those that a snippet may not edit.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        match self {
            FieldPattern::Name(name) => {
                headers.remove(name);
            }
            FieldPattern::Prefix(prefix) => {
                let is_matching = |name: &&HeaderName| name.as_str().starts_with(&**prefix) && !is_of_connection(name);
                let names: Vec<HeaderName> = headers.keys().filter(is_matching).cloned().collect();
                for name in names {
                    headers.remove(name);
                }
            }
        }
    }
}

/// The name of a field that a snippet may edit.
pub(super) fn editable_name(text: &str) -> Result<HeaderName, DirectiveRefusal> {
    let name = field_name(text)?;
    match is_of_connection(&name) {
        true => {
            let message = format!("changes `{text}`, which belongs to a connection or delimits a message");
            Err(DirectiveRefusal::new(message, "remove it; Portico sets the field"))
        }
        false => Ok(name),
    }
}

pub(super) fn field_name(text: &str) -> Result<HeaderName, DirectiveRefusal> {
    // An asterisk may be a part of a name, but is always meant as a pattern.
    let name = HeaderName::try_from(text).ok().filter(|_| !text.contains('*'));
    name.ok_or_else(|| DirectiveRefusal::invalid(format!("has {text:?}, which is no name of a field")))
}

/// Whether a field is about a connection, or about where a message ends.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || ["keep-alive", "proxy-connection"].contains(&name.as_str())
}

/// Splits `Name: value`. The value is empty without a colon.
pub(super) fn split_field(text: &str) -> (&str, &str) {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    (name.trim(), value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_keep_fields_of_the_connection() {
        let names = ["content-type", "content-length", "content-language", "x-a"];
        let mut headers: HeaderMap =
            names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("a"))).into_iter().collect();
        FieldPattern::parse("Content-*").unwrap().remove_from(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-a"]);
        for text in ["", "*", "a b", "Connection", "a:*", "Keep-Alive"] {
            assert!(FieldPattern::parse(text).is_err(), "{text}");
        }
    }
}
