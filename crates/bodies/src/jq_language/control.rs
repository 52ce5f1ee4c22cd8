//! Calls of built-in functions. Some evaluate their arguments in their own ways, such as `limit`, `path` and `sort_by`.

use super::budget::{Flow, MAX_VALUE_DEPTH, Stop, error};
use super::builtins::{Builtin, ControlFunction, count_of, keys_of, number_of};
use super::paths::{self, Item};
use super::program::Term;
use super::run::{ItemOutput, JqRun, JqScope, output_new};
use super::value::JqValue;

pub(super) fn call<'p>(
    evaluation: &JqRun<'p>,
    builtin: Builtin,
    arguments: &'p [Term],
    environment: &JqScope<'p>,
    input: Item,
    output: ItemOutput<'_>,
) -> Flow {
    match (builtin, arguments) {
        (Builtin::Input(function), _) => output_new(&input, function(&evaluation.budget, &input.value)?, output),
        (Builtin::WithValue(function), [argument]) => {
            evaluation.values(argument, environment, &input.value, &mut |argument| {
                evaluation.budget.spend(input.value.text_steps())?;
                output_new(&input, function(&evaluation.budget, &input.value, &argument)?, &mut *output)
            })
        }
        (Builtin::Control(control), arguments) => {
            ControlCalls { evaluation, environment }.control(control, arguments, input, output)
        }
        _ => Err(Stop::Exhausted),
    }
}

struct ControlCalls<'e, 'p> {
    evaluation: &'e JqRun<'p>,
    environment: &'e JqScope<'p>,
}

impl<'p> ControlCalls<'_, 'p> {
    #[inline(never)]
    fn control(&self, control: ControlFunction, arguments: &'p [Term], input: Item, output: ItemOutput<'_>) -> Flow {
        match (control, arguments) {
            (ControlFunction::Empty, _) => Ok(()),
            (ControlFunction::Error, _) => Err(Stop::Error(input.value)),
            (ControlFunction::Select, [condition]) => {
                self.evaluation.values(condition, self.environment, &input.value, &mut |value| {
                    if value.is_true() { output(input.clone()) } else { Ok(()) }
                })
            }
            (ControlFunction::Recurse, [step]) => self.recurse(step, input, 0, output),
            (ControlFunction::First, [source]) => self.take(source, 1, input, output),
            (ControlFunction::Last, [source]) => {
                let mut last = None;
                self.term(source, input, &mut |item| {
                    last = Some(item);
                    Ok(())
                })?;
                last.map_or(Ok(()), output)
            }
            (ControlFunction::Limit, [count, source]) => self.values(count, &input.value, &mut |count| {
                self.take(source, count_of(&count, "limit")?, input.clone(), &mut *output)
            }),
            (ControlFunction::Skip, [count, source]) => self.values(count, &input.value, &mut |count| {
                let mut remaining = count_of(&count, "skip")?;
                self.term(source, input.clone(), &mut |item| {
                    if remaining == 0 {
                        return output(item);
                    }
                    remaining -= 1;
                    Ok(())
                })
            }),
            (ControlFunction::Until | ControlFunction::While | ControlFunction::Repeat, _) => {
                self.repeat(control, arguments, input, output)
            }
            (ControlFunction::Range, [from, to, by]) => self.range([from, to, by], &input, output),
            (ControlFunction::IsEmpty, [source]) => {
                let mut is_empty = true;
                self.take(source, 1, Item::plain(input.value.clone()), &mut |_| {
                    is_empty = false;
                    Ok(())
                })?;
                output_new(&input, JqValue::Boolean(is_empty), output)
            }
            (ControlFunction::Path, [target]) => {
                self.evaluation.paths(target, self.environment, &input.value, &mut |path| {
                    let keys = path.keys();
                    self.evaluation.budget.spend(keys.len())?;
                    output_new(&input, JqValue::from(keys), &mut *output)
                })
            }
            (ControlFunction::GetPath, [path]) => self.values(path, &input.value, &mut |path| {
                let mut item = input.clone();
                for key in keys_of(&path)?.iter() {
                    self.evaluation.budget.spend(1)?;
                    item = paths::child(&item, key)?;
                }
                output(item)
            }),
            (ControlFunction::SetPath, [path, value]) => self.values(path, &input.value, &mut |path| {
                self.values(value, &input.value, &mut |value| {
                    let changed = paths::set(&self.evaluation.budget, input.value.clone(), &keys_of(&path)?, value)?;
                    output_new(&input, changed, &mut *output)
                })
            }),
            (ControlFunction::DeletePaths, [deleted]) => self.values(deleted, &input.value, &mut |deleted| {
                let deleted = keys_of(&deleted)?;
                let deleted = deleted.iter().map(|path| keys_of(path).map(|keys| keys.to_vec()));
                let deleted: Vec<Vec<JqValue>> = deleted.collect::<Result<_, _>>()?;
                let changed = paths::delete(&self.evaluation.budget, input.value.clone(), deleted)?;
                output_new(&input, changed, &mut *output)
            }),
            (ControlFunction::SortBy | ControlFunction::GroupBy, [key]) => {
                let sorted = self.sorted(key, &input.value)?;
                let result: Vec<JqValue> = if control == ControlFunction::SortBy {
                    sorted.into_iter().map(|(_, value)| value).collect()
                } else {
                    grouped(sorted)
                };
                output_new(&input, JqValue::from(result), output)
            }
            _ => Err(Stop::Exhausted),
        }
    }

    fn term(&self, term: &'p Term, input: Item, output: ItemOutput<'_>) -> Flow {
        self.evaluation.term(term, self.environment, input, output)
    }

    fn values(&self, term: &'p Term, input: &JqValue, output: &mut dyn FnMut(JqValue) -> Flow) -> Flow {
        self.evaluation.values(term, self.environment, input, output)
    }

    /// The first values of a term.
    fn take(&self, source: &'p Term, count: usize, input: Item, output: ItemOutput<'_>) -> Flow {
        if count == 0 {
            return Ok(());
        }
        let (done, mut remaining) = (self.evaluation.new_label(), count);
        let flow = self.term(source, input, &mut |item| {
            remaining -= 1;
            output(item)?;
            if remaining == 0 { Err(Stop::Break(done)) } else { Ok(()) }
        });
        match flow {
            Err(Stop::Break(label)) if label == done => Ok(()),
            flow => flow,
        }
    }

    fn recurse(&self, step: &'p Term, input: Item, depth: usize, output: ItemOutput<'_>) -> Flow {
        if depth > MAX_VALUE_DEPTH {
            return Err(Stop::Exhausted);
        }
        self.evaluation.budget.spend(1)?;
        output(input.clone())?;
        self.term(step, input, &mut |item| self.recurse(step, item, depth + 1, &mut *output))
    }

    /// `until`, `while` and `repeat`: loops whose step has one value.
    fn repeat(&self, control: ControlFunction, arguments: &'p [Term], input: Item, output: ItemOutput<'_>) -> Flow {
        let (condition, step) = match arguments {
            [condition, step] => (Some(condition), step),
            [step] => (None, step),
            _ => return Err(Stop::Exhausted),
        };
        let mut item = input;
        loop {
            self.evaluation.budget.spend(1)?;
            let mut is_true = true;
            if let Some(condition) = condition {
                self.take(condition, 1, Item::plain(item.value.clone()), &mut |found| {
                    is_true = found.value.is_true();
                    Ok(())
                })?;
            }
            match (control, is_true) {
                (ControlFunction::Until, true) => return output(item),
                (ControlFunction::While, false) => return Ok(()),
                (ControlFunction::Until, false) => {}
                _ => output(item.clone())?,
            }
            let mut next = None;
            self.take(step, 1, item, &mut |found| {
                next = Some(found);
                Ok(())
            })?;
            match next {
                Some(found) => item = found,
                None => return Ok(()),
            }
        }
    }

    fn range(&self, [from, to, by]: [&'p Term; 3], input: &Item, output: ItemOutput<'_>) -> Flow {
        self.values(from, &input.value, &mut |from| {
            self.values(to, &input.value, &mut |to| {
                self.values(by, &input.value, &mut |by| {
                    let (mut next, to, by) =
                        (number_of(&from, "range")?, number_of(&to, "range")?, number_of(&by, "range")?);
                    while (by > 0.0 && next < to) || (by < 0.0 && next > to) {
                        self.evaluation.budget.spend(1)?;
                        output_new(input, JqValue::from(next), &mut *output)?;
                        next += by;
                    }
                    Ok(())
                })
            })
        })
    }

    /// The elements of a list with the values of the key, sorted by these.
    fn sorted(&self, key: &'p Term, input: &JqValue) -> Result<Vec<(Vec<JqValue>, JqValue)>, Stop> {
        let JqValue::List(elements, _) = input else {
            return error(format!("{} cannot be sorted, as it is not an array", input.type_name()));
        };
        let mut keyed = Vec::with_capacity(elements.len());
        // Each comparison of a sort may visit the whole key.
        let comparisons = usize::BITS as usize - elements.len().leading_zeros() as usize + 1;
        for element in elements.iter() {
            let mut keys = Vec::new();
            self.values(key, element, &mut |value| {
                for _ in 0..comparisons {
                    self.evaluation.budget.weigh(&value)?;
                }
                keys.push(value);
                Ok(())
            })?;
            keyed.push((keys, element.clone()));
        }
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(keyed)
    }
}

fn grouped(sorted: Vec<(Vec<JqValue>, JqValue)>) -> Vec<JqValue> {
    let mut groups: Vec<(Vec<JqValue>, Vec<JqValue>)> = Vec::new();
    for (key, value) in sorted {
        match groups.last_mut().filter(|(last, _)| *last == key) {
            Some((_, group)) => group.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups.into_iter().map(|(_, group)| JqValue::from(group)).collect()
}
