//! What clients are told whose token is not accepted.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::times::Violations;
use crate::plugin::authentication::challenge;
use crate::plugin::kind::Invalid;
use crate::plugin::{Reply, ReplyBody};

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    NoToken,
    Message(Cow<'static, str>),
    /// Claims that do not hold, which are all that the body says.
    Claims(Violations),
    /// Of the token's issuer, so that nothing can be said about the token.
    NoKeys,
}

impl Refusal {
    pub(super) const NO_TOKEN: Refusal = Refusal::NoToken;
    pub(super) const SEVERAL_TOKENS: Refusal = Refusal::message("Multiple tokens provided");
    pub(super) const UNRECOGNIZABLE: Refusal = Refusal::message("Unrecognizable token");

    pub(super) const fn message(message: &'static str) -> Refusal {
        Refusal::Message(Cow::Borrowed(message))
    }
}

/// `WWW-Authenticate` with and without the word that the token was not accepted (RFC 6750, section 3).
#[derive(Debug)]
pub(super) struct Challenges {
    plain: HeaderValue,
    invalid_token: HeaderValue,
}

impl Challenges {
    pub(super) fn new(realm: Option<&str>) -> Result<Self, Invalid> {
        let (plain, invalid_token) =
            (challenge("Bearer", realm, "")?, challenge("Bearer", realm, "error=\"invalid_token\"")?);
        Ok(Challenges { plain, invalid_token })
    }

    pub(super) fn reply(&self, refusal: Refusal) -> Box<Reply> {
        const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
        let reply = match refusal {
            Refusal::NoToken => {
                let reply = Reply::plain(STATUS, "Unauthorized", "no_credentials");
                return reply.with(header::WWW_AUTHENTICATE, self.plain.clone());
            }
            Refusal::NoKeys => {
                let message = "The keys of the token's issuer are not available";
                return Reply::plain(StatusCode::SERVICE_UNAVAILABLE, message, "no_keys");
            }
            Refusal::Message(message) => Reply::plain(STATUS, message, "wrong_credentials"),
            Refusal::Claims(violations) => {
                let members = violations.into_iter().map(|(claim, wrong)| (claim.to_owned(), Value::from(wrong)));
                let body = Value::Object(members.collect::<Map<_, _>>()).to_string();
                let json = HeaderValue::from_static("application/json; charset=utf-8");
                Reply::new(STATUS, ReplyBody::Raw(body.into()), "wrong_credentials").with(header::CONTENT_TYPE, json)
            }
        };
        reply.with(header::WWW_AUTHENTICATE, self.invalid_token.clone())
    }
}
