//! Schemas of `status` for every kind. Portico never parses a status, so it has no Rust type. The schema validates
//! manifests that contain one.

use schemars::transform::Transform;
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use super::transforms::{each, experimental, field, keyed_by};
use super::{form, schema_of};
use crate::api::gateway::gateway::{ADDRESS_TYPE, address_rules, routability};
use crate::api::gateway::{ParentReference, RouteGroupKind};
use crate::api::kind::Kind;

/// The schema of `status`, with marks for both channels. `None` for a kind without status.
pub(super) fn status_schema(kind: Kind) -> Option<Value> {
    let status = match kind {
        Kind::GatewayClass => {
            let waiting = json!([pending_condition("Accepted")]);
            by_condition(waiting.clone(), waiting, [("supportedFeatures", supported_features())])
        }
        Kind::XMesh => by_condition(
            json!([pending_condition("Accepted")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [("supportedFeatures", supported_features())],
        ),
        Kind::Gateway => by_condition(
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [
                ("addresses", addresses()),
                ("attachedListenerSets", json_schema!({ "type": "integer", "format": "int32" })),
                ("listeners", listeners()),
            ],
        ),
        Kind::ListenerSet => by_condition(
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [("listeners", listeners())],
        ),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            by_controller("parents", "parentRef", 32, true)
        }
        Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy | Kind::XTelemetryPolicy => {
            by_controller("ancestors", "ancestorRef", 16, true)
        }
        Kind::XBackend => by_controller("ancestors", "ancestorRef", 32, false),
        _ => return None,
    };
    Some(status.to_value())
}

/// A status with conditions that default to `Unknown`, written by one controller.
fn by_condition<const N: usize>(status: Value, conditions: Value, more: [(&'static str, Schema); N]) -> Schema {
    let mut properties = json!({ "conditions": condition_list(Some(8)) });
    properties["conditions"]["default"] = conditions;
    for (name, schema) in more {
        properties[name] = schema.to_value();
    }
    json_schema!({ "type": "object", "properties": properties, "default": { "conditions": status } })
}

/// A status with one entry per referenced object and controller.
pub(in crate::api) fn by_controller(list: &str, about: &str, most: u32, strict: bool) -> Schema {
    let mut controller = json_schema!({ "type": "string" });
    form::controller_name(&mut controller);
    let mut conditions = condition_list(strict.then_some(8));
    let mut required = vec![about, "controllerName"];
    if strict {
        conditions.insert("minItems".to_owned(), json!(1));
        required.push("conditions");
    }
    let mut status = json_schema!({
        "type": "object",
        "properties": { list: {
            "type": "array",
            "maxItems": most,
            "items": {
                "type": "object",
                "required": required,
                "properties": {
                    about: schema_of::<ParentReference>(),
                    "controllerName": controller,
                    "conditions": conditions,
                },
            },
        } },
    });
    if strict {
        status.insert("required".to_owned(), json!([list]));
    }
    status
}

pub(in crate::api) fn condition_list(most: Option<u32>) -> Schema {
    let mut conditions = json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "pattern": CONDITION_TYPE },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024, "pattern": REASON },
                "message": { "type": "string", "maxLength": 32768 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            },
        },
    });
    if let Some(most) = most {
        conditions.insert("maxItems".to_owned(), json!(most));
    }
    keyed_by(["type"])(&mut conditions);
    conditions
}

const CONDITION_TYPE: &str = concat!("^(", form::dns_name!(), "/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$");
const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// The default condition that the API server writes into new objects.
pub(in crate::api) fn pending_condition(kind: &str) -> Value {
    json!({
        "type": kind,
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    })
}

fn supported_features() -> Schema {
    let mut features = json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } } },
    });
    keyed_by(["name"])(&mut features);
    features
}

fn addresses() -> Schema {
    let mut addresses = json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "required": ["value"],
            "properties": {
                "type": { "type": "string", "default": "IPAddress" },
                "value": { "type": "string", "minLength": 1, "maxLength": 253 },
                "routability": { "type": "string", "maxLength": 253 },
            },
        },
    });
    each(field("type", form::text(1, 253, ADDRESS_TYPE))).transform(&mut addresses);
    each(field("routability", experimental)).transform(&mut addresses);
    each(field("routability", routability())).transform(&mut addresses);
    each(address_rules(false)).transform(&mut addresses);
    addresses
}

fn listeners() -> Schema {
    let mut listeners = json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "object",
            "required": ["name", "attachedRoutes", "conditions"],
            "properties": {
                "name": { "type": "string" },
                "attachedRoutes": { "type": "integer", "format": "int32" },
                "conditions": condition_list(Some(8)),
                "supportedKinds": { "type": "array", "maxItems": 8, "items": schema_of::<RouteGroupKind>() },
            },
        },
    });
    keyed_by(["name"])(&mut listeners);
    each(field("name", form::section_name)).transform(&mut listeners);
    listeners
}
