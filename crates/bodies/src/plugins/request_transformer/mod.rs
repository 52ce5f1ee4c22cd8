//! `request-transformer`: changes method, path, headers, query and body of requests before they are forwarded.
//!
//! ```yaml
//! plugin: request-transformer
//! config:
//!   remove: {headers: [x-internal], body: [is_admin]}
//!   rename: {querystring: ["q:query"]}
//!   replace: {headers: ["host:shop.internal"], uri: "/v2/users/$(uri_captures.id)"}
//!   add: {headers: ["x-user:$(headers['x-consumer-username'] or 'guest')"]}
//!   append: {querystring: ["tag:gateway"]}
//! ```
//!
//! The path changes first, then the method, headers, body and query. Of each, fields are removed, then renamed,
//! replaced, added and appended. An entry is `name:value`, only `name` in `remove`, and `old:new` in `rename`.
//!
//! - `replace` changes a field only if the request has it; the Host header is always replaced.
//! - `add` adds a field only if the request does not have it.
//! - `append` adds one more value.
//!
//! Names of headers are case-insensitive. Headers that belong to the connection or delimit the body, such as
//! `Connection` and `Content-Length`, cannot be changed, and Host can only be replaced. As in Kong, entries for them
//! have no effect, and neither have entries such as `name:` without a value, or a value in `remove`. The diagnostics of
//! the object name such entries, and all others apply.
//!
//! ## Templates
//!
//! Values and `replace.uri` may contain expressions in `$(…)`, in a subset of Lua. Expressions read the request as the
//! plugin receives it, before any change of this plugin; authentication plugins have already set the headers of the
//! consumer.
//!
//! | expression | value |
//! | --- | --- |
//! | `headers.x_tenant`, `headers["x-tenant"]` | a header, of several the first; an underscore also finds a dash |
//! | `query_params.page`, `query_params["page"]` | a query parameter, decoded; `true` if it has no `=` |
//! | `uri_captures[1]`, `uri_captures["name"]` | a group of the path expression of an Ingress or HTTPRoute |
//! | `shared.x` | what a function of `pre-function` has stored in `kong.ctx.shared.x` |
//! | `"text"`, `'text'`, `12`, `1.5`, `true`, `false`, `nil` | literals |
//! | `and`, `or`, `not`, `==`, `~=`, `<`, `<=`, `>`, `>=` | logic and comparisons, as in `headers.a or "default"` |
//! | `..`, `+`, `-`, `*`, `/`, `%`, `#` | concatenation, arithmetic, length |
//! | `type`, `tostring`, `tonumber` | functions |
//! | `string.sub`, `upper`, `lower`, `len`, `format` | functions, also as methods: `headers.a:upper()` |
//! | `string.find`, `match`, `gsub` | the same, with patterns of Lua; only the first result is returned |
//!
//! A value of nil is empty text; a header whose whole value is nil is not set. To write a literal `$(`, put it in
//! quotes in an expression: `$('$(x)')`. Assignments, statements and other functions make the configuration invalid.
//!
//! An expression has at most 4096 bytes, 250 operators and literals, and 40 levels of parentheses. A value has at most
//! 64 KiB. If an expression fails, for example because it adds a number to nil, if all expressions of a request
//! together take too long, or if a value is not valid where it is used, the request gets a 500. The log names the
//! field, without the value.
//!
//! ## Path
//!
//! `replace.uri` replaces the whole path that the endpoint gets, after `konghq.com/strip-path`, `konghq.com/rewrite`
//! and the path of the Service have been applied, and instead of a `URLRewrite` filter. The query stays. Characters
//! that a path may not contain are percent-encoded. A path that does not start with a slash, or has a control character
//! or a segment of dots, is a 500: with such a segment, a value of the client would lead to another path.
//!
//! ## Body
//!
//! Bodies of the types `application/json`, `application/x-www-form-urlencoded` and `multipart/form-data` are changed.
//! The type is that of the headers after their own edits. In JSON, the fields are the members of the outermost object,
//! and new values are strings. As in Kong, nothing is appended to multipart bodies. Other bodies, gRPC and upgraded
//! connections are forwarded as they are, and so is a body that is not valid for its type.
//!
//! A body that may be changed is buffered first. It has at most 1 MiB and 10,000 fields; a larger one is rejected with
//! 413. Bodies with `Content-Encoding: gzip` are decompressed, with the same limit, and forwarded without it if they
//! change; one that cannot be decompressed is rejected with 400. Bodies in other encodings are forwarded as they are,
//! and the log counts them.
//!
//! If `http_method` is GET, HEAD or TRACE, the fields of a form are appended to the query, and the request is sent
//! without a body.

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, Phases, PluginKind, record};
use crate::request_edits::{EntryLists, RequestEditConfig, RequestEdits};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The method of the request to the endpoint. If it is GET, HEAD or TRACE, a form moves to the query.
    http_method: Option<String>,
    /// Fields to remove, by name.
    #[serde(deserialize_with = "record")]
    remove: FieldLists,
    /// Fields to rename, as `old:new`. A field of the new name is replaced.
    #[serde(deserialize_with = "record")]
    rename: FieldLists,
    /// New values, as `name:value`, for fields that the request has.
    #[serde(deserialize_with = "record")]
    replace: Replacements,
    /// Fields, as `name:value`, for requests that do not have them.
    #[serde(deserialize_with = "record")]
    add: FieldLists,
    /// Values, as `name:value`, to add to those that the request has.
    #[serde(deserialize_with = "record")]
    append: FieldLists,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FieldLists {
    /// Fields of the body.
    body: Vec<String>,
    /// Headers.
    headers: Vec<String>,
    /// Query parameters.
    querystring: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Replacements {
    /// Fields of the body.
    body: Vec<String>,
    /// Headers. The header Host is replaced in any case.
    headers: Vec<String>,
    /// Query parameters.
    querystring: Vec<String>,
    /// The path of the request to the endpoint, which starts with a slash. If unset, the path does not change.
    uri: Option<String>,
}

impl From<FieldLists> for EntryLists {
    fn from(lists: FieldLists) -> Self {
        let FieldLists { body, headers, querystring } = lists;
        EntryLists { body, headers, querystring, json_types: Vec::new() }
    }
}

pub(crate) struct RequestTransformer;

impl PluginKind for RequestTransformer {
    const NAME: &'static str = "request-transformer";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 801;
    const PHASES: Phases = Phases::ACCESS;
    // Endpoints or clients would otherwise get what the plugin was to remove or to replace.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestEdits;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<RequestEdits, Vec<Diagnostic>> {
        let Replacements { body, headers, querystring, uri } = config.replace;
        let edits = RequestEditConfig {
            http_method: config.http_method,
            uri,
            remove: config.remove.into(),
            rename: config.rename.into(),
            replace: FieldLists { body, headers, querystring }.into(),
            add: config.add.into(),
            append: config.append.into(),
            allowed_body: None,
            has_paths: false,
        };
        RequestEdits::build(edits, cx)
    }
}
