//! Types for Portico's own resources.
//!
//! `kubectl explain` shows the comments on types and fields.

mod backend_policy;
mod gateway_parameters;

use serde_json::{Value, json};

pub use backend_policy::*;
pub use gateway_parameters::{
    GatewayAccessLogSettings, GatewayParameters, GatewayParametersSpec, GatewayServiceSettings, GatewayTracingSettings,
    ListenerNodePort, TRAFFIC_POLICIES,
};

use super::crd::{self, CrdAttributes, age_column, object_schema, text_column, wide_column};
use super::gateway::schema::status::status_per_controller;
use super::gateway::schema::transforms::Presence;
use super::kind::Kind;

/// The CustomResourceDefinition of a kind. `None` if the kind is not Portico's own.
pub(super) fn definition(kind: Kind) -> Option<Value> {
    crd::definition(kind, derived_schema(kind)?, attributes(kind))
}

/// The schema of a kind, as the derive macro returns it. `None` if the kind is not Portico's own.
pub(super) fn derived_schema(kind: Kind) -> Option<Value> {
    match kind {
        Kind::BackendPolicy => {
            let mut schema = object_schema::<BackendPolicy>();
            let mut status = status_per_controller("ancestors", "ancestorRef", 16, Presence::Required);
            status.insert("description".to_owned(), json!("Status of the object, written by Portico."));
            let mut status = status.to_value();
            status["properties"]["ancestors"]["items"]["properties"]["ancestorRef"]["description"] = json!(ANCESTOR);
            schema["properties"]["status"] = status;
            Some(schema)
        }
        Kind::GatewayParameters => Some(object_schema::<GatewayParameters>()),
        _ => None,
    }
}

fn attributes(kind: Kind) -> CrdAttributes {
    let of_portico = || CrdAttributes { categories: &["portico"], ..CrdAttributes::default() };
    match kind {
        Kind::BackendPolicy => CrdAttributes {
            short_name: Some("bkp"),
            // Tools find policies and their attachment by this label (GEP-713).
            labels: &[("gateway.networking.k8s.io/policy", "Direct")],
            columns: vec![
                text_column("Targets", ".spec.targetRefs[*].name", "What the policy applies to"),
                text_column("Algorithm", ".spec.loadBalancing.algorithm", "Algorithm of the load balancing"),
                text_column("Mode", ".spec.mode", "Whether ejections, limits and circuit breaking are in effect"),
                text_column("Accepted", ACCEPTED_PATH, "Whether the policy is valid"),
                age_column(),
                wide_column(text_column("Programmed", PROGRAMMED_PATH, "Whether the policy is in effect")),
            ],
            ..of_portico()
        },
        Kind::GatewayParameters => CrdAttributes {
            short_name: Some("gwparams"),
            columns: vec![
                text_column("Type", ".spec.service.type", "Type of the Services"),
                text_column(
                    "External-Policy",
                    ".spec.service.externalTrafficPolicy",
                    "Nodes that forward requests of clients outside of the cluster",
                ),
                text_column("Class", ".spec.service.loadBalancerClass", "Class of the load balancer"),
                age_column(),
            ],
            ..of_portico()
        },
        _ => of_portico(),
    }
}

/// The schema is that of the reference of a route to its parent.
const ANCESTOR: &str = "The Gateway through whose routes requests reach a target of the policy, or a target that an \
                        Ingress or nothing uses.";
const ACCEPTED_PATH: &str = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status";
const PROGRAMMED_PATH: &str = ".status.ancestors[*].conditions[?(@.type==\"Programmed\")].status";
