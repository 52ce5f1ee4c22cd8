//! Grants: what a user or a client has been granted, with its current code or tokens.
//!
//! ```text
//!   token = kind, name of its grant (16 random bytes), secret (32 random bytes)
//!   store: SHA-256 of the name ─▶ Grant with the SHA-256 of its current code or tokens
//! ```
//!
//! All tokens of a grant are in one entry. A code or a refresh token that names the grant but is not its current one
//! was used before, and then the whole grant ends (RFC 6749, sections 4.1.2 and 10.4; RFC 9700, section 4.14.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plugin_api::consumers::{OAuthClient, Sha256Digest, sha256};
use crate::sealed_cookie::random_text;

/// What a token names its grant by, in the store.
pub(super) type GrantKey = Sha256Digest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Code,
    Access,
    Refresh,
}

impl TokenKind {
    fn letter(self) -> u8 {
        match self {
            TokenKind::Code => b'c',
            TokenKind::Access => b'a',
            TokenKind::Refresh => b'r',
        }
    }
}

/// A token that a client has sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SentToken {
    pub(super) grant: GrantKey,
    pub(super) digest: Sha256Digest,
}

impl SentToken {
    /// `None` if the text cannot be a token of this kind, so that the store need not look.
    pub(super) fn parse(kind: TokenKind, text: &[u8]) -> Option<SentToken> {
        let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let (letter, rest) = text.split_first()?;
        if *letter != kind.letter() || rest.len() != NAME_TEXT + SECRET_TEXT || !rest.iter().all(is_text) {
            return None;
        }
        Some(SentToken { grant: sha256(&rest[..NAME_TEXT]), digest: sha256(text) })
    }

    pub(super) fn is(&self, expected: &Sha256Digest) -> bool {
        verify_slices_are_equal(&self.digest, expected).is_ok()
    }
}

/// The name of a grant, which only the holders of its tokens know.
pub(super) struct GrantName(String);

impl GrantName {
    pub(super) fn random() -> GrantName {
        GrantName(random_text(NAME_BYTES))
    }

    /// That of a token, which [`SentToken::parse`] has accepted.
    pub(super) fn of_token(token: &str) -> Option<GrantName> {
        token.get(1..=NAME_TEXT).map(|name| GrantName(name.to_owned()))
    }

    pub(super) fn key(&self) -> GrantKey {
        sha256(self.0.as_bytes())
    }

    /// A new token of the grant, and its digest.
    pub(super) fn issue(&self, kind: TokenKind) -> (String, Sha256Digest) {
        let token = format!("{}{}{}", char::from(kind.letter()), self.0, random_text(SECRET_BYTES));
        let digest = sha256(token.as_bytes());
        (token, digest)
    }
}

/// An entry of the store.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) client_id: Box<str>,
    /// The id of the client's credential: a new one under the same client id gets no tokens of the old one.
    pub(super) credential: Box<str>,
    /// `authenticated_userid`.
    pub(super) user: Option<HeaderText>,
    /// What the user has granted.
    pub(super) scope: Option<HeaderText>,
    /// Where the tokens are valid. `None`: at all plugins with `global_credentials`.
    pub(super) place: Option<GrantPlace>,
    pub(super) stage: Stage,
}

/// A plugin, and the service of the route by which a grant began.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantPlace {
    pub(super) plugin: Box<str>,
    pub(super) service: Box<str>,
}

#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Stage {
    Code(IssuedCode),
    Tokens(IssuedTokens),
}

/// A code that was not exchanged yet.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedCode {
    pub(super) code: Sha256Digest,
    pub(super) expires: Expiry,
    /// The URI to which the code was sent, which the exchange must repeat (RFC 6749, section 4.1.3).
    pub(super) redirect_uri: Box<str>,
    /// The challenge of PKCE.
    pub(super) challenge: Option<Sha256Digest>,
}

/// The current tokens. Earlier ones are not valid.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedTokens {
    pub(super) access: Sha256Digest,
    pub(super) access_expires: Expiry,
    /// That of the access token: a part of what the user has granted.
    pub(super) scope: Option<HeaderText>,
    pub(super) refresh: Option<(Sha256Digest, Expiry)>,
}

impl Grant {
    pub(super) fn is_of(&self, client: &OAuthClient) -> bool {
        *self.client_id == **client.client_id.text() && *self.credential == *client.id
    }

    /// When the store can forget the grant.
    pub(super) fn expires(&self) -> Expiry {
        match &self.stage {
            Stage::Code(code) => code.expires,
            Stage::Tokens(tokens) => {
                let refresh = tokens.refresh.as_ref().map_or(tokens.access_expires, |(_, expires)| *expires);
                tokens.access_expires.later(refresh)
            }
        }
    }
}

/// The second since 1970 from which on something is not valid. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expiry(Option<u64>);

impl Expiry {
    pub(super) fn after(now: SystemTime, lifetime: Option<Duration>) -> Expiry {
        Expiry(lifetime.map(|lifetime| seconds(now).saturating_add(lifetime.as_secs())))
    }

    pub(super) fn is_past(self, now: SystemTime) -> bool {
        self.0.is_some_and(|second| seconds(now) >= second)
    }

    pub(super) fn second(self) -> Option<u64> {
        self.0
    }

    pub(super) fn later(self, other: Expiry) -> Expiry {
        Expiry(self.0.zip(other.0).map(|(first, second)| first.max(second)))
    }

    /// How long it is until then. `None`: never.
    pub(super) fn remaining(self, now: SystemTime) -> Option<Duration> {
        self.0.map(|second| Duration::from_secs(second.saturating_sub(seconds(now))))
    }
}

/// The seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A text that is a valid value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderText(HeaderValue);

impl HeaderText {
    pub(super) fn parse(text: &str) -> Option<HeaderText> {
        HeaderValue::from_bytes(text.as_bytes()).ok().map(HeaderText)
    }

    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_bytes()).expect("it was made from text")
    }
}

impl Serialize for HeaderText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HeaderText::parse(&text).ok_or_else(|| serde::de::Error::custom("not a header value"))
    }
}

const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// In base64url.
const NAME_TEXT: usize = 22;
const SECRET_TEXT: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_grant_and_their_kind() {
        let name = GrantName::random();
        let (token, digest) = name.issue(TokenKind::Access);
        let (other, _) = name.issue(TokenKind::Access);
        assert_ne!(token, other);
        let sent = SentToken::parse(TokenKind::Access, token.as_bytes()).unwrap();
        assert!(sent.is(&digest) && sent.grant == name.key());
        assert_eq!(GrantName::of_token(&token).unwrap().key(), name.key());
        assert!(!SentToken::parse(TokenKind::Access, other.as_bytes()).unwrap().is(&digest));
        let with = |change: fn(&mut String)| {
            let mut text = token.clone();
            change(&mut text);
            text
        };
        for text in [
            String::new(),
            "a".to_owned(),
            with(|text| text.push('a')),
            with(|text| text.truncate(text.len() - 1)),
            with(|text| text.replace_range(..1, "r")),
            with(|text| text.replace_range(5..6, "/")),
            with(|text| text.replace_range(5..7, "ä")),
        ] {
            assert!(SentToken::parse(TokenKind::Access, text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn expiry_is_exact() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let expiry = Expiry::after(now, Some(Duration::from_secs(5)));
        assert!(!expiry.is_past(now + Duration::from_millis(4999)) && expiry.is_past(now + Duration::from_secs(5)));
        assert_eq!(expiry.remaining(now), Some(Duration::from_secs(5)));
        let never = Expiry::after(now, None);
        assert!(!never.is_past(now + Duration::from_secs(1 << 40)) && expiry.later(never) == never);
    }
}
