//! The replies of the plugin: redirects, and rejections. They say nothing about the reason of a failure.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::login::AuthenticationLevel;
use crate::plugin_api::{Reply, ReplyBody};

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenIdRejection {
    NoCredentials,
    WrongCredentials,
    /// The claims do not allow the request.
    Forbidden,
    NoConsumer,
    /// The user has not logged in strongly or recently enough.
    InsufficientAuthentication,
    /// The provider is needed for the decision, and is not available.
    Unavailable,
    /// The store of sessions is not available.
    NoSessions,
}

impl OpenIdRejection {
    /// `level`: what the configuration requires of logins.
    pub(super) fn reply(
        self,
        unauthorized: &Arc<str>,
        forbidden: &Arc<str>,
        level: Option<&AuthenticationLevel>,
    ) -> Box<Reply> {
        const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
        const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
        let challenge = |text| HeaderValue::from_static(text);
        match self {
            OpenIdRejection::NoCredentials => Reply::negotiated(UNAUTHORIZED, text(unauthorized), "no_credentials")
                .with_header(WWW_AUTHENTICATE, challenge("Bearer")),
            OpenIdRejection::WrongCredentials => {
                Reply::negotiated(UNAUTHORIZED, text(unauthorized), "wrong_credentials")
                    .with_header(WWW_AUTHENTICATE, challenge("Bearer error=\"invalid_token\""))
            }
            OpenIdRejection::Forbidden => Reply::negotiated(FORBIDDEN, text(forbidden), "forbidden_claims")
                .with_header(WWW_AUTHENTICATE, challenge("Bearer error=\"insufficient_scope\"")),
            OpenIdRejection::NoConsumer => Reply::negotiated(FORBIDDEN, text(forbidden), "no_consumer"),
            OpenIdRejection::InsufficientAuthentication => {
                let reply = Reply::negotiated(UNAUTHORIZED, text(unauthorized), "insufficient_authentication");
                match level {
                    Some(level) => reply.with_header(WWW_AUTHENTICATE, level.challenge()),
                    None => reply,
                }
            }
            OpenIdRejection::Unavailable => {
                let message = "The identity provider is currently unavailable";
                Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "provider_unavailable")
            }
            OpenIdRejection::NoSessions => {
                let message = "Sessions are currently unavailable";
                Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "session_store_unavailable")
            }
        }
    }
}

/// Sends the browser to the provider. `None` if the URL is not valid in a header.
pub(super) fn redirect_to_login(location: &str) -> Option<Box<Reply>> {
    let location = HeaderValue::try_from(location).ok()?;
    let reply = Reply::new(StatusCode::FOUND, ReplyBody::Empty, "redirected_to_login");
    Some(private(reply.with_header(LOCATION, location)))
}

/// Sends the browser to the page after the login. `by_document`: by a document instead of a redirect, because browsers
/// do not send cookies with `SameSite=Strict` after a redirect that began at another site.
pub(super) fn logged_in(page: &str, by_document: bool) -> Option<Box<Reply>> {
    if !by_document {
        let location = HeaderValue::try_from(page).ok()?;
        let reply = Reply::new(StatusCode::FOUND, ReplyBody::Empty, "logged_in");
        return Some(private(reply.with_header(LOCATION, location)));
    }
    let page = escape(page);
    let document = format!(
        "<!doctype html><meta charset=utf-8><title>Login</title>\
         <meta http-equiv=refresh content=\"0; url={page}\"><p><a href=\"{page}\">Continue</a>"
    );
    let reply = Reply::new(StatusCode::OK, ReplyBody::Raw(Bytes::from(document)), "logged_in");
    Some(private(reply.with_header(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))))
}

pub(super) fn failed_login(unauthorized: &Arc<str>) -> Box<Reply> {
    private(Reply::negotiated(StatusCode::UNAUTHORIZED, text(unauthorized), "login_failed"))
}

/// The provider has logged the user in, but not as strongly or as recently as the login required.
pub(super) fn insufficient_login(forbidden: &Arc<str>) -> Box<Reply> {
    private(Reply::negotiated(StatusCode::FORBIDDEN, text(forbidden), "insufficient_login"))
}

/// The session has ended. `location`: where that at the provider ends, or the page that follows.
pub(super) fn logged_out(location: Option<&str>) -> Box<Reply> {
    match location.and_then(|location| HeaderValue::try_from(location).ok()) {
        // The browser must follow with GET, whatever the method was.
        Some(location) => {
            let reply = Reply::new(StatusCode::SEE_OTHER, ReplyBody::Empty, "logged_out");
            private(reply.with_header(LOCATION, location))
        }
        None => private(Reply::new(StatusCode::OK, ReplyBody::Empty, "logged_out")),
    }
}

pub(super) fn sessions_ended() -> Box<Reply> {
    private(Reply::new(StatusCode::OK, ReplyBody::Empty, "sessions_ended"))
}

pub(super) fn refused_logout() -> Box<Reply> {
    private(Reply::negotiated(StatusCode::BAD_REQUEST, "Invalid logout token", "invalid_logout_token"))
}

/// The reply belongs to one browser, and its URL to one login.
fn private(reply: Box<Reply>) -> Box<Reply> {
    reply
        .with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_header(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

fn text(message: &Arc<str>) -> Cow<'static, str> {
    Cow::Owned(message.to_string())
}

/// The text for an attribute of HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_escaped_in_documents() {
        let page = "https://a.example/?a=\"><script>&b";
        let reply = logged_in(page, true).unwrap();
        let ReplyBody::Raw(document) = reply.body else { panic!("a document") };
        let document = String::from_utf8(document.to_vec()).unwrap();
        assert!(!document.contains("<script>"), "{document}");
        assert!(document.contains("url=https://a.example/?a=&quot;&gt;&lt;script&gt;&amp;b\""), "{document}");
        assert_eq!(logged_in(page, false).unwrap().headers[LOCATION], page);
    }
}
