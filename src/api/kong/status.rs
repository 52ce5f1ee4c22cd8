//! The status of each kind. We write it and never read it back as a type.

use schemars::{Schema, json_schema};
use serde_json::json;

use crate::api::gateway::ObjectReference;
use crate::api::gateway::schema::schema_of;
use crate::api::gateway::schema::shape::keyed_by;
use crate::api::gateway::schema::status::{by_controller, condition_list, pending};
use crate::api::kind::Kind;

/// The schema of `status`. None for a kind that has none.
pub(super) fn of(kind: Kind) -> Option<Schema> {
    let mut status = match kind {
        Kind::KongConsumer | Kind::KongConsumerGroup => {
            let mut status = json_schema!({
                "type": "object",
                "properties": { "conditions": condition_list(Some(8)), "konnect": konnect() },
            });
            status.insert("default".to_owned(), json!({ "conditions": [pending("Programmed")] }));
            status
        }
        Kind::KongVault => {
            json_schema!({
                "type": "object",
                "properties": { "conditions": programmed(), "konnect": konnect() },
            })
        }
        Kind::KongPlugin | Kind::KongClusterPlugin | Kind::KongCustomEntity | Kind::KongServiceFacade => {
            json_schema!({ "type": "object", "properties": { "conditions": programmed() } })
        }
        // Kong's have no conditions. Ours say what of the object has no effect.
        Kind::KongIngress => {
            json_schema!({ "type": "object", "properties": { "conditions": condition_list(Some(8)) } })
        }
        Kind::TcpIngress | Kind::UdpIngress => json_schema!({
            "type": "object",
            "properties": { "conditions": condition_list(Some(8)), "loadBalancer": load_balancer() },
        }),
        Kind::KongUpstreamPolicy => by_controller("ancestors", "ancestorRef", 16, true),
        Kind::KongLicense => controllers(),
        _ => return None,
    };
    status.insert("description".to_owned(), json!("What became of the object. Portico writes it."));
    Some(status)
}

fn programmed() -> Schema {
    let mut conditions = condition_list(Some(8));
    conditions.insert("default".to_owned(), json!([pending("Programmed")]));
    conditions
}

/// What a hosted control plane would say.
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

/// Conditions by the controller that wrote them.
fn controllers() -> Schema {
    let mut controllers = json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["controllerName"],
            "properties": {
                "controllerName": { "type": "string" },
                "controllerRef": controller_ref(),
                "conditions": programmed(),
            },
        },
    });
    keyed_by(["controllerName"])(&mut controllers);
    json_schema!({ "type": "object", "properties": { "controllers": controllers } })
}

/// The object that stands for a controller.
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
