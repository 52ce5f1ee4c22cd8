//! `response-transformer`: changes headers and JSON bodies of responses.
//!
//! ```yaml
//! plugin: response-transformer
//! config:
//!   remove: {headers: [X-Powered-By], json: [debug]}
//!   rename: {json: ["id:order_id"]}
//!   add: {headers: ["X-Frame-Options:DENY"], json: ["count:1"], json_types: [number]}
//! ```
//!
//! The operations run in this order: `remove`, `rename`, `replace`, `add`, `append`. An entry is `name:value`: the name
//! ends at the first colon, and the value is literal text.
//!
//! The plugin runs on every response to a request that it is attached to, including the replies of other plugins and
//! Portico's own errors. Headers are changed on all of them, bodies only if all of these apply:
//!
//! - The media type is `application/json`, or has the suffix `+json`, and the body is a JSON object.
//! - The response is complete: not a 206, not a part that `Content-Range` describes, and not the response to HEAD.
//! - The body has at most 1 MiB, both as it was sent and decompressed.
//! - `Content-Encoding` is absent, gzip, deflate, br or zstd. A changed body is sent uncompressed.
//!
//! Any other body passes unchanged. The metric `portico_plugin_unfiltered_bodies_total` counts bodies that are too
//! large or have another encoding. The plugin reads the whole body before the head of the response is sent.
//!
//! Only the fields of the outermost object are changed. The others keep their order and their text, so numbers keep all
//! digits and empty lists stay lists. If the body changes, `Content-Length` is that of the new body, a strong `ETag`
//! becomes weak, and `Accept-Ranges` and digest headers are removed.

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::json_fields::JsonType;
use crate::plugin_api::{BuildCx, Phases, PluginKind, record};
use crate::response_edits::{EditOperation, ResponseEditConfig, ResponseEdits};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What to remove.
    #[serde(deserialize_with = "record")]
    remove: RemoveConfig,
    /// What to rename. An existing header or field with the new name is replaced.
    #[serde(deserialize_with = "record")]
    rename: RenameConfig,
    /// Values to set if the header or field exists.
    #[serde(deserialize_with = "record")]
    replace: ValuesConfig,
    /// Values to set if the header or field does not exist.
    #[serde(deserialize_with = "record")]
    add: ValuesConfig,
    /// Values to add to those that exist: a header gets another line, a field becomes a list or a longer list.
    #[serde(deserialize_with = "record")]
    append: ValuesConfig,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RemoveConfig {
    /// Names of fields of the JSON object.
    json: Vec<String>,
    /// Names of headers. `name:value` removes only this value: lines with it, and list members within a line.
    headers: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RenameConfig {
    /// Fields of the JSON object, each as `old:new`.
    json: Vec<String>,
    /// Headers, each as `old:new`.
    headers: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ValuesConfig {
    /// Fields of the JSON object, each as `name:value`.
    json: Vec<String>,
    /// The types of the values in `json`, by position. Values without a type are strings.
    json_types: Vec<JsonType>,
    /// Headers, each as `name:value`.
    headers: Vec<String>,
}

impl From<ValuesConfig> for EditOperation {
    fn from(values: ValuesConfig) -> Self {
        let ValuesConfig { json, json_types, headers } = values;
        EditOperation { headers, json, json_types, if_status: Vec::new() }
    }
}

pub(crate) struct ResponseTransformer;

impl PluginKind for ResponseTransformer {
    const NAME: &'static str = "response-transformer";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 800;
    const PHASES: Phases = Phases::RESPONSE;
    // Endpoints or clients would otherwise get what the plugin was to remove or to replace.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = ResponseEdits;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<ResponseEdits, Vec<Diagnostic>> {
        let RemoveConfig { json, headers } = config.remove;
        let RenameConfig { json: renamed, headers: renamed_headers } = config.rename;
        let edits = ResponseEditConfig {
            remove: EditOperation { headers, json, ..EditOperation::default() },
            rename: EditOperation { headers: renamed_headers, json: renamed, ..EditOperation::default() },
            replace: config.replace.into(),
            add: config.add.into(),
            append: config.append.into(),
            ..ResponseEditConfig::default()
        };
        ResponseEdits::build(&edits, cx)
    }
}
