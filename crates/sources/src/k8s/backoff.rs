//! Exponential back-off with jitter, so that clients that failed together do not retry together.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max, step: first }
    }

    /// The next delay: a random one between half of the current step and all of it. Doubles the step.
    pub(super) fn next_delay(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.max);
        step / 2 + step.mul_f64(fastrand::f64() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_the_limit_and_resets() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for step in [1, 2, 4, 5, 5] {
            let delay = backoff.next_delay();
            assert!(delay >= step * second / 2 && delay <= step * second, "{delay:?} of {step} s");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= second);
    }
}
