//! The result of one protection for a request.

use http::header::{LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::passed_cookies::PassedCookies;
use crate::plugin_api::{Reply, ReplyBody};

/// What a protection says about a request.
pub(super) enum Check {
    /// It does not apply to the client.
    Undecided,
    Passed,
    Refused(Refused),
    /// No other protection can admit the request.
    Failed(Box<Reply>),
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// 401 or 403.
    pub status: StatusCode,
    /// The reason code of the reply.
    reason: &'static str,
    challenges: Vec<HeaderValue>,
    pub cookies: PassedCookies,
}

impl Refused {
    pub(super) fn forbidden(reason: &'static str) -> Self {
        let (challenges, cookies) = (Vec::new(), PassedCookies::default());
        Refused { status: StatusCode::FORBIDDEN, reason, challenges, cookies }
    }

    pub(super) fn unauthorized(reason: &'static str, challenges: Vec<HeaderValue>) -> Self {
        Refused { status: StatusCode::UNAUTHORIZED, reason, challenges, cookies: PassedCookies::default() }
    }

    /// One reply for both. A client that can log in gets the reply that lets it do so.
    pub(super) fn and(mut self, other: Refused) -> Self {
        if other.status == StatusCode::UNAUTHORIZED {
            if self.status != StatusCode::UNAUTHORIZED {
                (self.status, self.reason) = (other.status, other.reason);
            }
            self.challenges.extend(other.challenges);
        }
        self.cookies.extend(other.cookies);
        self
    }

    /// The reply to the client. `sign_in`: where it can log in.
    pub(super) fn reply(self, sign_in: Option<HeaderValue>) -> Box<Reply> {
        let Refused { status, reason, challenges, cookies } = self;
        let mut reply = match sign_in {
            Some(page) => Reply::new(StatusCode::FOUND, ReplyBody::Empty, "sign_in").with_header(LOCATION, page),
            None => {
                let message = status.canonical_reason().unwrap_or_default();
                let mut reply = Reply::negotiated(status, message, reason);
                for challenge in challenges {
                    reply.headers.append(WWW_AUTHENTICATE, challenge);
                }
                reply
            }
        };
        cookies.add_to(reply.status, &mut reply.headers);
        reply
    }
}
