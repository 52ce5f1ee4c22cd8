//! What the specs of all kinds of route begin with: `CommonRouteSpec` of the Gateway API.

/// Declares a spec with the common fields before its own. `serde(flatten)` would lose the paths in parse errors.
macro_rules! route_spec {
    ($(#[$attribute:meta])* $name:ident { $($own:tt)* }) => {
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
            $($own)*
        }
    };
}
pub(super) use route_spec;
