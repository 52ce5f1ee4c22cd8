//! Cookies of the server that permits requests, which go to the client.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Cookies of the server, for the client.
#[derive(Debug, Default)]
pub(super) struct PassedCookies {
    pub cookies: Vec<HeaderValue>,
    pub with_any_status: bool,
}

impl PassedCookies {
    pub(super) fn extend(&mut self, other: PassedCookies) {
        self.cookies.extend(other.cookies);
        self.with_any_status |= other.with_any_status;
    }

    pub(super) fn add_to(self, status: StatusCode, headers: &mut HeaderMap) {
        let usual = matches!(status.as_u16(), 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
        if usual || self.with_any_status {
            for cookie in self.cookies {
                headers.append(SET_COOKIE, cookie);
            }
        }
    }
}
