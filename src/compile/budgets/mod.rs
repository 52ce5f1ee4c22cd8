//! Budgets: what objects may expand to when they are compiled, so that the objects of a tenant cannot exhaust the
//! memory and the time of the process.

use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::regex::{RegexError, RegexLimit};

/// The settings of all budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Report objects that exceed a budget, and serve them nevertheless.
    pub warn_only: bool,
}

impl Budgets {
    /// The limit of the size of one regular expression.
    pub(super) fn regex_limit(&self) -> RegexLimit {
        if self.warn_only { RegexLimit::MEMORY_ONLY } else { RegexLimit { max_states: MAX_REGEX_STATES } }
    }
}

/// A diagnostic about a regular expression that cannot be used. `syntax`: where its syntax is documented.
pub(super) fn regex_problem(error: &RegexError, field: &str, syntax: &str) -> Diagnostic {
    if error.is_too_large {
        let remedy = "a smaller expression is also matched with longer paths and headers; see docs/limits.md";
        return Diagnostic::error(field, format!("the regular expression is {error}"), remedy).with_reason(OVER_BUDGET);
    }
    Diagnostic::error(field, format!("the regular expression is invalid: {error}"), syntax)
}

/// The reason of all diagnostics about budgets.
pub(super) const OVER_BUDGET: Reason = Reason::Named("OverBudget");

/// The maximum number of states of one regular expression. With the limit of 2,000,000 steps for a request, every
/// expression can be matched with at least 1,000 bytes.
const MAX_REGEX_STATES: u32 = 2_000;
