//! Parsing of tokens without verifying them (RFC 7519 in the compact serialization of RFC 7515).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::signature::Algorithm;

/// A token whose signature has not been verified.
#[derive(Debug)]
pub struct UnverifiedToken<'t> {
    pub algorithm: Algorithm,
    pub claims: Map<String, Value>,
    header: Map<String, Value>,
    /// The signed part of the token.
    pub signed: &'t [u8],
    pub signature: Vec<u8>,
}

/// The message for clients about a malformed token.
pub type MalformedToken = &'static str;

const INVALID_JSON: MalformedToken = "Bad token; invalid JSON";
const INVALID_ALGORITHM: MalformedToken = "Bad token; invalid alg";
const INVALID_CLAIMS: MalformedToken = "Bad token; invalid claims";
const INVALID_SIGNATURE: MalformedToken = "Bad token; invalid signature";
const UNSUPPORTED_CRIT: MalformedToken = "Bad token; invalid crit";

/// Some signers do not omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'t> UnverifiedToken<'t> {
    pub fn parse(text: &'t [u8]) -> Result<Self, MalformedToken> {
        let first_dot = memchr::memchr(b'.', text).ok_or(INVALID_JSON)?;
        let second_dot = first_dot + 1 + memchr::memchr(b'.', &text[first_dot + 1..]).ok_or(INVALID_JSON)?;
        let (header, claims) = (decode_json(&text[..first_dot])?, decode_json(&text[first_dot + 1..second_dot])?);
        let Value::Object(header) = header else { return Err(INVALID_JSON) };
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(INVALID_ALGORITHM)?;
        let Value::Object(claims) = claims else { return Err(INVALID_CLAIMS) };
        let signature = BASE64.decode(&text[second_dot + 1..]).map_err(|_| INVALID_SIGNATURE)?;
        // RFC 7515, section 4.1.11: tokens with unsupported critical extensions are invalid. None is supported.
        if header.contains_key("crit") {
            return Err(UNSUPPORTED_CRIT);
        }
        Ok(UnverifiedToken { algorithm, claims, header, signed: &text[..second_dot], signature })
    }

    /// A claim, or else the member of the header with the same name.
    pub fn claim_or_header(&self, name: &str) -> Option<&Value> {
        self.claims.get(name).or_else(|| self.header.get(name))
    }

    /// A member of the header.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.header.get(name)
    }

    /// The value of a claim, if it is a string.
    pub fn string_claim(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// Whether `aud` names one of these audiences. It may be one name or a list.
    pub fn is_for_one_of(&self, audiences: &[Box<str>]) -> bool {
        let is_listed =
            |value: &Value| value.as_str().is_some_and(|name| audiences.iter().any(|audience| **audience == *name));
        match self.claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(is_listed),
            Some(name) => is_listed(name),
            None => false,
        }
    }

    /// The key id (`kid`) in the header.
    pub fn key_id(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }
}

fn decode_json(segment: &[u8]) -> Result<Value, MalformedToken> {
    let text = BASE64.decode(segment).map_err(|_| INVALID_JSON)?;
    serde_json::from_slice(&text).map_err(|_| INVALID_JSON)
}

/// Decodes a secret for `secret_is_base64`: standard or URL-safe base64, with or without padding.
pub fn decode_secret(secret: &[u8]) -> Option<Vec<u8>> {
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

    fn unsigned(header: &str, claims: &str) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    // docs/kong-compatibility.md, 4.16
    #[test]
    fn malformed_tokens_are_rejected_with_a_message() {
        let valid_header = r#"{"alg":"HS256"}"#;
        let cases = [
            ("abc".to_owned(), INVALID_JSON),
            ("a.b".to_owned(), INVALID_JSON),
            (String::new(), INVALID_JSON),
            ("..".to_owned(), INVALID_JSON),
            (unsigned("no json", "{}") + ".", INVALID_JSON),
            (unsigned("[]", "{}") + ".", INVALID_JSON),
            (unsigned(valid_header, "no json") + ".", INVALID_JSON),
            (unsigned(valid_header, "{}"), INVALID_JSON),
            (unsigned("{}", "{}") + ".", INVALID_ALGORITHM),
            (unsigned(r#"{"alg":"none"}"#, "{}") + ".", INVALID_ALGORITHM),
            (unsigned(r#"{"alg":"hs256"}"#, "{}") + ".", INVALID_ALGORITHM),
            (unsigned(r#"{"alg":256}"#, "{}") + ".", INVALID_ALGORITHM),
            (unsigned(valid_header, "[]") + ".", INVALID_CLAIMS),
            (unsigned(valid_header, "{}") + ".!", INVALID_SIGNATURE),
            (unsigned(valid_header, "{}") + ".YQ.YQ", INVALID_SIGNATURE),
            (unsigned(r#"{"alg":"HS256","crit":["b64"]}"#, "{}") + ".", UNSUPPORTED_CRIT),
        ];
        for (text, expected) in cases {
            assert_eq!(UnverifiedToken::parse(text.as_bytes()).err(), Some(expected), "{text}");
        }
        let text = unsigned(r#"{"alg":"ES512","kid":"k"}"#, r#"{"a":"b"}"#);
        let token = format!("{text}.YQ==");
        let token = UnverifiedToken::parse(token.as_bytes()).unwrap();
        assert_eq!((token.signed, &*token.signature), (text.as_bytes(), &b"a"[..]));
        assert_eq!((token.key_id(), token.string_claim("a")), (Some("k"), Some("b")));
    }

    #[test]
    fn secrets_decode_from_both_base64_alphabets() {
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
        fn parsing_tokens_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            header in "\\PC{0,40}",
            claims in "\\PC{0,40}",
        ) {
            let _any = UnverifiedToken::parse(&bytes);
            let _built = UnverifiedToken::parse((unsigned(&header, &claims) + ".").as_bytes());
            let with_valid_header = [unsigned(r#"{"alg":"RS256"}"#, &claims).as_bytes(), b".", &bytes].concat();
            let _known = UnverifiedToken::parse(&with_valid_header)
                .map(|token| (token.claim_or_header("iss").cloned(), token.key_id().map(str::len)));
        }
    }
}
