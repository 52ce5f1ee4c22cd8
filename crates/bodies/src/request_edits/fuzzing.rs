//! Fuzzing of bodies with fields: a removed field cannot be found afterwards, all others keep their values, and what
//! Portico adds is found as it was added.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::edits::{BodyName, EditAction, EditableFields};
use super::fields::FormPairs;
use super::multipart_fields::MultipartFields;
use crate::json_fields::{JsonFields, JsonPath, JsonType};
use crate::plugin_api::fields::{BodyFields, FieldValue};
use crate::plugin_formats::template::Template;

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
            JsonFields::parse_object(body).and_then(|mut fields| edit(&mut fields).map(|fields| fields.encode()))
        }
    };
    if let Some(edited) = edited {
        expect(&edited, UNWANTED, FieldValue::Absent);
        // Of members with one name, edits of JSON keep the last one.
        if !(matches!(fields, BodyFields::Json(_)) && kept == FieldValue::Multiple) {
            expect(&edited, KEPT, kept);
        }
        expect(&edited, ADDED, FieldValue::Single(Cow::Borrowed(b"value")));
    }
}

/// Removes a field, renames another one, and adds one. `None` if the value cannot be added.
fn edit<F: EditableFields<BodyName>>(fields: &mut F) -> Option<&F> {
    let value = || Template::parse("value").expect("a literal is a template");
    for name in [UNWANTED, ADDED] {
        fields.edit(&body_name(name), &EditAction::Remove, None).ok()?;
    }
    fields.edit(&body_name("c"), &EditAction::Rename(body_name("d")), None).ok()?;
    for gone in [UNWANTED, "c"] {
        let is_there = fields.edit(&body_name(gone), &EditAction::Remove, None);
        assert_eq!(is_there, Ok(false), "removed and renamed fields are gone");
    }
    let added = body_name(ADDED);
    fields.edit(&added, &EditAction::Add(value()), Some(b"value")).ok()?;
    let again = fields.edit(&added, &EditAction::Add(value()), Some(b"other"));
    assert_eq!(again, Ok(false), "the added field is there");
    Some(fields)
}

fn body_name(name: &str) -> BodyName {
    BodyName { text: name.into(), path: JsonPath::member(name), json_type: JsonType::String }
}
