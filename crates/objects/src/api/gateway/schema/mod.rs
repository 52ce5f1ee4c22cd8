//! Structural schemas of the kinds of the Gateway API, generated from the types in the parent folder.
//!
//! ```text
//!   form.rs             formats of strings and numbers           ┐
//!   transforms.rs       lists, fields, differences of channels   │ attributes on the types
//!   rule.rs             rules in CEL                             │
//!   union.rs            discriminated unions                     ┘
//!   channel_mark.rs     marks that these attributes set and to_structural.rs interprets
//!   to_structural.rs    converts the derived schema to a structural schema of one channel
//!   status.rs           schemas of status, which has no Rust type
//!   older_versions.rs   differences of versions before v1
//! ```
//!
//! The result is a structural schema as in a CustomResourceDefinition, with Portico's own rules and messages.
//! `tests/gateway_crds.rs` compares its fields, and the effect of its rules, with the CRDs of the Gateway API release.

mod channel_mark;
pub(in crate::api) mod form;
mod older_versions;
pub(in crate::api) mod rule;
pub(in crate::api) mod status;
pub(in crate::api) mod to_structural;
pub(in crate::api) mod transforms;
pub(in crate::api) mod union;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{
    BackendTlsPolicySpec, Channel, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, ListenerSetSpec,
    ReferenceGrantSpec, StreamRouteSpec, TlsRouteSpec, XBackendSpec, XBackendTrafficPolicySpec, XMeshSpec,
    XTelemetryPolicySpec,
};
use crate::api::kind::{Kind, KindFamily};

/// Schema of the preferred version of a kind. `None` if the channel lacks the kind, or if the kind is not one of the
/// Gateway API.
pub fn structural(kind: Kind, channel: Channel) -> Option<Value> {
    structural_of_version(kind, kind.versions().first()?, channel)
}

/// Schema of one version of a kind. `None` if the channel does not serve it.
pub fn structural_of_version(kind: Kind, version: &str, channel: Channel) -> Option<Value> {
    if !served_versions(kind, channel).contains(&version) {
        return None;
    }
    let mut schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec_schema(kind)?.to_value(),
        },
    });
    if let Some(status) = status::status_schema(kind) {
        schema["properties"]["status"] = status;
    }
    older_versions::adapt(kind, version, &mut schema);
    to_structural::to_structural(&mut schema, channel);
    Some(schema)
}

/// Versions of a kind that a channel serves, preferred first. Empty if the channel lacks the kind.
pub fn served_versions(kind: Kind, channel: Channel) -> &'static [&'static str] {
    match (kind, channel) {
        _ if kind.family() != KindFamily::GatewayApi => &[],
        (Kind::XBackend | Kind::XBackendTrafficPolicy | Kind::XMesh | Kind::XTelemetryPolicy, Channel::Standard) => &[],
        // Alpha versions of kinds that reached v1 remain in the experimental channel only.
        (Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute | Kind::BackendTlsPolicy, Channel::Standard) => &["v1"],
        _ => kind.versions(),
    }
}

fn spec_schema(kind: Kind) -> Option<Schema> {
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
    fn schemas_match_served_versions_and_have_no_marks() {
        for channel in Channel::ALL {
            for kind in Kind::ALL {
                let served = served_versions(*kind, channel);
                assert_eq!(structural(*kind, channel).is_some(), !served.is_empty(), "{kind} ({})", channel.name());
                for version in kind.versions() {
                    let schema = structural_of_version(*kind, version, channel);
                    assert_eq!(schema.is_some(), served.contains(version), "{kind} {version} ({})", channel.name());
                    assert!(!schema.unwrap_or_default().to_string().contains("x-portico"), "{kind} {version}");
                }
            }
        }
    }

    #[test]
    fn shared_types_are_restricted_per_kind() {
        let filter_fields = "/properties/spec/properties/rules/items/properties/filters/items/properties";
        let backend_fields = "/properties/spec/properties/rules/items/properties/backendRefs/items/properties";
        let names_at = |kind, channel, pointer: &str| {
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
                filter_fields.to_owned(),
                "extensionRef requestHeaderModifier requestMirror responseHeaderModifier type",
            ),
            (
                Kind::GrpcRoute,
                Channel::Standard,
                format!("{backend_fields}/filters/items/properties"),
                "extensionRef requestHeaderModifier requestMirror responseHeaderModifier type",
            ),
            (
                Kind::HttpRoute,
                Channel::Standard,
                filter_fields.to_owned(),
                "cors extensionRef requestHeaderModifier requestMirror requestRedirect responseHeaderModifier type \
                 urlRewrite",
            ),
            (Kind::TcpRoute, Channel::Standard, backend_fields.to_owned(), "group kind name namespace port weight"),
            (
                Kind::ListenerSet,
                Channel::Experimental,
                "/properties/spec/properties/parentRef/properties".to_owned(),
                "group kind name namespace",
            ),
        ];
        for (kind, channel, pointer, expected) in cases {
            assert_eq!(names_at(kind, channel, &pointer), expected, "{kind} {pointer}");
        }
    }
}
