//! The servers that the examples name: an issuer with keys, introspection and tokens, a provider's document, and
//! servers that decide about requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A token that only the introspection can validate.
pub(crate) const OPAQUE_TOKEN: &str = "an-opaque-token";
/// The token for endpoints.
pub(crate) const UPSTREAM_TOKEN: &str = "token-for-the-shop";
/// The secret of the client that logs users in.
pub(crate) const CODE_CLIENT: &str = "secret-of-the-shop";

/// All servers at one address, which differ in their paths.
pub(crate) struct Partner {
    pub(crate) key: Arc<TokenKey>,
}

/// A key of the issuer.
pub(crate) struct TokenKey(EcdsaKeyPair);

impl Partner {
    /// Accepts connections until the test ends.
    pub(crate) fn start(address: &str) -> Partner {
        let listener = TcpListener::bind(address).unwrap();
        let key = Arc::new(TokenKey::generate());
        let served = Arc::clone(&key);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let key = Arc::clone(&served);
                thread::spawn(move || serve(stream, &key));
            }
        });
        Partner { key }
    }
}

impl TokenKey {
    fn generate() -> TokenKey {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        TokenKey(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap())
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": "first", "x": encode(x), "y": encode(y) })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": "first" })), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Serves the requests of a connection until it is closed.
fn serve(stream: TcpStream, key: &TokenKey) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read_request(&mut stream) {
        let (status, fields, body) = respond(&head, &body, key);
        let body = body.to_string();
        let length = body.len();
        let response = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{fields}\
             content-length: {length}\r\n\r\n{body}"
        );
        if stream.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// The head and the body. `None` at the end of the connection.
fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut body = vec![0; field(&head, "content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// The status, header lines and the body of the response.
fn respond(head: &str, body: &str, key: &TokenKey) -> (u16, &'static str, Value) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path {
        "/keys" | "/realms/shop/keys" => (200, "", json!({ "keys": [key.jwk()] })),
        "/introspect" if field(head, "authorization") != Some("Basic cG9ydGljbzpvbmx5LWZvci10cnlpbmctaXQtb3V0") => {
            (401, "", json!({ "error": "invalid_client" }))
        }
        "/introspect" if body.contains(OPAQUE_TOKEN) => (200, "", json!({ "active": true, "client_id": "robot" })),
        "/introspect" => (200, "", json!({ "active": false })),
        "/token" if body.contains("client_secret=only-for-trying-it-out") => {
            (200, "", json!({ "access_token": UPSTREAM_TOKEN, "token_type": "Bearer", "expires_in": 600 }))
        }
        "/realms/shop/.well-known/openid-configuration" => {
            let issuer = "http://partner.default.svc/realms/shop";
            let url = |path: &str| format!("{issuer}/{path}");
            let document = json!({
                "issuer": issuer, "authorization_endpoint": url("auth"), "token_endpoint": url("token"),
                "jwks_uri": url("keys"),
            });
            (200, "", document)
        }
        "/check" if field(head, "x-allowed").is_some() => (200, "x-auth-user: anna\r\n", json!({})),
        "/check" => (403, "", json!({})),
        "/v1/data/shop/allow" => {
            let input: Value = serde_json::from_str(body).unwrap();
            (200, "", json!({ "result": input["input"]["request"]["http"]["headers"]["x-allowed"] == "yes" }))
        }
        _ => (404, "", json!({})),
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
