//! `openid-connect`: logs users in at an OpenID provider, and verifies its access tokens.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: login
//! plugin: openid-connect
//! config:
//!   issuer: https://login.example/realms/shop
//!   client_id: [shop]
//!   redirect_uri: [https://shop.example/callback]
//!   audience_required: [shop]
//!   logout_uri_suffix: /logout
//! configPatches:
//! - path: /client_secret
//!   valueFrom:
//!     secretKeyRef: {name: login, key: client_secret}
//! - path: /session_secret
//!   valueFrom:
//!     secretKeyRef: {name: login, key: session_secret}
//! ```
//!
//! The values in the Secret are JSON: `client_secret` is a list, such as `["text"]`, and `session_secret` a text in
//! quotes.
//!
//! A browser without a session is sent to the provider, by the authorization code flow with PKCE, and comes back with
//! a code, for which Portico gets tokens. The session is an encrypted cookie with these tokens, or with an id of the
//! session in Redis. Every replica accepts it, and can finish a login that another replica began: the keys are those of
//! `session_secret`, or of the Secret `portico-keys`, which all replicas share. Only GET and HEAD requests begin a
//! login, and only if they open a page: others get status 401.
//!
//! Clients without a browser send an access token, or a name and a password for which Portico requests one. Signed
//! access tokens may also be those of the issuers in `bearer_issuers`. The claim `iss` selects the issuer, whose keys
//! verify the token.
//!
//! ```text
//!   callback, logout? ─ yes ─▶ finish the login, end the session
//!      │ no
//!   session? ─ yes ─▶ access token expired? ─ yes ─▶ refresh ─┐
//!      │ no                     └ no ─────────────────────────┤
//!   access token? ─ yes ─▶ signature, or introspection ───────┼─▶ required claims ─▶ consumer, groups, headers
//!      │ no                                                   │
//!   password? ─ yes ─▶ token of the provider ─────────────────┘
//!      │ no
//!   login at the provider, or status 401
//! ```

mod claims;
mod config;
mod credentials;
mod decision;
mod dumped_fields;
mod endpoint_headers;
mod form_parameters;
mod login;
mod provider;
mod provider_client;
mod purpose;
mod replies;
mod sessions;
mod settings;
mod tokens;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderValue, request};

use self::config::AuthMethod;
pub(crate) use self::config::Config;
use self::credentials::ClientCredential;
use self::decision::{AcceptedClient, OpenIdDecision, ResponseCookies};
use self::endpoint_headers::HeaderSources;
use self::login::BrowserLogins;
use self::purpose::Purpose;
use self::replies::OpenIdRejection;
use self::sessions::{LogoutReceiver, Logouts, RefreshFailure, RevokedSessions, TokenRefreshes, UserSessions};
use self::settings::OpenIdSettings;
use self::tokens::{AuthenticationError, TokenIdentity};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, NamedConsumer, OwnUrl, Plugin, PluginServices,
    Reply, RequestCx, ResponseCx, ResponseOutcome,
};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential};
use crate::plugin_kit::digest_cache::DigestCache;
use crate::rejection_log::RejectionLog;
use crate::sealed_cookie::unix_second;

/// Authenticates users and clients at an OpenID provider.
pub(crate) struct OpenIdConnect {
    settings: OpenIdSettings,
    policy: AuthPolicy,
    services: Arc<dyn PluginServices>,
    /// Shared by all plugins of this kind in the process.
    cache: Arc<DigestCache<TokenIdentity>>,
    /// Part of the cache key, so that what another configuration has accepted is verified again.
    fingerprint: Sha256Digest,
    refreshes: Arc<TokenRefreshes>,
    revoked: Arc<RevokedSessions>,
    _receives_logouts: Option<LogoutReceiver>,
    log: RejectionLog,
}

impl PluginKind for OpenIdConnect {
    const NAME: &'static str = "openid-connect";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1050;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [dumped_fields::DumpedFields] = dumped_fields::DUMPED_FIELDS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(mut config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let policy = AuthPolicy::new(config.anonymous.clone(), config.run_on_preflight);
        let redis = config.redis.take();
        let (policy, settings) = match (policy, config.validate(redis, cx)) {
            (Ok(policy), Ok(settings)) => (policy, settings),
            (policy, settings) => {
                return Err(policy.err().into_iter().chain(settings.err().into_iter().flatten()).collect());
            }
        };
        let verification = format!(
            "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
            cx.object,
            config.issuer,
            config.issuers_allowed,
            config.bearer_issuers,
            config.client_id,
            config.client_secret,
            config.scopes,
            config.auth_methods,
            config.allow_id_tokens,
            config.verify_token_binding,
            config.leeway,
            config.token_endpoint,
            config.introspection_endpoint,
            config.userinfo_endpoint,
            config.jwks_endpoint,
            // They may select the audience or the tenant of a token for a password.
            config.token_post_args_names,
            config.token_post_args_values,
        );
        let revoked = RevokedSessions::of_client(cx, &config, settings.longest_session);
        Ok(OpenIdConnect {
            _receives_logouts: settings.backchannel_suffix.as_ref().map(|_| LogoutReceiver::new(&revoked)),
            revoked,
            settings,
            policy,
            services: Arc::clone(cx.services),
            cache: cx.state.get_or_create("openid-connect/verified", DigestCache::default),
            fingerprint: sha256(verification.as_bytes()),
            refreshes: cx.state.get_or_create(&format!("{} refreshed tokens", cx.object), TokenRefreshes::default),
            log: RejectionLog::new(Self::NAME),
        })
    }
}

impl Plugin for OpenIdConnect {
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.anonymous_consumer().into_iter().collect()
    }

    fn own_urls(&self) -> &[OwnUrl] {
        let logs_in = self.settings.party.accepts(AuthMethod::AuthorizationCode);
        let redirect_uri = self.settings.redirect_uri.as_ref().filter(|_| logs_in);
        redirect_uri.map_or(&[], |redirect_uri| std::slice::from_ref(&redirect_uri.own))
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        self.settings.declare_assertions(assertions);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&[AUTHORIZATION, COOKIE]);
        fields.response.add(&SET_COOKIE);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        // Of requests, and of the URLs in `Location` to which logins and logouts redirect.
        let parameters = [credentials::TOKEN_PARAMETER, "code", "state", "nonce", "id_token_hint"].map(Box::from);
        let mut cookies = self.settings.sessions.cookies.names();
        cookies.extend(self.settings.token_cookie.clone());
        Some(CredentialLocations { parameters: parameters.into(), cookies, ..CredentialLocations::default() })
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.settings.backchannel_suffix.is_some().then_some(MAX_BODY_BYTES)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.is_backchannel(&head.method, head.uri.path())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        if let Some(decision) = self.decide_now(cx) {
            return self.finish(cx, decision).map_or(AccessOutcome::Continue, AccessOutcome::Reply);
        }
        AccessOutcome::Wait(Box::pin(async move {
            let decision = self.decide(cx).await;
            self.finish(cx, decision)
        }))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(ResponseCookies { cookies, session, now }) = cx.plugin_data().map(std::mem::take)
            // The user may have logged out since the request began.
            && !self.settings.sessions.logged_out.contains_digest(&session, now)
        {
            for cookie in cookies.get_all(SET_COOKIE) {
                cx.headers.append(SET_COOKIE, cookie.clone());
            }
        }
        ResponseOutcome::Continue
    }
}

impl OpenIdConnect {
    /// The decision about a request, if it needs nothing of the provider.
    fn decide_now(&self, cx: &RequestCx<'_>) -> Option<OpenIdDecision> {
        let Purpose::Forward(credential) = self.purpose(cx) else { return None };
        let now = unix_second(cx.now);
        let (session, place) = self.sessions().find_now(cx, now)?;
        if let Some(session) = session {
            if session.data.has_expired(now) {
                return None;
            }
            let client = self.sessions().continue_now(cx, session, place, now);
            if self.logins().begins_again(cx, &client.claims, now) {
                return self.logins().begin(cx, self.settings.party.provider.current().as_ref()?, now);
            }
            return Some(OpenIdDecision::Accept(Box::new(client)));
        }
        match credential {
            ClientCredential::None => self.logins().begin(cx, self.settings.party.provider.current().as_ref()?, now),
            ClientCredential::Invalid => Some(OpenIdDecision::Reject(OpenIdRejection::WrongCredentials)),
            ClientCredential::Token(token) => {
                let digest = self.digest("token", &[&token]);
                if let Some(cached) = self.cached(&digest, now) {
                    return Some(OpenIdDecision::by_binding(cx, &self.log, &cached));
                }
                let verified = self.settings.party.verify_locally(&token, digest, now)?;
                Some(self.accept_or_reject(cx, verified, now))
            }
            ClientCredential::Password(name, password) => {
                let cached = self.cached(&self.digest("password", &[&name, &password]), now)?;
                Some(OpenIdDecision::by_binding(cx, &self.log, &cached))
            }
        }
    }

    /// The decision about a request, which may wait for the provider.
    async fn decide(&self, cx: &RequestCx<'_>) -> OpenIdDecision {
        let now = unix_second(cx.now);
        let credential = match self.purpose(cx) {
            Purpose::BackchannelLogout => return self.logouts().end_sessions(cx, now).await,
            Purpose::Logout => return self.logouts().log_out(cx, now).await,
            Purpose::Callback { is_certain } => {
                let may_be_forwarded = match is_certain {
                    true => false,
                    false => match self.sessions().find(cx, now).await {
                        Ok((session, _)) => session.is_some(),
                        Err(error) => return OpenIdDecision::without_sessions(cx, &self.log, error),
                    },
                };
                match self.logins().finish(cx, may_be_forwarded, now).await {
                    Some(decision) => return decision,
                    None => ClientCredential::None,
                }
            }
            Purpose::Forward(credential) => credential,
        };
        let (session, place) = match self.sessions().find(cx, now).await {
            Ok(found) => found,
            Err(error) => return OpenIdDecision::without_sessions(cx, &self.log, error),
        };
        if let Some(session) = session {
            match self.sessions().refresh_if_expired(session, now).await {
                Ok(Some(session)) => {
                    let client = self.sessions().continue_session(cx, session, place, now).await;
                    return match self.logins().begins_again(cx, &client.claims, now) {
                        true => self.logins().begin_or_reject(cx, now).await,
                        false => OpenIdDecision::Accept(Box::new(client)),
                    };
                }
                Ok(None) => {}
                Err(RefreshFailure::Provider(message)) => return OpenIdDecision::unavailable(cx, &self.log, &message),
                Err(RefreshFailure::Store(error)) => return OpenIdDecision::without_sessions(cx, &self.log, error),
            }
        }
        match credential {
            ClientCredential::None => self.logins().begin_or_reject(cx, now).await,
            ClientCredential::Invalid => OpenIdDecision::Reject(OpenIdRejection::WrongCredentials),
            ClientCredential::Token(token) => {
                let digest = self.digest("token", &[&token]);
                let verified = self.settings.party.verify(&token, digest, cx.client.address, now).await;
                self.accept_or_reject(cx, verified, now)
            }
            ClientCredential::Password(name, password) => {
                let digest = self.digest("password", &[&name, &password]);
                let (credentials, client) = ((&*name, &*password), cx.client.address);
                let verified = self.settings.party.verify_password(credentials, digest, client, now).await;
                self.accept_or_reject(cx, verified, now)
            }
        }
    }

    fn logins(&self) -> BrowserLogins<'_> {
        BrowserLogins { settings: &self.settings, log: &self.log }
    }

    fn sessions(&self) -> UserSessions<'_> {
        UserSessions {
            settings: &self.settings,
            refreshes: &self.refreshes,
            revoked: &self.revoked,
            services: &self.services,
            log: &self.log,
        }
    }

    fn logouts(&self) -> Logouts<'_> {
        Logouts { settings: &self.settings, log: &self.log, revoked: &self.revoked }
    }
}

/// Decisions about clients.
impl OpenIdConnect {
    fn cached(&self, digest: &Sha256Digest, now: u64) -> Option<Arc<TokenIdentity>> {
        let found = self.cache.find(digest)?;
        let identity = found.as_ref()?;
        let is_published = |key: &_| self.settings.party.publishes(identity.bearer_issuer, key);
        identity.is_valid(is_published, now).then(|| Arc::clone(identity))
    }

    /// The key of a credential in the cache.
    fn digest(&self, kind: &str, parts: &[&str]) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        for part in [kind].iter().chain(parts) {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = Sha256Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    fn accept_or_reject(
        &self,
        cx: &RequestCx<'_>,
        verified: Result<TokenIdentity, AuthenticationError>,
        now: u64,
    ) -> OpenIdDecision {
        match verified {
            Ok(identity) => {
                let identity = Arc::new(identity);
                if identity.expires > now {
                    self.cache.insert(Arc::clone(&identity), cx.now);
                }
                OpenIdDecision::by_binding(cx, &self.log, &identity)
            }
            Err(AuthenticationError::Rejected(message)) => {
                self.log.rejected(cx.scope, "credential", &message);
                OpenIdDecision::Reject(OpenIdRejection::WrongCredentials)
            }
            Err(AuthenticationError::Unavailable(message)) => OpenIdDecision::unavailable(cx, &self.log, &message),
        }
    }

    /// Authorizes an accepted client and sets its identity, or returns the reply.
    fn finish(&self, cx: &mut RequestCx<'_>, decision: OpenIdDecision) -> Option<Box<Reply>> {
        let rejection = match decision {
            OpenIdDecision::Reply(reply) => return Some(reply),
            OpenIdDecision::Reject(rejection) => rejection,
            OpenIdDecision::Accept(client) => match self.authorize(cx, *client) {
                Ok(()) => return None,
                Err(rejection) => rejection,
            },
        };
        let OpenIdSettings { unauthorized, forbidden, level, .. } = &self.settings;
        let reply = || rejection.reply(unauthorized, forbidden, level.as_ref());
        // Only a client without a valid credential becomes the anonymous consumer.
        if !matches!(rejection, OpenIdRejection::NoCredentials | OpenIdRejection::WrongCredentials) {
            return Some(reply());
        }
        let rejected = self.policy.reject(cx, reply);
        if rejected.is_none() {
            // The endpoint must not take them for those of the anonymous consumer.
            self.remove_credentials(cx);
        }
        rejected
    }

    fn authorize(&self, cx: &mut RequestCx<'_>, client: AcceptedClient) -> Result<(), OpenIdRejection> {
        let AcceptedClient { claims, access_token, id_token, introspection, has_known_audience, has_session, cookies } =
            client;
        let rules = match has_known_audience {
            true => &self.settings.claims_without_audience,
            false => &self.settings.claims,
        };
        if let Some(field) = rules.violated(&claims) {
            self.log.rejected(cx.scope, "authorization", &format!("the claims do not satisfy `{field}`"));
            return Err(OpenIdRejection::Forbidden);
        }
        if let Some(field) = self.settings.level.as_ref().and_then(|level| level.unmet(&claims, unix_second(cx.now))) {
            self.log.rejected(cx.scope, "authentication", &format!("the claims do not satisfy `{field}`"));
            return Err(OpenIdRejection::InsufficientAuthentication);
        }
        let consumers = cx.consumers;
        let consumer = rules.consumer(&claims, consumers);
        if rules.maps_consumers() && consumer.is_none() && !self.settings.consumer_is_optional {
            self.log.rejected(cx.scope, "authorization", "there is no consumer for the claim");
            return Err(OpenIdRejection::NoConsumer);
        }
        self.remove_credentials(cx);
        let credential = rules.credential(&claims);
        let identifier = credential.as_deref().and_then(|credential| HeaderValue::from_str(credential).ok());
        let subject = rules.subject(&claims, || self.settings.party.provider.issuer());
        self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier: identifier.as_ref() });
        cx.identity.groups = rules.groups(&claims);
        cx.identity.add_consumer_groups(rules.consumer_groups(&claims));
        let sources = HeaderSources {
            has_session,
            claims: &claims,
            access_token: access_token.as_deref(),
            id_token: id_token.as_deref(),
            introspection: introspection.as_deref(),
        };
        self.settings.headers.set(&sources, cx);
        if let Some(cookies) = cookies {
            cx.set_plugin_data(cookies);
        }
        Ok(())
    }

    /// Removes what the endpoint must not get.
    fn remove_credentials(&self, cx: &mut RequestCx<'_>) {
        let settings = &self.settings;
        settings.sessions.cookies.remove_from(&mut cx.head.headers);
        settings.logins.remove_from(&mut cx.head.headers);
        if settings.hides_credentials {
            credentials::remove(cx.head, &settings.token_locations, settings.token_cookie.as_deref());
        }
    }
}

/// Size limit of the body with a logout token, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
