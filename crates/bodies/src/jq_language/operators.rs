//! The operators between two values.

use std::rc::Rc;

use super::budget::{StepBudget, Stop, error};
use super::value::{JqMembers, JqValue};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

pub(super) fn apply(
    budget: &StepBudget,
    operator: BinaryOperator,
    left: JqValue,
    right: &JqValue,
) -> Result<JqValue, Stop> {
    match operator {
        BinaryOperator::Add => add(budget, left, right),
        BinaryOperator::Subtract => subtract(budget, left, right),
        BinaryOperator::Multiply => multiply(budget, left, right),
        BinaryOperator::Divide => divide(budget, &left, right),
        BinaryOperator::Modulo => modulo(&left, right),
        _ => {
            spend_comparison(budget, &left, right)?;
            Ok(JqValue::Boolean(match operator {
                BinaryOperator::Equal => left == *right,
                BinaryOperator::NotEqual => left != *right,
                BinaryOperator::Less => left < *right,
                BinaryOperator::LessOrEqual => left <= *right,
                BinaryOperator::Greater => left > *right,
                _ => left >= *right,
            }))
        }
    }
}

/// Takes the steps of a comparison, which may visit all of both values.
pub(super) fn spend_comparison(budget: &StepBudget, one: &JqValue, other: &JqValue) -> Result<(), Stop> {
    match (one, other) {
        (JqValue::List(one, _), JqValue::List(other, _)) => {
            for (one, other) in one.iter().zip(other.iter()) {
                budget.spend(1)?;
                spend_comparison(budget, one, other)?;
            }
            Ok(())
        }
        (JqValue::Object(one, _), JqValue::Object(other, _)) => {
            budget.spend(one.len() + other.len())?;
            for (name, value) in one.iter() {
                if let Some(other) = other.get(name) {
                    spend_comparison(budget, value, other)?;
                }
            }
            Ok(())
        }
        (JqValue::Text(one), JqValue::Text(other)) => budget.spend(one.len().min(other.len()) / 64),
        _ => Ok(()),
    }
}

pub(super) fn add(budget: &StepBudget, left: JqValue, right: &JqValue) -> Result<JqValue, Stop> {
    match (left, right) {
        (left, JqValue::Null) => Ok(left),
        (JqValue::Null, right) => Ok(right.clone()),
        (JqValue::Number(left), JqValue::Number(right)) => Ok(JqValue::from(left.value + right.value)),
        (JqValue::Text(left), JqValue::Text(right)) => {
            budget.spend((left.len() + right.len()) / 8)?;
            Ok(JqValue::Text([&*left, right].concat().into()))
        }
        (JqValue::List(mut left, _), JqValue::List(right, _)) => {
            let copied = if Rc::strong_count(&left) > 1 { left.len() } else { left.len() / 8 };
            budget.spend(copied + right.len())?;
            Rc::make_mut(&mut left).extend(right.iter().cloned());
            Ok(JqValue::list(left))
        }
        (JqValue::Object(mut left, _), JqValue::Object(right, _)) => {
            let copied = if Rc::strong_count(&left) > 1 { left.len() } else { left.len() / 8 };
            budget.spend(copied + right.len())?;
            let members = Rc::make_mut(&mut left);
            members.extend(right.iter().map(|(name, value)| (Rc::clone(name), value.clone())));
            Ok(JqValue::object(left))
        }
        (left, right) => incompatible("added", &left, right),
    }
}

fn subtract(budget: &StepBudget, left: JqValue, right: &JqValue) -> Result<JqValue, Stop> {
    match (left, right) {
        (JqValue::Number(left), JqValue::Number(right)) => Ok(JqValue::from(left.value - right.value)),
        (JqValue::List(left, _), JqValue::List(right, _)) => {
            let mut kept = Vec::new();
            for element in left.iter() {
                budget.spend(1 + right.len())?;
                let mut is_removed = false;
                for removed in right.iter() {
                    spend_comparison(budget, element, removed)?;
                    is_removed |= element == removed;
                }
                if !is_removed {
                    kept.push(element.clone());
                }
            }
            Ok(JqValue::from(kept))
        }
        (left, right) => incompatible("subtracted", &left, right),
    }
}

fn multiply(budget: &StepBudget, left: JqValue, right: &JqValue) -> Result<JqValue, Stop> {
    match (left, right) {
        (JqValue::Number(left), JqValue::Number(right)) => Ok(JqValue::from(left.value * right.value)),
        (JqValue::Text(text), JqValue::Number(count)) => repeat(budget, &text, count.value),
        (JqValue::Number(count), JqValue::Text(text)) => repeat(budget, text, count.value),
        (JqValue::Object(left, _), JqValue::Object(right, _)) => merge(budget, left, right).map(JqValue::object),
        (left, right) => incompatible("multiplied", &left, right),
    }
}

fn repeat(budget: &StepBudget, text: &str, count: f64) -> Result<JqValue, Stop> {
    if count.is_nan() || count <= 0.0 {
        return Ok(JqValue::Null);
    }
    let count = count.max(1.0) as usize;
    budget.spend(text.len().saturating_mul(count) / 8 + 1)?;
    Ok(JqValue::Text(text.repeat(count).into()))
}

fn merge(budget: &StepBudget, mut left: Rc<JqMembers>, right: &JqMembers) -> Result<Rc<JqMembers>, Stop> {
    budget.spend(left.len() + right.len())?;
    let members = Rc::make_mut(&mut left);
    for (name, value) in right {
        let merged = match (members.get(name), value) {
            (Some(JqValue::Object(old, _)), JqValue::Object(new, _)) => {
                JqValue::object(merge(budget, Rc::clone(old), new)?)
            }
            _ => value.clone(),
        };
        members.insert(Rc::clone(name), merged);
    }
    Ok(left)
}

fn divide(budget: &StepBudget, left: &JqValue, right: &JqValue) -> Result<JqValue, Stop> {
    match (left, right) {
        (JqValue::Number(_), JqValue::Number(right)) if right.value == 0.0 => {
            error("a number cannot be divided by zero")
        }
        (JqValue::Number(left), JqValue::Number(right)) => Ok(JqValue::from(left.value / right.value)),
        (JqValue::Text(text), JqValue::Text(separator)) => split(budget, text, separator),
        (left, right) => incompatible("divided", left, right),
    }
}

pub(super) fn split(budget: &StepBudget, text: &str, separator: &str) -> Result<JqValue, Stop> {
    budget.spend(text.len() + 1)?;
    if text.is_empty() {
        return Ok(JqValue::from(Vec::new()));
    }
    let pieces: Vec<JqValue> = if separator.is_empty() {
        text.chars().map(|character| JqValue::from(&*character.to_string())).collect()
    } else {
        text.split(separator).map(JqValue::from).collect()
    };
    Ok(JqValue::from(pieces))
}

fn modulo(left: &JqValue, right: &JqValue) -> Result<JqValue, Stop> {
    let (Some(left_number), Some(right_number)) = (left.number(), right.number()) else {
        return incompatible("divided", left, right);
    };
    if left_number.is_nan() || right_number.is_nan() {
        return Ok(JqValue::from(f64::NAN));
    }
    // As in jq, both are integers, and the sign is that of the left one.
    let (left, right) = (left_number as i64, (right_number as i64).unsigned_abs());
    if right == 0 {
        return error("a number cannot be divided by zero");
    }
    let rest = left.unsigned_abs() % right;
    Ok(JqValue::from(if left < 0 { -(rest as f64) } else { rest as f64 }))
}

fn incompatible<T>(verb: &str, left: &JqValue, right: &JqValue) -> Result<T, Stop> {
    error(format!("{} and {} cannot be {verb}", left.type_name(), right.type_name()))
}
