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
use crate::lua_functions::{FunctionConfig, LuaFunctions};
use crate::plugin_api::{BuildCx, Phases, PluginKind, Scopes};

pub(crate) struct PostFunction;

impl PluginKind for PostFunction {
    const NAME: &'static str = "post-function";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = -1000;
    const PHASES: Phases = Phases { log: true, ..Phases::ACCESS_AND_RESPONSE };
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = FunctionConfig;
    type Plugin = LuaFunctions;

    fn build(config: FunctionConfig, cx: &BuildCx<'_>) -> Result<LuaFunctions, Vec<Diagnostic>> {
        LuaFunctions::build(config, cx)
    }
}
