//! `oauth2-introspection`: authenticates clients by OAuth 2.0 tokens that an authorization server validates.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: tokens
//! plugin: oauth2-introspection
//! config:
//!   introspection_url: https://issuer.example/introspect
//!   authorization_value: {secretKeyRef: {name: issuer-client, key: authorization}}
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: issuer-client
//! stringData:
//!   authorization: Basic cG9ydGljbzpvbmx5LWZvci10cnlpbmctaXQtb3V0
//! ```
//!
//! The token is in the header `Authorization`, with the scheme `Bearer`, or in the query parameter `access_token`. The
//! server validates each token (RFC 7662), and its result is kept for `ttl` seconds, but not longer than until the
//! token expires. If the server does not respond, requests are rejected with 503. A token that is not for access, such
//! as a refresh token, is rejected also if the server calls it active. ID tokens that the server calls active are
//! accepted, unless their `token_type` says what they are: the access tokens of some servers have the same claims.
//!
//! If the server closes a kept connection before any byte of its response, the request for the token is sent once more,
//! so the server can get it twice.
//!
//! The endpoint gets what the server says about the token in `X-Credential-Scope`, `-Client-ID`, `-Identifier`,
//! `-Token-Type`, `-Exp`, `-Iat`, `-Nbf`, `-Sub`, `-Aud`, `-Iss` and `-Jti`. Values of these headers that clients send
//! are removed. If there is a KongConsumer for the token, the endpoint also gets the headers about it.

mod credential_headers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::introspection::{Introspection, IntrospectionRequests, MAX_INTROSPECTION, TokenActivity};
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm, remove_from_query};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::token::strip_bearer_scheme;
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, NamedConsumer, Plugin, Reply, ReplyBody, RequestCx,
};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, challenge, declare_identity};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use crate::plugin_kit::sent_headers::{SET_BY_PLUGIN, parse_sent_headers};
use crate::rejection_log::RejectionLog;
use crate::token_binding::{BindingViolation, another_connection};
use credential_headers::{CredentialHeaders, TokenCredential};

/// Authenticates clients by tokens that a server introspects.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// URL of the introspection endpoint, with `http` or `https`. A host without dots is a Service in the namespace of
    /// the plugin. Required.
    introspection_url: String,
    /// The header `Authorization` of the requests to the endpoint, such as `Basic …`. Required.
    authorization_value: String,
    /// The parameter `token_type_hint` of the requests to the endpoint.
    token_type_hint: Option<String>,
    /// For how many seconds a result is kept, but not for longer than the token is valid. 0 for requests to the
    /// endpoint with every request of a client.
    ttl: u32,
    /// Timeout in milliseconds for a request to the endpoint, from connecting to the end of the response. At most 60000
    /// takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection to the endpoint is kept open. At most 600000 takes effect.
    keepalive: u32,
    /// Remove the token before the request is sent to the endpoint of the Service.
    hide_credentials: bool,
    /// Send path and method of the client's request to the introspection endpoint, in `X-Request-Path` and
    /// `X-Request-Http-Method`. Results are then kept for each path and method separately.
    introspect_request: bool,
    /// Further headers of the requests to the endpoint.
    custom_introspection_headers: BTreeMap<String, String>,
    /// Further members of the response of which the endpoint of the Service gets the values, in `X-Credential-NAME`.
    custom_claims_forward: Vec<String>,
    /// Which member of the response identifies the consumer.
    consumer_by: ConsumerBy,
    /// Compare the certificate of the client with that in the member `cnf` of the response (RFC 8705), and refuse
    /// tokens that are bound to a key in another way, such as DPoP. If false, a stolen token can be used.
    verify_token_binding: bool,
    /// Id or username of the consumer for requests without an active token. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Require a token for OPTIONS requests, too. If false, all of them are forwarded without a token, not only CORS
    /// preflight requests.
    run_on_preflight: bool,
    /// Whether to verify the certificate of the endpoint with the system's root certificates.
    ssl_verify: bool,
}

/// The member of a response that identifies the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum ConsumerBy {
    /// `username`, which is the username of the consumer.
    #[serde(rename = "username")]
    Username,
    /// `client_id`, which is the custom id of the consumer.
    #[serde(rename = "client_id")]
    ClientId,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            introspection_url: String::new(),
            authorization_value: String::new(),
            token_type_hint: None,
            ttl: 30,
            timeout: 10_000,
            keepalive: 60_000,
            hide_credentials: true,
            introspect_request: false,
            custom_introspection_headers: BTreeMap::new(),
            custom_claims_forward: Vec::new(),
            consumer_by: ConsumerBy::Username,
            verify_token_binding: true,
            anonymous: None,
            run_on_preflight: true,
            ssl_verify: true,
        }
    }
}

const PARAMETER: &str = "access_token";

#[derive(Debug)]
pub(crate) struct OAuth2Introspection {
    introspection: Introspection<TokenCredential>,
    headers: CredentialHeaders,
    policy: AuthPolicy,
    consumer_by: ConsumerBy,
    verifies_binding: bool,
    hides_credentials: bool,
    describes_request: bool,
    no_token: HeaderValue,
    invalid_token: HeaderValue,
    log: RejectionLog,
}

impl PluginKind for OAuth2Introspection {
    const NAME: &'static str = "oauth2-introspection";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1700;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[DumpedFields::new(&["anonymous"], DumpedValue::Text(""), "3.4")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let server = RemoteServerConfig {
            field: "introspection_url",
            url: &config.introspection_url,
            timeout_field: "timeout",
            timeout: config.timeout,
            keep_alive: config.keepalive,
            verify: config.ssl_verify,
            max_response: MAX_INTROSPECTION,
        };
        let server = RemoteServer::new(server, cx).map_err(|errors| invalid.extend(errors)).ok();
        let requests = config.requests(&mut invalid);
        let headers = CredentialHeaders::new(&config.custom_claims_forward, &mut invalid);
        let policy = AuthPolicy::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error));
        let mut challenge = |parameters| challenge("Bearer", None, parameters).map_err(|error| invalid.push(error));
        let (no_token, invalid_token) = (challenge(""), challenge("error=\"invalid_token\""));
        let (Some(server), Some(headers), Ok(policy), Ok(no_token), Ok(invalid_token), []) =
            (server, headers, policy, no_token, invalid_token, &invalid[..])
        else {
            return Err(invalid);
        };
        let (object, consumer_by, names) = (cx.object.to_owned(), config.consumer_by, headers.clone());
        let read = move |members: &_| TokenCredential::read(members, &names, consumer_by, &object);
        Ok(OAuth2Introspection {
            introspection: Introspection::new(server, requests, read),
            headers,
            policy,
            consumer_by,
            verifies_binding: config.verify_token_binding,
            hides_credentials: config.hide_credentials,
            describes_request: config.introspect_request,
            no_token,
            invalid_token,
            log: RejectionLog::new(Self::NAME),
        })
    }
}

impl Config {
    fn requests(&self, invalid: &mut Vec<Diagnostic>) -> IntrospectionRequests {
        let mut authorization = None;
        match HeaderValue::from_str(self.authorization_value.trim_end()) {
            Ok(value) if value.is_empty() => {
                let remedy = "set it to a reference such as {secretKeyRef: {name: issuer-client, key: authorization}}";
                invalid.push(Diagnostic::in_config("authorization_value", "is missing", remedy));
            }
            Ok(mut value) => {
                value.set_sensitive(true);
                authorization = Some(value);
            }
            Err(_) => {
                let remedy = "use visible ASCII characters and spaces only, such as `Basic` and base64";
                invalid.push(Diagnostic::in_config("authorization_value", "is not a valid header value", remedy));
            }
        }
        let set_here = [HOST, CONTENT_LENGTH, CONTENT_TYPE, AUTHORIZATION].map(|name| (name, SET_BY_PLUGIN));
        let configured = &self.custom_introspection_headers;
        let headers = parse_sent_headers("custom_introspection_headers", configured, &set_here, invalid);
        IntrospectionRequests {
            authorization,
            headers,
            token_type_hint: self.token_type_hint.as_deref().map(Box::from),
            ttl: Duration::from_secs(self.ttl.into()),
        }
    }
}

impl Plugin for OAuth2Introspection {
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.anonymous_consumer().into_iter().collect()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(self.headers.names());
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.hides_credentials {
            fields.request.add(&AUTHORIZATION);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations { parameters: vec![PARAMETER.into()], ..CredentialLocations::default() })
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let token = Self::find_token(cx);
        if self.hides_credentials && !matches!(token, Err(TokenRejection::NoToken)) {
            cx.head.headers.remove(AUTHORIZATION);
            remove_from_query(cx.head, |name| name == PARAMETER.as_bytes());
        }
        let token = match token {
            Ok(token) => token,
            Err(rejection) => return outcome(self.reject(cx, rejection)),
        };
        let of_request = self.description(cx);
        let key = Introspection::<TokenCredential>::key(token.as_bytes(), &of_request);
        if let Some(activity) = self.introspection.find(&key, cx.now) {
            return outcome(self.finish(cx, activity));
        }
        AccessOutcome::Wait(Box::pin(async move {
            match self.introspection.fetch(key, &token, of_request, cx.client.address, cx.now).await {
                Ok(activity) => self.finish(cx, activity),
                Err(_) => {
                    let message = "The server that validates tokens is not available";
                    Some(Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "introspection_failed"))
                }
            }
        }))
    }
}

fn outcome<'a>(reply: Option<Box<Reply>>) -> AccessOutcome<'a> {
    reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
}

/// Why a request is rejected.
#[derive(Clone, Copy)]
enum TokenRejection {
    NoToken,
    /// The token is not active, or not for this client, or the request has several.
    Inactive,
}

impl OAuth2Introspection {
    /// The token of the request, if it is text: in the header or in the query. Another one in the query might be the
    /// one that the endpoint reads.
    fn find_token(cx: &RequestCx<'_>) -> Result<String, TokenRejection> {
        let mut values = cx.head.headers.get_all(AUTHORIZATION).iter();
        let in_header = match (values.next(), values.next()) {
            // The endpoint might read another one, also if the schemes differ.
            (Some(_), Some(_)) => return Err(TokenRejection::Inactive),
            (value, _) => value.and_then(|value| strip_bearer_scheme(value.as_bytes())),
        };
        let in_header = in_header.map_or(FieldValue::Absent, |token| FieldValue::Single(Cow::Borrowed(token)));
        let in_query = UrlEncodedForm(cx.query.unwrap_or_default().as_bytes()).find(PARAMETER.as_bytes());
        let has_header = in_header != FieldValue::Absent;
        let token = match in_header.or_same(in_query) {
            FieldValue::Single(token) => token,
            FieldValue::Multiple if has_header => return Err(TokenRejection::Inactive),
            FieldValue::Absent | FieldValue::NotString | FieldValue::Multiple => return Err(TokenRejection::NoToken),
        };
        let text = std::str::from_utf8(&token).ok().filter(|token| !token.is_empty());
        text.map(str::to_owned).ok_or(TokenRejection::NoToken)
    }

    /// The headers about the request that the introspection endpoint gets.
    fn description(&self, cx: &RequestCx<'_>) -> Vec<(HeaderName, HeaderValue)> {
        if !self.describes_request {
            return Vec::new();
        }
        let values = [
            (HeaderName::from_static("x-request-path"), HeaderValue::from_str(cx.path)),
            (HeaderName::from_static("x-request-http-method"), HeaderValue::from_str(cx.head.method.as_str())),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name, value.ok()?))).collect()
    }

    /// Sets the identity, or returns the reply to a rejected request.
    fn finish(&self, cx: &mut RequestCx<'_>, activity: TokenActivity<TokenCredential>) -> Option<Box<Reply>> {
        let TokenActivity::Active(token) = activity else { return self.reject(cx, TokenRejection::Inactive) };
        if self.verifies_binding
            && let Err(violation) = token.binding.check(cx.client.certificate)
        {
            self.log.rejected(cx.scope, "token", &format!("the token {violation}"));
            return match violation {
                BindingViolation::NotRequested if cx.needs_another_connection() => Some(another_connection()),
                _ => self.reject(cx, TokenRejection::Inactive),
            };
        }
        let consumers = cx.consumers;
        let consumer = token.consumer_name.as_deref().and_then(|name| match self.consumer_by {
            ConsumerBy::Username => consumers.usernames.get(name),
            ConsumerBy::ClientId => consumers.custom_ids.get(name),
        });
        let (subject, identifier) = (token.subject.clone(), token.identifier.as_ref());
        self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
        for (name, value) in &token.headers {
            cx.tell_endpoint(name, value.clone());
        }
        None
    }

    fn reject(&self, cx: &mut RequestCx<'_>, rejection: TokenRejection) -> Option<Box<Reply>> {
        self.policy.reject(cx, || {
            const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
            let (reply, challenge) = match rejection {
                TokenRejection::NoToken => {
                    let body = r#"{"error_description":"The access token is missing","error":"invalid_request"}"#;
                    (Reply::new(STATUS, ReplyBody::Raw(body.into()), "no_credentials"), &self.no_token)
                }
                TokenRejection::Inactive => {
                    let body =
                        r#"{"error_description":"The access token is invalid or has expired","error":"invalid_token"}"#;
                    (Reply::new(STATUS, ReplyBody::Raw(body.into()), "wrong_credentials"), &self.invalid_token)
                }
            };
            reply
                .with_header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))
                .with_header(WWW_AUTHENTICATE, challenge.clone())
        })
    }
}
