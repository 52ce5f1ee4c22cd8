//! Public keys as issuers publish them: a set of JSON Web Keys (RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde_json::Value;

use super::signature::{Algorithm, Family, PublicKey};

/// One key of a set, parsed for every algorithm that it may be used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// `kid`, by which tokens name it.
    pub id: Option<Box<str>>,
    keys: Vec<PublicKey>,
}

/// Keys beyond this number are left out: a set is from a stranger, and issuers have a handful.
const MOST_KEYS: usize = 64;

impl PublishedKey {
    /// The keys of a set that can check signatures. Others are left out, as RFC 7517, section 5, wants it: keys for
    /// encryption, of other curves, and secrets, which must not stand there.
    pub fn all_of(set: &[u8]) -> Result<Vec<PublishedKey>, NoSet> {
        let set: Value = serde_json::from_slice(set).map_err(|_| NoSet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(NoSet)?;
        Ok(keys.iter().filter_map(PublishedKey::read).take(MOST_KEYS).collect())
    }

    fn read(key: &Value) -> Option<Self> {
        // What is said of the algorithm is read from the text, as the crate does not know ES512.
        let only = key.get("alg").map(|name| name.as_str().and_then(Algorithm::named));
        let algorithms: &[Algorithm] = match &only {
            None => &Algorithm::ALL,
            Some(Some(algorithm)) => std::slice::from_ref(algorithm),
            Some(None) => return None,
        };
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let is_to_sign = key.common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature);
        let operations = key.common.key_operations.as_ref();
        let is_to_verify = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !is_to_sign || !is_to_verify {
            return None;
        }
        let keys = algorithms.iter().filter_map(|algorithm| parse(*algorithm, &key.algorithm));
        let keys: Vec<PublicKey> = keys.collect();
        let id = key.common.key_id.map(String::into_boxed_str);
        Some(PublishedKey { id, keys }).filter(|key| !key.keys.is_empty())
    }

    /// The key as this algorithm takes it.
    pub fn of(&self, algorithm: Algorithm) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.algorithm() == algorithm)
    }
}

/// A document that is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no set of JSON Web Keys, an object with a list `keys`")]
pub struct NoSet;

fn parse(algorithm: Algorithm, parameters: &AlgorithmParameters) -> Option<PublicKey> {
    match (algorithm.family(), parameters) {
        (Family::Rsa, AlgorithmParameters::RSA(rsa)) => {
            PublicKey::from_rsa(algorithm, &number(&rsa.n)?, &number(&rsa.e)?).ok()
        }
        (Family::Curve(curve), AlgorithmParameters::EllipticCurve(point)) => {
            let (name, size) = match point.curve {
                EllipticCurve::P256 => ("P-256", 32),
                EllipticCurve::P384 => ("P-384", 48),
                EllipticCurve::P521 => ("P-521", 66),
                _ => return None,
            };
            let (x, y) = (number(&point.x)?, number(&point.y)?);
            // RFC 7518, section 6.2.1.2: coordinates have the full size of the curve.
            if name != curve || x.len() != size || y.len() != size {
                return None;
            }
            // SEC 1, section 2.3.3: a point that is not compressed.
            PublicKey::from_der(algorithm, &[&[4][..], &x, &y].concat()).ok()
        }
        (Family::Ed25519, AlgorithmParameters::OctetKeyPair(pair)) if pair.curve == EllipticCurve::Ed25519 => {
            let bytes = number(&pair.x).filter(|bytes| bytes.len() == 32)?;
            PublicKey::from_der(algorithm, &bytes).ok()
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests;
