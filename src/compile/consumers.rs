//! Consumers: who may be asking.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::api::{Kind, ObjectKey};

/// The id under which backends and logs know a consumer: a UUID made of its key, so that it is the same in every replica
/// and after a restore from a backup.
pub(super) fn id(consumer: &ObjectKey) -> Arc<str> {
    uuid(Kind::KongConsumer, consumer)
}

/// The name by which plugins know a group.
pub(super) fn group(group: &ObjectKey) -> Arc<str> {
    group.to_string().into()
}

/// In the form of version 8 (RFC 9562, section 5.8), which leaves the bits to us.
fn uuid(kind: Kind, key: &ObjectKey) -> Arc<str> {
    let digest = digest(&SHA256, format!("{kind}/{key}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text.into()
}
