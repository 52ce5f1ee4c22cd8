//! JSON whose objects have each name once. Parsers disagree on which of several members counts (RFC 8259, section 4),
//! so what is checked before it is forwarded would not be what the backend reads.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// An error also if a name is repeated in an object.
pub fn from_slice(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(json).map(|UniqueNames(value)| value)
}

/// The same for text.
pub fn from_str(json: &str) -> serde_json::Result<Value> {
    serde_json::from_str(json).map(|UniqueNames(value)| value)
}

/// A JSON value whose objects have each name once.
struct UniqueNames(Value);

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ValueVisitor.deserialize(deserializer).map(UniqueNames)
    }
}

#[derive(Clone, Copy)]
struct ValueVisitor;

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if values.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a name is repeated"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_json_and_repeated_names_are_errors() {
        let text = r#"{"a": [1, -2, 1.5, 18446744073709551615, true, null, "\u00e9"], "b": {"a": {}}}"#;
        assert_eq!(from_str(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(from_slice(b"[]").unwrap(), json!([]));
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"role": "admin", "r\u006fle": "user"}"#,
            r#"[{"b": {"a": 1, "c": 2, "a": 3}}]"#,
            "{",
            "1 2",
            &"[".repeat(1000),
        ] {
            assert!(from_str(text).is_err(), "{text}");
        }
    }
}
