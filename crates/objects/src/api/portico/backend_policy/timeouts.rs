//! `spec.timeouts`: the timeouts of requests to a Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::duration_between;

/// Timeouts. 0s switches a timeout off, except that of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTimeoutsSpec {
    /// For opening a connection to an endpoint, with TLS.
    #[schemars(transform = duration_between("1ms", "1h"))]
    pub connect: Option<String>,
    /// How long a connection without requests stays open.
    #[schemars(transform = duration_between("0s", "24h"))]
    pub idle: Option<String>,
    /// For the whole request, with all attempts.
    #[schemars(transform = duration_between("0s", "9999h"))]
    pub request: Option<String>,
    /// For one attempt.
    #[schemars(transform = duration_between("0s", "9999h"))]
    pub backend_request: Option<String>,
    /// How long a request or response may stand still.
    #[schemars(transform = duration_between("0s", "9999h"))]
    pub stream_idle: Option<String>,
    /// For the whole exchange, also if it is a tunnel or a stream of messages.
    #[schemars(transform = duration_between("0s", "9999h"))]
    pub max_duration: Option<String>,
}
