//! Functions of the phase `log`: they add fields to the log object of the request.

use super::arguments::{SET_LOG_VALUE, check_count, check_log_value, is_log, log_value, unsupported};
use crate::plugin_api::LogCx;
use crate::plugin_formats::template::{ScriptAction, ScriptArgument, ScriptHost, Variable, Variables};
use crate::plugin_kit::log_fields::LogVariables;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogAction {
    SetLogValue,
    Fail,
    Log,
}

impl LogAction {
    pub(super) fn is_log(self) -> bool {
        self == LogAction::Log
    }
}

impl ScriptAction for LogAction {
    fn find(path: &str) -> Result<Self, (String, String)> {
        Ok(match path {
            SET_LOG_VALUE => LogAction::SetLogValue,
            "error" => LogAction::Fail,
            path if is_log(path) => LogAction::Log,
            path => return Err(unsupported(path, &REPLACEMENTS)),
        })
    }

    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
        match self {
            LogAction::SetLogValue => {
                check_count(arguments, 2..=3)?;
                check_log_value(arguments)
            }
            LogAction::Fail | LogAction::Log => check_count(arguments, 0..=20),
        }
    }

    fn may_read(variable: Variable) -> Result<(), String> {
        match variable {
            Variable::NgxStatus => Err("in log, the status is kong.response.get_status()".to_owned()),
            _ => Ok(()),
        }
    }

    fn ends(self) -> bool {
        false
    }

    fn changes_request(self) -> bool {
        false
    }
}

/// A request that has ended, as functions see it. Credentials are replaced.
pub(super) struct LogHost<'c> {
    cx: &'c LogCx<'c>,
    variables: LogVariables<'c>,
}

impl<'c> LogHost<'c> {
    pub(super) fn new(cx: &'c LogCx<'c>) -> Self {
        LogHost { cx, variables: LogVariables { cx } }
    }
}

impl ScriptHost<LogAction> for LogHost<'_> {
    fn variables(&self) -> &dyn Variables {
        &self.variables
    }

    fn act(&mut self, action: LogAction, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
        match action {
            LogAction::SetLogValue => self.cx.add_log_value(log_value(arguments)?),
            LogAction::Fail => Err("the function calls error"),
            LogAction::Log => Ok(()),
        }
    }
}

/// What replaces other functions.
const REPLACEMENTS: [(&str, &str); 4] = [
    ("kong.response", "move it to header_filter"),
    ("kong.service", "move it to access"),
    ("kong.ctx", "set it in access or header_filter"),
    ("ngx", "use kong.request, kong.response and kong.log.set_serialize_value instead of ngx"),
];
