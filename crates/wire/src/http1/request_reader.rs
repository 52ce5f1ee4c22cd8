//! Reads the heads of requests. Its rejections follow RFC 9112; what other servers may read differently is reported
//! with the request, so that the client gets an error response for the request that it has sent.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{EXPECT, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri, Version};
use memchr::memchr;

use super::fields::{
    FramingFields, LengthField, TransferCodingField, collect_fields, list_items, parse_error, with_field_memory,
};
use super::head_end::{HeadEnd, LineEnds, put_back};
use super::name_case::ReceivedNames;
use super::request_version::{OtherVersion, other_version};
use super::{BodyDecoder, HeadLimits, InvalidMessage, NameCase};

/// Reads the requests of one connection.
#[derive(Debug)]
pub struct RequestReader {
    limits: HeadLimits,
    name_case: NameCase,
    end: HeadEnd,
    /// An empty line before the request ended in a line feed alone.
    begins_with_line_feed: bool,
}

/// A request without its body.
#[derive(Debug)]
pub struct ReceivedRequest {
    pub head: Request<()>,
    pub body: BodyDecoder,
    /// The client permits another request on the connection.
    pub is_persistent: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client accepts trailers of the response.
    pub accepts_trailers: bool,
    /// The head may have `traceparent` or `tracestate`. If not, nothing need look for them.
    pub may_have_trace: bool,
    /// Why other servers may read the request differently. Then it must be rejected; its body is not read and nothing
    /// that follows it has a meaning.
    pub ambiguity: Option<Ambiguity>,
}

/// What other servers may read differently, which permits request smuggling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    BareLineFeed,
    Fragment,
    LengthAndCoding,
    InvalidLength,
}

impl RequestReader {
    pub fn new(limits: HeadLimits) -> Self {
        RequestReader { limits, name_case: NameCase::Lower, end: HeadEnd::default(), begins_with_line_feed: false }
    }

    pub fn with_name_case(self, name_case: NameCase) -> Self {
        RequestReader { name_case, ..self }
    }

    /// Whether nothing of a next request was read.
    pub fn is_unused(&self) -> bool {
        !self.begins_with_line_feed
    }

    /// Reads the next head, and removes its bytes from `input`. Between two calls that return None, `input` may only
    /// grow. After an error it has the bytes of the head, as far as they were received.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedRequest>, InvalidMessage> {
        self.skip_empty_lines(input);
        if input.is_empty() {
            return Ok(None);
        }
        let begins_with_line_feed = self.begins_with_line_feed;
        let mut read = self.read_known_version(input);
        if let Err(InvalidMessage::MajorVersion) = read {
            self.begins_with_line_feed = begins_with_line_feed;
            read = self.read_other_version(input);
        }
        read
    }

    #[cold]
    fn read_other_version(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedRequest>, InvalidMessage> {
        match other_version(input) {
            None => Err(InvalidMessage::FirstLine),
            Some(OtherVersion::OtherMajor) => Err(InvalidMessage::MajorVersion),
            Some(OtherVersion::Incomplete) => Ok(None),
            Some(OtherVersion::LaterMinor { digit }) => {
                let received = std::mem::replace(&mut input[digit], b'1');
                self.end = HeadEnd::default();
                let read = self.read_known_version(input);
                // What stays in the input is as it was received.
                if !matches!(read, Ok(Some(_))) {
                    input[digit] = received;
                }
                read
            }
        }
    }

    fn read_known_version(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedRequest>, InvalidMessage> {
        let limits = self.limits;
        if let Some(length) = self.end.find_at_once(input, limits.bytes) {
            match self.parse(input, length, LineEnds::Usual) {
                Ok(mut request) => {
                    if std::mem::take(&mut self.begins_with_line_feed) {
                        request.reject(Ambiguity::BareLineFeed);
                    }
                    return Ok(Some(request));
                }
                // The first line decides it, and the connection may go on.
                Err(InvalidMessage::MajorVersion) => return Err(InvalidMessage::MajorVersion),
                // Examined below. The connection ends after it, so this costs little.
                Err(_) => {}
            }
        }
        let check = || with_parsed(input, limits, |_, _| Ok(()));
        let Some(length) = self.end.find_checked(input, limits.bytes, check)? else { return Ok(None) };
        let has_bare_line_feed = self.begins_with_line_feed || self.end.has_bare_line_feed;
        *self = RequestReader::new(self.limits).with_name_case(self.name_case);
        let mut request = self.parse(input, length, LineEnds::Any)?;
        if has_bare_line_feed {
            request.reject(Ambiguity::BareLineFeed);
        }
        Ok(Some(request))
    }

    /// Empty lines before a request are allowed (RFC 9112, section 2.2).
    fn skip_empty_lines(&mut self, input: &mut BytesMut) {
        loop {
            match &**input {
                [b'\r', b'\n', ..] => input.advance(2),
                [b'\n', ..] => {
                    self.begins_with_line_feed = true;
                    input.advance(1);
                }
                _ => return,
            }
        }
    }

    /// Parses the head in the first `length` bytes, and removes it from `input` unless it is invalid.
    fn parse(
        &self,
        input: &mut BytesMut,
        length: usize,
        line_ends: LineEnds,
    ) -> Result<ReceivedRequest, InvalidMessage> {
        // The values of the fields refer to the head.
        let head = input.split_to(length).freeze();
        let parsed = with_parsed(&head, self.limits, |request, parsed| {
            let is_whole = parsed == Some(length) && line_ends.are_in(&head, request.headers);
            if is_whole { self.build(&head, request) } else { Err(InvalidMessage::FirstLine) }
        });
        if parsed.is_err() {
            // For the access log, or to be examined again.
            put_back(&head, input);
        }
        parsed
    }

    fn build(&self, head: &Bytes, parsed: &httparse::Request<'_, '_>) -> Result<ReceivedRequest, InvalidMessage> {
        let (Some(method), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(InvalidMessage::FirstLine);
        };
        if target.len() > MAX_TARGET {
            return Err(InvalidMessage::TooLarge);
        }
        let version = if minor_version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| InvalidMessage::FirstLine)?;
        let mut uri =
            Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| InvalidMessage::FirstLine)?;
        if method == Method::OPTIONS && is_server(target.as_bytes()) {
            uri = with_asterisk(uri);
        }
        let (fields, framing) = collect_fields(head, parsed.headers)?;
        let mut ambiguity = memchr(b'#', target.as_bytes()).map(|_| Ambiguity::Fragment);
        let body = match body_decoder(&framing, version, self.limits) {
            Ok(body) => body?,
            Err(found) => {
                ambiguity = ambiguity.or(Some(found));
                BodyDecoder::EMPTY
            }
        };
        let mut request = Request::new(());
        (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, uri, version);
        if self.name_case == NameCase::Received {
            request.extensions_mut().insert(ReceivedNames::collect(head, parsed.headers));
        }
        let mut received = ReceivedRequest {
            body,
            is_persistent: framing.is_persistent(version),
            expects_continue: version == Version::HTTP_11 && expects_continue(&fields),
            accepts_trailers: accepts_trailers(&fields),
            may_have_trace: framing.may_have_trace,
            ambiguity: None,
            head: request,
        };
        *received.head.headers_mut() = fields;
        if let Some(ambiguity) = ambiguity {
            received.reject(ambiguity);
        }
        Ok(received)
    }
}

/// Whether a target has the form `http://host`, without path and query. In an OPTIONS request, this means the server
/// itself (RFC 9112, section 3.2.4).
fn is_server(target: &[u8]) -> bool {
    let colon = memchr(b':', target).filter(|_| !target.starts_with(b"/"));
    let authority = colon.and_then(|colon| target[colon..].strip_prefix(b"://"));
    authority.is_some_and(|authority| !authority.iter().any(|byte| matches!(byte, b'/' | b'?' | b'#')))
}

/// The same target with the path `*`, which is how HTTP/2 writes it.
fn with_asterisk(uri: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    Uri::from_parts(parts).unwrap_or(uri)
}

impl ReceivedRequest {
    fn reject(&mut self, ambiguity: Ambiguity) {
        self.ambiguity = Some(ambiguity);
        self.body = BodyDecoder::EMPTY;
        self.is_persistent = false;
    }
}

/// Calls `use_request` with what was parsed, and with the length of the head if it is complete.
fn with_parsed<T>(
    bytes: &[u8],
    limits: HeadLimits,
    use_request: impl FnOnce(&httparse::Request<'_, '_>, Option<usize>) -> Result<T, InvalidMessage>,
) -> Result<T, InvalidMessage> {
    with_field_memory(limits.fields, |memory| {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, memory).map_err(|error| match error {
            // `RequestReader::read` decides which version it is.
            httparse::Error::Version => InvalidMessage::MajorVersion,
            other => parse_error(other),
        });
        match parsed? {
            httparse::Status::Complete(length) => use_request(&request, Some(length)),
            httparse::Status::Partial => use_request(&request, None),
        }
    })
}

/// The framing of the body (RFC 9112, section 6.3). The outer error is an ambiguity, the inner one makes the head
/// invalid.
fn body_decoder(
    framing: &FramingFields,
    version: Version,
    limits: HeadLimits,
) -> Result<Result<BodyDecoder, InvalidMessage>, Ambiguity> {
    if let (Some(_), Version::HTTP_10) = (framing.coding, version) {
        return Ok(Err(InvalidMessage::TransferEncoding));
    }
    match (framing.length, framing.coding) {
        (Some(LengthField::NotANumber), _) => Err(Ambiguity::InvalidLength),
        (_, Some(TransferCodingField::Other)) => Ok(Err(InvalidMessage::TransferEncoding)),
        (Some(_), Some(_)) => Err(Ambiguity::LengthAndCoding),
        (Some(LengthField::Different), None) => Ok(Err(InvalidMessage::Length)),
        (Some(LengthField::Bytes(length)), None) => Ok(BodyDecoder::with_length(length)),
        (None, Some(TransferCodingField::Chunked)) => Ok(Ok(BodyDecoder::chunked(limits))),
        (None, None) => Ok(Ok(BodyDecoder::EMPTY)),
    }
}

fn expects_continue(fields: &HeaderMap) -> bool {
    fields.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether `TE` has the option `trailers`.
fn accepts_trailers(fields: &HeaderMap) -> bool {
    let mut values = fields.get_all(TE).iter();
    values.any(|value| list_items(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"trailers")))
}

/// The longest target that the `http` crate supports.
const MAX_TARGET: usize = u16::MAX as usize - 1;
