//! `post-function`: functions in a small part of Lua, after all other plugins.
//!
//! ```yaml
//! plugin: post-function
//! config:
//!   header_filter:
//!     - |
//!       if kong.response.get_status() >= 500 then
//!         kong.response.clear_header("server")
//!       end
//! ```
//!
//! What functions may contain is that of `pre-function`. They see the identity headers that authentication has set, and
//! do not run in `access` if another plugin has responded.

use crate::diagnostic::Diagnostic;
use crate::plugin_api::lua_functions::{FunctionConfig, LuaFunctions};
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, LogCx, Phases, Plugin, PluginKind, RequestCx, ResponseCx, ResponseOutcome,
    Scopes,
};

pub(crate) struct PostFunction(LuaFunctions);

impl PluginKind for PostFunction {
    const NAME: &'static str = "post-function";
    const PRIORITY: i32 = -1000;
    const PHASES: Phases = Phases { log: true, ..Phases::ACCESS_AND_RESPONSE };
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = FunctionConfig;
    type Plugin = PostFunction;

    fn build(config: FunctionConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        LuaFunctions::build(config, cx).map(PostFunction)
    }
}

impl Plugin for PostFunction {
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
