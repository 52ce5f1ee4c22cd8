//! The fields that the specs of all kinds of route share: `CommonRouteSpec` of the Gateway API.

/// Declares a spec with the common fields before `$fields`. With `serde(flatten)` instead, parse errors would lack the
/// path of the field.
macro_rules! route_spec {
    ($(#[$attribute:meta])* $name:ident { $($fields:tt)* }) => {
        #[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        $(#[$attribute])*
        pub struct $name {
            #[serde(default)]
            #[schemars(length(max = 32), transform = $crate::api::gateway::reference::parents_differ)]
            pub parent_refs: Vec<$crate::api::gateway::ParentReference>,
            #[schemars(
                transform = $crate::api::gateway::schema::transforms::experimental,
                transform = $crate::api::gateway::schema::form::one_of(["All", "None"]),
            )]
            pub use_default_gateways: Option<String>,
            $($fields)*
        }
    };
}
pub(super) use route_spec;
