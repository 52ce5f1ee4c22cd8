//! Secret: its bytes must never appear in a log, a dump or a status.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, de};

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    #[serde(rename = "type", default = "opaque")]
    pub kind: String,
    #[serde(default)]
    pub data: BTreeMap<String, SecretBytes>,
    /// Plain text. A key in this field takes precedence over the same key in `data`, as in the API server.
    #[serde(default)]
    pub string_data: BTreeMap<String, SecretText>,
}

impl Secret {
    /// The value of a key in `stringData`, or else in `data`.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.string_data
            .get(key)
            .map(|text| text.0.as_bytes())
            .or_else(|| self.data.get(key).map(|bytes| bytes.0.as_slice()))
    }

    /// All keys with their values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let keys: BTreeSet<&str> = self.data.keys().chain(self.string_data.keys()).map(String::as_str).collect();
        keys.into_iter().filter_map(|key| Some((key, self.value(key)?)))
    }
}

/// Prints the keys and never the values.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        formatter.debug_struct("Secret").field("kind", &self.kind).field("keys", &keys).finish()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The decoder's error contains the offending byte, so it is not passed on.
        BASE64_STANDARD
            .decode(text.replace(['\n', '\r'], ""))
            .map(SecretBytes)
            .map_err(|_| de::Error::custom("is not base64; put plain text under stringData instead"))
    }
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct SecretText(String);

fn opaque() -> String {
    "Opaque".to_owned()
}
