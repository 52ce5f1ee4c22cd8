//! What a reader found in the bytes of a connection, in a form that can be compared between readers.

use std::fmt::Debug;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

/// Names in lower case with values, sorted.
pub(super) type FoundFields = Vec<(Vec<u8>, Vec<u8>)>;

/// A message, up to the end of the input. `L` has what its first line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FoundMessage<L> {
    pub(super) line: L,
    pub(super) fields: FoundFields,
    /// Without the chunked coding.
    pub(super) body: Vec<u8>,
    pub(super) trailers: FoundFields,
    pub(super) is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundRequestLine {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundStatusLine {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    /// None if it is that of the status.
    pub(super) reason: Option<Vec<u8>>,
}

/// An informational response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundInformational {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) fields: FoundFields,
}

impl<L: Debug + PartialEq> FoundMessage<L> {
    /// A message whose body was not read.
    pub(super) fn new(line: L, fields: &HeaderMap) -> Self {
        FoundMessage {
            line,
            fields: sorted(fields),
            body: Vec::new(),
            trailers: FoundFields::default(),
            is_complete: false,
        }
    }

    pub(super) fn values(&self, name: &str) -> Vec<&[u8]> {
        values(&self.fields, name)
    }

    /// Whether a field with this name has bytes that are not ASCII. In such a value hyper finds no list items.
    pub(super) fn has_other_bytes(&self, name: &str) -> bool {
        self.values(name).iter().any(|value| !value.is_ascii())
    }

    /// Compares the message with what hyper has found.
    pub(super) fn expect_same(&self, hyper: &Self) {
        assert_eq!(self.line, hyper.line, "the first line (right: hyper)");
        expect_same_fields(&self.fields, &hyper.fields);
        assert_eq!(self.is_complete, hyper.is_complete, "whether the message is complete: {self:?} {hyper:?}");
        assert_eq!(self.body, hyper.body, "body (right: hyper)");
        expect_same_fields(&self.trailers, &hyper.trailers);
    }
}

/// Compares fields with those that another reader found. It may have kept several equal lengths.
pub(super) fn expect_same_fields(ours: &FoundFields, theirs: &FoundFields) {
    let lengths = values(theirs, CONTENT_LENGTH.as_str());
    if lengths.len() < 2 {
        assert_eq!(ours, theirs, "fields (right: the other reader)");
        return;
    }
    let without_lengths = |fields: &FoundFields| -> FoundFields {
        fields.iter().filter(|(name, _)| name != CONTENT_LENGTH.as_str().as_bytes()).cloned().collect()
    };
    assert_eq!(without_lengths(ours), without_lengths(theirs), "other fields (right: the other reader)");
    let kept = values(ours, CONTENT_LENGTH.as_str());
    assert!(!kept.is_empty(), "one of several lengths is kept: {theirs:?}");
    for length in kept {
        assert!(lengths.contains(&length), "no length is invented: {ours:?} {theirs:?}");
    }
}

pub(super) fn sorted(fields: &HeaderMap) -> FoundFields {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    let mut fields: FoundFields = fields.iter().map(pair).collect();
    fields.sort();
    fields
}

fn values<'f>(fields: &'f FoundFields, wanted: &str) -> Vec<&'f [u8]> {
    fields.iter().filter(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| &**value).collect()
}

/// Whether a line ends in a line feed alone.
pub(super) fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|position| position == 0 || bytes[position - 1] != b'\r')
}
