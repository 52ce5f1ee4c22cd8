//! The configuration of `oauth2` and its validation.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::token_store::TokenStore;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::optional_record;
use crate::plugin_kit::authentication::{AuthPolicy, challenge, parse_header_name};
use crate::plugin_kit::redis::RedisConfig;

/// Issues OAuth 2.0 tokens to the clients of consumers, and authenticates requests by these tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The scopes that clients can request. If empty, `scope` has no effect.
    scopes: Vec<String>,
    /// Require `scope` in requests for codes and tokens. Requires `scopes`.
    mandatory_scope: bool,
    /// The key by which the application that logs users in proves itself: it requests codes and tokens for users. Take
    /// it from a Secret, with at least 32 random characters. Required unless `enable_client_credentials` is the only
    /// grant; without it, no request can name a user.
    provision_key: Option<String>,
    /// Seconds after which an access token expires. 0: never, and no refresh tokens are issued.
    token_expiration: u32,
    /// Enable authorization codes.
    enable_authorization_code: bool,
    /// Enable tokens in the response of the authorization endpoint.
    enable_implicit_grant: bool,
    /// Enable tokens for the credentials of a client.
    enable_client_credentials: bool,
    /// Enable tokens for users whom an application has authenticated by their passwords.
    enable_password_grant: bool,
    /// Remove the access token before the request is sent to the endpoint.
    hide_credentials: bool,
    /// Also accept requests for codes and tokens over plain HTTP if a proxy in front of Portico, whose address is one
    /// of `--trusted-ips`, reports HTTPS in `X-Forwarded-Proto`.
    accept_http_if_already_terminated: bool,
    /// Id or username of the consumer for requests without a valid token. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Accept tokens of all oauth2 plugins with `global_credentials` in the same namespace, and for all services. If
    /// false, a token is valid for the plugin and the service by which it was issued.
    global_credentials: bool,
    /// Name of the header that contains the access token, and the Basic credentials of clients.
    auth_header_name: String,
    /// Seconds after which a refresh token expires; 0 for never.
    refresh_token_ttl: u32,
    /// Keep a refresh token when it is used. If false, each use replaces it, and a second use of a replaced one ends
    /// all tokens of the same grant.
    reuse_refresh_token: bool,
    /// Which clients must prove with PKCE that they have requested a code.
    pkce: PkceRequirement,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    realm: Option<String>,
    /// The server that stores codes and tokens, as digests. If unset, they are in the memory of the process: they end
    /// when Portico restarts, other replicas do not know them, and at most 65536 are stored for all plugins, of which a
    /// namespace has a share. Beyond that, a new token replaces the oldest one of the plugin.
    #[serde(deserialize_with = "optional_record")]
    redis: Option<RedisConfig>,
}

/// Which clients must use PKCE (RFC 7636), with the method S256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PkceRequirement {
    /// None. A client that uses it must complete it.
    None,
    /// Public clients.
    Lax,
    /// All clients.
    Strict,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            scopes: Vec::new(),
            mandatory_scope: false,
            provision_key: None,
            token_expiration: 7200,
            enable_authorization_code: false,
            enable_implicit_grant: false,
            enable_client_credentials: false,
            enable_password_grant: false,
            hide_credentials: false,
            accept_http_if_already_terminated: false,
            anonymous: None,
            global_credentials: false,
            auth_header_name: "authorization".to_owned(),
            refresh_token_ttl: 1_209_600,
            reuse_refresh_token: false,
            pkce: PkceRequirement::Lax,
            realm: None,
            redis: None,
        }
    }
}

/// The grants that are enabled.
#[derive(Clone, Copy)]
pub(super) struct EnabledGrants {
    pub(super) authorization_code: bool,
    pub(super) implicit: bool,
    pub(super) client_credentials: bool,
    pub(super) password: bool,
}

/// A validated configuration.
pub(super) struct OAuthSettings {
    pub(super) grants: EnabledGrants,
    pub(super) scopes: Box<[Box<str>]>,
    pub(super) mandatory_scope: bool,
    /// The digest, so that a comparison takes as long for every key.
    pub(super) provision_key: Option<Sha256Digest>,
    /// `None`: access tokens do not expire.
    pub(super) access_lifetime: Option<Duration>,
    /// `None`: refresh tokens do not expire.
    pub(super) refresh_lifetime: Option<Duration>,
    pub(super) reuses_refresh_tokens: bool,
    pub(super) pkce: PkceRequirement,
    pub(super) hides_credentials: bool,
    pub(super) accepts_terminated_tls: bool,
    pub(super) auth_header: HeaderName,
    pub(super) policy: AuthPolicy,
    pub(super) challenges: Challenges,
    pub(super) store: TokenStore,
    /// The plugin for which tokens are valid. `None`: for all with `global_credentials`.
    pub(super) object: Option<Box<str>>,
}

/// The values of `WWW-Authenticate`.
pub(super) struct Challenges {
    pub(super) no_token: HeaderValue,
    pub(super) invalid_token: HeaderValue,
    /// For clients that authenticate by `Basic`.
    pub(super) client: HeaderValue,
    /// The realm of replies to requests with a wrong method.
    pub(super) realm: Option<Box<str>>,
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<OAuthSettings, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let grants = EnabledGrants {
            authorization_code: self.enable_authorization_code,
            implicit: self.enable_implicit_grant,
            client_credentials: self.enable_client_credentials,
            password: self.enable_password_grant,
        };
        let needs_key = grants.authorization_code || grants.implicit || grants.password;
        if !needs_key && !grants.client_credentials {
            let remedy = "set at least one of enable_authorization_code, enable_implicit_grant, \
                          enable_client_credentials and enable_password_grant to true";
            invalid.push(Diagnostic::in_config("", "enables no grant", remedy));
        }
        match self.provision_key.as_deref() {
            None if needs_key => {
                let remedy = "set it to a reference such as {secretKeyRef: {name: login-app, key: provision-key}}";
                invalid.push(Diagnostic::in_config("provision_key", "is missing", remedy));
            }
            Some("") => {
                invalid.push(Diagnostic::in_config("provision_key", "is empty", "set it to a long random text"));
            }
            _ => {}
        }
        self.check_scopes(&mut invalid);
        let auth_header =
            parse_header_name("auth_header_name", &self.auth_header_name).map_err(|error| invalid.push(error));
        let policy = AuthPolicy::new(self.anonymous.clone(), true).map_err(|error| invalid.push(error));
        let challenges = self.challenges().map_err(|error| invalid.push(error));
        let server = self.redis.map(|redis| redis.validate("redis", cx)).transpose();
        let server = server.map_err(|errors| invalid.extend(errors));
        let (Ok(auth_header), Ok(policy), Ok(challenges), Ok(server), []) =
            (auth_header, policy, challenges, server, &invalid[..])
        else {
            return Err(invalid);
        };
        if server.is_none() {
            let message = "is not set, so tokens are in the memory of this process: they end when it restarts, and \
                           other replicas reject them";
            cx.note(Diagnostic::in_config("redis", message, "set it to a Redis server that all replicas share"));
        }
        let seconds = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Ok(OAuthSettings {
            grants,
            scopes: self.scopes.into_iter().map(String::into_boxed_str).collect(),
            mandatory_scope: self.mandatory_scope,
            provision_key: self.provision_key.map(|key| sha256(key.as_bytes())),
            access_lifetime: seconds(self.token_expiration),
            refresh_lifetime: seconds(self.refresh_token_ttl),
            reuses_refresh_tokens: self.reuse_refresh_token,
            pkce: self.pkce,
            hides_credentials: self.hide_credentials,
            accepts_terminated_tls: self.accept_http_if_already_terminated,
            auth_header,
            policy,
            challenges,
            store: TokenStore::open(server.as_ref(), self.global_credentials, cx),
            object: (!self.global_credentials).then(|| cx.object.into()),
        })
    }

    fn check_scopes(&self, invalid: &mut Vec<Diagnostic>) {
        // RFC 6749, section 3.3: a scope has no spaces, quotes and backslashes.
        let is_scope = |scope: &String| {
            !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\'))
        };
        if let Some(index) = self.scopes.iter().position(|scope| !is_scope(scope)) {
            let remedy = "use letters, digits and punctuation without spaces, quotes and backslashes";
            invalid.push(Diagnostic::in_config(format!("scopes[{index}]"), "is not a valid scope", remedy));
        }
        if self.scopes.iter().map(|scope| scope.len() + 1).sum::<usize>() > MAX_SCOPES {
            let message = format!("has more than {MAX_SCOPES} characters in all");
            invalid.push(Diagnostic::in_config("scopes", message, "use fewer or shorter scopes"));
        }
        if self.mandatory_scope && self.scopes.is_empty() {
            let remedy = "list the scopes, or set mandatory_scope to false";
            invalid.push(Diagnostic::in_config("mandatory_scope", "has no effect without `scopes`", remedy));
        }
    }

    fn challenges(&self) -> Result<Challenges, Diagnostic> {
        const INVALID: &str =
            r#"error="invalid_token", error_description="The access token is invalid or has expired""#;
        let realm = self.realm.as_deref();
        Ok(Challenges {
            no_token: challenge("Bearer", realm, "")?,
            invalid_token: challenge("Bearer", realm, INVALID)?,
            client: challenge("Basic", Some("OAuth2.0"), "")?,
            realm: realm.map(Box::from),
        })
    }
}

/// The size of all scopes, which a token may have.
const MAX_SCOPES: usize = 1024;
