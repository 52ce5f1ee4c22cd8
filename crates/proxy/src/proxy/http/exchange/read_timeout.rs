//! The timeouts that a rule or a Service sets for endpoints, and the timer of the read timeout.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::http::forwarding::attempt_timeouts::AttemptTimeouts;
use crate::snapshot::timeouts_and_retries::EndpointTimeout;

/// The timeouts that a rule or a Service sets. A timeout that is not set has the default of `ProxyLimits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct RuleTimeouts {
    connect: EndpointTimeout,
    write: EndpointTimeout,
    read: EndpointTimeout,
    stream_idle: EndpointTimeout,
    max_duration: EndpointTimeout,
    /// The time for a response is limited, so the default response timeout does not apply.
    limits_response: bool,
}

impl RuleTimeouts {
    pub(in crate::proxy) fn new(timeouts: &AttemptTimeouts) -> Self {
        let AttemptTimeouts { connect, write, read, stream_idle, max_duration, .. } = *timeouts;
        RuleTimeouts { connect, write, read, stream_idle, max_duration, limits_response: timeouts.limits_response() }
    }

    pub(in crate::proxy) fn connect(self) -> Option<Duration> {
        self.connect.duration()
    }

    pub(in crate::proxy) fn write(self) -> Option<Duration> {
        self.write.duration()
    }

    pub(in crate::proxy) fn read(self) -> Option<Duration> {
        self.read.duration()
    }

    /// How long a request or response may stand still, whichever side it waits for.
    pub(in crate::proxy) fn stream_idle(self) -> Option<Duration> {
        self.stream_idle.duration()
    }

    /// How long the whole exchange may take, also if it is a tunnel.
    pub(in crate::proxy) fn max_duration(self) -> Option<Duration> {
        self.max_duration.duration()
    }

    pub(in crate::proxy) fn limits_response(self) -> bool {
        self.limits_response
    }

    /// Whether connecting, writing and reading have the default timeouts.
    pub(in crate::proxy) fn is_unset(self) -> bool {
        let RuleTimeouts { connect, write, read, .. } = self;
        RuleTimeouts { connect, write, read, ..RuleTimeouts::default() } == RuleTimeouts::default()
    }
}

/// The read timeout within a response. It runs only while the next part is awaited, so a client that reads slowly does
/// not cause it to expire.
#[derive(Debug)]
pub(in crate::proxy) struct ReadTimeout {
    sleep: Pin<Box<Sleep>>,
    is_running: bool,
}

impl ReadTimeout {
    /// Starts the timeout.
    pub(in crate::proxy) fn start(limit: Duration) -> Self {
        ReadTimeout { sleep: Box::pin(sleep_until(Instant::now() + limit)), is_running: true }
    }

    /// Stops the timeout, after data was received.
    pub(in crate::proxy) fn stop(&mut self) {
        self.is_running = false;
    }

    /// Polled when no data is available; restarts a stopped timeout. Ready if the timeout has expired.
    pub(in crate::proxy) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_running, true) {
            self.sleep.as_mut().reset(Instant::now() + limit);
        }
        self.sleep.as_mut().poll(cx)
    }
}
