//! Messages as JSON, in the mapping of Protocol Buffers.

use std::collections::{BTreeMap, HashSet};
use std::io;

use bytes::Bytes;
use http::HeaderMap;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use prost_reflect::{DeserializeOptions, Value};
use serde::Deserializer;
use serde_json::value::RawValue;

use super::frames::MessageFrames;
use super::status::CallStatus;
use crate::plugin_api::body_filter::ConvertedBody;

/// Reads messages of one type from JSON.
#[derive(Clone, Debug)]
pub struct MessageReader {
    message: MessageDescriptor,
    options: DeserializeOptions,
}

impl MessageReader {
    pub fn new(message: MessageDescriptor, denies_unknown_fields: bool) -> MessageReader {
        MessageReader { message, options: DeserializeOptions::new().deny_unknown_fields(denies_unknown_fields) }
    }

    /// The message in a JSON text. The JSON parser limits the depth.
    pub fn read(&self, json: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let message = self.read_value(&mut deserializer)?;
        deserializer.end()?;
        Ok(message)
    }

    fn read_value<'d, D: Deserializer<'d>>(&self, deserializer: D) -> Result<DynamicMessage, D::Error> {
        DynamicMessage::deserialize_with_options(self.message.clone(), deserializer, &self.options)
    }

    /// The value of one field, which is the JSON text of the field alone.
    pub fn read_field(&self, field: &FieldDescriptor, json: &[u8]) -> Result<Value, serde_json::Error> {
        let name = serde_json::to_string(field.json_name())?;
        // Parsed by itself first, so that the text cannot end the object that it is put into.
        let json: &RawValue = serde_json::from_slice(json)?;
        let message = self.read(format!("{{{name}:{json}}}").as_bytes())?;
        Ok(message.get_field(field).into_owned())
    }

    /// Like [`MessageReader::read_field`], for a value that is already parsed.
    pub fn field_from(&self, field: &FieldDescriptor, value: serde_json::Value) -> Result<Value, serde_json::Error> {
        let object = serde_json::Map::from_iter([(field.json_name().to_owned(), value)]);
        let message = self.read_value(serde_json::Value::Object(object))?;
        Ok(message.get_field(field).into_owned())
    }
}

/// The largest JSON of messages of at most this size. Names, escapes and bytes make it larger than the message, and
/// fields with their default values, which take no bytes in messages, add to it also if messages are small.
pub fn json_limit(max_message_bytes: usize) -> usize {
    max_message_bytes.saturating_mul(4).max(MIN_JSON_LIMIT)
}

/// Writes messages of one type as JSON.
#[derive(Clone, Debug)]
pub struct MessageWriter {
    message: MessageDescriptor,
    /// The field that is written instead of the message, its name, and its JSON if it is not set.
    part: Option<(String, Box<str>)>,
    options: SerializeOptions,
    uses_json_names: bool,
    max_bytes: usize,
    may_contain_any: bool,
}

impl MessageWriter {
    /// Writes JSON of at most `max_bytes` bytes, with the names of fields in the definition of the message.
    pub fn new(message: MessageDescriptor, writes_defaults: bool, max_bytes: usize) -> MessageWriter {
        let may_contain_any = may_contain_any(&message);
        let options = SerializeOptions::new().skip_default_fields(!writes_defaults).use_proto_field_name(true);
        MessageWriter { message, part: None, options, uses_json_names: false, max_bytes, may_contain_any }
    }

    /// Writes the names that the JSON mapping of Protocol Buffers has by default, such as `unitPrice`.
    #[must_use]
    pub fn with_json_names(self) -> MessageWriter {
        let options = self.options.use_proto_field_name(false);
        MessageWriter { options, uses_json_names: true, ..self }
    }

    /// Writes this field instead of the whole message.
    #[must_use]
    pub fn with_part(mut self, field: &FieldDescriptor) -> MessageWriter {
        let name = if self.uses_json_names { field.json_name() } else { field.name() };
        let empty = match field.kind() {
            _ if field.is_list() => "[]".to_owned(),
            _ if field.is_map() => "{}".to_owned(),
            Kind::Message(_) => "null".to_owned(),
            _ => {
                let options = self.options.clone().skip_default_fields(false);
                let empty = DynamicMessage::new(self.message.clone());
                let written = empty.serialize_with_options(serde_json::value::Serializer, &options);
                let value = written.ok().and_then(|mut object| object.get_mut(name).map(|it| it.take()));
                value.map_or_else(|| "null".to_owned(), |value| value.to_string())
            }
        };
        self.part = Some((name.to_owned(), empty.into()));
        self
    }

    pub fn definitions(&self) -> &DescriptorPool {
        self.message.parent_pool()
    }

    /// The JSON of an encoded message.
    pub fn write(&self, encoded: &[u8]) -> Result<Vec<u8>, CallStatus> {
        let internal = |what: &str| CallStatus::new(CallStatus::INTERNAL, format!("the message of the backend {what}"));
        let message = DynamicMessage::decode(self.message.clone(), encoded)
            .map_err(|_| internal("does not have the type of its method"))?;
        if self.may_contain_any && !is_shallow(&message, MAX_ANY_DEPTH) {
            return Err(internal("has Any nested too deep"));
        }
        let mut output = LimitedOutput { bytes: Vec::with_capacity(encoded.len()), max_bytes: self.max_bytes };
        let mut serializer = serde_json::Serializer::new(&mut output);
        let written = message.serialize_with_options(&mut serializer, &self.options);
        written.map_err(|error| match error.is_io() {
            true => internal(&format!("has more than {} bytes as JSON", self.max_bytes)),
            false => internal("has no JSON form"),
        })?;
        let Some((name, empty)) = &self.part else { return Ok(output.bytes) };
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_slice(&output.bytes).map_err(|_| internal("is not an object"))?;
        Ok(fields.get(name).map_or(&**empty, |value| value.get()).as_bytes().to_vec())
    }
}

/// The JSON response to a call that has one response message: the message, or the status if the call has failed. The
/// head has the status if the response consists of trailers only.
pub fn convert_unary(
    writer: &MessageWriter,
    max_bytes: usize,
    head: Option<CallStatus>,
    body: &[u8],
    trailers: Option<&HeaderMap>,
) -> ConvertedBody {
    let status = trailers.and_then(CallStatus::from_fields).or(head).unwrap_or_else(CallStatus::missing);
    let written = match status.is_ok() {
        false => Err(status),
        true => match MessageFrames::split(body, max_bytes) {
            Ok(messages) => match &messages[..] {
                [message] => writer.write(message),
                messages => {
                    let message = format!("the backend has sent {} messages instead of one", messages.len());
                    Err(CallStatus::new(CallStatus::INTERNAL, message))
                }
            },
            Err(error) => Err(CallStatus::new(CallStatus::INTERNAL, format!("in the backend's response, {error}"))),
        },
    };
    match written {
        Ok(json) => ConvertedBody { status: http::StatusCode::OK, body: json.into() },
        Err(status) => {
            let json = status.to_json(Some(writer.definitions())).to_string();
            ConvertedBody { status: status.http_status(), body: Bytes::from(json) }
        }
    }
}

/// Whether messages of this type can contain a `google.protobuf.Any`, and therefore any other message.
pub(super) fn may_contain_any(message: &MessageDescriptor) -> bool {
    let (mut found, mut rest) = (HashSet::new(), vec![message.clone()]);
    while let Some(message) = rest.pop() {
        if message.full_name() == ANY {
            return true;
        }
        if !found.insert(message.full_name().to_owned()) {
            continue;
        }
        let extensions: Vec<Kind> = message.extensions().map(|extension| extension.kind()).collect();
        let kinds = message.fields().map(|field| field.kind()).chain(extensions);
        rest.extend(kinds.filter_map(|kind| kind.as_message().cloned()));
    }
    false
}

/// Whether `Any` is nested at most this deep. The decoder limits the depth of each of them, but not of all together.
fn is_shallow(message: &DynamicMessage, depth: usize) -> bool {
    use prost_reflect::ReflectMessage;

    let descriptor = message.descriptor();
    if descriptor.full_name() == ANY {
        let Some(depth) = depth.checked_sub(1) else { return false };
        let text = message.get_field_by_name("type_url");
        let name = text.as_ref().and_then(|text| text.as_str()?.rsplit('/').next().map(str::to_owned));
        let inner = name.and_then(|name| descriptor.parent_pool().get_message_by_name(&name));
        let value = message.get_field_by_name("value");
        // What cannot be decoded is not written either.
        return match (inner, value.as_ref().and_then(|value| value.as_bytes())) {
            (Some(inner), Some(value)) => {
                DynamicMessage::decode(inner, &**value).map_or(true, |inner| is_shallow(&inner, depth))
            }
            _ => true,
        };
    }
    let is_shallow_value = |value: &Value| value.as_message().is_none_or(|message| is_shallow(message, depth));
    let is_shallow_field = |value: &Value| match value {
        Value::List(values) => values.iter().all(is_shallow_value),
        Value::Map(entries) => entries.values().all(is_shallow_value),
        value => is_shallow_value(value),
    };
    message.fields().all(|(_, value)| is_shallow_field(value))
        && message.extensions().all(|(_, value)| is_shallow_field(value))
}

struct LimitedOutput {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for LimitedOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > self.max_bytes {
            return Err(io::Error::other("the JSON is too large"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MIN_JSON_LIMIT: usize = 1 << 20;

const ANY: &str = "google.protobuf.Any";

const MAX_ANY_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use prost_reflect::prost::Message;
    use serde_json::json;

    use super::*;
    use crate::plugin_formats::grpc::{Definitions, frame};

    const PROTO: &str = r#"
        syntax = "proto3"; package a;
        import "google/protobuf/any.proto"; import "google/protobuf/timestamp.proto";
        message M {
          int64 big = 1; repeated string names = 2; google.protobuf.Timestamp at = 3; Color color = 4; M inner = 5;
        }
        message Holder { google.protobuf.Any any = 1; }
        enum Color { UNKNOWN = 0; RED = 1; }
    "#;

    fn message(name: &str) -> MessageDescriptor {
        let none = BTreeMap::new();
        let pool = Definitions { proto: Some(PROTO), imports: &none, descriptor_set: None }.load().unwrap().unwrap();
        pool.get_message_by_name(name).unwrap()
    }

    fn writer(name: &str) -> MessageWriter {
        MessageWriter::new(message(name), false, 1000)
    }

    #[test]
    fn json_becomes_a_message_and_json_again() {
        let json = br#"{"big":"9007199254740993","names":["a"],"at":"2026-01-02T12:00:00Z","color":"RED","inner":{}}"#;
        let reader = MessageReader::new(message("a.M"), false);
        let encoded = reader.read(json).unwrap().encode_to_vec();
        assert_eq!(writer("a.M").write(&encoded).unwrap(), json);
        assert!(reader.read(br#"{"unknown":1}"#).is_ok());
        // A name that an enumeration does not have is like an unknown field.
        assert!(reader.read(br#"{"color":"BLUE"}"#).is_ok());
        for unknown in [&br#"{"unknown":1}"#[..], br#"{"color":"BLUE"}"#] {
            assert!(MessageReader::new(message("a.M"), true).read(unknown).is_err());
        }
        let deep = format!("{}{}", r#"{"inner":"#.repeat(5000), "}".repeat(5000));
        for invalid in ["", "[]", "{} {}", r#"{"big":"x"}"#, r#"{"at":1}"#, &deep, "{\"a\":\"\u{7f}"] {
            assert!(reader.read(invalid.as_bytes()).is_err(), "{invalid:.20}");
        }
        assert!(reader.read(b"{\"names\":[\"\xff\"]}").is_err(), "invalid UTF-8");
    }

    #[test]
    fn a_part_is_one_field() {
        let descriptor = message("a.M");
        let reader = MessageReader::new(descriptor.clone(), false);
        let encoded = reader.read(br#"{"names":["a","b"],"big":3}"#).unwrap().encode_to_vec();
        for (field, set, unset) in [
            ("names", r#"["a","b"]"#, "[]"),
            ("big", r#""3""#, r#""0""#),
            ("inner", "null", "null"),
            ("color", r#""UNKNOWN""#, r#""UNKNOWN""#),
        ] {
            let writer = writer("a.M").with_part(&descriptor.get_field_by_name(field).unwrap());
            assert_eq!(String::from_utf8(writer.write(&encoded).unwrap()).unwrap(), set);
            assert_eq!(String::from_utf8(writer.write(b"").unwrap()).unwrap(), unset);
        }
        let names = descriptor.get_field_by_name("names").unwrap();
        assert_eq!(reader.read_field(&names, br#"["a"]"#).unwrap().as_list().unwrap().len(), 1);
        assert!(reader.read_field(&names, br#"[],"big":3"#).is_err());
        assert!(reader.field_from(&names, json!(3)).is_err());
    }

    #[test]
    fn messages_of_backends_are_limited() {
        assert_eq!(writer("a.M").write(&[0xff]).unwrap_err().code, CallStatus::INTERNAL);
        // A name of 200 control characters, each of which has six in JSON.
        let long = [&[0x12, 200, 1][..], &[1; 200]].concat();
        let error = writer("a.M").write(&long).unwrap_err();
        assert_eq!((error.code, error.message.contains("more than 1000 bytes as JSON")), (CallStatus::INTERNAL, true));
        // Messages without bytes have fields with their default values, whatever their limit is.
        let writer_of_defaults = MessageWriter::new(message("a.M"), true, json_limit(1));
        assert!(writer_of_defaults.write(b"").unwrap().starts_with(br#"{"big":"0","names":[]"#));
        assert_eq!([json_limit(1 << 20), json_limit(usize::MAX)], [4 << 20, usize::MAX]);
        let nested = |depth| {
            let mut encoded = Vec::new();
            for _ in 0..depth {
                let any = prost_reflect::prost_types::Any { type_url: "x/google.protobuf.Any".into(), value: encoded };
                encoded = any.encode_to_vec();
            }
            let mut holder = vec![0x0a];
            prost_reflect::prost::encoding::encode_varint(encoded.len() as u64, &mut holder);
            [holder, encoded].concat()
        };
        assert!(writer("a.Holder").write(&nested(2000)).unwrap_err().message.contains("nested"));
        assert!(!writer("a.M").may_contain_any && writer("a.Holder").may_contain_any);
    }

    #[test]
    fn a_call_becomes_one_json_response() {
        let status = |code: &'static str| HeaderMap::from_iter([(CallStatus::STATUS_FIELD, code.parse().unwrap())]);
        let message = frame(0, &[8, 1]);
        let two = [message.clone(), message.clone()].concat();
        let ok = Some(CallStatus::new(0, ""));
        for (head, body, trailers, expected) in [
            (None, &message[..], Some(status("0")), 200),
            (ok.clone(), &message, None, 200),
            (ok.clone(), &message, Some(status("5")), 404),
            (None, &message, Some(status("16")), 401),
            (None, &message, None, 500),
            (None, &message[..6], Some(status("0")), 500),
            (None, &two, Some(status("0")), 500),
            (None, b"", Some(status("0")), 500),
            (Some(CallStatus::new(14, "")), b"", None, 503),
        ] {
            let converted = convert_unary(&writer("a.M"), 1000, head, body, trailers.as_ref());
            assert_eq!(converted.status, expected, "{converted:?}");
        }
    }
}
