//! gRPC calls: a body consists of messages with a prefix, one if the call is unary, and the trailers of the response
//! have the status of the call.

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pattern::{self, BodyChecker};

/// The value of `content-type`.
pub(crate) const CONTENT_TYPE: &str = "application/grpc";
/// The path of all unary calls.
pub(crate) const PATH: &str = "/portico.Benchmark/Call";
/// The path of all bidirectional calls, in which the backend echoes each message.
pub(crate) const STREAM_PATH: &str = "/portico.Benchmark/Echo";
const STATUS: &str = "grpc-status";

/// A message of this length, after its prefix.
pub(crate) fn framed_message(length: usize) -> Vec<u8> {
    [prefix(length).as_slice(), pattern::body(length)].concat()
}

/// The trailers of a call that succeeded.
pub(crate) fn success() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(STATUS), HeaderValue::from_static("0"))])
}

/// Fails unless the trailers report success.
pub(crate) fn check_status(trailers: &HeaderMap) -> Result<()> {
    let status = trailers.get(STATUS).context("the trailers have no grpc-status")?;
    ensure!(status == "0", "the call failed with grpc-status {status:?}");
    Ok(())
}

/// Verifies a body with one message incrementally.
#[derive(Default)]
pub(crate) struct MessageChecker {
    prefix: Vec<u8>,
    message: BodyChecker,
}

impl MessageChecker {
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        let missing_of_prefix = PREFIX_LENGTH - self.prefix.len();
        let (prefix, message) = bytes.split_at(bytes.len().min(missing_of_prefix));
        self.prefix.extend_from_slice(prefix);
        self.message.read(message);
    }

    /// The message, at the end of the body. Fails unless the prefix is correct.
    pub(crate) fn finish(self) -> Result<BodyChecker> {
        let MessageChecker { prefix: received, message } = self;
        ensure!(
            received == prefix(message.length),
            "the body is not one message: {received:?}, and then {} bytes",
            message.length
        );
        Ok(message)
    }
}

/// A zero, because the message is not compressed, and the length of the message.
fn prefix(length: usize) -> [u8; PREFIX_LENGTH] {
    let [first, second, third, fourth] = (length as u32).to_be_bytes();
    [0, first, second, third, fourth]
}

/// The bytes of a prefix.
pub(crate) const PREFIX_LENGTH: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_verified_with_their_prefix() {
        let framed = framed_message(300);
        assert!(framed.starts_with(&[0, 0, 0, 1, 44]));
        let check = |parts: &[&[u8]]| {
            let mut checker = MessageChecker::default();
            for part in parts {
                checker.read(part);
            }
            checker.finish().map(|message| (message.length, message.differs)).ok()
        };
        assert_eq!(check(&[&framed]), Some((300, false)));
        assert_eq!(check(&[&framed[..2], &framed[2..9], &framed[9..]]), Some((300, false)));
        assert_eq!(check(&[&framed_message(0)]), Some((0, false)));
        // Too short, without a prefix, compressed, and a wrong byte.
        assert_eq!(check(&[&framed[..304]]), None);
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[&[1], &framed[1..]]), None);
        assert_eq!(check(&[&framed[..304], &[!framed[304]]]), Some((300, true)));
    }

    #[test]
    fn status_must_be_in_the_trailers() {
        assert!(check_status(&success()).is_ok());
        assert!(check_status(&HeaderMap::new()).is_err());
        let mut unavailable = success();
        unavailable.insert(STATUS, HeaderValue::from_static("14"));
        assert!(check_status(&unavailable).is_err());
    }
}
