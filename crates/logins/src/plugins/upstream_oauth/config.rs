//! The configuration of `upstream-oauth`.

use std::collections::BTreeMap;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::record;

/// Adds OAuth 2.0 tokens to requests.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Which token the issuer is to return.
    #[serde(deserialize_with = "record")]
    pub(super) oauth: OAuthConfig,
    /// How the token endpoint is called.
    #[serde(deserialize_with = "record")]
    pub(super) client: ClientConfig,
    /// How long tokens are kept.
    #[serde(deserialize_with = "record")]
    pub(super) cache: CacheConfig,
    /// What requests and clients get.
    #[serde(deserialize_with = "record")]
    pub(super) behavior: BehaviorConfig,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OAuthConfig {
    /// URL of the token endpoint, with `http` or `https`. A host without dots is a Service in the namespace of the
    /// plugin. Required.
    pub(super) token_endpoint: String,
    /// The grant.
    pub(super) grant_type: GrantType,
    /// The client id of Portico at the issuer.
    pub(super) client_id: Option<String>,
    /// The client secret of Portico at the issuer.
    pub(super) client_secret: Option<String>,
    /// The username for the grant `password`.
    pub(super) username: Option<String>,
    /// The password for the grant `password`.
    pub(super) password: Option<String>,
    /// The scopes of the token.
    pub(super) scopes: Vec<String>,
    /// The audiences of the token.
    pub(super) audience: Vec<String>,
    /// Further headers of the requests to the token endpoint.
    pub(super) token_headers: BTreeMap<String, String>,
    /// Further parameters of the requests to the token endpoint.
    pub(super) token_post_args: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantType {
    ClientCredentials,
    Password,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientConfig {
    /// How Portico authenticates at the token endpoint.
    pub(super) auth_method: AuthMethod,
    /// Timeout in milliseconds for a request to the token endpoint, from connecting to the end of the response. At most
    /// 60000 takes effect.
    pub(super) timeout: u32,
    /// Whether to keep connections to the token endpoint open for a minute.
    pub(super) keep_alive: bool,
    /// Whether to verify the certificate of the token endpoint with the system's root certificates.
    pub(super) ssl_verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMethod {
    /// Client id and secret are in the body.
    ClientSecretPost,
    /// Client id and secret are in the header `Authorization`.
    ClientSecretBasic,
    /// Only the client id is sent, in the body.
    None,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CacheConfig {
    /// Where tokens are kept.
    pub(super) strategy: CacheStrategy,
    /// For how many seconds a token is kept if the issuer does not say how long it is valid.
    pub(super) default_ttl: u32,
    /// How many seconds before its expiry a token is replaced.
    pub(super) eagerly_expire: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheStrategy {
    /// In the memory of each process.
    Memory,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BehaviorConfig {
    /// Name of the header with the token. Values that clients send are removed.
    pub(super) upstream_access_token_header_name: String,
    /// Status of the responses to requests for which there is no token: 500 to 599.
    #[schemars(range(min = 500, max = 599))]
    pub(super) idp_error_response_status_code: u16,
    /// Message of the responses to requests for which there is no token.
    pub(super) idp_error_response_message: String,
    /// Body of the responses to requests for which there is no token, in place of one with the message.
    pub(super) idp_error_response_body_template: Option<String>,
    /// `Content-Type` of that body.
    pub(super) idp_error_response_content_type: String,
    /// Statuses of the endpoint of the Service after which the token is not used any more, if it is at least ten
    /// seconds old.
    pub(super) purge_token_on_upstream_status_codes: Vec<u16>,
}

impl Default for OAuthConfig {
    fn default() -> Self {
        OAuthConfig {
            token_endpoint: String::new(),
            grant_type: GrantType::ClientCredentials,
            client_id: None,
            client_secret: None,
            username: None,
            password: None,
            scopes: vec!["openid".to_owned()],
            audience: Vec::new(),
            token_headers: BTreeMap::new(),
            token_post_args: BTreeMap::new(),
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig { auth_method: AuthMethod::ClientSecretPost, timeout: 10_000, keep_alive: true, ssl_verify: true }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig { strategy: CacheStrategy::Memory, default_ttl: 3600, eagerly_expire: 5 }
    }
}

impl Default for BehaviorConfig {
    fn default() -> Self {
        BehaviorConfig {
            upstream_access_token_header_name: "Authorization".to_owned(),
            idp_error_response_status_code: 502,
            idp_error_response_message: "Failed to authenticate request to upstream".to_owned(),
            idp_error_response_body_template: None,
            idp_error_response_content_type: "application/json; charset=utf-8".to_owned(),
            purge_token_on_upstream_status_codes: vec![401],
        }
    }
}

impl BehaviorConfig {
    /// The body of error responses with its type.
    pub(super) fn error_body(&self, invalid: &mut Vec<Diagnostic>) -> Option<(Box<str>, HeaderValue)> {
        let content_type = HeaderValue::from_str(&self.idp_error_response_content_type).map_err(|_| {
            let (field, remedy) = ("behavior.idp_error_response_content_type", "use a media type, such as text/plain");
            invalid.push(Diagnostic::in_config(field, "is not a valid header value", remedy));
        });
        let body = self.idp_error_response_body_template.as_deref()?;
        if body.contains("{{") {
            let (field, remedy) = ("behavior.idp_error_response_body_template", "write the whole body");
            invalid.push(Diagnostic::in_config(field, "contains `{{`, but placeholders are not supported", remedy));
        }
        Some((body.into(), content_type.ok()?))
    }
}
