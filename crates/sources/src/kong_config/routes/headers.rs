//! The conditions of a route about headers of requests.

use serde_json::{Map, Value, json};

use super::super::fields::EntityFields;
use super::super::objects::Draft;
use crate::api::kong::annotations::{HEADERS_PREFIX, HEADERS_SEPARATOR};

/// Headers, each with its possible values.
pub(super) struct HeaderConditions {
    lists: Vec<(String, Vec<String>)>,
    /// What separates the values of all headers.
    separator: &'static str,
    /// Whether the file has some, whether or not they are valid.
    pub(super) are_in_the_file: bool,
}

impl HeaderConditions {
    pub(super) fn annotate(&self, draft: &mut Draft) {
        if self.separator != COMMA {
            draft.annotate(HEADERS_SEPARATOR, self.separator);
        }
        for (name, values) in &self.lists {
            draft.annotate(&format!("{HEADERS_PREFIX}{name}"), values.join(self.separator));
        }
    }
}

/// `is_websocket`: whether the route serves only requests that open a WebSocket.
pub(super) fn read(fields: &mut EntityFields<'_>, is_websocket: bool) -> HeaderConditions {
    let mut headers = fields.object("headers").unwrap_or_default();
    let are_in_the_file = !headers.is_empty();
    if is_websocket && !headers.keys().any(|name| name.eq_ignore_ascii_case("upgrade")) {
        headers.insert("Upgrade".to_owned(), json!(["websocket"]));
    }
    let lists = read_lists(fields, headers);
    let is_free = |separator: &&str| lists.iter().flat_map(|(_, values)| values).all(|v| !v.contains(*separator));
    match [COMMA, ";", "|", "\u{1f}"].into_iter().find(is_free) {
        Some(separator) => HeaderConditions { lists, separator, are_in_the_file },
        None => {
            let message = "the values of headers contain every separator";
            let remedy = "write one value without a comma, a semicolon or |";
            fields.findings.reject(fields.field("headers"), message, remedy);
            HeaderConditions { lists: Vec::new(), separator: COMMA, are_in_the_file }
        }
    }
}

/// The headers with valid values. Reports the others.
fn read_lists(fields: &EntityFields<'_>, headers: Map<String, Value>) -> Vec<(String, Vec<String>)> {
    let mut lists = Vec::new();
    for (name, values) in headers {
        let field = format!("{}.{name}", fields.field("headers"));
        if name.eq_ignore_ascii_case("host") {
            fields.findings.reject(field, "Kong does not accept `host` here", "write hosts");
            continue;
        }
        let values: Option<Vec<String>> = match values {
            Value::Array(values) => values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect(),
            Value::String(value) => Some(vec![value]),
            _ => None,
        };
        match values {
            Some(values) if !values.is_empty() && values.iter().all(|v| !v.is_empty() && v.trim() == v) => {
                lists.push((name, values));
            }
            _ => fields.findings.reject(field, "these are not values of a header", "write a list of texts"),
        }
    }
    lists
}

const COMMA: &str = ",";
