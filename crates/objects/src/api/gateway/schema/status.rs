//! Schemas of `status` for every kind. Portico never parses a status, so it has no Rust type. The schema validates
//! manifests that contain one.

use schemars::transform::Transform;
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use super::transforms::{Presence, each, experimental, field, keyed_by};
use super::{form, schema_of};
use crate::api::gateway::gateway::{ADDRESS_TYPE, address_rules, routability};
use crate::api::gateway::{ParentReference, RouteGroupKind};
use crate::api::kind::Kind;

/// The schema of `status`, with the marks of `channel_mark`. `None` for a kind without status.
pub(super) fn status_schema(kind: Kind) -> Option<Value> {
    let status = match kind {
        Kind::GatewayClass => {
            let accepted = json!([pending_condition("Accepted")]);
            status_of_object(accepted.clone(), accepted, [("supportedFeatures", supported_features())])
        }
        Kind::XMesh => status_of_object(
            json!([pending_condition("Accepted")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [("supportedFeatures", supported_features())],
        ),
        Kind::Gateway => status_of_object(
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [
                ("addresses", addresses()),
                ("attachedListenerSets", json_schema!({ "type": "integer", "format": "int32" })),
                ("listeners", listeners()),
            ],
        ),
        Kind::ListenerSet => status_of_object(
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            json!([pending_condition("Accepted"), pending_condition("Programmed")]),
            [("listeners", listeners())],
        ),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            status_per_controller("parents", "parentRef", 32, Presence::Required)
        }
        Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy | Kind::XTelemetryPolicy => {
            status_per_controller("ancestors", "ancestorRef", 16, Presence::Required)
        }
        Kind::XBackend => status_per_controller("ancestors", "ancestorRef", 32, Presence::Optional),
        _ => return None,
    };
    Some(status.to_value())
}

/// A status with conditions of the object itself, written by one controller. The API server adds the conditions
/// `if_no_status` to an object without status, and the conditions `if_no_conditions` to a status without them.
fn status_of_object<const N: usize>(
    if_no_status: Value,
    if_no_conditions: Value,
    other_fields: [(&'static str, Schema); N],
) -> Schema {
    let mut properties = json!({ "conditions": condition_list(Some(8)) });
    properties["conditions"]["default"] = if_no_conditions;
    for (name, schema) in other_fields {
        properties[name] = schema.to_value();
    }
    json_schema!({ "type": "object", "properties": properties, "default": { "conditions": if_no_status } })
}

/// A status with a list of at most `max_entries` entries: one for each pair of a controller and an object that
/// `reference_field` refers to. If the conditions of an entry are required, the list is required, too, and the number
/// of conditions is limited.
pub(in crate::api) fn status_per_controller(
    list: &str,
    reference_field: &str,
    max_entries: u32,
    conditions_presence: Presence,
) -> Schema {
    let conditions_required = conditions_presence == Presence::Required;
    let mut controller = json_schema!({ "type": "string" });
    form::controller_name(&mut controller);
    let mut conditions = condition_list(conditions_required.then_some(8));
    let mut required_fields = vec![reference_field, "controllerName"];
    if conditions_required {
        conditions.insert("minItems".to_owned(), json!(1));
        required_fields.push("conditions");
    }
    let mut status = json_schema!({
        "type": "object",
        "properties": { list: {
            "type": "array",
            "maxItems": max_entries,
            "items": {
                "type": "object",
                "required": required_fields,
                "properties": {
                    reference_field: schema_of::<ParentReference>(),
                    "controllerName": controller,
                    "conditions": conditions,
                },
            },
        } },
    });
    if conditions_required {
        status.insert("required".to_owned(), json!([list]));
    }
    status
}

pub(in crate::api) fn condition_list(max_conditions: Option<u32>) -> Schema {
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
    if let Some(max_conditions) = max_conditions {
        conditions.insert("maxItems".to_owned(), json!(max_conditions));
    }
    keyed_by(["type"])(&mut conditions);
    conditions
}

const CONDITION_TYPE: &str = concat!("^(", form::dns_name!(), "/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$");
const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// The default condition that the API server writes into new objects.
pub(in crate::api) fn pending_condition(condition_type: &str) -> Value {
    json!({
        "type": condition_type,
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
    each(address_rules(Presence::Required)).transform(&mut addresses);
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
