//! Messages as a record batch, the format version 2 of Kafka's protocol guide, without compression.

use super::checksum::crc32c;
use super::message::{KafkaMessage, RECORD_OVERHEAD};
use super::wire::WireWriter;

/// The batch of messages of one partition, of which there is at least one.
pub(super) fn record_batch<'m>(messages: impl Iterator<Item = &'m KafkaMessage> + Clone) -> Vec<u8> {
    let times = messages.clone().map(|message| message.timestamp);
    let base_timestamp = times.clone().min().unwrap_or_default();
    let max_timestamp = times.max().unwrap_or_default();
    let mut records = WireWriter::default();
    let mut count = 0;
    for message in messages {
        write_record(&mut records, message, count, base_timestamp);
        count += 1;
    }
    let mut checked = WireWriter(Vec::with_capacity(records.0.len() + HEADER));
    checked.i16(0);
    checked.i32(count.saturating_sub(1));
    checked.i64(base_timestamp);
    checked.i64(max_timestamp);
    checked.i64(NO_PRODUCER_ID);
    checked.i16(NO_EPOCH);
    checked.i32(NO_SEQUENCE);
    checked.i32(count);
    checked.0.extend_from_slice(&records.0);
    let mut batch = WireWriter(Vec::with_capacity(checked.0.len() + HEADER));
    batch.i64(0);
    // From the epoch of the leader to the end.
    batch.length(checked.0.len() + 9);
    batch.i32(NO_LEADER_EPOCH);
    batch.i8(MAGIC);
    batch.i32(crc32c(&checked.0).cast_signed());
    batch.0.extend_from_slice(&checked.0);
    batch.0
}

fn write_record(records: &mut WireWriter, message: &KafkaMessage, offset: i32, base_timestamp: i64) {
    let mut record = WireWriter(Vec::with_capacity(message.size() + RECORD_OVERHEAD));
    record.i8(0);
    record.varlong(message.timestamp - base_timestamp);
    record.varlong(offset.into());
    match &message.key {
        Some(key) => {
            record.varint_length(key.len());
            record.0.extend_from_slice(key);
        }
        None => record.varlong(-1),
    }
    record.varint_length(message.value.len());
    record.0.extend_from_slice(&message.value);
    // No headers.
    record.varlong(0);
    records.varint_length(record.0.len());
    records.0.extend_from_slice(&record.0);
}

const MAGIC: i8 = 2;
const NO_LEADER_EPOCH: i32 = -1;
const NO_PRODUCER_ID: i64 = -1;
const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;
/// The bytes in front of the records.
const HEADER: usize = 61;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    /// Computed by hand from the protocol guide, "Record Batch".
    #[test]
    fn batches_have_the_published_format() {
        let topic: Arc<str> = Arc::from("logs");
        let messages = [
            KafkaMessage { topic: topic.clone(), key: None, value: Bytes::from_static(b"one"), timestamp: 1000 },
            KafkaMessage { topic, key: Some("k".into()), value: Bytes::from_static(b"two"), timestamp: 1002 },
        ];
        let batch = record_batch(messages.iter());
        let records = [&[18, 0, 0, 0, 1, 6][..], b"one", &[0], &[20, 0, 4, 2, 2, b'k', 6], b"two", &[0]].concat();
        let mut expected = Vec::new();
        expected.extend_from_slice(&0_i64.to_be_bytes());
        expected.extend_from_slice(&(49 + i32::try_from(records.len()).unwrap()).to_be_bytes());
        expected.extend_from_slice(&(-1_i32).to_be_bytes());
        expected.push(2);
        let mut checked = Vec::new();
        checked.extend_from_slice(&0_i16.to_be_bytes());
        checked.extend_from_slice(&1_i32.to_be_bytes());
        checked.extend_from_slice(&1000_i64.to_be_bytes());
        checked.extend_from_slice(&1002_i64.to_be_bytes());
        checked.extend_from_slice(&[0xFF; 8 + 2 + 4]);
        checked.extend_from_slice(&2_i32.to_be_bytes());
        checked.extend_from_slice(&records);
        expected.extend_from_slice(&crc32c(&checked).to_be_bytes());
        expected.extend_from_slice(&checked);
        assert_eq!(batch, expected);
        assert_eq!(batch.len(), HEADER + records.len());
    }
}
