//! `pre-function`: functions in a small part of Lua, before all other plugins.
//!
//! ```yaml
//! plugin: pre-function
//! config:
//!   access:
//!     - |
//!       local version = kong.request.get_header("x-api-version")
//!       if version == "1" then
//!         return kong.response.exit(410, {message = "use version 2"})
//!       end
//!       kong.service.request.set_header("x-api-version", version or "2")
//! ```
//!
//! The functions are read when the configuration changes, and there is no Lua machine: statements are `if`, `local` and
//! assignments of local variables, and expressions have comparisons, `and`, `or`, `not`, `..`, arithmetic, and the
//! functions of `string`, `type`, `tostring` and `tonumber`. In `access`, functions read `kong.request.get_header`,
//! `get_query_arg`, `get_method`, `get_path` and `kong.client.get_ip`, and call `set_header`, `add_header`,
//! `clear_header`, `set_path`, `set_query` and `set_raw_query` of `kong.service.request`, and `kong.response.exit`. In
//! `header_filter`, they read `kong.response.get_header` and `get_status`, and call `set_header`, `add_header`,
//! `clear_header` and `set_status` of `kong.response`. Names of changed headers are literals.
//!
//! A function with anything else is refused: the status of the object names the line, and what to use instead, and
//! requests get 503. A function that fails for a request responds 500.

use crate::diagnostic::Diagnostic;
use crate::plugin_api::lua_functions::{FunctionConfig, LuaFunctions};
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, LogCx, Phases, Plugin, PluginKind, RequestCx, ResponseCx, ResponseOutcome,
    Scopes,
};

pub(crate) struct PreFunction(LuaFunctions);

impl PluginKind for PreFunction {
    const NAME: &'static str = "pre-function";
    const PRIORITY: i32 = 1_000_000;
    const PHASES: Phases = Phases { log: true, ..Phases::ACCESS_AND_RESPONSE };
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = FunctionConfig;
    type Plugin = PreFunction;

    fn build(config: FunctionConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        LuaFunctions::build(config, cx).map(PreFunction)
    }
}

impl Plugin for PreFunction {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.0.access(cx)
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        self.0.response(cx)
    }

    fn log(&self, cx: &LogCx<'_>) {
        self.0.log(cx);
    }

    fn logs_heads(&self) -> bool {
        self.0.logs_heads()
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.0.declare_fields(fields);
    }
}

#[cfg(test)]
#[path = "pre_function/tests.rs"]
mod tests;
