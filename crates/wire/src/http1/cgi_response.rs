//! Reads the head that the data of a FastCGI response begins with: the fields of a CGI response (RFC 3875, section 6),
//! one of which is the status.

use bytes::{Bytes, BytesMut};
use http::header::{LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use memchr::{memchr, memchr_iter};

use super::fields::{LengthField, MAX_LENGTH, collect_fields, parse_error};
use super::head_end::HeadEnd;
use super::record_body::RecordBody;
use super::{BodyDecoder, HeadLimits, InvalidMessage, ReceivedResponse};
use crate::fast_cgi::{StdoutDecoder, StdoutPart};

/// Reads the head of the response to a request. Its connection is not used for another one.
#[derive(Debug)]
pub struct CgiResponseReader {
    limits: HeadLimits,
    /// The request was HEAD, so its response has no body.
    is_head: bool,
    stdout: StdoutDecoder,
    /// What has arrived of the head, unless it arrives at once.
    head: BytesMut,
    end: HeadEnd,
}

impl CgiResponseReader {
    /// A reader for the response to a request with this method.
    pub fn new(limits: HeadLimits, method: &Method) -> Self {
        CgiResponseReader {
            limits,
            is_head: method == Method::HEAD,
            stdout: StdoutDecoder::default(),
            head: BytesMut::new(),
            end: HeadEnd::default(),
        }
    }

    /// Reads the head, and removes the records that it arrived in from `input`. None if more bytes are necessary.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedResponse>, InvalidMessage> {
        loop {
            let data = match self.stdout.decode(input).map_err(InvalidMessage::Record)? {
                None => return Ok(None),
                Some(StdoutPart::End) => return Err(InvalidMessage::Truncated),
                Some(StdoutPart::Data(data)) => data,
            };
            if let Some((head, first)) = self.split(data)? {
                return self.build(&head, first).map(Some);
            }
        }
    }

    /// Takes the beginning of what the server has written for its log since the last call.
    pub fn take_stderr(&mut self) -> Option<Vec<u8>> {
        self.stdout.take_stderr()
    }

    /// The head with the empty line at its end, and the beginning of the body.
    fn split(&mut self, mut data: Bytes) -> Result<Option<(Bytes, Bytes)>, InvalidMessage> {
        let max_bytes = self.limits.bytes;
        if self.head.is_empty() {
            if let Some(length) = self.end.find_checked(&data, max_bytes, || Ok(()))? {
                let first = data.split_off(length);
                return Ok(Some((data, first)));
            }
            self.head.extend_from_slice(&data);
            return Ok(None);
        }
        self.head.extend_from_slice(&data);
        let length = self.end.find_checked(&self.head, max_bytes, || Ok(()))?;
        Ok(length.map(|length| {
            let first = self.head.split_off(length).freeze();
            (std::mem::take(&mut self.head).freeze(), first)
        }))
    }

    fn build(&mut self, head: &Bytes, first: Bytes) -> Result<ReceivedResponse, InvalidMessage> {
        let lines = without_status_line(head);
        let count = memchr_iter(b'\n', &lines).count().min(self.limits.fields);
        let mut memory = vec![httparse::EMPTY_HEADER; count];
        let parsed = match httparse::parse_headers(&lines, &mut memory).map_err(parse_error)? {
            httparse::Status::Complete((length, parsed)) if length == lines.len() => parsed,
            httparse::Status::Complete(_) | httparse::Status::Partial => return Err(InvalidMessage::Field),
        };
        let (mut fields, framing) = collect_fields(&lines, parsed)?;
        let (status, reason) = take_status(&mut fields)?;
        // It says nothing about records, which have lengths.
        fields.remove(TRANSFER_ENCODING);
        let length = match framing.length {
            None => None,
            Some(LengthField::Bytes(length)) if length <= MAX_LENGTH => Some(length),
            Some(LengthField::Bytes(_) | LengthField::NotANumber | LengthField::Different) => {
                return Err(InvalidMessage::Length);
            }
        };
        let has_no_body = self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = match has_no_body {
            true => BodyDecoder::EMPTY,
            false => BodyDecoder::records(RecordBody::new(std::mem::take(&mut self.stdout), first, length)),
        };
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (status, fields);
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        Ok(ReceivedResponse {
            head: response,
            fields: None,
            body,
            is_persistent: false,
            keep_alive: None,
            may_be_followed_by_body: false,
        })
    }
}

/// The fields. Some programs write the first line of an HTTP response as well, which is ignored, as nginx does.
fn without_status_line(head: &Bytes) -> Bytes {
    match memchr(b'\n', head).filter(|_| head.starts_with(b"HTTP/")) {
        Some(end) => head.slice(end + 1..),
        None => head.clone(),
    }
}

/// Removes the field with the status. Without it, a response with a Location is a redirect.
fn take_status(fields: &mut HeaderMap) -> Result<(StatusCode, Option<ReasonPhrase>), InvalidMessage> {
    if fields.get_all(STATUS).iter().nth(1).is_some() {
        return Err(InvalidMessage::Status);
    }
    let Some(value) = fields.remove(STATUS) else {
        let is_redirect = fields.contains_key(LOCATION);
        return Ok((if is_redirect { StatusCode::FOUND } else { StatusCode::OK }, None));
    };
    parse_status(&value).ok_or(InvalidMessage::Status)
}

/// Three digits, and the reason after a space. The head is final, so an informational status is none.
fn parse_status(value: &HeaderValue) -> Option<(StatusCode, Option<ReasonPhrase>)> {
    let (code, reason) = value.as_bytes().trim_ascii().split_at_checked(3)?;
    let status = StatusCode::from_bytes(code).ok().filter(|status| !status.is_informational())?;
    if !matches!(reason.first(), None | Some(b' ')) {
        return None;
    }
    let reason = reason.trim_ascii();
    let is_own = !reason.is_empty() && status.canonical_reason().map(str::as_bytes) != Some(reason);
    let reason = if is_own { Some(ReasonPhrase::try_from(reason.to_vec()).ok()?) } else { None };
    Some((status, reason))
}

const STATUS: HeaderName = HeaderName::from_static("status");

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 200, fields: 4 };

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u16).to_be_bytes();
        [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
    }

    fn end() -> Vec<u8> {
        record(3, &[0; 8])
    }

    /// The head, the body, and why the body is not complete.
    type ReadResponse = (Response<()>, Vec<u8>, Option<InvalidMessage>);

    /// The response in these bytes, and its body as far as it is complete.
    fn read(method: &Method, parts: &[&[u8]]) -> Result<ReadResponse, InvalidMessage> {
        let (mut reader, mut input) = (CgiResponseReader::new(LIMITS, method), BytesMut::new());
        let mut response = None;
        for part in parts {
            input.extend_from_slice(part);
            if response.is_none() {
                response = reader.read(&mut input)?;
            }
        }
        let ReceivedResponse { head, mut body, is_persistent, .. } = response.ok_or(InvalidMessage::Truncated)?;
        assert!(!is_persistent);
        let (mut data, mut error) = (Vec::new(), None);
        loop {
            match body.decode(&mut input) {
                Poll::Ready(Some(Ok(frame))) => data.extend_from_slice(frame.data_ref().unwrap()),
                Poll::Ready(Some(Err(found))) => error = Some(found),
                Poll::Ready(None) => break,
                Poll::Pending => {
                    error = body.end_input().err();
                    break;
                }
            }
        }
        assert_eq!(body.is_ended(), error.is_none());
        Ok((head, data, error))
    }

    fn of(text: &str) -> Result<(u16, Vec<u8>, Option<InvalidMessage>), InvalidMessage> {
        let all = [record(6, text.as_bytes()), record(6, b""), end()].concat();
        let (head, data, error) = read(&Method::GET, &[&all])?;
        assert!(!head.headers().contains_key(STATUS) && !head.headers().contains_key(TRANSFER_ENCODING), "{text}");
        Ok((head.status().as_u16(), data, error))
    }

    #[test]
    fn status_is_a_field() {
        for (text, status) in [
            ("Content-Type: text/plain\r\n\r\nbody", 200),
            ("\r\nbody", 200),
            ("\nbody", 200),
            ("Status: 404 Not Found\nX-A: b\n\nbody", 404),
            ("status:  503\r\n\r\nbody", 503),
            ("Status: 600 Own Reason\r\n\r\nbody", 600),
            ("Location: /a\r\n\r\nbody", 302),
            ("Status: 201 Created\r\nLocation: /a\r\n\r\nbody", 201),
            ("HTTP/1.1 500 Oops\r\nX-A: b\r\n\r\nbody", 200),
            ("Transfer-Encoding: chunked\r\n\r\nbody", 200),
        ] {
            assert_eq!(of(text), Ok((status, b"body".to_vec(), None)), "{text}");
        }
        let all = [record(6, b"Status: 404 Gone Fishing\r\n\r\n"), end()].concat();
        let (head, ..) = read(&Method::GET, &[&all]).unwrap();
        assert_eq!(head.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Gone Fishing");
    }

    #[test]
    fn other_heads_are_invalid() {
        for (text, error) in [
            ("Status: abc\r\n\r\n", InvalidMessage::Status),
            ("Status: 99\r\n\r\n", InvalidMessage::Status),
            ("Status: 1000\r\n\r\n", InvalidMessage::Status),
            ("Status: 100 Continue\r\n\r\n", InvalidMessage::Status),
            ("Status: 101 Switching Protocols\r\n\r\n", InvalidMessage::Status),
            ("Status: 200\r\nStatus: 200\r\n\r\n", InvalidMessage::Status),
            ("Status:\r\n\r\n", InvalidMessage::Status),
            ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", InvalidMessage::Length),
            ("Content-Length: x\r\n\r\nab", InvalidMessage::Length),
            ("Content-Length: 18446744073709551615\r\n\r\nab", InvalidMessage::Length),
            ("X A: b\r\n\r\n", InvalidMessage::Field),
            ("X-A : b\r\n\r\n", InvalidMessage::Field),
            ("X-A: b\r\n c\r\n\r\n", InvalidMessage::Field),
            ("A: 1\nB: 2\nC: 3\nD: 4\nE: 5\n\n", InvalidMessage::TooLarge),
            ("no end of the head", InvalidMessage::Truncated),
            ("", InvalidMessage::Truncated),
        ] {
            assert_eq!(of(text), Err(error), "{text}");
        }
        let long = format!("X-A: {}\r\n\r\n", "a".repeat(LIMITS.bytes));
        assert_eq!(of(&long), Err(InvalidMessage::TooLarge));
        let unending = record(6, &[b'a'; 300]);
        assert_eq!(read(&Method::GET, &[&unending]).unwrap_err(), InvalidMessage::TooLarge);
    }

    #[test]
    fn length_of_the_body_is_checked() {
        assert_eq!(of("Content-Length: 2\n\nabcdef"), Ok((200, b"ab".to_vec(), None)));
        assert_eq!(of("Content-Length: 0\n\nabcdef"), Ok((200, Vec::new(), None)));
        assert_eq!(of("Content-Length: 9\n\nab"), Ok((200, b"ab".to_vec(), Some(InvalidMessage::Truncated))));
        let all = [record(6, b"Content-Type: a/b\n\nab"), record(6, b"cd")].concat();
        let (_, data, error) = read(&Method::GET, &[&all]).unwrap();
        assert_eq!((&data[..], error), (&b"abcd"[..], Some(InvalidMessage::Truncated)), "no record ends the response");
        let closed = [all, record(6, b"")].concat();
        assert_eq!(read(&Method::GET, &[&closed]).unwrap().2, None);
    }

    #[test]
    fn some_responses_have_no_body() {
        for (method, status) in [(Method::HEAD, "200"), (Method::GET, "204"), (Method::GET, "304")] {
            let text = format!("Status: {status}\nContent-Length: 4\n\nbody");
            let all = [record(6, text.as_bytes()), end()].concat();
            let (head, data, error) = read(&method, &[&all]).unwrap();
            assert_eq!((head.status().as_str(), data, error), (status, Vec::new(), None), "{method}");
        }
    }

    #[test]
    fn splits_change_nothing() {
        let all = [
            record(6, b"Sta"),
            record(7, b"warning"),
            record(6, b"tus: 201\r\nX-A: b\r"),
            record(6, b"\n\r\nbo"),
            record(6, b"dy"),
            end(),
        ]
        .concat();
        for at in 0..all.len() {
            let (first, second) = all.split_at(at);
            let (head, data, error) = read(&Method::GET, &[first, second]).unwrap();
            assert_eq!((head.status().as_u16(), &data[..], error), (201, &b"body"[..], None), "{at}");
            assert_eq!(head.headers()["x-a"], "b", "{at}");
        }
    }
}
