//! Credentials in `Authorization`: the scheme, and a username with a password in base64.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Some clients omit the padding.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials after this scheme, whose letter case does not matter. `None` if the scheme is another one.
pub fn strip_scheme<'h>(value: &'h [u8], scheme: &str) -> Option<&'h [u8]> {
    let (found, credentials) = value.trim_ascii().split_at_checked(scheme.len())?;
    let ends = credentials.first().is_none_or(u8::is_ascii_whitespace);
    (ends && found.eq_ignore_ascii_case(scheme.as_bytes())).then(|| credentials.trim_ascii())
}

/// A username and password from a request.
pub struct Login {
    pub username: String,
    pub password: Vec<u8>,
}

impl Login {
    /// Decodes `username:password` in base64, split at the first colon. `None` if the username is empty or is not text.
    pub fn decode(credentials: &[u8]) -> Option<Self> {
        let mut decoded = BASE64.decode(credentials).ok()?;
        let colon = memchr::memchr(b':', &decoded)?;
        let password = decoded.split_off(colon + 1);
        decoded.truncate(colon);
        let username = String::from_utf8(decoded).ok().filter(|username| !username.is_empty())?;
        Some(Login { username, password })
    }
}
