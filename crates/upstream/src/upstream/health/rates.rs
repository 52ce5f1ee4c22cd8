//! Comparison of the success rates of endpoints, once in each interval.
//!
//! The minimum number of endpoints is compared with those that had enough requests, as Envoy's code does
//! (`outlier_detection_impl.cc`), whatever its documentation says.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::EjectionCause;
use crate::upstream::settings::{FailurePercentage, PassiveChecks, SuccessRate};

/// Requests of the current interval. Counted only if a check compares rates.
#[derive(Debug, Default)]
pub(in crate::upstream) struct RateCounters {
    requests: AtomicU32,
    failures: AtomicU32,
}

/// What one endpoint had in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) struct RateSample {
    pub(in crate::upstream) requests: u32,
    pub(in crate::upstream) failures: u32,
}

impl RateCounters {
    pub(in crate::upstream) fn count(&self, is_failure: bool) {
        self.requests.fetch_add(1, Relaxed);
        if is_failure {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// A request that was counted as successful has failed after all.
    pub(in crate::upstream) fn count_late_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// What was counted since the last call.
    pub(in crate::upstream) fn take(&self) -> RateSample {
        let requests = self.requests.swap(0, Relaxed);
        // A request may be counted in between, and a late failure after its request.
        RateSample { requests, failures: self.failures.swap(0, Relaxed).min(requests) }
    }
}

/// The endpoints to eject, by position, with the causes.
pub(in crate::upstream) fn rate_outliers(
    checks: &PassiveChecks,
    samples: &[RateSample],
) -> Vec<(usize, EjectionCause)> {
    let mut outliers = Vec::new();
    if let Some(check) = &checks.success_rate {
        outliers.extend(low_success_rates(check, samples).map(|index| (index, EjectionCause::SuccessRate)));
    }
    if let Some(check) = &checks.failure_percentage {
        let failing = high_failure_percentages(check, samples);
        outliers.extend(failing.map(|index| (index, EjectionCause::FailurePercentage)));
    }
    outliers
}

fn low_success_rates(check: &SuccessRate, samples: &[RateSample]) -> impl Iterator<Item = usize> + use<> {
    let rate = |sample: &RateSample| 100.0 * (1.0 - f64::from(sample.failures) / f64::from(sample.requests.max(1)));
    let compared: Vec<_> = with_volume(samples, check.min_requests, check.min_endpoints).collect();
    let count = compared.len().max(1) as f64;
    let mean = compared.iter().map(|index| rate(&samples[*index])).sum::<f64>() / count;
    let variance = compared.iter().map(|index| (rate(&samples[*index]) - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - f64::from(check.stdev_factor) / 1000.0 * variance.sqrt();
    let low: Vec<_> = compared.into_iter().filter(|index| rate(&samples[*index]) < threshold).collect();
    low.into_iter()
}

fn high_failure_percentages(check: &FailurePercentage, samples: &[RateSample]) -> impl Iterator<Item = usize> {
    with_volume(samples, check.min_requests, check.min_endpoints).filter(|index| {
        let RateSample { requests, failures } = samples[*index];
        failures > 0 && u64::from(failures) * 100 >= u64::from(check.threshold) * u64::from(requests)
    })
}

/// The endpoints with at least `min_requests`; none if they are fewer than `min_endpoints`.
fn with_volume(samples: &[RateSample], min_requests: u32, min_endpoints: u32) -> impl Iterator<Item = usize> {
    let has_volume = move |sample: &RateSample| sample.requests >= min_requests.max(1);
    let are_enough = samples.iter().filter(|sample| has_volume(sample)).count() >= min_endpoints as usize;
    (0..samples.len()).filter(move |index| are_enough && has_volume(&samples[*index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(u32, u32)]) -> Vec<RateSample> {
        pairs.iter().map(|(requests, failures)| RateSample { requests: *requests, failures: *failures }).collect()
    }

    #[test]
    fn endpoint_far_below_the_mean_is_an_outlier() {
        let check = SuccessRate { min_endpoints: 5, min_requests: 100, stdev_factor: 1900 };
        let checks = PassiveChecks { success_rate: Some(check), ..PassiveChecks::default() };
        let good = (100, 1);
        // The fifth endpoint deviates by two standard deviations, whatever its rate is.
        for (case, pairs, expected) in [
            ("one of five", vec![good, good, good, good, (100, 50)], &[4][..]),
            ("all alike", vec![(100, 50); 5], &[]),
            ("too few endpoints", vec![good, good, good, (100, 50)], &[]),
            ("too few with enough requests", vec![good, good, good, (99, 1), (100, 50)], &[]),
            ("too few requests itself", vec![good, good, good, good, good, (99, 50)], &[]),
            ("two of five", vec![good, good, good, (100, 50), (100, 50)], &[]),
        ] {
            let found: Vec<_> = rate_outliers(&checks, &samples(&pairs)).into_iter().map(|(index, _)| index).collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn endpoints_with_many_failures_are_outliers() {
        let check = FailurePercentage { threshold: 85, min_endpoints: 3, min_requests: 50 };
        let checks = PassiveChecks { failure_percentage: Some(check), ..PassiveChecks::default() };
        for (case, pairs, expected) in [
            ("at the threshold", vec![(100, 85), (100, 84), (50, 0)], &[0][..]),
            ("all of them", vec![(50, 50); 3], &[0, 1, 2]),
            ("too few endpoints", vec![(50, 50), (50, 50), (49, 49)], &[]),
        ] {
            let found = rate_outliers(&checks, &samples(&pairs));
            let expected: Vec<_> = expected.iter().map(|index| (*index, EjectionCause::FailurePercentage)).collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn each_interval_is_counted_anew() {
        let counters = RateCounters::default();
        counters.count(false);
        counters.count(true);
        counters.count_late_failure();
        assert_eq!(counters.take(), RateSample { requests: 2, failures: 2 });
        counters.count_late_failure();
        assert_eq!(counters.take(), RateSample::default(), "no more failures than requests");
    }
}
