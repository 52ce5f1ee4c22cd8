//! The results of an endpoint's checks in a row, and what follows from them.

use crate::upstream::settings::{ActiveCheck, CheckFailureKind, CheckResult, FailureThresholds};

/// What the last checks of an endpoint have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckHistory {
    has_passed: bool,
    /// How many checks in a row had this result; 0 before the first one.
    consecutive: u32,
    /// Failures without a pass since, by [`CheckFailureKind`].
    failures: [u32; 3],
    /// Whether enough checks in a row had the same result. The first one suffices, since nothing else is known.
    verdict: Option<bool>,
}

impl CheckHistory {
    /// Adds a result.
    pub(super) fn record(&mut self, result: CheckResult, check: &ActiveCheck) {
        let has_passed = result == CheckResult::Passed;
        let is_repeated = self.consecutive > 0 && self.has_passed == has_passed;
        self.consecutive = if is_repeated { self.consecutive.saturating_add(1) } else { 1 };
        self.has_passed = has_passed;
        let is_enough = match (result, check.failure_thresholds) {
            (CheckResult::Passed, thresholds) => {
                self.failures = [0; 3];
                // With thresholds of their own, results count from the first one on.
                let is_first = self.verdict.is_none() && thresholds.is_none();
                is_first || check.healthy_threshold > 0 && self.consecutive >= check.healthy_threshold
            }
            (CheckResult::Failed(_), None) => self.verdict.is_none() || self.consecutive >= check.unhealthy_threshold,
            (CheckResult::Failed(kind), Some(thresholds)) => {
                let failures = &mut self.failures[kind as usize];
                *failures = failures.saturating_add(1);
                let threshold = thresholds.of(kind);
                threshold > 0 && *failures >= threshold
            }
        };
        if is_enough {
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

impl FailureThresholds {
    fn of(self, kind: CheckFailureKind) -> u32 {
        match kind {
            CheckFailureKind::Response => self.responses,
            CheckFailureKind::Connection => self.connections,
            CheckFailureKind::Timeout => self.timeouts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::tcp_check;
    use super::*;

    const FAILED: CheckResult = CheckResult::Failed(CheckFailureKind::Response);

    /// `+` is a check that passes, `-` one that fails.
    fn check(results: &str, expected: &[(Option<bool>, Option<bool>)]) {
        let settings = ActiveCheck { unhealthy_threshold: 3, healthy_threshold: 2, ..tcp_check() };
        let mut history = CheckHistory::default();
        assert_eq!((history.verdict(), history.confirmed()), (None, None));
        for (index, (result, expected)) in results.chars().zip(expected).enumerate() {
            history.record(if result == '+' { CheckResult::Passed } else { FAILED }, &settings);
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
        for result in [CheckResult::Passed, CheckResult::Passed, FAILED, CheckResult::Passed] {
            history.record(result, &tcp_check());
            counts.push(history.consecutive());
        }
        assert_eq!(counts, [1, 2, 1, 1]);
    }

    /// `r`, `c` and `t` are failed responses, connections and timeouts.
    #[test]
    fn failures_of_each_kind_have_a_threshold_of_their_own() {
        let thresholds = FailureThresholds { responses: 3, connections: 0, timeouts: 1 };
        let settings = ActiveCheck { failure_thresholds: Some(thresholds), healthy_threshold: 2, ..tcp_check() };
        for (results, expected) in [
            ("rr", None),
            ("rrr", Some(false)),
            ("rr+r", None),
            ("rcr", None),
            ("rcrcr", Some(false)),
            ("cccccc", None),
            ("t", Some(false)),
            ("t+", Some(false)),
            ("t++", Some(true)),
            ("t+r+", Some(false)),
        ] {
            let mut history = CheckHistory::default();
            for result in results.chars() {
                history.record(
                    match result {
                        'r' => FAILED,
                        'c' => CheckResult::Failed(CheckFailureKind::Connection),
                        't' => CheckResult::Failed(CheckFailureKind::Timeout),
                        _ => CheckResult::Passed,
                    },
                    &settings,
                );
            }
            assert_eq!(history.verdict(), expected, "{results}");
        }
        let passes_do_not_count = ActiveCheck { healthy_threshold: 0, ..settings };
        let mut history = CheckHistory::default();
        for result in [CheckResult::Failed(CheckFailureKind::Timeout), CheckResult::Passed, CheckResult::Passed] {
            history.record(result, &passes_do_not_count);
        }
        assert_eq!(history.verdict(), Some(false));
    }
}
