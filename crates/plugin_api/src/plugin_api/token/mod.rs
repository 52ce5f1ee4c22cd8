//! Signed tokens (JWT, RFC 7519): how they are read and verified, which times they must have, and the key sets of their
//! issuers.
//!
//! ```text
//!   text ─▶ UnverifiedToken ─ signature ─▶ VerificationKey of a consumer, or KeySet of an issuer ─▶ TimeClaimRules
//! ```

mod asymmetric_algorithm;
mod bearer;
pub mod jwk;
mod key_check;
mod key_issuer;
mod key_set;
mod lasting_claims;
pub mod published_keys;
pub mod signature;
pub mod signing_key;
mod time_claims;
mod unverified_token;

pub use asymmetric_algorithm::AsymmetricAlgorithm;
pub use bearer::strip_bearer_scheme;
pub use key_check::KeyCheck;
pub use key_set::{KeySet, KeySetSubscription, TokenOrigin};
pub use lasting_claims::lasting_claims;
pub use time_claims::{ClaimViolations, TimeClaimName, TimeClaimRules, TimeClaims};
pub use unverified_token::{MalformedToken, UnverifiedToken, decode_secret};
