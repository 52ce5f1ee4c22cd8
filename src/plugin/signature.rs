//! Signatures of tokens: the algorithms, keys parsed once, and the check itself.
//!
//! RFC 7518, section 3, and RFC 8037 say what the names mean. A key belongs to one algorithm, so that a token cannot choose
//! how it is checked.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{self as lc, ParsedPublicKey, RsaParameters, VerificationAlgorithm};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

/// What an algorithm takes as key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Secret,
    Rsa,
    /// A curve, by the name that JWKs have for it.
    Curve(&'static str),
    Ed25519,
}

impl Algorithm {
    pub const ALL: [Algorithm; 13] = [
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::EdDsa,
    ];

    /// By the name that stands in `alg` of a token and in `algorithm` of a Secret.
    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    pub fn family(self) -> Family {
        match self {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => Family::Secret,
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => Family::Rsa,
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => Family::Rsa,
            Algorithm::Es256 => Family::Curve("P-256"),
            Algorithm::Es384 => Family::Curve("P-384"),
            Algorithm::Es512 => Family::Curve("P-521"),
            Algorithm::EdDsa => Family::Ed25519,
        }
    }

    /// Whether whoever can check a signature can make one.
    pub fn is_symmetric(self) -> bool {
        self.family() == Family::Secret
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Algorithm::Rs256 => Some(&lc::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&lc::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&lc::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => Some(&lc::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Some(&lc::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Some(&lc::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }

    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Algorithm::Es256 => Some(&lc::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => Some(&lc::ECDSA_P384_SHA384_FIXED),
            Algorithm::Es512 => Some(&lc::ECDSA_P521_SHA512_FIXED),
            Algorithm::EdDsa => Some(&lc::ED25519),
            _ => self.rsa().map(|rsa| rsa as &dyn VerificationAlgorithm),
        }
    }

    /// What would be right as key.
    fn wanted(self) -> &'static str {
        match self.family() {
            Family::Secret => "a secret",
            Family::Rsa => "an RSA key",
            Family::Curve("P-256") => "a key of the curve P-256",
            Family::Curve("P-384") => "a key of the curve P-384",
            Family::Curve(_) => "a key of the curve P-521",
            Family::Ed25519 => "an Ed25519 key",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a consumer's tokens are checked with.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    Secret(Secret),
    Public(PublicKey),
}

impl Key {
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Key::Secret(secret) => secret.algorithm,
            Key::Public(key) => key.algorithm,
        }
    }
}

impl fmt::Debug for Key {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Key").field(&self.algorithm()).finish()
    }
}

/// A secret for HMAC, as it stands in the Kubernetes Secret.
#[derive(Clone)]
pub struct Secret {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Secret {
    /// The algorithm must be symmetric, and the secret not empty. Every byte counts, also a line break at the end.
    pub fn new(algorithm: Algorithm, bytes: impl Into<Box<[u8]>>) -> Result<Self, WrongKey> {
        let bytes = bytes.into();
        if !algorithm.is_symmetric() {
            return Err(WrongKey::NeedsPublicKey { algorithm });
        }
        if bytes.is_empty() {
            return Err(WrongKey::EmptySecret);
        }
        Ok(Secret { algorithm, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && constant_time::verify_slices_are_equal(&self.bytes, &other.bytes).is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secret").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Whether an HMAC is the right one, found out in constant time. False for every other algorithm.
pub fn hmac_verifies(algorithm: Algorithm, secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let hash = match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return false,
    };
    hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
}

/// A public key, parsed for one algorithm.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// Of PEM as `openssl pkey -pubout` writes it, or with `RSA PUBLIC KEY`.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, WrongKey> {
        PublicKey::from_der(algorithm, &der_of(pem)?)
    }

    /// Of SubjectPublicKeyInfo; also RSAPublicKey, the point of a curve, or the 32 bytes of an Ed25519 key.
    pub(super) fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, WrongKey> {
        let Some(verification) = algorithm.verification() else {
            return Err(WrongKey::NeedsSecret { algorithm });
        };
        let key = ParsedPublicKey::new(verification, der).map_err(|_| WrongKey::unfit(algorithm))?;
        PublicKey::checked(algorithm, key)
    }

    /// Of an RSA key's modulus and exponent, big-endian.
    pub(super) fn from_rsa(algorithm: Algorithm, modulus: &[u8], exponent: &[u8]) -> Result<Self, WrongKey> {
        let Some(rsa) = algorithm.rsa() else {
            return Err(WrongKey::unfit(algorithm));
        };
        let key = lc::RsaPublicKeyComponents { n: without_zeros(modulus), e: without_zeros(exponent) };
        let key = key.to_parsed_public_key(rsa).map_err(|_| WrongKey::unfit(algorithm))?;
        PublicKey::checked(algorithm, key)
    }

    /// What the library would refuse only when a signature is checked is refused now: RSA keys that are too short or too long.
    fn checked(algorithm: Algorithm, key: ParsedPublicKey) -> Result<Self, WrongKey> {
        if algorithm.family() == Family::Rsa {
            let der = key.as_der().map_err(|_| WrongKey::unfit(algorithm))?;
            PublicEncryptingKey::from_der(der.as_ref()).map_err(|_| WrongKey::Size)?;
        }
        Ok(PublicKey { algorithm, key })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether this signature of the message was made with the private half.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.key.as_ref() == other.key.as_ref()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PublicKey").field(&self.algorithm).finish()
    }
}

/// Why something is not the key that it should be. Says nothing of what was written instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongKey {
    #[error(
        "is not PEM; write the whole public key, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, with its \
         line breaks"
    )]
    NotPem,
    #[error("is a private key; use the public one, which `openssl pkey -pubout` prints")]
    Private,
    #[error("is a certificate; use its public key, which `openssl x509 -pubkey -noout` prints")]
    Certificate,
    #[error("holds no public key that {algorithm} can use; it takes {}", algorithm.wanted())]
    Unfit { algorithm: Algorithm },
    #[error("is an RSA key of fewer than 2048 or more than 8192 bits; use one of 2048 bits or some more")]
    Size,
    #[error("{algorithm} takes a secret and no public key; set `secret`, or another `algorithm`")]
    NeedsSecret { algorithm: Algorithm },
    #[error("{algorithm} takes a public key and no secret; set `rsa_public_key`, or another `algorithm`")]
    NeedsPublicKey { algorithm: Algorithm },
    #[error("is empty, so that anybody could sign; write a long random secret")]
    EmptySecret,
}

impl WrongKey {
    fn unfit(algorithm: Algorithm) -> Self {
        WrongKey::Unfit { algorithm }
    }
}

/// The bytes of the first block of PEM, if that is a public key.
fn der_of(pem: &[u8]) -> Result<Vec<u8>, WrongKey> {
    let text = std::str::from_utf8(pem).map_err(|_| WrongKey::NotPem)?;
    let (_, block) = text.split_once("-----BEGIN ").ok_or(WrongKey::NotPem)?;
    let (label, block) = block.split_once("-----").ok_or(WrongKey::NotPem)?;
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
        "CERTIFICATE" | "TRUSTED CERTIFICATE" => return Err(WrongKey::Certificate),
        label if label.ends_with("PRIVATE KEY") => return Err(WrongKey::Private),
        _ => return Err(WrongKey::NotPem),
    }
    let (body, _) = block.split_once(&format!("-----END {label}-----")).ok_or(WrongKey::NotPem)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| WrongKey::NotPem)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

#[cfg(test)]
pub(crate) mod signing;
#[cfg(test)]
mod tests;
