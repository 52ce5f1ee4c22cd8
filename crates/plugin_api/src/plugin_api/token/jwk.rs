//! Parsing of JSON Web Key Sets (RFC 7517) that token issuers publish.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde_json::Value;

use super::key_issuer::KeyIssuer;
use super::signature::{Algorithm, KeyFamily, PublicKey};
use super::unverified_token::UnverifiedToken;

/// A public key of a set, parsed for each algorithm that it may be used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// The key id (`kid`), which tokens refer to.
    pub id: Option<Box<str>>,
    /// `None`: the key is for all tokens that are verified with its set.
    issuer: Option<KeyIssuer>,
    keys: Vec<PublicKey>,
}

/// The most keys of a set that are used. Further keys are ignored: a set is untrusted input, and issuers publish only a
/// few keys.
const MAX_KEYS: usize = 64;

impl PublishedKey {
    /// Parses the keys of a set that can verify signatures. Other keys are ignored (RFC 7517, section 5): keys for
    /// encryption, keys of unsupported curves, and secrets, which must not be published.
    pub fn parse_set(set: &[u8]) -> Result<Vec<PublishedKey>, InvalidKeySet> {
        let set: Value = serde_json::from_slice(set).map_err(|_| InvalidKeySet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(InvalidKeySet)?;
        Ok(keys.iter().filter_map(PublishedKey::parse).take(MAX_KEYS).collect())
    }

    fn parse(key: &Value) -> Option<Self> {
        // `alg` is read from the JSON value, because the crate does not support ES512. `Some(None)`: an algorithm that
        // Portico does not support.
        let required_algorithm = key.get("alg").map(|name| name.as_str().and_then(Algorithm::parse));
        let algorithms: &[Algorithm] = match &required_algorithm {
            None => &Algorithm::ALL,
            Some(Some(algorithm)) => std::slice::from_ref(algorithm),
            Some(None) => return None,
        };
        let issuer = match key.get("issuer") {
            None | Some(Value::Null) => None,
            Some(issuer) => Some(KeyIssuer::parse(issuer)?),
        };
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let is_for_signatures =
            key.common.public_key_use.as_ref().is_none_or(|key_use| *key_use == PublicKeyUse::Signature);
        let operations = key.common.key_operations.as_ref();
        let is_for_verification = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !is_for_signatures || !is_for_verification {
            return None;
        }
        let keys = algorithms.iter().filter_map(|algorithm| parse_public_key(*algorithm, &key.algorithm));
        let keys: Vec<PublicKey> = keys.collect();
        let id = key.common.key_id.map(String::into_boxed_str);
        Some(PublishedKey { id, issuer, keys }).filter(|key| !key.keys.is_empty())
    }

    /// Whether the token is one of the issuer of this key, as far as the key names one.
    pub(super) fn may_sign(&self, token: &UnverifiedToken<'_>) -> bool {
        self.issuer.as_ref().is_none_or(|issuer| issuer.may_sign(token))
    }

    /// The key parsed for this algorithm.
    pub fn for_algorithm(&self, algorithm: Algorithm) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.algorithm() == algorithm)
    }
}

/// The document is not a JSON Web Key Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a JSON Web Key Set (an object with a list `keys`)")]
pub struct InvalidKeySet;

fn parse_public_key(algorithm: Algorithm, parameters: &AlgorithmParameters) -> Option<PublicKey> {
    match (algorithm.family(), parameters) {
        (KeyFamily::Rsa, AlgorithmParameters::RSA(rsa)) => {
            PublicKey::from_rsa(algorithm, &decode_base64url(&rsa.n)?, &decode_base64url(&rsa.e)?).ok()
        }
        (KeyFamily::Curve(required_curve), AlgorithmParameters::EllipticCurve(point)) => {
            let (curve, coordinate_size) = match point.curve {
                EllipticCurve::P256 => ("P-256", 32),
                EllipticCurve::P384 => ("P-384", 48),
                EllipticCurve::P521 => ("P-521", 66),
                _ => return None,
            };
            let (x, y) = (decode_base64url(&point.x)?, decode_base64url(&point.y)?);
            // RFC 7518, section 6.2.1.2: coordinates have the full size of the curve.
            if curve != required_curve || x.len() != coordinate_size || y.len() != coordinate_size {
                return None;
            }
            // SEC 1, section 2.3.3: an uncompressed point begins with 4.
            PublicKey::from_der(algorithm, &[&[4][..], &x, &y].concat()).ok()
        }
        (KeyFamily::Ed25519, AlgorithmParameters::OctetKeyPair(pair)) if pair.curve == EllipticCurve::Ed25519 => {
            let bytes = decode_base64url(&pair.x).filter(|bytes| bytes.len() == 32)?;
            PublicKey::from_der(algorithm, &bytes).ok()
        }
        _ => None,
    }
}

fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests;
