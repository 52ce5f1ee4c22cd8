//! What the evaluation of a program works with: values on their way, what names stand for, and the limits of one run.

use std::cell::Cell;
use std::rc::Rc;

use super::paths::{self, JqPath};
use super::program::{Function, JqProgram, Term};
use super::value::JqValue;

/// Why the evaluation of a term ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// An error, which `try` catches.
    Error(JqValue),
    /// `break`, up to the label with this number.
    Break(u64),
    /// An error of what gets the values of a `try`, which that one does not catch.
    Outside(Box<Stop>),
    /// The program takes too many steps or too much memory, or calls are nested too deeply.
    Exhausted,
}

pub(super) type Flow = Result<(), Stop>;

pub(super) fn error<T>(message: impl AsRef<str>) -> Result<T, Stop> {
    Err(Stop::Error(JqValue::from(message.as_ref())))
}

/// A value, and where it is in the input of `path`, if that is wanted.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) value: JqValue,
    pub(super) path: Option<JqPath>,
}

impl Item {
    pub(super) fn plain(value: JqValue) -> Self {
        Item { value, path: None }
    }
}

pub(super) type Output<'o> = &'o mut dyn FnMut(Item) -> Flow;

/// Gets values without paths.
pub(super) type ValueOutput<'o> = &'o mut dyn FnMut(JqValue) -> Flow;

/// What variables, parameters, functions and labels stand for.
#[derive(Clone, Default)]
pub(super) struct JqScope<'p>(pub(super) Option<Rc<Binding<'p>>>);

pub(super) struct Binding<'p> {
    id: u32,
    pub(super) bound: Bound<'p>,
    outer: JqScope<'p>,
}

pub(super) enum Bound<'p> {
    Variable(JqValue),
    Closure(&'p Term, JqScope<'p>),
    Function(&'p Function),
    Label(u64),
}

impl<'p> JqScope<'p> {
    pub(super) fn bind(&self, id: u32, bound: Bound<'p>) -> Self {
        JqScope(Some(Rc::new(Binding { id, bound, outer: self.clone() })))
    }

    pub(super) fn find(&self, id: u32) -> Option<&Rc<Binding<'p>>> {
        let mut next = self.0.as_ref();
        while let Some(binding) = next {
            if binding.id == id {
                return next;
            }
            next = binding.outer.0.as_ref();
        }
        None
    }
}

/// The limits of one run.
pub(super) struct JqRun<'p> {
    pub(super) program: &'p JqProgram,
    steps: Cell<usize>,
    pub(super) depth: Cell<usize>,
    labels: Cell<u64>,
}

/// A fraction of a second of work.
pub(super) const MAX_STEPS: usize = 500_000;

/// The deepest value that a program may build.
pub(super) const MAX_VALUE_DEPTH: usize = 200;

/// Each level takes up to two kilobytes of the stack of a thread, which has two megabytes.
pub(super) const MAX_DEPTH: usize = 400;

impl<'p> JqRun<'p> {
    pub(super) fn new(program: &'p JqProgram) -> Self {
        JqRun { program, steps: Cell::new(MAX_STEPS), depth: Cell::new(0), labels: Cell::new(0) }
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
                elements.iter().try_for_each(|element| self.spend(paths::text_steps(element)))
            }
            JqValue::Object(members, _) => {
                self.spend(1 + members.len())?;
                members.iter().try_for_each(|(name, value)| {
                    self.spend(name.len() / 32)?;
                    if value.depth() > 0 { self.weigh(value) } else { self.spend(paths::text_steps(value)) }
                })
            }
            value => self.spend(1 + paths::text_steps(value)),
        }
    }

    pub(super) fn new_label(&self) -> u64 {
        self.labels.set(self.labels.get() + 1);
        self.labels.get()
    }
}

/// Sends a value that is not a part of the input, so that it has no path.
pub(super) fn output_new(input: &Item, value: JqValue, output: Output<'_>) -> Flow {
    if input.path.is_some() {
        return error(format!("the term has no path: it is a new {}", value.type_name()));
    }
    if usize::from(value.depth()) > MAX_VALUE_DEPTH {
        return Err(Stop::Exhausted);
    }
    output(Item::plain(value))
}
