//! Reads the head of a response that arrives on a connection of its own.

use bytes::BytesMut;
use http::{Method, Response};

use crate::http1::{CgiResponseReader, HeadLimits, InvalidMessage, NameCase, ReceivedResponse, ResponseReader};

/// A reader for the protocol of the connection.
#[derive(Debug)]
pub(super) enum EndpointHeadReader {
    Http1(ResponseReader),
    /// Boxed, since most connections are HTTP/1.
    FastCgi(Box<CgiResponseReader>),
}

impl EndpointHeadReader {
    /// `passes_fields`: the fields of plain heads may stay lines.
    pub(super) fn http1(limits: HeadLimits, method: &Method, name_case: NameCase, passes_fields: bool) -> Self {
        let reader = ResponseReader::new(limits, method).with_name_case(name_case);
        EndpointHeadReader::Http1(reader.with_passed_fields(passes_fields))
    }

    pub(super) fn fast_cgi(limits: HeadLimits, method: &Method) -> Self {
        EndpointHeadReader::FastCgi(Box::new(CgiResponseReader::new(limits, method)))
    }

    /// Reads the final head. None if more bytes are necessary.
    pub(super) fn read(&mut self, input: &mut BytesMut) -> Result<Option<ReceivedResponse>, InvalidMessage> {
        match self {
            EndpointHeadReader::Http1(reader) => reader.read(input),
            EndpointHeadReader::FastCgi(reader) => reader.read(input),
        }
    }

    /// Takes the informational responses that were read. A FastCGI server sends none.
    pub(super) fn take_informational(&mut self) -> Vec<Response<()>> {
        match self {
            EndpointHeadReader::Http1(reader) => reader.take_informational(),
            EndpointHeadReader::FastCgi(_) => Vec::new(),
        }
    }

    /// Takes the beginning of what a FastCGI server has written for its log since the last call.
    pub(super) fn take_stderr(&mut self) -> Option<Vec<u8>> {
        match self {
            EndpointHeadReader::Http1(_) => None,
            EndpointHeadReader::FastCgi(reader) => reader.take_stderr(),
        }
    }
}
