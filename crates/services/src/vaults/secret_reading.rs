//! What a server has responded to the request for a secret.

use std::collections::BTreeMap;

use crate::plugin_api::vault::WHOLE_SECRET;

/// Why there is no value. The texts contain no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The server has responded that it has no such secret.
    Missing(String),
    /// The server does not respond, or refuses: the last value stays in use.
    Unavailable(String),
}

/// The keys of a secret that is one text: those of its JSON object, if it is one, and the whole.
pub(super) fn keys_of_text(text: String) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(&text) {
        for (name, value) in fields {
            let value = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            keys.insert(name, value);
        }
    }
    keys.insert(WHOLE_SECRET.to_owned(), text);
    keys
}
