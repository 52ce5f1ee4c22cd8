//! Evaluation of programs. A term sends each of its values to a callback, so that nothing is collected that the program
//! does not collect itself.
//!
//! Each term, each copied element and each byte of text takes steps of a budget, and the nesting of calls is limited: a
//! program that does not end, or that grows, fails.

use std::rc::Rc;

use super::budget::{Flow, Stop, error};
use super::control;
use super::format::{self, TextFormat};
use super::operators::{self, BinaryOperator};
use super::paths::{self, Item, JqPath};
use super::program::{Function, JqProgram, Literal, Term, TextPiece};
use super::regexes;
use super::run::{Bound, ItemOutput, JqRun, JqScope, MAX_DEPTH, ValueOutput, output_new};
use super::value::{JqMembers, JqValue};

impl JqProgram {
    /// Runs the program on an input, and sends its values to `output`.
    pub(crate) fn run(&self, input: JqValue, output: ValueOutput<'_>) -> Flow {
        let evaluation = JqRun::new(self);
        evaluation.term(&self.main, &JqScope::default(), Item::plain(input), &mut |item| {
            // Written as text, a value may be much larger than in memory.
            evaluation.budget.weigh(&item.value)?;
            output(item.value)
        })
    }
}

impl<'p> JqRun<'p> {
    /// Evaluates a term on the value of an item, without paths.
    pub(super) fn values(
        &self,
        term: &'p Term,
        environment: &JqScope<'p>,
        input: &JqValue,
        output: &mut dyn FnMut(JqValue) -> Flow,
    ) -> Flow {
        self.term(term, environment, Item::plain(input.clone()), &mut |item| output(item.value))
    }

    pub(super) fn term(&self, term: &'p Term, environment: &JqScope<'p>, input: Item, output: ItemOutput<'_>) -> Flow {
        self.budget.spend(1)?;
        let depth = self.depth.get();
        if depth >= MAX_DEPTH {
            return Err(Stop::Exhausted);
        }
        self.depth.set(depth + 1);
        let flow = self.dispatch(term, environment, input, output);
        self.depth.set(depth);
        flow
    }

    /// Each construct is a function of its own, so that a level of recursion takes only the stack that it needs.
    fn dispatch(&self, term: &'p Term, environment: &JqScope<'p>, input: Item, output: ItemOutput<'_>) -> Flow {
        match term {
            Term::Identity => output(input),
            Term::Literal(literal) => output_new(&input, literal_value(literal), output),
            Term::Text(pieces, format) => self.text(pieces, *format, environment, &input, String::new(), output),
            Term::Format(format) => {
                self.budget.weigh(&input.value)?;
                let text = format::apply(*format, &input.value)?;
                self.budget.spend(text.len() / 8)?;
                output_new(&input, JqValue::Text(text.into()), output)
            }
            Term::Index(target, index) => self.index(target, index, environment, input, output),
            Term::Slice(target, from, to) => self.slice(target, (from, to), environment, input, output),
            Term::Iterate(target) => {
                self.term(target, environment, input, &mut |item| paths::each(&self.budget, &item, &mut *output))
            }
            Term::Try(body, handler) => self.attempt(body, handler.as_deref(), environment, input, output),
            Term::List(elements) => self.list(elements.as_deref(), environment, &input, output),
            Term::Object(members) => self.object(members, environment, &input, JqMembers::new(), output),
            Term::Negate(operand) => {
                self.values(operand, environment, &input.value, &mut |value| match value.number() {
                    Some(number) => output_new(&input, JqValue::from(-number), output),
                    None => error(format!("{} cannot be negated", value.type_name())),
                })
            }
            Term::Pipe(left, right) => {
                self.term(left, environment, input, &mut |item| self.term(right, environment, item, &mut *output))
            }
            Term::Comma(left, right) => {
                self.term(left, environment, input.clone(), &mut *output)?;
                self.term(right, environment, input, output)
            }
            Term::Binary(operator, left, right) => self.binary(*operator, left, right, environment, &input, output),
            Term::And(left, right) => self.logic(false, left, right, environment, &input, output),
            Term::Or(left, right) => self.logic(true, left, right, environment, &input, output),
            Term::Alternative(left, right) => self.alternative(left, right, environment, input, output),
            Term::Assign(target, value) => self.assign(target, value, environment, &input, output),
            Term::Update(target, update) => {
                let updated = self
                    .update(target, environment, &input, &mut |old, set| self.values(update, environment, old, set))?;
                output_new(&input, updated, output)
            }
            Term::UpdateBy(operator, target, value) => {
                self.update_by(*operator, target, value, environment, &input, output)
            }
            Term::If(condition, then, otherwise) => {
                self.condition(condition, then, otherwise.as_deref(), environment, input, output)
            }
            Term::Reduce(source, pattern, initial, update) => {
                self.reduce(source, pattern, (initial, update), environment, &input, output)
            }
            Term::Foreach(source, pattern, initial, update, extract) => {
                self.foreach(source, pattern, (initial, update, extract.as_deref()), environment, &input, output)
            }
            Term::Bind(source, pattern, body) => self.values(source, environment, &input.value, &mut |value| {
                self.destructure(pattern, value, environment, &input.value, &mut |environment| {
                    self.term(body, environment, input.clone(), &mut *output)
                })
            }),
            Term::Define(function, rest) => {
                let environment = environment.bind(function.id, Bound::Function(function));
                self.term(rest, &environment, input, output)
            }
            Term::Variable(id) => match environment.find(*id).map(|binding| &binding.bound) {
                Some(Bound::Variable(value)) => output_new(&input, value.clone(), output),
                _ => Err(Stop::Exhausted),
            },
            Term::Label(id, body) => self.label(*id, body, environment, input, output),
            Term::Break(id) => match environment.find(*id).map(|binding| &binding.bound) {
                Some(Bound::Label(label)) => Err(Stop::Break(*label)),
                _ => Err(Stop::Exhausted),
            },
            Term::Closure(id) => match environment.find(*id).map(|binding| &binding.bound) {
                Some(Bound::Closure(term, environment)) => self.term(term, environment, input, output),
                _ => Err(Stop::Exhausted),
            },
            Term::Call(id, arguments) => self.call(*id, arguments, environment, input, output),
            Term::Library(position, arguments) => {
                let Some(function) = self.program.library.get(*position) else { return Err(Stop::Exhausted) };
                let body = JqScope::default();
                self.enter(function, body, arguments, environment, input, output)
            }
            Term::Builtin(builtin, arguments) => control::call(self, *builtin, arguments, environment, input, output),
            Term::Regex(function, regex, is_global, replacement) => {
                let call = regexes::RegexCall { function: *function, regex, is_global: *is_global };
                regexes::apply(self, &call, replacement.as_deref(), environment, &input, &mut |value| {
                    output_new(&input, value, &mut *output)
                })
            }
        }
    }

    #[inline(never)]
    fn text(
        &self,
        pieces: &'p [TextPiece],
        format: TextFormat,
        environment: &JqScope<'p>,
        input: &Item,
        start: String,
        output: ItemOutput<'_>,
    ) -> Flow {
        let Some((piece, rest)) = pieces.split_first() else {
            self.budget.spend(start.len() / 8)?;
            return output_new(input, JqValue::Text(start.into()), output);
        };
        match piece {
            TextPiece::Literal(literal) => self.text(rest, format, environment, input, start + literal, output),
            TextPiece::Term(term) => self.values(term, environment, &input.value, &mut |value| {
                self.budget.weigh(&value)?;
                let text = start.clone() + &format::apply(format, &value)?;
                self.budget.spend(text.len() / 8)?;
                self.text(rest, format, environment, input, text, &mut *output)
            }),
        }
    }

    #[inline(never)]
    fn index(
        &self,
        target: &'p Term,
        index: &'p Term,
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        if let Term::Literal(Literal::Text(name)) = index {
            return self
                .term(target, environment, input, &mut |item| output(paths::child(&item, &JqValue::from(&**name))?));
        }
        let root = input.value.clone();
        self.term(target, environment, input, &mut |item| {
            self.values(index, environment, &root, &mut |index| {
                let child = paths::child(&item, &index)?;
                output(child)
            })
        })
    }

    #[inline(never)]
    fn slice(
        &self,
        target: &'p Term,
        bounds: (&'p Option<Box<Term>>, &'p Option<Box<Term>>),
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        let root = input.value.clone();
        self.term(target, environment, input, &mut |item| {
            self.optional(bounds.1.as_deref(), environment, &root, &mut |to| {
                self.optional(bounds.0.as_deref(), environment, &root, &mut |from| {
                    let slice = paths::slice_key(from, to.clone());
                    let child = paths::child(&item, &slice)?;
                    self.budget.spend(child.value.size())?;
                    output(child)
                })
            })
        })
    }

    /// The values of a term, or null if there is no term.
    fn optional(
        &self,
        term: Option<&'p Term>,
        environment: &JqScope<'p>,
        input: &JqValue,
        output: &mut dyn FnMut(JqValue) -> Flow,
    ) -> Flow {
        match term {
            Some(term) => self.values(term, environment, input, output),
            None => output(JqValue::Null),
        }
    }

    #[inline(never)]
    fn attempt(
        &self,
        body: &'p Term,
        handler: Option<&'p Term>,
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        let outside = input.clone();
        let flow =
            self.term(body, environment, input, &mut |item| output(item).map_err(|stop| Stop::Outside(Box::new(stop))));
        match (flow, handler) {
            (Err(Stop::Outside(stop)), _) => Err(*stop),
            (Err(Stop::Error(_)), None) => Ok(()),
            (Err(Stop::Error(message)), Some(handler)) => {
                let path = outside.path;
                self.term(handler, environment, Item { value: message, path }, output)
            }
            (flow, _) => flow,
        }
    }

    #[inline(never)]
    fn list(
        &self,
        elements: Option<&'p Term>,
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        let mut list = Vec::new();
        if let Some(elements) = elements {
            self.values(elements, environment, &input.value, &mut |value| {
                list.push(value);
                self.budget.spend(1)
            })?;
        }
        output_new(input, JqValue::from(list), output)
    }

    #[inline(never)]
    fn object(
        &self,
        members: &'p [(Term, Term)],
        environment: &JqScope<'p>,
        input: &Item,
        start: JqMembers,
        output: ItemOutput<'_>,
    ) -> Flow {
        let Some(((key, value), rest)) = members.split_first() else {
            return output_new(input, JqValue::from(start), output);
        };
        self.values(key, environment, &input.value, &mut |key| {
            let JqValue::Text(key) = key else {
                return error(format!("a key of an object cannot be {}", key.type_name()));
            };
            self.values(value, environment, &input.value, &mut |value| {
                self.budget.spend(start.len() + 1)?;
                let mut object = start.clone();
                object.insert(Rc::clone(&key), value);
                self.object(rest, environment, input, object, &mut *output)
            })
        })
    }

    #[inline(never)]
    fn binary(
        &self,
        operator: BinaryOperator,
        left: &'p Term,
        right: &'p Term,
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        // As in jq, the values of the right operand vary more slowly.
        self.values(right, environment, &input.value, &mut |right| {
            self.values(left, environment, &input.value, &mut |left| {
                let result = operators::apply(&self.budget, operator, left, &right)?;
                output_new(input, result, &mut *output)
            })
        })
    }

    #[inline(never)]
    fn logic(
        &self,
        decisive: bool,
        left: &'p Term,
        right: &'p Term,
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(left, environment, &input.value, &mut |left| {
            if left.is_true() == decisive {
                return output_new(input, JqValue::Boolean(decisive), &mut *output);
            }
            self.values(right, environment, &input.value, &mut |right| {
                output_new(input, JqValue::Boolean(right.is_true()), &mut *output)
            })
        })
    }

    #[inline(never)]
    fn alternative(
        &self,
        left: &'p Term,
        right: &'p Term,
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        let mut is_found = false;
        let flow = self.term(left, environment, input.clone(), &mut |item| {
            if !item.value.is_true() {
                return Ok(());
            }
            is_found = true;
            output(item).map_err(|stop| Stop::Outside(Box::new(stop)))
        });
        match flow {
            Err(Stop::Outside(stop)) => return Err(*stop),
            Err(Stop::Error(_)) | Ok(()) => {}
            Err(stop) => return Err(stop),
        }
        if is_found { Ok(()) } else { self.term(right, environment, input, output) }
    }

    #[inline(never)]
    fn assign(
        &self,
        target: &'p Term,
        value: &'p Term,
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(value, environment, &input.value, &mut |value| {
            let updated = self.update(target, environment, input, &mut |_, set| set(value.clone()))?;
            output_new(input, updated, &mut *output)
        })
    }

    #[inline(never)]
    fn update_by(
        &self,
        operator: Option<BinaryOperator>,
        target: &'p Term,
        value: &'p Term,
        environment: &JqScope<'p>,
        input: &Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(value, environment, &input.value, &mut |value| {
            let updated = self.update(target, environment, input, &mut |old, set| match operator {
                Some(operator) => set(operators::apply(&self.budget, operator, old.clone(), &value)?),
                None if old.is_true() => set(old.clone()),
                None => set(value.clone()),
            })?;
            output_new(input, updated, &mut *output)
        })
    }

    /// Sets the values at the paths of a term to the first value that `update` sends for each; without one, they are
    /// removed.
    #[inline(never)]
    fn update(
        &self,
        target: &'p Term,
        environment: &JqScope<'p>,
        input: &Item,
        update: &mut dyn FnMut(&JqValue, ValueOutput<'_>) -> Flow,
    ) -> Result<JqValue, Stop> {
        let mut found = Vec::new();
        self.paths(target, environment, &input.value, &mut |path| {
            found.push(path);
            self.budget.spend(1)
        })?;
        let (mut root, mut removed) = (input.value.clone(), Vec::new());
        for path in found {
            let keys = path.keys();
            let old = paths::get(&root, &keys)?;
            let mut new = None;
            let done = self.new_label();
            match update(&old, &mut |value| {
                new = Some(value);
                Err(Stop::Break(done))
            }) {
                Err(Stop::Break(label)) if label == done => {}
                flow => flow?,
            }
            drop(old);
            match new {
                Some(new) => root = paths::set(&self.budget, root, &keys, new)?,
                None => removed.push(keys),
            }
        }
        paths::delete(&self.budget, root, removed)
    }

    /// The paths of a term.
    pub(super) fn paths(
        &self,
        term: &'p Term,
        environment: &JqScope<'p>,
        input: &JqValue,
        output: &mut dyn FnMut(JqPath) -> Flow,
    ) -> Flow {
        let item = Item { value: input.clone(), path: Some(JqPath::default()) };
        self.term(term, environment, item, &mut |item| match item.path {
            Some(path) => output(path),
            None => error("the term has no path"),
        })
    }

    #[inline(never)]
    fn condition(
        &self,
        condition: &'p Term,
        then: &'p Term,
        otherwise: Option<&'p Term>,
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        self.values(condition, environment, &input.value, &mut |value| match (value.is_true(), otherwise) {
            (true, _) => self.term(then, environment, input.clone(), &mut *output),
            (false, Some(otherwise)) => self.term(otherwise, environment, input.clone(), &mut *output),
            (false, None) => output(input.clone()),
        })
    }

    #[inline(never)]
    fn label(&self, id: u32, body: &'p Term, environment: &JqScope<'p>, input: Item, output: ItemOutput<'_>) -> Flow {
        let label = self.new_label();
        let environment = environment.bind(id, Bound::Label(label));
        match self.term(body, &environment, input, output) {
            Err(Stop::Break(found)) if found == label => Ok(()),
            flow => flow,
        }
    }

    #[inline(never)]
    fn call(
        &self,
        id: u32,
        arguments: &'p [Term],
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        let Some(binding) = environment.find(id) else { return Err(Stop::Exhausted) };
        let Bound::Function(function) = &binding.bound else { return Err(Stop::Exhausted) };
        // The function sees what is bound where it is defined, and itself.
        let body = JqScope(Some(Rc::clone(binding)));
        self.enter(function, body, arguments, environment, input, output)
    }

    fn enter(
        &self,
        function: &'p Function,
        mut body: JqScope<'p>,
        arguments: &'p [Term],
        environment: &JqScope<'p>,
        input: Item,
        output: ItemOutput<'_>,
    ) -> Flow {
        if body.0.is_none() {
            // A function of the library, which may call itself.
            body = body.bind(function.id, Bound::Function(function));
        }
        for (parameter, argument) in function.parameters.iter().zip(arguments) {
            body = body.bind(*parameter, Bound::Closure(argument, environment.clone()));
        }
        self.term(&function.body, &body, input, output)
    }
}

fn literal_value(literal: &Literal) -> JqValue {
    match literal {
        Literal::Null => JqValue::Null,
        Literal::Boolean(value) => JqValue::Boolean(*value),
        Literal::Number(value) => JqValue::from(*value),
        Literal::Text(text) => JqValue::from(&**text),
    }
}
