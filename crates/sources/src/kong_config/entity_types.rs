//! The types of entities that plugins define, and the lists in configurations of plugins that they become.

/// A type of entities, and what its entities become.
#[derive(Debug)]
pub(super) struct EntityType {
    /// Its name as a collection, and as `type` in `custom_entities`.
    pub(super) name: &'static str,
    pub(super) plugin: &'static str,
    /// The list in the configuration of the plugin.
    pub(super) list: &'static str,
    pub(super) fields: &'static [&'static str],
}

const COST_FIELDS: &[&str] = &["type_path", "add_arguments", "add_constant", "mul_arguments", "mul_constant"];

pub(super) const ENTITY_TYPES: [EntityType; 4] = [
    EntityType { name: "degraphql_routes", plugin: "degraphql", list: "routes", fields: &["uri", "query", "methods"] },
    EntityType {
        name: "graphql_ratelimiting_advanced_cost_decoration",
        plugin: "graphql-rate-limiting-advanced",
        list: "costs",
        fields: COST_FIELDS,
    },
    EntityType {
        name: "graphql_ratelimiting_cost_decoration",
        plugin: "graphql-rate-limiting-advanced",
        list: "costs",
        fields: COST_FIELDS,
    },
    EntityType {
        name: "graphql_ratelimiting_cost_decorations",
        plugin: "graphql-rate-limiting-advanced",
        list: "costs",
        fields: COST_FIELDS,
    },
];
