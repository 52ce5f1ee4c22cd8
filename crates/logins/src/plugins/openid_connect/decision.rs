//! The decision about a request, before the claims of the client are compared with what is required.

use std::sync::Arc;

use http::HeaderMap;

use super::claims::ClaimSources;
use super::replies::OpenIdRejection;
use super::tokens::{SessionTokens, TokenClaims, TokenIdentity};
use crate::logged_out_sessions::{SessionDigest, session_digest};
use crate::plugin_api::{Reply, RequestCx, Scheme};
use crate::plugin_kit::redis::RedisStoreError;
use crate::rejection_log::RejectionLog;
use crate::sealed_cookie::OpenedSession;
use crate::token_binding::{BindingViolation, another_connection};

/// What to do with a request.
pub(super) enum OpenIdDecision {
    Accept(Box<AcceptedClient>),
    Reply(Box<Reply>),
    Reject(OpenIdRejection),
}

/// A client that is authenticated, but not yet authorized.
pub(super) struct AcceptedClient {
    pub(super) claims: Arc<ClaimSources>,
    pub(super) access_token: Option<Box<str>>,
    pub(super) id_token: Option<Box<str>>,
    pub(super) introspection: Option<Arc<TokenClaims>>,
    /// Whether the audience was compared with those of a further issuer.
    pub(super) has_known_audience: bool,
    /// Whether the tokens are those of a session.
    pub(super) has_session: bool,
    /// For the response. `None` if its session is not written.
    pub(super) cookies: Option<ResponseCookies>,
}

/// `Set-Cookie` for a response, with which a session continues.
#[derive(Default)]
pub(super) struct ResponseCookies {
    pub(super) cookies: HeaderMap,
    pub(super) session: SessionDigest,
    /// When the request began, in seconds since 1970.
    pub(super) now: u64,
}

impl AcceptedClient {
    /// A client with this session. `cookies`: those with which it continues, if it was written.
    pub(super) fn with_session(session: OpenedSession<SessionTokens>, cookies: Option<HeaderMap>, now: u64) -> Self {
        let cookies = cookies.map(|cookies| ResponseCookies { cookies, session: session_digest(&session), now });
        let tokens = session.data;
        AcceptedClient {
            claims: Arc::new(tokens.claims()),
            access_token: Some(tokens.access_token),
            id_token: Some(tokens.id_token),
            introspection: None,
            has_known_audience: false,
            has_session: true,
            cookies,
        }
    }
}

impl OpenIdDecision {
    /// Accepts a client whose token or password was verified, if it has the key that the token is bound to. Otherwise
    /// rejects it.
    pub(super) fn by_binding(cx: &RequestCx<'_>, log: &RejectionLog, identity: &TokenIdentity) -> Self {
        if let Err(violation) = identity.binding.check(cx.client.certificate) {
            log.rejected(cx.scope, "credential", &format!("the token {violation}"));
            if violation == BindingViolation::NotRequested && cx.needs_another_connection() {
                return OpenIdDecision::Reply(another_connection());
            }
            return OpenIdDecision::Reject(OpenIdRejection::WrongCredentials);
        }
        OpenIdDecision::Accept(Box::new(AcceptedClient {
            claims: Arc::clone(&identity.claims),
            access_token: Some(identity.access_token.clone()),
            id_token: None,
            introspection: identity.introspection.clone(),
            has_known_audience: identity.bearer_issuer.is_some(),
            has_session: false,
            cookies: None,
        }))
    }

    /// Rejects a request about which only the provider can decide.
    pub(super) fn unavailable(cx: &RequestCx<'_>, log: &RejectionLog, message: &str) -> Self {
        log.rejected(cx.scope, "provider", message);
        OpenIdDecision::Reject(OpenIdRejection::Unavailable)
    }

    /// The session of the client cannot be read or ended.
    pub(super) fn without_sessions(cx: &RequestCx<'_>, log: &RejectionLog, error: RedisStoreError) -> Self {
        log.rejected(cx.scope, "session", &error.to_string());
        OpenIdDecision::Reject(OpenIdRejection::NoSessions)
    }
}

/// Whether the client uses HTTPS.
pub(super) fn is_secure(cx: &RequestCx<'_>) -> bool {
    cx.client.scheme == Scheme::Https
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustls::pki_types::CertificateDer;
    use serde_json::{Value, json};

    use super::super::OpenIdConnect;
    use crate::plugin_api::scripted_server::{ScriptedServer, response};
    use crate::plugin_api::token::signature::Algorithm;
    use crate::plugin_api::token::signature::signing::Signer;
    use crate::plugin_api::{ConsumerDirectory, PluginState, RegisteredKind};
    use crate::plugin_chain::testing::{TestRequest, chain_with, consumer};
    use crate::token_binding::bound_to;

    const KIND: RegisteredKind<OpenIdConnect> = RegisteredKind::NEW;
    const ISSUER: &str = "https://login.example";
    /// A second after the time of the requests, in seconds since 1970.
    const LATER: u64 = 1_767_355_201;

    // RFC 8705, section 3
    // RFC 9449, section 7.2
    #[tokio::test(start_paused = true)]
    async fn bound_tokens_need_the_key_of_the_client() {
        let (own, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
        let signer = Signer::for_algorithm(Algorithm::Es256);
        let (keys, bound) = (json!({"keys": [signer.jwk(None)]}), bound_to(&own));
        let introspected = move |body: &[u8]| {
            let cnf = if body.starts_with(b"token=dpop") { json!({"jkt": "a"}) } else { bound.clone() };
            json!({"active": true, "sub": "anna", "cnf": cnf})
        };
        let server = ScriptedServer::new(move |request| {
            let document = || {
                let url = |path: &str| format!("{ISSUER}/{path}");
                json!({"issuer": ISSUER, "jwks_uri": url("keys"), "introspection_endpoint": url("introspect")})
            };
            let body = match request.target.path() {
                "/keys" => keys.clone(),
                "/introspect" => introspected(&request.body),
                _ => document(),
            };
            Ok(response(200, "", &body.to_string()))
        });
        let signed = |cnf: Value| {
            let claims = json!({"iss": ISSUER, "sub": "anna", "exp": LATER, "cnf": cnf});
            signer.token(Algorithm::Es256, &json!({}), &claims)
        };
        for (name, token, certificate, strict) in [
            ("not bound", signed(json!(null)), None, None),
            ("own", signed(bound_to(&own)), Some(&own), None),
            ("of another client", signed(bound_to(&own)), Some(&other), Some(401)),
            ("without a certificate", signed(bound_to(&own)), None, Some(401)),
            ("DPoP", signed(json!({"jkt": "a"})), Some(&own), Some(401)),
            ("introspected, own", "opaque".to_owned(), Some(&own), None),
            ("introspected, of another client", "opaque".to_owned(), Some(&other), Some(401)),
            ("introspected, DPoP", "dpop".to_owned(), Some(&own), Some(401)),
        ] {
            for (is_verified, expected) in [(true, strict), (false, None)] {
                let config = json!({
                    "issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["bearer", "introspection"],
                    "verify_token_binding": is_verified,
                });
                let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
                // The second time, the result is in the cache.
                for _ in 0..2 {
                    let mut request = TestRequest::get("/").header("authorization", &format!("Bearer {token}"));
                    request.certificates = certificate.map(|certificate| vec![certificate.clone()]);
                    let outcome = request.run(&chain).await;
                    assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{name} {is_verified}");
                    let challenge = expected.map(|_| "Bearer error=\"invalid_token\"");
                    assert_eq!(outcome.response_header("www-authenticate"), challenge, "{name} {is_verified}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn signed_tokens_are_bound_also_if_the_provider_does_not_say_so() {
        let (own, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
        let signer = Signer::for_algorithm(Algorithm::Es256);
        let server = ScriptedServer::new(|_| {
            let url = |path: &str| format!("{ISSUER}/{path}");
            let body = json!({
                "issuer": ISSUER, "jwks_uri": url("keys"), "keys": [], "introspection_endpoint": url("introspect"),
                "userinfo_endpoint": url("userinfo"), "active": true, "sub": "anna",
            });
            Ok(response(200, "", &body.to_string()))
        });
        let claims = json!({"iss": ISSUER, "sub": "anna", "exp": LATER, "cnf": bound_to(&own)});
        let token = format!("Bearer {}", signer.token(Algorithm::Es256, &json!({}), &claims));
        for method in ["introspection", "userinfo"] {
            for (is_verified, certificate, expected) in
                [(true, &own, None), (true, &other, Some(401)), (false, &other, None)]
            {
                let config = json!({
                    "issuer": ISSUER, "client_id": ["shop"], "auth_methods": [method],
                    "verify_token_binding": is_verified,
                });
                let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
                let mut request = TestRequest::get("/").header("authorization", &token);
                request.certificates = Some(vec![certificate.clone()]);
                let status = request.run(&chain).await.reply_status().map(|status| status.as_u16());
                assert_eq!(status, expected, "{method} {is_verified} {certificate:?}");
            }
        }
    }

    /// A token with a new key may be valid, so its client is not an anonymous one.
    #[tokio::test(start_paused = true)]
    async fn new_keys_that_cannot_be_fetched_are_missing() {
        const OTHER: &str = "https://other.example";
        let signer = Signer::for_algorithm(Algorithm::Es256);
        let (keys, is_down) = (json!({"keys": [signer.jwk(Some("a"))]}), Arc::new(AtomicBool::new(false)));
        let keys_are_down = Arc::clone(&is_down);
        let server = ScriptedServer::new(move |request| match request.target.path() {
            "/keys" | "/other-keys" if keys_are_down.load(Ordering::Relaxed) => Ok(response(500, "", "")),
            "/keys" | "/other-keys" => Ok(response(200, "", &keys.to_string())),
            _ => Ok(response(200, "", &json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")}).to_string())),
        });
        let config = json!({
            "issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["bearer"], "anonymous": "guest",
            "bearer_issuers": [{"issuer": OTHER, "jwks_uri": format!("{OTHER}/other-keys"), "audiences": ["shop"]}],
        });
        let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
        let mut consumers = ConsumerDirectory::default();
        consumers.add(&consumer("guest", &[]));
        let status = async |issuer: &str, key: &str| {
            let claims = json!({"iss": issuer, "sub": "anna", "aud": "shop", "exp": LATER});
            let token = signer.token(Algorithm::Es256, &json!({"kid": key}), &claims);
            let request = TestRequest::get("/").header("authorization", &format!("Bearer {token}"));
            let outcome = request.with_consumers(&consumers).run(&chain).await;
            outcome.reply_status().map(|status| status.as_u16())
        };
        for issuer in [ISSUER, OTHER] {
            is_down.store(false, Ordering::Relaxed);
            assert_eq!(status(issuer, "a").await, None, "{issuer}");
            assert_eq!(status(issuer, "b").await, None, "{issuer}: an unknown key makes the client anonymous");
            is_down.store(true, Ordering::Relaxed);
            for request in ["the first one, which causes a fetch", "the next one"] {
                assert_eq!(status(issuer, "b").await, Some(503), "{issuer}: {request}");
            }
            assert_eq!(status(issuer, "a").await, None, "{issuer}: a known key");
        }
    }

    /// What one connection has proved, another one must not use.
    #[tokio::test(start_paused = true)]
    async fn a_cached_token_stays_bound() {
        let own = CertificateDer::from(vec![1]);
        let bound = bound_to(&own);
        let server = ScriptedServer::new(move |request| {
            let body = match request.target.path() {
                "/introspect" => json!({"active": true, "sub": "anna", "cnf": bound}),
                _ => json!({
                    "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"),
                    "introspection_endpoint": format!("{ISSUER}/introspect"),
                }),
            };
            Ok(response(200, "", &body.to_string()))
        });
        let config = json!({"issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["introspection"]});
        let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
        for (certificate, expected) in [(Some(&own), None), (None, Some(401)), (Some(&own), None)] {
            let mut request = TestRequest::get("/").header("authorization", "Bearer opaque");
            request.certificates = certificate.map(|certificate| vec![certificate.clone()]);
            let outcome = request.run(&chain).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{certificate:?}");
        }
        let introspections = server.requests.lock().iter().filter(|it| it.target.path() == "/introspect").count();
        assert_eq!(introspections, 1);
    }

    /// What one configuration has accepted says nothing about another one.
    #[tokio::test(start_paused = true)]
    async fn an_accepted_password_is_verified_again_after_the_provider_of_tokens_has_changed() {
        let server = ScriptedServer::new(|request| {
            let url = |path: &str| format!("{ISSUER}/{path}");
            let body = match request.target.path() {
                "/token" | "/other" => json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 3600}),
                _ => json!({"issuer": ISSUER, "jwks_uri": url("keys"), "token_endpoint": url("token"), "keys": []}),
            };
            Ok(response(200, "", &body.to_string()))
        });
        let state = PluginState::default();
        let mut chains = Vec::new();
        for (changes, expected) in [
            (json!({}), 1),
            (json!({}), 1),
            (json!({"scopes": ["openid", "admin"]}), 2),
            (json!({"client_secret": ["another secret"]}), 3),
            (json!({"token_endpoint": format!("{ISSUER}/other")}), 4),
            (json!({}), 4),
        ] {
            let mut config = json!({
                "issuer": ISSUER, "client_id": ["shop"], "client_secret": ["secret"], "auth_methods": ["password"],
            });
            config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let chain = chain_with(&[(&KIND, config)], &state, &server.services());
            // `anna:secret`
            let request = TestRequest::get("/").header("authorization", "Basic YW5uYTpzZWNyZXQ=");
            assert_eq!(request.run(&chain).await.reply_status(), None, "{changes}");
            // The state of plugins that are gone is empty.
            chains.push(chain);
            let is_token = |path: &str| ["/token", "/other"].contains(&path);
            let verified = server.requests.lock().iter().filter(|it| is_token(it.target.path())).count();
            assert_eq!(verified, expected, "{changes}");
        }
    }
}
