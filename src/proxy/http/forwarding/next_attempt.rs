//! What follows an attempt: the response or the error, or another attempt.

use std::time::Duration;

use crate::upstream::{RetryReason, RetryStop};

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAttempt {
    /// Nothing: its outcome is not one that is retried.
    Never,
    /// Nothing, although its outcome is one that is retried.
    Stop(RetryStop),
    Retry(Retry),
}

/// Another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) reason: RetryReason,
    pub(super) delay: RetryDelay,
}

/// When another attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryDelay {
    /// At once, at another endpoint.
    None,
    /// After the back-off.
    Backoff,
    /// After the back-off, and at least the base of it, since there is no endpoint that was not tried.
    SameEndpoint,
    /// After the wait that the response requests.
    Requested(Duration),
}
