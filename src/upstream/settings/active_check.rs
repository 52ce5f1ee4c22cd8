//! Active health checks: requests that Portico sends to each endpoint.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};

/// The active check of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    pub kind: CheckKind,
    pub interval: Duration,
    /// The interval of an endpoint that is not healthy.
    pub unhealthy_interval: Duration,
    pub timeout: Duration,
    /// Consecutive failures after which an endpoint is ejected.
    pub unhealthy_threshold: u32,
    /// Consecutive passes after which it is available again.
    pub healthy_threshold: u32,
    pub initial: InitialHealth,
    /// The port to check, instead of that of the endpoint.
    pub port: Option<u16>,
    /// Whether checks of an endpoint share a connection.
    pub reuses_connection: bool,
}

/// What a check sends, and what it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    Http {
        /// Whether the check uses TLS where requests do not.
        tls: bool,
        method: Method,
        /// The path with its query.
        path: Uri,
        host: HeaderValue,
        headers: HeaderMap,
        expected: StatusRanges,
    },
    /// Opens a connection, sends `send`, and reads until `expect` was received.
    Tcp { send: Box<[u8]>, expect: Box<[u8]> },
    /// Calls `grpc.health.v1.Health/Check` for a service; the empty name is the whole server.
    Grpc { service: Box<str>, authority: HeaderValue },
}

/// The statuses of responses that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRanges(pub Box<[RangeInclusive<u16>]>);

impl StatusRanges {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// The health of an endpoint before its first check has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialHealth {
    #[default]
    Healthy,
    /// It gets no requests before a check has passed.
    Unhealthy,
}
