//! A rule to which plugins may be attached.

use std::sync::Arc;

use super::chosen_backends::ChoiceSettings;
use super::route_description::RouteFacts;
use crate::api::{Kind, Meta, ObjectKey};
use crate::plugin_api::RouteNames;

/// A rule to which plugins may be attached.
pub(in crate::compile) struct PluginSite<'a> {
    pub kind: Kind,
    /// The metadata of the route, with its annotations.
    pub meta: &'a Meta,
    /// Existing KongPlugins that filters refer to, each with its field.
    pub extensions: &'a [(ObjectKey, String)],
    /// The Services or facades that requests are sent to, by kind and metadata.
    pub backends: &'a [(Kind, &'a Meta)],
    /// The Services that get copies of the requests, each with the field of the reference.
    pub mirrors: &'a [(String, &'a Meta)],
    pub names: Arc<RouteNames>,
    /// Collects the facts that log plugins write.
    pub facts: &'a dyn Fn() -> RouteFacts<'a>,
    /// The scope of counters, such as `HTTPRoute/default/shop/0`.
    pub counter_scope: Arc<str>,
    /// How requests are sent to Services that plugins choose.
    pub choice: ChoiceSettings,
}
