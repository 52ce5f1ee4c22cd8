//! `oauth2`: issues OAuth 2.0 tokens to the clients of consumers, and authenticates requests by these tokens.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: tokens
//! plugin: oauth2
//! config:
//!   enable_client_credentials: true
//!   scopes: [read, write]
//!   hide_credentials: true
//! ```
//!
//! On each route with the plugin, requests whose path ends in `/oauth2/token` and `/oauth2/authorize` are those for
//! tokens and codes. They need HTTPS and the method POST. All other requests need a token, in the header
//! `Authorization: Bearer TOKEN`, or as `access_token` in the query or in a form.
//!
//! Clients are Secrets labeled `konghq.com/credential: oauth2`, which a KongConsumer lists in `credentials`:
//!
//! | key | contents |
//! | --- | --- |
//! | `name` | a description of the client |
//! | `client_id` | its id, unique in the cluster |
//! | `client_secret` | its secret, of which only the SHA-256 stays in memory |
//! | `client_secret_hash` | a hash of the secret in its place, as the plugin basic-auth accepts it for passwords |
//! | `client_type` | `confidential`, the default, or `public` for clients that cannot keep a secret and have none |
//! | `redirect_uris` | the URIs to which codes and tokens may be sent, separated by commas; required for codes |
//!
//! A client without its Secret, or whose Secret was replaced by one of another name, loses its tokens at once.
//!
//! Only digests of codes and tokens are stored. Each use of a refresh token replaces both tokens. A second use of a
//! code or of a replaced refresh token ends all tokens of that grant.

mod authorize;
mod client_authentication;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grant;
mod memory_grants;
mod parameters;
mod refusal;
mod token_endpoint;
mod token_store;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method, request};

use self::config::{Config, OAuthSettings};
use self::grant::{Grant, SentToken, Stage, TokenKind};
use self::parameters::{Parameters, SECRETS};
use self::refusal::{Refusal, method_reply, store_unavailable, unauthenticated_reply};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::OAuthClient;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::fields::{BodyFields, FieldValue, UrlEncodedForm, remove_from_query};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::login::strip_scheme;
use crate::plugin_api::password::PasswordChecks;
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, ConsumerDirectory, CredentialLocations, NamedConsumer, Plugin, Reply,
    RequestCx, VerifiedSubject,
};
use crate::plugin_kit::authentication::{VerifiedCredential, declare_identity};

pub(crate) struct OAuth2 {
    settings: OAuthSettings,
    checks: PasswordChecks,
}

impl PluginKind for OAuth2 {
    const NAME: &'static str = "oauth2";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1400;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["persistent_refresh_token"], DumpedValue::Flag(false), "3.4")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(OAuth2 { settings: config.validate(cx)?, checks: PasswordChecks::new(cx) })
    }
}

/// What the path of a request selects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OAuthEndpoint {
    Authorize,
    Token,
}

impl OAuthEndpoint {
    fn of_path(path: &str) -> Option<OAuthEndpoint> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.ends_with("/oauth2/token") {
            Some(OAuthEndpoint::Token)
        } else if path.ends_with("/oauth2/authorize") {
            Some(OAuthEndpoint::Authorize)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            OAuthEndpoint::Authorize => "authorization",
            OAuthEndpoint::Token => "token",
        }
    }
}

impl Plugin for OAuth2 {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if let Some(endpoint) = OAuthEndpoint::of_path(cx.path) {
            return self.endpoint(cx, endpoint);
        }
        if self.settings.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let Some(token) = self.find_token(cx) else { return outcome(self.reject(cx, false)) };
        if self.settings.hides_credentials {
            self.remove_token(cx);
        }
        let TokenText::Single(sent) = token else { return outcome(self.reject(cx, true)) };
        let store = &self.settings.store;
        if let Some(grant) = store.get_now(&sent.grant) {
            return outcome(self.finish(cx, &sent, grant));
        }
        AccessOutcome::Wait(Box::pin(async move {
            match store.get(&sent.grant).await {
                Ok(grant) => self.finish(cx, &sent, grant),
                Err(_) => Some(store_unavailable()),
            }
        }))
    }

    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.settings.policy.anonymous_consumer().into_iter().collect()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(&TOKEN_HEADERS);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.settings.hides_credentials {
            // That of a body without its token.
            fields.request.add_all([&self.settings.auth_header, &CONTENT_LENGTH]);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations {
            headers: vec![self.settings.auth_header.clone()],
            parameters: [PARAMETER].into_iter().chain(SECRETS).map(Box::from).collect(),
            ..CredentialLocations::default()
        })
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY_BYTES)
    }

    /// Bodies of requests for codes and tokens, and forms that may contain a token because nothing else does.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        if OAuthEndpoint::of_path(head.uri.path()).is_some() {
            return true;
        }
        let query = UrlEncodedForm(head.uri.query().unwrap_or_default().as_bytes());
        let is_form = |media_type: &str| {
            ["application/x-www-form-urlencoded", "multipart/form-data", "application/json"]
                .iter()
                .any(|form| media_type.eq_ignore_ascii_case(form))
        };
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let header = head.headers.get(&self.settings.auth_header);
        let media_type = content_type.and_then(|value| value.split(';').next());
        head.method != Method::GET
            && media_type.is_some_and(|media_type| is_form(media_type.trim()))
            && header.is_none_or(|value| strip_bearer_or_token(value.as_bytes()).is_none())
            && query.find(PARAMETER.as_bytes()) == FieldValue::Absent
    }
}

fn outcome<'a>(reply: Option<Box<Reply>>) -> AccessOutcome<'a> {
    reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
}

/// What a request has in place of a token.
enum TokenText {
    Single(SentToken),
    /// Several tokens, or a text that is no token.
    Invalid,
}

impl OAuth2 {
    fn endpoint<'a>(&'a self, cx: &'a mut RequestCx<'_>, endpoint: OAuthEndpoint) -> AccessOutcome<'a> {
        if cx.head.method != Method::POST {
            return AccessOutcome::Reply(method_reply(
                &cx.head.method,
                endpoint.name(),
                self.settings.challenges.realm.as_deref(),
            ));
        }
        let body = cx.current_body().cloned().unwrap_or_else(Bytes::new);
        let parameters = Parameters::read(cx.query, &cx.head.headers, &body).map_err(Refusal::Parameters);
        AccessOutcome::Wait(Box::pin(async move {
            Some(match endpoint {
                OAuthEndpoint::Authorize => self.authorize(cx, parameters).await,
                OAuthEndpoint::Token => self.token(cx, parameters).await,
            })
        }))
    }

    /// The token of the request: in the header, in the query or in the body, and no other one. `None` if it has none.
    fn find_token(&self, cx: &RequestCx<'_>) -> Option<TokenText> {
        let in_header = match FieldValue::from_header(&cx.head.headers, &self.settings.auth_header) {
            FieldValue::Single(value) => FieldValue::Single(match strip_bearer_or_token(&value) {
                Some(token) => Cow::Owned(token.to_owned()),
                None => value,
            }),
            value => value,
        };
        let in_query = UrlEncodedForm(cx.query.unwrap_or_default().as_bytes()).find(PARAMETER.as_bytes());
        let text = in_header.or_same(in_query).or_same(self.in_body(cx));
        match text {
            FieldValue::Absent | FieldValue::NotString => None,
            FieldValue::Single(text) if text.is_empty() => None,
            FieldValue::Single(text) => {
                Some(SentToken::parse(TokenKind::Access, &text).map_or(TokenText::Invalid, TokenText::Single))
            }
            FieldValue::Multiple => Some(TokenText::Invalid),
        }
    }

    fn in_body<'c>(&self, cx: &'c RequestCx<'_>) -> FieldValue<'c> {
        let body = cx.current_body().filter(|body| !body.is_empty() && cx.head.method != Method::GET);
        let fields = body.and_then(|body| BodyFields::parse(&cx.head.headers, body));
        fields.map_or(FieldValue::Absent, |fields| fields.find(PARAMETER))
    }

    /// Removes all tokens before the request is forwarded.
    fn remove_token(&self, cx: &mut RequestCx<'_>) {
        let is_token = |name: &[u8]| name == PARAMETER.as_bytes();
        let mut values = cx.head.headers.get_all(&self.settings.auth_header).iter();
        if values.any(|value| strip_bearer_or_token(value.as_bytes()).is_some()) {
            cx.head.headers.remove(&self.settings.auth_header);
        }
        remove_from_query(cx.head, is_token);
        let rest = cx.current_body().and_then(|body| BodyFields::parse(&cx.head.headers, body)?.without(is_token));
        if let Some(rest) = rest {
            cx.replace_body(rest.into());
        }
    }

    /// Accepts the request if this is the current token of a grant that is valid here.
    fn finish(&self, cx: &mut RequestCx<'_>, sent: &SentToken, grant: Option<Arc<Grant>>) -> Option<Box<Reply>> {
        let grant = grant.filter(|grant| self.is_valid_here(grant, cx));
        let Some((grant, client)) = grant.and_then(|grant| {
            let client = client_of(cx.consumers, &grant)?;
            Some((grant, client))
        }) else {
            return self.reject(cx, true);
        };
        let tokens = match &grant.stage {
            Stage::Tokens(tokens) if sent.is(&tokens.access) && !tokens.access_expires.is_past(cx.now) => tokens,
            _ => return self.reject(cx, true),
        };
        let (consumer, identifier) = (Some(&client.consumer), client.client_id.header());
        // The user is one that the owner of the provision key has authenticated, and not the application.
        let user = grant.user.as_ref().and_then(|user| VerifiedSubject::issued(&client.id, user.as_str()));
        let subject = Some(user.unwrap_or_else(|| VerifiedSubject::of_credential(&client.id)));
        self.settings.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
        for (name, text) in TOKEN_HEADERS.iter().zip([&tokens.scope, &grant.user]) {
            if let Some(text) = text {
                cx.tell_endpoint(name, text.header().clone());
            }
        }
        None
    }

    fn reject(&self, cx: &mut RequestCx<'_>, has_token: bool) -> Option<Box<Reply>> {
        let challenges = &self.settings.challenges;
        let challenge = if has_token { &challenges.invalid_token } else { &challenges.no_token };
        self.settings.policy.reject(cx, || unauthenticated_reply(has_token, challenge))
    }
}

/// The client of a grant, if it still exists.
fn client_of<'c>(consumers: &'c ConsumerDirectory, grant: &Grant) -> Option<&'c Arc<OAuthClient>> {
    consumers.oauth_clients.get(&*grant.client_id).filter(|client| grant.is_of(client))
}

/// The token after one of the two schemes that Kong accepts.
fn strip_bearer_or_token(value: &[u8]) -> Option<&[u8]> {
    strip_scheme(value, "bearer").or_else(|| strip_scheme(value, "token"))
}

const PARAMETER: &str = "access_token";
/// The scope and the user of the token, for the endpoint.
static TOKEN_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-authenticated-scope"), HeaderName::from_static("x-authenticated-userid")];
/// Size limit of forms in which a token is looked for, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
