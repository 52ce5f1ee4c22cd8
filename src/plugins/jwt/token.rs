//! A token as it was sent, taken apart but not believed (RFC 7519 in the compact form of RFC 7515).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::plugin::signature::Algorithm;

/// A token whose signature nobody has checked yet.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) claims: Map<String, Value>,
    header: Map<String, Value>,
    /// What is signed.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
}

/// Why something is no token, as clients are told.
pub(super) type Malformed = &'static str;

const NO_JSON: Malformed = "Bad token; invalid JSON";
const WRONG_ALGORITHM: Malformed = "Bad token; invalid alg";
const WRONG_CLAIMS: Malformed = "Bad token; invalid claims";
const WRONG_SIGNATURE: Malformed = "Bad token; invalid signature";
const CRITICAL: Malformed = "Bad token; invalid crit";

/// Some signers leave the padding in.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t [u8]) -> Result<Self, Malformed> {
        let first = memchr::memchr(b'.', text).ok_or(NO_JSON)?;
        let second = first + 1 + memchr::memchr(b'.', &text[first + 1..]).ok_or(NO_JSON)?;
        let (header, claims) = (json(&text[..first])?, json(&text[first + 1..second])?);
        let Value::Object(header) = header else { return Err(NO_JSON) };
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(WRONG_ALGORITHM)?;
        let Value::Object(claims) = claims else { return Err(WRONG_CLAIMS) };
        let signature = BASE64.decode(&text[second + 1..]).map_err(|_| WRONG_SIGNATURE)?;
        // RFC 7515, section 4.1.11: who does not understand what must be understood refuses it. We understand none of it.
        if header.contains_key("crit") {
            return Err(CRITICAL);
        }
        Ok(Token { algorithm, claims, header, signed: &text[..second], signature })
    }

    /// A claim, or else a member of the header by the same name.
    pub(super) fn claim_or_header(&self, name: &str) -> Option<&Value> {
        self.claims.get(name).or_else(|| self.header.get(name))
    }

    /// A claim that is a text.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// Which of its issuer's keys it says that it is signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }
}

fn json(part: &[u8]) -> Result<Value, Malformed> {
    let text = BASE64.decode(part).map_err(|_| NO_JSON)?;
    serde_json::from_slice(&text).map_err(|_| NO_JSON)
}

/// Base64 as secrets are written with `secret_is_base64`: of either alphabet, padded or not.
pub(super) fn decode_secret(secret: &[u8]) -> Option<Vec<u8>> {
    let secret: Vec<u8> = secret
        .trim_ascii()
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => *byte,
        })
        .collect();
    BASE64.decode(secret).ok().filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn encoded(header: &str, claims: &str) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    // kong-compat §4.16
    #[test]
    fn what_is_no_token_is_told_apart() {
        let good = r#"{"alg":"HS256"}"#;
        let cases = [
            ("abc".to_owned(), NO_JSON),
            ("a.b".to_owned(), NO_JSON),
            (String::new(), NO_JSON),
            ("..".to_owned(), NO_JSON),
            (encoded("no json", "{}") + ".", NO_JSON),
            (encoded("[]", "{}") + ".", NO_JSON),
            (encoded(good, "no json") + ".", NO_JSON),
            (encoded(good, "{}"), NO_JSON),
            (encoded("{}", "{}") + ".", WRONG_ALGORITHM),
            (encoded(r#"{"alg":"none"}"#, "{}") + ".", WRONG_ALGORITHM),
            (encoded(r#"{"alg":"hs256"}"#, "{}") + ".", WRONG_ALGORITHM),
            (encoded(r#"{"alg":256}"#, "{}") + ".", WRONG_ALGORITHM),
            (encoded(good, "[]") + ".", WRONG_CLAIMS),
            (encoded(good, "{}") + ".!", WRONG_SIGNATURE),
            (encoded(good, "{}") + ".YQ.YQ", WRONG_SIGNATURE),
            (encoded(r#"{"alg":"HS256","crit":["b64"]}"#, "{}") + ".", CRITICAL),
        ];
        for (text, expected) in cases {
            assert_eq!(Token::parse(text.as_bytes()).err(), Some(expected), "{text}");
        }
        let text = encoded(r#"{"alg":"ES512","kid":"k"}"#, r#"{"a":"b"}"#);
        let token = format!("{text}.YQ==");
        let token = Token::parse(token.as_bytes()).unwrap();
        assert_eq!((token.signed, &*token.signature), (text.as_bytes(), &b"a"[..]));
        assert_eq!((token.key_id(), token.text("a")), (Some("k"), Some("b")));
    }

    #[test]
    fn secrets_are_decoded_however_they_are_encoded() {
        for (text, expected) in [
            ("-_-_", Some(&[0xfb, 0xff, 0xbf][..])),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("YQ==\n", Some(b"a")),
            ("YQ", Some(b"a")),
            ("", None),
            ("a secret", None),
        ] {
            assert_eq!(decode_secret(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            header in "\\PC{0,40}",
            claims in "\\PC{0,40}",
        ) {
            let _any = Token::parse(&bytes);
            let _built = Token::parse((encoded(&header, &claims) + ".").as_bytes());
            let _known = Token::parse([encoded(r#"{"alg":"RS256"}"#, &claims).as_bytes(), b".", &bytes].concat().as_slice())
                .map(|token| (token.claim_or_header("iss").cloned(), token.key_id().map(str::len)));
        }
    }
}
