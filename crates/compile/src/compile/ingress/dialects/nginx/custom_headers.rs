//! Headers of a ConfigMap that all responses of an Ingress have. The ConfigMap of the controller says which ones.

use http::{HeaderName, HeaderValue};

use super::config_map::NginxConfig;
use super::referenced_objects::{object_key, report_missing};
use super::value_reader::ValueReader;
use crate::api::Kind;
use crate::compile::CompileContext;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;

/// The headers, in the order of their names.
pub(super) fn read(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(name) = reader.text(ANNOTATION) else { return Vec::new() };
    let Some(key) = object_key(reader, ANNOTATION, name, config) else { return Vec::new() };
    let Some(found) = cx.store.config_maps.get(&key) else {
        report_missing(cx, reader, ANNOTATION, Kind::ConfigMap, &key);
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (name, value) in &found.data {
        if !config.allowed_response_headers.iter().any(|allowed| allowed == name) {
            let message = format!("header {name} of ConfigMap {key} is not one that Ingresses may set");
            let remedy = "list it in global-allowed-response-headers of the ConfigMap of ingress-nginx, or remove it";
            reader.refuse(ANNOTATION, &message, remedy);
            continue;
        }
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(_)) if MESSAGE_FIELDS.contains(&name) => {
                let message = format!("header {name} of ConfigMap {key} describes the connection or the body");
                reader.refuse(ANNOTATION, &message, "remove it");
            }
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => {
                let message = format!("header {name} of ConfigMap {key} is not valid");
                reader.refuse(ANNOTATION, &message, "write a name of letters, digits and -, and a value of one line");
            }
        }
    }
    headers
}

const ANNOTATION: &str = "custom-headers";
