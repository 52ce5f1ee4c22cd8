//! The headers that identify the proxy, `Via`, `Server` and the id of the request, and those that report its latencies.

use http::header::SERVER;
use http::{HeaderValue, Request, Response, Version};
use tokio::time::Instant;

use super::request_context::RequestContext;
use crate::plugin_api::{ResponseSource, decimal};
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::fields::via::append_via;
use crate::snapshot::rule_options::ProductHeaderNames;

/// When the product headers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProductHeaderMode {
    /// For requests whose rule has the option, and for requests without a rule if the listener has it.
    #[default]
    ByRule,
    /// For all requests, with these names.
    Always(&'static ProductHeaderNames),
    Never,
}

/// The product token in `Via` and `Server`, for example `portico/0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductToken(HeaderValue);

impl ProductToken {
    /// None if the text is not a single printable word without commas, semicolons, parentheses, quotes and backslashes.
    pub fn new(text: &str) -> Option<Self> {
        let is_token_byte = |byte: u8| byte.is_ascii_graphic() && !b",;()\"\\".contains(&byte);
        let is_valid = !text.is_empty() && text.bytes().all(is_token_byte);
        is_valid.then(|| HeaderValue::from_str(text).ok()).flatten().map(ProductToken)
    }
}

impl Default for ProductToken {
    fn default() -> Self {
        ProductToken(HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION"))))
    }
}

/// The mode and the product token, with all header values built in advance.
#[derive(Debug)]
pub(in crate::proxy) struct ProductHeaders {
    mode: ProductHeaderMode,
    server: HeaderValue,
    /// `Via` of messages received over HTTP/1.1, the most common case.
    via_http11: HeaderValue,
    via_http10: HeaderValue,
    via_http2: HeaderValue,
}

impl ProductHeaders {
    pub(in crate::proxy) fn new(mode: ProductHeaderMode, ProductToken(server): ProductToken) -> Self {
        let via = |version: &str| {
            let text = [version.as_bytes(), b" ", server.as_bytes()].concat();
            HeaderValue::from_bytes(&text).expect("a version and a product token form a valid header value")
        };
        ProductHeaders { mode, via_http11: via("1.1"), via_http10: via("1.0"), via_http2: via("2"), server }
    }

    /// The names of the headers to write; `None` to write none. `option` is that of the rule or listener.
    pub(in crate::proxy) fn names(
        &self,
        option: Option<&'static ProductHeaderNames>,
    ) -> Option<&'static ProductHeaderNames> {
        match self.mode {
            ProductHeaderMode::ByRule => option,
            ProductHeaderMode::Always(names) => Some(names),
            ProductHeaderMode::Never => None,
        }
    }

    /// The value of `Via` for a message received in this version.
    fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.via_http2,
            Version::HTTP_10 => &self.via_http10,
            _ => &self.via_http11,
        }
    }
}

/// Adds `Via` to a request, which RFC 9110, section 7.6.3 requires of all proxies. If the product headers are written,
/// it has the product token, and the id of the request is added, too.
pub(in crate::proxy) fn set_request_headers<B>(cx: &RequestContext<'_>, request: &mut Request<B>) {
    let version = request.version();
    let headers = request.headers_mut();
    let Some(names) = cx.product_header_names() else { return append_via(headers, plain_via(version)) };
    append_via(headers, cx.peer().http.product_headers.via(version));
    headers.insert(&names.request_id, cx.record.request_id.clone());
}

/// `Via` without the product token, for a message received in this version.
fn plain_via(version: Version) -> &'static HeaderValue {
    static HTTP11: HeaderValue = HeaderValue::from_static("1.1 portico");
    static HTTP10: HeaderValue = HeaderValue::from_static("1.0 portico");
    static HTTP2: HeaderValue = HeaderValue::from_static("2.0 portico");
    match version {
        Version::HTTP_2 => &HTTP2,
        Version::HTTP_10 => &HTTP10,
        _ => &HTTP11,
    }
}

/// Adds the product headers to a response, after plugins have run.
pub(in crate::proxy) fn set_response_headers(
    cx: &RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: ResponseSource,
    now: Instant,
) {
    let Some(names) = cx.product_header_names() else { return };
    let is_local = source != ResponseSource::Service;
    // An error after an endpoint was selected, such as its timeout, also has the latency of the endpoint.
    let was_forwarded = !is_local || source == ResponseSource::Proxy && cx.record.endpoint.is_some();
    let headers = response.headers_mut();
    let peer = cx.peer();
    let started_at = peer.activity.started_at.get();
    headers.insert(&names.request_id, cx.record.request_id.clone());
    if is_local {
        headers.insert(SERVER, peer.http.product_headers.server.clone());
    } else {
        append_via(headers, peer.http.product_headers.via(Version::HTTP_11));
    }
    if was_forwarded {
        let sent = peer.activity.sent_at.get().unwrap_or(now);
        headers.insert(&names.upstream_latency, milliseconds_header(sent, now));
        headers.insert(&names.proxy_latency, milliseconds_header(started_at, sent));
    } else {
        headers.insert(&names.response_latency, milliseconds_header(started_at, now));
    }
}

fn milliseconds_header(from: Instant, to: Instant) -> HeaderValue {
    decimal::header_value(u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_tokens_are_validated_and_formatted() {
        for (text, is_valid) in
            [("portico/0.1.0", true), ("kong/3.9.1", true), ("kong", true), ("", false), ("a b", false), ("a,b", false)]
        {
            assert_eq!(ProductToken::new(text).is_some(), is_valid, "{text}");
        }
        let headers = ProductHeaders::new(ProductHeaderMode::ByRule, ProductToken::new("kong/3.9.1").unwrap());
        assert_eq!(headers.via(Version::HTTP_2), "2 kong/3.9.1");
        assert_eq!(headers.via(Version::HTTP_10), "1.0 kong/3.9.1");
        assert_eq!(headers.via(Version::HTTP_11), "1.1 kong/3.9.1");
    }
}
