//! Signing of tokens in tests, with an independent implementation.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::{Algorithm, KeyFamily};

/// A key that signs tokens.
pub enum Signer {
    Secret(Vec<u8>),
    Pair(KeyFamily, rcgen::KeyPair),
}

impl Signer {
    pub fn secret(secret: &[u8]) -> Self {
        Signer::Secret(secret.to_vec())
    }

    /// Generates a key for this algorithm.
    pub fn for_algorithm(algorithm: Algorithm) -> Self {
        let pair = match algorithm.family() {
            KeyFamily::Secret => return Signer::secret(b"a secret"),
            KeyFamily::Rsa => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
            KeyFamily::Curve("P-256") => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyFamily::Curve("P-384") => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyFamily::Curve(_) => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            KeyFamily::Ed25519 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        Signer::Pair(algorithm.family(), pair.unwrap())
    }

    fn pair(&self) -> &rcgen::KeyPair {
        match self {
            Signer::Secret(_) => panic!("a secret is not a key pair"),
            Signer::Pair(_, pair) => pair,
        }
    }

    pub fn public_pem(&self) -> String {
        self.pair().public_key_pem()
    }

    pub fn private_pem(&self) -> String {
        self.pair().serialize_pem()
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self, id: Option<&str>) -> Value {
        let Signer::Pair(family, pair) = self else { return json!({"kty": "oct", "k": "YQ"}) };
        let raw = pair.public_key_raw();
        let encode = |bytes| URL_SAFE_NO_PAD.encode::<&[u8]>(bytes);
        let mut jwk = match family {
            // In the DER of an RSAPublicKey with 2048 bits, the modulus is at 9..265 and the exponent begins at 267.
            KeyFamily::Rsa => json!({"kty": "RSA", "n": encode(&raw[9..265]), "e": encode(&raw[267..])}),
            KeyFamily::Curve(curve) => {
                let (x, y) = raw[1..].split_at((raw.len() - 1) / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            KeyFamily::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(raw)}),
            KeyFamily::Secret => unreachable!("a secret is not a key pair"),
        };
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        jwk
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        if algorithm == Algorithm::Es512 {
            // jsonwebtoken does not support ES512.
            let der = self.pair().serialize_der();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &der).unwrap();
            return pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        }
        let pem = || self.private_pem().into_bytes();
        let key = match algorithm.family() {
            KeyFamily::Secret => match self {
                Signer::Secret(secret) => EncodingKey::from_secret(secret),
                // Algorithm confusion attack: the public key used as an HMAC secret.
                Signer::Pair(..) => EncodingKey::from_secret(self.public_pem().as_bytes()),
            },
            KeyFamily::Rsa => EncodingKey::from_rsa_pem(&pem()).unwrap(),
            KeyFamily::Curve(_) => EncodingKey::from_ec_pem(&pem()).unwrap(),
            KeyFamily::Ed25519 => EncodingKey::from_ed_pem(&pem()).unwrap(),
        };
        let signature = jsonwebtoken::crypto::sign(message, &key, algorithm.name().parse().unwrap()).unwrap();
        URL_SAFE_NO_PAD.decode(signature).unwrap()
    }

    /// A token with these claims; `header` adds members to its header.
    pub fn token(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        let mut full_header = json!({"typ": "JWT", "alg": algorithm.name()});
        full_header.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&full_header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}
