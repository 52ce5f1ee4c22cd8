//! The attempts of a request in a line: the endpoint of each, its status or why it failed, and how long it took.

use super::encode;
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};

/// A list of objects: `[{"endpoint":"10.0.0.2:80","class":"responded","status":200,"ms":1.5}]`.
pub(super) fn write_json(tries: &[Attempt], line: &mut Vec<u8>) {
    line.push(b'[');
    for (index, attempt) in tries.iter().enumerate() {
        let (class, status) = outcome(attempt);
        line.extend_from_slice(if index == 0 { b"{\"endpoint\":\"" } else { b",{\"endpoint\":\"" });
        encode::address(&attempt.endpoint, line);
        line.extend_from_slice(b"\",\"class\":");
        encode::json(class, line);
        line.extend_from_slice(b",\"status\":");
        match status {
            Some(status) => encode::number(status.into(), line),
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(b",\"ms\":");
        encode::milliseconds(attempt.total, 1, line);
        line.push(b'}');
    }
    line.push(b']');
}

/// `10.0.0.1:80/connection_refused/0.100ms,10.0.0.2:80/200/1.500ms`.
pub(super) fn write_text(tries: &[Attempt], line: &mut Vec<u8>) {
    for (index, attempt) in tries.iter().enumerate() {
        let (class, status) = outcome(attempt);
        if index > 0 {
            line.push(b',');
        }
        encode::address(&attempt.endpoint, line);
        line.push(b'/');
        match status {
            Some(status) => encode::number(status.into(), line),
            None => line.extend_from_slice(class.as_bytes()),
        }
        line.push(b'/');
        encode::milliseconds(attempt.total, 3, line);
        line.extend_from_slice(b"ms");
    }
}

/// What came of an attempt: `responded` with a status, `cancelled`, or the reason of a request error.
fn outcome(attempt: &Attempt) -> (&'static str, Option<u16>) {
    match attempt.outcome {
        AttemptOutcome::Status(status) => ("responded", Some(status.as_u16())),
        AttemptOutcome::Failed { reason, .. } => (reason, None),
        AttemptOutcome::Unfinished => ("cancelled", None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn attempts_are_written_in_order() {
        let attempt = |port, micros, outcome| Attempt {
            outcome,
            total: Duration::from_micros(micros),
            ..Attempt::start(([10, 0, 0, 1], port).into(), Instant::now())
        };
        let tries = [
            attempt(1, 100, AttemptOutcome::Failed { reason: "no_response", status: StatusCode::BAD_GATEWAY }),
            attempt(2, 0, AttemptOutcome::Unfinished),
            attempt(3, 1500, AttemptOutcome::Status(StatusCode::OK)),
        ];
        let mut text = Vec::new();
        write_text(&tries, &mut text);
        let expected = "10.0.0.1:1/no_response/0.100ms,10.0.0.1:2/cancelled/0.000ms,10.0.0.1:3/200/1.500ms";
        assert_eq!(str::from_utf8(&text).unwrap(), expected);
        let mut json = Vec::new();
        write_json(&tries, &mut json);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = serde_json::json!([
            { "endpoint": "10.0.0.1:1", "class": "no_response", "status": null, "ms": 0.1 },
            { "endpoint": "10.0.0.1:2", "class": "cancelled", "status": null, "ms": 0.0 },
            { "endpoint": "10.0.0.1:3", "class": "responded", "status": 200, "ms": 1.5 },
        ]);
        assert_eq!(json, expected);
    }
}
