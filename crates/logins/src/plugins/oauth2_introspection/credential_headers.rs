//! The headers with what the server says about a token.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::ConsumerBy;
use crate::diagnostic::Diagnostic;
use crate::introspection::introspected_binding;
use crate::plugin_api::VerifiedSubject;
use crate::token_binding::TokenBinding;

/// The members of a response with the names of their headers.
const MEMBERS: [(&str, HeaderName); 10] = [
    ("scope", HeaderName::from_static("x-credential-scope")),
    ("client_id", HeaderName::from_static("x-credential-client-id")),
    ("token_type", HeaderName::from_static("x-credential-token-type")),
    ("exp", HeaderName::from_static("x-credential-exp")),
    ("iat", HeaderName::from_static("x-credential-iat")),
    ("nbf", HeaderName::from_static("x-credential-nbf")),
    ("sub", HeaderName::from_static("x-credential-sub")),
    ("aud", HeaderName::from_static("x-credential-aud")),
    ("iss", HeaderName::from_static("x-credential-iss")),
    ("jti", HeaderName::from_static("x-credential-jti")),
];

/// Which members of a response become headers.
#[derive(Clone, Debug)]
pub(super) struct CredentialHeaders(Vec<(Box<str>, HeaderName)>);

impl CredentialHeaders {
    /// `custom`: the names of further members.
    pub(super) fn new(custom: &[String], invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let mut headers: Vec<_> = MEMBERS.map(|(member, header)| (Box::from(member), header)).into();
        let errors_before = invalid.len();
        for (index, member) in custom.iter().enumerate() {
            match HeaderName::try_from(format!("x-credential-{member}")) {
                Ok(header) if !member.is_empty() && header != "x-credential-identifier" => {
                    headers.push((member.as_str().into(), header));
                }
                _ => {
                    let message = format!("`{member}` is not the name of a member that a header can have");
                    let remedy = "use letters, digits, `-` and `_` only; the plugin sets X-Credential-Identifier";
                    invalid.push(Diagnostic::in_config(format!("custom_claims_forward[{index}]"), message, remedy));
                }
            }
        }
        (invalid.len() == errors_before).then_some(CredentialHeaders(headers))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(_, header)| header)
    }
}

/// What a plugin knows about an active token.
#[derive(Debug)]
pub(super) struct TokenCredential {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if the server does not say whose token it is.
    pub(super) subject: Option<VerifiedSubject>,
    /// The value of `X-Credential-Identifier`.
    pub(super) identifier: Option<HeaderValue>,
    /// The username or the custom id of the consumer.
    pub(super) consumer_name: Option<Box<str>>,
    /// The key that the client must have.
    pub(super) binding: TokenBinding,
}

impl TokenCredential {
    /// `object` distinguishes the users of several servers that do not name the issuer of a token.
    pub(super) fn read(
        members: &Map<String, Value>,
        names: &CredentialHeaders,
        consumer_by: ConsumerBy,
        object: &str,
    ) -> Self {
        let headers = names.0.iter().filter_map(|(member, header)| {
            let value = HeaderValue::from_str(&text(members.get(&**member)?)?).ok()?;
            Some((header.clone(), value))
        });
        let string = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let issuer = string("iss").unwrap_or(object);
        let named = |member: &str| VerifiedSubject::issued(&format!("{member} of {issuer}"), string(member)?);
        let of_client = || named("client_id").map(VerifiedSubject::for_an_unknown_user);
        let subject = string("sub").and_then(|name| VerifiedSubject::issued(issuer, name));
        TokenCredential {
            headers: headers.collect(),
            subject: subject.or_else(|| named("username")).or_else(of_client),
            identifier: string("username").and_then(|user| HeaderValue::from_str(user).ok()),
            consumer_name: match consumer_by {
                ConsumerBy::Username => string("username").map(Box::from),
                ConsumerBy::ClientId => string("client_id").map(Box::from),
            },
            binding: introspected_binding(members),
        }
    }
}

/// A member as text; a list of texts separated by commas. `None` for objects and null.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) => Some(items.iter().map(text).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}
