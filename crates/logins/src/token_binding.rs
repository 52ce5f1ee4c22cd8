//! Tokens that are bound to a key of the client: the claim `cnf` (RFC 7800). A stolen one is useless without the key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::context::ClientCertificate;
use crate::plugin_api::reply::Reply;

/// The key that the client must have, as far as a token names one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TokenBinding {
    #[default]
    None,
    /// That of the certificate with this digest (RFC 8705, section 3.1).
    Certificate(Sha256Digest),
    /// One that the client proves in another way, such as DPoP, which is not supported.
    Other,
}

/// Why a client may not use a token. The message continues a sentence whose subject is the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BindingViolation {
    #[error("is bound to a key, which cannot be checked")]
    Unsupported,
    #[error("is bound to a certificate that the client has not used")]
    AnotherCertificate,
    #[error("is bound to a certificate, and this connection was not asked for one")]
    NotRequested,
}

impl TokenBinding {
    /// `claims`: those of a verified token, or the members of an introspection (RFC 8705, section 3.2).
    pub(crate) fn of(claims: &Map<String, Value>) -> Self {
        let members = match claims.get("cnf") {
            None | Some(Value::Null) => return TokenBinding::None,
            Some(Value::Object(members)) => members,
            Some(_) => return TokenBinding::Other,
        };
        // With any other member, the certificate alone may not be what the issuer requires.
        match members.get("x5t#S256").and_then(Value::as_str).filter(|_| members.len() == 1).and_then(digest) {
            Some(digest) => TokenBinding::Certificate(digest),
            None => TokenBinding::Other,
        }
    }

    /// Whether the client of this connection may use the token. RFC 9449, section 7.2: a token that is bound to a key
    /// of DPoP is no bearer token.
    pub(crate) fn check(&self, certificate: ClientCertificate<'_>) -> Result<(), BindingViolation> {
        match (self, certificate) {
            (TokenBinding::None, _) => Ok(()),
            (TokenBinding::Certificate(digest), ClientCertificate::Chain([own, ..], ..)) if sha256(own) == *digest => {
                Ok(())
            }
            (TokenBinding::Certificate(_), ClientCertificate::NotRequested) => Err(BindingViolation::NotRequested),
            (TokenBinding::Certificate(_), _) => Err(BindingViolation::AnotherCertificate),
            (TokenBinding::Other, _) => Err(BindingViolation::Unsupported),
        }
    }
}

/// The reply to a client that must open another connection, whose handshake requests a certificate.
pub(crate) fn another_connection() -> Box<Reply> {
    Reply::negotiated(StatusCode::MISDIRECTED_REQUEST, "Misdirected request", "not_asked")
}

fn digest(text: &str) -> Option<Sha256Digest> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The claim `cnf` of a token for the client with this certificate, for tests.
#[cfg(test)]
pub(crate) fn bound_to(certificate: &[u8]) -> Value {
    serde_json::json!({"x5t#S256": URL_SAFE_NO_PAD.encode(sha256(certificate))})
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use rustls::pki_types::CertificateDer;
    use serde_json::json;

    use super::*;
    use crate::plugin_api::CertificateFindings;

    fn binding(cnf: &Value) -> TokenBinding {
        TokenBinding::of(json!({"sub": "anna", "cnf": cnf}).as_object().unwrap())
    }

    /// The certificate and the thumbprint of RFC 8705, appendix A.
    #[test]
    fn the_thumbprint_is_that_of_the_specification() {
        let certificate = STANDARD
            .decode(
                "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVow\
                 DzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ\
                 /Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+\
                 hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=",
            )
            .unwrap();
        let bound = binding(&json!({"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}));
        let chain = [CertificateDer::from(certificate)];
        let findings = CertificateFindings::default();
        assert_eq!(bound.check(ClientCertificate::Chain(&chain, &Sha256Digest::default(), &findings)), Ok(()));
    }

    #[test]
    fn only_the_client_with_the_key_may_use_a_token() {
        let (own, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
        let digest = Sha256Digest::default();
        let chain = [own.clone(), other.clone()];
        let findings = CertificateFindings::default();
        let client = ClientCertificate::Chain(&chain, &digest, &findings);
        let (none, missing) = (ClientCertificate::NotRequested, ClientCertificate::Missing);
        let (another, unsupported) = (Err(BindingViolation::AnotherCertificate), Err(BindingViolation::Unsupported));
        let with = |member: &str| {
            let mut cnf = bound_to(&own);
            cnf[member] = json!("a");
            cnf
        };
        for (cnf, certificate, expected) in [
            (json!(null), none, Ok(())),
            (json!(null), client, Ok(())),
            (bound_to(&own), client, Ok(())),
            (bound_to(&other), client, another),
            (bound_to(&own), ClientCertificate::Chain(&[], &digest, &findings), another),
            (bound_to(&own), none, Err(BindingViolation::NotRequested)),
            (bound_to(&own), missing, another),
            (json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}), client, unsupported),
            (json!({"jwk": {"kty": "EC"}}), client, unsupported),
            (json!({"kid": "a"}), client, unsupported),
            (with("jkt"), client, unsupported),
            (with("new"), client, unsupported),
            (json!({}), client, unsupported),
            (json!("a"), client, unsupported),
            (json!(false), none, unsupported),
            (json!({"x5t#S256": 1}), client, unsupported),
            (json!({"x5t#S256": "short"}), client, unsupported),
        ] {
            assert_eq!(binding(&cnf).check(certificate), expected, "{cnf} {certificate:?}");
        }
        assert_eq!(TokenBinding::of(&Map::new()), TokenBinding::None);
    }
}
