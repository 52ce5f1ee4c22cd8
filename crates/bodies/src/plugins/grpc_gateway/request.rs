//! Makes the message of a call from the path, the query and the body of a request.

use bytes::Bytes;
use indexmap::IndexMap;
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

use super::routes::Segments;
use super::rule::{BodyField, PathField, Rule, field_path};
use crate::plugin_formats::grpc::reflect::prost::Message;
use crate::plugin_formats::grpc::reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use crate::plugin_formats::grpc::{MessageReader, frame};

impl Rule {
    /// The body of the call, at most `max_bytes` long. Fails with the message for the client.
    pub(super) fn encode_request(
        &self,
        segments: &Segments<'_>,
        query: Option<&str>,
        body: &[u8],
        denies_unknown: bool,
        max_bytes: usize,
    ) -> Result<Bytes, String> {
        let mut message = match &self.body {
            BodyField::Message if !body.trim_ascii().is_empty() => {
                self.reader.read(body).map_err(|error| format!("the body: {error}"))?
            }
            BodyField::Field(field) if !body.trim_ascii().is_empty() => {
                let value = self.reader.read_field(field, body).map_err(|error| format!("the body: {error}"))?;
                let mut message = DynamicMessage::new(self.input.clone());
                message.set_field(field, value);
                message
            }
            _ => DynamicMessage::new(self.input.clone()),
        };
        if !matches!(self.body, BodyField::Message)
            && let Some(query) = query
        {
            self.add_query(&mut message, query, denies_unknown)?;
        }
        // They take precedence over the same fields of the body.
        for variable in &self.variables {
            let text = variable.text(segments).ok_or("the path is not UTF-8")?;
            set(&mut message, &variable.fields, vec![text]).map_err(|error| format!("the path: {error}"))?;
        }
        let encoded = message.encode_to_vec();
        if encoded.len() > max_bytes {
            return Err(format!("the message is larger than {max_bytes} bytes"));
        }
        Ok(frame(0, &encoded))
    }

    fn add_query(&self, message: &mut DynamicMessage, query: &str, denies_unknown: bool) -> Result<(), String> {
        let mut parameters: IndexMap<String, Vec<String>> = IndexMap::new();
        for (count, parameter) in query.split('&').filter(|parameter| !parameter.is_empty()).enumerate() {
            if count == MAX_PARAMETERS {
                return Err(format!("the query has more than {MAX_PARAMETERS} parameters"));
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (Some(name), Some(value)) = (query_text(name), query_text(value)) else {
                return Err("the query is not UTF-8".to_owned());
            };
            parameters.entry(name).or_default().push(value);
        }
        for (name, values) in parameters {
            let Some(fields) = field_path(&self.input, &name).filter(|fields| !self.is_bound(fields)) else {
                if denies_unknown {
                    return Err(format!("the query: unknown parameter {name:?}"));
                }
                continue;
            };
            set(message, &fields, values).map_err(|error| format!("the parameter {name:?}: {error}"))?;
        }
        Ok(())
    }

    /// Whether the path or the body has the field.
    fn is_bound(&self, fields: &[FieldDescriptor]) -> bool {
        let is_body = matches!(&self.body, BodyField::Field(body) if fields.first() == Some(body));
        is_body || self.variables.iter().any(|variable| variable.fields == fields)
    }
}

impl PathField {
    /// The value of the variable. `None` if it is not UTF-8.
    fn text(&self, segments: &Segments<'_>) -> Option<String> {
        let bound = segments.get(self.start..self.end.unwrap_or(segments.len())).unwrap_or_default();
        let mut text = String::new();
        for (index, segment) in bound.iter().enumerate() {
            if index > 0 {
                text.push('/');
            }
            if self.is_path {
                // An escaped slash is a part of its segment, and must not look like a separator.
                let mut pieces = segment.split_inclusive("%2F").flat_map(|piece| piece.split_inclusive("%2f"));
                pieces.try_for_each(|piece| {
                    let (plain, slash) = match piece.strip_suffix("%2F").or_else(|| piece.strip_suffix("%2f")) {
                        Some(plain) => (plain, "%2F"),
                        None => (piece, ""),
                    };
                    text.push_str(&percent_decode_str(plain).decode_utf8().ok()?);
                    text.push_str(slash);
                    Some(())
                })?;
            } else {
                text.push_str(&percent_decode_str(segment).decode_utf8().ok()?);
            }
        }
        Some(text)
    }
}

fn query_text(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

/// Sets a field to texts of the path or the query. Of several, a field that is not repeated gets the last one.
fn set(message: &mut DynamicMessage, fields: &[FieldDescriptor], mut texts: Vec<String>) -> Result<(), String> {
    let (last, parents) = fields.split_last().ok_or("there is no field")?;
    if last.is_map() {
        return Err("a map cannot be set".to_owned());
    }
    let json = if last.is_list() {
        Json::Array(texts.into_iter().map(|text| json_of(&last.kind(), text)).collect())
    } else {
        json_of(&last.kind(), texts.pop().ok_or("there is no value")?)
    };
    let reader = MessageReader::new(last.parent_message().clone(), true);
    let value = reader.field_from(last, json).map_err(|error| error.to_string())?;
    let mut target = message;
    for field in parents {
        target = match target.get_field_mut(field) {
            Value::Message(inner) => inner,
            _ => return Err("a field on the way is not a message".to_owned()),
        };
    }
    target.set_field(last, value);
    Ok(())
}

/// The JSON form of a value. Numbers may be texts in JSON, too.
fn json_of(kind: &Kind, text: String) -> Json {
    let is_bool = match kind {
        Kind::Bool => true,
        Kind::Message(message) => message.full_name() == "google.protobuf.BoolValue",
        _ => false,
    };
    match (kind, text.as_str()) {
        (_, "true" | "1") if is_bool => Json::Bool(true),
        (_, "false" | "0") if is_bool => Json::Bool(false),
        (Kind::Enum(_), number) => number.parse::<i32>().map_or_else(|_| Json::String(text.clone()), Json::from),
        _ => Json::String(text),
    }
}

const MAX_PARAMETERS: usize = 1000;
