//! Why received bytes are not a message.

use crate::fast_cgi::InvalidRecord;

/// An error of the sender. What follows on the connection has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    #[error("the head has more bytes or fields than its limit")]
    TooLarge,
    #[error("the first line is invalid")]
    FirstLine,
    #[error("the major version of HTTP is not 1")]
    MajorVersion,
    #[error("a header field is invalid")]
    Field,
    #[error("the Content-Length is not a number of bytes, or there are different ones")]
    Length,
    #[error("the Transfer-Encoding is not chunked, or the message is HTTP/1.0")]
    TransferEncoding,
    #[error("the size of a chunk is missing or invalid")]
    ChunkSize,
    #[error("the line with the size of a chunk is too long, or the chunks have too many extensions")]
    LongChunkLine,
    #[error("a chunk does not end in carriage return and line feed after its data")]
    ChunkEnd,
    #[error("the trailers are invalid")]
    Trailers,
    #[error("the Status of a CGI response is not one of a final response")]
    Status,
    #[error("{0}")]
    Record(InvalidRecord),
    #[error("the connection was closed within the message")]
    Truncated,
    #[error("the protocol was switched before the request was sent to its end")]
    EarlyUpgrade,
}
