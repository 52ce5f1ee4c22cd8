//! The regular expressions of plugins: what is wrong with an invalid one, and how much work a request may cause.
//!
//! Matching takes at most one step for each state of the automaton and each byte of the value. Plugins that match
//! values of clients limit the steps with the length of these values, and take them from the steps of the request.

use regex_automata::nfa::thompson::{Compiler, Config};

use crate::diagnostic::Diagnostic;

/// The error of a regular expression on one line, without the pattern and the caret that the parser writes above it.
pub fn regex_error_message(error: &regex::Error) -> String {
    let text = error.to_string();
    let message = text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&text);
    format!("is not a valid regular expression: {message}")
}

/// The number of states of an automaton for all of these expressions. They are valid; an expression that is not counts
/// nothing. An error in `field` if they have more than `max_states` together.
pub fn count_regex_states(field: &str, patterns: &[&str], max_states: usize) -> Result<usize, Diagnostic> {
    let limit = max_states.saturating_mul(BYTES_PER_STATE);
    let compiled = Compiler::new().configure(Config::new().nfa_size_limit(Some(limit))).build_many(patterns);
    let states = match &compiled {
        Ok(automaton) => automaton.states().len(),
        Err(error) if error.size_limit().is_some() => usize::MAX,
        Err(_) => 0,
    };
    if states <= max_states {
        return Ok(states);
    }
    let message = format!("the regular expressions have more than {max_states} states together");
    let remedy = "use fewer expressions, smaller repetition counts, and [0-9] and [A-Za-z0-9_] instead of \\d and \\w";
    Err(Diagnostic::in_config(field, message, remedy))
}

/// The steps that the expressions of plugins may still take for a request. The limit is that of all expressions that
/// are tried for the request, and those of its route have taken theirs before.
#[derive(Debug)]
pub struct RemainingRegexSteps(u64);

impl RemainingRegexSteps {
    pub fn new(steps: u64) -> Self {
        RemainingRegexSteps(steps)
    }

    /// The steps that are left, for another count of them.
    pub fn remaining(&self) -> u64 {
        self.0
    }

    /// Sets the steps that another count has left.
    pub fn keep(&mut self, remaining: u64) {
        self.0 = self.0.min(remaining);
    }

    /// Takes the steps of an automaton with this many states for this many bytes. Returns whether there are as many;
    /// if not, the automaton must not be used.
    #[must_use]
    pub fn take(&mut self, states: usize, bytes: usize) -> bool {
        let steps = u64::try_from(states.saturating_mul(bytes)).unwrap_or(u64::MAX);
        let remaining = self.0.checked_sub(steps);
        self.0 = remaining.unwrap_or(0);
        remaining.is_some()
    }
}

impl Default for RemainingRegexSteps {
    fn default() -> Self {
        RemainingRegexSteps(u64::try_from(MAX_PLUGIN_REGEX_STEPS).unwrap_or(u64::MAX))
    }
}

/// The maximum number of steps that the expressions of one plugin take for a request.
pub const MAX_PLUGIN_REGEX_STEPS: usize = 2_000_000;

/// More than the memory of a state, so that the construction of an automaton with too many states ends early, and no
/// other one.
const BYTES_PER_STATE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_added_up() {
        let mut steps = RemainingRegexSteps::new(100);
        assert!(steps.take(10, 9) && steps.take(2, 5));
        assert!(!steps.take(1, 1));
        let mut steps = RemainingRegexSteps::new(100);
        assert!(!steps.take(usize::MAX, 2));
        assert!(!steps.take(1, 1), "nothing is matched after the limit was exceeded");
    }

    #[test]
    fn states_are_limited() {
        assert!(count_regex_states("deny", &[], 10).is_ok());
        assert!(count_regex_states("deny", &["a", "b[0-9]+"], 50).is_ok_and(|states| (5..50).contains(&states)));
        for pattern in ["a{1000}", r"\w{300}"] {
            let problem = count_regex_states("deny", &[pattern], 900).unwrap_err();
            assert_eq!(problem.message, "the regular expressions have more than 900 states together", "{pattern}");
        }
    }
}
