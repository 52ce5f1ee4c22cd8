//! Scripts: statements of Lua without loops and functions, which call a list of actions.
//!
//! ```text
//!   "if kong.request.get_header('x') then …" ──parse.rs──▶ steps ──run──▶ actions of a ScriptHost
//! ```
//!
//! A script that contains anything else is refused when it is parsed, so that no script runs only partly.

mod parse;

use std::borrow::Cow;

use super::expression::Expression;
use super::variables::{Variable, VariableKey, Variables};
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::lua_value::{Budget, EvaluationError};

pub use parse::ScriptSyntaxError;

/// A parsed script.
#[derive(Clone, Debug, PartialEq)]
pub struct LuaScript<A> {
    steps: Box<[ScriptStep<A>]>,
    /// The number of local variables.
    locals: usize,
}

/// A condition, and the steps for which it must be true.
type ScriptBranch<A> = (Option<Expression>, Box<[ScriptStep<A>]>);

#[derive(Clone, Debug, PartialEq)]
enum ScriptStep<A> {
    SetLocal(usize, Expression),
    /// The first branch whose condition is true runs; `None` is `else`.
    If(Box<[ScriptBranch<A>]>),
    /// The line, the action and its arguments.
    Act(usize, A, Box<[ArgumentSource]>),
    Return,
}

#[derive(Clone, Debug, PartialEq)]
enum ArgumentSource {
    Value(Expression),
    Table(Box<[(String, ArgumentSource)]>),
}

/// A function that a script may call.
pub trait ScriptAction: Copy {
    /// The function of a path such as `kong.response.exit`; the error says why it is refused, and what replaces it.
    fn find(path: &str) -> Result<Self, (String, String)>;
    /// Checks the arguments, of which only literals are known.
    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String>;
    /// Whether a value may be read.
    fn may_read(variable: Variable) -> Result<(), String>;
    /// Whether the script ends after it.
    fn ends(self) -> bool;
    /// Whether it changes what is read of the request.
    fn changes_request(self) -> bool;
}

/// An argument of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptArgument {
    Value(LuaValue<'static>),
    /// The fields in the order of the script, without those whose value is nil.
    Table(Vec<(String, ScriptArgument)>),
}

/// What a script reads and changes.
pub trait ScriptHost<A> {
    fn variables(&self) -> &dyn Variables;
    /// The error is a type error of the arguments, without their values.
    fn act(&mut self, action: A, arguments: Vec<ScriptArgument>) -> Result<(), &'static str>;
}

/// Why a script ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("{0}")]
    Evaluation(#[from] EvaluationError),
    #[error("line {0}: {1}")]
    Action(usize, &'static str),
}

/// How steps end.
#[derive(PartialEq, Eq)]
enum ScriptFlow {
    Continue,
    /// The script returns, or an action has ended it.
    End,
}

impl<A: ScriptAction> LuaScript<A> {
    /// Runs the script. The result says whether an action has ended it.
    pub fn run(&self, host: &mut dyn ScriptHost<A>, budget: &mut Budget) -> Result<bool, ScriptError> {
        let mut run = ScriptRun { host, budget, locals: vec![LuaValue::Nil; self.locals], is_ended: false };
        run.steps(&self.steps)?;
        Ok(run.is_ended)
    }

    /// The actions of the script with their arguments, of which only literals are known.
    pub fn actions(&self) -> Vec<(A, Vec<Option<ScriptArgument>>)> {
        let mut actions = Vec::new();
        collect(&self.steps, &mut actions);
        actions
    }
}

fn collect<A: ScriptAction>(steps: &[ScriptStep<A>], actions: &mut Vec<(A, Vec<Option<ScriptArgument>>)>) {
    for step in steps {
        match step {
            ScriptStep::Act(_, action, arguments) => {
                actions.push((*action, arguments.iter().map(ArgumentSource::literal).collect()));
            }
            ScriptStep::If(branches) => branches.iter().for_each(|(_, steps)| collect(steps, actions)),
            ScriptStep::SetLocal(..) | ScriptStep::Return => {}
        }
    }
}

struct ScriptRun<'r, A> {
    host: &'r mut dyn ScriptHost<A>,
    budget: &'r mut Budget,
    locals: Vec<LuaValue<'static>>,
    is_ended: bool,
}

impl<A: ScriptAction> ScriptRun<'_, A> {
    fn steps(&mut self, steps: &[ScriptStep<A>]) -> Result<ScriptFlow, ScriptError> {
        for step in steps {
            match step {
                ScriptStep::SetLocal(number, expression) => {
                    let value = self.value(expression)?;
                    if let Some(local) = self.locals.get_mut(*number) {
                        *local = value;
                    }
                }
                ScriptStep::If(branches) => {
                    for (condition, steps) in branches {
                        let is_true = match condition {
                            Some(condition) => self.value(condition)?.is_truthy(),
                            None => true,
                        };
                        if is_true {
                            if self.steps(steps)? == ScriptFlow::End {
                                return Ok(ScriptFlow::End);
                            }
                            break;
                        }
                    }
                }
                ScriptStep::Act(line, action, sources) => {
                    let mut arguments = Vec::with_capacity(sources.len());
                    for source in sources {
                        arguments.push(self.argument(source)?);
                    }
                    self.host.act(*action, arguments).map_err(|message| ScriptError::Action(*line, message))?;
                    if action.ends() {
                        self.is_ended = true;
                        return Ok(ScriptFlow::End);
                    }
                }
                ScriptStep::Return => return Ok(ScriptFlow::End),
            }
        }
        Ok(ScriptFlow::Continue)
    }

    fn value(&mut self, expression: &Expression) -> Result<LuaValue<'static>, ScriptError> {
        let variables = WithLocals { variables: self.host.variables(), locals: &self.locals };
        let value = expression.evaluate(&variables, self.budget)?;
        if let LuaValue::Text(text) = &value {
            self.budget.spend(text.len())?;
        }
        Ok(value.into_owned())
    }

    fn argument(&mut self, source: &ArgumentSource) -> Result<ScriptArgument, ScriptError> {
        match source {
            ArgumentSource::Value(expression) => Ok(ScriptArgument::Value(self.value(expression)?)),
            ArgumentSource::Table(fields) => {
                let mut table = Vec::with_capacity(fields.len());
                for (name, source) in fields {
                    let value = self.argument(source)?;
                    if value != ScriptArgument::Value(LuaValue::Nil) {
                        table.push((name.clone(), value));
                    }
                }
                Ok(ScriptArgument::Table(table))
            }
        }
    }
}

impl ArgumentSource {
    /// The argument, if it does not depend on the request.
    fn literal(&self) -> Option<ScriptArgument> {
        match self {
            ArgumentSource::Value(expression) => expression.literal().map(ScriptArgument::Value),
            ArgumentSource::Table(fields) => {
                let fields = fields.iter().map(|(name, source)| Some((name.clone(), source.literal()?)));
                fields.collect::<Option<_>>().map(ScriptArgument::Table)
            }
        }
    }
}

/// The local variables, and all others.
struct WithLocals<'r> {
    variables: &'r dyn Variables,
    locals: &'r [LuaValue<'static>],
}

impl Variables for WithLocals<'_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        match (variable, key) {
            (Variable::Local, VariableKey::Number(number)) => match self.locals.get(number as usize) {
                Some(LuaValue::Text(text)) => LuaValue::Text(Cow::Borrowed(text)),
                Some(other) => other.clone(),
                None => LuaValue::Nil,
            },
            _ => self.variables.get(variable, key),
        }
    }

    fn examined_bytes(&self, variable: Variable) -> usize {
        self.variables.examined_bytes(variable)
    }
}

#[cfg(test)]
mod tests;
