//! A strict OpenID provider for tests: it accepts only what the specifications require of a client, rotates refresh
//! tokens, and signs with generated keys. It serves its endpoints over HTTP; users "log in" by [`Provider::log_in`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::forgeries::Forgery;
use crate::harness::{Endpoint, header};

pub(crate) const CLIENT: &str = "shop";
/// Needs to be encoded in a form.
pub(crate) const SECRET: &str = "a+secret/of=the client";

/// A running provider.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) endpoint: Endpoint,
    state: Arc<Mutex<State>>,
    pub(crate) key: Arc<SigningKey>,
}

/// How the provider deviates from a correct one.
#[derive(Default)]
pub(crate) struct Behavior {
    /// Changes of the claims of ID tokens; null removes a claim.
    pub(crate) id_token_claims: Value,
    /// Changes of the document; null removes a member.
    pub(crate) document: Value,
    /// Changes of the claims of access tokens for logins; null removes a claim.
    pub(crate) access_token_claims: Value,
    /// Access tokens are signed with a key that is not published.
    pub(crate) foreign_access_tokens: bool,
    /// Access tokens of logins that request no audience are no signed tokens.
    pub(crate) opaque_without_audience: bool,
    /// Signs ID tokens with a key that is not published.
    pub(crate) signs_with_other_key: bool,
    /// An attacker signs the ID tokens.
    pub(crate) forgery: Option<Forgery>,
    /// Changes of the responses with tokens; null removes a member.
    pub(crate) token_members: Value,
    /// Changes of the response about the token `opaque`; null removes a member.
    pub(crate) introspection: Value,
    /// `iss` in responses to logins is announced and sent.
    pub(crate) names_issuer: bool,
    /// Seconds until access tokens expire.
    pub(crate) expires_in: Option<u64>,
    /// Length of a claim that makes ID tokens longer.
    pub(crate) padding: usize,
    /// Rejects all refreshes.
    pub(crate) refuses_refreshes: bool,
    /// Responds to introspections with status 500.
    pub(crate) introspection_fails: bool,
    /// Replaces the bodies of these paths.
    pub(crate) bodies: Vec<(&'static str, String)>,
    /// Never responds at this path.
    pub(crate) stalls_at: Option<&'static str>,
    /// Responds to requests for tokens only after this time, which is when they have taken effect.
    pub(crate) token_delay: Duration,
    /// Responds to requests for tokens only after a notification.
    pub(crate) token_gate: Option<Arc<Notify>>,
}

#[derive(Default)]
struct State {
    behavior: Behavior,
    codes: HashMap<String, Grant>,
    used_codes: HashSet<String>,
    refresh_tokens: HashSet<String>,
    /// Replaces the first key.
    new_key: Option<Arc<SigningKey>>,
    revoked: Vec<String>,
    last_number: u64,
}

struct Grant {
    challenge: String,
    nonce: String,
    redirect_uri: String,
    /// The parameter `audience`.
    audience: Option<String>,
}

pub(crate) struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    pub(crate) fn generate(id: &str) -> SigningKey {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        SigningKey { id: id.to_owned(), pair }
    }

    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let encode = |bytes| URL_SAFE_NO_PAD.encode::<&[u8]>(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": encode(x), "y": encode(y)})
    }

    /// SubjectPublicKeyInfo of RFC 5280.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub(crate) fn sign(&self, algorithm: &str, claims: &Value) -> String {
        self.sign_with(&json!({"alg": algorithm, "kid": self.id}), claims.to_string())
    }

    /// A token with this header, whatever it says, and these bytes as claims.
    pub(crate) fn sign_with(&self, header: &Value, claims: impl AsRef<[u8]>) -> String {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Provider {
    pub(crate) async fn start() -> Provider {
        Provider::with(Behavior::default()).await
    }

    pub(crate) async fn with(behavior: Behavior) -> Provider {
        let state = Arc::new(Mutex::new(State { behavior, ..State::default() }));
        let key = Arc::new(SigningKey::generate("first"));
        let issuer = Arc::new(OnceLock::<String>::new());
        let (serve_state, serve_key, serve_issuer) = (Arc::clone(&state), Arc::clone(&key), Arc::clone(&issuer));
        let endpoint = Endpoint::scripted(move |mut stream, _| {
            let (state, key, issuer) = (Arc::clone(&serve_state), Arc::clone(&serve_key), Arc::clone(&serve_issuer));
            async move {
                while let Some(request) = stream.request().await {
                    let issuer = issuer.get().expect("no request comes before the provider has started");
                    let path = request.split(' ').nth(1).unwrap();
                    let (status, body, stalls, delay, gate) = {
                        let state = &mut *state.lock().unwrap();
                        let key = state.new_key.clone().unwrap_or_else(|| Arc::clone(&key));
                        let (status, body) = respond(&request, issuer, &key, state);
                        let replaced = state.behavior.bodies.iter().find(|(replaced, _)| *replaced == path);
                        let body = replaced.map_or_else(|| body.to_string(), |(_, body)| body.clone());
                        let delay = if path == "/token" { state.behavior.token_delay } else { Duration::ZERO };
                        let gate = state.behavior.token_gate.clone().filter(|_| path == "/token");
                        (status, body, state.behavior.stalls_at == Some(path), delay, gate)
                    };
                    tokio::time::sleep(delay).await; // A slow provider.
                    if let Some(gate) = gate {
                        gate.notified().await;
                    }
                    if stalls {
                        std::future::pending::<()>().await;
                    }
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                    );
                    stream.send(head + &body).await;
                }
            }
        })
        .await;
        let url = format!("http://{}", endpoint.address);
        issuer.set(url.clone()).unwrap();
        Provider { issuer: url, endpoint, state, key }
    }

    pub(crate) fn set(&self, behavior: Behavior) {
        self.state.lock().unwrap().behavior = behavior;
    }

    /// Signs with another key from now on, and publishes that one only.
    pub(crate) fn rotate_key(&self) {
        self.state.lock().unwrap().new_key = Some(Arc::new(SigningKey::generate("second")));
    }

    /// The user `anna` logs in. Returns the target to which the browser is sent back.
    pub(crate) fn log_in(&self, location: &str) -> String {
        let (endpoint, query) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.issuer));
        let query = form(query);
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], CLIENT);
        assert_eq!(query["code_challenge_method"], "S256");
        assert!(query["scope"].split(' ').any(|scope| scope == "openid"));
        for random in ["state", "nonce", "code_challenge"] {
            assert_eq!(query[random].len(), 43, "{random}");
        }
        let redirect_uri = &query["redirect_uri"];
        let target = redirect_uri.strip_prefix("http://shop.example").expect("a registered redirect URI").to_owned();
        assert!(!target.contains('?'), "a registered redirect URI has no query");
        let mut state = self.state.lock().unwrap();
        let code = state.next("code");
        let grant = Grant {
            challenge: query["code_challenge"].clone(),
            nonce: query["nonce"].clone(),
            redirect_uri: redirect_uri.clone(),
            audience: query.get("audience").cloned(),
        };
        state.codes.insert(code.clone(), grant);
        let issuer = if state.behavior.names_issuer { format!("&iss={}", self.issuer) } else { String::new() };
        format!("{target}?code={code}&state={}{issuer}", query["state"])
    }

    /// The requests to this path.
    pub(crate) fn requests(&self, path: &str) -> Vec<String> {
        let requests = self.endpoint.log.requests();
        requests.into_iter().filter(|request| request.split(' ').nth(1) == Some(path)).collect()
    }

    /// How many refreshes were requested.
    pub(crate) fn refreshes(&self) -> usize {
        self.requests("/token").iter().filter(|request| request.contains("grant_type=refresh_token")).count()
    }

    pub(crate) fn revoked(&self) -> Vec<String> {
        self.state.lock().unwrap().revoked.clone()
    }

    /// A token with these claims in addition to issuer and times; null removes a claim.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.key.sign("ES256", &with(base_claims(&self.issuer), claims))
    }
}

impl State {
    fn next(&mut self, prefix: &str) -> String {
        self.last_number += 1;
        format!("{prefix}-{}", self.last_number)
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sessions and logouts are compared by whole seconds of the clock.
pub(crate) async fn next_second() {
    let second = now();
    while now() <= second {
        tokio::time::sleep(Duration::from_millis(50)).await; // Nothing signals a second of the clock.
    }
}

pub(crate) fn base_claims(issuer: &str) -> Value {
    json!({"iss": issuer, "iat": now(), "exp": now() + 600})
}

/// The claims with these changes; null removes a claim.
pub(crate) fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn form(text: &str) -> HashMap<String, String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
    let mut fields = HashMap::new();
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        assert!(fields.insert(decode(name), decode(value)).is_none(), "{name} occurs twice");
    }
    fields
}

fn respond(request: &str, issuer: &str, key: &SigningKey, state: &mut State) -> (u16, Value) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let path = head.split(' ').nth(1).unwrap();
    match path {
        path if path.ends_with("/.well-known/openid-configuration") => {
            let url = |path: &str| format!("{issuer}/{path}");
            let document = json!({
                "issuer": issuer, "authorization_endpoint": url("authorize"), "token_endpoint": url("token"),
                "jwks_uri": url("keys"), "introspection_endpoint": url("introspect"), "userinfo_endpoint": url("user"),
                "revocation_endpoint": url("revoke"), "end_session_endpoint": url("logout"),
                "authorization_response_iss_parameter_supported": state.behavior.names_issuer,
            });
            (200, with(document, &state.behavior.document))
        }
        "/keys" => (200, json!({"keys": [key.jwk()]})),
        "/token" => token_response(head, &form(body), issuer, key, state),
        "/introspect" if !is_client(head) => (401, json!({"error": "invalid_client"})),
        "/introspect" if state.behavior.introspection_fails => (500, json!({})),
        "/introspect" => match &*form(body)["token"] {
            "opaque" => {
                let response = json!({"active": true, "sub": "robot", "scope": "read", "exp": now() + 600});
                (200, with(response, &state.behavior.introspection))
            }
            "opaque-expired" => (200, json!({"active": true, "sub": "robot", "exp": now() - 1})),
            _ => (200, json!({"active": false})),
        },
        "/user" => match header(head, "authorization") {
            Some("Bearer opaque") => (200, json!({"sub": "robot"})),
            _ => (401, json!({"error": "invalid_token"})),
        },
        "/revoke" if !is_client(head) => (401, json!({"error": "invalid_client"})),
        "/revoke" => {
            state.revoked.push(form(body)["token"].clone());
            (200, json!({}))
        }
        _ => (404, json!({})),
    }
}

fn basic(head: &str) -> Option<(String, String)> {
    let encoded = header(head, "authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    let (id, secret) = text.split_once(':')?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    Some((decode(id), decode(secret)))
}

fn is_client(head: &str) -> bool {
    basic(head) == Some((CLIENT.to_owned(), SECRET.to_owned()))
}

fn token_response(
    head: &str,
    form: &HashMap<String, String>,
    issuer: &str,
    key: &SigningKey,
    state: &mut State,
) -> (u16, Value) {
    let error = |code: &str| (400, json!({"error": code, "error_description": "a secret detail"}));
    let grant_type = form.get("grant_type").map(String::as_str).unwrap_or_default();
    if grant_type == "client_credentials" {
        return match basic(head) {
            Some((id, secret)) if (&*id, &*secret) == ("robot", "robot secret") => {
                let token = key.sign("ES256", &with(base_claims(issuer), &json!({"sub": "robot", "aud": CLIENT})));
                (200, json!({"access_token": token, "token_type": "bearer", "expires_in": 600}))
            }
            // RFC 6749, section 5.2
            _ => (401, json!({"error": "invalid_client"})),
        };
    }
    if !is_client(head) {
        return (401, json!({"error": "invalid_client"}));
    }
    let (nonce, audience) = match grant_type {
        "authorization_code" => {
            let code = &form["code"];
            if !state.used_codes.insert(code.clone()) {
                return error("invalid_grant");
            }
            let Some(grant) = state.codes.remove(code) else { return error("invalid_grant") };
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
            if challenge != grant.challenge || form["redirect_uri"] != grant.redirect_uri {
                return error("invalid_grant");
            }
            (Some(grant.nonce), grant.audience)
        }
        "refresh_token" => {
            if !state.refresh_tokens.remove(&form["refresh_token"]) || state.behavior.refuses_refreshes {
                // A refresh token that is used again was stolen.
                state.refresh_tokens.clear();
                return error("invalid_grant");
            }
            (None, None)
        }
        "password" if (&*form["username"], &*form["password"]) == ("anna", "a:pass wörd") => (None, None),
        "password" => return error("invalid_grant"),
        _ => return error("unsupported_grant_type"),
    };
    let refresh_token = state.next("refresh");
    state.refresh_tokens.insert(refresh_token.clone());
    let number = state.next("access");
    let other_key = SigningKey::generate("first");
    let access_token = match &audience {
        None if state.behavior.opaque_without_audience => number,
        _ => {
            let for_whom =
                audience.as_ref().map_or(json!(CLIENT), |audience| json!([audience, format!("{issuer}/user")]));
            let claims = json!({"sub": "anna", "aud": for_whom, "jti": number, "roles": ["staff"]});
            let claims = with(with(base_claims(issuer), &claims), &state.behavior.access_token_claims);
            let signer = if state.behavior.foreign_access_tokens { &other_key } else { key };
            signer.sign("ES256", &claims)
        }
    };
    let hash = digest(&SHA256, access_token.as_bytes());
    let mut claims = with(
        base_claims(issuer),
        &json!({
            "sub": "anna", "aud": CLIENT, "sid": "session-of-anna", "groups": ["admins", "users"],
            "at_hash": URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]), "padding": "x".repeat(state.behavior.padding),
        }),
    );
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    let claims = with(claims, &state.behavior.id_token_claims);
    let signer = if state.behavior.signs_with_other_key { &other_key } else { key };
    let id_token = match &state.behavior.forgery {
        Some(forgery) => forgery.token(&claims),
        None => signer.sign("ES256", &claims),
    };
    let response = json!({
        "access_token": access_token, "token_type": "Bearer", "id_token": id_token, "refresh_token": refresh_token,
        "expires_in": state.behavior.expires_in.unwrap_or(600), "scope": "openid email",
    });
    (200, with(response, &state.behavior.token_members))
}
