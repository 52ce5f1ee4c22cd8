//! Tokens that are compared with Envoy: signed by one key for each algorithm, with which both proxies verify them.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use serde_json::{Value, json};

use crate::tokens::{self, ISSUER, unsigned_token};

/// The host of the route that requires a token.
pub(crate) const TOKEN_HOST: &str = "token.bench.example";

/// The tokens of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenLoad {
    pub(crate) algorithm: TokenAlgorithm,
    /// How many tokens are sent in rotation. With one, both proxies find it in their caches.
    pub(crate) tokens: usize,
}

/// More than three times as many as Portico's cache has slots, so that fewer than one in twenty is found there.
pub(crate) const UNCACHED: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenAlgorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl TokenLoad {
    /// The header lines of the requests.
    pub(crate) fn fields(self) -> Result<Vec<Arc<str>>> {
        let pool = self.algorithm.pool()?;
        let tokens = pool.tokens(self.tokens)?;
        Ok(tokens.iter().map(|token| format!("authorization: Bearer {token}\r\n").into()).collect())
    }
}

impl TokenAlgorithm {
    fn name(self) -> &'static str {
        match self {
            TokenAlgorithm::Rs256 => "RS256",
            TokenAlgorithm::Es256 => "ES256",
            TokenAlgorithm::EdDsa => "EdDSA",
        }
    }

    /// The key and the tokens, which all servers of the process share.
    pub(crate) fn pool(self) -> Result<&'static TokenPool> {
        static POOLS: [OnceLock<TokenPool>; 3] = [const { OnceLock::new() }; 3];
        let pool = &POOLS[self as usize];
        if let Some(pool) = pool.get() {
            return Ok(pool);
        }
        let created = TokenPool::new(self)?;
        Ok(pool.get_or_init(|| created))
    }
}

/// A key with its tokens.
pub(crate) struct TokenPool {
    algorithm: TokenAlgorithm,
    key: KeyPair,
    /// With signatures of 64 bytes, as JWTs have them.
    ecdsa: Option<EcdsaKeyPair>,
    tokens: OnceLock<Vec<Arc<str>>>,
    first: Arc<str>,
}

impl TokenPool {
    fn new(algorithm: TokenAlgorithm) -> Result<TokenPool> {
        let key = match algorithm {
            TokenAlgorithm::Rs256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            TokenAlgorithm::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            TokenAlgorithm::EdDsa => KeyPair::generate_for(&PKCS_ED25519)?,
        };
        let ecdsa = match algorithm {
            TokenAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der());
                Some(pair.context("the key cannot sign")?)
            }
            TokenAlgorithm::Rs256 | TokenAlgorithm::EdDsa => None,
        };
        let mut pool = TokenPool { algorithm, key, ecdsa, tokens: OnceLock::new(), first: "".into() };
        pool.first = pool.token(0)?;
        Ok(pool)
    }

    /// Signing the tokens takes seconds, with RSA half a minute.
    fn tokens(&self, count: usize) -> Result<&[Arc<str>]> {
        if count == 1 {
            return Ok(std::slice::from_ref(&self.first));
        }
        if let Some(tokens) = self.tokens.get() {
            return tokens.get(..count).context("all cases with several tokens have the same number of them");
        }
        let tokens = (0..count).map(|number| self.token(number)).collect::<Result<Vec<_>>>()?;
        Ok(self.tokens.get_or_init(|| tokens))
    }

    fn token(&self, number: usize) -> Result<Arc<str>> {
        let unsigned = unsigned_token(self.algorithm.name(), number)?;
        match &self.ecdsa {
            Some(pair) => {
                let signature = pair.sign(&SystemRandom::new(), unsigned.as_bytes()).context("cannot sign a token")?;
                Ok(format!("{unsigned}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
            }
            None => tokens::sign(&self.key, &unsigned),
        }
    }

    /// The Secret with which Portico verifies the tokens.
    pub(crate) fn secret(&self) -> String {
        tokens::secret_for(&self.key, self.algorithm.name())
    }

    /// The key set with which Envoy verifies the tokens.
    pub(crate) fn key_set(&self) -> Result<String> {
        let encode = |bytes: &[u8]| Value::from(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let public_key = self.key.der_bytes();
        let mut key = match self.algorithm {
            TokenAlgorithm::Rs256 => {
                let (modulus, exponent) = rsa_numbers(public_key).context("the public key is not one of RSA")?;
                json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
            }
            TokenAlgorithm::Es256 => {
                // After the byte that says that the point is not compressed.
                let (x, y) = public_key[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            TokenAlgorithm::EdDsa => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(public_key) }),
        };
        key["alg"] = self.algorithm.name().into();
        Ok(json!({ "keys": [key] }).to_string())
    }

    /// Envoy's provider of the tokens. `caches`: whether it keeps tokens that it has verified.
    pub(crate) fn envoy_provider(&self, caches: bool) -> Result<Value> {
        let mut provider = json!({
            "issuer": ISSUER,
            "local_jwks": { "inline_string": self.key_set()? },
            // As Portico, which also forwards the token.
            "forward": true,
        });
        if caches {
            provider["jwt_cache_config"] = json!({ "jwt_cache_size": 100 });
        }
        Ok(provider)
    }
}

/// The modulus and the exponent of a public key in DER (RFC 8017, appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(0x30, der)?;
    let (modulus, rest) = element(0x02, sequence)?;
    let (exponent, _) = element(0x02, rest)?;
    // A zero says that the number is not negative.
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

/// The contents of an element with this tag, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    // Lengths from 128 are in the bytes that follow, of which the lower bits are the number.
    let (length, rest) = match length {
        0..0x80 => (usize::from(length), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length).filter(|_| found == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [TokenAlgorithm; 3] = [TokenAlgorithm::Rs256, TokenAlgorithm::Es256, TokenAlgorithm::EdDsa];

    #[test]
    fn keys_and_tokens_have_the_form_that_proxies_read() {
        for algorithm in ALL {
            let pool = algorithm.pool().unwrap();
            let set: Value = serde_json::from_str(&pool.key_set().unwrap()).unwrap();
            let decoded = |name: &str| set["keys"][0][name].as_str().map(|text| BASE64_URL_SAFE_NO_PAD.decode(text));
            let length = |name| decoded(name).map(|bytes| bytes.unwrap().len());
            let expected = match algorithm {
                TokenAlgorithm::Rs256 => [Some(256), Some(3), None, None],
                TokenAlgorithm::Es256 => [None, None, Some(32), Some(32)],
                TokenAlgorithm::EdDsa => [None, None, Some(32), None],
            };
            assert_eq!(["n", "e", "x", "y"].map(length), expected, "{algorithm:?}");
            let signature = |token: &str| {
                let part = token.trim_end().rsplit('.').next().unwrap().to_owned();
                BASE64_URL_SAFE_NO_PAD.decode(part).unwrap().len()
            };
            let fields = TokenLoad { algorithm, tokens: 1 }.fields().unwrap();
            let expected = if algorithm == TokenAlgorithm::Rs256 { 256 } else { 64 };
            assert_eq!((fields.len(), signature(&fields[0])), (1, expected), "{algorithm:?}");
            assert!(pool.secret().contains(&format!("algorithm: {}", algorithm.name())));
        }
    }

    #[test]
    fn tokens_in_rotation_are_different() {
        let fields = TokenLoad { algorithm: TokenAlgorithm::Es256, tokens: 50 }.fields().unwrap();
        let different: std::collections::BTreeSet<_> = fields.iter().collect();
        assert_eq!((fields.len(), different.len()), (50, 50));
    }

    #[test]
    fn only_whole_numbers_are_read() {
        let long = [[0x30, 0x81, 133, 0x02, 0x81, 128].as_slice(), &[1; 128], &[2, 0]].concat();
        assert_eq!(rsa_numbers(&long), Some(([1; 128].as_slice(), [].as_slice())));
        assert_eq!(rsa_numbers(&[0x30, 7, 2, 2, 0, 200, 2, 1, 3]), Some(([200].as_slice(), [3].as_slice())));
        for wrong in [&[][..], &[0x30], &[0x30, 5, 2, 1], &[0x31, 0], &[0x30, 0x84, 1], &[0x30, 2, 2, 9]] {
            assert_eq!(rsa_numbers(wrong), None, "{wrong:?}");
        }
    }
}
