//! What one attempt to use an endpoint has shown about it.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// The outcome of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub class: OutcomeClass,
    /// The status of the response, if there is one.
    pub status: Option<StatusCode>,
    /// The status of a gRPC call.
    pub grpc_status: GrpcStatus,
    /// How long connecting took. `None` if the attempt has opened no connection of its own.
    pub connect_time: Option<Duration>,
    /// The only duration by which anything decides.
    pub waited: EndpointTime,
    /// The time that there was for a response, if there was none in time.
    pub given: GivenTime,
    /// The time in the field `Retry-After` of the response.
    pub retry_after: Option<Duration>,
}

/// How long Portico has waited for an endpoint alone: what an attempt has taken, without the time in which its client
/// had to go on, and without that in which others had the place that it needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointTime {
    /// Until the head of the response. The endpoint had all of the request, or never waited for more of it.
    Exactly(Duration),
    /// The endpoint has responded, or was given up, before all of the request had arrived. That it was awaited for so
    /// long may make it too slow, and never shows that it is fast: what it did while the client was awaited is unknown.
    AtLeast(Duration),
}

impl EndpointTime {
    pub const UNKNOWN: EndpointTime = EndpointTime::AtLeast(Duration::ZERO);

    pub(crate) fn at_least(self) -> Duration {
        match self {
            EndpointTime::Exactly(time) | EndpointTime::AtLeast(time) => time,
        }
    }

    /// A sample of how fast the endpoint is.
    pub(crate) fn exactly(self) -> Option<Duration> {
        match self {
            EndpointTime::Exactly(time) => Some(time),
            EndpointTime::AtLeast(_) => None,
        }
    }
}

/// How long Portico has to wait for an endpoint before a timeout counts. `None`: as long as the settings of health
/// checks say, because the limit is that of a route of another namespace, or of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenTime {
    /// Before it counts for the endpoint. The policy of the Service gives it: its owner knows how long endpoints take.
    pub to_endpoint: Option<Duration>,
    /// Before it counts for the Service: the same, or what the process or a route of the same namespace gives. Such a
    /// route may be about few of the requests, so it says nothing about an endpoint.
    pub to_service: Option<Duration>,
}

impl Outcome {
    /// As it counts for the endpoint. `timeout_after`: the time by the settings of health checks.
    pub(super) fn for_endpoint(&self, timeout_after: Duration) -> Self {
        self.unless_early(self.given.to_endpoint, timeout_after)
    }

    /// As it counts for the Service.
    pub(super) fn for_service(&self, timeout_after: Duration) -> Self {
        self.unless_early(self.given.to_service, timeout_after)
    }

    /// A timeout says nothing unless Portico has waited for so long. A limit also includes what comes before the
    /// attempt, and the time in which the client was awaited: an endpoint that had half of it has no excuse.
    fn unless_early(&self, given: Option<Duration>, timeout_after: Duration) -> Self {
        let needed = given.map_or(timeout_after, |given| given / 2);
        match self.class {
            OutcomeClass::TimedOut if self.waited.at_least() < needed => {
                Outcome { class: OutcomeClass::Inconclusive, ..*self }
            }
            _ => *self,
        }
    }
}

/// The status of a gRPC call, which arrives in the trailers of its response, or in its head if there is no body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcStatus {
    /// The response belongs to no gRPC call, or its status does not count.
    #[default]
    None,
    /// The trailers follow.
    Pending,
    Received(u16),
    /// The first message has arrived.
    Streaming,
}

impl GrpcStatus {
    /// That of a call whose response ends without one, which its client takes for this one.
    pub(crate) const MISSING: GrpcStatus = GrpcStatus::Received(UNKNOWN);

    /// The status in a field `grpc-status`. One that is not a number is unknown.
    pub fn read(value: &HeaderValue) -> Self {
        let code = value.to_str().ok().and_then(|text| text.parse().ok());
        GrpcStatus::Received(code.unwrap_or(UNKNOWN))
    }

    /// Whether the endpoint has given the call up because of its deadline.
    pub fn is_deadline_exceeded(self) -> bool {
        self == GrpcStatus::Received(DEADLINE_EXCEEDED)
    }
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeClass {
    /// A connection was opened. The attempt continues on it, and is reported again when it ends.
    Connected,
    /// There is the head of a response, the status of a gRPC call, or a reply to a datagram.
    Responded,
    /// The response that was reported before has arrived to its end.
    Completed,
    /// No connection could be opened, or a datagram was refused.
    ConnectFailed,
    /// The attempt has ended for a reason that says nothing about the endpoint: the client has caused it, or this
    /// process.
    Inconclusive,
    /// The attempt was given up while it was connecting.
    Abandoned,
    /// The endpoint has not processed the request: it says so, or the request was not sent.
    NotProcessed,
    /// A connection looks dead: it was closed while it was idle, or nothing has arrived for a second.
    Stale,
    /// The connection closed before the first byte of a response. Without a `connect_time`, it had been idle.
    NoResponse,
    /// There was no response in time. It counts only if Portico has waited for the endpoint alone for long enough.
    TimedOut,
    /// There is no valid response.
    Failed,
    /// The response that was reported before ended too early, or was invalid after its head.
    Truncated,
}

impl Outcome {
    /// An outcome without a response.
    pub fn of(class: OutcomeClass) -> Self {
        Outcome {
            class,
            status: None,
            grpc_status: GrpcStatus::None,
            connect_time: None,
            waited: EndpointTime::UNKNOWN,
            given: GivenTime::default(),
            retry_after: None,
        }
    }

    /// The outcome of a gRPC call whose response has begun. A deadline that the client has set says nothing about the
    /// endpoint.
    pub(super) fn of_call(grpc_status: GrpcStatus, has_client_deadline: bool) -> Self {
        if has_client_deadline && grpc_status.is_deadline_exceeded() {
            return Outcome::of(OutcomeClass::Inconclusive);
        }
        Outcome { grpc_status, ..Outcome::of(OutcomeClass::Responded) }
    }

    /// The status that the response would have without gRPC. `None` while that of a gRPC call is not known; 200 if
    /// there is none, as for datagrams.
    pub(super) fn effective_status(&self) -> Option<u16> {
        match (self.grpc_status, self.status) {
            (GrpcStatus::Received(code), _) => Some(http_status_of(code)),
            // Without trailers, as of a proxy in between.
            (GrpcStatus::Pending, Some(status)) if status != StatusCode::OK => Some(status.as_u16()),
            (GrpcStatus::Pending | GrpcStatus::Streaming, _) => None,
            (GrpcStatus::None, status) => Some(status.map_or(200, |status| status.as_u16())),
        }
    }

    /// Whether the status of a gRPC call follows in its trailers.
    pub fn awaits_status(&self) -> bool {
        self.grpc_status == GrpcStatus::Pending && self.effective_status().is_none()
    }

    /// Whether the status may count as a failure.
    pub(super) fn is_error_status(&self) -> bool {
        self.effective_status().is_some_and(|status| status >= 400)
    }
}

/// Servers wait at least this long for a client before they close its connection. What they close earlier was not
/// because of the client.
pub const MIN_CLIENT_DELAY: Duration = Duration::from_secs(1);

/// The field with the status of a gRPC call.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The HTTP status that a gRPC status counts as. Others than these are no failures of the endpoint: they report what
/// the call asked for.
fn http_status_of(code: u16) -> u16 {
    match code {
        UNAVAILABLE => 503,
        DEADLINE_EXCEEDED => 504,
        RESOURCE_EXHAUSTED => 429,
        UNKNOWN | INTERNAL | DATA_LOSS => 500,
        _ => 200,
    }
}

const UNKNOWN: u16 = 2;
const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const DATA_LOSS: u16 = 15;

/// What happened, as logs say it.
impl fmt::Display for OutcomeClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            OutcomeClass::Connected => "connected",
            OutcomeClass::Responded => "responded",
            OutcomeClass::Completed => "completed",
            OutcomeClass::ConnectFailed => "no connection could be opened",
            OutcomeClass::Inconclusive | OutcomeClass::Abandoned => "the attempt was given up",
            OutcomeClass::NotProcessed => "the request was not processed",
            OutcomeClass::Stale => "a connection looks dead",
            OutcomeClass::NoResponse => "the connection was closed before a response",
            OutcomeClass::TimedOut => "no response in time",
            OutcomeClass::Failed => "the response is invalid",
            OutcomeClass::Truncated => "the response is incomplete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_statuses_count_as_http_statuses() {
        for (code, expected) in [(0, 200), (2, 500), (4, 504), (5, 200), (8, 429), (13, 500), (14, 503), (15, 500)] {
            let outcome = Outcome { grpc_status: GrpcStatus::Received(code), ..Outcome::of(OutcomeClass::Responded) };
            assert_eq!(outcome.effective_status(), Some(expected), "{code}");
        }
        let pending = |status| Outcome {
            status: Some(status),
            grpc_status: GrpcStatus::Pending,
            ..Outcome::of(OutcomeClass::Responded)
        };
        assert_eq!(pending(StatusCode::OK).effective_status(), None, "the status is in the trailers");
        assert_eq!(pending(StatusCode::BAD_GATEWAY).effective_status(), Some(502), "no gRPC server has responded");
    }
}
