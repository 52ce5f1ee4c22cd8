//! Digests, and bytes as text.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256 digest. Secrets are looked up by digest, so that the duration of a lookup reveals nothing about them.
pub type Sha256Digest = [u8; 32];

pub fn sha256(secret: &[u8]) -> Sha256Digest {
    let mut bytes = Sha256Digest::default();
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    bytes
}

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
    }
    text
}
