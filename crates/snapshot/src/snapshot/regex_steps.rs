//! The limit of the work that regular expressions may cause for one request.
//!
//! A pattern takes at most one step for each state of its automaton and each byte of the value that it is matched with.
//! The steps of all patterns that are tried for a request are added up, so that a tenant's patterns cannot keep a
//! worker busy, however many there are and however they are written.

use std::cell::Cell;

/// The steps that the regular expressions of one request may still take.
#[derive(Clone, Debug)]
pub struct RegexSteps {
    remaining: Cell<u64>,
    exceeded: Cell<Option<RegexInput>>,
}

/// The part of a request that a regular expression is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegexInput {
    /// The path, or a parameter of the query.
    Target,
    Header,
}

impl RegexSteps {
    pub const fn new(max_steps: u64) -> Self {
        RegexSteps { remaining: Cell::new(max_steps), exceeded: Cell::new(None) }
    }

    /// Whether an automaton with this many states may be matched with this many bytes. If not, the request has no
    /// result: whether the expression matches stays unknown.
    pub(in crate::snapshot) fn admit(&self, states: u32, length: usize, input: RegexInput) -> bool {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
        match self.remaining.get().checked_sub(bytes.saturating_mul(u64::from(states))) {
            Some(remaining) if self.exceeded.get().is_none() => {
                self.remaining.set(remaining);
                true
            }
            _ => {
                self.exceeded.set(self.exceeded.get().or(Some(input)));
                false
            }
        }
    }

    /// Records that a search was given up, so that its result must not be used.
    pub(in crate::snapshot) fn exhaust(&self, input: RegexInput) {
        self.exceeded.set(self.exceeded.get().or(Some(input)));
    }

    /// The steps that are left, for the expressions of plugins.
    pub fn remaining(&self) -> u64 {
        self.remaining.get()
    }

    /// The input with which the limit was exceeded. Then the result of the search must not be used.
    pub(crate) fn exceeded(&self) -> Option<RegexInput> {
        self.exceeded.get()
    }
}

impl Default for RegexSteps {
    fn default() -> Self {
        RegexSteps::new(MAX_REGEX_STEPS)
    }
}

/// The maximum number of steps for a request: about 10 ms of a worker if every one of them is taken. A pattern of usual
/// size, with 50 states, can be matched with 40,000 bytes.
pub(crate) const MAX_REGEX_STEPS: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_all_expressions_are_added_up() {
        let steps = RegexSteps::new(1_000);
        assert!(steps.admit(10, 59, RegexInput::Target));
        assert!(steps.admit(40, 9, RegexInput::Header));
        assert_eq!(steps.exceeded(), None);
        assert!(!steps.admit(1, 0, RegexInput::Header));
        assert_eq!(steps.exceeded(), Some(RegexInput::Header));
        // The first input that exceeds the limit is reported, and nothing is matched after it.
        let steps = RegexSteps::new(1_000);
        assert!(!steps.admit(u32::MAX, usize::MAX, RegexInput::Target));
        assert!(!steps.admit(1, 0, RegexInput::Header));
        assert_eq!(steps.exceeded(), Some(RegexInput::Target));
    }
}
