//! The messages of test streams: what backends reply, and how gRPC frames it.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};

/// The reply of a backend to a message, as text: `BACKEND CONNECTION POSITION TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The name of the backend.
    pub(crate) backend: String,
    /// The number of the connection, UDP session or gRPC call in the backend.
    pub(crate) connection: u64,
    /// The position of the message in its connection, from 1.
    pub(crate) position: u64,
    /// The text of the message.
    pub(crate) text: String,
}

impl FromStr for Reply {
    type Err = anyhow::Error;

    fn from_str(reply: &str) -> Result<Reply> {
        let [backend, connection, position, text] = reply.split(' ').collect::<Vec<_>>()[..] else {
            bail!("`{reply}` is not the reply of a backend");
        };
        let (backend, text) = (backend.to_owned(), text.to_owned());
        Ok(Reply { backend, connection: connection.parse()?, position: position.parse()?, text })
    }
}

/// Counts the messages of a connection in a backend.
#[derive(Debug)]
pub(crate) struct Conversation {
    backend: &'static str,
    connection: u64,
    messages: u64,
}

impl Conversation {
    pub(crate) fn new(backend: &'static str, connection: u64) -> Conversation {
        Conversation { backend, connection, messages: 0 }
    }

    /// The reply to the next message.
    pub(crate) fn reply(&mut self, text: &str) -> String {
        self.messages += 1;
        format!("{} {} {} {text}", self.backend, self.connection, self.messages)
    }
}

/// A gRPC message: a byte that says that it is not compressed, its length, and its text.
pub(crate) fn grpc_message(text: &str) -> Result<Bytes> {
    let length = u32::try_from(text.len())?.to_be_bytes();
    Ok([&[0][..], &length, text.as_bytes()].concat().into())
}

/// Reads the gRPC messages of a body.
pub(crate) struct GrpcReader {
    body: Incoming,
    unread: Vec<u8>,
    /// The trailers, when the body has ended.
    trailers: Option<HeaderMap>,
}

impl GrpcReader {
    pub(crate) fn new(body: Incoming) -> GrpcReader {
        GrpcReader { body, unread: Vec::new(), trailers: None }
    }

    /// The text of the next message; None at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(text) = self.take_message()? {
                return Ok(Some(text));
            }
            let Some(frame) = self.body.frame().await else {
                ensure!(self.unread.is_empty(), "the body ends within a message");
                return Ok(None);
            };
            match frame?.into_data() {
                Ok(data) => self.unread.extend(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// Fails unless the call has ended with status 0.
    pub(crate) fn check_status(&self) -> Result<()> {
        let status = self.trailers.as_ref().and_then(|trailers| trailers.get(GRPC_STATUS));
        ensure!(status.context("the call has no status")? == "0", "the call ended with status {status:?}");
        Ok(())
    }

    fn take_message(&mut self) -> Result<Option<String>> {
        let Some((prefix, rest)) = self.unread.split_first_chunk::<5>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]))?;
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let text = String::from_utf8(text.to_vec())?;
        self.unread.drain(..prefix.len() + length);
        Ok(Some(text))
    }
}

/// The trailer with the status of a call.
pub(crate) const GRPC_STATUS: &str = "grpc-status";
