//! Active health checks: requests that Portico sends to each endpoint.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::{Serialize, Serializer};

use super::json_form;

/// The active check of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveCheck {
    /// The interval of an endpoint that is healthy. Zero: it is not checked.
    #[serde(serialize_with = "json_form::duration")]
    pub interval: Duration,
    /// The interval of an endpoint that is not healthy. Zero: it is not checked.
    #[serde(serialize_with = "json_form::duration")]
    pub unhealthy_interval: Duration,
    #[serde(serialize_with = "json_form::duration")]
    pub timeout: Duration,
    /// Consecutive failures after which an endpoint is ejected.
    pub unhealthy_threshold: u32,
    /// Replaces `unhealthy_threshold` by one threshold for each kind of failure.
    pub failure_thresholds: Option<FailureThresholds>,
    /// Consecutive passes after which it is available again. 0: passes do not make it available.
    pub healthy_threshold: u32,
    pub initial: InitialHealth,
    /// The port to check, instead of that of the endpoint.
    pub port: Option<u16>,
    /// Whether checks of an endpoint share a connection.
    #[serde(rename = "reuseConnection")]
    pub reuses_connection: bool,
    #[serde(flatten, serialize_with = "with_type")]
    pub kind: CheckKind,
}

impl ActiveCheck {
    /// The time between two checks of an endpoint. `None` if it is not checked in this state.
    pub(crate) fn interval_of(&self, is_healthy: bool) -> Option<Duration> {
        let interval = if is_healthy { self.interval } else { self.unhealthy_interval };
        Some(interval).filter(|interval| !interval.is_zero())
    }

    /// The shorter one of the intervals that are not zero; an hour if both are.
    pub(crate) fn shortest_interval(&self) -> Duration {
        let intervals = [true, false].into_iter().filter_map(|is_healthy| self.interval_of(is_healthy));
        intervals.min().unwrap_or(Duration::from_secs(3600))
    }
}

/// What a check has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    Passed,
    Failed(CheckFailureKind),
}

/// How a check has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckFailureKind {
    Response,
    Connection,
    Timeout,
}

/// After how many consecutive failures of one kind an endpoint is ejected. 0: they do not count. Each kind has a count
/// of its own, and a pass resets all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailureThresholds {
    /// Responses that do not pass, and invalid ones.
    pub responses: u32,
    /// No connection could be opened, or it closed without a response.
    pub connections: u32,
    pub timeouts: u32,
}

/// What a check sends, and what it expects. A field that may have a credential takes `json_form::hidden`, and a value
/// in the test `views_do_not_depend_on_credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "there is one for each upstream with checks")]
pub enum CheckKind {
    Http {
        /// Whether the check uses TLS where requests do not.
        #[serde(skip)]
        tls: bool,
        #[serde(serialize_with = "json_form::text")]
        method: Method,
        /// The path with its query.
        #[serde(serialize_with = "json_form::text")]
        path: Uri,
        #[serde(serialize_with = "json_form::text_of_bytes")]
        host: HeaderValue,
        #[serde(serialize_with = "json_form::hidden_values", skip_serializing_if = "HeaderMap::is_empty")]
        headers: HeaderMap,
        /// The statuses that pass.
        #[serde(rename = "expectedStatuses")]
        expected: StatusRanges,
        /// The statuses that fail; those in neither list change nothing. `None`: all that do not pass.
        #[serde(rename = "failingStatuses")]
        failing: Option<StatusRanges>,
    },
    /// Opens a connection, sends `send`, and reads until `expect` was received.
    Tcp {
        #[serde(serialize_with = "json_form::hidden", skip_serializing_if = "<[_]>::is_empty")]
        send: Box<[u8]>,
        #[serde(serialize_with = "json_form::hexadecimal", skip_serializing_if = "<[_]>::is_empty")]
        expect: Box<[u8]>,
    },
    /// Calls `grpc.health.v1.Health/Check` for a service; the empty name is the whole server.
    Grpc {
        service: Box<str>,
        #[serde(rename = "host", serialize_with = "json_form::text_of_bytes")]
        authority: HeaderValue,
    },
}

/// Adds the type of a check to what it sends and expects.
fn with_type<S: Serializer>(kind: &CheckKind, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct TypedCheck<'a> {
        r#type: CheckType,
        #[serde(flatten)]
        kind: &'a CheckKind,
    }

    TypedCheck { r#type: CheckType::of(kind), kind }.serialize(serializer)
}

impl CheckKind {
    pub(crate) fn needs_http2(&self) -> bool {
        match self {
            CheckKind::Grpc { .. } => true,
            CheckKind::Http { .. } | CheckKind::Tcp { .. } => false,
        }
    }

    /// The host that a check sends, and for which certificates are verified.
    pub fn host(&self) -> Option<&HeaderValue> {
        match self {
            CheckKind::Http { host, .. } => Some(host),
            CheckKind::Grpc { authority, .. } => Some(authority),
            CheckKind::Tcp { .. } => None,
        }
    }

    /// Whether a check only finds out whether the endpoint accepts connections.
    pub(crate) fn only_connects(&self) -> bool {
        match self {
            CheckKind::Tcp { send, expect } => send.is_empty() && expect.is_empty(),
            CheckKind::Http { .. } | CheckKind::Grpc { .. } => false,
        }
    }
}

/// The type of a check, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckType {
    Http,
    Https,
    Tcp,
    Grpc,
}

impl CheckType {
    pub(in crate::upstream) const ALL: [CheckType; 4] =
        [CheckType::Http, CheckType::Https, CheckType::Tcp, CheckType::Grpc];

    /// The type of a check with these settings, whichever way its connections are encrypted for other reasons.
    pub(in crate::upstream) fn of(kind: &CheckKind) -> Self {
        match kind {
            CheckKind::Http { tls: false, .. } => CheckType::Http,
            CheckKind::Http { tls: true, .. } => CheckType::Https,
            CheckKind::Tcp { .. } => CheckType::Tcp,
            CheckKind::Grpc { .. } => CheckType::Grpc,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            CheckType::Http => "http",
            CheckType::Https => "https",
            CheckType::Tcp => "tcp",
            CheckType::Grpc => "grpc",
        }
    }
}

/// Statuses of responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRanges(pub Box<[RangeInclusive<u16>]>);

impl StatusRanges {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// Like `200` or `200-299`.
impl Serialize for StatusRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|range| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        }))
    }
}

/// The health of an endpoint before its first check has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum InitialHealth {
    #[default]
    Healthy,
    /// It gets no requests before a check has passed.
    Unhealthy,
}
