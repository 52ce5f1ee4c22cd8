//! The results of an endpoint's checks in a row, and what follows from them.

use crate::upstream::settings::ActiveCheck;

/// What the last checks of an endpoint have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckHistory {
    has_passed: bool,
    /// How many checks in a row had this result; 0 before the first one.
    consecutive: u32,
    /// Whether enough checks in a row had the same result. The first one suffices, since nothing else is known.
    verdict: Option<bool>,
}

impl CheckHistory {
    /// Adds a result.
    pub(super) fn record(&mut self, has_passed: bool, check: &ActiveCheck) {
        let is_repeated = self.consecutive > 0 && self.has_passed == has_passed;
        self.consecutive = if is_repeated { self.consecutive.saturating_add(1) } else { 1 };
        self.has_passed = has_passed;
        let threshold = if has_passed { check.healthy_threshold } else { check.unhealthy_threshold };
        if self.verdict.is_none() || self.consecutive >= threshold {
            self.verdict = Some(has_passed);
        }
    }

    /// How many checks in a row had the last result.
    pub(super) fn consecutive(&self) -> u32 {
        self.consecutive
    }

    /// What the checks have shown: whether the endpoint may get requests. `None` before the first result.
    pub(super) fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// The verdict, if the last result supports it, so that it holds now and not only since some time.
    pub(super) fn confirmed(&self) -> Option<bool> {
        self.verdict.filter(|verdict| *verdict == self.has_passed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::tcp_check;
    use super::*;

    /// `+` is a check that passes, `-` one that fails.
    fn check(results: &str, expected: &[(Option<bool>, Option<bool>)]) {
        let settings = ActiveCheck { unhealthy_threshold: 3, healthy_threshold: 2, ..tcp_check() };
        let mut history = CheckHistory::default();
        assert_eq!((history.verdict(), history.confirmed()), (None, None));
        for (index, (result, expected)) in results.chars().zip(expected).enumerate() {
            history.record(result == '+', &settings);
            assert_eq!((history.verdict(), history.confirmed()), *expected, "{results} at {index}");
        }
    }

    #[test]
    fn thresholds_count_consecutive_results() {
        let (healthy, failed) = ((Some(true), Some(true)), (Some(false), Some(false)));
        let (still_healthy, still_failed) = ((Some(true), None), (Some(false), None));
        check("--", &[failed, failed]);
        check("+---", &[healthy, still_healthy, still_healthy, failed]);
        check("+--+--+", &[healthy, still_healthy, still_healthy, healthy, still_healthy, still_healthy, healthy]);
        check("-+-++", &[failed, still_failed, failed, still_failed, healthy]);
    }

    #[test]
    fn results_in_a_row_are_counted() {
        let mut history = CheckHistory::default();
        let mut counts = Vec::new();
        for has_passed in [true, true, false, true] {
            history.record(has_passed, &tcp_check());
            counts.push(history.consecutive());
        }
        assert_eq!(counts, [1, 2, 1, 1]);
    }
}
