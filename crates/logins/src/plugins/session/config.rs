//! The configuration of `session` and its validation.

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::session_headers::SessionProperty;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::optional_record;
use crate::plugin_kit::redis::RedisConfig;
use crate::sealed_cookie::{
    CookieAttributes, CookieSameSite, CookieSettings, SealedCookie, SealingKeys, SessionCookies, SessionTimeouts,
};
use crate::stored_sessions::Sessions;

/// Keeps clients authenticated by a cookie.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The secret that the key of the cookies is derived from. Take it from a Secret, with at least 32 random
    /// characters. If unset, the keys are those of the Secret `portico-keys`, which all replicas share. Without a
    /// cluster, the key is then random: sessions end when Portico restarts, and other replicas do not accept them.
    secret: Option<String>,
    /// A secret that was used before. Sessions that it has sealed remain valid.
    former_secret: Option<String>,
    /// Where sessions are stored.
    storage: Storage,
    /// The server for the storage `redis`.
    #[serde(deserialize_with = "optional_record")]
    redis: Option<RedisConfig>,
    /// The purpose of the sessions. A session is valid only for plugins with the same `audience` and `cookie_name`.
    audience: String,
    /// Seconds after which a session ends without requests; 0 for no limit.
    idling_timeout: u32,
    /// Seconds after which a session ends without being renewed; 0 for no limit. A request in the last quarter of this
    /// time renews it.
    rolling_timeout: u32,
    /// Seconds after which a session ends in any case; 0 for no limit.
    absolute_timeout: u32,
    /// Has no effect: a replaced cookie remains valid until it has timed out.
    stale_ttl: u32,
    /// Name of the cookie. With the prefix `__Host-`, which requires the path `/` and no domain, other hosts of the
    /// same site cannot replace the cookie.
    cookie_name: String,
    /// The path of the cookie.
    cookie_path: String,
    /// The domain of the cookie. If unset, browsers send the cookie to the same host only.
    cookie_domain: Option<String>,
    /// With which requests of other sites browsers send the cookie.
    cookie_same_site: CookieSameSite,
    /// Whether scripts in pages cannot read the cookie.
    cookie_http_only: bool,
    /// Whether browsers send the cookie only over HTTPS.
    cookie_secure: bool,
    /// Whether a session begins again after the browser was closed or the session has timed out.
    remember: bool,
    /// Name of the cookie that remembers sessions.
    remember_cookie_name: String,
    /// Seconds after which a session is not remembered without being renewed; 0 for no limit.
    remember_rolling_timeout: u32,
    /// Seconds after which a session is not remembered in any case; 0 for no limit.
    remember_absolute_timeout: u32,
    /// Headers with properties of the session to add to responses.
    response_headers: Vec<SessionProperty>,
    /// Headers with properties of the session to add to requests. Those of clients are removed.
    request_headers: Vec<SessionProperty>,
    /// Whether forms and JSON bodies of up to 64 KiB are searched for `logout_post_arg`.
    read_body_for_logout: bool,
    /// Methods of requests that can end the session.
    logout_methods: Vec<LogoutMethod>,
    /// The query parameter of a request that ends the session. Its value does not matter.
    logout_query_arg: String,
    /// The field of a body that ends the session, if `read_body_for_logout` is true.
    logout_post_arg: String,
    /// Whether `Session-Subject` contains a digest of the subject.
    hash_subject: bool,
    /// Must be false: there is no metadata of sessions elsewhere.
    store_metadata: bool,
    /// Alias of `rolling_timeout`. If both are set, the alias is used.
    cookie_lifetime: Option<u32>,
    /// Alias of `idling_timeout`. If both are set, the alias is used.
    cookie_idletime: Option<u32>,
    /// Alias of `stale_ttl`. If both are set, the alias is used.
    cookie_discard: Option<u32>,
    /// Alias of `cookie_same_site`. If both are set, the alias is used.
    cookie_samesite: Option<AliasedSameSite>,
    /// Alias of `cookie_http_only`. If both are set, the alias is used.
    cookie_httponly: Option<bool>,
    /// Alias of `remember`. If both are set, the alias is used.
    cookie_persistent: Option<bool>,
    /// Has no effect: sessions are renewed in the last quarter of `rolling_timeout`.
    cookie_renew: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Storage {
    /// In the cookie.
    Cookie,
    /// In Redis, encrypted. The cookie has only an encrypted id, and a logout ends the session for all copies of it.
    Redis,
    /// In Kong's database, which Portico does not have: the configuration is invalid.
    Kong,
}

/// A method of requests that can end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum LogoutMethod {
    Get,
    Post,
    Delete,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
enum AliasedSameSite {
    /// As in `cookie_same_site`.
    Strict,
    /// As in `cookie_same_site`.
    Lax,
    /// As in `cookie_same_site`.
    None,
    /// As `Default` in `cookie_same_site`.
    #[serde(rename = "off")]
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            secret: None,
            former_secret: None,
            storage: Storage::Cookie,
            redis: None,
            audience: "default".to_owned(),
            idling_timeout: 900,
            rolling_timeout: 3600,
            absolute_timeout: 86_400,
            stale_ttl: 10,
            cookie_name: "session".to_owned(),
            cookie_path: "/".to_owned(),
            cookie_domain: None,
            cookie_same_site: CookieSameSite::Strict,
            cookie_http_only: true,
            cookie_secure: true,
            remember: false,
            remember_cookie_name: "remember".to_owned(),
            remember_rolling_timeout: 604_800,
            remember_absolute_timeout: 2_592_000,
            response_headers: Vec::new(),
            request_headers: Vec::new(),
            read_body_for_logout: false,
            logout_methods: vec![LogoutMethod::Post, LogoutMethod::Delete],
            logout_query_arg: "session_logout".to_owned(),
            logout_post_arg: "session_logout".to_owned(),
            hash_subject: false,
            store_metadata: false,
            cookie_lifetime: None,
            cookie_idletime: None,
            cookie_discard: None,
            cookie_samesite: None,
            cookie_httponly: None,
            cookie_persistent: None,
            cookie_renew: None,
        }
    }
}

/// A validated configuration.
#[derive(Debug)]
pub(super) struct ValidatedConfig {
    pub sessions: Sessions,
    pub audience: Box<str>,
    pub request_headers: Box<[SessionProperty]>,
    pub response_headers: Box<[SessionProperty]>,
    pub reads_body_for_logout: bool,
    pub logout_methods: Box<[Method]>,
    pub logout_query_arg: Box<str>,
    pub logout_post_arg: Box<str>,
    pub hashes_subject: bool,
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if self.storage == Storage::Kong {
            let message = "`kong` stores sessions in Kong's database, which does not exist here";
            invalid.push(Diagnostic::in_config("storage", message, "use `cookie`, or `redis` with `redis.host`"));
        }
        let server = match (self.storage, self.redis) {
            (Storage::Redis, redis) => {
                redis.unwrap_or_default().validate("redis", cx).map(Some).map_err(|errors| invalid.extend(errors))
            }
            (Storage::Cookie, Some(_)) => {
                let message = "has no effect, because `storage` is `cookie`";
                invalid.push(Diagnostic::in_config("redis", message, "set `storage` to `redis`, or remove it"));
                Err(())
            }
            (Storage::Cookie | Storage::Kong, _) => Ok(None),
        };
        if self.store_metadata {
            let message = "requires Kong's database, which does not exist here";
            invalid.push(Diagnostic::in_config("store_metadata", message, "set it to false"));
        }
        for (field, value) in [("logout_query_arg", &self.logout_query_arg), ("logout_post_arg", &self.logout_post_arg)]
        {
            if value.is_empty() {
                invalid.push(Diagnostic::in_config(field, "is empty", "set it to a name, such as session_logout"));
            }
        }
        if self.remember_cookie_name == self.cookie_name {
            let message = "is also the value of `cookie_name`, so one cookie would replace the other one";
            invalid.push(Diagnostic::in_config("remember_cookie_name", message, "use another name"));
        }
        let same_site = match self.cookie_samesite {
            None => self.cookie_same_site,
            Some(AliasedSameSite::Strict) => CookieSameSite::Strict,
            Some(AliasedSameSite::Lax) => CookieSameSite::Lax,
            Some(AliasedSameSite::None) => CookieSameSite::None,
            Some(AliasedSameSite::Off) => CookieSameSite::Default,
        };
        let settings = |name| CookieSettings {
            name,
            path: &self.cookie_path,
            domain: self.cookie_domain.as_deref(),
            same_site,
            http_only: self.cookie_httponly.unwrap_or(self.cookie_http_only),
            secure: Some(self.cookie_secure),
        };
        let mut attributes = |name, name_field| {
            CookieAttributes::validate(&settings(name), name_field, "cookie_").map_err(|errors| invalid.extend(errors))
        };
        let attributes_of_session = attributes(&self.cookie_name, "cookie_name");
        let remember = self.cookie_persistent.unwrap_or(self.remember);
        let attributes_of_remember =
            remember.then(|| attributes(&self.remember_cookie_name, "remember_cookie_name")).transpose();
        let (secret, former) = (self.secret.as_deref(), self.former_secret.as_deref());
        let keys = SealingKeys::from_config(secret, former, ("secret", "former_secret"), "session", cx)
            .map_err(|errors| invalid.extend(errors));
        let (Ok(session), Ok(remember), Ok(keys), Ok(server), []) =
            (attributes_of_session, attributes_of_remember, keys, server, &invalid[..])
        else {
            return Err(invalid);
        };
        let timeouts = SessionTimeouts {
            idling: self.cookie_idletime.unwrap_or(self.idling_timeout).into(),
            rolling: self.cookie_lifetime.unwrap_or(self.rolling_timeout).into(),
            absolute: self.absolute_timeout.into(),
        };
        let remember_timeouts = SessionTimeouts {
            idling: 0,
            rolling: self.remember_rolling_timeout.into(),
            absolute: self.remember_absolute_timeout.into(),
        };
        let cookie = |attributes| SealedCookie::new(attributes, &self.audience);
        let methods = self.logout_methods.iter().map(|method| match method {
            LogoutMethod::Get => Method::GET,
            LogoutMethod::Post => Method::POST,
            LogoutMethod::Delete => Method::DELETE,
        });
        let cookies = SessionCookies {
            keys,
            cookie: cookie(session),
            timeouts,
            remember: remember.map(|attributes| (cookie(attributes), remember_timeouts)),
        };
        Ok(ValidatedConfig {
            sessions: Sessions::new(cookies, server.as_ref().map(|server| (server, "redis")), "session", cx),
            request_headers: self.request_headers.into(),
            response_headers: self.response_headers.into(),
            reads_body_for_logout: self.read_body_for_logout,
            logout_methods: methods.collect(),
            logout_query_arg: self.logout_query_arg.into(),
            logout_post_arg: self.logout_post_arg.into(),
            hashes_subject: self.hash_subject,
            audience: self.audience.into(),
        })
    }
}
