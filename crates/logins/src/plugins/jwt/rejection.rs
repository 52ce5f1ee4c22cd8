//! Replies to requests without an accepted token.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::token::ClaimViolations;
use crate::plugin_api::{Reply, ReplyBody};
use crate::plugin_kit::authentication::challenge;
use crate::token_binding::another_connection;

/// Why a request is rejected.
#[derive(Debug)]
pub(super) enum JwtRejection {
    NoToken,
    /// The message of the reply.
    Message(Cow<'static, str>),
    /// Invalid claims. The body of the reply contains nothing else, as in Kong.
    Claims(ClaimViolations),
    /// The keys of the issuer are not available, so the token cannot be verified.
    NoKeys,
    /// The token is bound to a certificate, which the handshake of another connection requests.
    NotAsked,
}

impl JwtRejection {
    pub(super) const UNKNOWN_KEY: JwtRejection = JwtRejection::message("Invalid key/secret");
    pub(super) const SEVERAL_TOKENS: JwtRejection = JwtRejection::message("Multiple tokens provided");
    pub(super) const UNRECOGNIZABLE: JwtRejection = JwtRejection::message("Unrecognizable token");

    pub(super) const fn message(message: &'static str) -> JwtRejection {
        JwtRejection::Message(Cow::Borrowed(message))
    }
}

/// Values of `WWW-Authenticate` (RFC 6750, section 3).
#[derive(Debug)]
pub(super) struct Challenges {
    /// For requests without a token.
    no_token: HeaderValue,
    /// With `error="invalid_token"`.
    invalid_token: HeaderValue,
}

impl Challenges {
    pub(super) fn new(realm: Option<&str>) -> Result<Self, Diagnostic> {
        let (no_token, invalid_token) =
            (challenge("Bearer", realm, "")?, challenge("Bearer", realm, "error=\"invalid_token\"")?);
        Ok(Challenges { no_token, invalid_token })
    }

    pub(super) fn reply(&self, rejection: JwtRejection) -> Box<Reply> {
        const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
        let reply = match rejection {
            JwtRejection::NoToken => {
                let reply = Reply::plain(STATUS, "Unauthorized", "no_credentials");
                return reply.with_header(header::WWW_AUTHENTICATE, self.no_token.clone());
            }
            JwtRejection::NoKeys => {
                let message = "The keys of the token's issuer are not available";
                return Reply::plain(StatusCode::SERVICE_UNAVAILABLE, message, "no_keys");
            }
            JwtRejection::NotAsked => return another_connection(),
            JwtRejection::Message(message) => Reply::plain(STATUS, message, "wrong_credentials"),
            JwtRejection::Claims(violations) => {
                let members = violations.into_iter().map(|(claim, error)| (claim.to_owned(), Value::from(error)));
                let body = Value::Object(members.collect::<Map<_, _>>()).to_string();
                let json = HeaderValue::from_static("application/json; charset=utf-8");
                Reply::new(STATUS, ReplyBody::Raw(body.into()), "wrong_credentials")
                    .with_header(header::CONTENT_TYPE, json)
            }
        };
        reply.with_header(header::WWW_AUTHENTICATE, self.invalid_token.clone())
    }
}
