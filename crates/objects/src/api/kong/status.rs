//! Schemas of `status` for Kong's kinds. A status has no Rust type because Portico only writes it.

use schemars::{Schema, json_schema};
use serde_json::json;

use crate::api::gateway::ObjectReference;
use crate::api::gateway::schema::schema_of;
use crate::api::gateway::schema::status::{condition_list, pending_condition, status_per_controller};
use crate::api::gateway::schema::transforms::{Presence, keyed_by};
use crate::api::kind::Kind;

/// The schema of `status`. `None` for a kind without status.
pub(super) fn status_schema(kind: Kind) -> Option<Schema> {
    let mut status = match kind {
        Kind::KongConsumer | Kind::KongConsumerGroup => {
            let mut status = json_schema!({
                "type": "object",
                "properties": { "conditions": condition_list(Some(8)), "konnect": konnect() },
            });
            status.insert("default".to_owned(), json!({ "conditions": [pending_condition("Programmed")] }));
            status
        }
        Kind::KongVault => {
            json_schema!({
                "type": "object",
                "properties": { "conditions": programmed_conditions(), "konnect": konnect() },
            })
        }
        Kind::KongPlugin | Kind::KongClusterPlugin | Kind::KongCustomEntity | Kind::KongServiceFacade => {
            json_schema!({ "type": "object", "properties": { "conditions": programmed_conditions() } })
        }
        // Kong's definition has no conditions; Portico's conditions report fields that have no effect.
        Kind::KongIngress => {
            json_schema!({ "type": "object", "properties": { "conditions": condition_list(Some(8)) } })
        }
        Kind::TcpIngress | Kind::UdpIngress => json_schema!({
            "type": "object",
            "properties": { "conditions": condition_list(Some(8)), "loadBalancer": load_balancer() },
        }),
        Kind::KongUpstreamPolicy => status_per_controller("ancestors", "ancestorRef", 16, Presence::Required),
        Kind::KongLicense => status_by_controller(),
        _ => return None,
    };
    status.insert("description".to_owned(), json!("Status of the object, written by Portico."));
    Some(status)
}

fn programmed_conditions() -> Schema {
    let mut conditions = condition_list(Some(8));
    conditions.insert("default".to_owned(), json!([pending_condition("Programmed")]));
    conditions
}

/// Status of a hosted control plane.
fn konnect() -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "controlPlaneID": { "type": "string" },
            "id": { "type": "string" },
            "organizationID": { "type": "string" },
            "serverURL": { "type": "string" },
        },
    })
}

/// A status with conditions for each controller.
fn status_by_controller() -> Schema {
    let mut controllers = json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["controllerName"],
            "properties": {
                "controllerName": { "type": "string" },
                "controllerRef": controller_ref(),
                "conditions": programmed_conditions(),
            },
        },
    });
    keyed_by(["controllerName"])(&mut controllers);
    json_schema!({ "type": "object", "properties": { "controllers": controllers } })
}

/// Reference to the object that represents a controller.
fn controller_ref() -> Schema {
    let mut reference = schema_of::<ObjectReference>();
    reference.insert("required".to_owned(), json!(["name"]));
    reference
}

fn load_balancer() -> Schema {
    json_schema!({
        "type": "object",
        "properties": { "ingress": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "hostname": { "type": "string" },
                    "ip": { "type": "string" },
                    "ipMode": { "type": "string" },
                    "ports": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["error", "port", "protocol"],
                            "properties": {
                                "error": { "type": "string" },
                                "port": { "type": "integer", "format": "int32" },
                                "protocol": { "type": "string" },
                            },
                        },
                    },
                },
            },
        } },
    })
}
