//! Tokens of a consumer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::json;

/// The claim `iss` of all tokens.
pub(crate) const ISSUER: &str = "bench";

/// A JWT signed with the consumer's RSA key, valid for an hour.
pub(crate) fn token(signer: &KeyPair, number: usize) -> Result<Arc<str>> {
    sign(signer, &unsigned_token("RS256", number)?)
}

/// The head and the claims of a JWT that is valid for an hour.
pub(crate) fn unsigned_token(algorithm: &str, number: usize) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(json!({"alg": algorithm, "typ": "JWT"}));
    let claims = encode(json!({"iss": ISSUER, "sub": format!("user-{number:06}"), "exp": now + 3600}));
    Ok(format!("{head}.{claims}"))
}

/// The token with the signature of this key.
pub(crate) fn sign(signer: &KeyPair, unsigned: &str) -> Result<Arc<str>> {
    let signature = signer.sign(unsigned.as_bytes()).context("cannot sign a token")?;
    Ok(format!("{unsigned}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
}

/// The Secret `bench-token`, with which tokens of this RSA key are accepted.
pub(crate) fn secret(signer: &KeyPair) -> String {
    secret_for(signer, "RS256")
}

/// The Secret `bench-token`, with which tokens of this key and algorithm are accepted.
pub(crate) fn secret_for(signer: &KeyPair, algorithm: &str) -> String {
    let pem = signer.public_key_pem().trim_end().replace('\n', "\n    ");
    format!(
        "---
apiVersion: v1
kind: Secret
metadata:
  name: bench-token
  labels:
    konghq.com/credential: jwt
stringData:
  key: {ISSUER}
  algorithm: {algorithm}
  rsa_public_key: |
    {pem}
"
    )
}
