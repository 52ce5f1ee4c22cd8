//! Functions of the phase `header_filter`: they read and change the head of the response.

use http::{HeaderName, StatusCode};

use super::arguments::{
    SET_LOG_VALUE, check_count, check_log_value, check_name, check_shared, check_text, exit_status, is_log, is_nil,
    literal_name, name, set_log_value, share, text, unsupported,
};
use crate::plugin_api::ResponseCx;
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_formats::template::{ScriptAction, ScriptArgument, ScriptHost, Variable, VariableKey, Variables};
use crate::request_edits::header_value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFilterAction {
    SetHeader,
    AddHeader,
    /// `ngx.header.NAME = …`, which nil removes.
    AssignHeader,
    ClearHeader,
    SetStatus,
    Share,
    SetLogValue,
    Fail,
    Log,
}

impl HeaderFilterAction {
    pub(super) fn is_log(self) -> bool {
        self == HeaderFilterAction::Log
    }

    /// The field of the response that the action changes.
    pub(super) fn changed_field(self, arguments: &[Option<ScriptArgument>]) -> Option<HeaderName> {
        match self {
            HeaderFilterAction::SetHeader
            | HeaderFilterAction::AddHeader
            | HeaderFilterAction::AssignHeader
            | HeaderFilterAction::ClearHeader => literal_name(arguments),
            _ => None,
        }
    }
}

impl ScriptAction for HeaderFilterAction {
    fn find(path: &str) -> Result<Self, (String, String)> {
        Ok(match path {
            "kong.response.set_header" => HeaderFilterAction::SetHeader,
            "ngx.header =" => HeaderFilterAction::AssignHeader,
            "kong.response.add_header" => HeaderFilterAction::AddHeader,
            "kong.response.clear_header" => HeaderFilterAction::ClearHeader,
            "kong.response.set_status" | "ngx.status =" => HeaderFilterAction::SetStatus,
            "kong.ctx.shared =" => HeaderFilterAction::Share,
            SET_LOG_VALUE => HeaderFilterAction::SetLogValue,
            "error" => HeaderFilterAction::Fail,
            path if is_log(path) => HeaderFilterAction::Log,
            path => return Err(unsupported(path, &REPLACEMENTS)),
        })
    }

    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
        match self {
            HeaderFilterAction::SetHeader | HeaderFilterAction::AddHeader => {
                check_count(arguments, 2..=2)?;
                check_text(arguments, 1)?;
            }
            HeaderFilterAction::AssignHeader => {
                check_count(arguments, 2..=2)?;
                if !matches!(arguments.get(1), Some(Some(literal)) if is_nil(literal)) {
                    check_text(arguments, 1)?;
                }
            }
            HeaderFilterAction::ClearHeader | HeaderFilterAction::SetStatus => check_count(arguments, 1..=1)?,
            HeaderFilterAction::Share => return check_shared(arguments),
            HeaderFilterAction::SetLogValue => {
                check_count(arguments, 2..=3)?;
                return check_log_value(arguments);
            }
            HeaderFilterAction::Log | HeaderFilterAction::Fail => return check_count(arguments, 0..=20),
        }
        if self != HeaderFilterAction::SetStatus {
            let name = check_name(arguments)?;
            return match name == http::header::HOST {
                true => Err("responses have no header host".to_owned()),
                false => Ok(()),
            };
        }
        match arguments.first() {
            Some(Some(status)) => exit_status(status).map(drop).map_err(str::to_owned),
            _ => Ok(()),
        }
    }

    fn may_read(variable: Variable) -> Result<(), String> {
        match variable {
            Variable::ResponseStatus | Variable::ResponseHeader | Variable::NgxStatus | Variable::Shared => Ok(()),
            _ => Err("in header_filter, only kong.response.get_header, get_status and kong.ctx.shared can be read"
                .to_owned()),
        }
    }

    fn ends(self) -> bool {
        false
    }

    fn changes_request(self) -> bool {
        false
    }
}

/// A response as functions see it.
pub(super) struct HeaderFilterHost<'h, 'r> {
    pub(super) cx: &'h mut ResponseCx<'r>,
}

impl ScriptHost<HeaderFilterAction> for HeaderFilterHost<'_, '_> {
    fn variables(&self) -> &dyn Variables {
        self
    }

    fn act(&mut self, action: HeaderFilterAction, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
        let mut arguments = arguments.into_iter();
        match action {
            HeaderFilterAction::SetHeader | HeaderFilterAction::AddHeader | HeaderFilterAction::AssignHeader => {
                let name = name(arguments.next())?;
                let value = arguments.next();
                if action == HeaderFilterAction::AssignHeader && value.as_ref().is_some_and(is_nil) {
                    self.cx.headers.remove(name);
                    return Ok(());
                }
                let value = header_value(&name, &text(value)?)?;
                if action == HeaderFilterAction::AddHeader {
                    self.cx.headers.append(name, value);
                } else {
                    self.cx.headers.insert(name, value);
                }
            }
            HeaderFilterAction::ClearHeader => drop(self.cx.headers.remove(name(arguments.next())?)),
            HeaderFilterAction::SetStatus => {
                let status = exit_status(&arguments.next().ok_or("there is no status")?)?;
                // These have no body, which may already be on its way.
                if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
                    return Err("a response that may have a body cannot get this status");
                }
                self.cx.status = status;
            }
            HeaderFilterAction::Share => share(self.cx.shared_values_mut(), arguments.collect())?,
            HeaderFilterAction::SetLogValue => set_log_value(self.cx.shared_values_mut(), arguments.collect())?,
            HeaderFilterAction::Fail => return Err("the function calls error"),
            HeaderFilterAction::Log => {}
        }
        Ok(())
    }
}

impl Variables for HeaderFilterHost<'_, '_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        match (variable, key) {
            (Variable::Shared, VariableKey::Text(name)) => {
                self.cx.shared_values().map_or(LuaValue::Nil, |values| values.get(name))
            }
            (Variable::ResponseStatus | Variable::NgxStatus, _) => LuaValue::Number(self.cx.status.as_u16().into()),
            (Variable::ResponseHeader, VariableKey::Text(name)) => {
                let value = std::str::from_utf8(name).ok().and_then(|name| self.cx.headers.get(name));
                LuaValue::text_or_nil(value.map(http::HeaderValue::as_bytes))
            }
            _ => LuaValue::Nil,
        }
    }
}

/// What replaces other functions.
const REPLACEMENTS: [(&str, &str); 5] = [
    ("kong.response.exit", "move it to access, or use error-pages"),
    ("kong.response.set_headers", "call kong.response.set_header for each header"),
    ("kong.service", "move it to access"),
    ("kong.ctx", "use fields of kong.ctx.shared, or local variables"),
    ("ngx", "use kong.response instead of ngx"),
];
