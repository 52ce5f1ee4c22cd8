//! The regular expressions of one object: their number, and the sizes of their automata together.

use std::cell::{Cell, RefCell};

use super::{BudgetShare, Budgets, Expansion, MAX_REGEX_BYTES, MAX_REGEXES, expansion, regex_problem};
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::{RegexAnchor, RegexError, RegexLimit, RegexSize};

/// Counts the regular expressions of one object while it is translated. As soon as a limit is exceeded, no further
/// expression is compiled, and the object has to be refused.
#[derive(Debug)]
pub(in crate::compile) struct RegexBudget<'b> {
    budgets: &'b Budgets,
    /// What the namespace of the object leaves for it.
    available: Expansion,
    patterns: Cell<usize>,
    bytes: Cell<usize>,
    /// The expressions that are larger than the limit of one, but compiled nevertheless.
    warnings: RefCell<Vec<Diagnostic>>,
}

impl<'b> RegexBudget<'b> {
    pub(in crate::compile) fn new(budgets: &'b Budgets, share: &BudgetShare) -> Self {
        let available = match share {
            BudgetShare::Available(bytes) => *bytes,
            // The object is refused before an expression is compiled, or budgets only warn.
            BudgetShare::Exceeded(_) => Expansion::MAX,
        };
        RegexBudget {
            budgets,
            available,
            patterns: Cell::default(),
            bytes: Cell::default(),
            warnings: RefCell::default(),
        }
    }

    /// What the object expands to, about, with this number of pairs of its hosts and its matches or paths. An error if
    /// that is more than its namespace leaves for it.
    pub(in crate::compile) fn expansion_within_share(&self, pairs: usize) -> Result<Expansion, Expansion> {
        let expansion = expansion(self.bytes.get(), pairs);
        if expansion > self.available { Err(expansion) } else { Ok(expansion) }
    }

    /// Compiles a pattern with `compile`, if the budget has room for it. `syntax`: where the syntax is documented.
    pub(in crate::compile) fn compile<T>(
        &self,
        pattern: &str,
        anchor: RegexAnchor,
        field: &str,
        syntax: &str,
        compile: impl FnOnce(RegexLimit) -> Result<T, RegexError>,
    ) -> Result<T, Diagnostic> {
        self.patterns.set(self.patterns.get() + 1);
        // The object is refused as a whole, so this diagnostic is not reported.
        let over_budget = || Diagnostic::error(field, "the object has too many regular expressions", "");
        if self.is_exceeded() {
            return Err(over_budget());
        }
        let limit = self.budgets.regex_limit();
        let size = RegexSize::of(pattern, anchor, limit);
        // An expression that is too large costs as much as the largest that is not.
        let is_too_large = size.as_ref().is_err_and(|error| error.is_too_large);
        let bytes = if is_too_large { limit.max_bytes() } else { size.as_ref().map_or(0, |size| size.bytes) };
        self.bytes.set(self.bytes.get() + bytes);
        let size = size.map_err(|error| regex_problem(&error, field, syntax))?;
        if self.is_exceeded() {
            return Err(over_budget());
        }
        if let Err(error) = size.check(RegexLimit { max_states: super::MAX_REGEX_STATES }) {
            self.warnings.borrow_mut().push(regex_problem(&error, field, syntax).into_warning());
        }
        compile(limit).map_err(|error| regex_problem(&error, field, syntax))
    }

    /// Counts an expression that takes this many bytes. Returns whether the budget has room for it.
    pub(in crate::compile) fn add_expression(&self, bytes: usize) -> bool {
        self.patterns.set(self.patterns.get() + 1);
        self.add_bytes(bytes)
    }

    /// Counts what an expression takes in addition to its automaton. Returns whether the budget has room for it.
    pub(in crate::compile) fn add_bytes(&self, bytes: usize) -> bool {
        self.bytes.set(self.bytes.get() + bytes);
        !self.is_exceeded()
    }

    /// Whether the object has to be refused.
    pub(in crate::compile) fn is_exceeded(&self) -> bool {
        let is_too_large = self.patterns.get() > MAX_REGEXES || self.bytes.get() > MAX_REGEX_BYTES;
        (!self.budgets.warn_only && is_too_large) || self.expansion_within_share(0).is_err()
    }

    /// Diagnostics about the expressions together, and about large ones that are served nevertheless. `field`: the
    /// field that contains them.
    pub(in crate::compile) fn problems(&self, field: &str) -> Vec<Diagnostic> {
        let mut problems = self.warnings.take();
        self.budgets.check(field, "regular expressions", self.patterns.get(), MAX_REGEXES, &mut problems);
        let what = "KiB or more of compiled regular expressions";
        self.budgets.check(field, what, self.bytes.get().div_ceil(1024), MAX_REGEX_BYTES >> 10, &mut problems);
        problems
    }
}
