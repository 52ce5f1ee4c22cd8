//! Parts of a request as JSON: headers, query and body, with lists for what is repeated.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HOST};
use serde_json::{Map, Value, json};

use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::multipart::Multipart;

/// The parameters by name: a text, `true` for a parameter without a value, or a list of those.
pub fn query(query: &str) -> Map<String, Value> {
    form(query.as_bytes())
}

/// The headers by name: a text, or a list of texts. `host` stands for the field of this name. It is that of the client,
/// as in Kong: the endpoint may get another one.
pub fn headers(headers: &HeaderMap, host: &str) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, value) in headers {
        if name != HOST {
            add(&mut members, name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    members.insert(HOST.as_str().to_owned(), host.into());
    members
}

/// The fields of a body by name. `None` if the media type is not one of JSON or of a form, or the body has no fields.
pub fn body_fields(headers: &HeaderMap, body: &[u8]) -> Option<Map<String, Value>> {
    if headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    let media_type = MediaType::of(headers)?;
    match media_type.essence.as_str() {
        _ if media_type.is_json() => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => Some(form(body)),
        "multipart/form-data" => {
            let content_type = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
            let mut members = Map::new();
            for part in Multipart::parse(content_type, body)?.parts() {
                add(&mut members, lossy(&part.name), lossy(part.value).into());
            }
            Some(members)
        }
        _ => None,
    }
}

fn form(text: &[u8]) -> Map<String, Value> {
    let mut members = Map::new();
    for pair in UrlEncodedForm(text).pairs().filter(|pair| !pair.name().is_empty()) {
        let value = pair.value().map_or(Value::Bool(true), |value| lossy(&value).into());
        add(&mut members, lossy(&pair.name()), value);
    }
    members
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Adds a value. A second one under the same name makes a list of both.
fn add(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.get_mut(&name) {
        None => _ = members.insert(name, value),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}
