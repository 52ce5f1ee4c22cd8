//! Certificates of clients: which authorities and revocation lists decide whether one is trusted, what it says about
//! its owner, and the consumer that it identifies.
//!
//! ```text
//!   chain ─▶ verified lately? ── no ─▶ CertificateTrust: authorities, validity, revocation ─▶ CertificateNames
//!                 │ yes                                                                            │
//!                 └──────────────────────▶ CertificatePolicy: credential, or name of a consumer ◀──┘
//! ```

mod distinguished_name;
mod names;
mod policy;
#[cfg(test)]
pub(crate) mod test_authority;
mod trust;

pub use names::CertificateNames;
pub use policy::{CertificatePolicy, CertificateRejection, CertificateSettings, ConsumerField, GroupSource};
pub use trust::{CertificateTrust, RevocationMode};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

use super::consumers::Sha256Digest;

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
