//! Arguments of functions that scripts call, and what all phases know of these functions.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderName, StatusCode};
use serde_json::{Map, Value};

use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::shared_values::{LogFieldMode, LogObjectField, SharedValues, parse_path};
use crate::plugin_formats::template::ScriptArgument;

pub(super) const SET_LOG_VALUE: &str = "kong.log.set_serialize_value";

pub(super) fn is_log(path: &str) -> bool {
    let level = path.strip_prefix("kong.log.");
    path == "kong.log"
        || level.is_some_and(|level| {
            matches!(level, "debug" | "info" | "notice" | "warn" | "err" | "crit" | "alert" | "emerg")
        })
}

/// The message and the remedy for a function that is not supported.
pub(super) fn unsupported(path: &str, replacements: &[(&str, &str)]) -> (String, String) {
    let found = replacements.iter().find(|(prefix, _)| path == *prefix || path.starts_with(&format!("{prefix}.")));
    let remedy = found
        .map_or("use one of the functions on the page of the plugin, or a declarative plugin", |(_, remedy)| remedy);
    (format!("`{path}` is not supported"), remedy.to_owned())
}

pub(super) fn check_count(
    arguments: &[Option<ScriptArgument>],
    expected: std::ops::RangeInclusive<usize>,
) -> Result<(), String> {
    match expected.contains(&arguments.len()) {
        true => Ok(()),
        false => Err(format!("it has {} arguments instead of {}", arguments.len(), expected.start())),
    }
}

/// The name of a header, which has to be a literal: all fields that a plugin changes are known in advance.
pub(super) fn check_name(arguments: &[Option<ScriptArgument>]) -> Result<HeaderName, String> {
    let name = literal_name(arguments).ok_or("the name of the header is not a literal, or not valid")?;
    match name != HOST && MESSAGE_FIELDS.contains(&name) {
        true => Err(format!("the header {name} belongs to the connection or to the framing of the body")),
        false => Ok(name),
    }
}

pub(super) fn literal_name(arguments: &[Option<ScriptArgument>]) -> Option<HeaderName> {
    match arguments.first()?.as_ref()? {
        ScriptArgument::Value(LuaValue::Text(text)) => HeaderName::from_bytes(text).ok(),
        _ => None,
    }
}

pub(super) fn name(argument: Option<ScriptArgument>) -> Result<HeaderName, &'static str> {
    HeaderName::from_bytes(&text(argument)?).map_err(|_| "the name of a header is not valid")
}

pub(super) fn is_nil(argument: &ScriptArgument) -> bool {
    *argument == ScriptArgument::Value(LuaValue::Nil)
}

/// The text of a string, a number or a boolean.
pub(super) fn text(argument: Option<ScriptArgument>) -> Result<Cow<'static, [u8]>, &'static str> {
    match argument {
        Some(ScriptArgument::Value(LuaValue::Nil)) | None => Err("an argument is nil"),
        Some(ScriptArgument::Value(value)) => Ok(value.into_text()),
        Some(ScriptArgument::Table(_)) => Err("an argument is a table"),
    }
}

pub(super) fn exit_status(argument: &ScriptArgument) -> Result<StatusCode, &'static str> {
    const MESSAGE: &str = "the status is not a number from 200 to 599";
    let ScriptArgument::Value(LuaValue::Number(number)) = argument else { return Err(MESSAGE) };
    let is_status = number.fract() == 0.0 && (200.0..600.0).contains(number);
    StatusCode::from_u16(if is_status { *number as u16 } else { 0 }).map_err(|_| MESSAGE)
}

/// Checks the arguments of `kong.log.set_serialize_value`.
pub(super) fn check_log_value(arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
    match arguments.get(2) {
        Some(None) => Err("the options are no literal".to_owned()),
        Some(Some(options)) => log_value_mode(Some(options)).map(drop).map_err(str::to_owned),
        None => Ok(()),
    }?;
    match arguments.first() {
        Some(Some(name)) => {
            let value = ScriptArgument::Value(LuaValue::Nil);
            log_value(vec![name.clone(), value]).map(drop).map_err(str::to_owned)
        }
        _ => Ok(()),
    }
}

/// Adds the field of `kong.log.set_serialize_value`.
pub(super) fn set_log_value(values: &mut SharedValues, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
    values.add_log_value(log_value(arguments)?)
}

/// Stores the value of `kong.ctx.shared.NAME = …`.
pub(super) fn share(values: &mut SharedValues, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
    let mut arguments = arguments.into_iter();
    let name = text(arguments.next())?;
    let name = std::str::from_utf8(&name).map_err(|_| "the name of a shared value is not UTF-8")?;
    let Some(ScriptArgument::Value(value)) = arguments.next() else { return Err(SHARED_TABLE) };
    values.set(name, value)
}

/// Checks the arguments of [`share`].
pub(super) fn check_shared(arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
    check_count(arguments, 2..=2)?;
    match arguments.get(1) {
        Some(Some(ScriptArgument::Table(_))) => Err(SHARED_TABLE.to_owned()),
        _ => Ok(()),
    }
}

/// Checks an argument of which [`text`] is used, if it is a literal.
pub(super) fn check_text(arguments: &[Option<ScriptArgument>], position: usize) -> Result<(), String> {
    match arguments.get(position) {
        Some(Some(literal)) => text(Some(literal.clone())).map(drop).map_err(str::to_owned),
        _ => Ok(()),
    }
}

/// The field of `kong.log.set_serialize_value(name, value, {mode = …})`.
pub(super) fn log_value(arguments: Vec<ScriptArgument>) -> Result<LogObjectField, &'static str> {
    let mode = log_value_mode(arguments.get(2))?;
    let mut arguments = arguments.into_iter();
    let name = text(arguments.next())?;
    let path = parse_path(std::str::from_utf8(&name).map_err(|_| "the name of the field is not UTF-8")?)?;
    let value = match arguments.next() {
        None | Some(ScriptArgument::Value(LuaValue::Nil)) => None,
        Some(value) => Some(json(value)?),
    };
    Ok(LogObjectField { path, value, mode })
}

fn log_value_mode(options: Option<&ScriptArgument>) -> Result<LogFieldMode, &'static str> {
    const MESSAGE: &str = "the options are no table with the mode set, add or replace";
    let options = match options {
        None | Some(ScriptArgument::Value(LuaValue::Nil)) => return Ok(LogFieldMode::Set),
        Some(ScriptArgument::Table(options)) => options,
        Some(ScriptArgument::Value(_)) => return Err(MESSAGE),
    };
    match &options[..] {
        [] => Ok(LogFieldMode::Set),
        [(name, ScriptArgument::Value(LuaValue::Text(mode)))] if name == "mode" => match &**mode {
            b"set" => Ok(LogFieldMode::Set),
            b"add" => Ok(LogFieldMode::Add),
            b"replace" => Ok(LogFieldMode::Replace),
            _ => Err(MESSAGE),
        },
        _ => Err(MESSAGE),
    }
}

const SHARED_TABLE: &str = "a shared value is a table";

pub(super) fn json(argument: ScriptArgument) -> Result<Value, &'static str> {
    match argument {
        ScriptArgument::Value(value) => {
            value.to_json().map(Option::unwrap_or_default).map_err(|_| "a number cannot be written as JSON")
        }
        ScriptArgument::Table(fields) => {
            let mut object = Map::new();
            for (name, value) in fields {
                object.insert(name, json(value)?);
            }
            Ok(Value::Object(object))
        }
    }
}
