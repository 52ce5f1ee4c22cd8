//! Secrets with which consumers sign requests, and the algorithms of the signatures.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A secret with which a consumer signs: exactly the bytes of the Kubernetes Secret.
#[derive(Clone)]
pub struct SigningSecret(Box<[u8]>);

impl SigningSecret {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        SigningSecret(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for SigningSecret {}

impl fmt::Debug for SigningSecret {
    /// Omits the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningSecret")
    }
}

/// The algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HmacAlgorithm {
    #[serde(rename = "hmac-sha1")]
    Sha1,
    #[serde(rename = "hmac-sha224")]
    Sha224,
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha384")]
    Sha384,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

impl HmacAlgorithm {
    pub fn name(self) -> &'static str {
        match self {
            HmacAlgorithm::Sha1 => "hmac-sha1",
            HmacAlgorithm::Sha224 => "hmac-sha224",
            HmacAlgorithm::Sha256 => "hmac-sha256",
            HmacAlgorithm::Sha384 => "hmac-sha384",
            HmacAlgorithm::Sha512 => "hmac-sha512",
        }
    }

    pub fn hash(self) -> hmac::Algorithm {
        match self {
            // SHA-1 is broken as a digest, but not as part of HMAC.
            HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacAlgorithm::Sha224 => hmac::HMAC_SHA224,
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HmacAlgorithm::Sha384 => hmac::HMAC_SHA384,
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
        }
    }
}
