//! Reads the heads of responses.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::fields::{
    FramingFields, LengthField, TransferCodingField, collect_fields, keep_alive_timeout, parse_error, with_field_memory,
};
use super::head_end::{HeadEnd, LineEnds, put_back};
use super::name_case::ReceivedNames;
use super::received_fields::{PlainFields, ReceivedFields};
use super::{BodyDecoder, HeadLimits, InvalidMessage, NameCase};

/// Reads the response to one request, and informational responses before it.
#[derive(Debug)]
pub struct ResponseReader {
    limits: HeadLimits,
    name_case: NameCase,
    end: HeadEnd,
    /// A head was not as expected. Then others are not parsed before all their lines were examined, or many that arrive
    /// together would be put back as often.
    has_unusual_heads: bool,
    /// The request was HEAD, so its response has no body.
    is_head: bool,
    /// Fields may stay lines.
    passes_fields: bool,
    informational: Vec<Response<()>>,
}

/// A response without its body.
#[derive(Debug)]
pub struct ReceivedResponse {
    pub head: Response<()>,
    /// The fields, if they are not in the head.
    pub fields: Option<ReceivedFields>,
    pub body: BodyDecoder,
    /// The endpoint permits another request on the connection.
    pub is_persistent: bool,
    /// How long the endpoint keeps the connection without a request, if it says so.
    pub keep_alive: Option<Duration>,
    /// The response has no body because of its status, or of the method of the request. An endpoint that disregards
    /// this sends one nevertheless, and what follows the head may not be the next response.
    pub may_be_followed_by_body: bool,
}

impl ResponseReader {
    /// A reader for the response to a request with this method.
    pub fn new(limits: HeadLimits, method: &Method) -> Self {
        let is_head = method == Method::HEAD;
        ResponseReader {
            limits,
            name_case: NameCase::Lower,
            end: HeadEnd::default(),
            has_unusual_heads: false,
            is_head,
            passes_fields: false,
            informational: Vec::new(),
        }
    }

    /// A reader that leaves the fields of plain heads as lines, if `passes_fields`.
    pub fn with_passed_fields(self, passes_fields: bool) -> Self {
        ResponseReader { passes_fields, ..self }
    }

    pub fn with_name_case(self, name_case: NameCase) -> Self {
        ResponseReader { name_case, ..self }
    }

    /// Reads the final head, and removes its bytes and those of informational responses from `input`. Between two calls
    /// that return None, `input` may only grow.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedResponse>, InvalidMessage> {
        loop {
            // Like empty lines before a request, those before a response are ignored.
            while let [b'\r', b'\n', ..] | [b'\n', ..] = &**input {
                input.advance(if input[0] == b'\n' { 1 } else { 2 });
            }
            if input.is_empty() {
                return Ok(None);
            }
            let response = match self.read_at_once(input) {
                Some(response) => response,
                None => {
                    let check = || with_parsed(input, self.limits, |_, _| Ok(()));
                    let Some(length) = self.end.find_checked(input, self.limits.bytes, check)? else { return Ok(None) };
                    // Otherwise each of many such heads is searched for an end that may come much later.
                    self.has_unusual_heads |= self.end.has_bare_line_feed;
                    self.end = HeadEnd::default();
                    let head = input.split_to(length).freeze();
                    self.parse(&head, LineEnds::Any)?
                }
            };
            let status = response.head.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(response));
            }
            // `100 Continue` concerns this connection only.
            if status != StatusCode::CONTINUE && self.informational.len() < MAX_INFORMATIONAL {
                self.informational.push(response.head);
            }
        }
    }

    /// Reads a head that has arrived at once and has usual line ends.
    fn read_at_once(&mut self, input: &mut BytesMut) -> Option<ReceivedResponse> {
        if self.has_unusual_heads {
            return None;
        }
        let length = self.end.find_at_once(input, self.limits.bytes)?;
        let head = input.split_to(length).freeze();
        let parsed = self.parse(&head, LineEnds::Usual);
        if parsed.is_err() {
            put_back(&head, input);
            self.has_unusual_heads = true;
        }
        parsed.ok()
    }

    /// Takes the informational responses that were read, except `100 Continue`. Of many that arrive together, only the
    /// first ones are kept.
    pub fn take_informational(&mut self) -> Vec<Response<()>> {
        std::mem::take(&mut self.informational)
    }

    fn parse(&self, head: &Bytes, line_ends: LineEnds) -> Result<ReceivedResponse, InvalidMessage> {
        with_parsed(head, self.limits, |response, parsed| {
            let is_whole = parsed == Some(head.len()) && line_ends.are_in(head, response.headers);
            if is_whole { self.build(head, response) } else { Err(InvalidMessage::FirstLine) }
        })
    }

    fn build(&self, head: &Bytes, parsed: &httparse::Response<'_, '_>) -> Result<ReceivedResponse, InvalidMessage> {
        let (Some(code), Some(minor_version)) = (parsed.code, parsed.version) else {
            return Err(InvalidMessage::FirstLine);
        };
        let status = StatusCode::from_u16(code).map_err(|_| InvalidMessage::FirstLine)?;
        let version = if minor_version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let plain = if self.passes_fields && !self.is_head && self.name_case == NameCase::Lower {
            PlainFields::read(head, status, version, parsed.headers)
        } else {
            None
        };
        let (mut fields, framing, received, keep_alive) = match plain {
            Some(PlainFields { fields, framing, keep_alive }) => (HeaderMap::new(), framing, Some(fields), keep_alive),
            None => {
                let (fields, framing) = collect_fields(head, parsed.headers)?;
                let keep_alive = if framing.keeps_alive { keep_alive_timeout(&fields) } else { None };
                (fields, framing, None, keep_alive)
            }
        };
        let has_no_body = self.is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let body = if has_no_body { BodyDecoder::EMPTY } else { self.body_decoder(&framing, version)? };
        // Of a length together with chunks, the length is ignored, and further bytes are not trusted. HTTP/1.0 has no
        // chunks.
        let is_ambiguous = framing.coding.is_some() && (framing.length.is_some() || version == Version::HTTP_10);
        if is_ambiguous {
            fields.remove(CONTENT_LENGTH);
        }
        // A length or a coding in a 204 contradicts the status (RFC 9110, section 8.6; RFC 9112, section 6.1), and an
        // invalid length contradicts every response, so a body may follow. HEAD and 304 announce what GET would get.
        let announces_body = has_no_body
            && match framing.length {
                Some(LengthField::NotANumber | LengthField::Different) => true,
                Some(LengthField::Bytes(0)) => false,
                length => status == StatusCode::NO_CONTENT && (length.is_some() || framing.coding.is_some()),
            };
        let is_persistent =
            framing.is_persistent(version) && !is_ambiguous && !announces_body && !body.ends_with_connection();
        // Without the option of Connection, the field has no meaning (RFC 2068, section 19.7.1.1).
        let keep_alive = if framing.keeps_alive { keep_alive } else { None };
        let mut response = Response::new(());
        (*response.status_mut(), *response.version_mut(), *response.headers_mut()) = (status, version, fields);
        if let Some(reason) = parsed.reason
            && Some(reason) != status.canonical_reason()
            && let Ok(reason) = ReasonPhrase::try_from(reason.to_owned())
        {
            response.extensions_mut().insert(reason);
        }
        if self.name_case == NameCase::Received {
            response.extensions_mut().insert(ReceivedNames::collect(head, parsed.headers));
        }
        Ok(ReceivedResponse {
            head: response,
            fields: received,
            body,
            is_persistent,
            keep_alive,
            may_be_followed_by_body: has_no_body,
        })
    }

    /// The framing of the body of a response that may have one (RFC 9112, section 6.3).
    fn body_decoder(&self, framing: &FramingFields, version: Version) -> Result<BodyDecoder, InvalidMessage> {
        match (framing.coding, framing.length) {
            (Some(_), _) if version == Version::HTTP_10 => Err(InvalidMessage::TransferEncoding),
            (Some(TransferCodingField::Other), _) => Err(InvalidMessage::TransferEncoding),
            (Some(TransferCodingField::Chunked), _) => Ok(BodyDecoder::chunked(self.limits)),
            (None, Some(LengthField::Bytes(length))) => BodyDecoder::with_length(length),
            (None, Some(LengthField::NotANumber | LengthField::Different)) => Err(InvalidMessage::Length),
            (None, None) => Ok(BodyDecoder::until_close()),
        }
    }
}

/// Calls `use_response` with what was parsed, and with the length of the head if it is complete.
fn with_parsed<T>(
    bytes: &[u8],
    limits: HeadLimits,
    use_response: impl FnOnce(&httparse::Response<'_, '_>, Option<usize>) -> Result<T, InvalidMessage>,
) -> Result<T, InvalidMessage> {
    with_field_memory(limits.fields, |memory| {
        let config = httparse::ParserConfig::default();
        let mut response = httparse::Response::new(&mut []);
        match config.parse_response_with_uninit_headers(&mut response, bytes, memory).map_err(parse_error)? {
            httparse::Status::Complete(length) => use_response(&response, Some(length)),
            httparse::Status::Partial => use_response(&response, None),
        }
    })
}

/// How many informational responses are kept.
const MAX_INFORMATIONAL: usize = 8;
