//! Fuzzing of tokens and of the cookies that contain them: what is accepted has the parts that another library reads,
//! and cookies are found however the client distributes them over fields, and are redacted in logs.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::token_location::cookies;
use crate::plugin_api::CredentialLocations;
use crate::plugin_api::token::{TimeClaimName, TimeClaimRules, TimeClaims, UnverifiedToken};

/// If the input has no line feed, it is a token. Otherwise, the first line is the header of a token before its
/// encoding, the second one its claims, and the others are Cookie fields.
pub(crate) fn token(input: &[u8]) {
    let Some(end) = memchr::memchr(b'\n', input) else { return check_token(input, now()) };
    let mut lines = input[end + 1..].split(|byte| *byte == b'\n');
    let claims = lines.next().unwrap_or_default();
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    check_token(format!("{}.{}.{}", encode(&input[..end]), encode(claims), encode(b"signature")).as_bytes(), now());
    let fields: Option<Vec<_>> = lines.take(20).map(|line| HeaderValue::from_bytes(line).ok()).collect();
    check_cookies(&fields.unwrap_or_default());
}

/// `text` is a token as a client sends it.
fn check_token(text: &[u8], now: SystemTime) {
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

fn check_cookies(fields: &[HeaderValue]) {
    let find = |fields: &[HeaderValue]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, field.clone());
        }
        cookies(&headers, "token").map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let found = find(fields);
    let joined = fields.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_bytes(&joined).expect("fields joined are a field");
    assert_eq!(find(std::slice::from_ref(&joined)), found, "one field is the same as several");

    let locations = CredentialLocations { cookies: vec!["token".into()], ..CredentialLocations::default() };
    let Ok(text) = joined.to_str() else { return };
    let redacted = locations.redact_cookies(text);
    assert!(found.is_empty() || redacted.is_some(), "a cookie that is read is redacted");
    let redacted = redacted.unwrap_or_else(|| text.to_owned());
    let in_log = find(&[HeaderValue::from_str(&redacted).expect("a redacted field is a field")]);
    assert!(in_log.iter().all(|value| value == b"REDACTED"), "the log has no token: {redacted}");
}

/// The same time in every run: 2026-01-02, noon.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_355_200)
}
