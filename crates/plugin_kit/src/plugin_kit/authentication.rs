//! Logic shared by the authentication plugins: accepting a credential, rejecting a request, the `anonymous` consumer.
//!
//! `anonymous` combines several authentication plugins in one chain. Plugins without `anonymous` must all succeed, and
//! the last one determines the consumer (AND). A plugin with `anonymous` is skipped if an earlier one succeeded, and
//! otherwise forwards unauthenticated requests as the anonymous consumer (OR).

use std::sync::Arc;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::NamedConsumer;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::consumers::{Consumer, EntityName};
use crate::plugin_api::context::RequestCx;
use crate::plugin_api::reply::Reply;
use crate::plugin_api::subjects::VerifiedSubject;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
pub const CREDENTIAL_IDENTIFIER: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS_CONSUMER: HeaderName = HeaderName::from_static("x-anonymous-consumer");
pub const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
pub const AUTHENTICATED_GROUPS: HeaderName = HeaderName::from_static("x-authenticated-groups");

/// The headers that contain the identity of the client for the endpoint.
static IDENTITY_HEADERS: [HeaderName; 7] = [
    CONSUMER_ID,
    CONSUMER_CUSTOM_ID,
    CONSUMER_USERNAME,
    CREDENTIAL_IDENTIFIER,
    ANONYMOUS_CONSUMER,
    CONSUMER_GROUPS,
    AUTHENTICATED_GROUPS,
];

/// When an authentication plugin runs, and what happens to unauthenticated requests.
#[derive(Clone, Debug)]
pub struct AuthPolicy {
    /// Id or username of the consumer for unauthenticated requests.
    anonymous: Option<Box<str>>,
    /// Whether the plugin runs for OPTIONS requests.
    runs_on_preflight: bool,
}

/// A valid credential and its consumer.
#[derive(Clone, Debug)]
pub struct VerifiedCredential<'s> {
    /// `None` if the plugin accepts the credential although there is no KongConsumer for it.
    pub consumer: Option<&'s Arc<Consumer>>,
    /// Whom the credential identifies. `None` if it does not say that, such as a token without `sub`: nothing is stored
    /// for its clients, and they are counted by address.
    pub subject: Option<VerifiedSubject>,
    /// Value of `X-Credential-Identifier`.
    pub identifier: Option<&'s HeaderValue>,
}

/// Whether `Authorization` or `Proxy-Authorization` occurs several times. The endpoint might read another field than
/// the plugin, also if the schemes differ, or if the plugin reads the other header.
pub fn has_several_logins(headers: &HeaderMap) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION].iter().any(|name| headers.get_all(name).iter().nth(1).is_some())
}

impl AuthPolicy {
    pub fn new(anonymous: Option<String>, runs_on_preflight: bool) -> Result<Self, Diagnostic> {
        if anonymous.as_deref() == Some("") {
            let remedy = "set it to the id or username of a consumer, or remove it to reject unauthenticated requests";
            return Err(Diagnostic::in_config("anonymous", "is empty", remedy));
        }
        Ok(AuthPolicy { anonymous: anonymous.map(String::into_boxed_str), runs_on_preflight })
    }

    /// Without a consumer for unauthenticated requests, and for all methods.
    pub fn required() -> Self {
        AuthPolicy { anonymous: None, runs_on_preflight: true }
    }

    /// The consumer in `anonymous`, if that is set.
    pub fn anonymous_consumer(&self) -> Option<NamedConsumer<'_>> {
        let consequence = "requests without valid credentials get status 500";
        self.anonymous.as_deref().map(|name| NamedConsumer { path: "anonymous".to_owned(), name, consequence })
    }

    /// Whether the plugin skips this request.
    pub fn skips(&self, cx: &RequestCx<'_>) -> bool {
        let is_skipped_preflight = !self.runs_on_preflight && cx.head.method == Method::OPTIONS;
        is_skipped_preflight || self.anonymous.is_some() && cx.identity.has_accepted_credential()
    }

    /// Records the identity for later plugins and sets the headers for the endpoint.
    pub fn accept(&self, cx: &mut RequestCx<'_>, verified: VerifiedCredential<'_>) {
        remove_earlier_identity(&mut cx.head.headers);
        if let Some(consumer) = verified.consumer {
            assert_consumer(cx, consumer);
        }
        if let Some(identifier) = verified.identifier {
            cx.assert_field(&CREDENTIAL_IDENTIFIER, identifier.clone());
        }
        cx.identity.consumer = verified.consumer.cloned();
        cx.identity.found_consumer_groups.clear();
        cx.identity.subjects.accept(verified.subject);
    }

    /// Continues as the anonymous consumer if one is configured, otherwise replies with `reply`. While credentials are
    /// missing, the client may be a consumer, so it gets status 503.
    pub fn reject(&self, cx: &mut RequestCx<'_>, reply: impl FnOnce() -> Box<Reply>) -> Option<Box<Reply>> {
        if cx.consumers.lacks_credentials {
            return Some(missing_credentials());
        }
        let Some(anonymous) = &self.anonymous else { return Some(reply()) };
        let Some(consumer) = cx.consumers.by_id_or_username(anonymous) else {
            let message = format!("anonymous consumer {anonymous} is configured but doesn't exist");
            return Some(Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "no_anonymous_consumer"));
        };
        remove_earlier_identity(&mut cx.head.headers);
        assert_consumer(cx, consumer);
        cx.assert_field(&ANONYMOUS_CONSUMER, HeaderValue::from_static("true"));
        cx.identity.consumer = Some(Arc::clone(consumer));
        cx.identity.found_consumer_groups.clear();
        None
    }
}

/// Records whom a token identifies, if the plugin leaves the consumer as it is. `None`: the token does not say that. No
/// credential is accepted, so plugins with `anonymous` still run.
pub fn record_subject(cx: &mut RequestCx<'_>, subject: Option<VerifiedSubject>) {
    cx.identity.subjects.record(subject);
}

/// Where the consumers of a credential are stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRealm {
    /// `cp`: the KongConsumers of this cluster. Realms in Konnect are not supported.
    pub scope: IdentityScope,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub enum IdentityScope {
    #[serde(rename = "cp")]
    Cluster,
}

/// Builds `WWW-Authenticate`, for example `Bearer realm="r", error="invalid_token"`.
pub fn challenge(scheme: &str, realm: Option<&str>, other_parameters: &str) -> Result<HeaderValue, Diagnostic> {
    let realm = realm.map(|realm| format!("realm=\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\"")));
    let parameters: Vec<&str> =
        realm.iter().map(String::as_str).chain((!other_parameters.is_empty()).then_some(other_parameters)).collect();
    let text = format!("{scheme} {}", parameters.join(", "));
    HeaderValue::from_bytes(text.trim_end().as_bytes()).map_err(|_| {
        Diagnostic::in_config("realm", "is not a valid header value", "remove line breaks and control characters")
    })
}

/// Parses a header name from a configuration.
pub fn parse_header_name(path: &str, name: &str) -> Result<HeaderName, Diagnostic> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Diagnostic::in_config(
            path,
            format!("`{name}` is not a valid header name"),
            "use letters, digits, `-` and `_` only",
        )
    })
}

/// Parses names of headers that are copied from one message to another, so that they must not describe the connection
/// or the body.
pub fn parse_copied_headers(field: &str, names: &[String], invalid: &mut Vec<Diagnostic>) -> Box<[HeaderName]> {
    let mut parsed = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let path = format!("{field}[{index}]");
        match parse_header_name(&path, name) {
            Ok(name) if MESSAGE_FIELDS.contains(&name) => {
                let remedy = "remove it: it describes the connection or the body of one message";
                invalid.push(Diagnostic::in_config(path, format!("`{name}` cannot be copied"), remedy));
            }
            Ok(name) => parsed.push(name),
            Err(error) => invalid.push(error),
        }
    }
    parsed.into()
}

fn assert_consumer(cx: &mut RequestCx<'_>, consumer: &Consumer) {
    cx.assert_field(&CONSUMER_ID, consumer.reported_id().header().clone());
    if let Some(custom_id) = consumer.custom_id().and_then(EntityName::header) {
        cx.assert_field(&CONSUMER_CUSTOM_ID, custom_id.clone());
    }
    if let Some(username) = consumer.username.as_ref().and_then(EntityName::header) {
        cx.assert_field(&CONSUMER_USERNAME, username.clone());
    }
}

/// Removes what an earlier plugin has asserted about the client: the last plugin determines the consumer. `acl` runs
/// later and sets the headers with groups.
fn remove_earlier_identity(headers: &mut HeaderMap) {
    // Few requests have such a header, and one pass over the names is cheaper than one lookup for each identity header.
    let may_be_identity_header = |name: &HeaderName| matches!(name.as_str().as_bytes(), [b'x', b'-', b'a' | b'c', ..]);
    if headers.keys().any(may_be_identity_header) {
        for name in &IDENTITY_HEADERS {
            headers.remove(name);
        }
    }
}

/// Declares the identity headers, which all plugins assert that authenticate or authorize clients, also those that only
/// let requests of known clients through.
pub fn declare_identity(assertions: &mut Assertions) {
    assertions.fields.add_all(&IDENTITY_HEADERS);
}

/// The reply while the credential that decides may be one that is missing.
pub fn missing_credentials() -> Box<Reply> {
    let message = "Not all credentials could be read yet";
    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "missing_credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_escapes_the_realm() {
        let cases = [
            ("Key", None, "", Ok("Key")),
            ("Key", Some("a"), "", Ok("Key realm=\"a\"")),
            ("Bearer", None, "error=\"invalid_token\"", Ok("Bearer error=\"invalid_token\"")),
            ("Bearer", Some("r"), "error=\"x\"", Ok("Bearer realm=\"r\", error=\"x\"")),
            ("Basic", Some(r#"a"b\c"#), "", Ok(r#"Basic realm="a\"b\\c""#)),
            ("Basic", Some("a\nb"), "", Err("config.realm")),
        ];
        for (scheme, realm, other_parameters, expected) in cases {
            let challenge = challenge(scheme, realm, other_parameters);
            let challenge = challenge.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(challenge.map_err(|diagnostic| diagnostic.field.as_str()), expected, "{realm:?}");
        }
    }
}
