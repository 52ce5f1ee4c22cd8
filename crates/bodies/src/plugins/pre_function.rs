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
//! functions of `string`, `type`, `tostring` and `tonumber`. Names of changed headers are literals.
//!
//! In `access`, functions read `get_header`, `get_headers`, `get_query_arg`, `get_query`, `get_raw_query`,
//! `get_method`, `get_path` and `get_host` of `kong.request`, and `kong.client.get_ip`. They call `set_header`,
//! `add_header`, `clear_header`, `set_path`, `set_query` and `set_raw_query` of `kong.service.request`, and
//! `set_header`, `exit` and `error` of `kong.response`. A header of the response that is set in `access` replaces that
//! of the endpoint.
//!
//! In `header_filter`, functions read `kong.response.get_header` and `get_status`, and call `set_header`, `add_header`,
//! `clear_header` and `set_status` of `kong.response`. In `log`, they read what both other phases read, with
//! credentials replaced.
//!
//! In all phases, `kong.log.set_serialize_value` sets a field of the log object, for the log plugins that run later,
//! and `kong.ctx.shared` has values for later functions and for templates of other plugins, such as `$(shared.version)`
//! in `request-transformer`. In `access` and `header_filter`, its fields are assigned; they are texts, numbers and
//! booleans. A function may store up to 64 values of each kind, and 64 KiB, for a request. What functions in `access`
//! read has its credentials. Logs contain `REDACTED` in place of copies of them: of `Authorization` and what plugins of
//! the route read as credentials. What functions make of them otherwise, such as a part, is logged.
//!
//! `kong.request.get_headers` and `get_query` are read by field: `kong.request.get_headers()["x-a"]`, or a local
//! variable and its fields until the function changes the request. A header that occurs several times has its first
//! value.
//!
//! Of OpenResty, `access` has `ngx.exit`, `ngx.status`, `ngx.say`, `ngx.print`, `ngx.redirect`, `ngx.header`,
//! `ngx.req.set_header`, `clear_header`, `get_headers`, `get_uri_args` and `get_method`, `ngx.var.http_NAME`,
//! `ngx.var.remote_addr` and `ngx.var.request_method`, and `ngx.var.args` is assigned; `header_filter` has `ngx.status`
//! and `ngx.header`. Later functions of `access` see what earlier ones set with `ngx.status`, `ngx.say` and
//! `ngx.header`.
//!
//! A function with anything else is refused: the status of the object names the line, and what to use instead, and
//! requests get 503. A function that fails for a request, for example with `error`, responds 500; in `log`, it only
//! adds nothing more.

use crate::diagnostic::Diagnostic;
use crate::lua_functions::{FunctionConfig, LuaFunctions};
use crate::plugin_api::{BuildCx, Phases, PluginKind, Scopes};

pub(crate) struct PreFunction;

impl PluginKind for PreFunction {
    const NAME: &'static str = "pre-function";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1_000_000;
    const PHASES: Phases = Phases { log: true, ..Phases::ACCESS_AND_RESPONSE };
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = FunctionConfig;
    type Plugin = LuaFunctions;

    fn build(config: FunctionConfig, cx: &BuildCx<'_>) -> Result<LuaFunctions, Vec<Diagnostic>> {
        LuaFunctions::build(config, cx)
    }
}

#[cfg(test)]
#[path = "pre_function/tests.rs"]
mod tests;
