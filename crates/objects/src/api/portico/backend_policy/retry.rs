//! `spec.retry`: which requests are repeated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::{duration_between, error_status};
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::{each, unique_entries};

/// Which requests are repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.hedge) || !has(self.attempts) || self.attempts > 0",
    "hedge is a further attempt, but attempts is 0; remove hedge, or increase attempts",
))]
#[schemars(transform = rule(
    "has(self.codes) == (has(self.retryOn) && 'Codes' in self.retryOn)",
    "codes and the condition Codes need each other; add the missing one, or remove the other",
))]
#[schemars(transform = rule(
    "has(self.grpcCodes) == (has(self.retryOn) && 'GrpcCodes' in self.retryOn)",
    "grpcCodes and the condition GrpcCodes need each other; add the missing one, or remove the other",
))]
#[schemars(transform = rule(
    "has(self.headers) == (has(self.retryOn) && 'RetriableHeader' in self.retryOn)",
    "headers and the condition RetriableHeader need each other; add the missing one, or remove the other",
))]
#[schemars(transform = rule(
    "!has(self.respectAttempt) || !self.respectAttempt || has(self.attemptHeader)",
    "respectAttempt needs the name of the field with the number of the attempt; add attemptHeader",
))]
pub struct RetrySpec {
    /// Attempts after the first one; defaults to 1.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: Option<i32>,
    /// What is repeated; defaults to ConnectFailure and RefusedStream. `ConnectFailure`: no connection could be opened.
    /// `RefusedStream`: the endpoint did not process the request. `Reset`: the connection closed without a response.
    /// `Timeout`: an attempt took too long. `GatewayError`: status 502, 503 or 504. `ServerError`: status 500 to 599
    /// except 501 and 505. `Codes`, `GrpcCodes`, `RetriableHeader`: as the fields `codes`, `grpcCodes` and `headers`
    /// say.
    #[schemars(length(min = 1, max = 9), transform = unique_entries, transform = each(form::one_of(CONDITIONS)))]
    pub retry_on: Option<Vec<String>>,
    /// Statuses of responses.
    #[schemars(length(min = 1, max = 16), transform = each(error_status))]
    pub codes: Option<Vec<i32>>,
    /// Statuses of gRPC calls, from 1 to 16. Only responses without messages are repeated.
    #[schemars(length(min = 1, max = 16), transform = each(grpc_status))]
    pub grpc_codes: Option<Vec<i32>>,
    /// Names of header fields: responses with one of them are repeated.
    #[schemars(length(min = 1, max = 8), transform = each(form::token))]
    pub headers: Option<Vec<String>>,
    /// The delay before a retry.
    pub backoff: Option<BackoffSpec>,
    /// The longest wait that a response may request by `Retry-After` or `resetHeader`; defaults to 0s: such responses
    /// are not repeated.
    #[schemars(transform = duration_between("0s", "1h"))]
    pub max_retry_after: Option<String>,
    /// A further field of responses that says when to send the request again.
    pub reset_header: Option<ResetHeaderSpec>,
    /// Whether requests are repeated whatever their method is; defaults to false.
    pub non_idempotent: Option<bool>,
    /// Whether requests with the field `Idempotency-Key` are repeated whatever their method is; defaults to false.
    pub trust_idempotency_key: Option<bool>,
    /// Requests with a larger body are sent once; defaults to 64Ki, at most 1Mi.
    #[schemars(transform = form::text(1, 9, "^[0-9]{1,7}(Ki|Mi)?$"))]
    pub max_body: Option<String>,
    /// Sends a second attempt while the first one has no response yet.
    pub hedge: Option<HedgeSpec>,
    /// Name of a header field with the number of the attempt, which is sent to endpoints.
    #[schemars(transform = form::token)]
    pub attempt_header: Option<String>,
    /// Whether a request that arrives as a retry, as `attemptHeader` says, is not repeated; defaults to false.
    pub respect_attempt: Option<bool>,
    /// Not a field: what YAML 1.1 makes of the name `on`. Write `retryOn`.
    // Without it, an API server removes what a client without validation sent, and the defaults apply.
    #[serde(rename = "true")]
    #[schemars(length(max = 16), transform = each(short_text), transform = rule(
        "false",
        "YAML 1.1 reads the name on as the boolean true, and the field has another name; write retryOn",
    ))]
    pub unquoted_on: Option<Vec<String>>,
}

const CONDITIONS: [&str; 9] = [
    "ConnectFailure",
    "RefusedStream",
    "Reset",
    "Timeout",
    "GatewayError",
    "ServerError",
    "Codes",
    "GrpcCodes",
    "RetriableHeader",
];

/// The delay before a retry: a random time up to `base`, doubled with each retry, up to `max`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.max) || duration(has(self.base) ? self.base : '25ms') <= duration(self.max)",
    "base, which defaults to 25ms, is longer than max; shorten base, or lengthen max",
))]
pub struct BackoffSpec {
    /// The longest delay before the first retry; defaults to 25ms.
    #[schemars(transform = duration_between("1ms", "1m"))]
    pub base: Option<String>,
    /// The longest delay of all; defaults to ten times `base`.
    #[schemars(transform = duration_between("1ms", "1h"))]
    pub max: Option<String>,
}

/// A field of responses that says when to send the request again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResetHeaderSpec {
    /// Name of the field.
    #[schemars(transform = form::token)]
    pub name: String,
    /// What the number in the field is; defaults to Seconds. `Seconds`: seconds from now. `UnixTimestamp`: seconds
    /// since 1970.
    #[schemars(transform = form::one_of(["Seconds", "UnixTimestamp"]))]
    pub format: Option<String>,
}

/// Sends a second attempt while the first one has no response yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HedgeSpec {
    /// When the second attempt begins; defaults to the time in which 95 % of the responses begin, at least 10ms.
    #[schemars(transform = duration_between("1ms", "1h"))]
    pub delay: Option<String>,
}

/// A string of any content.
fn short_text(schema: &mut schemars::Schema) {
    schema.insert("maxLength".to_owned(), serde_json::json!(64));
}

fn grpc_status(schema: &mut schemars::Schema) {
    schema.insert("minimum".to_owned(), serde_json::json!(1));
    schema.insert("maximum".to_owned(), serde_json::json!(16));
}
