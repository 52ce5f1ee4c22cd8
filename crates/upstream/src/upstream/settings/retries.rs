//! When and how a request to a Service is sent again.

use std::time::Duration;

use http::HeaderName;

/// The retries of a Service. Rules with retries of their own have those instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts after the first one.
    pub attempts: u32,
    pub on: RetryConditions,
    /// The delay before the first retry is up to `base`; that limit doubles with each retry, up to `max`.
    pub base: Duration,
    pub max: Duration,
    /// The longest wait that a response may request by `Retry-After` or `reset_header`. With zero, such a response is
    /// not retried.
    pub max_retry_after: Duration,
    pub reset_header: Option<ResetHeader>,
    /// Whether requests are repeated whatever their method is.
    pub non_idempotent: bool,
    /// Whether a request with `Idempotency-Key` is idempotent.
    pub trust_idempotency_key: bool,
    /// A larger body is sent once, in bytes.
    pub max_body: usize,
    pub hedge: Option<HedgeSettings>,
    /// A field of requests to endpoints with the number of the attempt, from 1.
    pub attempt_header: Option<HeaderName>,
    /// A request that arrives with a higher number in `attempt_header` is not retried. A response that is not retried
    /// further tells earlier gateways not to retry either, by `x-envoy-overloaded`.
    pub respects_attempt: bool,
}

/// The defaults of a policy that sets nothing: one retry of what was not processed.
impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings {
            attempts: 1,
            on: RetryConditions { connect_failure: true, refused_stream: true, ..RetryConditions::default() },
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
            max_retry_after: Duration::ZERO,
            reset_header: None,
            non_idempotent: false,
            trust_idempotency_key: false,
            max_body: 64 * 1024,
            hedge: None,
            attempt_header: None,
            respects_attempt: false,
        }
    }
}

/// What is retried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryConditions {
    pub connect_failure: bool,
    pub refused_stream: bool,
    /// The connection closed without a response.
    pub reset: bool,
    pub timeout: bool,
    /// 502, 503 and 504.
    pub gateway_error: bool,
    /// 500 to 599 but 501 and 505.
    pub server_error: bool,
    /// Statuses, sorted.
    pub codes: Box<[u16]>,
    /// Statuses of gRPC calls whose response consists of trailers only, sorted.
    pub grpc_codes: Box<[u16]>,
    /// Responses with one of these fields.
    pub headers: Box<[HeaderName]>,
}

/// A field of responses that says when the client may send the request again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetHeader {
    pub name: HeaderName,
    pub format: TimeFormat,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// A second attempt while the first one has no response yet; the first good response counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeSettings {
    /// When the second attempt begins; after the time in which 95 % of the responses of the Service begin if `None`.
    pub delay: Option<Duration>,
}
