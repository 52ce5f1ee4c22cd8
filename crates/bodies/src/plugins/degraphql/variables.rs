//! The variables of an operation, from the path, the query and the body of a request.

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Number, Value};

use super::routes::RoutePattern;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_formats::graphql::{TypeReference, VariableDefinition};
use crate::plugin_kit::request_json;

/// A variable of the operation.
#[derive(Debug)]
pub(super) struct RouteVariable {
    name: Box<str>,
    kind: VariableKind,
    /// The segment of the path that has its value.
    segment: Option<usize>,
}

/// What a text becomes. A value that a text cannot become stays a text, which the server rejects.
#[derive(Debug, PartialEq, Eq)]
enum VariableKind {
    Text,
    Integer,
    Number,
    Boolean,
    List(Box<VariableKind>),
}

impl RouteVariable {
    pub(super) fn new(definition: &VariableDefinition<'_>, pattern: &RoutePattern) -> Self {
        let segment = pattern.position(definition.name);
        RouteVariable { name: definition.name.into(), kind: VariableKind::of(&definition.kind), segment }
    }
}

impl VariableKind {
    fn of(kind: &TypeReference<'_>) -> VariableKind {
        match kind {
            TypeReference::Named("Int") => VariableKind::Integer,
            TypeReference::Named("Float") => VariableKind::Number,
            TypeReference::Named("Boolean") => VariableKind::Boolean,
            TypeReference::Named(_) => VariableKind::Text,
            TypeReference::NonNull(kind) => VariableKind::of(kind),
            TypeReference::List(element) => VariableKind::List(Box::new(VariableKind::of(element))),
        }
    }

    /// The value of a text.
    fn value(&self, text: String) -> Value {
        let parsed = match self {
            VariableKind::Text => None,
            VariableKind::Integer => text.parse::<i64>().ok().map(Value::from),
            VariableKind::Number => {
                text.parse::<f64>().ok().filter(|number| number.is_finite()).and_then(Number::from_f64).map(Value::from)
            }
            VariableKind::Boolean => text.parse::<bool>().ok().map(Value::from),
            VariableKind::List(element) => return Value::Array(vec![element.value(text)]),
        };
        parsed.unwrap_or(Value::String(text))
    }

    /// The value of what a query or a form has: a text, `true` for a name without a value, or a list of those.
    fn converted(&self, value: Value) -> Value {
        match (self, value) {
            (_, Value::String(text)) => self.value(text),
            (VariableKind::List(element), Value::Array(values)) => {
                Value::Array(values.into_iter().map(|value| element.converted(value)).collect())
            }
            (_, other) => other,
        }
    }
}

/// The values of the variables that the request has. `None` if a segment of the path is not UTF-8.
pub(super) fn collect(
    variables: &[RouteVariable],
    segments: &[&str],
    query: Option<&str>,
    mut body: Option<Map<String, Value>>,
    is_body_json: bool,
) -> Option<Map<String, Value>> {
    let mut from_query = query.filter(|_| !variables.is_empty()).map(request_json::query).unwrap_or_default();
    let mut values = Map::new();
    for RouteVariable { name, kind, segment } in variables {
        let value = if let Some(segment) = segment.and_then(|index| segments.get(index)) {
            Some(kind.value(percent_decode_str(segment).decode_utf8().ok()?.into_owned()))
        } else if let Some(value) = from_query.remove(&**name) {
            Some(kind.converted(value))
        } else {
            let value = body.as_mut().and_then(|body| body.remove(&**name));
            // JSON has types of its own.
            value.map(|value| if is_body_json { value } else { kind.converted(value) })
        };
        values.extend(value.map(|value| (name.to_string(), value)));
    }
    Some(values)
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    MediaType::of(headers).is_some_and(|media_type| media_type.is_json())
}
