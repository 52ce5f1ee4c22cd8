//! Messages that are written: the readers of the codec and of hyper read exactly them, and take none for complete that
//! was not sent to its end.

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::ext::ReasonPhrase;

use super::found_message::{FoundFields, FoundMessage, FoundRequestLine, FoundStatusLine, sorted};
use super::message_plan::MessagePlan;
use super::portico_reader::{ReadingEnd, read_requests, read_response};
use super::responses::expect_informational;
use super::sending::{SentMessage, send};
use super::{LIMITS, hyper_reader};
use crate::http1::fields::{MAX_LENGTH, parse_length};
use crate::http1::{
    AddedFields, BodyFraming, BodyLength, InvalidMessage, ResponseContext, write_informational, write_request_head,
    write_response_head,
};

/// The input describes a request or a response.
pub(crate) fn messages(input: &[u8]) {
    if input.len() > MAX_INPUT {
        return;
    }
    let plan = MessagePlan::parse(input);
    // hyper finds no options in such a field, so the connection would end for one reader only.
    if plan.fields.get_all(CONNECTION).iter().any(|value| !value.as_bytes().is_ascii()) {
        return;
    }
    // No reader accepts such a length, so none is passed on.
    if plan.fields.get_all(CONTENT_LENGTH).iter().any(|value| parse_length(value.as_bytes()) > Some(MAX_LENGTH)) {
        return;
    }
    let mut words = plan.first_line.splitn(2, |byte| *byte == b' ');
    let (first, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if let Ok(status) = StatusCode::from_bytes(first)
        && status.is_informational()
        && status != StatusCode::SWITCHING_PROTOCOLS
    {
        check_informational(&plan, status, rest);
    } else if let Ok(status) = StatusCode::from_bytes(first) {
        check_response(&plan, status, rest);
    } else if let (Ok(method), Ok(uri)) = (Method::from_bytes(first), Uri::try_from(rest)) {
        check_request(&plan, method, uri);
    }
}

/// Sends a request, and another one after it.
fn check_request(plan: &MessagePlan<'_>, method: Method, uri: Uri) {
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\n\r\n";
    let length = BodyLength::of(plan.body());
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, plan.fields.clone());
    let mut head = BytesMut::new();
    let (framing, is_persistent) = write_request_head(&request, length, AddedFields::default(), &mut head);
    let Some(mut sent) = send(plan, head, framing) else { return };
    if sent.is_complete {
        sent.wire.extend_from_slice(NEXT);
    }
    let step = reading_step(&sent.wire);
    let portico = read_requests(&sent.wire, step, LIMITS);
    let hyper = hyper_reader::read_requests(&sent.wire, step);
    let (count, end, rest) = match (sent.is_complete, is_persistent) {
        (true, true) => (2, ReadingEnd::EndOfInput, &[][..]),
        (true, false) => (1, ReadingEnd::NotPersistent, NEXT),
        (false, _) => (1, ReadingEnd::Invalid(InvalidMessage::Truncated), &[][..]),
    };
    assert_eq!((portico.requests.len(), portico.end), (count, end), "{portico:?}");
    assert!(portico.rest.ends_with(rest) && (!sent.is_complete || portico.rest == rest), "{portico:?}");
    assert_eq!(hyper.len(), count, "requests that hyper reads: {hyper:?}");
    for (ours, theirs) in portico.requests.iter().zip(&hyper) {
        ours.expect_same(theirs);
    }
    assert!(portico.requests.get(1).is_none_or(|next| next.line.uri == *"/next"), "the next request: {portico:?}");

    let found = &portico.requests[0];
    let FoundRequestLine { method, uri, version } = &found.line;
    assert_eq!((method, *version), (request.method(), Version::HTTP_11));
    assert_eq!(uri.to_string(), request.uri().to_string(), "target");
    expect_fields(&found.fields, &plan.fields, &[CONTENT_LENGTH, TRANSFER_ENCODING]);
    expect_body(found, plan, &sent);
    if plan.is_honest() {
        assert_eq!(found.body, plan.data, "the whole body");
    }
}

/// Sends an informational response, and a final one after it.
fn check_informational(plan: &MessagePlan<'_>, status: StatusCode, reason: &[u8]) {
    const FINAL: &[u8] = b"HTTP/1.1 299 final\r\ncontent-length: 0\r\n\r\n";
    let mut response = Response::new(());
    (*response.status_mut(), *response.headers_mut()) = (status, plan.fields.clone());
    if let Some(reason) = given_reason(reason) {
        response.extensions_mut().insert(reason);
    }
    let mut head = BytesMut::new();
    write_informational(&response, &mut head);
    head.extend_from_slice(FINAL);
    let step = reading_step(&head);
    let portico = read_response(&head, &Method::GET, step, LIMITS);
    let hyper = hyper_reader::read_response(&head, &Method::GET, step).expect("hyper reads the responses");
    let found = portico.response.expect("the final response is read");
    found.expect_same(&hyper.response);
    assert_eq!((found.line.status.as_u16(), &*portico.rest), (299, &[][..]), "the final response");
    expect_informational(&portico.informational, &hyper.informational);
    let kept = hyper.informational.first().expect("hyper reads the informational response");
    assert_eq!((kept.version, kept.status), (Version::HTTP_11, status));
    let framing = [CONTENT_LENGTH, TRANSFER_ENCODING];
    expect_fields(&kept.fields, &plan.fields, &framing);
    assert!(kept.fields.iter().all(|(name, _)| framing.iter().all(|except| except.as_str().as_bytes() != name)));
}

/// Sends a response.
fn check_response(plan: &MessagePlan<'_>, status: StatusCode, reason: &[u8]) {
    let date = HeaderValue::from_static("Mon, 01 Jan 2024 00:00:00 GMT");
    let context = ResponseContext {
        version: if plan.has(b'o') { Version::HTTP_10 } else { Version::HTTP_11 },
        is_head: plan.has(b'h'),
        is_persistent: plan.has(b'p'),
        accepts_trailers: plan.has(b't'),
        date: &date,
        passed: None,
    };
    let mut response = Response::new(());
    (*response.status_mut(), *response.headers_mut()) = (status, plan.fields.clone());
    let given = given_reason(reason);
    if let Some(reason) = given.clone() {
        response.extensions_mut().insert(reason);
    }
    let mut head = BytesMut::new();
    let (framing, is_persistent) = write_response_head(&response, BodyLength::of(plan.body()), context, &mut head);
    let has_framing = !matches!(framing, BodyFraming::None);
    let Some(sent) = send(plan, head, framing) else { return };
    let step = reading_step(&sent.wire);
    let method = if context.is_head { Method::HEAD } else { Method::GET };
    let portico = read_response(&sent.wire, &method, step, LIMITS);
    let hyper = hyper_reader::read_response(&sent.wire, &method, step).expect("hyper reads the response");
    let found = portico.response.expect("the response is read");
    found.expect_same(&hyper.response);
    assert!(!sent.is_complete || portico.rest.is_empty(), "exactly one response is read: {found:?}");

    let line = FoundStatusLine { version: context.version, status, reason: read_reason(status, given.as_ref()) };
    assert_eq!(found.line, line, "status line");
    let added = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE, TRAILER];
    expect_fields(&found.fields, &plan.fields, &added);
    let dates = plan.fields.get_all(DATE).iter().count();
    assert_eq!(found.values("date").len(), dates.max(1), "one date is added if there is none: {found:?}");
    let end = match sent.is_complete {
        false => ReadingEnd::Invalid(InvalidMessage::Truncated),
        true if is_persistent => ReadingEnd::EndOfInput,
        true => ReadingEnd::NotPersistent,
    };
    // The fields that are passed decide about another protocol, and about `keep-alive` in HTTP/1.0.
    let is_decided_by_fields = status == StatusCode::SWITCHING_PROTOCOLS
        || context.version == Version::HTTP_10 && has_option(&plan.fields, b"keep-alive");
    if !is_decided_by_fields || !sent.is_complete {
        assert_eq!(portico.end, end, "whether another request may follow: {found:?}");
    }
    expect_body(&found, plan, &sent);
    let has_no_body = context.is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    assert!(!(has_no_body && has_framing), "a body after {status}");
    if plan.is_honest() && !has_no_body && !plan.fields.contains_key(CONTENT_LENGTH) {
        assert_eq!(found.body, plan.data, "the whole body");
    }
}

fn given_reason(reason: &[u8]) -> Option<ReasonPhrase> {
    ReasonPhrase::try_from(reason).ok().filter(|reason| !reason.as_bytes().is_empty())
}

/// The reason that a reader finds. httparse reads one with other bytes than ASCII as an empty one.
fn read_reason(status: StatusCode, given: Option<&ReasonPhrase>) -> Option<Vec<u8>> {
    let default = status.canonical_reason();
    let reason = given.map_or(default.unwrap_or("<none>").as_bytes(), ReasonPhrase::as_bytes);
    let reason = if reason.is_ascii() { reason } else { b"" };
    (default.map(str::as_bytes) != Some(reason)).then(|| reason.to_vec())
}

fn expect_fields(found: &FoundFields, sent: &HeaderMap, except: &[HeaderName]) {
    let others = |fields: &FoundFields| -> FoundFields {
        let is_other = |name: &[u8]| except.iter().all(|except| except.as_str().as_bytes() != name);
        fields.iter().filter(|(name, _)| is_other(name)).cloned().collect()
    };
    assert_eq!(others(found), others(&sorted(sent)), "fields (right: those sent)");
}

fn expect_body<L: std::fmt::Debug>(found: &FoundMessage<L>, plan: &MessagePlan<'_>, sent: &SentMessage) {
    assert_eq!(found.is_complete, sent.is_complete, "only what was sent to its end is complete");
    assert_eq!(found.body, sent.data, "body (right: what was sent)");
    let declared = |name: &[u8]| sent.trailers.iter().any(|declared| declared.as_str().as_bytes() == name);
    for (name, _) in &found.trailers {
        assert!(declared(name) && !FORBIDDEN_TRAILERS.contains(&&**name), "a trailer that may not be sent: {found:?}");
    }
    let mut expected = sorted(&plan.trailers);
    expected.retain(|(name, _)| declared(name) && !FORBIDDEN_TRAILERS.contains(&&**name) && sent.is_complete);
    assert_eq!(found.trailers, expected, "trailers (right: those sent)");
}

/// Whether the Connection field has this option.
fn has_option(fields: &HeaderMap, wanted: &[u8]) -> bool {
    let values = fields.get_all(CONNECTION).iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
}

/// How many bytes arrive at a time: few, except of long messages, which would take long.
fn reading_step(wire: &[u8]) -> usize {
    if wire.len() > 4096 { wire.len() } else { 1 + wire.len() % 11 }
}

/// Fields that a recipient needs before the body (RFC 9110, section 6.5.1), and those of the connection (7.6.1).
const FORBIDDEN_TRAILERS: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"keep-alive",
    b"location",
    b"max-forwards",
    b"pragma",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"vary",
    b"www-authenticate",
];

/// The limits of the readers are not reached.
const MAX_INPUT: usize = 8 * 1024;
