//! The request that describes a request of a client to the server that decides about it.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::ForwardAuth;
use crate::plugin_api::changed_fields::{CONDITIONAL_FIELDS, MESSAGE_FIELDS};
use crate::plugin_api::header_spoofing::remove_spoofed;
use crate::plugin_api::{RemoteRequest, RequestCx};

/// What the request to the server has, in addition to what its URL says.
pub(super) struct CheckMessage {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// The headers about the request, which the plugin sets.
static DESCRIPTION: [HeaderName; 9] = [
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_METHOD,
    FORWARDED_PORT,
    FORWARDED_PROTO,
    FORWARDED_URI,
    ORIGINAL_METHOD,
    ORIGINAL_URI,
    ORIGINAL_URL,
];

/// Headers about the body of the client's request.
static ABOUT_BODY: [HeaderName; 3] = [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE];

impl ForwardAuth {
    /// The request to the server. `None` if a part of the client's request is not a valid header value.
    pub(super) fn check_request(&self, cx: &RequestCx<'_>) -> Option<CheckMessage> {
        let of_client = &cx.head.headers;
        let mut headers = HeaderMap::with_capacity(of_client.len() + DESCRIPTION.len());
        match &self.request_headers {
            Some(names) => names.iter().for_each(|name| copy(name, of_client, &mut headers)),
            None => {
                let sends_body = self.max_body > 0;
                let is_copied = |name: &&HeaderName| {
                    !MESSAGE_FIELDS.contains(name)
                        && !CONDITIONAL_FIELDS.contains(name)
                        && (sends_body || !ABOUT_BODY.contains(name))
                };
                of_client.keys().filter(is_copied).for_each(|name| copy(name, of_client, &mut headers));
            }
        }
        remove_spoofed(&mut headers, &DESCRIPTION);
        let method = HeaderValue::from_str(cx.head.method.as_str()).ok()?;
        let target = target(cx);
        let url = HeaderValue::from_str(&format!("{}{target}", cx.client.origin())).ok()?;
        let target = HeaderValue::from_str(&target).ok()?;
        // The proxy has already removed what untrusted peers report, and added the address of the peer.
        let address = match of_client.get(FORWARDED_FOR) {
            Some(forwarded) => forwarded.clone(),
            None => HeaderValue::from_str(&cx.client.address.to_string()).ok()?,
        };
        headers.insert(FORWARDED_FOR, address);
        headers.insert(FORWARDED_HOST, HeaderValue::from_str(cx.client.host).ok()?);
        headers.insert(FORWARDED_METHOD, method.clone());
        headers.insert(FORWARDED_PORT, HeaderValue::from(cx.client.port));
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(cx.client.scheme.as_str()));
        headers.insert(FORWARDED_URI, target.clone());
        headers.insert(ORIGINAL_METHOD, method);
        headers.insert(ORIGINAL_URI, target);
        headers.insert(ORIGINAL_URL, url);
        let method = if self.preserves_method { cx.head.method.clone() } else { Method::GET };
        let body = cx.current_body().filter(|_| self.max_body > 0).cloned().unwrap_or_default();
        Some(CheckMessage { method, headers, body })
    }
}

impl CheckMessage {
    pub(super) fn write_to(self, request: &mut RemoteRequest) {
        request.method = self.method;
        request.headers.extend(self.headers);
        request.body = self.body;
    }
}

/// The path that the router matched, and the query as the endpoint gets it: without keys that a plugin has hidden.
pub(super) fn target(cx: &RequestCx<'_>) -> String {
    match cx.head.uri.query() {
        Some(query) => format!("{}?{query}", cx.path),
        None => cx.path.to_owned(),
    }
}

/// Copies all values of a header.
fn copy(name: &HeaderName, from: &HeaderMap, to: &mut HeaderMap) {
    for value in from.get_all(name) {
        to.append(name, value.clone());
    }
}
