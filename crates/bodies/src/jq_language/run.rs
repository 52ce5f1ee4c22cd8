//! What the evaluation of a program works with: where values go, what names stand for, and the limits of one run.

use std::cell::Cell;
use std::rc::Rc;

use super::budget::{Flow, MAX_VALUE_DEPTH, StepBudget, Stop, error};
use super::paths::Item;
use super::program::{Function, JqProgram, Term};
use super::value::JqValue;

pub(super) type ItemOutput<'o> = &'o mut dyn FnMut(Item) -> Flow;

/// Gets values without paths.
pub(crate) type ValueOutput<'o> = &'o mut dyn FnMut(JqValue) -> Flow;

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

/// One run of a program.
pub(super) struct JqRun<'p> {
    pub(super) program: &'p JqProgram,
    pub(super) budget: StepBudget,
    pub(super) depth: Cell<usize>,
    labels: Cell<u64>,
}

/// Each level takes up to two kilobytes of the stack of a thread, which has two megabytes.
pub(super) const MAX_DEPTH: usize = 400;

impl<'p> JqRun<'p> {
    pub(super) fn new(program: &'p JqProgram) -> Self {
        JqRun { program, budget: StepBudget::new(), depth: Cell::new(0), labels: Cell::new(0) }
    }

    pub(super) fn new_label(&self) -> u64 {
        self.labels.set(self.labels.get() + 1);
        self.labels.get()
    }
}

/// Sends a value that is not a part of the input, so that it has no path.
pub(super) fn output_new(input: &Item, value: JqValue, output: ItemOutput<'_>) -> Flow {
    if input.path.is_some() {
        return error(format!("the term has no path: it is a new {}", value.type_name()));
    }
    if usize::from(value.depth()) > MAX_VALUE_DEPTH {
        return Err(Stop::Exhausted);
    }
    output(Item::plain(value))
}
