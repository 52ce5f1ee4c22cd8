//! `response-transformer-advanced`: changes responses as response-transformer does, by status, with nested JSON values,
//! a list of the fields that a body may have, or another body.
//!
//! ```yaml
//! plugin: response-transformer-advanced
//! config:
//!   dots_in_keys: false
//!   remove: {json: ["customers[*].info.phone"]}
//!   replace: {body: '{"error":"internal server error"}', if_status: ["500-599"]}
//!   allow: {json: [customers, total]}
//! ```
//!
//! All fields and rules of `response-transformer` apply, except `rename.json`, which Kong's
//! plugin does not have either. In addition:
//!
//! - An operation with `if_status` applies only to these statuses and ranges of statuses.
//! - `replace.body` replaces the whole body, whatever its type and size, and no field of it is changed. The media type
//!   stays; set another one with `replace.headers`. Responses to gRPC calls, parts of a body (206) and responses that
//!   have no body keep what they have.
//! - `allow.json` are the only fields of JSON bodies that the client gets. Other fields are removed after all other
//!   changes, for every status.
//! - With `dots_in_keys: false`, the names of fields are paths as those of
//!   `request-transformer-advanced`, such as
//!   `customers[*].info.phone`. A body in whose values paths lead to more than 20,000 fields passes unchanged.
//!
//! `transform.functions` are programs in Lua, which Portico does not run: the plugin is refused with the function
//! named. Most of them can be written as operations of this plugin, or as a program of `jq`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::json_fields::JsonType;
use crate::plugin_api::{BuildCx, Phases, PluginKind, record};
use crate::response_edits::{EditOperation, ResponseEditConfig, ResponseEdits};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What to remove.
    #[serde(deserialize_with = "record")]
    remove: RemoveConfig,
    /// What to rename. An existing header with the new name is replaced.
    #[serde(deserialize_with = "record")]
    rename: RenameConfig,
    /// Values to set if the header or field exists.
    #[serde(deserialize_with = "record")]
    replace: ReplaceConfig,
    /// Values to set if the header or field does not exist.
    #[serde(deserialize_with = "record")]
    add: ValuesConfig,
    /// Values to add to those that exist: a header gets another line, a field becomes a list or a longer list.
    #[serde(deserialize_with = "record")]
    append: ValuesConfig,
    /// What the client may get.
    #[serde(deserialize_with = "record")]
    allow: AllowedFields,
    /// Functions in Lua, which are not supported.
    #[serde(deserialize_with = "record")]
    transform: TransformConfig,
    /// Whether a dot in the name of a field is part of the name. If false, names are paths.
    dots_in_keys: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            remove: RemoveConfig::default(),
            rename: RenameConfig::default(),
            replace: ReplaceConfig::default(),
            add: ValuesConfig::default(),
            append: ValuesConfig::default(),
            allow: AllowedFields::default(),
            transform: TransformConfig::default(),
            dots_in_keys: true,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RemoveConfig {
    /// Names of fields of JSON bodies.
    json: Vec<String>,
    /// Names of headers. `name:value` removes only this value: lines with it, and list members within a line.
    headers: Vec<String>,
    /// The statuses that the operation applies to, such as `"200"` or `"500-599"`. If empty, all.
    if_status: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RenameConfig {
    /// Headers, each as `old:new`.
    headers: Vec<String>,
    /// The statuses that the operation applies to, such as `"200"` or `"500-599"`. If empty, all.
    if_status: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ValuesConfig {
    /// Fields of JSON bodies, each as `name:value`.
    json: Vec<String>,
    /// The types of the values in `json`, by position. Values without a type are strings.
    json_types: Vec<JsonType>,
    /// Headers, each as `name:value`.
    headers: Vec<String>,
    /// The statuses that the operation applies to, such as `"200"` or `"500-599"`. If empty, all.
    if_status: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ReplaceConfig {
    /// The whole new body.
    body: Option<String>,
    /// Fields of JSON bodies, each as `name:value`.
    json: Vec<String>,
    /// The types of the values in `json`, by position. Values without a type are strings.
    json_types: Vec<JsonType>,
    /// Headers, each as `name:value`.
    headers: Vec<String>,
    /// The statuses that the operation applies to, such as `"200"` or `"500-599"`. If empty, all.
    if_status: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AllowedFields {
    /// The only fields of JSON bodies that the client gets. If unset, it gets all; an empty list removes all.
    json: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TransformConfig {
    /// Must be empty.
    functions: Vec<String>,
    /// The fields that the functions would get. No effect.
    json: Vec<String>,
    /// The statuses that the functions would run for. No effect.
    if_status: Vec<String>,
}

impl From<ValuesConfig> for EditOperation {
    fn from(values: ValuesConfig) -> Self {
        let ValuesConfig { json, json_types, headers, if_status } = values;
        EditOperation { headers, json, json_types, if_status }
    }
}

pub(crate) struct ResponseTransformerAdvanced;

impl PluginKind for ResponseTransformerAdvanced {
    const NAME: &'static str = "response-transformer-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 800;
    const PHASES: Phases = Phases::RESPONSE;
    // Endpoints or clients would otherwise get what the plugin was to remove or to replace.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = ResponseEdits;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<ResponseEdits, Vec<Diagnostic>> {
        let mut problems: Vec<Diagnostic> = config.transform.functions.iter().enumerate().map(lua_function).collect();
        let RemoveConfig { json, headers, if_status } = config.remove;
        let remove = EditOperation { headers, json, if_status, ..EditOperation::default() };
        let RenameConfig { headers, if_status } = config.rename;
        let rename = EditOperation { headers, if_status, ..EditOperation::default() };
        let ReplaceConfig { body, json, json_types, headers, if_status } = config.replace;
        let edits = ResponseEditConfig {
            remove,
            rename,
            replace: EditOperation { headers, json, json_types, if_status },
            add: config.add.into(),
            append: config.append.into(),
            new_body: body,
            allowed_json: config.allow.json,
            has_paths: !config.dots_in_keys,
        };
        match ResponseEdits::build(&edits, cx) {
            Ok(edits) if problems.is_empty() => Ok(edits),
            Ok(_) => Err(problems),
            Err(others) => {
                problems.extend(others);
                Err(problems)
            }
        }
    }
}

fn lua_function((index, function): (usize, &String)) -> Diagnostic {
    let first_line = function.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("--"));
    let start: String = first_line.unwrap_or_default().chars().take(60).collect();
    let message = format!("is the Lua function {start:?}, and Portico does not run Lua");
    let remedy = "use remove, rename, replace, add, append and allow of this plugin, or response_jq_program of jq";
    Diagnostic::in_config(format!("transform.functions[{index}]"), message, remedy)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

    const KIND: RegisteredKind<ResponseTransformerAdvanced> = RegisteredKind::NEW;

    async fn run(config: &Value, status: u16, content_type: &'static str) -> TestOutcome {
        let mut request = TestRequest::get("/");
        *request.upstream_response.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = request.upstream_response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert("x-a", HeaderValue::from_static("1"));
        headers.insert("etag", HeaderValue::from_static("\"v1\""));
        request.run(&chain(&[(&KIND, config.clone())])).await
    }

    async fn transform(config: &Value, status: u16, content_type: &'static str, body: &str) -> String {
        let mut outcome = run(config, status, content_type).await;
        String::from_utf8(outcome.filter_body(body.to_owned()).to_vec()).unwrap()
    }

    // docs/kong-compatibility.md, 5.12
    #[tokio::test]
    async fn bodies_are_edited_by_status_path_and_list() {
        const JSON: &str = "application/json";
        let body = r#"{"a":{"b":1.50,"c":[{"d":1},{"d":2,"e":3}]},"f":null}"#;
        for (config, status, content_type, expected) in [
            (json!({"dots_in_keys": false, "remove": {"json": ["a.c"]}}), 200, JSON, r#"{"a":{"b":1.50},"f":null}"#),
            (
                json!({"dots_in_keys": false, "remove": {"json": ["a.c[*].d", "f"]}}),
                200,
                "application/hal+json; charset=utf-8",
                r#"{"a":{"b":1.50,"c":[{},{"e":3}]}}"#,
            ),
            (json!({"remove": {"json": ["a"], "if_status": ["404", "500-599"]}}), 404, JSON, r#"{"f":null}"#),
            (json!({"remove": {"json": ["a"], "if_status": ["404", "500-599"]}}), 503, JSON, r#"{"f":null}"#),
            (json!({"remove": {"json": ["a"], "if_status": ["404", "500-599"]}}), 200, JSON, body),
            (json!({"allow": {"json": ["f"]}, "add": {"json": ["g:1"]}}), 200, JSON, r#"{"f":null}"#),
            (
                json!({"replace": {"json": ["f:2"], "json_types": ["number"]}, "remove": {"json": ["a"]}}),
                200,
                JSON,
                r#"{"f":2}"#,
            ),
            (json!({"remove": {"json": ["a.b"]}}), 200, JSON, body),
            (json!({"remove": {"json": ["a"]}}), 200, "text/plain", body),
        ] {
            assert_eq!(transform(&config, status, content_type, body).await, expected, "{config} {status}");
        }
    }

    // docs/kong-compatibility.md, 5.12
    #[tokio::test]
    async fn whole_bodies_are_replaced() {
        let config = json!({
            "replace": {"body": "<p>later</p>", "headers": ["content-type:text/html"], "if_status": ["500-599"]},
            "rename": {"headers": ["x-a:x-b"], "if_status": ["500"]},
        });
        let outcome = run(&config, 500, "application/json").await;
        let headers = &outcome.response.headers;
        assert_eq!(outcome.response.status.as_u16(), 500);
        assert_eq!(headers["content-type"], "text/html");
        // The fields of the former body are gone, and all others are kept.
        assert_eq!((headers.get("etag"), &headers["x-b"]), (None, &HeaderValue::from_static("1")));
        for status in [200, 204, 206, 304] {
            let config =
                json!({"replace": {"body": "x", "if_status": if status == 200 { vec!["500"] } else { vec![] }}});
            let outcome = run(&config, status, "application/json").await;
            assert!(outcome.response.headers.contains_key("etag"), "{status}");
        }
    }

    #[test]
    fn configurations_are_checked() {
        let config = json!({
            "transform": {"functions": ["-- a comment\nreturn function (data) return data end"]},
            "remove": {"if_status": ["5xx"]},
            "allow": {"json": ["a[0]"]},
            "dots_in_keys": false,
        });
        let invalid = build(&KIND, &config).err().unwrap();
        let fields: Vec<&str> = invalid.iter().map(|diagnostic| &*diagnostic.field).collect();
        let expected = ["config.transform.functions[0]", "config.allow.json[0]", "config.remove.if_status[0]"];
        assert_eq!(fields, expected, "{invalid:?}");
        assert!(invalid[0].message.contains("return function (data)"), "{invalid:?}");
        assert!(build(&KIND, &json!({"rename": {"json": ["a:b"]}})).is_err());
    }
}
