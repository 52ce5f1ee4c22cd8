//! The ids of consumers and the names of groups, by which plugins, logs and backends know them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::api::{Kind, ObjectKey};
use crate::plugin_api::consumers::EntityId;

/// The id of a consumer for backends and logs: a UUID derived from its key, so that it is the same in all replicas and
/// after a restore from a backup.
pub(in crate::compile) fn consumer_id(consumer: &ObjectKey) -> EntityId {
    derive_uuid(Kind::KongConsumer, consumer)
}

/// The name of a group for plugins.
pub(in crate::compile) fn group_name(group: &ObjectKey) -> Arc<str> {
    group.to_string().into()
}

/// A UUID of version 8, whose bits the application chooses (RFC 9562, section 5.8).
pub(super) fn derive_uuid(kind: Kind, key: &ObjectKey) -> EntityId {
    uuid_from_text(&format!("{kind}/{key}"))
}

/// The id of the credential in one line of an htpasswd file, so that each username of the file is one of its own.
pub(super) fn line_id(secret: &ObjectKey, username: &str) -> EntityId {
    // No name of an object contains a slash.
    uuid_from_text(&format!("{}/{secret}/{username}", Kind::Secret))
}

/// The same UUID for the same text.
pub(in crate::compile::kong) fn uuid_from_text(text: &str) -> EntityId {
    let digest = digest(&SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let digit = |half_byte: u8| char::from_digit(half_byte.into(), 16).expect("half a byte is a digit");
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    EntityId::from_text(&text)
}
