//! The `queue` object, whose batches are larger than those of other plugins unless they are configured.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::plugin_api::batch_queue::QueueConfig;

/// The number of requests in a batch unless it is configured, as in Kong.
const DEFAULT_BATCH_SIZE: usize = 200;

/// The queue of a configuration without one.
pub(super) fn default_queue() -> QueueConfig {
    QueueConfig { max_batch_size: DEFAULT_BATCH_SIZE, ..QueueConfig::default() }
}

/// For `deserialize_with`.
pub(super) fn deserialize_queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QueueConfig, D::Error> {
    deserializer.deserialize_map(QueueVisitor)
}

struct QueueVisitor;

impl<'de> Visitor<'de> for QueueVisitor {
    type Value = QueueConfig;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<QueueConfig, A::Error> {
        let mut observed = ObservedFields { fields, has_size: false };
        let queue = QueueConfig::deserialize(MapAccessDeserializer::new(&mut observed))?;
        Ok(if observed.has_size { queue } else { QueueConfig { max_batch_size: DEFAULT_BATCH_SIZE, ..queue } })
    }
}

/// The fields of an object, of which `max_batch_size` is noticed.
struct ObservedFields<A> {
    fields: A,
    has_size: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ObservedFields<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.fields.next_key::<String>()? else { return Ok(None) };
        self.has_size |= name == "max_batch_size";
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.fields.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn batches_are_large_unless_configured() {
        for (queue, expected) in [(json!({}), 200), (json!({"max_entries": 7}), 200), (json!({"max_batch_size": 1}), 1)]
        {
            assert_eq!(deserialize_queue(queue.clone()).unwrap().max_batch_size, expected, "{queue}");
        }
        assert!(deserialize_queue(json!({"size": 1})).is_err() && deserialize_queue(json!([1])).is_err());
        assert_eq!(default_queue().max_batch_size, 200);
    }
}
