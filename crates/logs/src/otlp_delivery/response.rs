//! What the response to an export means: the specification of OTLP, sections "OTLP/gRPC Response", "OTLP/HTTP Response"
//! and "Partial Success".

use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use serde_json::Value;

use super::grpc_client::GrpcResponse;
use crate::log_delivery::retry_after;
use crate::plugin_api::batch_queue::BatchOutcome;
use crate::plugin_api::remote_request::RemoteResponse;
use crate::plugin_api::server_text::shorten;
use crate::plugin_formats::grpc::{CallStatus, MessageFrames};

/// What becomes of a batch, and what the server has to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportResult {
    pub(super) outcome: BatchOutcome,
    /// A clause whose subject is the server.
    pub(super) failure: Option<String>,
}

/// `ExportTraceServiceResponse` and `ExportLogsServiceResponse`, whose fields have the same numbers.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

pub(super) fn of_http(response: &RemoteResponse, is_json: bool, now: SystemTime) -> ExportResult {
    let status = response.status;
    if status.is_success() {
        let partial = if is_json {
            partial_of_json(&response.body)
        } else {
            ExportResponse::decode(&*response.body).ok().and_then(|response| response.partial_success)
        };
        return accepted(partial);
    }
    let failure = Some(format!("responded with status {}", status.as_u16()));
    let outcome = match (is_retriable(status), retry_after(&response.headers, now)) {
        (false, _) => BatchOutcome::Refused,
        (true, Some(time)) => BatchOutcome::Later(time),
        (true, None) => BatchOutcome::Failed,
    };
    ExportResult { outcome, failure }
}

pub(super) fn of_grpc(response: &GrpcResponse) -> ExportResult {
    if response.status != StatusCode::OK {
        let failure = Some(format!("responded with status {}", response.status.as_u16()));
        let outcome = if is_retriable(response.status) { BatchOutcome::Failed } else { BatchOutcome::Refused };
        return ExportResult { outcome, failure };
    }
    let status = CallStatus::from_fields(&response.fields).unwrap_or_else(CallStatus::missing);
    if status.is_ok() {
        let message = MessageFrames::split(&response.body, response.body.len()).ok();
        let message = message.and_then(|messages| messages.into_iter().next()).unwrap_or_default();
        return accepted(ExportResponse::decode(message).ok().and_then(|response| response.partial_success));
    }
    let delay = status.retry_delay();
    let outcome = match status.code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 10 | 11 | 14 | 15 => delay.map_or(BatchOutcome::Failed, BatchOutcome::Later),
        // RESOURCE_EXHAUSTED: only if the server expects to recover.
        8 => delay.map_or(BatchOutcome::Refused, BatchOutcome::Later),
        _ => BatchOutcome::Refused,
    };
    ExportResult {
        outcome,
        failure: Some(format!("responded with code {}: {}", status.code, shorten(&status.message))),
    }
}

fn accepted(partial: Option<PartialSuccess>) -> ExportResult {
    let Some(PartialSuccess { rejected, error_message }) = partial else {
        return ExportResult { outcome: BatchOutcome::Accepted, failure: None };
    };
    // Without a number, the text is only a warning.
    match u64::try_from(rejected).unwrap_or_default() {
        0 if error_message.is_empty() => ExportResult { outcome: BatchOutcome::Accepted, failure: None },
        0 => {
            let failure = Some(format!("has a warning: {}", shorten(&error_message)));
            ExportResult { outcome: BatchOutcome::Accepted, failure }
        }
        rejected => {
            let failure = Some(format!("has rejected {rejected} of them: {}", shorten(&error_message)));
            ExportResult { outcome: BatchOutcome::AcceptedInPart { rejected }, failure }
        }
    }
}

fn partial_of_json(body: &Bytes) -> Option<PartialSuccess> {
    let response: Value = serde_json::from_slice(body).ok()?;
    let partial = response.get("partialSuccess")?;
    let number =
        ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"].iter().find_map(|name| partial.get(name));
    let number = number.and_then(|number| number.as_i64().or_else(|| number.as_str()?.parse().ok()));
    let error_message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(PartialSuccess { rejected: number.unwrap_or_default(), error_message })
}

fn is_retriable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::plugin_api::scripted_server::response;
    use crate::plugin_formats::grpc::frame;

    fn result(outcome: BatchOutcome, failure: &str) -> ExportResult {
        ExportResult { outcome, failure: (!failure.is_empty()).then(|| failure.to_owned()) }
    }

    #[test]
    fn statuses_of_http_say_whether_to_send_again() {
        let now = httpdate::parse_http_date("Fri, 27 Nov 2026 20:00:00 GMT").unwrap();
        for (status, headers, outcome) in [
            (200, "", BatchOutcome::Accepted),
            (202, "", BatchOutcome::Accepted),
            (302, "location: /b", BatchOutcome::Refused),
            (400, "retry-after: 1", BatchOutcome::Refused),
            (401, "", BatchOutcome::Refused),
            (413, "", BatchOutcome::Refused),
            (429, "retry-after: 7", BatchOutcome::Later(Duration::from_secs(7))),
            (429, "", BatchOutcome::Failed),
            (500, "", BatchOutcome::Refused),
            (502, "", BatchOutcome::Failed),
            (503, "retry-after: Fri, 27 Nov 2026 20:01:00 GMT", BatchOutcome::Later(Duration::from_secs(60))),
            (503, "retry-after: Fri, 27 Nov 2026 19:00:00 GMT", BatchOutcome::Failed),
            (504, "retry-after: -1", BatchOutcome::Failed),
        ] {
            let found = of_http(&response(status, headers, ""), false, now);
            let failure = if status < 300 { String::new() } else { format!("responded with status {status}") };
            assert_eq!(found, result(outcome, &failure), "{status} {headers}");
        }
    }

    #[test]
    fn servers_accept_in_part_and_warn() {
        let partial = |rejected, text: &str| {
            let partial_success = Some(PartialSuccess { rejected, error_message: text.to_owned() });
            ExportResponse { partial_success }.encode_to_vec()
        };
        let some = result(BatchOutcome::AcceptedInPart { rejected: 3 }, "has rejected 3 of them: too old");
        let warning = result(BatchOutcome::Accepted, "has a warning: deprecated");
        let http = |body: Vec<u8>, is_json| {
            of_http(&RemoteResponse { body: body.into(), ..response(200, "", "") }, is_json, UNIX_EPOCH)
        };
        assert_eq!(http(partial(3, "too old"), false), some);
        assert_eq!(http(partial(0, "deprecated"), false), warning);
        let none = result(BatchOutcome::Accepted, "");
        assert_eq!(http(partial(0, ""), false), none);
        assert_eq!(http(partial(-3, ""), false), none);
        assert_eq!(http(b"no message of the protocol".to_vec(), false), none);
        for body in [
            r#"{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}}"#,
            r#"{"partialSuccess": {"rejectedLogRecords": 3, "errorMessage": "too old"}}"#,
        ] {
            assert_eq!(http(body.as_bytes().to_vec(), true), some, "{body}");
        }
        assert_eq!(http(b"{}".to_vec(), true), none);
        let fields = HeaderMap::from_iter([(CallStatus::STATUS_FIELD, HeaderValue::from_static("0"))]);
        let body = frame(0, &partial(3, "too old"));
        assert_eq!(of_grpc(&GrpcResponse { status: StatusCode::OK, fields, body }), some);
    }

    #[test]
    fn codes_of_grpc_say_whether_to_send_again() {
        // google.rpc.Status with a RetryInfo of 7 s in its details, without the padding of base64.
        let type_url = "type.googleapis.com/google.rpc.RetryInfo";
        let any = [&[0x0A, 0x28][..], type_url.as_bytes(), &[0x12, 4, 0x0A, 2, 0x08, 7]].concat();
        let details = [&[0x1A, u8::try_from(any.len()).unwrap()][..], &any].concat();
        let details = base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, details);
        let later = BatchOutcome::Later(Duration::from_secs(7));
        for (code, has_info, outcome) in [
            (1, false, BatchOutcome::Failed),
            (3, false, BatchOutcome::Refused),
            (4, false, BatchOutcome::Failed),
            (7, true, BatchOutcome::Refused),
            (8, false, BatchOutcome::Refused),
            (8, true, later),
            (14, false, BatchOutcome::Failed),
            (14, true, later),
            (16, false, BatchOutcome::Refused),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(CallStatus::STATUS_FIELD, HeaderValue::from(code));
            fields.insert(CallStatus::MESSAGE_FIELD, HeaderValue::from_static("busy"));
            if has_info {
                fields.insert(CallStatus::DETAILS_FIELD, details.parse().unwrap());
            }
            let found = of_grpc(&GrpcResponse { status: StatusCode::OK, fields, body: Bytes::new() });
            assert_eq!(found, result(outcome, &format!("responded with code {code}: busy")), "{code} {has_info}");
        }
        let without_status = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            of_grpc(&GrpcResponse { status, fields: HeaderMap::new(), body: Bytes::new() }).outcome
        };
        assert_eq!(without_status(503), BatchOutcome::Failed);
        assert_eq!(without_status(404), BatchOutcome::Refused);
        assert_eq!(without_status(200), BatchOutcome::Refused);
    }
}
