//! `reduce`, `foreach` and the binding of variables by patterns.

use super::budget::Flow;
use super::paths::{self, Item};
use super::program::{BindingPattern, Term};
use super::run::{Bound, ItemOutput, JqRun, JqScope, output_new};
use super::value::JqValue;

impl<'p> JqRun<'p> {
    #[inline(never)]
    pub(super) fn reduce(
        &self,
        source: &'p Term,
        pattern: &'p BindingPattern,
        (initial, update): (&'p Term, &'p Term),
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(initial, environment, &input.value, &mut |initial| {
            let mut state = initial;
            self.values(source, environment, &input.value, &mut |value| {
                self.destructure(pattern, value, environment, &input.value, &mut |environment| {
                    let before = std::mem::replace(&mut state, JqValue::Null);
                    // The last value of the update is the new state; without one, it is null.
                    self.term(update, environment, Item::plain(before), &mut |item| {
                        state = item.value;
                        Ok(())
                    })
                })
            })?;
            output_new(input, state, &mut *output)
        })
    }

    #[inline(never)]
    pub(super) fn foreach(
        &self,
        source: &'p Term,
        pattern: &'p BindingPattern,
        (initial, update, extract): (&'p Term, &'p Term, Option<&'p Term>),
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(initial, environment, &input.value, &mut |initial| {
            let mut state = initial;
            self.values(source, environment, &input.value, &mut |value| {
                self.destructure(pattern, value, environment, &input.value, &mut |environment| {
                    let before = state.clone();
                    self.values(update, environment, &before, &mut |value| {
                        state = value.clone();
                        match extract {
                            Some(extract) => self.values(extract, environment, &value, &mut |value| {
                                output_new(input, value, &mut *output)
                            }),
                            None => output_new(input, value, &mut *output),
                        }
                    })
                })
            })
        })
    }

    /// Calls `body` with the variables of a pattern.
    #[inline(never)]
    pub(super) fn destructure(
        &self,
        pattern: &'p BindingPattern,
        value: JqValue,
        environment: &JqScope<'p>,
        input: &JqValue,
        body: &mut dyn FnMut(&JqScope<'p>) -> Flow,
    ) -> Flow {
        match pattern {
            BindingPattern::Variable(id) => body(&environment.bind(*id, Bound::Variable(value))),
            BindingPattern::List(patterns) => self.elements(patterns, 0, &value, environment, input, body),
            BindingPattern::Object(members) => self.members(members, &value, environment, input, body),
        }
    }

    fn elements(
        &self,
        patterns: &'p [BindingPattern],
        index: usize,
        value: &JqValue,
        environment: &JqScope<'p>,
        input: &JqValue,
        body: &mut dyn FnMut(&JqScope<'p>) -> Flow,
    ) -> Flow {
        self.budget.spend(1)?;
        let Some(pattern) = patterns.get(index) else { return body(environment) };
        let element = paths::child(&Item::plain(value.clone()), &JqValue::from(index))?.value;
        self.destructure(pattern, element, environment, input, &mut |environment| {
            self.elements(patterns, index + 1, value, environment, input, &mut *body)
        })
    }

    fn members(
        &self,
        members: &'p [(Term, Option<u32>, Option<BindingPattern>)],
        value: &JqValue,
        environment: &JqScope<'p>,
        input: &JqValue,
        body: &mut dyn FnMut(&JqScope<'p>) -> Flow,
    ) -> Flow {
        let Some(((key, variable, pattern), rest)) = members.split_first() else { return body(environment) };
        self.values(key, environment, input, &mut |key| {
            let member = paths::child(&Item::plain(value.clone()), &key)?.value;
            let environment = match variable {
                Some(id) => environment.bind(*id, Bound::Variable(member.clone())),
                None => environment.clone(),
            };
            match pattern {
                Some(pattern) => self.destructure(pattern, member, &environment, input, &mut |environment| {
                    self.members(rest, value, environment, input, &mut *body)
                }),
                None => self.members(rest, value, &environment, input, &mut *body),
            }
        })
    }
}
