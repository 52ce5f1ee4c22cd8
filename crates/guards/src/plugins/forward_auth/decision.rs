//! Applies the decision of the server: changes the request, remembers what the client gets with the response of the
//! endpoint, or denies the request.

use std::sync::Arc;

use http::header::{DATE, LOCATION, PROXY_AUTHENTICATE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::check_request::target;
use super::{ForwardAuth, IdentityHeaders};
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::{RemoteResponse, Reply, ReplyBody, RequestCx, VerifiedSubject};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, record_subject};
use crate::plugin_kit::form_body::query_value;

/// What the client gets with the response of the endpoint, after the server has allowed the request.
#[derive(Debug, Default)]
pub(super) struct AllowedResponse {
    /// Headers that replace those of the endpoint.
    headers: HeaderMap,
    /// Values of Set-Cookie, in addition to those of the endpoint.
    cookies: Vec<HeaderValue>,
}

impl ForwardAuth {
    pub(super) fn allow(&self, cx: &mut RequestCx<'_>, response: &RemoteResponse) {
        if let Some(identity) = &self.identity {
            identity.apply(cx, &response.headers);
        }
        for name in &self.response_headers {
            cx.declare_request_field(name);
        }
        for name in &self.response_headers {
            cx.assert_none(name);
            for value in response.headers.get_all(name) {
                cx.assert_further_value(name, value.clone());
            }
        }
        let mut allowed = AllowedResponse::default();
        for name in &self.client_response_headers {
            for value in response.headers.get_all(name) {
                allowed.headers.append(name, value.clone());
            }
        }
        let cookies = response.headers.get_all(SET_COOKIE).iter();
        allowed.cookies.extend(cookies.filter(|cookie| self.copies_cookie(cookie)).cloned());
        if !allowed.headers.is_empty() || !allowed.cookies.is_empty() {
            cx.set_plugin_data(allowed);
        }
    }

    fn copies_cookie(&self, cookie: &HeaderValue) -> bool {
        let name = cookie.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        self.cookies.iter().any(|listed| listed.as_bytes() == name)
    }

    /// The reply to a request that the server denies.
    pub(super) fn deny(&self, cx: &RequestCx<'_>, response: RemoteResponse) -> Box<Reply> {
        let RemoteResponse { status, mut headers, body } = response;
        if status == StatusCode::UNAUTHORIZED
            && let Some(sign_in) = &self.sign_in
            && let Ok(location) = HeaderValue::from_str(&format!("{}{}", sign_in.prefix, query_value(&url(cx))))
        {
            let mut reply = Reply::new(StatusCode::FOUND, ReplyBody::Empty, "sign_in").with_header(LOCATION, location);
            for cookie in headers.get_all(SET_COOKIE) {
                reply.headers.append(SET_COOKIE, cookie.clone());
            }
            return reply;
        }
        for name in MESSAGE_FIELDS.iter().chain([&DATE, &PROXY_AUTHENTICATE]) {
            headers.remove(name);
        }
        let mut reply = Reply::new(status, ReplyBody::Raw(body), "denied");
        reply.headers = headers;
        reply
    }
}

/// The URL of the request as the client sees it.
fn url(cx: &RequestCx<'_>) -> String {
    format!("{}{}", cx.client.origin(), target(cx))
}

impl IdentityHeaders {
    /// Authenticates the request as the user that the server names.
    fn apply(&self, cx: &mut RequestCx<'_>, response: &HeaderMap) {
        let user = response.get(&self.user).filter(|user| !user.is_empty());
        let Some((user, name)) = user.and_then(|user| Some((user, user.to_str().ok()?))) else {
            // The server has let a client through without a name.
            return record_subject(cx, None);
        };
        let consumers = cx.consumers;
        let subject = VerifiedSubject::issued(&self.object, name);
        let consumer = consumers.by_username_or_custom_id(name);
        let verified = VerifiedCredential { consumer, subject, identifier: Some(user) };
        AuthPolicy::required().accept(cx, verified);
        cx.identity.groups = self.groups(response);
    }

    fn groups(&self, response: &HeaderMap) -> Vec<Arc<str>> {
        let Some(name) = &self.groups else { return Vec::new() };
        let lines = response.get_all(name).iter().filter_map(|line| line.to_str().ok());
        let groups = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|group| !group.is_empty());
        groups.map(Arc::from).collect()
    }
}

impl AllowedResponse {
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        let names: Vec<HeaderName> = self.headers.keys().cloned().collect();
        for name in &names {
            headers.remove(name);
        }
        for (name, value) in names.iter().flat_map(|name| self.headers.get_all(name).iter().map(move |v| (name, v))) {
            headers.append(name, value.clone());
        }
        for cookie in self.cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}
