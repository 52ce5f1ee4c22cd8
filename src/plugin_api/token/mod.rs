//! Signed tokens (JWT, RFC 7519): how they are read, which times they must have, and the key sets of their issuers.
//!
//! ```text
//!   text ─▶ UnverifiedToken ─▶ a key of a KeySet, or of a consumer ─▶ signature::VerificationKey ─▶ TimeClaimRules
//! ```

mod key_set;
mod time_claims;
mod unverified_token;

pub use key_set::{KeySet, KeySetSubscription, PublishedKeys};
pub use time_claims::{ClaimViolations, TimeClaimName, TimeClaimRules, TimeClaims};
pub use unverified_token::{MalformedToken, UnverifiedToken, decode_secret};
