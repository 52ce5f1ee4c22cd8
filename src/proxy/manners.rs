//! The form of an answer of our own to what went wrong: as the client asks for it.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::fault::Account;
use super::headers::is_grpc;

/// What of a request decides the form of an error, kept aside because the headers go upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    accept: Option<HeaderValue>,
    grpc: bool,
    head: bool,
}

impl Manners {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Manners::new(Some(request.method()), request.headers())
    }

    pub(crate) fn new(method: Option<&Method>, headers: &HeaderMap) -> Self {
        Manners { accept: headers.get(ACCEPT).cloned(), grpc: is_grpc(headers), head: method == Some(&Method::HEAD) }
    }

    /// The answer to a fault. `id` is the request's, for whoever reports it.
    pub(crate) fn answer(&self, account: &Account, id: &HeaderValue) -> Response<Bytes> {
        self.say(account.status, account.message, id)
    }

    /// A message in the form that the client accepts.
    pub(crate) fn say(&self, status: StatusCode, message: &str, id: &HeaderValue) -> Response<Bytes> {
        if self.grpc {
            let mut response = Response::new(Bytes::new());
            let headers = response.headers_mut();
            // A gRPC client reads the outcome from these, and takes any other status for a broken proxy.
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
            let message = utf8_percent_encode(message, GRPC_ESCAPED).to_string();
            if let Ok(message) = HeaderValue::try_from(message) {
                headers.insert(GRPC_MESSAGE, message);
            }
            return response;
        }
        let format =
            self.accept.as_ref().and_then(|accept| accept.to_str().ok()).map_or(Format::Json, Format::negotiate);
        let text = format.write(status, message, &String::from_utf8_lossy(id.as_bytes()));
        let mut response = self.whole(status, text.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110, section 15.5.6: it must say which are.
            response.headers_mut().insert(ALLOW, METHODS);
        }
        response
    }

    /// A message in JSON, whatever the client accepts.
    pub(crate) fn state(&self, status: StatusCode, message: &str) -> Response<Bytes> {
        let mut response = self.whole(status, serde_json::json!({ "message": message }).to_string().into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Format::Json.content_type()));
        response
    }

    /// This body, unless it was only asked about.
    pub(crate) fn whole(&self, status: StatusCode, body: Bytes) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        if self.head {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        } else {
            *response.body_mut() = body;
        }
        response
    }
}

/// What we pass on, without regard to what backends do with it.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// `kong-compat.md` §3.9.
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
enum Format {
    Json,
    Html,
    Xml,
    Plain,
}

impl Format {
    /// The best of what the client accepts: highest quality, then what it names first. JSON if it accepts none of ours.
    fn negotiate(accept: &str) -> Self {
        let mut best = (0, Format::Json);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" => Format::Json,
                "text/html" | "text/*" => Format::Html,
                "application/xml" | "text/xml" => Format::Xml,
                "text/plain" => Format::Plain,
                _ => continue,
            };
            let quality = parts
                .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
                .map_or(1.0, |quality| quality.parse().unwrap_or(0.0_f32));
            // In thousandths, as finely as the header can say it; a number cast from nonsense is 0.
            let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json; charset=utf-8",
            Format::Html => "text/html; charset=utf-8",
            Format::Xml => "application/xml; charset=utf-8",
            Format::Plain => "text/plain; charset=utf-8",
        }
    }

    fn write(self, status: StatusCode, message: &str, id: &str) -> String {
        match self {
            Format::Json => serde_json::json!({ "message": message, "request_id": id }).to_string(),
            Format::Html => {
                let (message, id) = (escaped(message), escaped(id));
                format!(
                    "<!doctype html>\n<html>\n<head><meta charset=\"utf-8\"><title>{status}</title></head>\n\
                     <body>\n<h1>{status}</h1>\n<p>{message}</p>\n<p>request_id: {id}</p>\n</body>\n</html>\n"
                )
            }
            Format::Xml => {
                let (message, id) = (escaped(message), escaped(id));
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                     <error>\n<message>{message}</message>\n<requestid>{id}</requestid>\n</error>\n"
                )
            }
            Format::Plain => format!("{message}\nrequest_id: {id}\n"),
        }
    }
}

fn escaped(text: &str) -> String {
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

    use super::super::fault::Fault;
    use super::*;

    // kong-compat §3.9
    #[test]
    fn the_form_of_an_error_follows_accept() {
        let cases = [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("image/png", Format::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            ("application/json;q=0.5, text/plain", Format::Plain),
            ("text/plain;q=0.5, text/xml;q=0.7", Format::Xml),
            ("TEXT/HTML", Format::Html),
            ("text/html;q=0", Format::Json),
            ("text/html;q=nonsense, text/plain;q=0.001", Format::Plain),
        ];
        for (accept, expected) in cases {
            assert_eq!(Format::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_request_id_from_elsewhere_cannot_break_out_of_the_body() {
        let account = Fault::NoRoute.account();
        let (status, message) = (account.status, account.message);
        let id = "\"<&'>";
        assert_eq!(
            Format::Json.write(status, message, id),
            r#"{"message":"no Route matched with those values","request_id":"\"<&'>"}"#
        );
        assert!(Format::Html.write(status, message, id).contains("&quot;&lt;&amp;&#39;&gt;"));
        assert!(Format::Xml.write(status, message, id).contains("<requestid>&quot;&lt;&amp;&#39;&gt;</requestid>"));
    }

    // kong-compat §3.9
    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let request = Request::post("/").header(CONTENT_TYPE, "application/grpc+proto").body(()).unwrap();
        let manners = Manners::of(&request);
        for (fault, expected) in [(Fault::NoRoute, "5"), (Fault::NoEndpoints, "14"), (Fault::AnswerTimeout, "4")] {
            let answer = manners.answer(&fault.account(), &HeaderValue::from_static("id"));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["grpc-status"], expected);
            assert_eq!(answer.headers()["grpc-message"], fault.account().message);
        }
    }

    // kong-compat §3.9
    #[test]
    fn every_status_has_a_grpc_status() {
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

    // kong-compat §3.9
    #[test]
    fn what_it_looks_like_in_each_form() {
        for (accept, content_type, expected) in [
            ("*/*", "application/json; charset=utf-8", r#"{"message":"a <\"b\">","request_id":"id"}"#),
            (
                "text/xml",
                "application/xml; charset=utf-8",
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n<message>a &lt;&quot;b&quot;&gt;</message>\n\
                 <requestid>id</requestid>\n</error>\n",
            ),
            ("text/plain", "text/plain; charset=utf-8", "a <\"b\">\nrequest_id: id\n"),
        ] {
            let request = Request::get("/").header(ACCEPT, accept).body(()).unwrap();
            let answer = Manners::of(&request).say(StatusCode::NOT_FOUND, "a <\"b\">", &HeaderValue::from_static("id"));
            assert_eq!(answer.headers()[CONTENT_TYPE], content_type);
            assert_eq!(answer.body(), expected, "{accept}");
            let request = Request::head("/").header(ACCEPT, accept).body(()).unwrap();
            let head = Manners::of(&request).say(StatusCode::NOT_FOUND, "a <\"b\">", &HeaderValue::from_static("id"));
            assert_eq!(head.headers()[CONTENT_LENGTH], expected.len().to_string());
            assert!(head.body().is_empty(), "{accept}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_accept_makes_it_panic_and_what_we_cannot_write_changes_nothing(
            ranges in proptest::collection::vec("[a-z*]{0,4}(text/html|text/plain|text/xml|application/json|\\*/\\*)?(;q=[0-9.]{0,4}|;[a-z=]{0,3})?", 0..6),
            at in 0..6_usize,
        ) {
            let accept = ranges.join(",");
            let format = Format::negotiate(&accept);
            let mut more = ranges.clone();
            more.insert(at.min(ranges.len()), "image/png".to_owned());
            proptest::prop_assert_eq!(Format::negotiate(&more.join(", ")), format);
            // Whatever is asked for with more weight than anything else is what comes.
            let others: Vec<_> = ranges.iter().map(|range| format!("{};q=0.5", range.split(';').next().unwrap_or(""))).collect();
            let wanted = [others.join(","), "text/xml".to_owned()].join(",");
            proptest::prop_assert_eq!(Format::negotiate(&wanted), Format::Xml);
        }

        #[test]
        fn any_accept_may_come(accept in ".{0,80}") {
            Format::negotiate(&accept);
        }
    }
}
