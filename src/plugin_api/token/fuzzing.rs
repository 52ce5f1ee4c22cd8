//! Fuzzing of tokens: what is accepted has the parts that another library reads.

use std::time::SystemTime;

use super::{TimeClaimName, TimeClaimRules, TimeClaims, UnverifiedToken};

/// `text` is a token as a client sends it.
pub(crate) fn check(text: &[u8], now: SystemTime) {
    let Ok(token) = UnverifiedToken::parse(text) else { return };
    assert!(text.starts_with(token.signed), "the signed part is the beginning");
    assert_eq!(text[token.signed.len()], b'.', "the signature follows");
    assert_eq!(token.signed.iter().filter(|byte| **byte == b'.').count(), 1, "header and claims are signed");
    let again = UnverifiedToken::parse(text).map(|token| token.claims);
    assert_eq!(again.as_ref(), Ok(&token.claims), "the same token has the same claims");
    // The library does not accept padding, and knows other algorithms.
    if let Ok(header) = jsonwebtoken::decode_header(text) {
        assert_eq!(format!("{:?}", header.alg), token.algorithm.name(), "algorithm");
        assert_eq!(header.kid.as_deref(), token.key_id(), "key id");
    }
    let claims = [TimeClaimName::Exp, TimeClaimName::Nbf];
    let times = TimeClaims::from_claims(&token.claims);
    if TimeClaimRules::new(&claims, 3600).check(&times, now).is_ok() {
        assert!(!times.is_expired(now), "a token with valid claims has not expired");
        assert!(token.claims["exp"].is_number() && token.claims["nbf"].is_number(), "valid claims exist");
    }
}
