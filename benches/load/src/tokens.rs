//! Tokens of a consumer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::json;

/// A JWT signed with the consumer's RSA key, valid for an hour.
pub(crate) fn token(signer: &KeyPair, number: usize) -> Result<Arc<str>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(json!({"alg": "RS256", "typ": "JWT"}));
    let claims = encode(json!({"iss": "bench", "sub": format!("user-{number:06}"), "exp": now + 3600}));
    let signed = format!("{head}.{claims}");
    let signature = signer.sign(signed.as_bytes()).context("cannot sign a token")?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
}

/// The Secret `bench-token`, with which tokens of this key are accepted.
pub(crate) fn secret(signer: &KeyPair) -> String {
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
  key: bench
  algorithm: RS256
  rsa_public_key: |
    {pem}
"
    )
}
