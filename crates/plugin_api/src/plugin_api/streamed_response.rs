//! The response to a request that a plugin sends in place of the backend. Its body streams to the client: of each
//! response, only a part is in memory, and nothing is read that the client cannot receive soon.
//!
//! ```text
//!   server ─▶ relay_parts (control side) ─ one part ─▶ RemoteBody ─▶ ReplyStream (worker) ─▶ client
//! ```

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::body_budget::{BudgetExceeded, KeptBytes};
use super::remote_request::RemoteResponse;
use super::reply::{ReplyBody, ReplyStream, ReplyStreamError};

/// The head of a response, and its body as it arrives.
#[derive(Debug)]
pub struct StreamedResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: RemoteBody,
}

/// The body of a [`StreamedResponse`].
#[derive(Debug)]
pub struct RemoteBody {
    parts: mpsc::Receiver<BodyPart>,
    /// The length, if the server has announced it.
    length: Option<u64>,
}

/// What follows in a body. One that ends without its end is truncated.
#[derive(Debug)]
pub enum BodyPart {
    Data(Bytes),
    End,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteFailure {
    /// Other requests have all connections, or the share of the namespace. Says nothing about the server.
    Busy(String),
    /// The server, or the proxy on the way, cannot be connected to or is not what it should be. No client can cause it.
    Unreachable(String),
    /// No response follows on a connection, or none within the time. Clients may ask for what a server does not send.
    NoResponse(String),
}

impl RemoteFailure {
    pub fn into_message(self) -> String {
        match self {
            RemoteFailure::Busy(message) | RemoteFailure::Unreachable(message) | RemoteFailure::NoResponse(message) => {
                message
            }
        }
    }
}

/// Why a body is not collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCollected {
    TooLarge,
    /// The server has closed before its end.
    Truncated,
    BudgetExceeded,
}

impl RemoteBody {
    /// A body without bytes.
    pub fn empty() -> Self {
        let (sender, parts) = mpsc::channel(1);
        // The channel has room.
        drop(sender.try_send(BodyPart::End));
        RemoteBody { parts, length: Some(0) }
    }

    /// A body that gets its parts from the other side of the channel.
    pub fn new(length: Option<u64>) -> (mpsc::Sender<BodyPart>, Self) {
        let (sender, parts) = mpsc::channel(1);
        (sender, RemoteBody { parts, length })
    }

    /// Collects the body. Its bytes are taken from `kept` before they are kept.
    pub async fn collect(mut self, max_bytes: usize, kept: &mut dyn KeptBytes) -> Result<Bytes, NotCollected> {
        if self.length.is_some_and(|length| length > max_bytes as u64) {
            return Err(NotCollected::TooLarge);
        }
        let mut collected = BytesMut::new();
        loop {
            match self.parts.recv().await {
                Some(BodyPart::Data(data)) if data.len() > max_bytes - collected.len() => {
                    return Err(NotCollected::TooLarge);
                }
                Some(BodyPart::Data(data)) => {
                    kept.grow(data.len()).await.map_err(|BudgetExceeded| NotCollected::BudgetExceeded)?;
                    collected.extend_from_slice(&data);
                }
                Some(BodyPart::End) => return Ok(collected.freeze()),
                None => return Err(NotCollected::Truncated),
            }
        }
    }

    /// The body of a reply to the client.
    pub fn into_reply_body(self) -> ReplyBody {
        let length = self.length;
        let parts = stream::unfold(Some(self.parts), async |parts| {
            let mut parts = parts?;
            match parts.recv().await {
                Some(BodyPart::Data(data)) => Some((Ok(data), Some(parts))),
                Some(BodyPart::End) => None,
                None => Some((Err(ReplyStreamError), None)),
            }
        });
        ReplyBody::Stream(ReplyStream::with_length(parts, length))
    }
}

impl From<RemoteResponse> for StreamedResponse {
    /// A response whose body is complete.
    fn from(RemoteResponse { status, headers, body }: RemoteResponse) -> Self {
        let (sender, parts) = mpsc::channel(2);
        let length = Some(body.len() as u64);
        // The channel has room for both.
        if !body.is_empty() {
            drop(sender.try_send(BodyPart::Data(body)));
        }
        drop(sender.try_send(BodyPart::End));
        StreamedResponse { status, headers, body: RemoteBody { parts, length } }
    }
}
