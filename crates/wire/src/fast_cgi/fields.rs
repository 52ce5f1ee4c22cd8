//! Writes the beginning of a request: its parameters, with those that follow from the fields of its head.

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Request};

use super::params::{FastCgiParams, push_param};
use super::record::push_begin;
use crate::hop_count::HopCount;

/// Appends the records before the body. `body_bytes`: the length of the body, if it has one that is known.
pub fn write_request<B>(request: &Request<B>, body_bytes: Option<u64>, out: &mut BytesMut) {
    let fields = request.headers();
    let params = request.extensions().get::<Arc<FastCgiParams>>().map(|params| &**params);
    let encoded = params.map_or(&[][..], FastCgiParams::encoded);
    let mut content = BytesMut::with_capacity(encoded.len() + (fields.len() + 1) * AVERAGE_FIELD);
    content.extend_from_slice(encoded);
    let replaces = |name: &[u8]| params.is_some_and(|params| params.replaces(name));
    let mut push = |name: &[u8], value: &[u8]| {
        if !replaces(name) {
            push_param(name, value, &mut content);
        }
    };
    push(b"CONTENT_TYPE", fields.get(CONTENT_TYPE).map_or(&[], |value| value.as_bytes()));
    // A length that the client names is written also for an empty body.
    match body_bytes.or_else(|| fields.contains_key(CONTENT_LENGTH).then_some(0)) {
        Some(length) => push(b"CONTENT_LENGTH", itoa::Buffer::new().format(length).as_bytes()),
        None => push(b"CONTENT_LENGTH", b""),
    }
    push_fields(fields, push);
    push_begin(&content, out);
}

/// Calls `push` with a parameter for each field. Fields are left out that could stand for another one, or for the
/// settings of the script: a server does not distinguish `X_A` from `X-A`, and many programs take `HTTP_PROXY` for the
/// proxy of their own requests.
fn push_fields(fields: &HeaderMap, mut push: impl FnMut(&[u8], &[u8])) {
    let (mut name, mut joined) = (Vec::new(), Vec::new());
    for field in fields.keys() {
        let written = field.as_str().as_bytes();
        let is_plain = written.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        if !is_plain || written == PROXY || is_of_body(field) || HopCount::is_field(field) {
            continue;
        }
        name.clear();
        name.extend_from_slice(b"HTTP_");
        name.extend(written.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        let mut values = fields.get_all(field).iter().map(|value| value.as_bytes());
        let first = values.next().unwrap_or_default();
        match values.next() {
            None => push(&name, first),
            Some(second) => {
                let separator: &[u8] = if *field == COOKIE { b"; " } else { b", " };
                joined.clear();
                joined.extend_from_slice(first);
                for value in [second].into_iter().chain(values) {
                    joined.extend_from_slice(separator);
                    joined.extend_from_slice(value);
                }
                push(&name, &joined);
            }
        }
    }
}

/// Whether a field is about the body as it has arrived, which may be sent in another form.
fn is_of_body(field: &HeaderName) -> bool {
    *field == CONTENT_LENGTH || *field == TRANSFER_ENCODING
}

const PROXY: &[u8] = b"proxy";
/// Memory reserved for a field, in bytes.
const AVERAGE_FIELD: usize = 48;

#[cfg(test)]
mod tests {
    use super::super::params::decode;
    use super::*;

    /// The parameters of a request with these fields and parameters.
    fn sent(fields: &[(&str, &str)], body_bytes: Option<u64>, params: Option<FastCgiParams>) -> Vec<(String, String)> {
        let mut request = Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        request.extensions_mut().insert(Arc::new(params.unwrap_or_default()));
        let mut out = BytesMut::new();
        write_request(&request, body_bytes, &mut out);
        let content = usize::from(u16::from_be_bytes([out[20], out[21]]));
        assert_eq!(out[24 + content..], [1, 4, 0, 1, 0, 0, 0, 0], "the end of the parameters");
        decode(&out[24..24 + content])
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn fields_become_parameters() {
        let fields = [
            ("host", "a.example"),
            ("content-type", "text/plain"),
            ("x-list", "1"),
            ("x-list", "2"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("authorization", "Basic eDp5"),
        ];
        let mut found = sent(&fields, Some(5), None);
        found.sort();
        let expected = [
            ("CONTENT_LENGTH", "5"),
            ("CONTENT_TYPE", "text/plain"),
            ("HTTP_AUTHORIZATION", "Basic eDp5"),
            ("HTTP_CONTENT_TYPE", "text/plain"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_HOST", "a.example"),
            ("HTTP_X_LIST", "1, 2"),
        ];
        assert_eq!(found, pairs(&expected));
    }

    #[test]
    fn fields_that_could_stand_for_others_are_left_out() {
        let fields = [
            ("proxy", "http://evil.example"),
            ("x_forwarded_for", "192.0.2.1"),
            ("x.a", "1"),
            ("x-a", "2"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
        ];
        let expected = [("CONTENT_TYPE", ""), ("CONTENT_LENGTH", "0"), ("HTTP_X_A", "2")];
        assert_eq!(sent(&fields, None, None), pairs(&expected));
        assert_eq!(sent(&[], None, None), pairs(&[("CONTENT_TYPE", ""), ("CONTENT_LENGTH", "")]));
    }

    #[test]
    fn configured_parameters_precede_fields() {
        let replaced = ["HTTP_X_A", "CONTENT_TYPE"].map(Box::from);
        let mut params = FastCgiParams::new(replaced.into());
        params.push(b"SCRIPT_NAME", b"/a.php");
        params.push(b"HTTP_X_A", b"own");
        let fields = [("x-a", "1"), ("x-b", "2"), ("content-type", "text/plain")];
        let expected = [
            ("SCRIPT_NAME", "/a.php"),
            ("HTTP_X_A", "own"),
            ("CONTENT_LENGTH", "7"),
            ("HTTP_X_B", "2"),
            ("HTTP_CONTENT_TYPE", "text/plain"),
        ];
        assert_eq!(sent(&fields, Some(7), Some(params)), pairs(&expected));
    }
}
