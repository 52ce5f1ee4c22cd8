//! Decodes parts of a plugin's configuration from Secrets. A short text can become many values, and several plugins may
//! use one Secret, so the size of what is decoded for a plugin is limited, as if it were in the plugin object.

use std::cell::Cell;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::store::{BoundedValue, MAX_LEVELS, NESTED_TOO_DEEPLY};

/// Decodes the values for one plugin.
pub(super) struct SecretValues {
    /// The size of all values so far, counted like that of an object.
    size: Cell<u64>,
    max_size: u64,
}

/// Why a value of a Secret is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretValueError {
    Malformed,
    /// The values for the plugin are larger than an object may be.
    TooLarge,
}

impl SecretValues {
    pub(super) fn new(max_size: u64) -> Self {
        SecretValues { size: Cell::new(0), max_size }
    }

    /// A value in JSON.
    pub(super) fn json(&self, text: &[u8]) -> Result<Value, SecretValueError> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = BoundedValue::new(&self.size, self.max_size).deserialize(&mut deserializer);
        let is_whole = value.is_ok() && deserializer.end().is_ok();
        self.checked(value.ok().filter(|_| is_whole))
    }

    /// Text, which is used as it is.
    pub(super) fn text(&self, text: &[u8]) -> Result<String, SecretValueError> {
        let text = std::str::from_utf8(text).map_err(|_| SecretValueError::Malformed)?;
        self.size.set(self.size.get().saturating_add(text.len() as u64));
        if self.size.get() <= self.max_size { Ok(text.to_owned()) } else { Err(SecretValueError::TooLarge) }
    }

    /// An object in JSON or YAML.
    pub(super) fn document(&self, text: &[u8]) -> Result<Value, SecretValueError> {
        let before = self.size.get();
        let value = self.json(text).or_else(|error| match error {
            SecretValueError::TooLarge => Err(error),
            SecretValueError::Malformed => {
                self.size.set(before);
                self.yaml(text)
            }
        })?;
        if value.is_object() { Ok(value) } else { Err(SecretValueError::Malformed) }
    }

    fn yaml(&self, text: &[u8]) -> Result<Value, SecretValueError> {
        let mut options = serde_saphyr::Options::default();
        options.budget = serde_saphyr::budget! { max_depth: MAX_LEVELS };
        let value = serde_saphyr::with_deserializer_from_slice_with_options(text, options, |deserializer| {
            BoundedValue::new(&self.size, self.max_size).deserialize(deserializer)
        });
        self.checked(value.ok())
    }

    /// `value` is `None` if it is malformed, and contains `None` if it is too large as a whole.
    fn checked(&self, value: Option<Option<Value>>) -> Result<Value, SecretValueError> {
        let value = value.filter(|_| self.size.get() != NESTED_TOO_DEEPLY).ok_or(SecretValueError::Malformed)?;
        value.filter(|_| self.size.get() <= self.max_size).ok_or(SecretValueError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compile::kong::plugins::secret_values::SecretValueError::{Malformed, TooLarge};

    fn document(text: &str) -> Result<Value, SecretValueError> {
        SecretValues::new(1000).document(text.as_bytes())
    }

    #[test]
    fn documents_are_objects_in_json_or_yaml() {
        assert_eq!(document("{\"minute\": 5}"), Ok(json!({"minute": 5})));
        assert_eq!(document("minute: 5\npolicy: local\n"), Ok(json!({"minute": 5, "policy": "local"})));
        for malformed in ["just text", "[1]", "", "a: [", "{\"a\": 1} x"] {
            assert_eq!(document(malformed), Err(Malformed), "{malformed}");
        }
        assert_eq!(SecretValues::new(1000).document(b"\xff\xfe"), Err(Malformed));
        assert_eq!(SecretValues::new(1000).json(b"1 2"), Err(Malformed));
    }

    #[test]
    fn size_of_all_values_is_limited() {
        let list = format!("[{}0]", "0,".repeat(20));
        assert_eq!(document(&format!("{{\"a\": {list}, \"b\": {list}}}")), Err(TooLarge));
        assert_eq!(document(&format!("a: {list}\nb: {list}\n")), Err(TooLarge));
        // Each alias becomes a copy.
        assert_eq!(document(&format!("a: &list {list}\nb: *list\n")), Err(TooLarge));
        let values = SecretValues::new(1000);
        assert!(values.json(list.as_bytes()).is_ok());
        assert_eq!(values.json(list.as_bytes()), Err(TooLarge));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(document(&nested(20)).is_ok());
        assert_eq!(document(&nested(MAX_LEVELS + 1)), Err(Malformed));
        assert_eq!(document(&format!("{{\"a\": {}{}}}", "[".repeat(1000), "]".repeat(1000))), Err(Malformed));
    }
}
