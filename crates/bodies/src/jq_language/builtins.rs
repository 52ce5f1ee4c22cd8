//! The functions that are not written in the language itself.

use std::rc::Rc;

use super::budget::{Flow, StepBudget, Stop, error};
use super::value::JqValue;
use super::{format, operators};

/// A function, by what it does with its arguments.
#[derive(Clone, Copy)]
pub(super) enum Builtin {
    /// Gives one value for the input.
    Input(fn(&StepBudget, &JqValue) -> Result<JqValue, Stop>),
    /// Gives one value for the input and each value of the argument.
    WithValue(fn(&StepBudget, &JqValue, &JqValue) -> Result<JqValue, Stop>),
    Control(ControlFunction),
}

/// The functions that evaluate their arguments in their own ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlFunction {
    Empty,
    Error,
    Select,
    Recurse,
    First,
    Last,
    Limit,
    Skip,
    Until,
    While,
    Repeat,
    Range,
    IsEmpty,
    Path,
    GetPath,
    SetPath,
    DeletePaths,
    SortBy,
    GroupBy,
}

impl Builtin {
    pub(super) fn named(name: &str, arity: usize) -> Option<Builtin> {
        use Builtin::{Input, WithValue};
        Some(match (name, arity) {
            ("not", 0) => Input(|_, value| Ok(JqValue::Boolean(!value.is_true()))),
            ("length", 0) => Input(length),
            ("utf8bytelength", 0) => Input(|_, value| Ok(JqValue::from(text_of(value, "utf8bytelength")?.len()))),
            ("keys", 0) => Input(|budget, value| keys(budget, value, true)),
            ("keys_unsorted", 0) => Input(|budget, value| keys(budget, value, false)),
            ("type", 0) => Input(|_, value| Ok(JqValue::from(value.type_name()))),
            ("add", 0) => Input(sum),
            ("reverse", 0) => Input(reverse),
            ("tostring", 0) => Input(|budget, value| {
                budget.weigh(value)?;
                Ok(JqValue::from(&*format::text(value)))
            }),
            ("tonumber", 0) => Input(to_number),
            ("toboolean", 0) => Input(to_boolean),
            ("fromjson", 0) => Input(from_json),
            ("explode", 0) => Input(explode),
            ("implode", 0) => Input(implode),
            ("trim", 0) => Input(|budget, value| trim(budget, value, "trim", str::trim)),
            ("ltrim", 0) => Input(|budget, value| trim(budget, value, "ltrim", str::trim_start)),
            ("rtrim", 0) => Input(|budget, value| trim(budget, value, "rtrim", str::trim_end)),
            ("ascii_downcase", 0) => Input(|budget, value| ascii_case(budget, value, false)),
            ("ascii_upcase", 0) => Input(|budget, value| ascii_case(budget, value, true)),
            ("floor", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "floor")?.floor()))),
            ("ceil", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "ceil")?.ceil()))),
            ("round", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "round")?.round()))),
            ("trunc", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "trunc")?.trunc()))),
            ("sqrt", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "sqrt")?.sqrt()))),
            ("fabs", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "fabs")?.abs()))),
            ("log", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "log")?.ln()))),
            ("log2", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "log2")?.log2()))),
            ("log10", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "log10")?.log10()))),
            ("exp", 0) => Input(|_, value| Ok(JqValue::from(number_of(value, "exp")?.exp()))),
            ("infinite", 0) => Input(|_, _| Ok(JqValue::from(f64::INFINITY))),
            ("nan", 0) => Input(|_, _| Ok(JqValue::from(f64::NAN))),
            ("isinfinite", 0) => Input(|_, value| Ok(JqValue::Boolean(number_of(value, "isinfinite")?.is_infinite()))),
            ("isnan", 0) => Input(|_, value| Ok(JqValue::Boolean(number_of(value, "isnan")?.is_nan()))),
            ("isnormal", 0) => Input(|_, value| Ok(JqValue::Boolean(number_of(value, "isnormal")?.is_normal()))),
            ("has", 1) => WithValue(|_, value, key| has(value, key)),
            ("contains", 1) => WithValue(|budget, value, part| contains(budget, value, part).map(JqValue::Boolean)),
            ("startswith", 1) => WithValue(|_, value, start| {
                Ok(JqValue::Boolean(text_of(value, "startswith")?.starts_with(text_of(start, "startswith")?)))
            }),
            ("endswith", 1) => WithValue(|_, value, end| {
                Ok(JqValue::Boolean(text_of(value, "endswith")?.ends_with(text_of(end, "endswith")?)))
            }),
            ("ltrimstr", 1) => {
                WithValue(|_, value, start| Ok(without(value, start, |text, part| text.strip_prefix(part))))
            }
            ("rtrimstr", 1) => WithValue(|_, value, end| Ok(without(value, end, |text, part| text.strip_suffix(part)))),
            ("split", 1) => WithValue(|budget, value, separator| {
                operators::split(budget, text_of(value, "split")?, text_of(separator, "split")?)
            }),
            ("indices", 1) => WithValue(indices),
            ("flatten", 1) => WithValue(flatten),
            _ => Builtin::Control(ControlFunction::named(name, arity)?),
        })
    }
}

impl ControlFunction {
    fn named(name: &str, arity: usize) -> Option<ControlFunction> {
        Some(match (name, arity) {
            ("empty", 0) => ControlFunction::Empty,
            ("error", 0) => ControlFunction::Error,
            ("select", 1) => ControlFunction::Select,
            ("recurse", 1) => ControlFunction::Recurse,
            ("first", 1) => ControlFunction::First,
            ("last", 1) => ControlFunction::Last,
            ("limit", 2) => ControlFunction::Limit,
            ("skip", 2) => ControlFunction::Skip,
            ("until", 2) => ControlFunction::Until,
            ("while", 2) => ControlFunction::While,
            ("repeat", 1) => ControlFunction::Repeat,
            ("range", 3) => ControlFunction::Range,
            ("isempty", 1) => ControlFunction::IsEmpty,
            ("path", 1) => ControlFunction::Path,
            ("getpath", 1) => ControlFunction::GetPath,
            ("setpath", 2) => ControlFunction::SetPath,
            ("delpaths", 1) => ControlFunction::DeletePaths,
            ("sort_by", 1) => ControlFunction::SortBy,
            ("group_by", 1) => ControlFunction::GroupBy,
            _ => return None,
        })
    }
}

fn trim(budget: &StepBudget, value: &JqValue, name: &str, trimmed: fn(&str) -> &str) -> Result<JqValue, Stop> {
    budget.spend(value.text_steps())?;
    Ok(JqValue::from(trimmed(text_of(value, name)?)))
}

fn length(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    budget.spend(value.text_steps())?;
    Ok(match value {
        JqValue::Null => JqValue::from(0.0),
        JqValue::Boolean(_) => return error("boolean has no length"),
        JqValue::Number(number) => JqValue::from(number.value.abs()),
        JqValue::Text(text) => JqValue::from(text.chars().count()),
        JqValue::List(elements, _) => JqValue::from(elements.len()),
        JqValue::Object(members, _) => JqValue::from(members.len()),
    })
}

fn keys(budget: &StepBudget, value: &JqValue, is_sorted: bool) -> Result<JqValue, Stop> {
    budget.spend(value.size() * if is_sorted { 8 } else { 1 })?;
    match value {
        JqValue::List(elements, _) => Ok(JqValue::from((0..elements.len()).map(JqValue::from).collect::<Vec<_>>())),
        JqValue::Object(members, _) => {
            let mut keys: Vec<JqValue> = members.keys().map(|name| JqValue::Text(Rc::clone(name))).collect();
            if is_sorted {
                keys.sort();
            }
            Ok(JqValue::from(keys))
        }
        value => error(format!("{} has no keys", value.type_name())),
    }
}

fn sum(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    let add = |total: JqValue, value: &JqValue| {
        budget.spend(1)?;
        operators::add(budget, total, value)
    };
    match value {
        JqValue::List(elements, _) => match elements.first() {
            Some(JqValue::Text(_)) if elements.iter().all(|element| element.text().is_some()) => {
                let texts: Vec<&str> = elements.iter().filter_map(JqValue::text).collect();
                budget.spend(texts.iter().map(|text| 1 + text.len() / 8).sum())?;
                Ok(JqValue::Text(texts.concat().into()))
            }
            _ => elements.iter().try_fold(JqValue::Null, add),
        },
        JqValue::Object(members, _) => members.values().try_fold(JqValue::Null, add),
        value => error(format!("{} cannot be iterated", value.type_name())),
    }
}

fn reverse(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    budget.spend(value.size())?;
    match value {
        JqValue::Null => Ok(JqValue::from(Vec::new())),
        JqValue::Text(text) => Ok(JqValue::Text(text.chars().rev().collect::<String>().into())),
        JqValue::List(elements, _) => Ok(JqValue::from(elements.iter().rev().cloned().collect::<Vec<_>>())),
        value => error(format!("{} cannot be reversed", value.type_name())),
    }
}

fn to_number(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    budget.spend(value.text_steps())?;
    match value {
        JqValue::Number(_) => Ok(value.clone()),
        JqValue::Text(text) => match JqValue::from_json(text) {
            Some(number @ JqValue::Number(_)) => Ok(number),
            _ => error("the string is not a number"),
        },
        value => error(format!("{} cannot become a number", value.type_name())),
    }
}

fn to_boolean(_: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    match value {
        JqValue::Boolean(_) => Ok(value.clone()),
        JqValue::Text(text) if &**text == "true" => Ok(JqValue::Boolean(true)),
        JqValue::Text(text) if &**text == "false" => Ok(JqValue::Boolean(false)),
        value => error(format!("{} cannot become a boolean", value.type_name())),
    }
}

fn from_json(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    let text = text_of(value, "fromjson")?;
    budget.spend(text.len())?;
    match JqValue::from_json(text) {
        Some(value) => Ok(value),
        None => error("the string is not JSON"),
    }
}

fn explode(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    let text = text_of(value, "explode")?;
    budget.spend(text.len())?;
    Ok(JqValue::from(text.chars().map(|character| JqValue::from(f64::from(u32::from(character)))).collect::<Vec<_>>()))
}

fn implode(budget: &StepBudget, value: &JqValue) -> Result<JqValue, Stop> {
    let JqValue::List(codes, _) = value else { return error("only an array can become a string of its codes") };
    budget.spend(codes.len())?;
    let character = |code: &JqValue| code.number().and_then(|code| char::from_u32(code as u32));
    match codes.iter().map(character).collect::<Option<String>>() {
        Some(text) => Ok(JqValue::Text(text.into())),
        None => error("the array has an element that is not the code of a character"),
    }
}

fn ascii_case(budget: &StepBudget, value: &JqValue, is_upper: bool) -> Result<JqValue, Stop> {
    let text = text_of(value, "ascii_downcase and ascii_upcase")?;
    budget.spend(text.len() / 8)?;
    let text = if is_upper { text.to_ascii_uppercase() } else { text.to_ascii_lowercase() };
    Ok(JqValue::Text(text.into()))
}

fn has(value: &JqValue, key: &JqValue) -> Result<JqValue, Stop> {
    match (value, key) {
        (JqValue::Object(members, _), JqValue::Text(name)) => Ok(JqValue::Boolean(members.contains_key(name))),
        (JqValue::List(elements, _), JqValue::Number(index)) => {
            Ok(JqValue::Boolean(index.value >= 0.0 && index.value < elements.len() as f64))
        }
        (value, key) => error(format!("{} cannot have a key of type {}", value.type_name(), key.type_name())),
    }
}

fn contains(budget: &StepBudget, value: &JqValue, part: &JqValue) -> Result<bool, Stop> {
    budget.spend(1)?;
    match (value, part) {
        (JqValue::Object(members, _), JqValue::Object(parts, _)) => {
            for (name, part) in parts.iter() {
                match members.get(name) {
                    Some(value) if contains(budget, value, part)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (JqValue::List(elements, _), JqValue::List(parts, _)) => {
            for part in parts.iter() {
                let mut is_found = false;
                for element in elements.iter().filter(|element| element.type_name() == part.type_name()) {
                    is_found = is_found || contains(budget, element, part)?;
                }
                if !is_found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (JqValue::Text(text), JqValue::Text(part)) => {
            budget.spend(text.len() / 8)?;
            Ok(text.contains(&**part))
        }
        (value, part) if value.type_name() == part.type_name() => Ok(value == part),
        (value, part) => error(format!("{} cannot contain {}", value.type_name(), part.type_name())),
    }
}

fn without(value: &JqValue, part: &JqValue, strip: for<'t> fn(&'t str, &str) -> Option<&'t str>) -> JqValue {
    match (value.text(), part.text()) {
        (Some(text), Some(part)) => strip(text, part).map_or_else(|| value.clone(), JqValue::from),
        _ => value.clone(),
    }
}

fn indices(budget: &StepBudget, value: &JqValue, wanted: &JqValue) -> Result<JqValue, Stop> {
    let mut found = Vec::new();
    match (value, wanted) {
        (JqValue::Null, _) => return Ok(JqValue::Null),
        (JqValue::Text(text), JqValue::Text(wanted)) if !wanted.is_empty() => {
            budget.spend(text.len())?;
            let first = wanted.as_bytes()[0];
            // As in jq, matches may overlap, and positions count characters.
            for (position, (byte, _)) in text.char_indices().enumerate() {
                if text.as_bytes()[byte] != first {
                    continue;
                }
                // Also where the texts differ late.
                budget.spend(wanted.len() / 32)?;
                if text[byte..].starts_with(&**wanted) {
                    budget.spend(1 + wanted.len() / 8)?;
                    found.push(JqValue::from(position));
                }
            }
        }
        (JqValue::Text(_), JqValue::Text(_)) => {}
        (JqValue::List(elements, _), JqValue::List(wanted, _)) if !wanted.is_empty() => {
            for (position, window) in elements.windows(wanted.len()).enumerate() {
                let mut is_equal = true;
                for (element, wanted) in window.iter().zip(wanted.iter()) {
                    budget.spend(1)?;
                    operators::spend_comparison(budget, element, wanted)?;
                    is_equal = is_equal && element == wanted;
                }
                if is_equal {
                    found.push(JqValue::from(position));
                }
            }
        }
        (JqValue::List(..), JqValue::List(..)) => {}
        (JqValue::List(elements, _), wanted) => {
            for (position, element) in elements.iter().enumerate() {
                budget.spend(1)?;
                operators::spend_comparison(budget, element, wanted)?;
                if element == wanted {
                    found.push(JqValue::from(position));
                }
            }
        }
        (value, wanted) => {
            return error(format!("{} has no positions of {}", value.type_name(), wanted.type_name()));
        }
    }
    Ok(JqValue::from(found))
}

fn flatten(budget: &StepBudget, value: &JqValue, depth: &JqValue) -> Result<JqValue, Stop> {
    fn collect(budget: &StepBudget, value: &JqValue, depth: f64, flat: &mut Vec<JqValue>) -> Flow {
        let elements: Box<dyn Iterator<Item = &JqValue>> = match value {
            JqValue::List(elements, _) => Box::new(elements.iter()),
            JqValue::Object(members, _) => Box::new(members.values()),
            value => return error(format!("{} cannot be iterated", value.type_name())),
        };
        for element in elements {
            budget.spend(1)?;
            if matches!(element, JqValue::List(..)) && depth >= 1.0 {
                collect(budget, element, depth - 1.0, flat)?;
            } else {
                flat.push(element.clone());
            }
        }
        Ok(())
    }
    let depth = number_of(depth, "flatten")?;
    if depth < 0.0 {
        return error("the depth of flatten must not be negative");
    }
    let mut flat = Vec::new();
    collect(budget, value, depth, &mut flat)?;
    Ok(JqValue::from(flat))
}

fn text_of<'v>(value: &'v JqValue, function: &str) -> Result<&'v str, Stop> {
    match value.text() {
        Some(text) => Ok(text),
        None => error(format!("{function} needs a string, and got {}", value.type_name())),
    }
}

pub(super) fn number_of(value: &JqValue, function: &str) -> Result<f64, Stop> {
    match value.number() {
        Some(number) => Ok(number),
        None => error(format!("{function} needs a number, and got {}", value.type_name())),
    }
}

pub(super) fn count_of(value: &JqValue, function: &str) -> Result<usize, Stop> {
    Ok(number_of(value, function)?.max(0.0) as usize)
}

pub(super) fn keys_of(path: &JqValue) -> Result<Rc<Vec<JqValue>>, Stop> {
    match path {
        JqValue::List(keys, _) => Ok(Rc::clone(keys)),
        path => error(format!("a path must be an array, and not {}", path.type_name())),
    }
}
