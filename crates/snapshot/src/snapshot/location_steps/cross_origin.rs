//! CORS of a location: which origins may read responses, and the fields that say so.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONTENT_TYPE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::plugin_api::{Reply, ReplyBody};

/// The rules of one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossOrigin {
    /// `None` allows all origins, and requests without one.
    pub origins: Option<Box<[AllowedOrigin]>>,
    pub allow_methods: HeaderValue,
    pub allow_headers: HeaderValue,
    pub expose_headers: Option<HeaderValue>,
    pub allows_credentials: bool,
    pub max_age: HeaderValue,
}

/// One allowed origin, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `https://a.example:8443`, or `null`.
    Exact(Box<str>),
    /// `https://*.example`: the start, and what follows the one label in place of the wildcard.
    OneLabel { start: Box<str>, end: Box<str> },
}

/// The fields that [`CrossOrigin::set_fields`] sets.
pub(super) static FIELDS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    VARY,
];

impl AllowedOrigin {
    /// Parses `scheme://host`, also with a port, or with `*.` in place of the first label; or `null`. `None` for other
    /// texts.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(AllowedOrigin::Exact(text.into()));
        }
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
        let (name, port) = authority.split_once(':').unwrap_or((authority, "1"));
        let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        let rest = name.strip_prefix("*.").unwrap_or(name);
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !is_scheme || !is_port || !rest.split('.').all(is_label) {
            return None;
        }
        Some(match authority.strip_prefix('*') {
            Some(end) => AllowedOrigin::OneLabel { start: format!("{scheme}://").into(), end: end.into() },
            None => AllowedOrigin::Exact(text.into()),
        })
    }

    fn allows(&self, origin: &str) -> bool {
        match self {
            AllowedOrigin::Exact(text) => origin.eq_ignore_ascii_case(text),
            AllowedOrigin::OneLabel { start, end } => {
                let label = origin.len().checked_sub(end.len()).and_then(|split| origin.get(start.len()..split));
                label.is_some_and(|label| {
                    !label.is_empty()
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                        && origin[..start.len()].eq_ignore_ascii_case(start)
                        && origin[start.len() + label.len()..].eq_ignore_ascii_case(end)
                })
            }
        }
    }
}

impl CrossOrigin {
    /// The value of `Access-Control-Allow-Origin` for a request; `None` if its origin is not allowed.
    pub(super) fn allow_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Some(origins) = &self.origins else { return Some(HeaderValue::from_static("*")) };
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        origins.iter().any(|allowed| allowed.allows(text)).then(|| origin.clone())
    }

    /// Sets the fields of a response to a request from an allowed origin.
    pub(super) fn set_fields(&self, allow_origin: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allow_origin);
        if self.allows_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        } else {
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone());
        if let Some(expose_headers) = &self.expose_headers {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose_headers.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        // Not in ingress-nginx, whose responses a cache may give to other origins.
        if self.origins.is_some() {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

pub(super) fn preflight_reply() -> Box<Reply> {
    let content_type = HeaderValue::from_static("text/plain charset=UTF-8");
    Reply::new(StatusCode::NO_CONTENT, ReplyBody::Empty, "preflight").with_header(CONTENT_TYPE, content_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_as_a_whole() {
        for (entry, allowed, denied) in [
            (
                "https://a.example",
                &["https://a.example", "HTTPS://A.example"][..],
                &["https://b.example", "https://a.example:8443", "http://a.example", "https://evilhttps://a.example"][..],
            ),
            (
                "https://*.example:8443",
                &["https://a.example:8443"],
                &[
                    "https://a.b.example:8443",
                    "https://example:8443",
                    "https://.example:8443",
                    "https://a@b.example:8443",
                ],
            ),
            ("null", &["null"], &["", "nul"]),
            ("app://localhost", &["app://localhost"], &["app://"]),
        ] {
            let entry = AllowedOrigin::parse(entry).unwrap();
            for (origins, is_allowed) in [(allowed, true), (denied, false)] {
                for origin in origins {
                    assert_eq!(entry.allows(origin), is_allowed, "{entry:?} {origin}");
                }
            }
        }
    }

    #[test]
    fn texts_that_are_no_origins_are_rejected() {
        for text in [
            "",
            "*",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a..b",
            "https://*",
            "https://a:b",
            "https://a.*.example",
            "https://a;b",
            "http2://a",
        ] {
            assert_eq!(AllowedOrigin::parse(text), None, "{text}");
        }
    }
}
