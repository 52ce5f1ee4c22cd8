//! Digests, and bytes as text.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// A SHA-256 digest. Secrets are looked up by digest, so that the duration of a lookup reveals nothing about them.
pub type Sha256Digest = [u8; 32];

pub fn sha256(secret: &[u8]) -> Sha256Digest {
    let mut bytes = Sha256Digest::default();
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    bytes
}

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}
