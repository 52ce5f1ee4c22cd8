//! `request-transformer-advanced`: changes requests as request-transformer does, with typed and nested JSON values, and
//! with a list of the fields that a body may have.
//!
//! ```yaml
//! plugin: request-transformer-advanced
//! config:
//!   dots_in_keys: false
//!   remove: {body: ["customers[*].internal_id"]}
//!   add: {body: ["options.limit:20"], json_types: [number]}
//!   allow: {body: [customers, options]}
//! ```
//!
//! All fields, templates, limits and rules of `request-transformer` apply. In addition:
//!
//! - `json_types` are the types of the values in `body` of the same operation, by position. They apply to JSON bodies.
//!   A value from a template that is no number, although its type is `number`, is a 500.
//! - `allow.body` are the only fields of the body that the endpoint gets. Other fields are removed after all other
//!   changes, also those that this plugin has added.
//! - With `dots_in_keys: false`, the names of fields are paths in JSON bodies. Names in forms and multipart bodies are
//!   always whole names.
//!
//! | path | field |
//! | --- | --- |
//! | `order.customer` | the member `customer` of the object `order` |
//! | `lines[1].price` | the member `price` of the first element of the list `lines` |
//! | `lines[*].price` | the member `price` of each element |
//! | `[*].price` | the same, if the body is a list |
//!
//! Operations change only what exists: `add` and `append` set a member of an object or list that is there. An entry of
//! `rename` has the path of the old name and the new name alone, as in `order.customer:buyer`. A body in whose values
//! paths lead to more than 20,000 fields is rejected with 413.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::json_fields::JsonType;
use crate::plugin_api::{BuildCx, Phases, PluginKind, record};
use crate::request_edits::{EntryLists, RequestEditConfig, RequestEdits};

#[derive(Debug, Deserialize, JsonSchema)]
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
    add: TypedFieldLists,
    /// Values, as `name:value`, to add to those that the request has.
    #[serde(deserialize_with = "record")]
    append: TypedFieldLists,
    /// What the endpoint may get.
    #[serde(deserialize_with = "record")]
    allow: AllowedFields,
    /// Whether a dot in the name of a field is part of the name. If false, names are paths.
    dots_in_keys: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http_method: None,
            remove: FieldLists::default(),
            rename: FieldLists::default(),
            replace: Replacements::default(),
            add: TypedFieldLists::default(),
            append: TypedFieldLists::default(),
            allow: AllowedFields::default(),
            dots_in_keys: true,
        }
    }
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
struct TypedFieldLists {
    /// Fields of the body.
    body: Vec<String>,
    /// The types of the values in `body`, by position. Values without a type are strings.
    json_types: Vec<JsonType>,
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
    /// The types of the values in `body`, by position. Values without a type are strings.
    json_types: Vec<JsonType>,
    /// Headers. The header Host is replaced in any case.
    headers: Vec<String>,
    /// Query parameters.
    querystring: Vec<String>,
    /// The path of the request to the endpoint, which starts with a slash. If unset, the path does not change.
    uri: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AllowedFields {
    /// The only fields of the body that the endpoint gets. If unset, it gets all; an empty list removes all.
    body: Option<Vec<String>>,
}

impl From<FieldLists> for EntryLists {
    fn from(lists: FieldLists) -> Self {
        let FieldLists { body, headers, querystring } = lists;
        EntryLists { body, headers, querystring, json_types: Vec::new() }
    }
}

impl From<TypedFieldLists> for EntryLists {
    fn from(lists: TypedFieldLists) -> Self {
        let TypedFieldLists { body, json_types, headers, querystring } = lists;
        EntryLists { body, headers, querystring, json_types }
    }
}

pub(crate) struct RequestTransformerAdvanced;

impl PluginKind for RequestTransformerAdvanced {
    const NAME: &'static str = "request-transformer-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 802;
    const PHASES: Phases = Phases::ACCESS;
    // Endpoints or clients would otherwise get what the plugin was to remove or to replace.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestEdits;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<RequestEdits, Vec<Diagnostic>> {
        let Replacements { body, json_types, headers, querystring, uri } = config.replace;
        let edits = RequestEditConfig {
            http_method: config.http_method,
            uri,
            remove: config.remove.into(),
            rename: config.rename.into(),
            replace: TypedFieldLists { body, json_types, headers, querystring }.into(),
            add: config.add.into(),
            append: config.append.into(),
            allowed_body: config.allow.body,
            has_paths: !config.dots_in_keys,
        };
        RequestEdits::build(edits, cx)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};

    const KIND: RegisteredKind<RequestTransformerAdvanced> = RegisteredKind::NEW;
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    async fn transform(config: &Value, content_type: &str, body: &str) -> TestOutcome {
        let request = TestRequest::post("/?page=2&word=x", content_type, body.to_owned());
        request.run(&chain(&[(&KIND, config.clone())])).await
    }

    // docs/kong-compatibility.md, 5.12
    #[tokio::test]
    async fn bodies_are_edited_by_type_path_and_list() {
        for (config, content_type, body, expected) in [
            (
                json!({"add": {"body": ["a:1.50", "b:true", "c:x", "d:4"], "json_types": ["number", "boolean"]}}),
                JSON,
                "{}",
                r#"{"a":1.50,"b":true,"c":"x","d":"4"}"#,
            ),
            (
                json!({"append": {"body": ["a:$(query_params.page)"], "json_types": ["number"]}}),
                JSON,
                r#"{"a":[1]}"#,
                r#"{"a":[1,2]}"#,
            ),
            (json!({"remove": {"body": ["a.b"]}}), JSON, r#"{"a.b":1,"a":{"b":2}}"#, r#"{"a":{"b":2}}"#),
            (
                json!({"dots_in_keys": false, "remove": {"body": ["a[*].b"]}, "rename": {"body": ["c.d:e"]},
                       "replace": {"body": ["a[1].x:0"], "json_types": ["number"]}, "add": {"body": ["c.f:1"]}}),
                JSON,
                r#"{"a":[{"b":1,"x":9},{"b":2}],"c":{"d":{}}}"#,
                r#"{"a":[{"x":0},{}],"c":{"e":{},"f":"1"}}"#,
            ),
            (
                json!({"dots_in_keys": false, "remove": {"body": ["[*].a"]}}),
                JSON,
                r#"[{"a":1},{"b":2}]"#,
                r#"[{},{"b":2}]"#,
            ),
            (json!({"remove": {"body": ["a"]}}), JSON, r#"[{"a":1}]"#, r#"[{"a":1}]"#),
            (json!({"dots_in_keys": false, "remove": {"body": ["a.b"]}}), FORM, "a.b=1&c=2", "c=2"),
            (json!({"allow": {"body": ["a"]}}), JSON, r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
            (json!({"allow": {"body": ["a"]}, "add": {"body": ["c:1"]}}), FORM, "a=1&b=2", "a=1"),
            (json!({"allow": {"body": []}}), JSON, r#"{"a":1}"#, "{}"),
            (
                json!({"allow": {"body": ["a.b"]}, "dots_in_keys": false}),
                JSON,
                r#"{"a":{"b":1,"c":2},"d":3}"#,
                r#"{"a":{"b":1}}"#,
            ),
        ] {
            let outcome = transform(&config, content_type, body).await;
            assert_eq!(outcome.reply_status(), None, "{config}");
            let found = outcome.state.body_changes.replacement.map(|body| String::from_utf8(body.to_vec()).unwrap());
            assert_eq!(found.as_deref().unwrap_or(body), expected, "{config} {body}");
        }
        let multipart = "multipart/form-data; boundary=b";
        let part = |name: &str| format!("--b\r\nContent-Disposition: form-data; name={name}\r\n\r\n1\r\n");
        let body = format!("{}{}--b--\r\n", part("a"), part("b"));
        let outcome = transform(&json!({"allow": {"body": ["b"]}}), multipart, &body).await;
        let expected = format!("{}--b--\r\n", part("b"));
        assert_eq!(outcome.state.body_changes.replacement.as_deref(), Some(expected.as_bytes()));
    }

    #[tokio::test]
    async fn values_without_their_type_and_deep_bodies_are_rejected() {
        let config = json!({"add": {"body": ["a:$(query_params.word)"], "json_types": ["number"]}});
        let outcome = transform(&config, JSON, "{}").await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(500));
        let config = json!({"dots_in_keys": false, "remove": {"body": ["a[*].b"]}});
        let body = format!("{{\"a\":[{}1]}}", "1,".repeat(20_001));
        let outcome = transform(&config, JSON, &body).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(413));
    }

    #[test]
    fn configurations_are_checked() {
        let config = json!({
            "dots_in_keys": false,
            "remove": {"body": ["a..b"]},
            "rename": {"body": ["a[1]:b"]},
            "add": {"body": ["c:x"], "json_types": ["number"]},
            "allow": {"body": ["a[0]"]},
        });
        let invalid = build(&KIND, &config).err().unwrap();
        let mut fields: Vec<&str> = invalid.iter().map(|diagnostic| &*diagnostic.field).collect();
        fields.sort_unstable();
        let expected = ["config.add.body[0]", "config.allow.body[0]", "config.remove.body[0]", "config.rename.body[0]"];
        assert_eq!(fields, expected, "{invalid:?}");
        let config = json!({"add": {"body": ["a:yes"], "json_types": ["boolean", "number"]}});
        let found: Vec<_> = notes(&KIND, &config).into_iter().map(|note| note.field).collect();
        assert_eq!(found, ["config.add.json_types", "config.add.body[0]"]);
        // A list of allowed fields alone needs the body.
        assert!(build(&KIND, &json!({"allow": {"body": []}})).unwrap().body_buffer_limit().is_some());
        assert!(build(&KIND, &json!({})).unwrap().body_buffer_limit().is_none());
    }
}
