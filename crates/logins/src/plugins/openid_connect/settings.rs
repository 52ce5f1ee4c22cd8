//! The validated configuration of `openid-connect`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::claims::ClaimRules;
use super::config::{AuthMethod, ClientAuth, Config, LoginAction, LogoutMethod, SessionStorage, TokenLocation};
use super::endpoint_headers::EndpointHeaders;
use super::login::{AuthenticationLevel, LoginCookies};
use super::provider::{Provider, WELL_KNOWN};
use super::provider_client::ProviderClient;
use super::tokens::{BearerIssuers, RelyingParty, TokenRules};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{Assertions, HiddenCookies, OwnUrl, RemoteUrl};
use crate::plugin_kit::authentication::declare_identity;
use crate::plugin_kit::redis::{RedisConfig, RedisServer};
use crate::sealed_cookie::{
    CookieAttributes, CookieSameSite, CookieSettings, SealedCookie, SealingKeys, SessionCookies, SessionTimeouts,
};
use crate::stored_sessions::Sessions;

/// A validated configuration.
pub(super) struct OpenIdSettings {
    pub(super) party: Arc<RelyingParty>,
    pub(super) claims: ClaimRules,
    /// The same for tokens whose audience is known.
    pub(super) claims_without_audience: ClaimRules,
    /// How users must have logged in. `None`: in any way.
    pub(super) level: Option<AuthenticationLevel>,
    pub(super) headers: EndpointHeaders,
    pub(super) sessions: Arc<Sessions>,
    pub(super) logins: LoginCookies,
    pub(super) redirect_uri: Option<RedirectUri>,
    pub(super) authorization_args: Box<[(String, String)]>,
    pub(super) token_locations: Box<[TokenLocation]>,
    pub(super) token_cookie: Option<Box<str>>,
    /// Whether browsers do not send the session after a redirect from another site.
    pub(super) has_strict_cookie: bool,
    /// Whether browsers without a session are sent to the provider.
    pub(super) begins_logins: bool,
    /// The page after each login. `None`: the page that was requested.
    pub(super) login_page: Option<Box<str>>,
    pub(super) logout: LogoutSettings,
    pub(super) backchannel_suffix: Option<Box<str>>,
    pub(super) refreshes_tokens: bool,
    pub(super) consumer_is_optional: bool,
    pub(super) hides_credentials: bool,
    /// Seconds after which no session exists any more.
    pub(super) longest_session: u64,
    pub(super) unauthorized: Arc<str>,
    pub(super) forbidden: Arc<str>,
}

/// The configured redirect URI.
#[derive(Debug)]
pub(super) struct RedirectUri {
    pub(super) url: Box<str>,
    /// Its path, as requests have it.
    pub(super) path: Box<str>,
    pub(super) own: OwnUrl,
}

/// Which requests end sessions.
#[derive(Debug)]
pub(super) struct LogoutSettings {
    pub(super) methods: Box<[Method]>,
    pub(super) suffix: Option<Box<str>>,
    pub(super) query_arg: Option<Box<str>>,
    pub(super) redirect_uri: Option<Box<str>>,
    pub(super) revokes: bool,
}

impl OpenIdSettings {
    /// What the endpoint gets about a client. The sealed cookies are for this plugin only.
    pub(super) fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(self.headers.names());
        assertions.hidden_cookies.extend(self.sessions.cookies.names().into_iter().map(HiddenCookies::Named));
        assertions.hidden_cookies.push(HiddenCookies::WithPrefix(self.logins.prefix().into()));
    }
}

impl Config {
    /// `redis`: the field of this name.
    pub(super) fn validate(
        &self,
        redis: Option<RedisConfig>,
        cx: &BuildCx<'_>,
    ) -> Result<OpenIdSettings, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let client = self.client(cx, &mut invalid);
        let provider = Provider::open(self, cx).map_err(|errors| invalid.extend(errors)).ok();
        let issuers = self.issuers(cx).map_err(|errors| invalid.extend(errors)).ok();
        let redirect_uri = self.redirect_uri(&mut invalid);
        let login_page = self.login_page(&mut invalid);
        let logout = self.logout(&mut invalid);
        self.check_methods(&mut invalid);
        let mut authorization_args = self.authorization_args(&mut invalid);
        let level = AuthenticationLevel::new(self, &mut invalid);
        authorization_args.extend(level.iter().flat_map(AuthenticationLevel::parameters));
        let headers = EndpointHeaders::new(self).map_err(|errors| invalid.extend(errors)).ok();
        let cookies = self.cookies(cx, &mut invalid);
        let server = self.session_server(redis, cx, &mut invalid);
        self.add_notes(cx);
        let (Some(client), Some(provider), Some(issuers), Some(headers), Some((cookies, logins)), Some(server), true) =
            (client, provider, issuers, headers, cookies, server, invalid.is_empty())
        else {
            return Err(invalid);
        };
        Ok(OpenIdSettings {
            party: Arc::new(self.party(provider, issuers, client)),
            claims: ClaimRules::new(self, cx.namespace()),
            claims_without_audience: ClaimRules::new(
                &Config { audience_required: Vec::new(), ..self.clone() },
                cx.namespace(),
            ),
            level,
            headers,
            sessions: Arc::new(Sessions::new(
                cookies,
                server.as_ref().map(|server| (server, "redis")),
                "openid-connect",
                cx,
            )),
            logins,
            redirect_uri,
            authorization_args: authorization_args.into(),
            token_locations: self.bearer_token_param_type.as_slice().into(),
            token_cookie: self.bearer_token_cookie_name.as_deref().map(Box::from),
            has_strict_cookie: self.session_cookie_same_site == CookieSameSite::Strict,
            begins_logins: self.accepts(AuthMethod::AuthorizationCode) && self.anonymous.is_none(),
            login_page,
            logout,
            backchannel_suffix: self.backchannel_logout_uri_suffix.as_deref().map(Box::from),
            refreshes_tokens: self.refresh_tokens,
            consumer_is_optional: self.consumer_optional,
            hides_credentials: self.hide_credentials,
            longest_session: self.longest_session(),
            unauthorized: self.unauthorized_error_message.as_str().into(),
            forbidden: self.forbidden_error_message.as_str().into(),
        })
    }

    /// The parameters that are added to login requests.
    fn authorization_args(&self, invalid: &mut Vec<Diagnostic>) -> Vec<(String, String)> {
        let args = pairs(
            ("authorization_query_args_names", &self.authorization_query_args_names),
            ("authorization_query_args_values", &self.authorization_query_args_values),
            invalid,
        );
        for (index, (name, _)) in args.iter().enumerate() {
            if RESERVED_PARAMETERS.contains(&&**name) {
                let message = format!("`{name}` is set by the login itself");
                let field = format!("authorization_query_args_names[{index}]");
                invalid.push(Diagnostic::in_config(field, message, "remove it"));
            }
        }
        args
    }

    fn party(&self, provider: Arc<Provider>, issuers: BearerIssuers, client: ProviderClient) -> RelyingParty {
        let ttl = |is_cached: bool| if is_cached { u64::from(self.cache_ttl) } else { 0 };
        RelyingParty {
            provider,
            issuers,
            rules: TokenRules {
                client_id: client.client_id.clone(),
                issuers_allowed: self.issuers_allowed.iter().map(|issuer| issuer.as_str().into()).collect(),
                leeway: self.leeway,
                allows_id_tokens: self.allow_id_tokens,
            },
            client,
            methods: self.auth_methods.as_slice().into(),
            scope: self.scopes.join(" ").into(),
            introspection_ttl: ttl(self.cache_introspection),
            token_ttl: ttl(self.cache_tokens),
            verifies_binding: self.verify_token_binding,
        }
    }

    /// The seconds after which no session exists any more.
    fn longest_session(&self) -> u64 {
        let limit = |limit: u32| if limit == 0 { u64::MAX } else { limit.into() };
        let remembered = if self.session_remember { limit(self.session_remember_absolute_timeout) } else { 0 };
        limit(self.session_absolute_timeout).max(remembered)
    }

    fn accepts(&self, method: AuthMethod) -> bool {
        self.auth_methods.contains(&method)
    }

    fn issuers(&self, cx: &BuildCx<'_>) -> Result<BearerIssuers, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if !self.extra_jwks_uris.is_empty() {
            let message = "must be empty: a key of one issuer would verify the tokens of all others";
            let remedy = "list each issuer in `bearer_issuers`, with its `jwks_uri` and its `audiences`";
            invalid.push(Diagnostic::in_config("extra_jwks_uris", message, remedy));
        }
        if !self.bearer_issuers.is_empty() && !self.accepts(AuthMethod::Bearer) {
            let message = "has no effect, because `auth_methods` does not contain `bearer`";
            invalid.push(Diagnostic::in_config("bearer_issuers", message, "add `bearer`, or remove this field"));
        }
        let issuer = self.issuer.strip_suffix(WELL_KNOWN).unwrap_or(&self.issuer);
        let own: Vec<&str> = self.issuers_allowed.iter().map(String::as_str).chain([issuer]).collect();
        let issuers = BearerIssuers::open(&self.bearer_issuers, &own, cx).map_err(|errors| invalid.extend(errors));
        issuers.ok().filter(|_| invalid.is_empty()).ok_or(invalid)
    }

    fn client(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<ProviderClient> {
        let mut reject = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        let client_id = match &*self.client_id {
            [id] if !id.is_empty() => Some(id),
            [] | [_] => {
                reject("client_id", "is missing", "set it to a list with the id of the client at the provider");
                None
            }
            _ => {
                reject("client_id", "has several entries", "use one plugin for each client of the provider");
                None
            }
        };
        if self.client_secret.len() > 1 {
            reject("client_secret", "has several entries", "list only the secret of the client");
        }
        let client_secret = self.client_secret.first().filter(|secret| !secret.is_empty());
        let client_auth = self.client_auth.first().copied();
        if self.client_auth.len() > 1 {
            reject("client_auth", "has several entries", "list only one");
        }
        if matches!(client_auth, Some(ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost))
            && client_secret.is_none()
        {
            reject("client_auth", "requires a secret", "set `client_secret`, or use `none` for a public client");
        }
        if self.timeout == 0 {
            reject("timeout", "0 is not a valid timeout", "use a number of milliseconds, such as 10000");
        }
        if !self.ssl_verify {
            let remedy = "add the authority of its certificate to the certificates that this machine trusts";
            reject("ssl_verify", "must be true: otherwise, any server could impersonate the provider", remedy);
        }
        let token_args = pairs(
            ("token_post_args_names", &self.token_post_args_names),
            ("token_post_args_values", &self.token_post_args_values),
            invalid,
        );
        let timeout = cx.limited_duration("timeout", self.timeout, MAX_REMOTE_TIMEOUT);
        Some(ProviderClient {
            services: Arc::clone(cx.services),
            namespace: cx.namespace().map(str::to_owned),
            timeout: timeout.max(Duration::from_millis(1)),
            client_id: client_id?.as_str().into(),
            client_secret: client_secret.map(|secret| secret.as_str().into()),
            client_auth,
            token_args,
        })
    }

    fn check_methods(&self, invalid: &mut Vec<Diagnostic>) {
        let mut reject = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        if self.auth_methods.is_empty() {
            reject("auth_methods", "is empty", "list at least one method, such as `bearer`");
        }
        let has_logins = self.accepts(AuthMethod::AuthorizationCode);
        if has_logins && !self.accepts(AuthMethod::Session) {
            let message = "`authorization_code` requires `session`: each request would begin a login otherwise";
            reject("auth_methods", message, "add `session`");
        }
        if has_logins && !self.scopes.iter().any(|scope| scope == "openid") {
            reject("scopes", "does not contain `openid`, so logins have no ID token", "add `openid`");
        }
        if has_logins && self.require_proof_key_for_code_exchange == Some(false) {
            let message = "must not be false: PKCE is always used";
            reject("require_proof_key_for_code_exchange", message, "remove it; providers without PKCE ignore it");
        }
        // The id of the client is no implicit audience of tokens that clients send.
        let reads_tokens = self.accepts(AuthMethod::Bearer) || self.accepts(AuthMethod::Introspection);
        if self.allow_id_tokens && reads_tokens && self.audience_required.is_empty() {
            let message = "requires an audience: each application of the provider could use the ID tokens that it gets";
            reject("allow_id_tokens", message, "list in `audience_required` the client ids that may use the API");
        }
        let needs_cookie = self.bearer_token_param_type.contains(&TokenLocation::Cookie);
        if needs_cookie && self.bearer_token_cookie_name.as_deref().is_none_or(str::is_empty) {
            let message = "is missing, but `bearer_token_param_type` contains `cookie`";
            reject("bearer_token_cookie_name", message, "set it to the name of the cookie");
        }
        if self.authorization_rolling_timeout == 0 {
            reject("authorization_rolling_timeout", "0 leaves no time for a login", "use seconds, such as 600");
        }
    }

    fn redirect_uri(&self, invalid: &mut Vec<Diagnostic>) -> Option<RedirectUri> {
        if self.redirect_uri.len() > 1 {
            invalid.push(Diagnostic::in_config("redirect_uri", "has several entries", "list only one"));
        }
        let url = self.redirect_uri.first()?;
        match RemoteUrl::parse(url) {
            Ok(parsed) if !url.contains('#') && parsed.target.query().is_none() => {
                let own = OwnUrl::new("redirect_uri[0]", "each login ends there with another response", url, &parsed);
                return Some(RedirectUri { url: url.as_str().into(), path: own.path.clone(), own });
            }
            Ok(_) => {
                let message = "has a query or a fragment";
                invalid.push(Diagnostic::in_config("redirect_uri[0]", message, "remove it, also at the provider"));
            }
            Err(message) => {
                let remedy = "use the URL that is registered at the provider, such as https://shop.example/callback";
                invalid.push(Diagnostic::in_config("redirect_uri[0]", message, remedy));
            }
        }
        None
    }

    fn login_page(&self, invalid: &mut Vec<Diagnostic>) -> Option<Box<str>> {
        let is_redirect = self.login_action == LoginAction::Redirect;
        match (&*self.login_redirect_uri, is_redirect) {
            ([], false) => None,
            ([url], true) => {
                check_url("login_redirect_uri[0]", url, invalid);
                Some(url.as_str().into())
            }
            ([], true) => {
                let message = "is missing, but `login_action` is `redirect`";
                invalid.push(Diagnostic::in_config("login_redirect_uri", message, "set it to the URL of a page"));
                None
            }
            (_, true) => {
                invalid.push(Diagnostic::in_config("login_redirect_uri", "has several entries", "list only one"));
                None
            }
            (_, false) => {
                let message = "has no effect without `login_action: redirect`";
                invalid.push(Diagnostic::in_config("login_redirect_uri", message, "set it, or remove this field"));
                None
            }
        }
    }

    fn logout(&self, invalid: &mut Vec<Diagnostic>) -> LogoutSettings {
        for (field, value) in [
            ("logout_uri_suffix", &self.logout_uri_suffix),
            ("logout_query_arg", &self.logout_query_arg),
            ("backchannel_logout_uri_suffix", &self.backchannel_logout_uri_suffix),
        ] {
            if value.as_deref() == Some("") {
                invalid.push(Diagnostic::in_config(field, "is empty", "set it to a text, or remove it"));
            }
        }
        if self.logout_redirect_uri.len() > 1 {
            invalid.push(Diagnostic::in_config("logout_redirect_uri", "has several entries", "list only one"));
        }
        if let Some(url) = self.logout_redirect_uri.first() {
            check_url("logout_redirect_uri[0]", url, invalid);
        }
        let methods = self.logout_methods.iter().map(|method| match method {
            LogoutMethod::Get => Method::GET,
            LogoutMethod::Post => Method::POST,
            LogoutMethod::Delete => Method::DELETE,
        });
        LogoutSettings {
            methods: methods.collect(),
            suffix: self.logout_uri_suffix.as_deref().map(Box::from),
            query_arg: self.logout_query_arg.as_deref().map(Box::from),
            redirect_uri: self.logout_redirect_uri.first().map(|url| url.as_str().into()),
            revokes: self.logout_revoke,
        }
    }

    fn cookies(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<(SessionCookies, LoginCookies)> {
        let settings = |name| CookieSettings {
            name,
            path: &self.session_cookie_path,
            domain: self.session_cookie_domain.as_deref(),
            same_site: self.session_cookie_same_site,
            http_only: self.session_cookie_http_only,
            secure: self.session_cookie_secure,
        };
        let mut validate = |settings: &CookieSettings<'_>, field: &str| {
            let attributes = CookieAttributes::validate(settings, field, "session_cookie_");
            attributes.map_err(|errors| invalid.extend(errors)).ok()
        };
        let session = validate(&settings(&self.session_cookie_name), "session_cookie_name");
        let remember_name = &self.session_remember_cookie_name;
        let remember =
            self.session_remember.then(|| validate(&settings(remember_name), "session_remember_cookie_name"));
        // The provider sends the browser back from another site, with which only Lax and None work.
        let of_logins = CookieSettings {
            same_site: CookieSameSite::Lax,
            http_only: true,
            ..settings(&self.authorization_cookie_name)
        };
        let login = validate(&of_logins, "authorization_cookie_name");
        let names = [&self.session_cookie_name, remember_name, &self.authorization_cookie_name];
        if names[0] == names[1] || names[0] == names[2] || names[1] == names[2] {
            let message = "is also the name of another cookie of the plugin";
            invalid.push(Diagnostic::in_config("session_cookie_name", message, "use a different name for each cookie"));
        }
        let keys = SealingKeys::from_config(
            self.session_secret.as_deref(),
            self.session_former_secret.as_deref(),
            ("session_secret", "session_former_secret"),
            "openid-connect",
            cx,
        );
        let keys = keys.map_err(|errors| invalid.extend(errors)).ok();
        let client = self.client_id.first().map_or("", String::as_str);
        // A session at one provider is none at another one, whatever the secret is.
        let context = format!("{}\n{client}\n{}", self.issuer, self.session_audience);
        let cookie = |attributes| SealedCookie::new(attributes, &context);
        let remember_timeouts = SessionTimeouts {
            idling: 0,
            rolling: self.session_remember_rolling_timeout.into(),
            absolute: self.session_remember_absolute_timeout.into(),
        };
        let remember = match remember {
            None => None,
            Some(attributes) => Some((cookie(attributes?), remember_timeouts)),
        };
        let sessions = SessionCookies {
            keys: keys?,
            cookie: cookie(session?),
            timeouts: SessionTimeouts {
                idling: self.session_idling_timeout.into(),
                rolling: self.session_rolling_timeout.into(),
                absolute: self.session_absolute_timeout.into(),
            },
            remember,
        };
        let logins = LoginCookies::new(login?, &context, self.authorization_rolling_timeout.into());
        Some((sessions, logins))
    }

    /// The server of sessions, if they are stored at one. `None` if that is invalid.
    fn session_server(
        &self,
        redis: Option<RedisConfig>,
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<Option<RedisServer>> {
        match (self.session_storage, redis) {
            (SessionStorage::Redis, redis) => {
                let server = redis.unwrap_or_default().validate("redis", cx);
                server.map_err(|errors| invalid.extend(errors)).ok().map(Some)
            }
            (SessionStorage::Cookie, Some(_)) => {
                let message = "has no effect, because `session_storage` is `cookie`";
                invalid.push(Diagnostic::in_config("redis", message, "set `session_storage` to `redis`, or remove it"));
                None
            }
            (SessionStorage::Cookie, None) => Some(None),
        }
    }

    /// Notes about configurations that are valid, but less safe than the operator may expect.
    fn add_notes(&self, cx: &BuildCx<'_>) {
        let accepts_tokens = [AuthMethod::Bearer, AuthMethod::Introspection, AuthMethod::Userinfo];
        if accepts_tokens.iter().any(|method| self.accepts(*method)) && self.audience_required.is_empty() {
            let message = "is empty, so access tokens that the provider has issued for other applications are accepted";
            cx.note(Diagnostic::in_config("audience_required", message, "list the audiences of this application"));
        }
        if self.backchannel_logout_uri_suffix.is_some() && self.session_storage == SessionStorage::Cookie {
            let message = "each replica ends only the sessions whose logout it has received";
            let remedy = "with several replicas, set `session_storage` to `redis`";
            cx.note(Diagnostic::in_config("backchannel_logout_uri_suffix", message, remedy));
        }
    }
}

fn check_url(field: &str, url: &str, invalid: &mut Vec<Diagnostic>) {
    if let Err(message) = RemoteUrl::parse(url) {
        invalid.push(Diagnostic::in_config(field, message, "use a whole URL, such as https://shop.example/"));
    }
}

/// Names and values as pairs.
fn pairs(
    (names_field, names): (&str, &[String]),
    (values_field, values): (&str, &[String]),
    invalid: &mut Vec<Diagnostic>,
) -> Vec<(String, String)> {
    if names.len() != values.len() {
        let message = format!("does not have as many entries as `{names_field}`");
        invalid.push(Diagnostic::in_config(values_field, message, "list a value for each name"));
    }
    names.iter().cloned().zip(values.iter().cloned()).collect()
}

/// The parameters of a login request that protect it.
const RESERVED_PARAMETERS: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];
