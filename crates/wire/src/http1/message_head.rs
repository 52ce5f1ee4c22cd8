//! Writes the heads of messages. The framing fields follow from the body that is sent, not from the fields of the
//! message that was received.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::fields::{list_items, parse_length};
use super::name_case::{ReceivedNames, write_name};
use super::received_fields::ReceivedFields;
use crate::begun_trace::BegunTrace;
use crate::fast_cgi;
use crate::forwarding_fields::{ForwardingFields, X_REQUEST_ID};
use crate::hop_count::HopCount;

/// What is known about the length of a body before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// The message has no body.
    None,
    Bytes(u64),
    Unknown,
}

impl BodyLength {
    pub fn of(body: &impl Body) -> Self {
        if body.is_end_stream() {
            return BodyLength::None;
        }
        body.size_hint().exact().map_or(BodyLength::Unknown, BodyLength::Bytes)
    }
}

/// How the end of a body is marked (RFC 9112, section 6).
#[derive(Debug)]
pub enum BodyFraming {
    /// No body follows the head.
    None,
    /// Remaining bytes of the body.
    Length(u64),
    /// Chunks, and then the trailers with these names.
    Chunked { trailers: Vec<HeaderName> },
    /// The body ends with the connection.
    UntilClose,
    /// Records of FastCGI. How many bytes of the body remain, if its length is known.
    Records(Option<u64>),
}

/// The request that a response belongs to, and its connection.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'c> {
    /// The version of the request.
    pub version: Version,
    /// The request was HEAD, so the response has no body.
    pub is_head: bool,
    /// Another request may follow on the connection.
    pub is_persistent: bool,
    /// The client accepts trailers.
    pub accepts_trailers: bool,
    /// The value of the `Date` field, if the response has none.
    pub date: &'c HeaderValue,
    /// The fields that are not in the header map.
    pub passed: Option<PassedFields<'c>>,
}

/// The fields of a response that are passed on as they were received, and not in its header map.
#[derive(Clone, Copy, Debug)]
pub struct PassedFields<'f> {
    pub received: &'f ReceivedFields,
    /// The id of the request, which is written unless the fields have one.
    pub request_id: &'f HeaderValue,
}

/// The fields of a request that are not in its header map.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddedFields<'f> {
    /// Replaces what filters and plugins have set instead; 0 is not written.
    pub hops: HopCount,
    /// Only if the header map has no fields of a trace.
    pub trace: Option<BegunTrace>,
    /// Only if the header map has none of them. Their host is the Host that it has.
    pub forwarding: Option<ForwardingFields<'f>>,
}

/// Writes the head of a request, as HTTP/1.1. Returns the framing of its body, and whether another request may follow
/// it.
pub fn write_request_head<B>(
    request: &Request<B>,
    length: BodyLength,
    AddedFields { hops, trace, forwarding }: AddedFields<'_>,
    out: &mut BytesMut,
) -> (BodyFraming, bool) {
    let (fields, received) = (request.headers(), request.extensions().get());
    let (mut is_persistent, mut declares_length, mut host) = (true, false, &[][..]);
    debug_assert!(trace.is_none() || !fields.contains_key(BegunTrace::FIELD));
    debug_assert!(forwarding.is_none() || !fields.keys().any(ForwardingFields::is_field));
    let added_length =
        trace.map_or(0, |_| BegunTrace::LINE_LENGTH) + forwarding.map_or(0, ForwardingFields::max_length);
    out.reserve(HEAD_RESERVE + added_length + fields.len() * AVERAGE_FIELD);
    out.put_slice(request.method().as_str().as_bytes());
    out.put_u8(b' ');
    write_target(request.uri(), out);
    out.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in fields {
        match *name {
            CONTENT_LENGTH => {
                declares_length = true;
                continue;
            }
            TRANSFER_ENCODING => continue,
            HOST => host = value.as_bytes(),
            CONNECTION => {
                is_persistent &= !list_items(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            _ if HopCount::is_field(name) => continue,
            _ => {}
        }
        write_field(name, received, value.as_bytes(), out);
    }
    match (forwarding, received) {
        (None, _) => {}
        (Some(forwarding), None) => forwarding.write(host, out),
        (Some(forwarding), Some(_)) => forwarding.each(host, |name, value| write_field(name, received, value, out)),
    }
    let framing = match length {
        BodyLength::None => {
            if declares_length {
                write_length(0, received, out);
            }
            BodyFraming::None
        }
        BodyLength::Bytes(length) => {
            write_length(length, received, out);
            BodyFraming::Length(length)
        }
        BodyLength::Unknown => {
            write_field(&TRANSFER_ENCODING, received, b"chunked", out);
            BodyFraming::Chunked { trailers: declared_trailers(fields) }
        }
    };
    if let Some(trace) = trace {
        let line = trace.line();
        match received {
            None => out.put_slice(&line),
            Some(_) => write_field(&BegunTrace::FIELD, received, &line[BegunTrace::VALUE], out),
        }
    }
    match hops.line().filter(|_| received.is_none()) {
        Some(line) => out.put_slice(line),
        None if hops > HopCount::ZERO => {
            write_field(&HopCount::FIELD, received, itoa::Buffer::new().format(hops.get()).as_bytes(), out);
        }
        None => {}
    }
    out.put_slice(b"\r\n");
    (framing, is_persistent)
}

/// Writes the beginning of a request to a FastCGI server. Returns the framing of its body.
pub fn write_fast_cgi_head<B>(request: &Request<B>, length: BodyLength, out: &mut BytesMut) -> BodyFraming {
    let body_bytes = if let BodyLength::Bytes(length) = length { Some(length) } else { None };
    fast_cgi::write_request(request, body_bytes, out);
    match length {
        BodyLength::None => {
            fast_cgi::push_stdin_header(0, out);
            BodyFraming::None
        }
        BodyLength::Bytes(_) | BodyLength::Unknown => BodyFraming::Records(body_bytes),
    }
}

/// Writes the head of a response. Returns the framing of its body, and whether another request may follow it.
pub fn write_response_head<B>(
    response: &Response<B>,
    length: BodyLength,
    context: ResponseContext<'_>,
    out: &mut BytesMut,
) -> (BodyFraming, bool) {
    let (status, fields, received) = (response.status(), response.headers(), response.extensions().get());
    let passed = context.passed.map(|passed| passed.received);
    out.reserve(HEAD_RESERVE + passed.map_or(0, |passed| passed.lines().len()) + fields.len() * AVERAGE_FIELD);
    write_status_line(response, context.version, out);
    let permits_length = permits_length(status);
    let permits_trailers =
        permits_length && status != StatusCode::NOT_MODIFIED && !context.is_head && context.version != Version::HTTP_10;
    let (mut has_date, mut has_keep_alive, mut has_close, mut declared) = (false, false, false, None);
    if let Some(passed) = passed {
        out.put_slice(passed.lines());
        (has_date, declared) = (passed.has_date, passed.length);
    }
    for (name, value) in fields {
        match *name {
            CONTENT_LENGTH => {
                // The length of a body is written below. If its source does not know it, the field does.
                declared = declared.or(parse_length(value.as_bytes()));
                continue;
            }
            TRANSFER_ENCODING => continue,
            TRAILER if !permits_trailers => continue,
            DATE => has_date = true,
            CONNECTION => {
                for option in list_items(value.as_bytes()) {
                    has_close |= option.eq_ignore_ascii_case(b"close");
                    has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        write_field(name, received, value.as_bytes(), out);
    }
    if let Some(passed) = context.passed.filter(|passed| !passed.received.has_request_id) {
        write_field(&X_REQUEST_ID, received, passed.request_id.as_bytes(), out);
    }
    let framing = match length {
        _ if !permits_length => BodyFraming::None,
        BodyLength::None | BodyLength::Bytes(_) | BodyLength::Unknown
            if context.is_head || status == StatusCode::NOT_MODIFIED =>
        {
            let known = if let BodyLength::Bytes(length) = length { Some(length) } else { None };
            if let Some(length) = declared.or(known) {
                write_length(length, received, out);
            }
            BodyFraming::None
        }
        BodyLength::None => {
            write_length(0, received, out);
            BodyFraming::None
        }
        BodyLength::Bytes(length) => {
            write_length(length, received, out);
            BodyFraming::Length(length)
        }
        BodyLength::Unknown => match declared {
            Some(length) => {
                write_length(length, received, out);
                BodyFraming::Length(length)
            }
            None if context.version == Version::HTTP_10 => BodyFraming::UntilClose,
            None => {
                write_field(&TRANSFER_ENCODING, received, b"chunked", out);
                let trailers = if context.accepts_trailers { declared_trailers(fields) } else { Vec::new() };
                BodyFraming::Chunked { trailers }
            }
        },
    };
    let ends_with_connection = matches!(framing, BodyFraming::UntilClose);
    let is_persistent = context.is_persistent && !has_close && !ends_with_connection;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        match context.version {
            Version::HTTP_10 if is_persistent && !has_keep_alive => {
                write_field(&CONNECTION, received, b"keep-alive", out)
            }
            Version::HTTP_10 => {}
            _ if !is_persistent && !has_close => write_field(&CONNECTION, received, b"close", out),
            _ => {}
        }
    }
    if !has_date {
        write_field(&DATE, received, context.date.as_bytes(), out);
    }
    out.put_slice(b"\r\n");
    (framing, is_persistent)
}

/// Writes an informational response, as HTTP/1.1.
pub fn write_informational(response: &Response<()>, out: &mut BytesMut) {
    write_status_line(response, Version::HTTP_11, out);
    let received = response.extensions().get();
    for (name, value) in response.headers() {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_field(name, received, value.as_bytes(), out);
        }
    }
    out.put_slice(b"\r\n");
}

fn write_status_line<B>(response: &Response<B>, version: Version, out: &mut BytesMut) {
    let status = response.status();
    let reason = response.extensions().get::<ReasonPhrase>();
    if status == StatusCode::OK && reason.is_none() && version != Version::HTTP_10 {
        return out.put_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.put_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    match reason {
        Some(reason) => out.put_slice(reason.as_bytes()),
        None => out.put_slice(status.canonical_reason().unwrap_or("<none>").as_bytes()),
    }
    out.put_slice(b"\r\n");
}

/// The target in the form that the URI has: mostly a path with a query.
fn write_target(uri: &Uri, out: &mut BytesMut) {
    match (uri.scheme(), uri.authority(), uri.path_and_query()) {
        (None, None, Some(path)) => out.put_slice(path.as_str().as_bytes()),
        _ => out.put_slice(uri.to_string().as_bytes()),
    }
}

fn write_field(name: &HeaderName, received: Option<&ReceivedNames>, value: &[u8], out: &mut BytesMut) {
    write_name(name, received, out);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn write_length(length: u64, received: Option<&ReceivedNames>, out: &mut BytesMut) {
    write_field(&CONTENT_LENGTH, received, itoa::Buffer::new().format(length).as_bytes(), out);
}

/// Whether a response with this status may have a Content-Length (RFC 9110, section 8.6).
fn permits_length(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT
}

/// The names that a `Trailer` field announces. Others are not sent: recipients may discard them.
fn declared_trailers(fields: &HeaderMap) -> Vec<HeaderName> {
    let names = fields.get_all(TRAILER).iter().flat_map(|value| list_items(value.as_bytes()));
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// Memory reserved for a head: for its first line and the fields that are added, and for each other field.
const HEAD_RESERVE: usize = 176;
const AVERAGE_FIELD: usize = 40;
