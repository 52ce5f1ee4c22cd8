//! The signature algorithms that configurations may name where keys are published. HMAC is excluded, because its keys
//! must not be published.

use schemars::JsonSchema;
use serde::Deserialize;

use super::signature::Algorithm;

/// A signature algorithm with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AsymmetricAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<AsymmetricAlgorithm> for Algorithm {
    fn from(algorithm: AsymmetricAlgorithm) -> Self {
        match algorithm {
            AsymmetricAlgorithm::Rs256 => Algorithm::Rs256,
            AsymmetricAlgorithm::Rs384 => Algorithm::Rs384,
            AsymmetricAlgorithm::Rs512 => Algorithm::Rs512,
            AsymmetricAlgorithm::Es256 => Algorithm::Es256,
            AsymmetricAlgorithm::Es384 => Algorithm::Es384,
            AsymmetricAlgorithm::Es512 => Algorithm::Es512,
            AsymmetricAlgorithm::Ps256 => Algorithm::Ps256,
            AsymmetricAlgorithm::Ps384 => Algorithm::Ps384,
            AsymmetricAlgorithm::Ps512 => Algorithm::Ps512,
            AsymmetricAlgorithm::EdDsa => Algorithm::EdDsa,
        }
    }
}
