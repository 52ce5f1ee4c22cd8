//! Expression trees and their evaluation.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::MAX_VALUE_BYTES;
use super::functions::LuaFunction;
use super::variables::{Variable, VariableKey, Variables};
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::lua_value::{Budget, EvaluationError};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub(super) root: LuaNode,
}

/// A node of an expression. The parser limits their number and so the depth of the recursion.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LuaNode {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(Box<[u8]>),
    Variable(Variable, Option<Box<LuaNode>>),
    /// An index of a value that is not a table.
    Index(Box<LuaNode>),
    Not(Box<LuaNode>),
    Negate(Box<LuaNode>),
    Length(Box<LuaNode>),
    And(Box<LuaNode>, Box<LuaNode>),
    Or(Box<LuaNode>, Box<LuaNode>),
    Comparison(LuaComparison, Box<LuaNode>, Box<LuaNode>),
    Arithmetic(LuaArithmetic, Box<LuaNode>, Box<LuaNode>),
    /// A chain of `..`.
    Concatenation(Box<[LuaNode]>),
    Call(LuaFunction, Box<[LuaNode]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LuaComparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LuaArithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Expression {
    /// The value for one request.
    pub fn evaluate<'v>(
        &'v self,
        variables: &'v dyn Variables,
        budget: &mut Budget,
    ) -> Result<LuaValue<'v>, EvaluationError> {
        self.root.evaluate(variables, budget)
    }
}

impl Expression {
    /// Checks each variable that the expression reads.
    pub(super) fn check_variables(&self, check: &dyn Fn(Variable) -> Result<(), String>) -> Result<(), String> {
        self.root.check_variables(check)
    }
}

impl LuaNode {
    fn check_variables(&self, check: &dyn Fn(Variable) -> Result<(), String>) -> Result<(), String> {
        match self {
            LuaNode::Nil | LuaNode::Boolean(_) | LuaNode::Number(_) | LuaNode::Text(_) => Ok(()),
            LuaNode::Variable(Variable::RequestHeader | Variable::RequestQueryArgument, None) => {
                Err("a table of headers or parameters is used without a field".to_owned())
            }
            LuaNode::Variable(variable, key) => {
                if *variable != Variable::Local {
                    check(*variable)?;
                }
                key.as_deref().map_or(Ok(()), |key| key.check_variables(check))
            }
            LuaNode::Index(value) | LuaNode::Not(value) | LuaNode::Negate(value) | LuaNode::Length(value) => {
                value.check_variables(check)
            }
            LuaNode::And(left, right)
            | LuaNode::Or(left, right)
            | LuaNode::Comparison(_, left, right)
            | LuaNode::Arithmetic(_, left, right) => {
                left.check_variables(check)?;
                right.check_variables(check)
            }
            LuaNode::Concatenation(parts) | LuaNode::Call(_, parts) => {
                parts.iter().try_for_each(|part| part.check_variables(check))
            }
        }
    }

    fn evaluate<'v>(
        &'v self,
        variables: &'v dyn Variables,
        budget: &mut Budget,
    ) -> Result<LuaValue<'v>, EvaluationError> {
        budget.spend(1)?;
        Ok(match self {
            LuaNode::Nil => LuaValue::Nil,
            LuaNode::Boolean(value) => LuaValue::Boolean(*value),
            LuaNode::Number(number) => LuaValue::Number(*number),
            LuaNode::Text(text) => LuaValue::Text(Cow::Borrowed(text)),
            LuaNode::Variable(variable, None) => variables.get(*variable, VariableKey::None),
            LuaNode::Variable(variable, Some(key)) => {
                let key = key.evaluate(variables, budget)?;
                budget.spend(variables.examined_bytes(*variable))?;
                match key {
                    LuaValue::Text(key) => {
                        budget.spend(key.len())?;
                        variables.get(*variable, VariableKey::Text(&key))
                    }
                    LuaValue::Number(key) => variables.get(*variable, VariableKey::Number(key)),
                    LuaValue::Nil | LuaValue::Boolean(_) => LuaValue::Nil,
                }
            }
            LuaNode::Index(value) => match value.evaluate(variables, budget)? {
                LuaValue::Text(_) => LuaValue::Nil,
                other => return Err(EvaluationError::Index(other.type_name())),
            },
            LuaNode::Not(value) => LuaValue::Boolean(!value.evaluate(variables, budget)?.is_truthy()),
            LuaNode::Negate(value) => {
                let value = value.evaluate(variables, budget)?;
                LuaValue::Number(-operand(&value, budget)?)
            }
            LuaNode::Length(value) => match value.evaluate(variables, budget)? {
                LuaValue::Text(text) => LuaValue::Number(text.len() as f64),
                other => return Err(EvaluationError::Length(other.type_name())),
            },
            LuaNode::And(left, right) => match left.evaluate(variables, budget)? {
                value if value.is_truthy() => right.evaluate(variables, budget)?,
                value => value,
            },
            LuaNode::Or(left, right) => match left.evaluate(variables, budget)? {
                value if value.is_truthy() => value,
                _ => right.evaluate(variables, budget)?,
            },
            LuaNode::Comparison(comparison, left, right) => {
                let (left, right) = (left.evaluate(variables, budget)?, right.evaluate(variables, budget)?);
                if let (LuaValue::Text(left), LuaValue::Text(right)) = (&left, &right) {
                    budget.spend(left.len().min(right.len()))?;
                }
                LuaValue::Boolean(comparison.apply(&left, &right)?)
            }
            LuaNode::Arithmetic(operator, left, right) => {
                let (left, right) = (left.evaluate(variables, budget)?, right.evaluate(variables, budget)?);
                LuaValue::Number(operator.apply(operand(&left, budget)?, operand(&right, budget)?))
            }
            LuaNode::Concatenation(parts) => concatenate(parts, variables, budget)?,
            LuaNode::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(argument.evaluate(variables, budget)?);
                }
                function.call(values, budget)?
            }
        })
    }
}

/// The number that an arithmetic operator reads.
fn operand(value: &LuaValue<'_>, budget: &mut Budget) -> Result<f64, EvaluationError> {
    if let LuaValue::Text(text) = value {
        budget.spend(text.len())?;
    }
    value.as_number().ok_or(EvaluationError::Arithmetic(value.type_name()))
}

fn concatenate<'v>(
    parts: &'v [LuaNode],
    variables: &'v dyn Variables,
    budget: &mut Budget,
) -> Result<LuaValue<'v>, EvaluationError> {
    let mut text = Vec::new();
    for part in parts {
        let part = part.evaluate(variables, budget)?.into_string();
        let part = part.map_err(|other| EvaluationError::Concatenation(other.type_name()))?;
        budget.spend(part.len())?;
        if text.len() + part.len() > MAX_VALUE_BYTES {
            return Err(EvaluationError::TooLong);
        }
        text.extend_from_slice(&part);
    }
    Ok(LuaValue::Text(Cow::Owned(text)))
}

impl LuaComparison {
    fn apply(self, left: &LuaValue<'_>, right: &LuaValue<'_>) -> Result<bool, EvaluationError> {
        let ordering = match (self, left, right) {
            // Values of different types are not equal.
            (LuaComparison::Equal, ..) => return Ok(left == right),
            (LuaComparison::NotEqual, ..) => return Ok(left != right),
            (_, LuaValue::Number(left), LuaValue::Number(right)) => left.partial_cmp(right),
            (_, LuaValue::Text(left), LuaValue::Text(right)) => Some(left.cmp(right)),
            _ => return Err(EvaluationError::Comparison(left.type_name(), right.type_name())),
        };
        // No order is true for a number that is not a number.
        Ok(ordering.is_some_and(|ordering| match self {
            LuaComparison::Less => ordering == Ordering::Less,
            LuaComparison::LessOrEqual => ordering != Ordering::Greater,
            LuaComparison::Greater => ordering == Ordering::Greater,
            LuaComparison::GreaterOrEqual => ordering != Ordering::Less,
            LuaComparison::Equal | LuaComparison::NotEqual => false,
        }))
    }
}

impl LuaArithmetic {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            LuaArithmetic::Add => left + right,
            LuaArithmetic::Subtract => left - right,
            LuaArithmetic::Multiply => left * right,
            LuaArithmetic::Divide => left / right,
            // The result has the sign of the divisor.
            LuaArithmetic::Remainder => left - (left / right).floor() * right,
        }
    }
}
