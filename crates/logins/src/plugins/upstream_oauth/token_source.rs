//! The current token of a configuration, and the requests to the token endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::config::{AuthMethod, Config, GrantType};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::BuildCx;
use crate::plugin_api::consumers::{Sha256Digest, hex, sha256};
use crate::plugin_kit::form_body::{FORM_MEDIA_TYPE, form_body, query_value};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig, RemoteServerFailed};
use crate::plugin_kit::sent_headers::{SET_BY_PLUGIN, parse_sent_headers};
use crate::plugin_kit::shared_fetch::SharedFetches;

/// Where the plugins with one configuration get their tokens.
pub(super) struct TokenSource {
    server: RemoteServer,
    headers: HeaderMap,
    body: Bytes,
    default_ttl: Duration,
    eagerly_expire: Duration,
    token: ArcSwapOption<IssuedToken>,
    /// There is at most one fetch at a time, under one key.
    fetches: SharedFetches<Result<Arc<TokenResponse>, RemoteServerFailed>>,
}

/// A token that an issuer has returned.
pub(super) struct IssuedToken {
    /// `Bearer` and the token; marked as sensitive.
    pub(super) header: HeaderValue,
    /// When it is replaced.
    expires: SystemTime,
    issued: Instant,
}

/// What the plugin reads of the response of a token endpoint (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(default)]
    token_type: String,
    /// Seconds.
    expires_in: Option<f64>,
}

/// Maximum size in bytes of a response of the token endpoint.
const MAX_RESPONSE: usize = 64 * 1024;
const FETCH_KEY: Sha256Digest = [0; 32];

impl TokenSource {
    /// The source of this configuration. A plugin that is rebuilt with the same configuration keeps its token.
    pub(super) fn for_config(config: &Config, cx: &BuildCx<'_>) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let (oauth, client) = (&config.oauth, &config.client);
        let mut invalid = Vec::new();
        let server = RemoteServerConfig {
            field: "oauth.token_endpoint",
            url: &oauth.token_endpoint,
            timeout_field: "client.timeout",
            timeout: client.timeout,
            keep_alive: if client.keep_alive { KEEP_ALIVE } else { 0 },
            verify: client.ssl_verify,
            max_response: MAX_RESPONSE,
        };
        let mut require = |field: &str, value: &Option<String>, why: &str| {
            if value.as_deref().is_none_or(str::is_empty) {
                let remedy = "set it, if it is secret by a reference such as {secretKeyRef: {name: a, key: b}}";
                invalid.push(Diagnostic::in_config(field, format!("is missing, which {why} needs"), remedy));
            }
        };
        if client.auth_method != AuthMethod::None || oauth.grant_type == GrantType::ClientCredentials {
            require("oauth.client_id", &oauth.client_id, "the client");
        }
        if client.auth_method != AuthMethod::None {
            require("oauth.client_secret", &oauth.client_secret, "client.auth_method");
        }
        if oauth.grant_type == GrantType::Password {
            require("oauth.username", &oauth.username, "the grant `password`");
            require("oauth.password", &oauth.password, "the grant `password`");
        }
        let headers = config.headers(&mut invalid);
        let name = format!("{} upstream-oauth {}", cx.object, config.fingerprint(cx.object));
        let server = RemoteServer::new(server, cx).map_err(|errors| invalid.extend(errors));
        let (Ok(server), []) = (server, &invalid[..]) else { return Err(invalid) };
        Ok(cx.state.get_or_create(&name, || TokenSource {
            server,
            headers,
            body: config.body(),
            default_ttl: Duration::from_secs(config.cache.default_ttl.into()),
            eagerly_expire: Duration::from_secs(config.cache.eagerly_expire.into()),
            token: ArcSwapOption::empty(),
            fetches: SharedFetches::default(),
        }))
    }

    /// The token, unless it has to be replaced.
    pub(super) fn current(&self, now: SystemTime) -> Option<Arc<IssuedToken>> {
        self.token.load().as_ref().filter(|token| token.expires > now).cloned()
    }

    /// Gets a token from the issuer. Requests that wait at the same time get the same.
    pub(super) async fn fetch(&self, now: SystemTime) -> Result<Arc<IssuedToken>, RemoteServerFailed> {
        let start = || {
            let failed = self.server.failure_reporter();
            let sending = self.server.send(
                |request| {
                    request.method = Method::POST;
                    request.headers.extend(self.headers.clone());
                    request.body = self.body.clone();
                },
                |status| status == StatusCode::OK,
            );
            async move {
                let response = sending.await?;
                let parsed = serde_json::from_slice::<TokenResponse>(&response.body);
                let parsed = parsed.map_err(|_| failed("the response is not JSON with `access_token`"))?;
                // RFC 6749, section 7.1: a client must not use a token of an unknown type.
                if !parsed.token_type.is_empty() && !parsed.token_type.eq_ignore_ascii_case("bearer") {
                    return Err(failed("the type of the token is not Bearer"));
                }
                Ok(Arc::new(parsed))
            }
            .boxed()
        };
        let response = self.fetches.get(FETCH_KEY, start).await?;
        // Another request of the same fetch may have stored it already.
        if let Some(token) = self.current(now) {
            return Ok(token);
        }
        let header = HeaderValue::try_from(format!("Bearer {}", response.access_token));
        let mut header = header.map_err(|_| self.server.failed("the token is not a valid header value"))?;
        header.set_sensitive(true);
        let lifetime = response.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let lifetime = lifetime.unwrap_or(self.default_ttl).min(MAX_LIFETIME).saturating_sub(self.eagerly_expire);
        let token = Arc::new(IssuedToken { header, expires: now + lifetime, issued: Instant::now() });
        self.token.store(Some(Arc::clone(&token)));
        Ok(token)
    }

    /// Drops a token, unless another one has replaced it. A new one is kept: otherwise a client whose requests the
    /// endpoint rejects for another reason would cause a request for a token with each of them.
    pub(super) fn purge(&self, token: &Arc<IssuedToken>) {
        if token.issued.elapsed() < MIN_PURGED_AGE {
            return;
        }
        let current = self.token.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, token)) {
            self.token.compare_and_swap(&current, None);
        }
    }
}

impl fmt::Debug for TokenSource {
    /// Omits the secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenSource").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Config {
    /// A digest of what selects the token: the client, the token endpoint, and what the token permits. A new secret or
    /// password of the same client selects the same token.
    pub(super) fn selection(&self, object: &str) -> Sha256Digest {
        let oauth = &self.oauth;
        let grant = (&oauth.token_endpoint, oauth.grant_type, &oauth.scopes, &oauth.audience);
        let client = (&oauth.client_id, &oauth.username);
        let further = (&oauth.token_headers, &oauth.token_post_args);
        sha256(format!("{object:?} {grant:?} {client:?} {further:?}").as_bytes())
    }

    /// A digest of everything that the token and the requests for it depend on.
    fn fingerprint(&self, object: &str) -> String {
        let (oauth, client, cache) = (&self.oauth, &self.client, &self.cache);
        let selection = self.selection(object);
        let secrets = (&oauth.client_secret, &oauth.password);
        let client = (client.auth_method, client.timeout, client.keep_alive, client.ssl_verify);
        let lifetime = (cache.strategy, cache.default_ttl, cache.eagerly_expire);
        hex(&sha256(format!("{selection:?} {secrets:?} {client:?} {lifetime:?}").as_bytes()))
    }

    /// The headers of requests to the token endpoint.
    fn headers(&self, invalid: &mut Vec<Diagnostic>) -> HeaderMap {
        let oauth = &self.oauth;
        let set_here = [HOST, CONTENT_LENGTH, CONTENT_TYPE].map(|name| (name, SET_BY_PLUGIN));
        let mut headers = parse_sent_headers("oauth.token_headers", &oauth.token_headers, &set_here, invalid);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM_MEDIA_TYPE));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        if self.client.auth_method == AuthMethod::ClientSecretBasic {
            let part = |value: &Option<String>| query_value(value.as_deref().unwrap_or_default());
            // RFC 6749, section 2.3.1: both are encoded as in a form.
            let credentials = format!("{}:{}", part(&oauth.client_id), part(&oauth.client_secret));
            let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)));
            let mut value = value.expect("base64 is a valid header value");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// The body of requests to the token endpoint.
    fn body(&self) -> Bytes {
        let oauth = &self.oauth;
        let (scopes, audience) = (oauth.scopes.join(" "), oauth.audience.join(" "));
        let mut fields = vec![match oauth.grant_type {
            GrantType::ClientCredentials => ("grant_type", "client_credentials"),
            GrantType::Password => ("grant_type", "password"),
        }];
        fn text(value: &Option<String>) -> &str {
            value.as_deref().unwrap_or_default()
        }
        match self.client.auth_method {
            AuthMethod::ClientSecretPost => {
                fields.push(("client_id", text(&oauth.client_id)));
                fields.push(("client_secret", text(&oauth.client_secret)));
            }
            AuthMethod::ClientSecretBasic => {}
            AuthMethod::None => fields.push(("client_id", text(&oauth.client_id))),
        }
        if oauth.grant_type == GrantType::Password {
            fields.push(("username", text(&oauth.username)));
            fields.push(("password", text(&oauth.password)));
        }
        fields.push(("scope", &scopes));
        fields.push(("audience", &audience));
        fields.retain(|(_, value)| !value.is_empty());
        let further = oauth.token_post_args.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        form_body(fields.into_iter().chain(further))
    }
}

/// The age from which tokens are purged.
const MIN_PURGED_AGE: Duration = Duration::from_secs(10);
/// How many milliseconds an idle connection to the token endpoint is kept open.
const KEEP_ALIVE: u32 = 60_000;
/// Longer lifetimes of tokens have the effect of this one.
const MAX_LIFETIME: Duration = Duration::from_secs(366 * 86400);
