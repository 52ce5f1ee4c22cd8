//! Verification of token signatures: algorithms, parsed keys, and the verification itself.
//!
//! RFC 7518, section 3, and RFC 8037 define the algorithm names. Each key is bound to one algorithm, so that a token
//! cannot choose how it is verified.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{self as lc, ParsedPublicKey, RsaParameters, VerificationAlgorithm};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A signature algorithm of tokens.
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

/// The type of key that an algorithm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFamily {
    Secret,
    Rsa,
    /// An elliptic curve key, with the name of the curve in JSON Web Keys.
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

    /// Parses the name in `alg` of a token and in `algorithm` of a Secret.
    pub fn parse(name: &str) -> Option<Algorithm> {
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

    pub fn family(self) -> KeyFamily {
        match self {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => KeyFamily::Secret,
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => KeyFamily::Rsa,
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => KeyFamily::Rsa,
            Algorithm::Es256 => KeyFamily::Curve("P-256"),
            Algorithm::Es384 => KeyFamily::Curve("P-384"),
            Algorithm::Es512 => KeyFamily::Curve("P-521"),
            Algorithm::EdDsa => KeyFamily::Ed25519,
        }
    }

    /// Whether signing and verifying use the same secret.
    pub fn is_symmetric(self) -> bool {
        self.family() == KeyFamily::Secret
    }

    fn rsa_parameters(self) -> Option<&'static RsaParameters> {
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

    /// `None` for symmetric algorithms.
    fn verification_algorithm(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Algorithm::Es256 => Some(&lc::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => Some(&lc::ECDSA_P384_SHA384_FIXED),
            Algorithm::Es512 => Some(&lc::ECDSA_P521_SHA512_FIXED),
            Algorithm::EdDsa => Some(&lc::ED25519),
            _ => self.rsa_parameters().map(|rsa| rsa as &dyn VerificationAlgorithm),
        }
    }

    /// A description of the key that the algorithm needs, for error messages.
    fn expected_key(self) -> &'static str {
        match self.family() {
            KeyFamily::Secret => "a secret",
            KeyFamily::Rsa => "an RSA key",
            KeyFamily::Curve("P-256") => "a key of the curve P-256",
            KeyFamily::Curve("P-384") => "a key of the curve P-384",
            KeyFamily::Curve(_) => "a key of the curve P-521",
            KeyFamily::Ed25519 => "an Ed25519 key",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The key that verifies the tokens of a consumer.
#[derive(Clone, PartialEq, Eq)]
pub enum VerificationKey {
    Secret(HmacSecret),
    Public(PublicKey),
}

impl VerificationKey {
    pub fn algorithm(&self) -> Algorithm {
        match self {
            VerificationKey::Secret(secret) => secret.algorithm,
            VerificationKey::Public(key) => key.algorithm,
        }
    }
}

impl fmt::Debug for VerificationKey {
    /// Omits the key itself.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("VerificationKey").field(&self.algorithm()).finish()
    }
}

/// An HMAC secret for one algorithm. Its bytes are exactly those of the Kubernetes Secret.
#[derive(Clone)]
pub struct HmacSecret {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl HmacSecret {
    /// The algorithm must be symmetric, and the secret must not be empty. A trailing line break is part of the secret.
    pub fn new(algorithm: Algorithm, bytes: impl Into<Box<[u8]>>) -> Result<Self, InvalidKey> {
        let bytes = bytes.into();
        if !algorithm.is_symmetric() {
            return Err(InvalidKey::NeedsPublicKey { algorithm });
        }
        if bytes.is_empty() {
            return Err(InvalidKey::EmptySecret);
        }
        Ok(HmacSecret { algorithm, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for HmacSecret {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && constant_time::verify_slices_are_equal(&self.bytes, &other.bytes).is_ok()
    }
}

impl Eq for HmacSecret {}

impl fmt::Debug for HmacSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HmacSecret").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Whether the signature is the HMAC of the message, compared in constant time. False for asymmetric algorithms.
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
    /// Parses PEM with the label `PUBLIC KEY`, as `openssl pkey -pubout` prints it, or `RSA PUBLIC KEY`.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, InvalidKey> {
        PublicKey::from_der(algorithm, &decode_pem(pem)?)
    }

    /// Parses SubjectPublicKeyInfo, RSAPublicKey, the point of a curve, or the 32 bytes of an Ed25519 key.
    pub(super) fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, InvalidKey> {
        let Some(verification) = algorithm.verification_algorithm() else {
            return Err(InvalidKey::NeedsSecret { algorithm });
        };
        let key = ParsedPublicKey::new(verification, der).map_err(|_| InvalidKey::unfit(algorithm))?;
        PublicKey::validate(algorithm, key)
    }

    /// Parses the big-endian modulus and exponent of an RSA key.
    pub(super) fn from_rsa(algorithm: Algorithm, modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidKey> {
        let Some(rsa) = algorithm.rsa_parameters() else {
            return Err(InvalidKey::unfit(algorithm));
        };
        let key = lc::RsaPublicKeyComponents { n: without_leading_zeros(modulus), e: without_leading_zeros(exponent) };
        let key = key.to_parsed_public_key(rsa).map_err(|_| InvalidKey::unfit(algorithm))?;
        PublicKey::validate(algorithm, key)
    }

    /// Rejects RSA keys that are too short or too long. The library would reject them only when it verifies a
    /// signature.
    fn validate(algorithm: Algorithm, key: ParsedPublicKey) -> Result<Self, InvalidKey> {
        if algorithm.family() == KeyFamily::Rsa {
            let der = key.as_der().map_err(|_| InvalidKey::unfit(algorithm))?;
            PublicEncryptingKey::from_der(der.as_ref()).map_err(|_| InvalidKey::Size)?;
        }
        Ok(PublicKey { algorithm, key })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature of the message was made with the private key.
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

/// Why a key is invalid. The messages do not contain the configured value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error(
        "is not PEM; write the whole public key, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, with its \
         line breaks"
    )]
    NotPem,
    #[error("is a private key; use the public key, which `openssl pkey -pubout` prints")]
    Private,
    #[error("is a certificate; use its public key, which `openssl x509 -pubkey -noout` prints")]
    Certificate,
    #[error("is not a public key for {algorithm}; use {}", algorithm.expected_key())]
    Unfit { algorithm: Algorithm },
    #[error("is an RSA key of fewer than 2048 or more than 8192 bits; use a key of 2048 to 8192 bits")]
    Size,
    #[error("{algorithm} needs a secret, not a public key; set `secret`, or use another `algorithm`")]
    NeedsSecret { algorithm: Algorithm },
    #[error("{algorithm} needs a public key, not a secret; set `rsa_public_key`, or use another `algorithm`")]
    NeedsPublicKey { algorithm: Algorithm },
    #[error("is empty, so any client could sign tokens; use a long random secret")]
    EmptySecret,
}

impl InvalidKey {
    fn unfit(algorithm: Algorithm) -> Self {
        InvalidKey::Unfit { algorithm }
    }
}

/// The bytes of the first PEM block, if it is a public key.
fn decode_pem(pem: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let text = std::str::from_utf8(pem).map_err(|_| InvalidKey::NotPem)?;
    let (_, block) = text.split_once("-----BEGIN ").ok_or(InvalidKey::NotPem)?;
    let (label, block) = block.split_once("-----").ok_or(InvalidKey::NotPem)?;
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
        "CERTIFICATE" | "TRUSTED CERTIFICATE" => return Err(InvalidKey::Certificate),
        label if label.ends_with("PRIVATE KEY") => return Err(InvalidKey::Private),
        _ => return Err(InvalidKey::NotPem),
    }
    let (body, _) = block.split_once(&format!("-----END {label}-----")).ok_or(InvalidKey::NotPem)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| InvalidKey::NotPem)
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

/// For tests.
#[expect(clippy::unwrap_used, reason = "only tests run it")]
pub mod signing;
#[cfg(test)]
mod tests;
