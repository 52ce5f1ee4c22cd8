//! Admission control: while the success rate is below a threshold, requests are rejected at random, the more the lower
//! it is. Unlike a circuit breaker it never rejects all, so it needs no trial requests.
//!
//! The formula is that of Envoy's filter `admission_control`, from "Handling Overload" in the book "Site Reliability
//! Engineering". Rejected requests do not count.

use std::time::Duration;

use crate::upstream::settings::AdmissionControl;
use crate::upstream::sliding_count::SlidingCount;

/// The requests of the last interval that have ended, and those of them that have succeeded.
#[derive(Debug)]
pub(in crate::upstream) struct SuccessRateWindow {
    interval: Duration,
    requests: SlidingCount,
    successes: SlidingCount,
}

impl SuccessRateWindow {
    pub(in crate::upstream) fn new(interval: Duration) -> Self {
        SuccessRateWindow { interval, requests: SlidingCount::new(interval), successes: SlidingCount::new(interval) }
    }

    pub(in crate::upstream) fn interval(&self) -> Duration {
        self.interval
    }

    pub(in crate::upstream) fn record(&self, now: u64, is_success: bool) {
        self.requests.add(now);
        if is_success {
            self.successes.add(now);
        }
    }

    /// The share of requests to reject now, in `0..=1`.
    pub(in crate::upstream) fn rejected_share(&self, now: u64, settings: &AdmissionControl) -> f64 {
        let (requests, successes) = (self.requests.sum(now) as f64, self.successes.sum(now) as f64);
        let threshold = f64::from(settings.threshold_percent.max(1)) / 100.0;
        let excess = ((requests - successes / threshold) / (requests + 1.0)).max(0.0);
        let aggression = f64::from(settings.aggression.max(1)) / 1000.0;
        excess.powf(1.0 / aggression).min(f64::from(settings.max_reject_percent) / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AdmissionControl {
        AdmissionControl {
            threshold_percent: 95,
            aggression: 1000,
            max_reject_percent: 80,
            window: Duration::from_secs(30),
        }
    }

    #[test]
    fn share_of_rejected_requests_follows_the_success_rate() {
        for (requests, successes, aggression, expected) in [
            (0, 0, 1000, 0.0),
            (1000, 1000, 1000, 0.0),
            (1000, 950, 1000, 0.0),
            (1000, 475, 1000, 0.4995),
            (1000, 475, 2000, 0.7068),
            (1000, 0, 1000, 0.8),
            (1, 0, 1000, 0.5),
        ] {
            let window = SuccessRateWindow::new(settings().window);
            for number in 0..requests {
                window.record(1, number < successes);
            }
            let share = window.rejected_share(1, &AdmissionControl { aggression, ..settings() });
            assert!((share - expected).abs() < 0.001, "{share} for {successes} of {requests}");
            assert_eq!(window.rejected_share(40_000, &settings()), 0.0, "after the window");
        }
    }
}
