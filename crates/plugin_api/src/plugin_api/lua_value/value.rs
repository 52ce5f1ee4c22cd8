//! Values of expressions, with the conversions of Lua between numbers and strings.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::EvaluationError;
use super::number;

/// The value of an expression. Strings are bytes, because headers need not be UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum LuaValue<'v> {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(Cow<'v, [u8]>),
}

impl<'v> LuaValue<'v> {
    /// A string, or nil.
    pub fn text_or_nil(text: Option<&'v [u8]>) -> Self {
        text.map_or(LuaValue::Nil, |text| LuaValue::Text(Cow::Borrowed(text)))
    }

    /// The value, independent of the request that it was read from.
    pub fn into_owned(self) -> LuaValue<'static> {
        match self {
            LuaValue::Nil => LuaValue::Nil,
            LuaValue::Boolean(value) => LuaValue::Boolean(value),
            LuaValue::Number(number) => LuaValue::Number(number),
            LuaValue::Text(text) => LuaValue::Text(Cow::Owned(text.into_owned())),
        }
    }

    /// The name of the type, as `type()` returns it.
    pub fn type_name(&self) -> &'static str {
        match self {
            LuaValue::Nil => "nil",
            LuaValue::Boolean(_) => "boolean",
            LuaValue::Number(_) => "number",
            LuaValue::Text(_) => "string",
        }
    }

    /// Everything is true except nil and false.
    pub fn is_truthy(&self) -> bool {
        !matches!(self, LuaValue::Nil | LuaValue::Boolean(false))
    }

    /// The value as `tostring()` returns it.
    pub fn into_text(self) -> Cow<'v, [u8]> {
        match self {
            LuaValue::Nil => Cow::Borrowed(b"nil"),
            LuaValue::Boolean(true) => Cow::Borrowed(b"true"),
            LuaValue::Boolean(false) => Cow::Borrowed(b"false"),
            LuaValue::Number(number) => Cow::Owned(number::to_text(number).into_bytes()),
            LuaValue::Text(text) => text,
        }
    }

    /// A string, or a number as a string. Otherwise the value itself.
    pub fn into_string(self) -> Result<Cow<'v, [u8]>, LuaValue<'v>> {
        match self {
            LuaValue::Text(_) | LuaValue::Number(_) => Ok(self.into_text()),
            other => Err(other),
        }
    }

    /// A number, or a string that is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            LuaValue::Number(number) => Some(*number),
            LuaValue::Text(text) => number::parse(text),
            LuaValue::Nil | LuaValue::Boolean(_) => None,
        }
    }

    /// The value as JSON; `None` for nil. Bytes that are not UTF-8 become U+FFFD.
    pub fn to_json(&self) -> Result<Option<Value>, EvaluationError> {
        Ok(Some(match self {
            LuaValue::Nil => return Ok(None),
            LuaValue::Boolean(value) => Value::Bool(*value),
            LuaValue::Number(number) => match number::to_integer(*number) {
                Some(integer) => Value::from(integer),
                None => Value::Number(Number::from_f64(*number).ok_or(EvaluationError::NotFinite)?),
            },
            LuaValue::Text(text) => Value::from(String::from_utf8_lossy(text)),
        }))
    }
}
