//! What one attempt to use an endpoint has shown about it.

use std::time::Duration;

use http::StatusCode;

/// The outcome of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub class: OutcomeClass,
    /// The status of the response, if there is one.
    pub status: Option<StatusCode>,
    /// How long connecting took. `None` if the attempt has opened no connection of its own.
    pub connect_time: Option<Duration>,
    /// From the start of the attempt until the head of the response, if there is one.
    pub head_time: Option<Duration>,
    /// The time in the field `Retry-After` of the response.
    pub retry_after: Option<Duration>,
}

/// How far an attempt has come. Only the connection classes change the health of an endpoint, and a response over a
/// connection that was open before: what a response says may depend on the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeClass {
    /// A connection was opened. The attempt continues on it, and is reported again when it ends.
    Connected,
    /// There is a response, or a reply to a datagram.
    Responded,
    /// No connection could be opened, or a datagram was refused.
    ConnectFailed,
    /// No connection could be opened, for a reason that says nothing about the endpoint.
    Inconclusive,
    /// The attempt was given up while it was connecting.
    Abandoned,
    /// The endpoint has not processed the request: it says so, or the request was not sent.
    NotProcessed,
    /// The connection closed before the first byte of a response.
    NoResponse,
    /// There was no response in time.
    TimedOut,
    /// There is no valid response.
    Failed,
}

impl Outcome {
    /// An outcome without a response.
    pub fn of(class: OutcomeClass) -> Self {
        Outcome { class, status: None, connect_time: None, head_time: None, retry_after: None }
    }
}
