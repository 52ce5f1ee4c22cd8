//! The response of the server, and what it does to the request and to the response of the endpoint.

use http::header::{CACHE_CONTROL, EXPIRES, SET_COOKIE, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::location_guards::access::check::{Check, Refused};
use crate::location_guards::access::passed_cookies::PassedCookies;
use crate::plugin_api::{RemoteResponse, Reply, RequestCx};
use crate::plugin_kit::authentication::record_subject;

/// What is kept of a response.
#[derive(Debug)]
pub(super) struct ServerVerdict {
    status: StatusCode,
    /// For the endpoint.
    headers: Vec<(HeaderName, HeaderValue)>,
    challenges: Vec<HeaderValue>,
    cookies: Vec<HeaderValue>,
    may_be_stored: bool,
    /// For how many seconds, if the server says it.
    max_age: Option<u64>,
}

impl ServerVerdict {
    /// `names`: the headers for the endpoint.
    pub(super) fn of(response: RemoteResponse, names: &[HeaderName]) -> Self {
        let RemoteResponse { status, headers, body: _ } = response;
        let all = |name: &HeaderName| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        let for_endpoint: Vec<_> =
            names.iter().flat_map(|name| all(name).into_iter().map(|value| (name.clone(), value))).collect();
        let challenges = all(&WWW_AUTHENTICATE);
        let values = for_endpoint.iter().map(|(_, value)| value).chain(&challenges);
        let bytes: usize = values.map(|value| value.len() + ENTRY_BYTES).sum();
        ServerVerdict {
            status,
            challenges,
            cookies: all(&SET_COOKIE),
            max_age: max_age(&headers),
            may_be_stored: may_be_stored(&headers) && bytes <= MAX_STORED,
            headers: for_endpoint,
        }
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// `always_sets_cookie`: whether clients get cookies with any status.
    pub(super) fn apply(&self, always_sets_cookie: bool, cx: &mut RequestCx<'_>) -> Check {
        let status = self.status;
        let cookies = PassedCookies { cookies: self.cookies.clone(), with_any_status: always_sets_cookie };
        if self.is_success() {
            for (name, value) in &self.headers {
                cx.assert_further_value(name, value.clone());
            }
            if !self.cookies.is_empty() {
                cx.set_plugin_data(cookies);
            }
            // The server may have let anyone through, so responses are stored for none of its clients.
            record_subject(cx, None);
            return Check::Passed;
        }
        let mut refused = match status {
            StatusCode::UNAUTHORIZED => Refused::unauthorized("denied", self.challenges.clone()),
            StatusCode::FORBIDDEN => Refused::forbidden("denied"),
            _ => return Check::Failed(failed()),
        };
        refused.cookies = cookies;
        Check::Refused(refused)
    }
}

/// For how many seconds a response is stored.
pub(super) fn lifetime(decision: &ServerVerdict, by_status: &[(u16, u64)]) -> Option<u64> {
    let (_, seconds) = by_status.iter().find(|(status, _)| *status == decision.status.as_u16())?;
    // What the server says precedes what is configured.
    let seconds = decision.max_age.unwrap_or(*seconds);
    (decision.may_be_stored && seconds > 0).then_some(seconds)
}

/// The items of `Cache-Control`.
fn cache_control(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn max_age(headers: &HeaderMap) -> Option<u64> {
    let mut ages = cache_control(headers).filter_map(|item| item.split_once('='));
    let (_, seconds) = ages.find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))?;
    // One that cannot be read stores nothing.
    Some(seconds.trim().parse().unwrap_or_default())
}

/// A response that has `Vary` is for some requests only, and one with `Expires` alone for an unknown time.
fn may_be_stored(headers: &HeaderMap) -> bool {
    let forbids = |item: &str| ["no-store", "no-cache", "private"].iter().any(|word| item.eq_ignore_ascii_case(word));
    let expires = headers.contains_key(EXPIRES) && max_age(headers).is_none();
    !headers.contains_key(SET_COOKIE) && !headers.contains_key(VARY) && !expires && !cache_control(headers).any(forbids)
}

/// The reply if the server has not decided.
pub(super) fn failed() -> Box<Reply> {
    let message = "The server that authorizes requests did not decide";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "no_decision")
}

/// About, of the name of a field and its place in a list.
const ENTRY_BYTES: usize = 64;
/// The longest values that are stored, in bytes. The cache has a fixed number of responses.
const MAX_STORED: usize = 4096;
