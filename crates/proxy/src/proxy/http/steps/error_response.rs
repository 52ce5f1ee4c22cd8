//! Renders error responses in the format the client accepts: JSON, HTML, XML, plain text, or a gRPC status.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::proxy::http::exchange::client_protocol::ClientProtocol;
use crate::proxy::http::record::request_error::{ErrorDetails, RequestError};
use crate::snapshot::router::is_call;
use crate::upstream::GRPC_STATUS;

/// The properties of a request that decide the format of an error response; copied because the headers are sent
/// to the endpoint.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct ErrorFormat {
    accept: Option<HeaderValue>,
    is_call: bool,
    is_head: bool,
}

impl ErrorFormat {
    pub(in crate::proxy) fn from_request<B>(request: &Request<B>, protocol: ClientProtocol) -> Self {
        ErrorFormat {
            // gRPC needs HTTP/2. A client that sends its content type over HTTP/1 would not read `grpc-status`. Clients
            // of gRPC-Web read the status of HTTP, or that of gRPC in the body.
            is_call: protocol.is_multiplexed() && is_call(request.headers()),
            ..ErrorFormat::for_http1(Some(request.method()), request.headers())
        }
    }

    /// For a request over HTTP/1.
    pub(in crate::proxy) fn for_http1(method: Option<&Method>, headers: &HeaderMap) -> Self {
        let is_head = method == Some(&Method::HEAD);
        ErrorFormat { accept: accept_of(headers), is_call: false, is_head }
    }

    /// The value of `Accept`.
    pub(in crate::proxy) fn accept(&self) -> Option<&HeaderValue> {
        self.accept.as_ref()
    }

    /// Whether the request is a gRPC call.
    pub(in crate::proxy) fn is_call(&self) -> bool {
        self.is_call
    }

    /// Whether the request is HEAD, so its response has no body.
    pub(in crate::proxy) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Renders a request error. `id` is the request ID, which users can quote in reports.
    pub(in crate::proxy) fn render_error(&self, details: &ErrorDetails, id: &HeaderValue) -> Response<Bytes> {
        if self.is_call {
            return render_call_error(call_status(details), details.message);
        }
        self.render_message(details.status, details.message, id)
    }

    /// Renders a message in the format the client accepts.
    pub(in crate::proxy) fn render_message(
        &self,
        status: StatusCode,
        message: &str,
        id: &HeaderValue,
    ) -> Response<Bytes> {
        if self.is_call {
            return render_call_error(grpc_status(status), message);
        }
        let media_type = self
            .accept
            .as_ref()
            .and_then(|accept| accept.to_str().ok())
            .map_or(ErrorMediaType::Json, ErrorMediaType::negotiate);
        let text = media_type.render(message, &String::from_utf8_lossy(id.as_bytes()));
        let mut response = self.render_body(status, text.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110, section 15.5.6: a 405 must list the allowed methods.
            response.headers_mut().insert(ALLOW, FORWARDED_METHODS);
        }
        response
    }

    /// Renders a message as JSON, whatever the client accepts.
    pub(in crate::proxy) fn render_json(&self, status: StatusCode, message: &str) -> Response<Bytes> {
        let mut response = self.render_body(status, serde_json::json!({ "message": message }).to_string().into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ErrorMediaType::Json.content_type()));
        response
    }

    /// A response with this body; for HEAD only its length.
    pub(in crate::proxy) fn render_body(&self, status: StatusCode, body: Bytes) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        if self.is_head {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        } else {
            *response.body_mut() = body;
        }
        response
    }
}

/// The value of `Accept`, all of whose fields are one list.
fn accept_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut fields = headers.get_all(ACCEPT).iter();
    let first = fields.next()?;
    if fields.next().is_none() {
        return Some(first.clone());
    }
    let fields: Vec<&[u8]> = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&fields.join(&b", "[..])).ok()
}

/// The methods that the proxy forwards under every rule; backends may support fewer.
pub(in crate::proxy) const FORWARDED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A response without a body and trailers. gRPC clients read the result from its head, and treat any HTTP status but
/// 200 as an error of a proxy.
fn render_call_error(status: u16, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    insert_call_status(headers, status, message);
    response
}

/// The trailers of a call that fails after its response has begun.
pub(in crate::proxy) fn call_error_trailers(details: &ErrorDetails) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    insert_call_status(&mut trailers, call_status(details), details.message);
    trailers
}

/// The gRPC status of an error.
fn call_status(details: &ErrorDetails) -> u16 {
    details.grpc_status.unwrap_or(grpc_status(details.status))
}

fn insert_call_status(fields: &mut HeaderMap, status: u16, message: &str) {
    fields.insert(GRPC_STATUS, HeaderValue::from(status));
    let message = utf8_percent_encode(message, GRPC_ESCAPED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        fields.insert(GRPC_MESSAGE, message);
    }
}

/// Maps an HTTP status to the gRPC status that Kong sends (§3.9 of `docs/kong-compatibility.md`).
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        200..=299 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        501 => 12,
        503 => 14,
        504 => 4,
        400 | 402 | 405..=408 | 410..=428 | 430..=498 => 3,
        500 | 502 | 505..=599 => 13,
        _ => 2,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorMediaType {
    Json,
    Html,
    Xml,
    Plain,
}

impl ErrorMediaType {
    /// Picks the format of the media range with the highest quality, and of the first one among equals, as Kong does:
    /// that of a range without a format is JSON, also if another one has a format and a lower quality.
    fn negotiate(accept: &str) -> Self {
        let mut best = (0, ErrorMediaType::Json);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_range = parts.next().unwrap_or_default();
            if !media_range.contains('/') {
                continue;
            }
            let quality = parts
                .find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")))
                .map_or(FULL_QUALITY, quality);
            if quality > best.0 {
                best = (quality, ErrorMediaType::of_range(media_range));
            }
        }
        best.1
    }

    fn of_range(media_range: &str) -> Self {
        match &*media_range.to_ascii_lowercase() {
            "text/html" => ErrorMediaType::Html,
            "application/xml" | "text/xml" => ErrorMediaType::Xml,
            "text/plain" | "text/*" => ErrorMediaType::Plain,
            _ => ErrorMediaType::Json,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            ErrorMediaType::Json => "application/json; charset=utf-8",
            ErrorMediaType::Html => "text/html; charset=utf-8",
            ErrorMediaType::Xml => "application/xml; charset=utf-8",
            ErrorMediaType::Plain => "text/plain; charset=utf-8",
        }
    }

    /// Renders a message in Kong's layout.
    fn render(self, message: &str, id: &str) -> String {
        match self {
            ErrorMediaType::Json => serde_json::json!({ "message": message, "request_id": id }).to_string(),
            ErrorMediaType::Html => {
                let (message, id) = (escape_markup(message), escape_markup(id));
                format!(
                    "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  \
                     </head>\n  <body>\n    <h1>Error</h1>\n    <p>{message}.</p>\n    <p>request_id: {id}</p>\n  \
                     </body>\n</html>\n"
                )
            }
            ErrorMediaType::Xml => {
                let (message, id) = (escape_markup(message), escape_markup(id));
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                     <error>\n  <message>{message}</message>\n  <requestid>{id}</requestid>\n</error>\n"
                )
            }
            ErrorMediaType::Plain => format!("{message}\nrequest_id: {id}\n"),
        }
    }
}

/// In thousandths, the precision of the header.
const FULL_QUALITY: u16 = 1000;

/// The value of a parameter `q`. Text that is no quality has no effect.
fn quality(text: &str) -> u16 {
    let Some(decimals) = text.strip_prefix('0') else { return FULL_QUALITY };
    let decimals = decimals.strip_prefix('.').unwrap_or_default().bytes().take_while(u8::is_ascii_digit);
    decimals.zip([100, 10, 1]).map(|(digit, unit)| u16::from(digit - b'0') * unit).sum()
}

/// Sets `Upgrade` on a 426, naming the protocol to use instead. HTTP/2 has no such header fields.
pub(in crate::proxy) fn set_upgrade_headers(error: RequestError, protocol: ClientProtocol, headers: &mut HeaderMap) {
    let protocols = match error {
        RequestError::HttpsOnly => "TLS/1.2, HTTP/1.1",
        RequestError::Http2Only => "HTTP/2",
        _ => return,
    };
    if !protocol.is_multiplexed() {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocols));
    }
}

fn escape_markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;

    use super::*;

    // docs/kong-compatibility.md, 3.9
    #[test]
    fn error_format_follows_accept() {
        let cases = [
            ("", ErrorMediaType::Json),
            ("*/*", ErrorMediaType::Json),
            ("image/png", ErrorMediaType::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", ErrorMediaType::Html),
            ("application/json;q=0.5, text/plain", ErrorMediaType::Plain),
            ("application/json;q=0.9,text/html,text/plain;q=0.9", ErrorMediaType::Html),
            ("text/plain;q=0.7,application/json;q=0.8,text/html;q=0.5", ErrorMediaType::Json),
            ("text/plain;q=0.5, text/xml;q=0.7", ErrorMediaType::Xml),
            ("text/*", ErrorMediaType::Plain),
            ("text/*;q=0.4, application/*;q=0.41", ErrorMediaType::Json),
            ("TEXT/HTML", ErrorMediaType::Html),
            ("text/html;q=0", ErrorMediaType::Json),
            ("text/html;level=1;q=0.2, application/xml; q=0.25", ErrorMediaType::Xml),
            // A type without a format has that of the default.
            ("image/png, text/html;q=0.9", ErrorMediaType::Json),
            ("image/png;q=0.8, text/html;q=0.9", ErrorMediaType::Html),
            ("text, text/html;q=0.1", ErrorMediaType::Html),
            // A quality that is none counts as absent.
            ("text/plain;q=0.9, text/html;q=nonsense", ErrorMediaType::Html),
            ("text/plain;q=0., text/html;q=0.0019", ErrorMediaType::Html),
        ];
        for (accept, expected) in cases {
            assert_eq!(ErrorMediaType::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn client_request_id_is_escaped_in_error_bodies() {
        let message = RequestError::NoRoute.details().message;
        let id = "\"<&'>";
        assert_eq!(
            ErrorMediaType::Json.render(message, id),
            r#"{"message":"no Route matched with those values","request_id":"\"<&'>"}"#
        );
        assert!(ErrorMediaType::Html.render(message, id).contains("&quot;&lt;&amp;&#39;&gt;"));
        assert!(ErrorMediaType::Xml.render(message, id).contains("<requestid>&quot;&lt;&amp;&#39;&gt;</requestid>"));
    }

    // docs/kong-compatibility.md, 3.9
    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let request = Request::post("/").header(CONTENT_TYPE, "application/grpc+proto");
        let error_format = ErrorFormat::from_request(&request.body(()).unwrap(), ClientProtocol::Http2);
        for (error, expected) in
            [(RequestError::NoRoute, "12"), (RequestError::NoEndpoints, "14"), (RequestError::ResponseTimeout, "4")]
        {
            let response = error_format.render_error(&error.details(), &HeaderValue::from_static("id"));
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["grpc-status"], expected);
            assert_eq!(response.headers()["grpc-message"], error.details().message);
        }
    }

    #[test]
    fn clients_of_grpc_web_get_an_http_status() {
        let id = HeaderValue::from_static("id");
        for content_type in ["application/grpc-web", "application/grpc-web+proto", "Application/GRPC-Web-text"] {
            for protocol in [ClientProtocol::Http1, ClientProtocol::Http2] {
                let request = Request::post("/").header(CONTENT_TYPE, content_type);
                let error_format = ErrorFormat::from_request(&request.body(()).unwrap(), protocol);
                for error in [RequestError::NoRoute, RequestError::NoEndpoints, RequestError::ResponseTimeout] {
                    let details = error.details();
                    let rendered = error_format.render_error(&details, &id);
                    let message = error_format.render_message(details.status, details.message, &id);
                    for response in [rendered, message] {
                        assert_eq!(response.status(), details.status, "{content_type} over {protocol:?}");
                        assert!(!response.headers().contains_key("grpc-status"), "{content_type} over {protocol:?}");
                    }
                }
            }
        }
    }

    // docs/kong-compatibility.md, 3.9
    #[test]
    fn statuses_map_to_grpc_statuses() {
        for (status, expected) in [
            (200, 0),
            (204, 0),
            (301, 2),
            (400, 3),
            (401, 16),
            (403, 7),
            (404, 5),
            (405, 3),
            (409, 6),
            (413, 3),
            (426, 3),
            (429, 8),
            (431, 3),
            (499, 1),
            (500, 13),
            (501, 12),
            (502, 13),
            (503, 14),
            (504, 4),
            (599, 13),
            (600, 2),
        ] {
            assert_eq!(grpc_status(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    // docs/kong-compatibility.md, 3.9
    #[test]
    fn error_bodies_in_each_format() {
        for (accept, content_type, expected) in [
            ("*/*", "application/json; charset=utf-8", r#"{"message":"a <\"b\">","request_id":"id"}"#),
            (
                "text/xml",
                "application/xml; charset=utf-8",
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>a &lt;&quot;b&quot;&gt;</message>\n  \
                 <requestid>id</requestid>\n</error>\n",
            ),
            (
                "text/html",
                "text/html; charset=utf-8",
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  \
                 </head>\n  <body>\n    <h1>Error</h1>\n    <p>a &lt;&quot;b&quot;&gt;.</p>\n    \
                 <p>request_id: id</p>\n  </body>\n</html>\n",
            ),
            ("text/plain", "text/plain; charset=utf-8", "a <\"b\">\nrequest_id: id\n"),
        ] {
            let request = Request::get("/").header(ACCEPT, accept).body(()).unwrap();
            let response = ErrorFormat::from_request(&request, ClientProtocol::Http1).render_message(
                StatusCode::NOT_FOUND,
                "a <\"b\">",
                &HeaderValue::from_static("id"),
            );
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            assert_eq!(response.body(), expected, "{accept}");
            let request = Request::head("/").header(ACCEPT, accept).body(()).unwrap();
            let head = ErrorFormat::from_request(&request, ClientProtocol::Http1).render_message(
                StatusCode::NOT_FOUND,
                "a <\"b\">",
                &HeaderValue::from_static("id"),
            );
            assert_eq!(head.headers()[CONTENT_LENGTH], expected.len().to_string());
            assert!(head.body().is_empty(), "{accept}");
        }
    }

    #[test]
    fn all_fields_of_accept_are_one_list() {
        let request = Request::get("/").header(ACCEPT, "text/plain;q=0.5").header(ACCEPT, "text/html");
        let error_format = ErrorFormat::from_request(&request.body(()).unwrap(), ClientProtocol::Http1);
        let id = HeaderValue::from_static("id");
        let response = error_format.render_message(StatusCode::NOT_FOUND, "none", &id);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    }

    proptest::proptest! {
        #[test]
        fn less_preferred_media_types_are_ignored(
            ranges in proptest::collection::vec(
                "[a-z*]{0,4}(text/html|text/plain|text/xml|application/json|\\*/\\*)?(;q=[0-9.]{0,4}|;[a-z=]{0,3})?",
                0..6,
            ),
        ) {
            // The media type with the highest quality wins.
            let with_lower_quality = |range: &String| format!("{};q=0.5", range.split(';').next().unwrap_or(""));
            let others: Vec<_> = ranges.iter().map(with_lower_quality).collect();
            let accept = [others.join(","), "text/xml".to_owned()].join(",");
            proptest::prop_assert_eq!(ErrorMediaType::negotiate(&accept), ErrorMediaType::Xml);
        }

        #[test]
        fn any_accept_is_parsed_without_panic(accept in ".{0,80}") {
            ErrorMediaType::negotiate(&accept);
        }
    }
}
