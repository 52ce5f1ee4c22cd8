//! Tokens: how they are requested and verified, and what a request or a session keeps of them.
//!
//! ```text
//!   token of a client ────▶ RelyingParty ─ issuer in BearerIssuers? ─▶ its keys ──────────┐
//!   password of a client ─▶      │       └ TokenRules ─▶ keys or endpoints of the provider ┴─▶ TokenIdentity
//!   code of a login ──────▶      └ TokenRules ─▶ ID token of this login ─▶ SessionTokens
//! ```

mod bearer_issuers;
mod relying_party;
mod session_tokens;
mod signed_token;
mod token_identity;

pub(super) use self::bearer_issuers::BearerIssuers;
pub(super) use self::relying_party::{AuthenticationError, CodeGrant, RelyingParty};
pub(super) use self::session_tokens::{ProviderSession, SessionTokens};
pub(super) use self::signed_token::{TokenClaims, TokenRules};
pub(super) use self::token_identity::TokenIdentity;
