//! The limit of work for evaluating templates, and why an evaluation fails.

/// How many steps the evaluations of one request may take together. A step is a node of an expression, or a byte that
/// a function compares or copies.
#[derive(Debug)]
pub struct Budget {
    steps: u32,
}

/// About a millisecond of work, which is far more than templates of headers and queries need.
const MAX_STEPS: u32 = 500_000;

impl Default for Budget {
    fn default() -> Self {
        Budget { steps: MAX_STEPS }
    }
}

impl Budget {
    /// Takes steps from the budget.
    pub fn spend(&mut self, steps: usize) -> Result<(), EvaluationError> {
        let steps = u32::try_from(steps).map_err(|_| EvaluationError::TooManySteps)?;
        self.steps = self.steps.checked_sub(steps).ok_or(EvaluationError::TooManySteps)?;
        Ok(())
    }
}

/// Why an expression has no value for a request. The messages contain types but no values, because values may be
/// secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("arithmetic on a {0} value")]
    Arithmetic(&'static str),
    #[error("a comparison of a {0} value with a {1} value")]
    Comparison(&'static str, &'static str),
    #[error("a concatenation with a {0} value")]
    Concatenation(&'static str),
    #[error("the length of a {0} value")]
    Length(&'static str),
    #[error("an index of a {0} value")]
    Index(&'static str),
    #[error("{function} needs a {expected} as argument {number}, and got a {found} value")]
    Argument { function: &'static str, number: usize, expected: &'static str, found: &'static str },
    #[error("a pattern that is not valid: {0}")]
    Pattern(&'static str),
    #[error("a format that is not valid: {0}")]
    Format(&'static str),
    #[error("a number that JSON cannot represent")]
    NotFinite,
    #[error("the value is longer than 64KiB")]
    TooLong,
    #[error("the evaluation takes too many steps")]
    TooManySteps,
}
