//! Functions of the phase `access`: they read the request, change what the endpoint gets, or respond.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::plugin_api::RequestCx;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::fields::{UrlEncodedForm, replace_target};
use crate::plugin_api::form_body::query_value;
use crate::plugin_api::media_type::is_grpc;
use crate::plugin_api::reply::{Reply, ReplyBody};
use crate::plugin_api::request_edits::{checked_path, header_value};
use crate::plugin_api::template::{
    LuaValue, ScriptAction, ScriptArgument, ScriptHost, Variable, VariableKey, Variables,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessAction {
    SetHeader,
    AddHeader,
    ClearHeader,
    SetPath,
    SetRawQuery,
    SetQuery,
    Exit,
    Log,
}

impl AccessAction {
    pub(super) fn is_log(self) -> bool {
        self == AccessAction::Log
    }

    /// The field of the request that the action changes.
    pub(super) fn changed_field(self, arguments: &[Option<ScriptArgument>]) -> Option<HeaderName> {
        match self {
            AccessAction::SetHeader | AccessAction::AddHeader | AccessAction::ClearHeader => literal_name(arguments),
            _ => None,
        }
    }
}

impl ScriptAction for AccessAction {
    fn find(path: &str) -> Result<Self, (String, String)> {
        Ok(match path {
            "kong.service.request.set_header" => AccessAction::SetHeader,
            "kong.service.request.add_header" => AccessAction::AddHeader,
            "kong.service.request.clear_header" => AccessAction::ClearHeader,
            "kong.service.request.set_path" => AccessAction::SetPath,
            "kong.service.request.set_raw_query" => AccessAction::SetRawQuery,
            "kong.service.request.set_query" => AccessAction::SetQuery,
            "kong.response.exit" => AccessAction::Exit,
            path if is_log(path) => AccessAction::Log,
            path => return Err(unsupported(path, &REPLACEMENTS)),
        })
    }

    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
        let expected = match self {
            AccessAction::SetHeader | AccessAction::AddHeader => 2..=2,
            AccessAction::ClearHeader | AccessAction::SetPath | AccessAction::SetRawQuery | AccessAction::SetQuery => {
                1..=1
            }
            AccessAction::Exit => 1..=3,
            AccessAction::Log => 0..=20,
        };
        check_count(arguments, expected)?;
        match self {
            AccessAction::SetHeader | AccessAction::AddHeader | AccessAction::ClearHeader => {
                let name = check_name(arguments)?;
                if name == HOST && self != AccessAction::SetHeader {
                    return Err("the header host can only be set, because every request has exactly one".to_owned());
                }
                Ok(())
            }
            AccessAction::Exit => match arguments.first() {
                Some(Some(status)) => exit_status(status).map(drop).map_err(str::to_owned),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn may_read(variable: Variable) -> Result<(), String> {
        match variable {
            Variable::ResponseStatus | Variable::ResponseHeader => {
                Err("in access, there is no response yet".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn ends(self) -> bool {
        self == AccessAction::Exit
    }
}

/// A request as functions see it.
pub(super) struct AccessHost<'h, 'r> {
    pub(super) cx: &'h mut RequestCx<'r>,
    pub(super) reply: Option<Box<Reply>>,
}

impl ScriptHost<AccessAction> for AccessHost<'_, '_> {
    fn variables(&self) -> &dyn Variables {
        self
    }

    fn act(&mut self, action: AccessAction, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
        let mut arguments = arguments.into_iter();
        let headers = &mut self.cx.head.headers;
        match action {
            AccessAction::SetHeader | AccessAction::AddHeader => {
                let name = name(arguments.next())?;
                let value = header_value(&name, &text(arguments.next())?)?;
                if action == AccessAction::SetHeader {
                    headers.insert(name, value);
                } else {
                    headers.append(name, value);
                }
            }
            AccessAction::ClearHeader => drop(headers.remove(name(arguments.next())?)),
            AccessAction::SetPath => {
                let path = checked_path(&text(arguments.next())?)?;
                let query = self.cx.head.uri.query().unwrap_or_default().to_owned();
                replace_target(self.cx.head, &path, query.as_bytes()).map_err(|_| INVALID_TARGET)?;
            }
            AccessAction::SetRawQuery => {
                let query = text(arguments.next())?;
                if query.iter().any(|byte| byte.is_ascii_control() || matches!(byte, b' ' | b'#')) {
                    return Err("the query has a character that a query cannot have");
                }
                self.set_query(&query)?;
            }
            AccessAction::SetQuery => {
                let query = encoded_query(arguments.next())?;
                self.set_query(query.as_bytes())?;
            }
            AccessAction::Exit => self.reply = Some(self.exit(arguments.collect())?),
            AccessAction::Log => {}
        }
        Ok(())
    }
}

impl AccessHost<'_, '_> {
    fn set_query(&mut self, query: &[u8]) -> Result<(), &'static str> {
        let path = self.cx.head.uri.path().to_owned();
        replace_target(self.cx.head, &path, query).map_err(|_| INVALID_TARGET)
    }

    fn exit(&self, arguments: Vec<ScriptArgument>) -> Result<Box<Reply>, &'static str> {
        let mut arguments = arguments.into_iter();
        let status = exit_status(&arguments.next().ok_or("there is no status")?)?;
        let (body, content_type) = match arguments.next() {
            None | Some(ScriptArgument::Value(LuaValue::Nil)) => (Bytes::new(), None),
            Some(ScriptArgument::Value(LuaValue::Text(text))) => (text.into_owned().into(), Some(TEXT)),
            Some(table @ ScriptArgument::Table(_)) => (json(table)?.to_string().into(), Some(JSON)),
            Some(ScriptArgument::Value(_)) => return Err("the body is neither a string nor a table"),
        };
        let content_type = content_type.map(HeaderValue::from_static);
        let is_call = is_grpc(&self.cx.head.headers);
        if is_call {
            let message = String::from_utf8_lossy(&body).into_owned();
            return Ok(Reply::negotiated(status, message, "function_exit"));
        }
        let body = if body.is_empty() { ReplyBody::Empty } else { ReplyBody::Raw(body) };
        let mut reply = Reply::new(status, body, "function_exit");
        if let Some(content_type) = content_type {
            reply.headers.insert(CONTENT_TYPE, content_type);
        }
        match arguments.next() {
            None | Some(ScriptArgument::Value(LuaValue::Nil)) => {}
            Some(ScriptArgument::Table(fields)) => {
                for (field, value) in fields {
                    let name = HeaderName::try_from(field).map_err(|_| "a header of the response has no valid name")?;
                    if MESSAGE_FIELDS.contains(&name) {
                        return Err("a header of the response belongs to the connection");
                    }
                    let value = header_value(&name, &text(Some(value))?)?;
                    reply.headers.insert(name, value);
                }
            }
            Some(ScriptArgument::Value(_)) => return Err("the headers are no table"),
        }
        Ok(reply)
    }
}

impl Variables for AccessHost<'_, '_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        let bytes = match (variable, key) {
            (Variable::RequestMethod, _) => Some(self.cx.head.method.as_str().as_bytes()),
            (Variable::RequestPath, _) => Some(self.cx.path.as_bytes()),
            (Variable::ClientIp, _) => {
                return LuaValue::Text(Cow::Owned(self.cx.client.address.to_string().into_bytes()));
            }
            (Variable::RequestHeader, VariableKey::Text(name)) => self.header(name),
            (Variable::RequestQueryArgument, VariableKey::Text(name)) => {
                let query = self.cx.head.uri.query().unwrap_or_default().as_bytes();
                let form = UrlEncodedForm(query);
                let Some(pair) = form.pairs().find(|pair| pair.name() == name) else { return LuaValue::Nil };
                return pair.value().map_or(LuaValue::Boolean(true), LuaValue::Text);
            }
            _ => None,
        };
        LuaValue::text_or_nil(bytes)
    }

    fn examined_bytes(&self, variable: Variable) -> usize {
        match variable {
            Variable::RequestQueryArgument => self.cx.head.uri.query().map_or(0, str::len),
            _ => 0,
        }
    }
}

impl AccessHost<'_, '_> {
    /// The first value of a header. As in Kong, hyphens of the name may be underscores.
    fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let name = std::str::from_utf8(name).ok()?;
        // That of the client, as in Kong: the endpoint may get another one.
        if name.eq_ignore_ascii_case(HOST.as_str()) {
            return Some(self.cx.client.host.as_bytes());
        }
        let headers = &self.cx.head.headers;
        headers.get(name).or_else(|| headers.get(name.replace('_', "-"))).map(HeaderValue::as_bytes)
    }
}

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

fn json(argument: ScriptArgument) -> Result<Value, &'static str> {
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

/// The fields of a table as a query, in the order of their names, as Kong writes them.
fn encoded_query(argument: Option<ScriptArgument>) -> Result<String, &'static str> {
    let Some(ScriptArgument::Table(mut fields)) = argument else { return Err("the query is no table") };
    fields.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut pairs = Vec::new();
    for (name, value) in fields {
        match value {
            ScriptArgument::Value(LuaValue::Boolean(true)) => pairs.push(query_value(&name)),
            ScriptArgument::Value(LuaValue::Boolean(false)) => {}
            value => {
                let value = text(Some(value))?;
                pairs.push(format!("{}={}", query_value(&name), query_value(&String::from_utf8_lossy(&value))));
            }
        }
    }
    Ok(pairs.join("&"))
}

const INVALID_TARGET: &str = "the path or the query is not valid or too long";
const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json; charset=utf-8";

/// What replaces other functions.
const REPLACEMENTS: [(&str, &str); 16] = [
    ("kong.response.set_header", "move it to header_filter, or use response-transformer"),
    ("kong.response.add_header", "move it to header_filter, or use response-transformer"),
    ("kong.response.clear_header", "move it to header_filter, or use response-transformer"),
    ("kong.response.set_headers", "move it to header_filter, with one set_header for each"),
    ("kong.response.error", "use kong.response.exit(STATUS, {message = TEXT})"),
    ("kong.log.set_serialize_value", "set custom_fields_by_lua of the log plugin"),
    ("kong.log", "remove it, or set custom_fields_by_lua of the log plugin"),
    ("kong.service.request.set_headers", "call kong.service.request.set_header for each header"),
    ("kong.service.request.set_method", "use request-transformer with http_method"),
    ("kong.service.request.set_body", "use request-transformer or jq"),
    ("kong.service.request.set_raw_body", "use request-transformer or jq"),
    ("kong.service", "select the backend by rules of the route"),
    ("kong.ctx", "use local variables"),
    ("kong.cache", "use proxy-cache"),
    ("ngx.req.set_header", "use kong.service.request.set_header"),
    ("ngx", "use kong.request, kong.service.request and kong.response.exit instead of ngx"),
];
