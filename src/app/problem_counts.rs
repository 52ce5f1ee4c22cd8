//! Counts the problems in verdicts, so that a report of resolved problems can say how many are left without looking at
//! the verdicts on all objects.

use std::collections::BTreeMap;

use crate::api::ObjectId;
use crate::report;
use crate::verdict::Verdicts;

/// The number of problems of each object.
#[derive(Debug, Default)]
pub(super) struct ProblemCounts {
    /// Without objects that have none.
    by_object: BTreeMap<ObjectId, usize>,
    total: usize,
}

impl ProblemCounts {
    /// Updates the counts of objects whose verdicts changed. `before` has those whose verdicts were removed, too.
    pub(super) fn update(&mut self, before: &Verdicts, after: &Verdicts) {
        for id in before.keys().filter(|id| !after.contains_key(*id)) {
            self.total -= self.by_object.remove(id).unwrap_or_default();
        }
        for (id, verdict) in after {
            let count = report::from_verdict(id, verdict).len();
            let previous = match count {
                0 => self.by_object.remove(id),
                count => self.by_object.insert(id.clone(), count),
            };
            self.total = self.total + count - previous.unwrap_or_default();
        }
    }

    /// The number of problems of all objects.
    pub(super) fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::{Kind, ObjectKey};
    use crate::diagnostic::Diagnostic;
    use crate::verdict::Verdict;

    #[test]
    fn counts_follow_changed_verdicts() {
        let verdicts = |counts: &[(&str, usize)]| -> Verdicts {
            let verdict = |count: usize| {
                let problem = |index| Diagnostic::error(format!("spec.rules[{index}]"), "it is wrong", "correct it");
                Arc::new(Verdict { diagnostics: (0..count).map(problem).collect(), ..Verdict::default() })
            };
            let id = |name| ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", name));
            counts.iter().map(|(name, count)| (id(*name), verdict(*count))).collect()
        };
        let mut counts = ProblemCounts::default();
        for (before, after, total) in [
            (&[][..], &[("a", 2), ("b", 1), ("c", 0)][..], 3),
            (&[("a", 2)], &[("a", 1)], 2),
            (&[("b", 1), ("c", 0)], &[("c", 4)], 5),
            (&[("a", 1), ("c", 4)], &[("c", 0)], 0),
        ] {
            counts.update(&verdicts(before), &verdicts(after));
            assert_eq!(counts.total(), total, "{before:?} {after:?}");
        }
    }
}
