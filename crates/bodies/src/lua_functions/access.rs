//! Functions of the phase `access`: they read the request, change what the endpoint gets, or respond.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};

use super::arguments::{
    SET_LOG_VALUE, check_count, check_log_value, check_name, check_shared, check_text, exit_status, is_log, is_nil,
    json, literal_name, name, set_log_value, share, text, unsupported,
};
use crate::plugin_api::RequestCx;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::fields::{UrlEncodedForm, replace_target};
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::media_type::is_grpc;
use crate::plugin_api::reply::{Reply, ReplyBody};
use crate::plugin_formats::template::{
    MAX_VALUE_BYTES, ScriptAction, ScriptArgument, ScriptHost, Variable, VariableKey, Variables, find_header,
    host_without_port,
};
use crate::plugin_kit::form_body::query_value;
use crate::request_edits::{checked_path, header_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessAction {
    SetHeader,
    AddHeader,
    ClearHeader,
    SetPath,
    SetRawQuery,
    SetQuery,
    /// `ngx.var.args = …`; `nil` removes the query.
    SetArguments,
    SetResponseHeader,
    /// `ngx.header.NAME = …`, which nil removes.
    AssignResponseHeader,
    Share,
    SetLogValue,
    Exit,
    ReplyWithError,
    /// `ngx.status = …`, which the reply has.
    SetStatus,
    /// `ngx.say(…)`: the body of the reply, line by line.
    Say,
    Print,
    NgxExit,
    Redirect,
    /// `error(…)`.
    Fail,
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

    /// The field of the response that the action changes.
    pub(super) fn changed_response_field(self, arguments: &[Option<ScriptArgument>]) -> Option<HeaderName> {
        match self {
            AccessAction::SetResponseHeader | AccessAction::AssignResponseHeader => literal_name(arguments),
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
            "kong.response.set_header" => AccessAction::SetResponseHeader,
            "ngx.header =" => AccessAction::AssignResponseHeader,
            "kong.response.exit" => AccessAction::Exit,
            "kong.response.error" => AccessAction::ReplyWithError,
            "kong.ctx.shared =" => AccessAction::Share,
            SET_LOG_VALUE => AccessAction::SetLogValue,
            "ngx.req.set_header" => AccessAction::SetHeader,
            "ngx.req.clear_header" => AccessAction::ClearHeader,
            "ngx.var.args =" => AccessAction::SetArguments,
            "ngx.status =" => AccessAction::SetStatus,
            "ngx.say" => AccessAction::Say,
            "ngx.print" => AccessAction::Print,
            "ngx.exit" => AccessAction::NgxExit,
            "ngx.redirect" => AccessAction::Redirect,
            "error" => AccessAction::Fail,
            path if is_log(path) => AccessAction::Log,
            path => return Err(unsupported(path, &REPLACEMENTS)),
        })
    }

    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
        let expected = match self {
            AccessAction::SetHeader
            | AccessAction::AddHeader
            | AccessAction::SetResponseHeader
            | AccessAction::AssignResponseHeader
            | AccessAction::Share => 2..=2,
            AccessAction::ClearHeader
            | AccessAction::SetPath
            | AccessAction::SetRawQuery
            | AccessAction::SetQuery
            | AccessAction::SetArguments
            | AccessAction::SetStatus
            | AccessAction::NgxExit => 1..=1,
            AccessAction::Exit | AccessAction::ReplyWithError => 1..=3,
            AccessAction::SetLogValue => 2..=3,
            AccessAction::Redirect => 1..=2,
            AccessAction::Log | AccessAction::Say | AccessAction::Print | AccessAction::Fail => 0..=20,
        };
        check_count(arguments, expected)?;
        match self {
            AccessAction::SetHeader | AccessAction::AddHeader | AccessAction::ClearHeader => {
                let name = check_name(arguments)?;
                if name == HOST && self != AccessAction::SetHeader {
                    return Err("the header host can only be set, because every request has exactly one".to_owned());
                }
                check_text(arguments, 1)
            }
            AccessAction::SetResponseHeader | AccessAction::AssignResponseHeader => {
                if check_name(arguments)? == HOST {
                    return Err("responses have no header host".to_owned());
                }
                match arguments.get(1) {
                    Some(Some(literal)) if self == AccessAction::AssignResponseHeader && is_nil(literal) => Ok(()),
                    _ => check_text(arguments, 1),
                }
            }
            AccessAction::SetPath | AccessAction::SetRawQuery => check_text(arguments, 0),
            AccessAction::Say | AccessAction::Print => {
                let is_table = |argument: &Option<ScriptArgument>| matches!(argument, Some(ScriptArgument::Table(_)));
                if arguments.iter().any(is_table) { Err(WRITTEN_TABLE.to_owned()) } else { Ok(()) }
            }
            AccessAction::Redirect => {
                check_text(arguments, 0)?;
                match arguments.get(1) {
                    Some(Some(status)) => redirect_status(status).map(drop).map_err(str::to_owned),
                    _ => Ok(()),
                }
            }
            AccessAction::Share => check_shared(arguments),
            AccessAction::Exit | AccessAction::ReplyWithError | AccessAction::SetStatus => match arguments.first() {
                Some(Some(status)) => exit_status(status).map(drop).map_err(str::to_owned),
                _ => Ok(()),
            },
            AccessAction::NgxExit => match arguments.first() {
                Some(Some(ScriptArgument::Value(LuaValue::Number(0.0)))) => Ok(()),
                Some(Some(status)) => exit_status(status).map(drop).map_err(str::to_owned),
                _ => Ok(()),
            },
            AccessAction::SetLogValue => check_log_value(arguments),
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
        matches!(
            self,
            AccessAction::Exit | AccessAction::ReplyWithError | AccessAction::NgxExit | AccessAction::Redirect
        )
    }

    fn changes_request(self) -> bool {
        matches!(
            self,
            AccessAction::SetHeader
                | AccessAction::AddHeader
                | AccessAction::ClearHeader
                | AccessAction::SetRawQuery
                | AccessAction::SetQuery
                | AccessAction::SetArguments
        )
    }
}

/// A request as functions see it.
pub(super) struct AccessHost<'h, 'r> {
    cx: &'h mut RequestCx<'r>,
    reply: Option<Box<Reply>>,
    /// What `ngx.status`, `ngx.say` and `ngx.header` have set for the reply, also in earlier functions.
    status: Option<StatusCode>,
    text: Vec<u8>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl<'h, 'r> AccessHost<'h, 'r> {
    pub(super) fn new(cx: &'h mut RequestCx<'r>) -> Self {
        AccessHost { cx, reply: None, status: None, text: Vec::new(), headers: Vec::new() }
    }

    /// The reply of the functions so far, if they have one: by an exit, or by writing a body.
    pub(super) fn take_reply(&mut self) -> Option<Box<Reply>> {
        if self.reply.is_none() && !self.text.is_empty() {
            let status = self.status.unwrap_or(StatusCode::OK);
            self.reply = Some(self.written_reply(status));
        }
        self.reply.take()
    }
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
            AccessAction::SetRawQuery | AccessAction::SetArguments => {
                let query = match arguments.next() {
                    Some(ScriptArgument::Value(LuaValue::Nil)) if action == AccessAction::SetArguments => {
                        Cow::default()
                    }
                    query => text(query)?,
                };
                if query.iter().any(|byte| byte.is_ascii_control() || matches!(byte, b' ' | b'#')) {
                    return Err("the query has a character that a query cannot have");
                }
                self.set_query(&query)?;
            }
            AccessAction::SetQuery => {
                let query = encoded_query(arguments.next())?;
                self.set_query(query.as_bytes())?;
            }
            AccessAction::SetResponseHeader | AccessAction::AssignResponseHeader => {
                let name = name(arguments.next())?;
                let value = arguments.next();
                if action == AccessAction::AssignResponseHeader && value.as_ref().is_some_and(is_nil) {
                    self.cx.response_headers.remove(&name);
                    self.headers.retain(|(known, _)| *known != name);
                    return Ok(());
                }
                let value = header_value(&name, &text(value)?)?;
                self.cx.response_headers.insert(name.clone(), value.clone());
                self.headers.push((name, value));
            }
            AccessAction::Share => share(self.cx.shared_values_mut(), arguments.collect())?,
            AccessAction::SetLogValue => set_log_value(self.cx.shared_values_mut(), arguments.collect())?,
            AccessAction::Exit => self.reply = Some(self.exit(arguments.collect())?),
            AccessAction::ReplyWithError => self.reply = Some(self.error(arguments.collect())?),
            AccessAction::SetStatus => {
                self.status = Some(exit_status(&arguments.next().ok_or("there is no status")?)?);
            }
            AccessAction::Say | AccessAction::Print => {
                for argument in arguments {
                    let ScriptArgument::Value(value) = argument else { return Err(WRITTEN_TABLE) };
                    self.text.extend_from_slice(&value.into_text());
                }
                if action == AccessAction::Say {
                    self.text.push(b'\n');
                }
                if self.text.len() > MAX_VALUE_BYTES {
                    return Err("the body is too long");
                }
            }
            AccessAction::NgxExit => {
                let status = arguments.next().ok_or("there is no status")?;
                if status == ScriptArgument::Value(LuaValue::Number(0.0)) {
                    return Ok(());
                }
                let status = exit_status(&status)?;
                // The status has been sent before the body.
                let sent = self.status.unwrap_or(if self.text.is_empty() { status } else { StatusCode::OK });
                let has_no_body = self.text.is_empty() && (status.is_client_error() || status.is_server_error());
                self.reply = Some(match has_no_body {
                    true => {
                        let mut reply = Reply::negotiated(status, error_message(status), "function_exit");
                        reply.headers.extend(std::mem::take(&mut self.headers));
                        reply
                    }
                    false => self.written_reply(sent),
                });
            }
            AccessAction::Redirect => {
                let target = text(arguments.next())?;
                let location = header_value(&LOCATION, &target)?;
                let status = match arguments.next() {
                    None => StatusCode::FOUND,
                    Some(status) => redirect_status(&status)?,
                };
                let mut reply = Reply::new(status, ReplyBody::Empty, "function_exit");
                reply.headers.insert(LOCATION, location);
                self.reply = Some(reply);
            }
            AccessAction::Fail => return Err("the function calls error"),
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

    /// A reply with what `ngx.say` has written.
    fn written_reply(&mut self, status: StatusCode) -> Box<Reply> {
        let text = std::mem::take(&mut self.text);
        if is_grpc(&self.cx.head.headers) {
            return Reply::negotiated(status, String::from_utf8_lossy(&text).into_owned(), "function_exit");
        }
        let body = if text.is_empty() { ReplyBody::Empty } else { ReplyBody::Raw(text.into()) };
        let has_body = body != ReplyBody::Empty;
        let mut reply = Reply::new(status, body, "function_exit");
        if has_body {
            reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        }
        reply.headers.extend(std::mem::take(&mut self.headers));
        reply
    }

    /// `kong.response.error`: a body that the client accepts, as of other errors.
    fn error(&self, arguments: Vec<ScriptArgument>) -> Result<Box<Reply>, &'static str> {
        let mut arguments = arguments.into_iter();
        let status = exit_status(&arguments.next().ok_or("there is no status")?)?;
        let message = match arguments.next() {
            None | Some(ScriptArgument::Value(LuaValue::Nil)) => error_message(status).to_owned(),
            message => String::from_utf8_lossy(&text(message)?).into_owned(),
        };
        let mut reply = Reply::negotiated(status, message, "function_exit");
        add_headers(&mut reply, arguments.next())?;
        Ok(reply)
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
        add_headers(&mut reply, arguments.next())?;
        Ok(reply)
    }
}

/// Adds the headers of a table, if there is one.
fn add_headers(reply: &mut Reply, table: Option<ScriptArgument>) -> Result<(), &'static str> {
    let fields = match table {
        None | Some(ScriptArgument::Value(LuaValue::Nil)) => return Ok(()),
        Some(ScriptArgument::Table(fields)) => fields,
        Some(ScriptArgument::Value(_)) => return Err("the headers are no table"),
    };
    for (field, value) in fields {
        let name = HeaderName::try_from(field).map_err(|_| "a header of the response has no valid name")?;
        if MESSAGE_FIELDS.contains(&name) {
            return Err("a header of the response belongs to the connection");
        }
        let value = header_value(&name, &text(Some(value))?)?;
        reply.headers.insert(name, value);
    }
    Ok(())
}

impl Variables for AccessHost<'_, '_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        let bytes = match (variable, key) {
            (Variable::RequestMethod, _) => Some(self.cx.head.method.as_str().as_bytes()),
            (Variable::RequestPath, _) => Some(self.cx.path.as_bytes()),
            (Variable::ClientIp, _) => {
                return LuaValue::Text(Cow::Owned(self.cx.client.address.to_string().into_bytes()));
            }
            (Variable::RequestHost, _) => Some(host_without_port(self.cx.client.received.host.as_bytes())),
            (Variable::RequestRawQuery, _) => Some(self.cx.head.uri.query().unwrap_or_default().as_bytes()),
            (Variable::NgxStatus, _) => {
                return LuaValue::Number(self.status.map_or(0, |status| status.as_u16()).into());
            }
            (Variable::Shared, VariableKey::Text(name)) => {
                return self.cx.shared_values().map_or(LuaValue::Nil, |values| values.get(name));
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
        // That of the client, as in Kong: the endpoint may get another one.
        if name.eq_ignore_ascii_case(HOST.as_str().as_bytes()) {
            return Some(self.cx.client.received.host.as_bytes());
        }
        find_header(&self.cx.head.headers, name).map(|(_, value)| value.as_bytes())
    }
}

fn redirect_status(argument: &ScriptArgument) -> Result<StatusCode, &'static str> {
    let status = exit_status(argument)?;
    match status.is_redirection() {
        true => Ok(status),
        false => Err("the status of the redirect is not from 300 to 399"),
    }
}

/// The message of an error without one, as in Kong.
fn error_message(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "Bad request",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Request timeout",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Payload too large",
        414 => "URI too long",
        417 => "Expectation failed",
        500 => "An unexpected error occurred",
        502 => "An invalid response was received from the upstream server",
        503 => "The upstream server is currently unavailable",
        504 => "The upstream server is timing out",
        _ => status.canonical_reason().unwrap_or("An unexpected error occurred"),
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

const WRITTEN_TABLE: &str = "a table cannot be written";
const INVALID_TARGET: &str = "the path or the query is not valid or too long";
const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json; charset=utf-8";

/// What replaces other functions.
const REPLACEMENTS: [(&str, &str); 12] = [
    ("kong.response.add_header", "move it to header_filter, or use response-transformer"),
    ("kong.response.clear_header", "move it to header_filter, or use response-transformer"),
    ("kong.response.set_headers", "move it to header_filter, with one set_header for each"),
    ("kong.log", "remove it, or set custom_fields_by_lua of the log plugin"),
    ("kong.service.request.set_headers", "call kong.service.request.set_header for each header"),
    ("kong.service.request.set_method", "use request-transformer with http_method"),
    ("kong.service.request.set_body", "use request-transformer or jq"),
    ("kong.service.request.set_raw_body", "use request-transformer or jq"),
    ("kong.service", "select the backend by rules of the route"),
    ("kong.ctx", "use fields of kong.ctx.shared, or local variables"),
    ("kong.cache", "use proxy-cache"),
    ("ngx", "use kong.request, kong.service.request and kong.response.exit instead of ngx"),
];
