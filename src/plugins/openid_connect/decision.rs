//! The decision about a request, before the claims of the client are compared with what is required.

use std::sync::Arc;

use http::HeaderMap;

use super::claims::ClaimSources;
use super::rejection_log::RejectionLog;
use super::replies::OpenIdRejection;
use super::session_tokens::SessionTokens;
use super::signed_token::TokenClaims;
use super::token_identity::TokenIdentity;
use crate::plugin_api::logged_out_sessions::{SessionDigest, session_digest};
use crate::plugin_api::redis::RedisStoreError;
use crate::plugin_api::sealed_cookie::OpenedSession;
use crate::plugin_api::{Reply, RequestCx, Scheme};

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
            cookies,
        }
    }
}

impl OpenIdDecision {
    /// Accepts a client whose token or password was verified.
    pub(super) fn accept(identity: &TokenIdentity) -> Self {
        OpenIdDecision::Accept(Box::new(AcceptedClient {
            claims: Arc::clone(&identity.claims),
            access_token: Some(identity.access_token.clone()),
            id_token: None,
            introspection: identity.introspection.clone(),
            has_known_audience: identity.bearer_issuer.is_some(),
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
