//! Tokens that attackers sign without the private key: with what is public as a secret, with the secret of the client,
//! and not at all (RFC 8725, sections 2.1 and 3.1).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, SECRET, SigningKey, base_claims, with};

/// How an attacker signs.
#[derive(Clone)]
pub(crate) struct Forgery {
    name: &'static str,
    key_id: Option<&'static str>,
    /// Algorithm and secret. `None`: the algorithm is `none`, and there is no signature.
    hmac: Option<(&'static str, Vec<u8>)>,
}

impl Forgery {
    /// All ways, for what the issuer with this key publishes: with the id of the key, with another one, and without.
    pub(crate) fn all(key: &SigningKey) -> Vec<Forgery> {
        let (der, jwk) = (key.public_der(), key.jwk());
        let base64 = STANDARD.encode(&der);
        let (first, second) = base64.split_at(64);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n");
        let [x, y] = ["x", "y"].map(|name| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap());
        let secrets = [
            ("the PEM", "HS256", pem.clone().into_bytes()),
            ("the PEM, with SHA-384", "HS384", pem.clone().into_bytes()),
            ("the PEM, with SHA-512", "HS512", pem.clone().into_bytes()),
            ("the PEM without the last line break", "HS256", pem.trim_end().as_bytes().to_vec()),
            ("the DER", "HS256", der),
            ("the bytes of x", "HS256", x.clone()),
            ("the text of x", "HS256", jwk["x"].as_str().unwrap().into()),
            ("the point", "HS256", [&[4_u8][..], &x, &y].concat()),
            ("the JSON Web Key", "HS256", jwk.to_string().into_bytes()),
            ("the secret of the client", "HS256", SECRET.into()),
        ];
        let secrets = secrets.into_iter().map(|(name, algorithm, secret)| (name, Some((algorithm, secret))));
        let ways = secrets.chain([("no signature", None)]);
        let ids = |(name, hmac): (&'static str, Option<_>)| {
            [Some("first"), Some("second"), None].map(|key_id| Forgery { name, key_id, hmac: hmac.clone() })
        };
        ways.flat_map(ids).collect()
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let algorithm = self.hmac.as_ref().map_or("none", |(algorithm, _)| *algorithm);
        let header = with(json!({"alg": algorithm}), &json!({"kid": self.key_id}));
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.hmac.as_ref().map_or(String::new(), |(algorithm, secret)| {
            let algorithm = match *algorithm {
                "HS384" => hmac::HMAC_SHA384,
                "HS512" => hmac::HMAC_SHA512,
                _ => hmac::HMAC_SHA256,
            };
            URL_SAFE_NO_PAD.encode(hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes()))
        });
        format!("{signed}.{signature}")
    }
}

impl fmt::Display for Forgery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} and the key id {:?}", self.name, self.key_id)
    }
}

#[tokio::test]
async fn access_tokens_are_not_verified_with_what_is_public() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let claims = with(base_claims(&provider.issuer), &json!({"sub": "anna", "aud": CLIENT}));
    let send = async |token: String| site.send(&format!("authorization: Bearer {token}\r\n")).await.status;
    assert_eq!(send(provider.key.sign("ES256", &claims)).await, 200, "the claims are valid");
    for forgery in Forgery::all(&provider.key) {
        assert_eq!(send(forgery.token(&claims)).await, 401, "{forgery}");
    }
    assert_eq!(provider.requests("/keys").len(), 1, "forged tokens cause no fetch of the keys");
    assert_eq!(site.endpoint.log.requests().len(), 1);
}

/// An attacker between Portico and the provider replaces the ID token.
#[tokio::test]
async fn id_tokens_are_not_verified_with_what_is_public() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    for forgery in Forgery::all(&provider.key) {
        provider.set(Behavior { forgery: Some(forgery.clone()), ..Behavior::default() });
        let mut browser = Browser::default();
        let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
        let response = site.get(&mut browser, &callback).await;
        assert_eq!(response.status, 401, "{forgery}: {}", response.text());
        assert!(browser.cookies.is_empty(), "{forgery}: {:?}", browser.names());
    }
    assert_eq!(provider.requests("/keys").len(), 1, "forged tokens cause no fetch of the keys");
    provider.set(Behavior::default());
    site.logged_in(&provider).await;
}

#[tokio::test]
async fn logout_tokens_are_not_verified_with_what_is_public() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"backchannel_logout_uri_suffix": "/ended"})).await;
    let mut browser = site.logged_in(&provider).await;
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let claims = json!({"aud": CLIENT, "events": event, "jti": "1", "sid": "session-of-anna"});
    let claims = with(base_claims(&provider.issuer), &claims);
    let send = async |token: String| {
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let body = format!("logout_token={token}");
        Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await.status
    };
    for forgery in Forgery::all(&provider.key) {
        assert_eq!(send(forgery.token(&claims)).await, 400, "{forgery}");
    }
    assert_eq!(site.get(&mut browser, "/").await.status, 200, "the session continues");
    assert_eq!(provider.requests("/keys").len(), 1, "forged tokens cause no fetch of the keys");
    assert_eq!(send(provider.key.sign("ES256", &claims)).await, 200);
    assert_eq!(site.get(&mut browser, "/").await.status, 302, "the claims are valid");
}
