//! Fields that clients send in a query or in a body: finding one, and taking it out again without touching the rest.

use std::borrow::Cow;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri, header};
use indexmap::IndexMap;
use percent_encoding::percent_decode;
use serde_json::Value;
use serde_json::value::RawValue;

use super::multipart::Multipart;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    /// It is there, but as no text: `?name` without a value, or a number in JSON.
    NoText,
    One(Cow<'a, [u8]>),
    /// Several values, or a list.
    Many,
}

impl<'a> Found<'a> {
    pub fn of_header(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Found::Nothing,
            (Some(value), None) => Found::One(Cow::Borrowed(value.as_bytes())),
            _ => Found::Many,
        }
    }

    fn and(self, another: Found<'a>) -> Self {
        match (self, another) {
            (found, Found::Nothing) | (Found::Nothing, found) => found,
            _ => Found::Many,
        }
    }
}

/// Fields as a query or a form has them.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a>(pub &'a [u8]);

impl<'a> Form<'a> {
    pub fn find(self, name: &[u8]) -> Found<'a> {
        let values = self.pairs().filter(|pair| pair.name() == name).map(|pair| match pair.value() {
            Some(value) => Found::One(value),
            None => Found::NoText,
        });
        values.fold(Found::Nothing, Found::and)
    }

    /// Everything but the fields that are `unwanted`, each as the client wrote it. None if none of them is there.
    pub fn without(self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let wanted: Vec<&[u8]> = self.pairs().filter(|pair| !unwanted(&pair.name())).map(|pair| pair.written).collect();
        (wanted.len() < self.pairs().count()).then(|| wanted.join(&b'&'))
    }

    /// What each field is called and holds, decoded, in order. A field without `=` holds nothing.
    pub fn pairs(self) -> impl Iterator<Item = Pair<'a>> {
        // `a&&b` has an empty field, which stays where it is when another one goes.
        self.0.split(|byte| *byte == b'&').map(|written| Pair { written })
    }
}

/// One field of a form.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    written: &'a [u8],
}

impl<'a> Pair<'a> {
    pub fn name(self) -> Cow<'a, [u8]> {
        decode(self.parts().0)
    }

    pub fn value(self) -> Option<Cow<'a, [u8]>> {
        self.parts().1.map(decode)
    }

    fn parts(self) -> (&'a [u8], Option<&'a [u8]>) {
        match memchr::memchr(b'=', self.written) {
            Some(at) => (&self.written[..at], Some(&self.written[at + 1..])),
            None => (self.written, None),
        }
    }
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// Takes fields out of the query that goes upstream.
pub fn remove_from_query(head: &mut Parts, unwanted: impl Fn(&[u8]) -> bool) {
    let Some(rest) = head.uri.query().and_then(|query| Form(query.as_bytes()).without(unwanted)) else { return };
    let mut target = head.uri.path().as_bytes().to_vec();
    if !rest.is_empty() {
        target.push(b'?');
        target.extend(rest);
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    // Parts of a valid target, so this is one too.
    parts.path_and_query = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok();
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The fields of a body.
pub enum Fields<'a> {
    Form(Form<'a>),
    Multipart(Multipart<'a>),
    /// An object.
    Json(IndexMap<Cow<'a, str>, &'a RawValue>),
}

impl<'a> Fields<'a> {
    /// None if the body has no fields, or none that can be read.
    pub fn read(headers: &HeaderMap, body: &'a [u8]) -> Option<Self> {
        if headers.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let written = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = written.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Some(Fields::Form(Form(body)))
        } else if media_type.eq_ignore_ascii_case("multipart/form-data") {
            Multipart::read(written, body).map(Fields::Multipart)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            serde_json::from_slice(body).ok().map(Fields::Json)
        } else {
            None
        }
    }

    pub fn find(&self, name: &str) -> Found<'a> {
        match self {
            Fields::Form(form) => form.find(name.as_bytes()),
            Fields::Multipart(multipart) => {
                let values = multipart.parts().iter().filter(|part| part.name == name.as_bytes());
                values.map(|part| Found::One(Cow::Borrowed(part.value))).fold(Found::Nothing, Found::and)
            }
            Fields::Json(fields) => {
                let Some(value) = fields.get(name) else { return Found::Nothing };
                match serde_json::from_str(value.get()) {
                    Ok(Value::String(text)) => Found::One(Cow::Owned(text.into_bytes())),
                    Ok(Value::Array(_) | Value::Object(_)) => Found::Many,
                    Ok(Value::Null) => Found::Nothing,
                    _ => Found::NoText,
                }
            }
        }
    }

    /// The body without these fields. None if none of them is there.
    pub fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        match self {
            Fields::Form(form) => form.without(unwanted),
            Fields::Multipart(multipart) => multipart.without(unwanted),
            Fields::Json(fields) => {
                let wanted: IndexMap<_, _> = fields.iter().filter(|(name, _)| !unwanted(name.as_bytes())).collect();
                let removed = wanted.len() < fields.len();
                removed.then(|| serde_json::to_vec(&wanted).ok()).flatten()
            }
        }
    }
}

#[cfg(test)]
mod tests;
