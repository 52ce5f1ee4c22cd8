//! A message for a topic, and its form in a queue.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most bytes of a record in addition to the key and the value of its message.
pub(super) const RECORD_OVERHEAD: usize = 36;

/// A message for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaMessage {
    pub topic: Arc<str>,
    /// Messages with the same key have the same partition.
    pub key: Option<Bytes>,
    pub value: Bytes,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl KafkaMessage {
    pub(crate) fn new(topic: Arc<str>, key: Option<Bytes>, value: impl Into<Bytes>, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        KafkaMessage { topic, key, value: value.into(), timestamp }
    }

    /// The bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len)
    }

    /// Whether a request to a broker with at most this size can have the message.
    pub(crate) fn fits(&self, max_bytes: usize) -> bool {
        self.size() + RECORD_OVERHEAD <= max_bytes
    }

    /// The message as an entry of a queue.
    pub(crate) fn to_entry(&self) -> Bytes {
        let mut entry = BytesMut::with_capacity(self.topic.len() + self.size() + 24);
        entry.put_i64(self.timestamp);
        put_field(&mut entry, self.topic.as_bytes());
        entry.put_u8(self.key.is_some().into());
        put_field(&mut entry, self.key.as_ref().map_or(&b""[..], |key| key));
        put_field(&mut entry, &self.value);
        entry.freeze()
    }

    /// The messages of entries, one after the other. `None` if the bytes are none.
    pub(super) fn from_entries(mut entries: Bytes) -> Option<Vec<KafkaMessage>> {
        let mut messages = Vec::new();
        while !entries.is_empty() {
            let timestamp = entries.try_get_i64().ok()?;
            let topic = Arc::from(std::str::from_utf8(&take_field(&mut entries)?).ok()?);
            let has_key = entries.try_get_u8().ok()? != 0;
            let key = Some(take_field(&mut entries)?).filter(|_| has_key);
            messages.push(KafkaMessage { topic, key, value: take_field(&mut entries)?, timestamp });
        }
        Some(messages)
    }
}

fn put_field(entry: &mut BytesMut, field: &[u8]) {
    entry.put_u32_le(u32::try_from(field.len()).unwrap_or(u32::MAX));
    entry.put_slice(field);
}

/// Shares the memory of the entries.
fn take_field(entries: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(entries.try_get_u32_le().ok()?).ok()?;
    (length <= entries.len()).then(|| entries.split_to(length))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn queues_keep_messages_unchanged() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let message = |key: Option<&'static str>, value: &'static str| {
            KafkaMessage::new(Arc::from("logs"), key.map(Bytes::from), value, time)
        };
        let messages = vec![message(None, "a"), message(Some(""), ""), message(Some("key"), "value")];
        assert_eq!(messages[0].timestamp, 1_700_000_000_123);
        let entries: Vec<Bytes> = messages.iter().map(KafkaMessage::to_entry).collect();
        let joined = Bytes::from(entries.concat());
        assert_eq!(KafkaMessage::from_entries(joined.clone()), Some(messages));
        assert_eq!(KafkaMessage::from_entries(joined.slice(..joined.len() - 1)), None);
    }
}
