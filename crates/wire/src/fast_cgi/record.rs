//! The headers of records: their type, the request that they belong to, and the lengths of what follows.

use bytes::{BufMut, BytesMut};

/// The header of a record that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: ReceivedKind,
    /// Bytes of content, and of padding after it.
    pub(super) content: u16,
    pub(super) padding: u8,
}

/// The types of records that an endpoint may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceivedKind {
    EndRequest,
    Stdout,
    Stderr,
}

/// Why received bytes are not the records of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    #[error("the version of a FastCGI record is not 1")]
    Version,
    #[error("a FastCGI record has a type that a response does not have")]
    Kind,
    #[error("a FastCGI record belongs to another request")]
    RequestId,
    #[error("the FastCGI record that ends the response has not the length of such a record")]
    EndLength,
    #[error("the FastCGI server did not complete the request: it is overloaded, or does not support the role")]
    NotCompleted,
    #[error("a FastCGI server sent too many records without a part of the response")]
    NoProgress,
}

impl RecordHeader {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Result<Self, InvalidRecord> {
        let [version, kind, id_high, id_low, content_high, content_low, padding, _] = bytes;
        if version != VERSION {
            return Err(InvalidRecord::Version);
        }
        let kind = match kind {
            END_REQUEST => ReceivedKind::EndRequest,
            STDOUT => ReceivedKind::Stdout,
            STDERR => ReceivedKind::Stderr,
            _ => return Err(InvalidRecord::Kind),
        };
        if u16::from_be_bytes([id_high, id_low]) != REQUEST_ID {
            return Err(InvalidRecord::RequestId);
        }
        let content = u16::from_be_bytes([content_high, content_low]);
        if kind == ReceivedKind::EndRequest && usize::from(content) != END_BODY {
            return Err(InvalidRecord::EndLength);
        }
        Ok(RecordHeader { kind, content, padding })
    }
}

/// Appends the records with which a request begins: the role Responder, without the flag that keeps the connection, and
/// the parameters.
pub(super) fn push_begin(params: &[u8], out: &mut BytesMut) {
    push_header(BEGIN_REQUEST, END_BODY as u16, out);
    out.put_u16(RESPONDER);
    out.put_slice(&[0; 6]);
    for part in params.chunks(MAX_CONTENT) {
        push_header(PARAMS, part.len() as u16, out);
        out.put_slice(part);
    }
    push_header(PARAMS, 0, out);
}

/// Appends the header of a part of the body, which follows it. One without content ends the body.
///
/// # Panics
///
/// If the part is longer than [`MAX_CONTENT`].
pub(crate) fn push_stdin_header(content: usize, out: &mut BytesMut) {
    let content = u16::try_from(content).expect("callers split longer parts");
    push_header(STDIN, content, out);
}

fn push_header(kind: u8, content: u16, out: &mut BytesMut) {
    out.put_slice(&[VERSION, kind]);
    out.put_u16(REQUEST_ID);
    out.put_u16(content);
    // Neither padding nor what is reserved.
    out.put_u16(0);
}

/// The most content of a record that is sent: as much as a record can have, in whole words, as recommended.
pub(crate) const MAX_CONTENT: usize = 65_528;
/// The length of a header.
pub(super) const HEADER: usize = 8;
/// The length of the content of BEGIN_REQUEST and of END_REQUEST.
pub(super) const END_BODY: usize = 8;
/// The only request of the connection.
const REQUEST_ID: u16 = 1;
const VERSION: u8 = 1;
const RESPONDER: u16 = 1;
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_and_checked() {
        let mut out = BytesMut::new();
        push_stdin_header(0x0102, &mut out);
        assert_eq!(&out[..], [1, 5, 0, 1, 1, 2, 0, 0]);
        let stdout = RecordHeader { kind: ReceivedKind::Stdout, content: 0x0304, padding: 5 };
        for (bytes, expected) in [
            ([1, 6, 0, 1, 3, 4, 5, 9], Ok(stdout)),
            ([2, 6, 0, 1, 3, 4, 5, 9], Err(InvalidRecord::Version)),
            ([0; 8], Err(InvalidRecord::Version)),
            ([1, 1, 0, 1, 0, 8, 0, 0], Err(InvalidRecord::Kind)),
            ([1, 10, 0, 0, 0, 0, 0, 0], Err(InvalidRecord::Kind)),
            ([1, 6, 0, 2, 0, 0, 0, 0], Err(InvalidRecord::RequestId)),
            ([1, 6, 1, 1, 0, 0, 0, 0], Err(InvalidRecord::RequestId)),
            ([1, 3, 0, 1, 0, 7, 0, 0], Err(InvalidRecord::EndLength)),
            ([1, 3, 0, 1, 1, 8, 0, 0], Err(InvalidRecord::EndLength)),
        ] {
            assert_eq!(RecordHeader::parse(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn long_parameters_have_several_records() {
        for (length, expected) in
            [(0, &[0][..]), (5, &[5, 0]), (MAX_CONTENT, &[MAX_CONTENT, 0]), (MAX_CONTENT + 1, &[MAX_CONTENT, 1, 0])]
        {
            let params = vec![7; length];
            let mut out = BytesMut::new();
            push_begin(&params, &mut out);
            assert_eq!(out[..HEADER + END_BODY], [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            let (mut rest, mut found, mut content) = (&out[HEADER + END_BODY..], Vec::new(), Vec::new());
            while let Some((header, after)) = rest.split_at_checked(HEADER) {
                assert_eq!(header[..4], [1, 4, 0, 1]);
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                found.push(length);
                content.extend_from_slice(&after[..length]);
                rest = &after[length..];
            }
            assert_eq!((&found[..], content, rest), (expected, params, &[][..]));
        }
    }
}
