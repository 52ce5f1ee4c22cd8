//! Introspection of tokens (RFC 7662): a server decides whether a token is active and what it says. Results are cached.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::plugin_kit::form_body::{FORM_MEDIA_TYPE, form_body};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerFailed};
use crate::plugin_kit::shared_fetch::SharedFetches;
use crate::token_binding::TokenBinding;
use crate::token_purpose::TokenPurpose;

/// Reads the claims of an active token.
type ReadClaims<T> = Arc<dyn Fn(&Map<String, Value>) -> T + Send + Sync>;

/// The introspection endpoint of an authorization server.
pub(crate) struct Introspection<T> {
    server: RemoteServer,
    authorization: Option<HeaderValue>,
    /// Further headers of all requests.
    headers: HeaderMap,
    token_type_hint: Option<Box<str>>,
    /// How long results are kept.
    ttl: Duration,
    read: ReadClaims<T>,
    active: DigestCache<Expiring<T>>,
    /// Tokens that are not active have a cache of their own, so that invented tokens replace no valid ones.
    inactive: DigestCache<Expiring<()>>,
    fetches: SharedFetches<Result<Option<Arc<IntrospectedToken<T>>>, RemoteServerFailed>>,
}

/// How requests to the endpoint look.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntrospectionRequests {
    /// The value of `Authorization`; it is marked as sensitive.
    pub authorization: Option<HeaderValue>,
    pub headers: HeaderMap,
    pub token_type_hint: Option<Box<str>>,
    pub ttl: Duration,
}

struct IntrospectedToken<T> {
    value: Arc<T>,
    /// Seconds since 1970.
    expires: Option<u64>,
}

/// A token as the server sees it.
pub(crate) enum TokenActivity<T> {
    Active(Arc<T>),
    Inactive,
}

/// Maximum size of a response in bytes.
pub(crate) const MAX_INTROSPECTION: usize = 256 * 1024;

impl<T: Send + Sync + 'static> Introspection<T> {
    /// `read` is called once for each response about an active token.
    pub(crate) fn new(
        server: RemoteServer,
        requests: IntrospectionRequests,
        read: impl Fn(&Map<String, Value>) -> T + Send + Sync + 'static,
    ) -> Self {
        let IntrospectionRequests { authorization, headers, token_type_hint, ttl } = requests;
        Introspection {
            server,
            authorization,
            headers,
            token_type_hint,
            ttl,
            read: Arc::new(read),
            active: DigestCache::default(),
            inactive: DigestCache::default(),
            fetches: SharedFetches::default(),
        }
    }

    /// The key of a token in the caches. `of_request` are headers that the server gets about the request, on which its
    /// decision may depend.
    pub(crate) fn key(token: &[u8], of_request: &[(HeaderName, HeaderValue)]) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        for part in of_request.iter().map(|(_, value)| value.as_bytes()).chain([token]) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = Sha256Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// The cached result for a token.
    pub(crate) fn find(&self, key: &Sha256Digest, now: SystemTime) -> Option<TokenActivity<T>> {
        let active = self.active.find_value(key, now).map(TokenActivity::Active);
        active.or_else(|| self.inactive.find_value(key, now).map(|_| TokenActivity::Inactive))
    }

    /// Asks the server about a token of a client. Requests with the same key at the same time share one request to the
    /// server, which is that of the first client.
    pub(crate) async fn fetch(
        &self,
        key: Sha256Digest,
        token: &str,
        of_request: Vec<(HeaderName, HeaderValue)>,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<TokenActivity<T>, RemoteServerFailed> {
        let start = || {
            let failed = self.server.failure_reporter();
            let read = Arc::clone(&self.read);
            let sending = self.server.send_for_client(
                client,
                |request| {
                    request.method = Method::POST;
                    request.is_repeatable = true;
                    request.headers.extend(self.headers.clone());
                    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM_MEDIA_TYPE));
                    request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
                    if let Some(authorization) = &self.authorization {
                        request.headers.insert(AUTHORIZATION, authorization.clone());
                    }
                    request.headers.extend(of_request);
                    let hint = self.token_type_hint.as_deref().map(|hint| ("token_type_hint", hint));
                    request.body = form_body([("token", token)].into_iter().chain(hint));
                },
                |status| status == StatusCode::OK,
            );
            async move {
                let response = sending.await?;
                let members = serde_json::from_slice::<Map<String, Value>>(&response.body);
                let members = members.map_err(|_| failed("the response is not a JSON object"))?;
                // RFC 7662, section 2.2: `active` is required.
                match members.get("active").and_then(Value::as_bool) {
                    // Some servers also call tokens active that are not for access, such as refresh tokens.
                    Some(true) if TokenPurpose::of_introspected(&members) == TokenPurpose::Other => Ok(None),
                    // RFC 7662, section 2.2: a number. Anything else does not mean that the token has no end.
                    Some(true) if members.get("exp").is_some_and(|exp| exp.as_f64().is_none()) => Ok(None),
                    Some(true) => Ok(Some(Arc::new(IntrospectedToken {
                        expires: members.get("exp").and_then(Value::as_f64).map(whole_seconds),
                        value: Arc::new(read(&members)),
                    }))),
                    Some(false) => Ok(None),
                    None => Err(failed("the response has no member `active`")),
                }
            }
            .boxed()
        };
        let introspected = self.fetches.get(key, start).await?;
        let Some(token) = introspected else {
            self.inactive.insert_value(key, Arc::new(()), now + self.ttl, now);
            return Ok(TokenActivity::Inactive);
        };
        let expires = token.expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        if expires.is_some_and(|expires| expires <= now) {
            return Ok(TokenActivity::Inactive);
        }
        let kept_until = expires.map_or(now + self.ttl, |expires| expires.min(now + self.ttl));
        self.active.insert_value(key, Arc::clone(&token.value), kept_until, now);
        Ok(TokenActivity::Active(Arc::clone(&token.value)))
    }
}

/// The key that the client must have, by what the server says about an active token. RFC 9449, section 7.2: a token for
/// DPoP is no bearer token, also if the server does not say which key it is bound to.
pub(crate) fn introspected_binding(members: &Map<String, Value>) -> TokenBinding {
    let token_type = members.get("token_type").and_then(Value::as_str).unwrap_or_default();
    match TokenBinding::of(members) {
        TokenBinding::None if token_type.eq_ignore_ascii_case("DPoP") => TokenBinding::Other,
        binding => binding,
    }
}

/// A time without its fraction. Times before 1970 have passed like those at its beginning.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the conversion saturates")]
fn whole_seconds(time: f64) -> u64 {
    time as u64
}

impl<T> fmt::Debug for Introspection<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Introspection").field("server", &self.server).finish_non_exhaustive()
    }
}
