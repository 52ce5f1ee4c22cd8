//! Private keys that sign tokens: read from PEM, with the public half as a JSON Web Key.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::signature::{Algorithm, KeyFamily};

/// A key that signs tokens with one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: PrivateKey,
    /// The key id: the thumbprint of the public key (RFC 7638), so that all replicas and versions use the same.
    id: Box<str>,
    /// The public key as a JSON Web Key.
    jwk: Value,
    /// The encoded header of the tokens.
    header: Box<str>,
}

enum PrivateKey {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Curve(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// Why a key cannot sign. The messages continue a sentence whose subject is the key, and contain no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningKey {
    #[error("is not a private key in PEM; store a block -----BEGIN PRIVATE KEY-----, as `openssl genpkey` prints it")]
    NotPem,
    #[error("is not supported; use an RSA key of 2048 to 8192 bits, or a key of P-256, P-384, P-521 or Ed25519")]
    Unsupported,
    #[error("does not fit the algorithm {algorithm}")]
    Unfit { algorithm: Algorithm },
}

impl SigningKey {
    /// Reads PEM with the label `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`. Without an algorithm, the key
    /// decides: RS256, ES256, ES384, ES512 or EdDSA.
    pub fn from_pem(pem: &[u8], algorithm: Option<Algorithm>) -> Result<Self, InvalidSigningKey> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| InvalidSigningKey::NotPem)?;
        let candidates = match &algorithm {
            Some(algorithm) => std::slice::from_ref(algorithm),
            None => &DEFAULT_ALGORITHMS,
        };
        let mut pairs =
            candidates.iter().filter_map(|algorithm| Some((*algorithm, PrivateKey::parse(&der, *algorithm)?)));
        let Some((algorithm, pair)) = pairs.next() else {
            let is_supported = algorithm.is_some()
                && DEFAULT_ALGORITHMS.iter().any(|algorithm| PrivateKey::parse(&der, *algorithm).is_some());
            return Err(match algorithm.filter(|_| is_supported) {
                Some(algorithm) => InvalidSigningKey::Unfit { algorithm },
                None => InvalidSigningKey::Unsupported,
            });
        };
        let members = pair.jwk_members(algorithm).ok_or(InvalidSigningKey::Unsupported)?;
        // RFC 7638, section 3: the required members in alphabetical order, without spaces.
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, Value::Object(members.clone()).to_string().as_bytes()));
        let mut jwk = members;
        jwk.extend([
            ("kid".to_owned(), Value::from(&*id)),
            ("use".to_owned(), "sig".into()),
            ("alg".to_owned(), algorithm.name().into()),
        ]);
        let header = json!({"typ": "JWT", "alg": algorithm.name(), "kid": &*id}).to_string();
        let header = URL_SAFE_NO_PAD.encode(header).into();
        Ok(SigningKey { algorithm, pair, id: id.into(), jwk: Value::Object(jwk), header })
    }

    /// The same key with another id in its tokens, by which a server knows it.
    #[must_use]
    pub fn with_id(self, id: &str) -> Self {
        let header = json!({"typ": "JWT", "alg": self.algorithm.name(), "kid": id}).to_string();
        SigningKey { id: id.into(), header: URL_SAFE_NO_PAD.encode(header).into(), ..self }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, SigningFailed> {
        let claims = serde_json::to_vec(claims).map_err(|_| SigningFailed)?;
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 700);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(token.as_bytes()).ok_or(SigningFailed)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The library could not sign, which happens only if it has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing has failed")]
pub struct SigningFailed;

impl fmt::Debug for SigningKey {
    /// Omits the key itself.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("id", &self.id).finish()
    }
}

/// The algorithm of each family of keys.
const DEFAULT_ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa];

impl PrivateKey {
    /// The key for this algorithm. `None` if it is of another type.
    fn parse(der: &PrivateKeyDer<'_>, algorithm: Algorithm) -> Option<Self> {
        match algorithm.family() {
            KeyFamily::Secret => None,
            KeyFamily::Rsa => {
                let pair = match der {
                    PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                    PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
                    _ => return None,
                };
                let pair = pair.ok().filter(|pair| (2048 / 8..=8192 / 8).contains(&pair.public_modulus_len()))?;
                Some(PrivateKey::Rsa(Box::new(pair), rsa_encoding(algorithm)?))
            }
            KeyFamily::Curve(curve) => {
                let signing = match curve {
                    "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
                    _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
                };
                let pair = match der {
                    PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(signing, der.secret_sec1_der()),
                    PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_private_key_der(signing, der.secret_pkcs8_der()),
                    _ => return None,
                };
                Some(PrivateKey::Curve(Box::new(pair.ok()?)))
            }
            KeyFamily::Ed25519 => match der {
                PrivateKeyDer::Pkcs8(der) => {
                    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()?;
                    Some(PrivateKey::Ed25519(Box::new(pair)))
                }
                _ => None,
            },
        }
    }

    /// The members of the public key that RFC 7638, section 3.2, requires, in alphabetical order.
    fn jwk_members(&self, algorithm: Algorithm) -> Option<Map<String, Value>> {
        let encode = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let members = match self {
            PrivateKey::Rsa(pair, _) => {
                let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref())?;
                vec![("e", encode(exponent)), ("kty", "RSA".into()), ("n", encode(modulus))]
            }
            PrivateKey::Curve(pair) => {
                let KeyFamily::Curve(curve) = algorithm.family() else { return None };
                // SEC 1, section 2.3.3: an uncompressed point begins with 4.
                let point = pair.public_key().as_ref().strip_prefix(&[4])?;
                let (x, y) = point.split_at(point.len() / 2);
                vec![("crv", curve.into()), ("kty", "EC".into()), ("x", encode(x)), ("y", encode(y))]
            }
            PrivateKey::Ed25519(pair) => {
                let public = pair.public_key().as_ref();
                vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", encode(public))]
            }
        };
        Some(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            PrivateKey::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
            PrivateKey::Curve(pair) => Some(pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()),
            PrivateKey::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
        _ => return None,
    })
}

/// Modulus and exponent of an `RSAPublicKey` in DER (RFC 8017, appendix A.1.1), without leading zeros.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_element(der, 0x30)?;
    let (modulus, rest) = der_element(sequence, 0x02)?;
    let (exponent, _) = der_element(rest, 0x02)?;
    let trim = |number: &'_ [u8]| number.iter().position(|byte| *byte != 0).unwrap_or(0);
    Some((&modulus[trim(modulus)..], &exponent[trim(exponent)..]))
}

/// The content of the element with this tag at the beginning of the bytes, and what follows it.
fn der_element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
        (digits.iter().try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add(usize::from(*digit)))?, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::token::UnverifiedToken;
    use crate::plugin_api::token::jwk::PublishedKey;
    use crate::plugin_api::token::signature::signing::Signer;

    const ALGORITHMS: [Algorithm; 10] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::EdDsa,
    ];

    #[test]
    fn published_keys_verify_the_tokens() {
        for algorithm in ALGORITHMS {
            let signer = Signer::for_algorithm(algorithm);
            let key = SigningKey::from_pem(signer.private_pem().as_bytes(), Some(algorithm)).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let claims = json!({"sub": "anna", "exp": 7}).as_object().unwrap().clone();
            let text = key.sign(&claims).unwrap();
            let token = UnverifiedToken::parse(text.as_bytes()).unwrap();
            assert_eq!((token.algorithm, token.key_id(), &token.claims), (algorithm, Some(key.id()), &claims));
            let set = json!({"keys": [key.jwk()]}).to_string();
            let published = PublishedKey::parse_set(set.as_bytes()).unwrap();
            assert_eq!(published[0].id.as_deref(), Some(key.id()), "{algorithm}");
            let public = published[0].for_algorithm(algorithm).unwrap();
            assert!(public.verifies(token.signed, &token.signature), "{algorithm}");
            assert!(!public.verifies(&token.signed[1..], &token.signature), "{algorithm}");
            let expected = signer.jwk(Some(key.id()));
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(key.jwk()[name], *value, "{algorithm} {name}");
            }
            let debug = format!("{key:?}");
            assert!(debug.len() < 120, "{debug}");
        }
    }

    #[test]
    fn the_key_decides_about_the_algorithm() {
        for algorithm in DEFAULT_ALGORITHMS {
            let pem = Signer::for_algorithm(algorithm).private_pem();
            assert_eq!(SigningKey::from_pem(pem.as_bytes(), None).unwrap().algorithm(), algorithm);
        }
    }

    // RFC 7638, section 3.1
    #[test]
    fn the_id_is_the_thumbprint() {
        let members = json!({
            "e": "AQAB", "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
                  FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c\
                  7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF4\
                  4-csFCur-kEgU8awapJzKnqDKgw",
        });
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.to_string().as_bytes()));
        assert_eq!(id, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn messages_about_unusable_keys_do_not_contain_them() {
        let (rsa, curve) = (Signer::for_algorithm(Algorithm::Rs256), Signer::for_algorithm(Algorithm::Es256));
        for (pem, algorithm, expected) in [
            ("secret".to_owned(), None, InvalidSigningKey::NotPem),
            (curve.public_pem(), None, InvalidSigningKey::NotPem),
            (rsa.private_pem(), Some(Algorithm::Es256), InvalidSigningKey::Unfit { algorithm: Algorithm::Es256 }),
            (curve.private_pem(), Some(Algorithm::Hs256), InvalidSigningKey::Unfit { algorithm: Algorithm::Hs256 }),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
                None,
                InvalidSigningKey::Unsupported,
            ),
        ] {
            assert_eq!(SigningKey::from_pem(pem.as_bytes(), algorithm).unwrap_err(), expected);
        }
        let truncated: [&[u8]; 5] = [&[], &[0x30], &[0x30, 5, 1], &[0x30, 0x88, 255], &[0x30, 3, 2, 9, 1]];
        assert!(truncated.iter().all(|der| rsa_numbers(der).is_none()));
    }
}
