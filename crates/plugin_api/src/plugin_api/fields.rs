//! Fields of queries and bodies: finding a field, and removing it without changing the rest.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use http::request::Parts;
use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderMap, HeaderName, Uri, header};
use percent_encoding::percent_decode;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::multipart::Multipart;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// The field is missing, or null in JSON.
    Absent,
    /// Present, but not a string: `?name` without a value, or a number in JSON.
    NotString,
    Single(Cow<'a, [u8]>),
    /// Several values, or a list or an object in JSON.
    Multiple,
}

impl<'a> FieldValue<'a> {
    /// The value of a header.
    pub fn from_header(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => FieldValue::Absent,
            (Some(value), None) => FieldValue::Single(Cow::Borrowed(value.as_bytes())),
            _ => FieldValue::Multiple,
        }
    }

    /// The value of a field that occurs with this value and with another one.
    fn merge(self, another: FieldValue<'a>) -> Self {
        match (self, another) {
            (value, FieldValue::Absent) | (FieldValue::Absent, value) => value,
            _ => FieldValue::Multiple,
        }
    }

    /// The value of a field that may be at several places, with one value at all of them.
    pub fn or_same(self, another: FieldValue<'a>) -> Self {
        match (self, another) {
            (value, FieldValue::Absent | FieldValue::NotString)
            | (FieldValue::Absent | FieldValue::NotString, value) => value,
            (FieldValue::Single(value), FieldValue::Single(same)) if value == same => FieldValue::Single(value),
            _ => FieldValue::Multiple,
        }
    }
}

/// The fields of a query or a form.
#[derive(Clone, Copy, Debug)]
pub struct UrlEncodedForm<'a>(pub &'a [u8]);

impl<'a> UrlEncodedForm<'a> {
    pub fn find(self, name: &[u8]) -> FieldValue<'a> {
        let values = self.pairs().filter(|pair| pair.name() == name).map(|pair| match pair.value() {
            Some(value) => FieldValue::Single(value),
            None => FieldValue::NotString,
        });
        values.fold(FieldValue::Absent, FieldValue::merge)
    }

    /// Removes the `unwanted` fields and keeps the others. `None` if there are no `unwanted` fields.
    pub fn without(self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let kept: Vec<&[u8]> = self.pairs().filter(|pair| !unwanted(&pair.name())).map(|pair| pair.raw).collect();
        (kept.len() < self.pairs().count()).then(|| kept.join(&b'&'))
    }

    /// The fields in order. A field without `=` has no value.
    pub fn pairs(self) -> impl Iterator<Item = FormField<'a>> {
        // `a&&b` has an empty field, which is kept when another one is removed.
        self.0.split(|byte| *byte == b'&').map(|raw| FormField { raw })
    }
}

/// One field of a query or form, as the client sent it.
#[derive(Clone, Copy, Debug)]
pub struct FormField<'a> {
    raw: &'a [u8],
}

impl<'a> FormField<'a> {
    pub fn name(self) -> Cow<'a, [u8]> {
        decode(self.parts().0)
    }

    pub fn value(self) -> Option<Cow<'a, [u8]>> {
        self.parts().1.map(decode)
    }

    fn parts(self) -> (&'a [u8], Option<&'a [u8]>) {
        match memchr::memchr(b'=', self.raw) {
            Some(equals) => (&self.raw[..equals], Some(&self.raw[equals + 1..])),
            None => (self.raw, None),
        }
    }
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let with_spaces: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&with_spaces).collect())
}

/// Removes the `unwanted` fields from the query that is sent upstream. Of the others, percent-encoded letters, digits
/// and `-._~` are decoded, as in Kong; both forms mean the same (RFC 3986, section 2.3).
pub fn remove_from_query(head: &mut Parts, unwanted: impl Fn(&[u8]) -> bool) {
    let Some(rest) = head.uri.query().and_then(|query| UrlEncodedForm(query.as_bytes()).without(unwanted)) else {
        return;
    };
    let path = head.uri.path().to_owned();
    // Valid, because it consists of parts of a valid target.
    replace_target(head, &path, &decode_unreserved(&rest)).unwrap_or_default();
}

/// Decodes the percent-encoded characters that need no encoding.
fn decode_unreserved(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => hex_digit(*high).zip(hex_digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Replaces path and query of the target that is sent upstream. Fails if they are not valid or too long.
pub fn replace_target(head: &mut Parts, path: &str, query: &[u8]) -> Result<(), InvalidUri> {
    let mut target = path.as_bytes().to_vec();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let target = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target))?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(target);
    head.uri = Uri::from_parts(parts).unwrap_or_default();
    Ok(())
}

/// The members of an object in JSON, of which several may have one name. Parsers disagree on which of them counts.
#[derive(Default)]
pub struct JsonMembers<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonMembersVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for JsonMembersVisitor<'a> {
            type Value = JsonMembers<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = JsonMembers::default();
                while let Some(member) = map.next_entry()? {
                    members.0.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(JsonMembersVisitor(PhantomData))
    }
}

impl Serialize for JsonMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The fields of a body.
pub enum BodyFields<'a> {
    Form(UrlEncodedForm<'a>),
    Multipart(Multipart<'a>),
    Json(JsonMembers<'a>),
}

impl<'a> BodyFields<'a> {
    /// Parses a body by its media type. `None` if the body is compressed, has another media type or cannot be parsed.
    pub fn parse(headers: &HeaderMap, body: &'a [u8]) -> Option<Self> {
        if headers.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Some(BodyFields::Form(UrlEncodedForm(body)))
        } else if media_type.eq_ignore_ascii_case("multipart/form-data") {
            Multipart::parse(content_type, body).map(BodyFields::Multipart)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            serde_json::from_slice(body).ok().map(BodyFields::Json)
        } else {
            None
        }
    }

    pub fn find(&self, name: &str) -> FieldValue<'a> {
        match self {
            BodyFields::Form(form) => form.find(name.as_bytes()),
            BodyFields::Multipart(multipart) => {
                let values = multipart.parts().iter().filter(|part| part.name == name.as_bytes());
                values
                    .map(|part| FieldValue::Single(Cow::Borrowed(part.value)))
                    .fold(FieldValue::Absent, FieldValue::merge)
            }
            BodyFields::Json(JsonMembers(members)) => {
                let values = members.iter().filter(|(member, _)| member == name).map(|(_, value)| {
                    match serde_json::from_str(value.get()) {
                        Ok(Value::String(text)) => FieldValue::Single(Cow::Owned(text.into_bytes())),
                        Ok(Value::Array(_) | Value::Object(_)) => FieldValue::Multiple,
                        Ok(Value::Null) => FieldValue::Absent,
                        _ => FieldValue::NotString,
                    }
                });
                values.fold(FieldValue::Absent, FieldValue::merge)
            }
        }
    }

    /// The body without the `unwanted` fields. `None` if it has none of them.
    pub fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        match self {
            BodyFields::Form(form) => form.without(unwanted),
            BodyFields::Multipart(multipart) => multipart.without(unwanted),
            BodyFields::Json(JsonMembers(members)) => {
                let kept: Vec<_> = members.iter().filter(|(name, _)| !unwanted(name.as_bytes())).cloned().collect();
                let removed = kept.len() < members.len();
                removed.then(|| serde_json::to_vec(&JsonMembers(kept)).ok()).flatten()
            }
        }
    }
}

#[cfg(test)]
mod tests;
