//! Values of parameters: how a style writes arrays and objects into paths, queries, header fields and cookies
//! (`OpenAPI` 3.1, section 4.8.12.2).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::shape::{MemberShapes, Primitives, Shape};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Matrix,
    Label,
    Form,
    Simple,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

impl Style {
    pub fn find(name: &str) -> Option<Style> {
        Some(match name {
            "matrix" => Style::Matrix,
            "label" => Style::Label,
            "form" => Style::Form,
            "simple" => Style::Simple,
            "spaceDelimited" => Style::SpaceDelimited,
            "pipeDelimited" => Style::PipeDelimited,
            "deepObject" => Style::DeepObject,
            _ => return None,
        })
    }
}

/// How the value of a parameter is written.
#[derive(Clone, Debug)]
pub struct ParameterForm {
    pub name: String,
    pub style: Style,
    pub explode: bool,
    pub shape: Shape,
}

/// The fields of a query or of cookies, decoded, in order.
pub type ParameterFields<'f> = [(Cow<'f, str>, Cow<'f, str>)];

/// The most fields of a query or of cookies, items and members that are read. A text with more is not read at all: an
/// endpoint would get the rest unchecked.
pub const MAX_PARTS: usize = 1000;

/// The fields of a query. `None` if it has too many, or a field is not UTF-8.
pub fn query_fields(query: &str) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    let fields = query.split('&').filter(|field| !field.is_empty());
    let fields: Option<Vec<_>> = fields
        .take(MAX_PARTS + 1)
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            Some((decode(name, true)?, decode(value, true)?))
        })
        .collect();
    fields.filter(|fields| fields.len() <= MAX_PARTS)
}

/// The fields of cookies, with the spaces around them that endpoints ignore. `None` if they are too many, or not UTF-8.
pub fn cookie_fields(headers: &HeaderMap) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    let mut fields = Vec::new();
    for line in headers.get_all(COOKIE) {
        for pair in std::str::from_utf8(line.as_bytes()).ok()?.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            fields.push((Cow::Borrowed(trim(name)), Cow::Borrowed(trim(value))));
        }
    }
    Some(fields).filter(|fields| fields.len() <= MAX_PARTS)
}

/// Without the spaces of HTTP. Others are a part of what endpoints read.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Text without escapes. `None` if it is not UTF-8.
pub fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if plus_is_space && text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?.into_owned();
        return Some(Cow::Owned(decoded));
    }
    percent_decode(text.as_bytes()).decode_utf8().ok()
}

impl ParameterForm {
    /// The values that a text in a path or header field may stand for. The text of a path has escapes. Empty if the
    /// text does not have the form of the style.
    pub fn values_of_text(&self, text: &str, has_escapes: bool) -> Vec<Value> {
        let decoded = |part: &str| match has_escapes {
            true => decode(part, false).map(Cow::into_owned),
            false => Some(part.to_owned()),
        };
        let (text, delimiter) = match self.style {
            Style::Label => match text.strip_prefix('.') {
                Some(text) => (text, if self.explode { '.' } else { ',' }),
                None => return Vec::new(),
            },
            Style::Matrix => return self.values_of_matrix(text, &decoded),
            Style::PipeDelimited => (text, '|'),
            Style::SpaceDelimited => (text, ' '),
            Style::Form | Style::Simple | Style::DeepObject => (text, ','),
        };
        let parts = || divide(text, delimiter)?.into_iter().map(decoded).collect::<Option<Vec<_>>>();
        let trimmed = || {
            // In header fields, spaces may follow commas.
            let parts = parts()?;
            Some(if has_escapes { parts } else { parts.into_iter().map(|part| part.trim().to_owned()).collect() })
        };
        let mut values = Vec::new();
        if let Some(items) = self.shape.items
            && let Some(parts) = trimmed()
        {
            values.push(array(items, parts.iter().map(String::as_str).filter(|_| !text.is_empty())));
        }
        if let Some(members) = &self.shape.members
            && let Some(parts) = trimmed()
        {
            values.extend(if self.explode { assignments(members, &parts) } else { alternating(members, &parts) });
        }
        if let Some(text) = decoded(text).filter(|_| self.allows_primitive()) {
            values.extend(self.shape.primitives.values(&text));
        }
        values
    }

    fn values_of_matrix(&self, text: &str, decoded: &impl Fn(&str) -> Option<String>) -> Vec<Value> {
        let Some(text) = text.strip_prefix(';') else { return Vec::new() };
        let Some(pieces) = divide(text, ';') else { return Vec::new() };
        let mut pairs = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let Some(name) = decoded(name) else { return Vec::new() };
            pairs.push((name, value));
        }
        let is_own = pairs.iter().all(|(name, _)| *name == self.name);
        let mut values = Vec::new();
        if let Some(items) = self.shape.items.filter(|_| is_own) {
            let delimited = pairs.iter().map(|(_, value)| match self.explode {
                true => Some(vec![*value]),
                false => divide(value, ','),
            });
            let delimited: Option<Vec<Vec<&str>>> = delimited.collect();
            let parts: Option<Vec<_>> =
                delimited.and_then(|delimited| delimited.into_iter().flatten().map(decoded).collect());
            values.extend(parts.map(|parts| array(items, parts.iter().map(String::as_str))));
        }
        if let Some(members) = &self.shape.members {
            if self.explode {
                let fields = pairs.iter().map(|(name, value)| Some((name.clone(), decoded(value)?)));
                let fields: Option<Vec<_>> = fields.collect();
                values.extend(
                    fields.map(|fields| {
                        object(members, fields.iter().map(|(name, value)| (name.as_str(), value.as_str())))
                    }),
                );
            } else if let ([(_, value)], true) = (pairs.as_slice(), is_own) {
                let parts = divide(value, ',');
                let parts: Option<Vec<_>> = parts.and_then(|parts| parts.into_iter().map(decoded).collect());
                values.extend(parts.and_then(|parts| alternating(members, &parts)));
            }
        }
        if let ([(_, value)], true) = (pairs.as_slice(), is_own && self.allows_primitive())
            && let Some(text) = decoded(value)
        {
            values.extend(self.shape.primitives.values(&text));
        }
        values
    }

    fn allows_primitive(&self) -> bool {
        !self.shape.primitives.is_none() || self.shape.items.is_none() && self.shape.members.is_none()
    }

    /// The values that the fields of a query or of cookies may stand for. `None` if the parameter is absent. `declared`
    /// tells whether a field belongs to another parameter.
    pub fn values_of_fields(
        &self,
        fields: &ParameterFields<'_>,
        declared: &dyn Fn(&str) -> bool,
    ) -> Option<Vec<Value>> {
        let own: Vec<&str> =
            fields.iter().filter(|(name, _)| *name == *self.name).map(|(_, value)| value.as_ref()).collect();
        let mut values = Vec::new();
        if let Some(members) = &self.shape.members {
            if self.style == Style::DeepObject {
                let found: Vec<_> = fields
                    .iter()
                    .filter_map(|(name, value)| {
                        let member = name.strip_prefix(self.name.as_str())?.strip_prefix('[')?.strip_suffix(']')?;
                        Some((member, value.as_ref()))
                    })
                    .collect();
                // A field without brackets is none of the style, but an endpoint may read it in place of the others.
                if !found.is_empty() && own.is_empty() {
                    values.push(object(members, found.into_iter()));
                }
            } else if self.explode {
                let is_read = |name: &str| members.named.contains_key(name) || name == self.name || !declared(name);
                let found: Vec<_> = fields
                    .iter()
                    .filter(|(name, _)| is_read(name))
                    .map(|(name, value)| (name.as_ref(), value.as_ref()))
                    .collect();
                if !found.is_empty() {
                    values.push(object(members, found.into_iter()));
                }
            } else if let [text] = own.as_slice() {
                let parts = self.split(text).map(|parts| parts.into_iter().map(str::to_owned).collect::<Vec<_>>());
                values.extend(parts.and_then(|parts| alternating(members, &parts)));
            }
        }
        if own.is_empty() {
            return (!values.is_empty()).then_some(values);
        }
        if let Some(items) = self.shape.items {
            let parts: Option<Vec<&str>> = match own.as_slice() {
                [""] if !self.explode => Some(Vec::new()),
                [text] if !self.explode => self.split(text),
                several => Some(several.to_vec()),
            };
            values.extend(parts.map(|parts| array(items, parts.into_iter())));
        }
        if let ([text], true) = (own.as_slice(), self.allows_primitive()) {
            values.extend(self.shape.primitives.values(text));
        }
        Some(values)
    }

    fn split<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        let delimiter = match self.style {
            Style::SpaceDelimited => ' ',
            Style::PipeDelimited => '|',
            _ => ',',
        };
        divide(text, delimiter)
    }
}

/// The parts between delimiters. `None` if they are too many.
fn divide(text: &str, delimiter: char) -> Option<Vec<&str>> {
    let parts: Vec<&str> = text.split(delimiter).take(MAX_PARTS + 1).collect();
    (parts.len() <= MAX_PARTS).then_some(parts)
}

fn array<'t>(items: Primitives, parts: impl Iterator<Item = &'t str>) -> Value {
    parts.map(|part| items.value(part)).collect()
}

/// `name=value` in each part. `None` if a part has another form.
fn assignments(members: &MemberShapes, parts: &[String]) -> Option<Value> {
    let pairs: Option<Vec<_>> = parts.iter().map(|part| part.split_once('=')).collect();
    Some(object(members, pairs?.into_iter()))
}

/// A name, its value, the next name and so on. `None` if the last name has no value.
fn alternating(members: &MemberShapes, parts: &[String]) -> Option<Value> {
    let (pairs, rest) = parts.as_chunks::<2>();
    rest.is_empty().then(|| object(members, pairs.iter().map(|[name, value]| (name.as_str(), value.as_str()))))
}

/// An object of members, of which one that occurs several times is an array.
pub fn object<'t>(members: &MemberShapes, pairs: impl Iterator<Item = (&'t str, &'t str)>) -> Value {
    let mut found: Map<String, Value> = Map::new();
    for (name, text) in pairs {
        let shape = members.named.get(name);
        let is_array = shape.is_some_and(|shape| shape.is_array);
        let value = match shape {
            Some(shape) if is_array => shape.items.value(text),
            Some(shape) => shape.primitives.value(text),
            None => members.others.value(text),
        };
        match found.get_mut(name) {
            Some(Value::Array(items)) => items.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                found.insert(name.to_owned(), if is_array { Value::Array(vec![value]) } else { value });
            }
        }
    }
    Value::Object(found)
}
