//! Errors of requests to the API server, classified by what the caller can do next.

use std::time::Duration;

use kube::core::Status;
use thiserror::Error;

use super::client::error_chain;

/// Why a request to the API server failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    /// The object changed since it was read.
    #[error("the object was changed by another writer in the meantime")]
    Conflict,
    /// An object of this name exists.
    #[error("the object exists already")]
    AlreadyExists,
    #[error("the object does not exist")]
    NotFound,
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The request can never succeed as it is.
    #[error("rejected: {0}")]
    Rejected(String),
    /// 429, or another status with `Retry-After`.
    #[error("the API server is throttling requests")]
    Throttled(Option<Duration>),
    /// Errors that may pass: no connection, no response in time, an error in the API server itself.
    #[error("{0}")]
    Unreachable(String),
}

impl ApiError {
    /// The label value in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            ApiError::Conflict => "conflict",
            ApiError::AlreadyExists => "exists",
            ApiError::NotFound => "gone",
            ApiError::Forbidden(_) => "forbidden",
            ApiError::Rejected(_) => "refused",
            ApiError::Throttled(_) => "throttled",
            ApiError::Unreachable(_) => "unreachable",
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return ApiError::Unreachable(error_chain(&error)) };
        let retry_after =
            status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.into()).min(MAX_RETRY_AFTER));
        match status.code {
            409 if status.is_already_exists() => ApiError::AlreadyExists,
            409 => ApiError::Conflict,
            404 => ApiError::NotFound,
            403 if is_terminating(&status) => ApiError::NotFound,
            403 => ApiError::Forbidden(status.message),
            // An expired token is renewed sooner or later.
            401 => ApiError::Unreachable("the API server rejects Portico's credentials".to_owned()),
            429 => ApiError::Throttled(retry_after),
            // Comes from a proxy, or from a server that lost its history, and says nothing about the object.
            410 => ApiError::Unreachable(format!("410 {}", status.message)),
            400..=499 => ApiError::Rejected(status.message),
            _ if retry_after.is_some() => ApiError::Throttled(retry_after),
            _ => ApiError::Unreachable(format!("{} {}", status.code, status.message)),
        }
    }
}

impl From<kube::core::request::Error> for ApiError {
    fn from(error: kube::core::request::Error) -> Self {
        ApiError::Rejected(error.to_string())
    }
}

/// Whether an object cannot be created because its namespace is being deleted, which the API server reports as 403.
pub(super) fn is_terminating(status: &Status) -> bool {
    let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
    status.code == 403 && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The longest requested delay that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Limits the time to wait for the response.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(limit, request).await {
        Ok(response) => response.map_err(ApiError::from),
        Err(_) => Err(ApiError::Unreachable(format!("no response within {limit:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    #[test]
    fn responses_are_classified() {
        let details = StatusDetails { retry_after_seconds: 3, ..serde_json::from_str("{}").unwrap() };
        let denied = "gateways is forbidden: User \"x\" cannot patch";
        for (code, reason, message, expected) in [
            (409, "Conflict", "", ApiError::Conflict),
            (409, "AlreadyExists", "", ApiError::AlreadyExists),
            (404, "NotFound", "", ApiError::NotFound),
            (410, "Gone", "moved", ApiError::Unreachable("410 moved".to_owned())),
            (403, "Forbidden", denied, ApiError::Forbidden(denied.to_owned())),
            (401, "Unauthorized", "", ApiError::Unreachable("the API server rejects Portico's credentials".to_owned())),
            (429, "TooManyRequests", "", ApiError::Throttled(Some(Duration::from_secs(3)))),
            (422, "Invalid", "bad", ApiError::Rejected("bad".to_owned())),
            (503, "", "etcd", ApiError::Throttled(Some(Duration::from_secs(3)))),
        ] {
            let status = Status::failure(message, reason).with_code(code).with_details(details.clone());
            assert_eq!(ApiError::from(kube::Error::Api(status.boxed())), expected);
        }
        for (code, expected) in [(429, ApiError::Throttled(None)), (503, ApiError::Unreachable("503 etcd".to_owned()))]
        {
            let status = Status::failure("etcd", "").with_code(code);
            assert_eq!(ApiError::from(kube::Error::Api(status.boxed())), expected);
        }
        let cause: StatusCause = serde_json::from_str(r#"{"reason": "NamespaceTerminating"}"#).unwrap();
        let terminating = StatusDetails { causes: vec![cause], ..details.clone() };
        let status = Status::failure(denied, "Forbidden").with_code(403).with_details(terminating);
        assert_eq!(ApiError::from(kube::Error::Api(status.boxed())), ApiError::NotFound);
        let one_day = StatusDetails { retry_after_seconds: 86_400, ..details };
        let status = Status::failure("", "TooManyRequests").with_code(429).with_details(one_day);
        assert_eq!(ApiError::from(kube::Error::Api(status.boxed())), ApiError::Throttled(Some(MAX_RETRY_AFTER)));
    }
}
