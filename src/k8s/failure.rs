//! Why the API server did not do what it was asked to, as far as it matters for what to do next.

use std::time::Duration;

use kube::core::Status;
use thiserror::Error;

use super::client::chain;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The object changed since it was read.
    #[error("the object was changed by somebody else meanwhile")]
    Conflict,
    /// There is one of this name.
    #[error("there is one already")]
    Exists,
    #[error("there is no such object")]
    Gone,
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// The request can never succeed as it is.
    #[error("refused: {0}")]
    Refused(String),
    /// The API server asks for patience.
    #[error("the API server asks for patience")]
    Throttled(Option<Duration>),
    /// Anything that may pass: no connection, no answer in time, an error of the API server's own.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// As a label of metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Conflict => "conflict",
            Failure::Exists => "exists",
            Failure::Gone => "gone",
            Failure::Forbidden(_) => "forbidden",
            Failure::Refused(_) => "refused",
            Failure::Throttled(_) => "throttled",
            Failure::Unreachable(_) => "unreachable",
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Failure::Unreachable(chain(&error)) };
        let wait = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        let wait = wait.map(|seconds| Duration::from_secs(seconds.into()).min(LONGEST_WAIT));
        match status.code {
            409 if status.is_already_exists() => Failure::Exists,
            409 => Failure::Conflict,
            404 => Failure::Gone,
            403 if is_terminating(&status) => Failure::Gone,
            403 => Failure::Forbidden(status.message),
            // A token that has run out is renewed sooner or later.
            401 => Failure::Unreachable("the API server does not accept our credentials".to_owned()),
            429 => Failure::Throttled(wait),
            // A proxy's page, or a server that has lost its history: nothing that is about this object.
            410 => Failure::Unreachable(format!("410 {}", status.message)),
            400..=499 => Failure::Refused(status.message),
            _ if wait.is_some() => Failure::Throttled(wait),
            _ => Failure::Unreachable(format!("{} {}", status.code, status.message)),
        }
    }
}

impl From<kube::core::request::Error> for Failure {
    fn from(error: kube::core::request::Error) -> Self {
        Failure::Refused(error.to_string())
    }
}

/// Whether nothing can be made because its namespace is being deleted, which is said as if it were not allowed.
pub(super) fn is_terminating(status: &Status) -> bool {
    let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
    status.code == 403 && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whoever is asked for more patience than that tries again nevertheless.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Waits no longer than that for an answer.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::Unreachable(format!("no answer within {limit:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    #[test]
    fn answers_of_the_api_server_are_told_apart() {
        let details = StatusDetails { retry_after_seconds: 3, ..serde_json::from_str("{}").unwrap() };
        let denied = "gateways is forbidden: User \"x\" cannot patch";
        for (code, reason, message, expected) in [
            (409, "Conflict", "", Failure::Conflict),
            (409, "AlreadyExists", "", Failure::Exists),
            (404, "NotFound", "", Failure::Gone),
            (410, "Gone", "moved", Failure::Unreachable("410 moved".to_owned())),
            (403, "Forbidden", denied, Failure::Forbidden(denied.to_owned())),
            (
                401,
                "Unauthorized",
                "",
                Failure::Unreachable("the API server does not accept our credentials".to_owned()),
            ),
            (429, "TooManyRequests", "", Failure::Throttled(Some(Duration::from_secs(3)))),
            (422, "Invalid", "bad", Failure::Refused("bad".to_owned())),
            (503, "", "etcd", Failure::Throttled(Some(Duration::from_secs(3)))),
        ] {
            let status = Status::failure(message, reason).with_code(code).with_details(details.clone());
            assert_eq!(Failure::from(kube::Error::Api(status.boxed())), expected);
        }
        for (code, expected) in [(429, Failure::Throttled(None)), (503, Failure::Unreachable("503 etcd".to_owned()))] {
            let status = Status::failure("etcd", "").with_code(code);
            assert_eq!(Failure::from(kube::Error::Api(status.boxed())), expected);
        }
        let cause: StatusCause = serde_json::from_str(r#"{"reason": "NamespaceTerminating"}"#).unwrap();
        let going = StatusDetails { causes: vec![cause], ..details.clone() };
        let status = Status::failure(denied, "Forbidden").with_code(403).with_details(going);
        assert_eq!(Failure::from(kube::Error::Api(status.boxed())), Failure::Gone);
        let day = StatusDetails { retry_after_seconds: 86_400, ..details };
        let status = Status::failure("", "TooManyRequests").with_code(429).with_details(day);
        assert_eq!(Failure::from(kube::Error::Api(status.boxed())), Failure::Throttled(Some(LONGEST_WAIT)));
    }
}
