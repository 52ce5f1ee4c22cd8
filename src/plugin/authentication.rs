//! What plugins have in common that find out who is asking: who is let in, as whom, and who is turned away.
//!
//! Several of them in one chain are joined by `anonymous`. Those without it must all be satisfied, and the last one says who
//! is asking (AND). Those with it are satisfied by any that was before them, and let everybody else through as somebody who
//! stands for strangers (OR).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::consumers::{Consumer, Id, Name};
use super::cx::RequestCx;
use super::kind::Invalid;
use super::lookalikes;
use super::reply::Reply;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL_IDENTIFIER: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS_CONSUMER: HeaderName = HeaderName::from_static("x-anonymous-consumer");
pub const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
pub const AUTHENTICATED_GROUPS: HeaderName = HeaderName::from_static("x-authenticated-groups");

/// All that endpoints believe about who is asking.
static BELIEVED: [HeaderName; 7] = [
    CONSUMER_ID,
    CONSUMER_CUSTOM_ID,
    CONSUMER_USERNAME,
    CREDENTIAL_IDENTIFIER,
    ANONYMOUS_CONSUMER,
    CONSUMER_GROUPS,
    AUTHENTICATED_GROUPS,
];

/// When a plugin asks, and what becomes of those who have nothing to show.
#[derive(Clone, Debug)]
pub struct Gate {
    anonymous: Option<Box<str>>,
    runs_on_preflight: bool,
}

/// Who has shown a credential that holds.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'s> {
    /// None if a plugin vouches for somebody whom no KongConsumer describes.
    pub consumer: Option<&'s Arc<Consumer>>,
    /// Tells this credential from every other.
    pub credential: &'s Id,
    /// `X-Credential-Identifier`.
    pub identifier: Option<&'s HeaderValue>,
}

impl Gate {
    pub fn new(anonymous: Option<String>, runs_on_preflight: bool) -> Result<Self, Invalid> {
        if anonymous.as_deref() == Some("") {
            let remedy = "name a consumer by id or username, or leave it out to refuse strangers";
            return Err(Invalid::new("anonymous", "is empty", remedy));
        }
        Ok(Gate { anonymous: anonymous.map(String::into_boxed_str), runs_on_preflight })
    }

    /// Whether the plugin has nothing to do with this request.
    pub fn is_open(&self, cx: &mut RequestCx<'_>) -> bool {
        if !self.runs_on_preflight && cx.head.method == Method::OPTIONS {
            // Nobody is known then, so nobody's name may arrive as if we had written it.
            if cx.identity.credential.is_none() && cx.identity.consumer.is_none() {
                clear(&mut cx.head.headers);
            }
            return true;
        }
        self.anonymous.is_some() && cx.identity.credential.is_some()
    }

    /// Writes down who is asking, for later plugins and for the endpoint.
    pub fn admit(&self, cx: &mut RequestCx<'_>, shown: Shown<'_>) {
        let headers = &mut cx.head.headers;
        clear(headers);
        if let Some(consumer) = shown.consumer {
            write_consumer(headers, consumer);
        }
        if let Some(identifier) = shown.identifier {
            headers.insert(CREDENTIAL_IDENTIFIER, identifier.clone());
        }
        cx.identity.consumer = shown.consumer.cloned();
        cx.identity.credential = Some(shown.credential.clone());
    }

    /// Lets the request go on as the anonymous consumer's, or else refuses it.
    pub fn turn_away(&self, cx: &mut RequestCx<'_>, refusal: impl FnOnce() -> Box<Reply>) -> Option<Box<Reply>> {
        let Some(anonymous) = &self.anonymous else { return Some(refusal()) };
        let Some(consumer) = cx.consumers.named(anonymous) else {
            let message = format!("anonymous consumer {anonymous} is configured but doesn't exist");
            return Some(Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "no_anonymous_consumer"));
        };
        let headers = &mut cx.head.headers;
        clear(headers);
        write_consumer(headers, consumer);
        headers.insert(ANONYMOUS_CONSUMER, HeaderValue::from_static("true"));
        cx.identity.consumer = Some(Arc::clone(consumer));
        cx.identity.credential = None;
        None
    }
}

/// Where consumers are kept that a credential may belong to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRealm {
    /// `cp` for the KongConsumers of this cluster; those that Konnect keeps are not known here.
    pub scope: IdentityScope,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub enum IdentityScope {
    #[serde(rename = "cp")]
    Cluster,
}

/// `WWW-Authenticate`, for example `Bearer realm="r", error="invalid_token"`.
pub fn challenge(scheme: &str, realm: Option<&str>, rest: &str) -> Result<HeaderValue, Invalid> {
    let realm = realm.map(|realm| format!("realm=\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\"")));
    let parameters: Vec<&str> = realm.iter().map(String::as_str).chain((!rest.is_empty()).then_some(rest)).collect();
    let text = format!("{scheme} {}", parameters.join(", "));
    HeaderValue::from_bytes(text.trim_end().as_bytes())
        .map_err(|_| Invalid::new("realm", "cannot stand in a header", "leave out line breaks and control characters"))
}

/// The name of a header as a configuration writes it.
pub fn header_name(path: &str, name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Invalid::new(path, format!("`{name}` is no name of a header"), "use letters, digits, `-` and `_` only")
    })
}

fn write_consumer(headers: &mut HeaderMap, consumer: &Consumer) {
    headers.insert(CONSUMER_ID, consumer.id.header().clone());
    if let Some(custom_id) = consumer.custom_id().and_then(Name::header) {
        headers.insert(CONSUMER_CUSTOM_ID, custom_id.clone());
    }
    if let Some(username) = consumer.username.as_ref().and_then(Name::header) {
        headers.insert(CONSUMER_USERNAME, username.clone());
    }
}

/// What the client wrote there is not what we say, and what an earlier plugin wrote no longer holds.
fn clear(headers: &mut HeaderMap) {
    // Nearly no request has such a name, and one look at each is less than a search for each of ours.
    let may_be_ours = |name: &HeaderName| matches!(name.as_str().as_bytes(), [b'x', b'-' | b'_', b'a' | b'c', ..]);
    if !headers.keys().any(may_be_ours) {
        return;
    }
    for name in [CONSUMER_ID, CONSUMER_CUSTOM_ID, CONSUMER_USERNAME, CREDENTIAL_IDENTIFIER, ANONYMOUS_CONSUMER] {
        headers.remove(name);
    }
    remove_lookalikes(headers);
}

/// Removes what an endpoint could take for our words about who is asking.
pub fn remove_lookalikes(headers: &mut HeaderMap) {
    lookalikes::remove(headers, &BELIEVED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_hold_what_they_quote() {
        let cases = [
            ("Key", None, "", Ok("Key")),
            ("Key", Some("a"), "", Ok("Key realm=\"a\"")),
            ("Bearer", None, "error=\"invalid_token\"", Ok("Bearer error=\"invalid_token\"")),
            ("Bearer", Some("r"), "error=\"x\"", Ok("Bearer realm=\"r\", error=\"x\"")),
            ("Basic", Some(r#"a"b\c"#), "", Ok(r#"Basic realm="a\"b\\c""#)),
            ("Basic", Some("a\nb"), "", Err("config.realm")),
        ];
        for (scheme, realm, rest, expected) in cases {
            let challenge = challenge(scheme, realm, rest);
            let challenge = challenge.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(challenge.map_err(|invalid| invalid.field.as_str()), expected, "{realm:?}");
        }
    }
}
