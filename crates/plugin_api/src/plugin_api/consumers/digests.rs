//! Digests, and bytes as text.

use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;

/// A SHA-256 digest. Secrets are looked up by digest, so that the duration of a lookup reveals nothing about them.
pub type Sha256Digest = [u8; 32];

pub fn sha256(secret: &[u8]) -> Sha256Digest {
    let mut bytes = Sha256Digest::default();
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    bytes
}

/// The digest of all certificates of a client.
pub fn chain_digest(chain: &[CertificateDer<'_>]) -> Sha256Digest {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        // DER contains its length, so no two chains have the same bytes.
        context.update(certificate);
    }
    let mut digest = Sha256Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}
