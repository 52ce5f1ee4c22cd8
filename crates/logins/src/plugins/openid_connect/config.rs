//! The configuration of `openid-connect`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin_api::optional_record;
use crate::plugin_kit::redis::RedisConfig;
use crate::sealed_cookie::CookieSameSite;

/// Authenticates users and clients at an OpenID provider.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Required. The issuer of the provider, an `https` or `http` URL. Its endpoints and keys are read from the
    /// document `/.well-known/openid-configuration` below it, which this may also name. A host without dots is a
    /// Service in the namespace of the plugin.
    pub(super) issuer: String,
    /// Values of `iss` that are accepted in tokens, for providers whose document names another issuer, also one with
    /// `{tenantid}` for one of these values. If empty, only that of the document.
    pub(super) issuers_allowed: Vec<String>,
    /// Further issuers whose signed access tokens are accepted, at most 16. Logins, introspection and all other methods
    /// are those of `issuer`. All fields about claims apply to the tokens of these issuers, too, except for
    /// `audience_required`: each of them can name any consumer, group and role.
    pub(super) bearer_issuers: Vec<BearerIssuer>,
    /// Must be empty: the keys of one issuer would verify the tokens of all others. Use `bearer_issuers` instead.
    pub(super) extra_jwks_uris: Vec<String>,
    /// Id of Portico as a client of the provider; one entry.
    pub(super) client_id: Vec<String>,
    /// Secret of the client, from a Secret; at most one entry. Without it, the client is a public one.
    pub(super) client_secret: Vec<String>,
    /// How Portico authenticates at the provider; at most one entry. If empty, by the first of `client_secret_basic`
    /// and `client_secret_post` that the provider supports, or by `none` without a secret.
    pub(super) client_auth: Vec<ClientAuth>,
    /// Which credentials are accepted.
    pub(super) auth_methods: Vec<AuthMethod>,
    /// The URL that the provider sends browsers back to after the login, as registered there; at most one entry. Its
    /// path must be one of a route with this plugin. If empty, the URL of the page that was requested, without its
    /// query.
    pub(super) redirect_uri: Vec<String>,
    /// The scopes to request. Logins require `openid`.
    pub(super) scopes: Vec<String>,
    /// Names of parameters that are added to the login request, such as `prompt`.
    pub(super) authorization_query_args_names: Vec<String>,
    /// The values of `authorization_query_args_names`, in the same order.
    pub(super) authorization_query_args_values: Vec<String>,
    /// Names of parameters that are added to token requests.
    pub(super) token_post_args_names: Vec<String>,
    /// The values of `token_post_args_names`, in the same order.
    pub(super) token_post_args_values: Vec<String>,
    /// Where access tokens of clients are searched.
    pub(super) bearer_token_param_type: Vec<TokenLocation>,
    /// Name of the cookie for `cookie` in `bearer_token_param_type`.
    pub(super) bearer_token_cookie_name: Option<String>,
    /// Accept ID tokens of clients, too, which identify users to applications and are no access tokens. These are
    /// tokens with the claim `at_hash` or `c_hash`, and those with `nonce` but neither `scope` nor `scp`, unless their
    /// header `typ` is `at+jwt`, their claim `typ` is `Bearer`, or their claim `token_use` is `access`. Tokens with the
    /// claim `typ: ID` of Keycloak or `token_use: id` of Amazon Cognito are ID tokens in any case. The access tokens of
    /// Dex and authentik have the claims of ID tokens. Requires `audience_required`: without an audience, each
    /// application of the provider could use the ID tokens that it gets.
    pub(super) allow_id_tokens: bool,
    /// Compare the certificate of the client with that in the claim `cnf` of access tokens (RFC 8705), and refuse
    /// tokens that are bound to a key in another way, such as DPoP. If false, a stolen token can be used.
    pub(super) verify_token_binding: bool,
    /// Seconds by which the clocks of the provider and Portico may differ.
    pub(super) leeway: u32,
    /// Must be unset or true: PKCE is always used.
    pub(super) require_proof_key_for_code_exchange: Option<bool>,
    /// Path to the claim with the scopes.
    pub(super) scopes_claim: Vec<String>,
    /// Scopes of which the token must have one; words of one entry are all required.
    pub(super) scopes_required: Vec<String>,
    /// Path to the claim with the audiences.
    pub(super) audience_claim: Vec<String>,
    /// Audiences of which the token must have one; words of one entry are all required. If empty, access tokens that
    /// the provider has issued for other applications are accepted, too.
    pub(super) audience_required: Vec<String>,
    /// Path to the claim with the groups.
    pub(super) groups_claim: Vec<String>,
    /// Groups of which the token must have one; words of one entry are all required.
    pub(super) groups_required: Vec<String>,
    /// Path to the claim with the roles.
    pub(super) roles_claim: Vec<String>,
    /// Roles of which the token must have one; words of one entry are all required.
    pub(super) roles_required: Vec<String>,
    /// Path to the claim with groups for the plugin acl. Tokens that say that the groups are to be fetched elsewhere
    /// are rejected with 403.
    pub(super) authenticated_groups_claim: Vec<String>,
    /// Values of the claim `acr` (authentication context class) of which the tokens must have one, the preferred one
    /// first. Logins request them by `acr_values`. A browser whose session has another value is sent to the login
    /// again; other clients get status 401 with the values (RFC 9470).
    pub(super) acr_required: Vec<String>,
    /// Methods of which the claim `amr` must have one; words of one entry are all required, such as `pwd otp`. Logins
    /// cannot request methods. If the provider decides by a parameter which ones it uses, add that to
    /// `authorization_query_args_names`.
    pub(super) amr_required: Vec<String>,
    /// Seconds after which users must log in again, by the claim `auth_time`. If unset, the age of the login does not
    /// matter.
    pub(super) max_age: Option<u32>,
    /// Claims that the token must not have.
    pub(super) claims_forbidden: Vec<String>,
    /// Path to the claim that identifies the consumer. If empty, requests have no consumer.
    pub(super) consumer_claim: Vec<String>,
    /// Which properties of a consumer the claim is compared with, in this order.
    pub(super) consumer_by: Vec<ConsumerBy>,
    /// Accept tokens for which there is no consumer.
    pub(super) consumer_optional: bool,
    /// Path to the claim with the names of the KongConsumerGroups of the client, whose plugins run for the request.
    /// They are added to the groups of the consumer, if there is one. Groups of a KongPlugin are those of its
    /// namespace. For a KongClusterPlugin, names in the claim have the form `namespace/name`.
    pub(super) consumer_groups_claim: Vec<String>,
    /// Accept tokens without a group in `consumer_groups_claim`.
    pub(super) consumer_groups_optional: bool,
    /// Path to the claim that identifies the credential.
    pub(super) credential_claim: Vec<String>,
    /// Id or username of the consumer for requests without valid credentials. If unset, such requests are rejected, or
    /// sent to the login. If set, no login begins.
    pub(super) anonymous: Option<String>,
    /// The secret that the key of the cookies is derived from. Take it from a Secret, with at least 32 random
    /// characters. If unset, the keys are those of the Secret `portico-keys`, which all replicas share. Without a
    /// cluster, the key is then random: sessions end when Portico restarts, and other replicas do not accept them, nor
    /// finish logins.
    pub(super) session_secret: Option<String>,
    /// A secret that was used before. Sessions that it has sealed remain valid.
    pub(super) session_former_secret: Option<String>,
    /// Where sessions are stored.
    pub(super) session_storage: SessionStorage,
    /// The server for `session_storage: redis`.
    #[serde(deserialize_with = "optional_record")]
    pub(super) redis: Option<RedisConfig>,
    /// The purpose of the sessions. A session is valid only for plugins with the same audience, issuer and client.
    pub(super) session_audience: String,
    /// Name of the cookie of sessions.
    pub(super) session_cookie_name: String,
    /// The path of the cookies.
    pub(super) session_cookie_path: String,
    /// The domain of the cookies. If unset, browsers send the cookies to the same host only.
    pub(super) session_cookie_domain: Option<String>,
    /// With which requests of other sites browsers send the cookie of sessions.
    pub(super) session_cookie_same_site: CookieSameSite,
    /// Whether scripts in pages cannot read the cookie of sessions.
    pub(super) session_cookie_http_only: bool,
    /// Whether browsers send the cookies only over HTTPS. If unset, they do if the login was over HTTPS.
    pub(super) session_cookie_secure: Option<bool>,
    /// Seconds after which a session ends without requests; 0 for no limit.
    pub(super) session_idling_timeout: u32,
    /// Seconds after which a session ends without being renewed; 0 for no limit. A request in the last quarter of this
    /// time renews it.
    pub(super) session_rolling_timeout: u32,
    /// Seconds after which a session ends in any case; 0 for no limit.
    pub(super) session_absolute_timeout: u32,
    /// Whether a session begins again after the browser was closed or the session has timed out.
    pub(super) session_remember: bool,
    /// Name of the cookie that remembers sessions.
    pub(super) session_remember_cookie_name: String,
    /// Seconds after which a session is not remembered without being renewed; 0 for no limit.
    pub(super) session_remember_rolling_timeout: u32,
    /// Seconds after which a session is not remembered in any case; 0 for no limit.
    pub(super) session_remember_absolute_timeout: u32,
    /// The names of the cookies of logins in progress begin with this. They always have `SameSite=Lax`.
    pub(super) authorization_cookie_name: String,
    /// Seconds that a login may take.
    pub(super) authorization_rolling_timeout: u32,
    /// Whether to get new tokens for a session when its access token has expired. Otherwise, or if the provider
    /// refuses, the session ends.
    pub(super) refresh_tokens: bool,
    /// Which page follows the login.
    pub(super) login_action: LoginAction,
    /// The page for `login_action: redirect`; one entry.
    pub(super) login_redirect_uri: Vec<String>,
    /// Methods of requests that can end the session.
    pub(super) logout_methods: Vec<LogoutMethod>,
    /// The end of the path of requests that end the session, such as `/logout`.
    pub(super) logout_uri_suffix: Option<String>,
    /// The query parameter of requests that end the session. Its value does not matter.
    pub(super) logout_query_arg: Option<String>,
    /// The URL that the provider sends browsers to after the logout, as registered there; at most one entry. It is
    /// also the page that follows if the provider has no endpoint for logouts.
    pub(super) logout_redirect_uri: Vec<String>,
    /// Whether a logout revokes the tokens of the session at the provider.
    pub(super) logout_revoke: bool,
    /// The end of the path to which the provider sends logout tokens (OpenID Connect Back-Channel Logout), such as
    /// `/backchannel-logout`. If unset, they are not accepted. They end the sessions of all plugins in the same
    /// namespace with the same issuer, client and `jwks_endpoint`, also of those without this field; all
    /// KongClusterPlugins count as one namespace. With `session_storage: redis`, all replicas end the sessions of
    /// plugins with the same server and `session_secret`; all others end only at the replica that received the logout.
    pub(super) backchannel_logout_uri_suffix: Option<String>,
    /// The endpoint for logins, in place of that of the provider's document.
    pub(super) authorization_endpoint: Option<String>,
    /// The endpoint for tokens, in place of that of the provider's document.
    pub(super) token_endpoint: Option<String>,
    /// The endpoint for introspection, in place of that of the provider's document.
    pub(super) introspection_endpoint: Option<String>,
    /// The endpoint for claims about users, in place of that of the provider's document.
    pub(super) userinfo_endpoint: Option<String>,
    /// The endpoint for the revocation of tokens, in place of that of the provider's document.
    pub(super) revocation_endpoint: Option<String>,
    /// The endpoint for logouts, in place of that of the provider's document.
    pub(super) end_session_endpoint: Option<String>,
    /// The URL of the keys, in place of that of the provider's document.
    pub(super) jwks_endpoint: Option<String>,
    /// The header with the access token for the endpoint. `authorization:bearer` sends it with the scheme Bearer.
    pub(super) upstream_access_token_header: Option<String>,
    /// The header with the ID token for the endpoint.
    pub(super) upstream_id_token_header: Option<String>,
    /// The header with the result of the introspection for the endpoint, as JSON in base64.
    pub(super) upstream_introspection_header: Option<String>,
    /// Claims for `upstream_headers_names`.
    pub(super) upstream_headers_claims: Vec<String>,
    /// Headers for the endpoint with the values of `upstream_headers_claims`, in the same order. Those of clients are
    /// removed.
    pub(super) upstream_headers_names: Vec<String>,
    /// Remove the credentials of clients from requests. The header of `upstream_access_token_header` is set
    /// afterwards.
    pub(super) hide_credentials: bool,
    /// Require credentials for OPTIONS requests, too.
    pub(super) run_on_preflight: bool,
    /// Whether the results of introspections and of userinfo are cached, for at most `cache_ttl`. Within this time,
    /// revoked tokens are accepted.
    pub(super) cache_introspection: bool,
    /// Whether the tokens for passwords and client credentials are cached.
    pub(super) cache_tokens: bool,
    /// Longest time in the caches, in seconds.
    pub(super) cache_ttl: u32,
    /// Timeout of requests to the provider in milliseconds. At most 60000 takes effect.
    pub(super) timeout: u32,
    /// Must be true: the certificate of the provider is always verified with the certificates that this machine
    /// trusts.
    pub(super) ssl_verify: bool,
    /// Message of responses with status 401.
    pub(super) unauthorized_error_message: String,
    /// Message of responses with status 403.
    pub(super) forbidden_error_message: String,
}

/// An issuer whose signed access tokens are accepted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BearerIssuer {
    /// The exact value of the claim `iss`, with or without a slash at its end. Unless `jwks_uri` is set, it is the URL
    /// below which the document `/.well-known/openid-configuration` names the keys.
    pub(super) issuer: String,
    /// `https` or `http` URL of the issuer's JSON Web Key Set. A host without dots is a Service in the namespace of the
    /// plugin.
    pub(super) jwks_uri: Option<String>,
    /// Accepted audiences, at least one: `aud` of a token must contain one of them. `audience_required` does not apply
    /// to these tokens.
    pub(super) audiences: Vec<String>,
}

/// Credentials that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMethod {
    /// Users log in at the provider, by the authorization code flow with PKCE. Requires `session`.
    AuthorizationCode,
    /// Signed access tokens (JWT), verified with the keys of the provider.
    Bearer,
    /// The id and secret of a client in `Authorization: Basic`, for which a token is requested.
    ClientCredentials,
    /// Access tokens that are not JWTs, verified by the introspection endpoint.
    Introspection,
    /// The username and password of a user in `Authorization: Basic`, for which a token is requested.
    Password,
    /// Sessions that began with a login.
    Session,
    /// Access tokens that are not JWTs, verified by the userinfo endpoint.
    Userinfo,
}

/// How Portico authenticates at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuth {
    /// Id and secret in `Authorization: Basic`.
    ClientSecretBasic,
    /// Id and secret in the body.
    ClientSecretPost,
    /// Only the id.
    None,
}

/// Where access tokens are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenLocation {
    /// `Authorization: Bearer`.
    Header,
    /// The parameter `access_token`.
    Query,
    /// The cookie in `bearer_token_cookie_name`.
    Cookie,
}

/// A property of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerBy {
    /// Its id.
    Id,
    /// Its username.
    Username,
    /// Its custom id.
    CustomId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionStorage {
    /// In cookies.
    Cookie,
    /// In Redis, encrypted. The cookie has only an encrypted id, and logouts end sessions for all replicas.
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoginAction {
    /// The page that was requested before the login.
    Upstream,
    /// The page in `login_redirect_uri`.
    Redirect,
}

/// A method of requests that can end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum LogoutMethod {
    Get,
    Post,
    Delete,
}

impl Default for Config {
    fn default() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Config {
            issuer: String::new(),
            issuers_allowed: Vec::new(),
            bearer_issuers: Vec::new(),
            extra_jwks_uris: Vec::new(),
            client_id: Vec::new(),
            client_secret: Vec::new(),
            client_auth: Vec::new(),
            auth_methods: vec![
                AuthMethod::AuthorizationCode,
                AuthMethod::Bearer,
                AuthMethod::ClientCredentials,
                AuthMethod::Introspection,
                AuthMethod::Password,
                AuthMethod::Session,
                AuthMethod::Userinfo,
            ],
            redirect_uri: Vec::new(),
            scopes: one("openid"),
            authorization_query_args_names: Vec::new(),
            authorization_query_args_values: Vec::new(),
            token_post_args_names: Vec::new(),
            token_post_args_values: Vec::new(),
            bearer_token_param_type: vec![TokenLocation::Header, TokenLocation::Query],
            bearer_token_cookie_name: None,
            allow_id_tokens: false,
            verify_token_binding: true,
            leeway: 0,
            require_proof_key_for_code_exchange: None,
            scopes_claim: one("scope"),
            scopes_required: Vec::new(),
            audience_claim: one("aud"),
            audience_required: Vec::new(),
            groups_claim: one("groups"),
            groups_required: Vec::new(),
            roles_claim: one("roles"),
            roles_required: Vec::new(),
            authenticated_groups_claim: Vec::new(),
            acr_required: Vec::new(),
            amr_required: Vec::new(),
            max_age: None,
            claims_forbidden: Vec::new(),
            consumer_claim: Vec::new(),
            consumer_by: vec![ConsumerBy::Username, ConsumerBy::CustomId],
            consumer_optional: false,
            consumer_groups_claim: Vec::new(),
            consumer_groups_optional: false,
            credential_claim: one("sub"),
            anonymous: None,
            session_secret: None,
            session_former_secret: None,
            session_storage: SessionStorage::Cookie,
            redis: None,
            session_audience: "default".to_owned(),
            session_cookie_name: "session".to_owned(),
            session_cookie_path: "/".to_owned(),
            session_cookie_domain: None,
            session_cookie_same_site: CookieSameSite::Lax,
            session_cookie_http_only: true,
            session_cookie_secure: None,
            session_idling_timeout: 900,
            session_rolling_timeout: 3600,
            session_absolute_timeout: 86_400,
            session_remember: false,
            session_remember_cookie_name: "remember".to_owned(),
            session_remember_rolling_timeout: 604_800,
            session_remember_absolute_timeout: 2_592_000,
            authorization_cookie_name: "authorization".to_owned(),
            authorization_rolling_timeout: 600,
            refresh_tokens: true,
            login_action: LoginAction::Upstream,
            login_redirect_uri: Vec::new(),
            logout_methods: vec![LogoutMethod::Post, LogoutMethod::Delete],
            logout_uri_suffix: None,
            logout_query_arg: None,
            logout_redirect_uri: Vec::new(),
            logout_revoke: false,
            backchannel_logout_uri_suffix: None,
            authorization_endpoint: None,
            token_endpoint: None,
            introspection_endpoint: None,
            userinfo_endpoint: None,
            revocation_endpoint: None,
            end_session_endpoint: None,
            jwks_endpoint: None,
            upstream_access_token_header: Some("authorization:bearer".to_owned()),
            upstream_id_token_header: None,
            upstream_introspection_header: None,
            upstream_headers_claims: Vec::new(),
            upstream_headers_names: Vec::new(),
            hide_credentials: true,
            run_on_preflight: true,
            cache_introspection: true,
            cache_tokens: true,
            cache_ttl: 3600,
            timeout: 10_000,
            ssl_verify: true,
            unauthorized_error_message: "Unauthorized".to_owned(),
            forbidden_error_message: "Forbidden".to_owned(),
        }
    }
}
