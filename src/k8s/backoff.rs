//! How long to wait before the next try: longer each time, and never the same for two who failed together.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// Between half of the step and all of it.
    pub(super) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step / 2 + step.mul_f64(fastrand::f64() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for step in [1, 2, 4, 5, 5] {
            let wait = backoff.wait();
            assert!(wait >= step * second / 2 && wait <= step * second, "{wait:?} of {step} s");
        }
        backoff.reset();
        assert!(backoff.wait() <= second);
    }
}
