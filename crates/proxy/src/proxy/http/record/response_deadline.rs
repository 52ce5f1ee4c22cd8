//! The deadline that a rule or a call sets for a response.

use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep_until};

use super::request_error::RequestError;
use crate::turn_clock;

/// When the response must be complete.
pub(in crate::proxy) struct ResponseDeadline {
    pub(in crate::proxy) sleep: Pin<Box<Sleep>>,
    /// The error if the response is not complete by then.
    pub(in crate::proxy) error: RequestError,
}

impl ResponseDeadline {
    pub(in crate::proxy) fn new(end: Instant, error: RequestError) -> Box<Self> {
        Box::new(ResponseDeadline { sleep: Box::pin(sleep_until(end)), error })
    }

    /// Returns the error if the deadline has passed. Otherwise, the task is woken when it passes.
    pub(in crate::proxy) fn poll_error(&mut self, cx: &mut Context<'_>) -> Option<RequestError> {
        // While tasks are busy, the runtime looks at its timers only once in 61 polls, in which a fast endpoint sends
        // hundreds of megabytes.
        let has_passed = self.sleep.as_mut().poll(cx).is_ready() || self.sleep.deadline() <= turn_clock::now();
        has_passed.then_some(self.error)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn deadline_passes_while_the_runtime_does_not_look_at_its_timers() {
        let end = Instant::now() + Duration::from_millis(20);
        let mut deadline = ResponseDeadline::new(end, RequestError::ResponseTimeout);
        let mut cx = Context::from_waker(Waker::noop());
        let first = deadline.poll_error(&mut cx);
        assert!(first.is_none() || Instant::now() >= end, "{first:?}");
        #[expect(clippy::disallowed_methods, reason = "it must stop the runtime, as busy tasks do")]
        std::thread::sleep(end - Instant::now()); // Afterwards the deadline has passed.
        assert_eq!(deadline.poll_error(&mut cx), Some(RequestError::ResponseTimeout));
    }
}
