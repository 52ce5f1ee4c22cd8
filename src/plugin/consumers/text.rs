//! Texts that go into requests, made ready for that once.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use http::HeaderValue;

use super::{digest_of, hex};

/// What tells a consumer or a credential from every other. There are very many, so its text is in memory once: as the value of
/// a header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Id(HeaderValue);

impl Id {
    /// The text itself, or its digest if it cannot be read back from a header as it is.
    pub fn of(text: &str) -> Self {
        let itself = header_of(text).filter(|value| value.to_str().is_ok());
        let digest = || header_of(&hex(&digest_of(text.as_bytes()))).expect("digits can stand in a header");
        Id(itself.unwrap_or_else(digest))
    }

    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.to_str().expect("made of text that can be read back")
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

/// A name as somebody chose it, and as a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: Arc<str>,
    header: Option<HeaderValue>,
}

impl Name {
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// None if it cannot stand in a header.
    pub fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

impl From<Arc<str>> for Name {
    fn from(text: Arc<str>) -> Self {
        Name { header: header_of(&text), text }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Name::from(Arc::<str>::from(text))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// None if it cannot stand in a header.
pub(super) fn header_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_unless_a_header_cannot_say_it() {
        for text in ["0f7a2c1e-9d5b-8e3f-a1b2-c3d4e5f60718", "https://issuer.example#anna", ""] {
            assert_eq!((&*Id::of(text), Id::of(text).header().as_bytes()), (text, text.as_bytes()));
        }
        let (zoe, line) = (Id::of("issuer#Zoë"), Id::of("issuer#Zo\n"));
        assert_eq!((zoe.len(), line.len()), (64, 64), "a digest");
        assert_ne!(zoe, line);
    }

    #[test]
    fn a_name_is_a_header_if_it_can_be_one() {
        for (text, expected) in [("anna", Some("anna")), ("Zoë", Some("Zoë")), ("two\nlines", None)] {
            let name = Name::from(text);
            assert_eq!((&*name, name.header().map(HeaderValue::as_bytes)), (text, expected.map(str::as_bytes)));
        }
    }
}
