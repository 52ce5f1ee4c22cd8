//! The timeouts of requests to a Service.

use std::time::Duration;

/// Timeouts. `None`: not set, so that the default of the process applies. Zero: no timeout. Rules with timeouts of
/// their own have those instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// For opening a connection to an endpoint, with TLS.
    pub connect: Option<Duration>,
    /// How long connections to endpoints stay open without requests.
    pub idle: Option<Duration>,
    /// For the whole request, with all attempts.
    pub request: Option<Duration>,
    /// For one attempt.
    pub backend_request: Option<Duration>,
    /// How long a request or response may stand still.
    pub stream_idle: Option<Duration>,
    /// For the whole exchange, also if it is a tunnel or a stream of messages.
    pub max_duration: Option<Duration>,
}

impl RequestTimeouts {
    /// How long one attempt may take, if that is limited.
    pub fn attempt(&self) -> Option<Duration> {
        self.backend_request.filter(|time| !time.is_zero())
    }

    /// The shorter of the times of an attempt and of a request, if one is limited.
    pub fn shortest(&self) -> Option<Duration> {
        let request = self.request.filter(|time| !time.is_zero());
        [self.attempt(), request].into_iter().flatten().min()
    }
}
