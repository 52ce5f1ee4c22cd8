//! When and how a request to a Service is sent again.

use std::time::Duration;

use http::HeaderName;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::json_form;

/// The retries of a Service. Rules with retries of their own have those instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrySettings {
    /// Attempts after the first one.
    pub attempts: u32,
    #[serde(flatten)]
    pub on: RetryConditions,
    pub backoff: RetryBackoff,
    /// The longest wait that a response may request by `Retry-After` or `reset_header`. With zero, such a response is
    /// not retried.
    #[serde(serialize_with = "json_form::duration")]
    pub max_retry_after: Duration,
    pub reset_header: Option<ResetHeader>,
    /// Whether requests are repeated whatever their method is.
    pub non_idempotent: bool,
    /// Whether a request with `Idempotency-Key` is idempotent.
    pub trust_idempotency_key: bool,
    /// A larger body is sent once, in bytes.
    #[serde(serialize_with = "json_form::size")]
    pub max_body: usize,
    pub hedge: Option<HedgeSettings>,
    /// A field of requests to endpoints with the number of the attempt, from 1.
    #[serde(serialize_with = "json_form::header_name")]
    pub attempt_header: Option<HeaderName>,
    /// A request that arrives with a higher number in `attempt_header` is not retried. A response that is not retried
    /// further tells earlier gateways not to retry either, by `x-envoy-overloaded`.
    #[serde(rename = "respectAttempt")]
    pub respects_attempt: bool,
}

/// The defaults of a policy that sets nothing: one retry of what was not processed.
impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings {
            attempts: 1,
            on: RetryConditions { connect_failure: true, refused_stream: true, ..RetryConditions::default() },
            backoff: RetryBackoff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
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

/// The delay before the first retry is up to `base`; that limit doubles with each retry, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryBackoff {
    #[serde(serialize_with = "json_form::duration")]
    pub base: Duration,
    #[serde(serialize_with = "json_form::duration")]
    pub max: Duration,
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

/// The conditions by name, and what they look for.
impl Serialize for RetryConditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = [
            ("ConnectFailure", self.connect_failure),
            ("RefusedStream", self.refused_stream),
            ("Reset", self.reset),
            ("Timeout", self.timeout),
            ("GatewayError", self.gateway_error),
            ("ServerError", self.server_error),
            ("Codes", !self.codes.is_empty()),
            ("GrpcCodes", !self.grpc_codes.is_empty()),
            ("RetriableHeader", !self.headers.is_empty()),
        ];
        let names: Vec<&str> = named.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
        let headers: Vec<&str> = self.headers.iter().map(HeaderName::as_str).collect();
        let mut on = serializer.serialize_struct("RetryConditions", 4)?;
        on.serialize_field("retryOn", &Some(names).filter(|names| !names.is_empty()))?;
        on.serialize_field("codes", &Some(&self.codes).filter(|codes| !codes.is_empty()))?;
        on.serialize_field("grpcCodes", &Some(&self.grpc_codes).filter(|codes| !codes.is_empty()))?;
        on.serialize_field("headers", &Some(headers).filter(|headers| !headers.is_empty()))?;
        on.end()
    }
}

/// A field of responses that says when the client may send the request again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetHeader {
    #[serde(serialize_with = "json_form::text")]
    pub name: HeaderName,
    pub format: TimeFormat,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TimeFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// A second attempt while the first one has no response yet; the first good response counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HedgeSettings {
    /// When the second attempt begins; after the time in which 95 % of the responses of the Service begin if `None`.
    #[serde(serialize_with = "json_form::duration")]
    pub delay: Option<Duration>,
}
