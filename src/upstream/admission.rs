//! The admission of one request to an upstream.

use std::sync::Arc;

use super::retry_budget::ServiceRetryBudget;

/// A request that was admitted. Held until its response or its tunnel has ended.
#[derive(Debug, Default)]
pub struct Admission {
    /// `None` if retries are not limited.
    retries: Option<Arc<ServiceRetryBudget>>,
}

impl Admission {
    pub(super) fn new(retries: Option<Arc<ServiceRetryBudget>>) -> Self {
        Admission { retries }
    }

    /// Whether the Service limits the retries of its requests.
    pub fn limits_retries(&self) -> bool {
        self.retries.is_some()
    }

    /// Whether the request may be sent once more, which is then counted.
    pub fn take_retry(&self) -> bool {
        self.retries.as_ref().is_none_or(|budget| budget.take_retry())
    }
}
