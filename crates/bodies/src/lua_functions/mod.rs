//! The plugins `pre-function` and `post-function`: functions in a small part of Lua, which is read when the
//! configuration changes. There is no Lua machine.
//!
//! The functions run at the place of Kong's plugin in the order of all plugins. Other plugins, such as
//! request-transformer, would have the same effect in another place, for example after authentication.

mod access;
mod arguments;
mod header_filter;
mod log;

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::warn;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::lua_value::Budget;
use crate::plugin_api::reply::Reply;
use crate::plugin_api::{AccessOutcome, LogCx, Plugin, RequestCx, ResponseCx, ResponseOutcome};
use crate::plugin_formats::template::{LuaScript, ScriptAction};
use access::{AccessAction, AccessHost};
use header_filter::{HeaderFilterAction, HeaderFilterHost};
use log::{LogAction, LogHost};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FunctionConfig {
    /// Functions that run before the request is authorized and forwarded, in this order.
    access: Vec<String>,
    /// Functions that run on the head of the response.
    header_filter: Vec<String>,
    /// Not supported: must be empty. Routes are selected before plugins run; use `access`.
    rewrite: Vec<String>,
    /// Not supported: must be empty.
    certificate: Vec<String>,
    /// Not supported: must be empty. response-transformer and jq change bodies.
    body_filter: Vec<String>,
    /// Functions that run when the request has ended: they add fields to what the log plugins after this one write.
    log: Vec<String>,
    /// Not supported: must be empty.
    ws_handshake: Vec<String>,
    /// Not supported: must be empty.
    ws_client_frame: Vec<String>,
    /// Not supported: must be empty.
    ws_upstream_frame: Vec<String>,
    /// Not supported: must be empty.
    ws_close: Vec<String>,
}

/// The parsed functions.
pub(crate) struct LuaFunctions {
    access: Box<[LuaScript<AccessAction>]>,
    header_filter: Box<[LuaScript<HeaderFilterAction>]>,
    log: Box<[LuaScript<LogAction>]>,
    changed: ChangedFields,
    object: Box<str>,
}

impl LuaFunctions {
    pub(crate) fn build(config: FunctionConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let access = parse::<AccessAction>("access", &config.access, &mut invalid);
        let header_filter = parse::<HeaderFilterAction>("header_filter", &config.header_filter, &mut invalid);
        let log = parse::<LogAction>("log", &config.log, &mut invalid);
        for (phase, functions, remedy) in [
            (
                "rewrite",
                &config.rewrite,
                "move it to access, if it does not change the path for the choice of the route",
            ),
            ("certificate", &config.certificate, "remove it"),
            ("body_filter", &config.body_filter, "use response-transformer or jq"),
            ("ws_handshake", &config.ws_handshake, "move it to access"),
            ("ws_client_frame", &config.ws_client_frame, "remove it"),
            ("ws_upstream_frame", &config.ws_upstream_frame, "remove it"),
            ("ws_close", &config.ws_close, "remove it"),
        ] {
            if !functions.is_empty() {
                invalid.push(Diagnostic::in_config(phase, "functions of this phase are not supported", remedy));
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let is_logging = access.iter().any(|script| script.actions().iter().any(|(action, _)| action.is_log()))
            || header_filter.iter().any(|script| script.actions().iter().any(|(action, _)| action.is_log()))
            || log.iter().any(|script| script.actions().iter().any(|(action, _)| action.is_log()));
        if is_logging {
            let message = "kong.log writes nothing here";
            cx.note(Diagnostic::in_config(
                "",
                message,
                "remove the calls, or use a log plugin and kong.log.set_serialize_value",
            ));
        }
        let mut changed = ChangedFields::default();
        for (action, arguments) in access.iter().flat_map(LuaScript::actions) {
            changed.request.add_all(&action.changed_field(&arguments));
            changed.response.add_all(&action.changed_response_field(&arguments));
        }
        for (action, arguments) in header_filter.iter().flat_map(LuaScript::actions) {
            changed.response.add_all(&action.changed_field(&arguments));
        }
        Ok(LuaFunctions { access, header_filter, log, changed, object: cx.object.into() })
    }

    /// The reply to a request for which a function fails. Messages contain no values of the request.
    fn failure(&self, phase: &str, error: &dyn std::fmt::Display) -> Box<Reply> {
        warn!(object = &*self.object, phase, %error, "A function has failed");
        Reply::negotiated(http::StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "function_failed")
    }
}

impl Plugin for LuaFunctions {
    fn may_wait(&self) -> bool {
        false
    }

    /// Runs the functions of `access`, until one of them responds.
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let mut budget = Budget::default();
        let mut host = AccessHost::new(cx);
        for script in &self.access {
            let result = script.run(&mut host, &mut budget);
            match (result, host.take_reply()) {
                (Ok(_), None) => {}
                (Ok(_), Some(reply)) => return AccessOutcome::Reply(reply),
                (Err(error), _) => return AccessOutcome::Reply(self.failure("access", &error)),
            }
        }
        AccessOutcome::Continue
    }

    /// Runs the functions of `header_filter`.
    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let mut budget = Budget::default();
        for script in &self.header_filter {
            if let Err(error) = script.run(&mut HeaderFilterHost { cx: &mut *cx }, &mut budget) {
                return ResponseOutcome::Replace(self.failure("header_filter", &error));
            }
        }
        ResponseOutcome::Continue
    }

    /// Runs the functions of `log`. One that fails adds nothing more.
    fn log(&self, cx: &LogCx<'_>) {
        let mut budget = Budget::default();
        for script in &self.log {
            if let Err(error) = script.run(&mut LogHost::new(cx), &mut budget) {
                warn!(object = &*self.object, phase = "log", %error, "A function has failed");
            }
        }
    }

    /// Whether a function of `log` reads the request.
    fn logs_heads(&self) -> bool {
        !self.log.is_empty()
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.merge(self.changed.clone());
    }
}

fn parse<A: ScriptAction>(phase: &str, functions: &[String], invalid: &mut Vec<Diagnostic>) -> Box<[LuaScript<A>]> {
    let mut scripts = Vec::new();
    if functions.len() > MAX_FUNCTIONS {
        let message = format!("it has {} functions, and at most {MAX_FUNCTIONS} are allowed", functions.len());
        invalid.push(Diagnostic::in_config(phase, message, "combine them"));
        return Box::default();
    }
    for (index, text) in functions.iter().enumerate() {
        match LuaScript::parse(text) {
            Ok(script) => scripts.push(script),
            Err(error) => {
                let message = format!("line {}: {}", error.line, error.message);
                invalid.push(Diagnostic::in_config(format!("{phase}[{index}]"), message, error.remedy));
            }
        }
    }
    scripts.into()
}

const MAX_FUNCTIONS: usize = 20;
