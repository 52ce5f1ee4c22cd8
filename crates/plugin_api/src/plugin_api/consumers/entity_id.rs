//! Ids and names of consumers and credentials, prepared as header values.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use http::HeaderValue;

use super::digests::{hex, sha256};

/// Unique id of a consumer or credential. Stored only as a header value to save memory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntityId(HeaderValue);

impl EntityId {
    /// The id is the text itself, or its digest if the text is not visible ASCII.
    pub fn from_text(text: &str) -> Self {
        let unchanged = header_value(text).filter(|value| value.to_str().is_ok());
        let digest = || header_value(&hex(&sha256(text.as_bytes()))).expect("hexadecimal digits are a header value");
        EntityId(unchanged.unwrap_or_else(digest))
    }

    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl Deref for EntityId {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.to_str().expect("an id is visible ASCII")
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

/// A name chosen by a user, as text and as a header value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityName {
    text: Arc<str>,
    header: Option<HeaderValue>,
}

impl EntityName {
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// `None` if the name is not a valid header value.
    pub fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

impl From<Arc<str>> for EntityName {
    fn from(text: Arc<str>) -> Self {
        EntityName { header: header_value(&text), text }
    }
}

impl From<&str> for EntityName {
    fn from(text: &str) -> Self {
        EntityName::from(Arc::<str>::from(text))
    }
}

impl Deref for EntityName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// The text as a header value. `None` if it is not a valid one.
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_not_visible_ascii_become_digests() {
        for text in ["0f7a2c1e-9d5b-8e3f-a1b2-c3d4e5f60718", "https://issuer.example#anna", ""] {
            assert_eq!(
                (&*EntityId::from_text(text), EntityId::from_text(text).header().as_bytes()),
                (text, text.as_bytes())
            );
        }
        let (not_ascii, with_line_break) = (EntityId::from_text("issuer#Zoë"), EntityId::from_text("issuer#Zo\n"));
        assert_eq!((not_ascii.len(), with_line_break.len()), (64, 64), "a digest");
        assert_ne!(not_ascii, with_line_break);
    }

    #[test]
    fn names_have_a_header_value_if_valid() {
        for (text, expected) in [("anna", Some("anna")), ("Zoë", Some("Zoë")), ("two\nlines", None)] {
            let name = EntityName::from(text);
            assert_eq!((&*name, name.header().map(HeaderValue::as_bytes)), (text, expected.map(str::as_bytes)));
        }
    }
}
