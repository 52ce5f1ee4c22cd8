//! What the API server would ask of each kind, generated from the types beside this folder.
//!
//! ```text
//!   form.rs     the forms of strings and numbers        ┐
//!   shape.rs    lists, fields, what one channel lacks   │ attributes on the types
//!   rule.rs     rules in CEL                            │
//!   union.rs    one field that decides about others     ┘
//!   settle.rs   from what derive wrote to a structural schema of one channel
//!   status.rs   the status of every kind, which has no Rust type
//!   older.rs    what versions before v1 say differently
//! ```
//!
//! The result is a structural schema as a CustomResourceDefinition has it, with rules and messages in our own words.
//! `tests/gateway_crds.rs` compares it with the release, field by field.

mod channel_mark;
pub(in crate::api) mod form;
mod older;
pub(in crate::api) mod rule;
pub(in crate::api) mod settle;
pub(in crate::api) mod shape;
pub(in crate::api) mod status;
pub(in crate::api) mod union;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{
    BackendTlsPolicySpec, Channel, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, ListenerSetSpec,
    ReferenceGrantSpec, StreamRouteSpec, TlsRouteSpec, XBackendSpec, XBackendTrafficPolicySpec, XMeshSpec,
    XTelemetryPolicySpec,
};
use crate::api::kind::{GATEWAY_GROUP, GATEWAY_X_GROUP, Kind};

/// The schema of a kind in the version we prefer. None where the channel has no such kind, or it is not Gateway API's.
pub fn structural(kind: Kind, channel: Channel) -> Option<Value> {
    structural_of(kind, kind.versions().first()?, channel)
}

/// The schema of one version of a kind. None where the channel does not serve it.
pub fn structural_of(kind: Kind, version: &str, channel: Channel) -> Option<Value> {
    if !served(kind, channel).contains(&version) {
        return None;
    }
    let spec = spec(kind)?.to_value();
    let mut whole = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
        },
    });
    if let Some(status) = status::of(kind) {
        whole["properties"]["status"] = status;
    }
    older::adapt(kind, version, &mut whole);
    settle::settle(&mut whole, channel);
    Some(whole)
}

/// The versions of a kind that a channel serves, the preferred one first. None at all: the channel lacks the kind.
pub fn served(kind: Kind, channel: Channel) -> &'static [&'static str] {
    let all = kind.versions();
    match (kind, channel) {
        _ if ![GATEWAY_GROUP, GATEWAY_X_GROUP].contains(&kind.group()) => &[],
        (Kind::XBackend | Kind::XBackendTrafficPolicy | Kind::XMesh | Kind::XTelemetryPolicy, Channel::Standard) => &[],
        // The alpha versions of what has become v1 live on in the experimental channel only.
        (Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute | Kind::BackendTlsPolicy, Channel::Standard) => &["v1"],
        _ => all,
    }
}

fn spec(kind: Kind) -> Option<Schema> {
    Some(match kind {
        Kind::GatewayClass => schema_of::<GatewayClassSpec>(),
        Kind::Gateway => schema_of::<GatewaySpec>(),
        Kind::ListenerSet => schema_of::<ListenerSetSpec>(),
        Kind::HttpRoute => schema_of::<HttpRouteSpec>(),
        Kind::GrpcRoute => schema_of::<GrpcRouteSpec>(),
        Kind::TlsRoute => schema_of::<TlsRouteSpec>(),
        Kind::TcpRoute | Kind::UdpRoute => schema_of::<StreamRouteSpec>(),
        Kind::BackendTlsPolicy => schema_of::<BackendTlsPolicySpec>(),
        Kind::ReferenceGrant => schema_of::<ReferenceGrantSpec>(),
        Kind::XBackend => schema_of::<XBackendSpec>(),
        Kind::XBackendTrafficPolicy => schema_of::<XBackendTrafficPolicySpec>(),
        Kind::XMesh => schema_of::<XMeshSpec>(),
        Kind::XTelemetryPolicy => schema_of::<XTelemetryPolicySpec>(),
        _ => return None,
    })
}

pub(in crate::api) fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    settings.into_generator().into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_schemas_of_what_it_serves_without_marks_of_ours() {
        for channel in Channel::ALL {
            for kind in Kind::ALL {
                let served = served(*kind, channel);
                assert_eq!(structural(*kind, channel).is_some(), !served.is_empty(), "{kind} ({})", channel.name());
                for version in kind.versions() {
                    let schema = structural_of(*kind, version, channel);
                    assert_eq!(schema.is_some(), served.contains(version), "{kind} {version} ({})", channel.name());
                    assert!(!schema.unwrap_or_default().to_string().contains("x-portico"), "{kind} {version}");
                }
            }
        }
    }

    #[test]
    fn kinds_that_share_a_type_have_no_more_of_it_than_is_theirs() {
        let filter = "/properties/spec/properties/rules/items/properties/filters/items/properties";
        let backend = "/properties/spec/properties/rules/items/properties/backendRefs/items/properties";
        let names = |kind, channel, pointer: &str| {
            let schema = structural(kind, channel).unwrap();
            let mut names: Vec<String> =
                schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect();
            names.sort();
            names.join(" ")
        };
        let cases = [
            (
                Kind::GrpcRoute,
                Channel::Experimental,
                filter.to_owned(),
                "extensionRef requestHeaderModifier requestMirror responseHeaderModifier type",
            ),
            (
                Kind::GrpcRoute,
                Channel::Standard,
                format!("{backend}/filters/items/properties"),
                "extensionRef requestHeaderModifier requestMirror responseHeaderModifier type",
            ),
            (
                Kind::HttpRoute,
                Channel::Standard,
                filter.to_owned(),
                "cors extensionRef requestHeaderModifier requestMirror requestRedirect responseHeaderModifier type urlRewrite",
            ),
            (Kind::TcpRoute, Channel::Standard, backend.to_owned(), "group kind name namespace port weight"),
            (
                Kind::ListenerSet,
                Channel::Experimental,
                "/properties/spec/properties/parentRef/properties".to_owned(),
                "group kind name namespace",
            ),
        ];
        for (kind, channel, pointer, expected) in cases {
            assert_eq!(names(kind, channel, &pointer), expected, "{kind} {pointer}");
        }
    }
}
