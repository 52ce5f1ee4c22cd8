//! Entities of plugins (`degraphql_routes`, costs of fields): they become elements of a list in the configurations of
//! the plugins of their service.

use serde_json::{Map, Value, json};

use super::entity_types::EntityType;
use super::fields::FileFindings;
use super::model::{Entity, EntityIndex, EntityKind};

/// The entities of a file, until the plugins have taken theirs.
#[derive(Debug, Default)]
pub(super) struct CustomEntities(Vec<CustomEntity>);

#[derive(Debug)]
struct CustomEntity {
    kind: &'static EntityType,
    path: String,
    /// `None`: of all services.
    service: Option<usize>,
    fields: Value,
    is_used: bool,
}

pub(super) fn plan(entities: Vec<(&'static EntityType, Entity<'_>)>, index: &EntityIndex) -> CustomEntities {
    let plan = |(kind, mut entity): (&'static EntityType, Entity<'_>)| {
        let path = entity.path().to_owned();
        let has_service = entity.fields.has("service");
        let service = entity.parent(EntityKind::Service, index);
        let mut fields = Map::new();
        for name in kind.fields {
            if let Some(value) = entity.fields.value(name) {
                fields.insert((*name).to_owned(), value);
            }
        }
        entity.fields.finish();
        // A service that does not exist rejects the file.
        let is_used = has_service && service.is_none();
        CustomEntity { kind, path, service, fields: Value::Object(fields), is_used }
    };
    CustomEntities(entities.into_iter().map(plan).collect())
}

impl CustomEntities {
    /// Adds the entities of a plugin to its configuration. `service`: what the plugin is attached to, or the service of
    /// its route; `None` if it runs for all services.
    pub(super) fn add_to(&mut self, config: &mut Map<String, Value>, plugin: &str, service: Option<usize>) {
        for entity in self.0.iter_mut().filter(|entity| entity.kind.plugin == plugin) {
            if entity.service.is_some() && entity.service != service {
                continue;
            }
            entity.is_used = true;
            // A value of another type is an error of the plugin.
            if let Value::Array(elements) = config.entry(entity.kind.list).or_insert_with(|| json!([])) {
                elements.push(entity.fields.clone());
            }
        }
    }

    /// Rejects the file if an entity has no plugin: its requests would be served as if it did not exist.
    pub(super) fn reject_unused(&self, findings: &FileFindings) {
        for entity in self.0.iter().filter(|entity| !entity.is_used) {
            let message = format!("no plugin {} is attached to the service or to a route of it", entity.kind.plugin);
            findings.reject(&entity.path, message, "add the plugin to the service, or remove the entity");
        }
    }
}
