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
/// For tests.
#[expect(clippy::unwrap_used, reason = "only tests run it")]
pub mod test_authority;
mod trust;

pub(crate) use policy::{CertificatePolicy, CertificateRejection, CertificateSettings};
pub use policy::{ConsumerField, GroupSource};
pub use trust::RevocationMode;
