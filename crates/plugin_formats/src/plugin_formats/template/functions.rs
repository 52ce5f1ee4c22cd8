//! The functions of expressions: `type`, `tostring`, `tonumber` and those of `string`. Of several results, an
//! expression gets the first one.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::format;
use super::pattern::{self, PatternMatch};
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::lua_value::number;
use crate::plugin_api::lua_value::{Budget, EvaluationError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LuaFunction {
    Type,
    ToString,
    ToNumber,
    Find,
    Format,
    Gsub,
    Len,
    Lower,
    Match,
    Sub,
    Upper,
}

const FUNCTIONS: &[(LuaFunction, &str, RangeInclusive<usize>)] = &[
    (LuaFunction::Type, "type", 1..=1),
    (LuaFunction::ToString, "tostring", 1..=1),
    (LuaFunction::ToNumber, "tonumber", 1..=2),
    (LuaFunction::Find, "string.find", 2..=4),
    (LuaFunction::Format, "string.format", 1..=20),
    (LuaFunction::Gsub, "string.gsub", 3..=4),
    (LuaFunction::Len, "string.len", 1..=1),
    (LuaFunction::Lower, "string.lower", 1..=1),
    (LuaFunction::Match, "string.match", 2..=3),
    (LuaFunction::Sub, "string.sub", 2..=3),
    (LuaFunction::Upper, "string.upper", 1..=1),
];

impl LuaFunction {
    pub(super) fn find(path: &str) -> Option<LuaFunction> {
        FUNCTIONS.iter().find(|(_, name, _)| *name == path).map(|(function, ..)| *function)
    }

    pub(super) fn name(self) -> &'static str {
        FUNCTIONS[self as usize].1
    }

    /// How many arguments the function has.
    pub(super) fn arguments(self) -> RangeInclusive<usize> {
        FUNCTIONS[self as usize].2.clone()
    }

    pub(super) fn call<'v>(
        self,
        values: Vec<LuaValue<'v>>,
        budget: &mut Budget,
    ) -> Result<LuaValue<'v>, EvaluationError> {
        let arguments = LuaArguments { function: self.name(), values };
        Ok(match self {
            LuaFunction::Type => LuaValue::Text(Cow::Borrowed(arguments.values[0].type_name().as_bytes())),
            LuaFunction::ToString => LuaValue::Text(arguments.take(0).into_text()),
            LuaFunction::ToNumber => to_number(&arguments, budget)?,
            LuaFunction::Find => find(&arguments, budget)?,
            LuaFunction::Format => LuaValue::Text(Cow::Owned(format::format(&arguments, budget)?)),
            LuaFunction::Gsub => {
                let (subject, pattern, replacement) =
                    (arguments.string(0)?, arguments.string(1)?, arguments.string(2)?);
                let count = arguments.optional_number(3)?.map_or(usize::MAX, |count| count.max(0.0) as usize);
                let replaced = pattern::replace(&subject, &pattern, &replacement, count, budget)?;
                LuaValue::Text(Cow::Owned(replaced))
            }
            LuaFunction::Len => LuaValue::Number(arguments.string(0)?.len() as f64),
            LuaFunction::Lower | LuaFunction::Upper => {
                let text = arguments.string(0)?;
                budget.spend(text.len())?;
                let is_upper = self == LuaFunction::Upper;
                let text = if is_upper { text.to_ascii_uppercase() } else { text.to_ascii_lowercase() };
                LuaValue::Text(Cow::Owned(text))
            }
            LuaFunction::Match => {
                let (subject, pattern) = (arguments.string(0)?, arguments.string(1)?);
                let start = start_offset(&arguments, 2, subject.len())?;
                match pattern::find(&subject, &pattern, start, budget)? {
                    Some(found) => first_capture(&found, &subject),
                    None => LuaValue::Nil,
                }
            }
            LuaFunction::Sub => sub(&arguments, budget)?,
        })
    }
}

/// The arguments of a call, with the conversions of Lua.
pub(super) struct LuaArguments<'v> {
    function: &'static str,
    pub(super) values: Vec<LuaValue<'v>>,
}

impl<'v> LuaArguments<'v> {
    /// The argument as it is; nil if there is none.
    fn take(mut self, index: usize) -> LuaValue<'v> {
        if index < self.values.len() { self.values.swap_remove(index) } else { LuaValue::Nil }
    }

    /// A string, or a number as one.
    pub(super) fn string(&self, index: usize) -> Result<Cow<'_, [u8]>, EvaluationError> {
        match self.values.get(index) {
            Some(LuaValue::Text(text)) => Ok(Cow::Borrowed(text)),
            Some(LuaValue::Number(number)) => Ok(Cow::Owned(number::to_text(*number).into_bytes())),
            other => Err(self.error(index, "string", other)),
        }
    }

    /// A number, or a string that is one.
    pub(super) fn number(&self, index: usize) -> Result<f64, EvaluationError> {
        let value = self.values.get(index);
        value.and_then(LuaValue::as_number).ok_or_else(|| self.error(index, "number", value))
    }

    fn optional_number(&self, index: usize) -> Result<Option<f64>, EvaluationError> {
        match self.values.get(index) {
            None | Some(LuaValue::Nil) => Ok(None),
            Some(_) => self.number(index).map(Some),
        }
    }

    fn error(&self, index: usize, expected: &'static str, found: Option<&LuaValue<'_>>) -> EvaluationError {
        let found = found.map_or("missing", LuaValue::type_name);
        EvaluationError::Argument { function: self.function, number: index + 1, expected, found }
    }
}

fn to_number<'v>(arguments: &LuaArguments<'v>, budget: &mut Budget) -> Result<LuaValue<'v>, EvaluationError> {
    if let Some(LuaValue::Text(text)) = arguments.values.first() {
        budget.spend(text.len())?;
    }
    let radix = arguments.optional_number(1)?.unwrap_or(10.0);
    let number = if radix == 10.0 {
        arguments.values[0].as_number()
    } else {
        let radix = number::to_integer(radix).and_then(|radix| u32::try_from(radix).ok());
        let radix = radix.filter(|radix| (2..=36).contains(radix));
        let radix = radix.ok_or_else(|| arguments.error(1, "base from 2 to 36", arguments.values.get(1)))?;
        let text = arguments.string(0)?;
        std::str::from_utf8(&text).ok().and_then(|text| number::parse_radix(text.trim_ascii(), radix))
    };
    Ok(number.map_or(LuaValue::Nil, LuaValue::Number))
}

fn sub<'v>(arguments: &LuaArguments<'v>, budget: &mut Budget) -> Result<LuaValue<'v>, EvaluationError> {
    let text = arguments.string(0)?;
    let start = start_offset(arguments, 1, text.len())?;
    let end = match arguments.optional_number(2)? {
        None => text.len(),
        // Negative positions count from the end: -1 is the last byte.
        Some(end) if end < 0.0 => (text.len() as f64 + end.trunc() + 1.0).max(0.0) as usize,
        Some(end) => (end as usize).min(text.len()),
    };
    let part = text.get(start..end).unwrap_or_default();
    budget.spend(part.len())?;
    Ok(LuaValue::Text(Cow::Owned(part.to_vec())))
}

/// `string.find`: the position of the first match.
fn find<'v>(arguments: &LuaArguments<'v>, budget: &mut Budget) -> Result<LuaValue<'v>, EvaluationError> {
    let (subject, pattern) = (arguments.string(0)?, arguments.string(1)?);
    let start = start_offset(arguments, 2, subject.len())?;
    let is_plain = arguments.values.get(3).is_some_and(LuaValue::is_truthy);
    let found = if is_plain {
        budget.spend(subject.len())?;
        let rest = subject.get(start..).unwrap_or_default();
        memchr::memmem::find(rest, &pattern).map(|offset| start + offset)
    } else {
        pattern::find(&subject, &pattern, start, budget)?.map(|found| found.start)
    };
    Ok(found.map_or(LuaValue::Nil, |offset| LuaValue::Number((offset + 1) as f64)))
}

fn first_capture<'v>(found: &PatternMatch, subject: &[u8]) -> LuaValue<'v> {
    match found.captures.first() {
        Some(pattern::Group::Position(offset)) => LuaValue::Number((offset + 1) as f64),
        Some(pattern::Group::Text(range)) => LuaValue::Text(Cow::Owned(subject[range.clone()].to_vec())),
        None => LuaValue::Text(Cow::Owned(subject[found.start..found.end].to_vec())),
    }
}

/// The offset of a position that counts from 1, or from the end if it is negative.
fn start_offset(arguments: &LuaArguments<'_>, index: usize, length: usize) -> Result<usize, EvaluationError> {
    let position = arguments.optional_number(index)?.unwrap_or(1.0).trunc();
    let position = if position < 0.0 { length as f64 + position + 1.0 } else { position };
    Ok(((position - 1.0).max(0.0) as usize).min(length))
}
