//! A forwarded connection or UDP session that has ended, as log plugins read it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::completed_request::{Attempt, CompletedRequest, LoggedTls, NO_CREDENTIALS};

/// What is known about a connection or session when it ends.
#[derive(Clone, Copy, Debug)]
pub struct EndedSession<'r> {
    pub client: IpAddr,
    /// The port of the listener that clients see.
    pub server_port: u16,
    /// Set if Portico has terminated TLS.
    pub tls: Option<LoggedTls<'r>>,
    /// Bytes from the client, and to the client.
    pub received: u64,
    pub sent: u64,
    /// 200, or the status with which a request would have failed.
    pub status: StatusCode,
    pub started_at: SystemTime,
    pub started_instant: Instant,
    pub total: Duration,
    /// The time until an endpoint was connected. `None` if none was.
    pub connect: Option<Duration>,
    pub attempts: &'r [Attempt],
    /// How it ended, unless it was completed.
    pub error: Option<&'static str>,
}

impl<'r> EndedSession<'r> {
    /// What plugins read of requests, as far as sessions have it.
    pub fn as_request(&self, id: &'r HeaderValue) -> CompletedRequest<'r> {
        CompletedRequest {
            id,
            started_at: self.started_at,
            started_instant: self.started_instant,
            heads: None,
            tls: self.tls,
            attempts: self.attempts,
            authorizations: &[],
            before_upstream: self.connect,
            until_response: self.connect,
            error: self.error,
            credentials: &NO_CREDENTIALS,
        }
    }
}
