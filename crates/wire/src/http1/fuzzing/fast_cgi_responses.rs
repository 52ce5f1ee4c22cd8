//! Responses of FastCGI servers: however their bytes arrive, the same response is read, and smaller limits accept no
//! others.

use std::task::Poll;

use bytes::BytesMut;
use http::Method;

use super::LIMITS;
use crate::http1::{CgiResponseReader, HeadLimits, InvalidMessage, ReceivedResponse};

/// The first line of the input is the method of the request, HEAD if it begins with `H`, otherwise GET. The rest is
/// what a server sends before it closes the connection.
pub(crate) fn fast_cgi_responses(input: &[u8]) {
    let line_end = memchr::memchr(b'\n', input).map_or(input.len(), |position| position + 1);
    let (line, input) = input.split_at(line_end);
    let method = if line.starts_with(b"H") { Method::HEAD } else { Method::GET };
    let whole = read(input, &method, input.len().max(1), LIMITS);
    for step in [1, 2 + input.len() % 11] {
        assert_eq!(read(input, &method, step, LIMITS), whole, "{step} bytes arrive at a time");
    }
    let small = HeadLimits { bytes: 32 + input.len() % 64, fields: 3 };
    match read(input, &method, 1, small) {
        Err(HeadEndReason::Invalid(InvalidMessage::TooLarge)) => {}
        limited => assert_eq!(limited, whole, "with smaller limits"),
    }
}

#[derive(Debug, PartialEq)]
struct FoundCgiResponse {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    end: Result<(), InvalidMessage>,
}

/// Why there is no head.
#[derive(Debug, PartialEq)]
enum HeadEndReason {
    EndOfInput,
    Invalid(InvalidMessage),
}

fn read(input: &[u8], method: &Method, step: usize, limits: HeadLimits) -> Result<FoundCgiResponse, HeadEndReason> {
    let (mut reader, mut buffer) = (CgiResponseReader::new(limits, method), BytesMut::new());
    let mut parts = input.chunks(step);
    let ReceivedResponse { head, body: mut decoder, .. } = loop {
        buffer.extend_from_slice(parts.next().ok_or(HeadEndReason::EndOfInput)?);
        if let Some(response) = reader.read(&mut buffer).map_err(HeadEndReason::Invalid)? {
            break response;
        }
    };
    let fields = head.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let fields = fields.collect();
    let (mut body, mut end) = (Vec::new(), Ok(()));
    loop {
        match decoder.decode(&mut buffer) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) => body.extend_from_slice(frame.data_ref().expect("records have no trailers")),
            Poll::Ready(Some(Err(error))) => end = Err(error),
            Poll::Pending => match parts.next() {
                Some(part) => buffer.extend_from_slice(part),
                None => {
                    end = decoder.end_input();
                    break;
                }
            },
        }
    }
    assert_eq!(decoder.is_ended(), end.is_ok(), "the end is known");
    Ok(FoundCgiResponse { status: head.status().as_u16(), fields, body, end })
}
