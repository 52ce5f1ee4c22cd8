//! The budget of one run, and why a run ends early.

use std::cell::Cell;

use super::value::JqValue;

/// Why the evaluation of a term ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An error, which `try` catches.
    Error(JqValue),
    /// `break`, up to the label with this number.
    Break(u64),
    /// An error of what gets the values of a `try`, which that one does not catch.
    Outside(Box<Stop>),
    /// The program takes too many steps or too much memory, or calls are nested too deeply.
    Exhausted,
}

pub(crate) type Flow = Result<(), Stop>;

pub(super) fn error<T>(message: impl AsRef<str>) -> Result<T, Stop> {
    Err(Stop::Error(JqValue::from(message.as_ref())))
}

/// The steps that a run may still take. Each term, each copied element and each few bytes of text take one.
pub(super) struct StepBudget {
    steps: Cell<usize>,
}

/// A fraction of a second of work.
const MAX_STEPS: usize = 500_000;

/// The deepest value that a program may build.
pub(super) const MAX_VALUE_DEPTH: usize = 200;

impl StepBudget {
    pub(super) fn new() -> Self {
        StepBudget { steps: Cell::new(MAX_STEPS) }
    }

    /// Takes steps of the budget.
    pub(super) fn spend(&self, steps: usize) -> Flow {
        let remaining = self.steps.get().checked_sub(steps);
        self.steps.set(remaining.unwrap_or(0));
        if remaining.is_some() { Ok(()) } else { Err(Stop::Exhausted) }
    }

    /// Takes a step for each value within a value, which may be shared by several places of it.
    pub(super) fn weigh(&self, value: &JqValue) -> Flow {
        match value {
            JqValue::List(elements, _) => {
                self.spend(1 + elements.len())?;
                elements.iter().filter(|element| element.depth() > 0).try_for_each(|element| self.weigh(element))?;
                elements.iter().try_for_each(|element| self.spend(element.text_steps()))
            }
            JqValue::Object(members, _) => {
                self.spend(1 + members.len())?;
                members.iter().try_for_each(|(name, value)| {
                    self.spend(name.len() / 32)?;
                    if value.depth() > 0 { self.weigh(value) } else { self.spend(value.text_steps()) }
                })
            }
            value => self.spend(1 + value.text_steps()),
        }
    }
}
