//! Types for Portico's own resources.
//!
//! `kubectl explain` shows the comments on types and fields.

mod gateway_parameters;

use serde_json::Value;

pub use gateway_parameters::{
    GatewayParameters, GatewayParametersSpec, GatewayServiceSettings, ListenerNodePort, TRAFFIC_POLICIES,
};

use super::crd::{self, CrdAttributes, age_column, object_schema, text_column};
use super::kind::Kind;

/// The CustomResourceDefinition of a kind. `None` if the kind is not Portico's own.
pub(super) fn definition(kind: Kind) -> Option<Value> {
    crd::definition(kind, derived_schema(kind)?, attributes(kind))
}

/// The schema of a kind, as the derive macro returns it. `None` if the kind is not Portico's own.
pub(super) fn derived_schema(kind: Kind) -> Option<Value> {
    match kind {
        Kind::GatewayParameters => Some(object_schema::<GatewayParameters>()),
        _ => None,
    }
}

fn attributes(kind: Kind) -> CrdAttributes {
    let of_portico = || CrdAttributes { categories: &["portico"], ..CrdAttributes::default() };
    match kind {
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
