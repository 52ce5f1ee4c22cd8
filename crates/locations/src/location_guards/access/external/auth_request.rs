//! The request that describes a request of a client to the server.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::location_guards::server_url::path_and_query;
use crate::plugin_api::changed_fields::{CONDITIONAL_FIELDS, MESSAGE_FIELDS};
use crate::plugin_api::header_spoofing::remove_spoofed;
use crate::plugin_api::{RemoteRequest, RequestCx, ResponseBodyUse};
use crate::snapshot::location_snippet::SnippetText;
use crate::snapshot::location_steps::RequestValues;

/// What the request has, in addition to what its URL says.
pub(super) struct AuthRequest {
    method: Method,
    target: Option<PathAndQuery>,
    headers: HeaderMap,
}

const AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const SENT_FROM: HeaderName = HeaderName::from_static("x-sent-from");

/// The headers that describe the request of the client. Clients cannot set them, and the server gets only those of
/// ingress-nginx.
static DESCRIPTION: [HeaderName; 14] = [
    AUTH_REQUEST_REDIRECT,
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-scheme"),
    ORIGINAL_METHOD,
    ORIGINAL_URI,
    ORIGINAL_URL,
    REAL_IP,
    REQUEST_ID,
    SCHEME,
    SENT_FROM,
    HeaderName::from_static("proxy"),
];

/// What requests to the server have in addition to what the client has sent.
pub(super) struct AuthRequestSettings {
    /// `None` for the target of the URL.
    pub target: Option<SnippetText>,
    pub host: HeaderValue,
    /// `None` for GET; a method that is set also lets the server get the target of the request.
    pub method: Option<Method>,
    /// Whether the server gets no headers of the client.
    pub hides_client_headers: bool,
    /// The value of `X-Auth-Request-Redirect`, if it is not the target of the request.
    pub request_redirect: Option<HeaderValue>,
    pub headers: Box<[(HeaderName, SnippetText)]>,
}

impl AuthRequestSettings {
    /// The request to the server. `None` if a part of the client's request is not valid in it.
    pub(super) fn request(&self, cx: &RequestCx<'_>) -> Option<AuthRequest> {
        let of_client = &cx.head.headers;
        let values = RequestValues::new(cx);
        let mut headers = HeaderMap::with_capacity(of_client.len() + DESCRIPTION.len());
        let is_copied = |name: &HeaderName| {
            !self.hides_client_headers && !MESSAGE_FIELDS.contains(name) && !CONDITIONAL_FIELDS.contains(name)
        };
        for (name, value) in of_client.iter().filter(|(name, _)| is_copied(name)) {
            headers.append(name.clone(), value.clone());
        }
        for name in &DESCRIPTION {
            headers.remove(name);
        }
        // Servers may take other spellings of a name for it.
        remove_spoofed(&mut headers, &DESCRIPTION);
        let address = HeaderValue::from_str(&cx.client.address.to_string()).ok()?;
        let target = HeaderValue::from_str(cx.raw_target).ok()?;
        headers.insert(HOST, self.host.clone());
        headers.insert(FORWARDED_FOR, of_client.get(FORWARDED_FOR).unwrap_or(&address).clone());
        headers.insert(REAL_IP, address);
        headers.insert(REQUEST_ID, cx.id.clone());
        headers.insert(SENT_FROM, HeaderValue::from_static("nginx-ingress-controller"));
        headers.insert(ORIGINAL_METHOD, HeaderValue::from_str(cx.head.method.as_str()).ok()?);
        headers.insert(ORIGINAL_URL, HeaderValue::from_str(&format!("{}{}", cx.client.origin(), cx.raw_target)).ok()?);
        headers.insert(AUTH_REQUEST_REDIRECT, self.request_redirect.as_ref().unwrap_or(&target).clone());
        if self.method.is_some() {
            headers.insert(ORIGINAL_URI, target);
            headers.insert(SCHEME, HeaderValue::from_static(cx.client.scheme.as_str()));
        }
        for (name, text) in &self.headers {
            // As in nginx, an empty value removes a header.
            match text.expand(&values)? {
                value if value.is_empty() => drop(headers.remove(name)),
                value => drop(headers.insert(name.clone(), HeaderValue::from_str(&value).ok()?)),
            }
        }
        let target = match &self.target {
            Some(text) => Some(path_and_query(&text.expand(&values)?)?),
            None => None,
        };
        Some(AuthRequest { method: self.method.clone().unwrap_or(Method::GET), target, headers })
    }
}

impl AuthRequest {
    pub(super) fn write_to(self, request: &mut RemoteRequest) {
        request.method = self.method;
        request.headers.extend(self.headers);
        // The server decides, and changes nothing.
        request.is_repeatable = true;
        request.response_body = ResponseBodyUse::Discard;
        if let Some(target) = self.target {
            request.target = target;
        }
    }
}
