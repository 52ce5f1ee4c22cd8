//! The timeouts of requests to a Service.

use std::time::Duration;

use serde::Serialize;

use super::json_form;

/// Timeouts. `None`: not set, so that the default of the process applies. Zero: no timeout. Rules with timeouts of
/// their own have those instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestTimeouts {
    /// For opening a connection to an endpoint, with TLS.
    #[serde(serialize_with = "json_form::duration")]
    pub connect: Option<Duration>,
    /// How long connections to endpoints stay open without requests.
    #[serde(serialize_with = "json_form::duration")]
    pub idle: Option<Duration>,
    /// For the whole request, with all attempts.
    #[serde(serialize_with = "json_form::duration")]
    pub request: Option<Duration>,
    /// For one attempt.
    #[serde(serialize_with = "json_form::duration")]
    pub backend_request: Option<Duration>,
    /// How long a request or response may stand still.
    #[serde(serialize_with = "json_form::duration")]
    pub stream_idle: Option<Duration>,
    /// For the whole exchange, also if it is a tunnel or a stream of messages.
    #[serde(serialize_with = "json_form::duration")]
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
