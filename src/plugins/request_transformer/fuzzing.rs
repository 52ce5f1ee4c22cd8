//! Fuzzing of bodies with fields: a removed field cannot be found afterwards, all others keep their values, and what
//! Portico adds is found as it was added.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::body_fields::JsonFields;
use super::edits::EditableFields;
use super::fields::FormPairs;
use super::multipart_fields::MultipartFields;
use crate::plugin_api::fields::{BodyFields, FieldValue};

/// The names of the fields that are removed, kept and added.
const UNWANTED: &str = "a";
const KEPT: &str = "b";
const ADDED: &str = "new \"field\"\\";

/// The first line is the media type, and the rest is the body.
pub(crate) fn body(input: &[u8]) {
    let end = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let body = input.get(end + 1..).unwrap_or_default();
    let Ok(content_type) = HeaderValue::from_bytes(&input[..end]) else { return };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    let Some(fields) = BodyFields::parse(&headers, body) else { return };
    let expect = |edited: &[u8], name: &str, expected: FieldValue<'_>| {
        let edited = BodyFields::parse(&headers, edited).expect("an edited body is valid");
        assert_eq!(edited.find(name), expected, "{name}");
    };
    let kept = fields.find(KEPT);

    // As plugins remove credentials.
    if let Some(edited) = fields.without(|name| name == UNWANTED.as_bytes()) {
        expect(&edited, UNWANTED, FieldValue::Absent);
        expect(&edited, KEPT, kept.clone());
    }

    // As request-transformer edits bodies.
    let content_type = headers[CONTENT_TYPE].to_str().unwrap_or_default();
    let edited = match &fields {
        BodyFields::Form(_) => edit(&mut FormPairs::parse(body)).map(|fields| fields.encode()),
        BodyFields::Multipart(_) => MultipartFields::parse(content_type, body).and_then(|mut fields| {
            assert_eq!(fields.encode(), body, "a body without edits is unchanged");
            edit(&mut fields).map(|fields| fields.encode())
        }),
        BodyFields::Json(_) => {
            JsonFields::parse(body).and_then(|mut fields| edit(&mut fields).map(|fields| fields.encode()))
        }
    };
    if let Some(edited) = edited {
        expect(&edited, UNWANTED, FieldValue::Absent);
        expect(&edited, KEPT, kept);
        expect(&edited, ADDED, FieldValue::Single(Cow::Borrowed(b"value")));
    }
}

/// Removes a field, renames another one, and adds one. `None` if the value cannot be added.
fn edit<F: EditableFields<Box<str>>>(fields: &mut F) -> Option<&F> {
    let added: Box<str> = ADDED.into();
    fields.remove(&UNWANTED.into());
    fields.remove(&added);
    fields.rename(&"c".into(), &"d".into());
    assert!(!fields.contains(&UNWANTED.into()) && !fields.contains(&"c".into()), "removed and renamed fields are gone");
    fields.add(&added, Some(b"value")).ok()?;
    assert!(fields.contains(&added), "the added field is there");
    Some(fields)
}
