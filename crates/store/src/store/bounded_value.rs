//! Decodes a value of any type, of which only the beginning is kept if it is too large, and only the outer levels if it
//! is nested too deeply. So no value takes more memory than the limit even while it is decoded, and whatever an object
//! contains, a list with it can be decoded.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::object_size::{BYTES_PER_VALUE, MAX_LEVELS, NESTED_TOO_DEEPLY};

/// A value that is being decoded. The result of the decoding is `None` if the value itself is beyond the limit.
#[derive(Clone, Copy, Debug)]
pub struct BoundedValue<'s> {
    /// The size of what was decoded so far, counted like the size of an object in the store.
    size: &'s Cell<u64>,
    /// The size up to which values are kept.
    max: u64,
    /// The number of lists and objects around this value.
    level: usize,
}

impl<'s> BoundedValue<'s> {
    pub fn new(size: &'s Cell<u64>, max: u64) -> Self {
        BoundedValue { size, max, level: 0 }
    }

    /// The same for a value that is inside this number of lists and objects.
    pub fn at_level(self, level: usize) -> Self {
        BoundedValue { level, ..self }
    }

    /// The values in this list or object. None if they are nested too deeply: then, they are skipped, which takes no
    /// stack, unlike decoding them.
    fn inner(self) -> Option<Self> {
        let inner = BoundedValue { level: self.level + 1, ..self };
        if inner.level > MAX_LEVELS {
            self.size.set(NESTED_TOO_DEEPLY);
            return None;
        }
        Some(inner)
    }

    /// Counts a text or a value. Returns whether it is kept.
    fn admit(self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.size.set(self.size.get().saturating_add(bytes));
        self.size.get() <= self.max
    }

    fn admit_value(self, text_bytes: usize) -> bool {
        self.size.set(self.size.get().saturating_add(BYTES_PER_VALUE));
        self.admit(text_bytes)
    }

    fn scalar<E>(self, value: impl Into<Value>) -> Result<Option<Value>, E> {
        Ok(self.admit_value(0).then(|| value.into()))
    }
}

impl<'de> DeserializeSeed<'de> for BoundedValue<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedValue<'_> {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        self.scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.admit_value(value.len()).then(|| Value::from(value)))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        Ok(self.admit_value(value.len()).then(|| Value::from(value)))
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let is_kept = self.admit_value(0);
        let Some(inner) = self.inner() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inner)? {
            items.extend(item);
        }
        Ok(is_kept.then_some(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let is_kept = self.admit_value(0);
        let Some(inner) = self.inner() else {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            self.admit(name.len());
            if let Some(field) = object.next_value_seed(inner)? {
                fields.insert(name, field);
            }
        }
        Ok(is_kept.then_some(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::object_size;

    fn decode(text: &str, max: u64) -> (Option<Value>, u64) {
        let size = Cell::new(0);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = BoundedValue::new(&size, max).deserialize(&mut deserializer).unwrap();
        (value, size.get())
    }

    #[test]
    fn values_within_the_limit_are_complete() {
        let value = json!({"a": [1, -2, 2.5, true, null, "text"], "b": {"c": "é\n"}});
        assert_eq!(decode(&value.to_string(), u64::MAX), (Some(value.clone()), object_size(&value)));
        // The same without a text: kube buffers an event whose type comes after its object.
        let size = Cell::new(0);
        assert_eq!(BoundedValue::new(&size, u64::MAX).deserialize(&value).unwrap(), Some(value.clone()));
        assert_eq!(size.get(), object_size(&value));
    }

    #[test]
    fn only_the_outer_levels_of_deeper_values_are_kept() {
        // serde_json rejects 128 levels, and the stack has a limit, too.
        for levels in [MAX_LEVELS, MAX_LEVELS + 1, 1_000_000] {
            for (begin, end) in [("[", "]"), (r#"{"a":"#, "}")] {
                let text = format!(r#"{{"deep": {}1{}, "next": 2}}"#, begin.repeat(levels), end.repeat(levels));
                let (value, size) = decode(&text, u64::MAX);
                let value = value.unwrap();
                assert_eq!((&value["next"], size), (&json!(2), NESTED_TOO_DEEPLY), "{levels}");
                assert!(object_size(&value) < NESTED_TOO_DEEPLY);
            }
        }
        let levels = MAX_LEVELS - 1;
        let text = format!(r#"{{"deep": {}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let (value, size) = decode(&text, u64::MAX);
        assert_eq!((size, value.unwrap().to_string()), (32 * 65 + 4, text.replace(' ', "")));
    }

    #[test]
    fn only_the_beginning_of_larger_values_is_kept() {
        let value = json!({"first": "kept", "list": [1, 2, 3, 4, 5, 6], "last": "dropped"});
        let (kept, size) = decode(&value.to_string(), 150);
        assert_eq!(kept, Some(json!({"first": "kept", "list": [1]})));
        assert_eq!(size, object_size(&value), "the size is that of the whole value");
        assert_eq!(decode("[[[]]]", 10), (None, 96));
    }
}
