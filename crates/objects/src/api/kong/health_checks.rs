//! Health checks of endpoints, as in KongUpstreamPolicy and KongIngress.

use std::collections::BTreeMap;

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::{VALIDATIONS, rule};
use crate::api::gateway::schema::transforms::each;

/// Active health checks, independent of client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveHealthcheck {
    /// Protocol of the checks; defaults to http. For tcp, an established connection is a success.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(CHECK_TYPES))]
    pub kind: Option<String>,
    /// Has no effect: the checks of all Services are limited together, by `--health-checks-per-second`.
    #[schemars(range(min = 1))]
    pub concurrency: Option<i32>,
    /// Header fields of the checks.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Path of the checks; defaults to /.
    #[serde(alias = "http_path")]
    #[schemars(regex(pattern = "^/.*$"))]
    pub http_path: Option<String>,
    /// Has no effect: checks use the server name (SNI) of requests.
    #[serde(alias = "https_sni")]
    pub https_sni: Option<String>,
    /// Has no effect: checks verify certificates as requests do.
    #[serde(alias = "https_verify_certificate")]
    pub https_verify_certificate: Option<bool>,
    /// Timeout of a check, in seconds; defaults to 1.
    #[schemars(range(min = 0))]
    pub timeout: Option<i32>,
    /// When an endpoint becomes healthy.
    pub healthy: Option<Healthy>,
    /// When an endpoint becomes unhealthy.
    pub unhealthy: Option<Unhealthy>,
}

/// Passive health checks, based on responses to client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(
    transform = rule(
        "!has(self.healthy) || !has(self.healthy.interval)",
        "healthy.interval is set but passive checks have no interval; remove it, or move it to the active check",
    ),
    transform = rule(
        "!has(self.unhealthy) || !has(self.unhealthy.interval)",
        "unhealthy.interval is set but passive checks have no interval; remove it, or move it to the active check",
    ),
)]
pub struct PassiveHealthcheck {
    /// Protocol of the endpoints; defaults to http.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(CHECK_TYPES))]
    pub kind: Option<String>,
    /// When an endpoint becomes healthy.
    pub healthy: Option<Healthy>,
    /// When an endpoint becomes unhealthy.
    pub unhealthy: Option<Unhealthy>,
}

const CHECK_TYPES: [&str; 5] = ["http", "https", "tcp", "grpc", "grpcs"];

/// When an endpoint becomes healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healthy {
    /// Status codes that count as success.
    #[serde(alias = "http_statuses")]
    #[schemars(transform = status_codes)]
    pub http_statuses: Option<Vec<i32>>,
    /// Seconds between active checks of a healthy endpoint; 0, the default, disables them. Passive checks must not have
    /// this field.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// Required number of consecutive successes; 0, the default, disables the criterion.
    #[schemars(range(min = 0))]
    pub successes: Option<i32>,
}

/// When an endpoint becomes unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unhealthy {
    /// Status codes that count as failure.
    #[serde(alias = "http_statuses")]
    #[schemars(transform = status_codes)]
    pub http_statuses: Option<Vec<i32>>,
    /// Required number of consecutive HTTP failures; 0, the default, disables the criterion.
    #[serde(alias = "http_failures")]
    #[schemars(range(min = 0))]
    pub http_failures: Option<i32>,
    /// Seconds between active checks of an unhealthy endpoint; 0, the default, disables them. Passive checks must not
    /// have this field.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// Required number of consecutive connection failures; 0, the default, disables the criterion.
    #[serde(alias = "tcp_failures")]
    #[schemars(range(min = 0))]
    pub tcp_failures: Option<i32>,
    /// Required number of consecutive timeouts; 0, the default, disables the criterion.
    #[schemars(range(min = 0))]
    pub timeouts: Option<i32>,
}

fn status_codes(schema: &mut Schema) {
    each(|status: &mut Schema| {
        status.insert("minimum".to_owned(), json!(100));
        status.insert("maximum".to_owned(), json!(599));
    })
    .transform(schema);
}

/// Converts the schema of a check to that of KongIngress: names in snake case, and without the enums, CEL rules, bounds
/// of status codes and described defaults of KongUpstreamPolicy.
pub(super) fn as_in_kong_ingress(schema: &mut Schema) {
    let mut value = std::mem::take(schema).to_value();
    relax(&mut value);
    *schema = Schema::try_from(value).expect("an object stays an object");
}

/// Converts a node and all nodes below it.
fn relax(node: &mut Value) {
    let Some(node) = node.as_object_mut() else { return };
    node.shift_remove("enum");
    node.shift_remove(VALIDATIONS);
    // In these descriptions, defaults follow the first semicolon.
    if let Some(Value::String(text)) = node.get_mut("description")
        && let Some((first_clause, _)) = text.split_once(';')
    {
        *text = format!("{first_clause}.");
    }
    if let Some(Value::Object(items)) = node.get_mut("items") {
        items.retain(|keyword, _| keyword != "minimum" && keyword != "maximum");
    }
    let Some(Value::Object(properties)) = node.get_mut("properties") else { return };
    for (name, mut property) in std::mem::take(properties) {
        relax(&mut property);
        properties.insert(snake_case(&name), property);
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_parsed() {
        let camel = json!({"httpPath": "/x", "healthy": {"httpStatuses": [200]}, "unhealthy": {"tcpFailures": 2}});
        let snake = json!({"http_path": "/x", "healthy": {"http_statuses": [200]}, "unhealthy": {"tcp_failures": 2}});
        let parse = |value| serde_json::from_value::<ActiveHealthcheck>(value).unwrap();
        assert_eq!(parse(camel.clone()), parse(snake));
        assert_eq!(parse(camel).unhealthy.unwrap().tcp_failures, Some(2));
    }
}
