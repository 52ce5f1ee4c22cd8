//! KongCustomEntities: their fields become elements of a list in the configuration of the KongPlugin that `parentRef`
//! names, for everything that it is attached to (docs/kong-compatibility.md, 1.11).
//!
//! An entity with errors is left out and reports them, so that it breaks neither the plugin nor other entities. Only if
//! a value of a vault is missing, which may be available again soon, a guard rejects requests instead.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::hidden_values::{self, Origin, Placeholder};
use super::vault_values::VaultResolver;
use crate::api::kind::KONG_GROUP;
use crate::api::kong::KongCustomEntity;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::missing_object::missing_object;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::EntityList;
use crate::plugin_api::vault::VaultQuery;
use crate::plugin_api::{AnyPluginKind, PluginRegistry};
use crate::plugin_chain::factory::BuiltPlugin;
use crate::store::{Changes, Store};
use crate::verdict::{Code, Condition, Verdict};

/// The plugins that entities name.
#[derive(Debug, Default)]
pub(super) struct EntityParents {
    /// As of the last update, because a deleted entity no longer has its reference.
    parents: BTreeMap<ObjectId, ObjectId>,
}

impl EntityParents {
    /// The changes, with the plugins that affected entities name or named.
    pub(super) fn with_parents<'c>(&mut self, store: &Store, changes: &'c Changes) -> Cow<'c, Changes> {
        if self.parents.is_empty() && store.kong_custom_entities.is_empty() {
            return Cow::Borrowed(changes);
        }
        let is_entity = |id: &&ObjectId| id.kind == Kind::KongCustomEntity;
        let affected = store.dependency_index().affected_by(changes);
        let entities: Vec<ObjectId> = changes.iter().chain(&affected).filter(is_entity).cloned().collect();
        let mut extended = Cow::Borrowed(changes);
        for entity in entities {
            let now = store.kong_custom_entities.get(&entity.key).and_then(|object| parent(object));
            let before = self.parents.remove(&entity);
            for plugin in now.iter().chain(&before).filter(|plugin| !changes.contains(*plugin)) {
                extended.to_mut().insert(plugin.clone());
            }
            if let Some(plugin) = now {
                self.parents.insert(entity, plugin);
            }
        }
        extended
    }
}

/// The plugin that an entity names.
fn parent(entity: &Object<KongCustomEntity>) -> Option<ObjectId> {
    let reference = entity.spec.parent_ref.as_ref()?;
    let is_plugin = reference.group.as_deref().is_none_or(|group| group == KONG_GROUP)
        && reference.kind.as_deref().is_none_or(|kind| kind == Kind::KongPlugin.name());
    let namespace = reference.namespace.as_deref().unwrap_or(&entity.meta.key.namespace);
    is_plugin.then(|| ObjectId::new(Kind::KongPlugin, ObjectKey::new(namespace, &reference.name)))
}

/// What became of the entities of a plugin: their errors, or none for one that is in effect.
pub(super) type EntityProblems = BTreeMap<ObjectKey, Vec<Diagnostic>>;

/// A configuration with entities, and what was built of it.
pub(super) struct BuiltWithEntities {
    pub(super) built: Result<BuiltPlugin, Vec<Diagnostic>>,
    /// The configuration with the entities that are in effect.
    pub(super) config: Value,
    pub(super) problems: EntityProblems,
}

/// The entities of a plugin, without references to vaults.
#[derive(Default)]
pub(super) struct ResolvedEntities<'s> {
    /// Those that may be in effect.
    pub(super) usable: Vec<UsableEntity<'s>>,
    /// The errors of the others.
    pub(super) problems: EntityProblems,
    /// The first entity of which a reference has no value.
    pub(super) unresolved: Option<&'s ObjectKey>,
    /// Whether some value is not known to this process, which will not serve requests.
    pub(super) is_unknown: bool,
    pub(super) has_references: bool,
    /// What must be read from servers, whether they have responded or not.
    pub(super) queries: Vec<Arc<VaultQuery>>,
}

/// An entity that may be in effect.
pub(super) struct UsableEntity<'s> {
    pub(super) key: &'s ObjectKey,
    /// As they are in the object.
    own_fields: &'s Map<String, Value>,
    /// With the values of vaults.
    fields: Map<String, Value>,
    /// Where the object has references to vaults.
    origins: Vec<Origin>,
}

/// Resolves the references of entities.
pub(super) fn resolve<'s>(
    entities: &[&'s Object<KongCustomEntity>],
    resolver: &mut VaultResolver<'_>,
) -> ResolvedEntities<'s> {
    let mut all = ResolvedEntities::default();
    for (index, entity) in entities.iter().enumerate() {
        let key = &entity.meta.key;
        if index >= MAX_ENTITIES {
            let message = format!("{MAX_ENTITIES} older entities have this parent");
            let problem = Diagnostic::error("spec.parentRef", message, "use several plugins");
            all.problems.insert(key.clone(), vec![problem]);
            continue;
        }
        let mut fields = Value::Object(entity.spec.fields.clone());
        let resolved = resolver.resolve(&mut fields, "spec.fields");
        all.has_references |= resolved.has_references;
        all.is_unknown |= resolved.is_unknown;
        all.queries.extend(resolved.queries);
        match (resolved.problem, fields) {
            (Some(problem), _) => {
                all.unresolved.get_or_insert(key);
                all.problems.insert(key.clone(), vec![problem]);
            }
            (None, Value::Object(fields)) => {
                let (own_fields, origins) = (&entity.spec.fields, resolved.origins);
                all.usable.push(UsableEntity { key, own_fields, fields, origins });
            }
            // A whole object is no reference.
            (None, _) => {}
        }
    }
    all
}

/// The problem of a guard of which an entity refers to a vault that has no value.
pub(super) fn unresolved_of_guard(entity: &ObjectKey) -> Diagnostic {
    let message =
        format!("KongCustomEntity {entity} refers to a value that a vault does not have, and may restrict requests");
    Diagnostic::of_object(message, "fix the error reported for the entity")
}

/// Builds a plugin whose entities are elements of its configuration. `origins`: where the configuration has values of
/// Secrets and vaults; `own_configuration`: the one with placeholders in place of those of Secrets.
pub(super) fn build(
    cx: CompileContext<'_>,
    kind: &dyn AnyPluginKind,
    object: &str,
    config: Value,
    entities: ResolvedEntities<'_>,
    origins: &[Origin],
    own_configuration: &dyn Fn(Placeholder<'_>) -> Option<Value>,
) -> BuiltWithEntities {
    let ResolvedEntities { usable: mut remaining, mut problems, .. } = entities;
    let factory = &cx.inputs.plugin_factory;
    for _ in 0..MAX_ROUNDS {
        let fields = remaining.iter().map(|entity| &entity.fields);
        let (extended, own_count) = extend(kind, config.clone(), fields);
        let without_values = |placeholder: Placeholder<'_>| {
            let own_fields = remaining.iter().map(|entity| entity.own_fields);
            let (mut extended, _) = extend(kind, own_configuration(placeholder)?, own_fields);
            placeholder.fill_vaults(&mut extended);
            Some(extended)
        };
        // Those of entities first: that of the plugin may be the whole configuration.
        let mut all_origins = origins_of_entities(kind, &remaining, own_count);
        all_origins.extend_from_slice(origins);
        let built = hidden_values::build(factory, kind, object, &extended, &all_origins, &without_values);
        let errors = match built {
            Ok(built) => {
                problems.extend(remaining.iter().map(|entity| (entity.key.clone(), Vec::new())));
                return BuiltWithEntities { built: Ok(built), config: extended, problems };
            }
            Err(errors) => errors,
        };
        let mut of_plugin = Vec::new();
        let mut of_entities: BTreeMap<usize, Vec<Diagnostic>> = BTreeMap::new();
        for error in errors {
            let found = kind.entities().and_then(|list| element(list, &error.field)).and_then(|(index, rest)| {
                let index = index.checked_sub(own_count).filter(|index| *index < remaining.len())?;
                Some((index, format!("spec.fields{rest}")))
            });
            match found {
                Some((index, field)) => of_entities.entry(index).or_default().push(Diagnostic { field, ..error }),
                None => of_plugin.push(error),
            }
        }
        if of_entities.is_empty() {
            problems.extend(remaining.iter().map(|entity| (entity.key.clone(), vec![unusable_parent()])));
            return BuiltWithEntities { built: Err(of_plugin), config, problems };
        }
        // From the last one, so that the earlier indices stay.
        for (index, errors) in of_entities.into_iter().rev() {
            problems.insert(remaining.remove(index).key.clone(), errors);
        }
    }
    let message = "too many KongCustomEntities of this plugin have errors";
    let problem = Diagnostic::of_object(message, "fix the errors reported for them");
    problems.extend(remaining.iter().map(|entity| (entity.key.clone(), vec![unusable_parent()])));
    BuiltWithEntities { built: Err(vec![problem]), config, problems }
}

/// Where the fields of entities have values of vaults: each such entity counts as one as a whole.
fn origins_of_entities(kind: &dyn AnyPluginKind, entities: &[UsableEntity<'_>], own_count: usize) -> Vec<Origin> {
    let Some(list) = kind.entities() else { return Vec::new() };
    let with_references = entities.iter().enumerate().filter(|(_, entity)| !entity.origins.is_empty());
    let origin = |(index, entity): (usize, &UsableEntity<'_>)| {
        let path = format!("config.{}[{}]", list.field, own_count + index);
        let mut origin = Origin::of_vault(&path, &format!("the references of KongCustomEntity {}", entity.key));
        origin.add_texts_of(&entity.origins);
        origin
    };
    with_references.map(origin).collect()
}

/// Adds the fields of entities to the configuration. Returns how many elements are its own.
fn extend<'f>(
    kind: &dyn AnyPluginKind,
    mut config: Value,
    entities: impl ExactSizeIterator<Item = &'f Map<String, Value>>,
) -> (Value, usize) {
    let (Some(list), Value::Object(fields)) = (kind.entities(), &mut config) else { return (config, 0) };
    if entities.len() == 0 {
        return (config, 0);
    }
    let elements = fields.entry(list.field).or_insert(Value::Null);
    if elements.is_null() {
        *elements = Value::Array(Vec::new());
    }
    let Value::Array(elements) = elements else { return (config, 0) };
    let own_count = elements.len();
    elements.extend(entities.map(|fields| Value::Object(fields.clone())));
    (config, own_count)
}

/// The index of the element that a path such as `config.routes[3].uri` leads to, and the rest of the path.
fn element<'f>(list: &EntityList, field: &'f str) -> Option<(usize, &'f str)> {
    let rest = field.strip_prefix("config.")?.strip_prefix(list.field)?.strip_prefix('[')?;
    let (index, rest) = rest.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

fn unusable_parent() -> Diagnostic {
    let message = "the plugin cannot be used, so the entity has no effect";
    Diagnostic::error("spec.parentRef", message, "fix the error reported for the plugin")
}

/// The entities of a plugin that are valid so far: the oldest first, then by name.
pub(super) fn of_plugin<'s>(
    cx: CompileContext<'s>,
    plugin: &ObjectId,
    kind: &dyn AnyPluginKind,
) -> Vec<&'s Object<KongCustomEntity>> {
    if kind.entities().is_none() || cx.store.kong_custom_entities.is_empty() {
        return Vec::new();
    }
    let dependents = cx.store.dependency_index().dependents_of_kind(plugin, Kind::KongCustomEntity);
    let objects = dependents.filter_map(|id| cx.store.kong_custom_entities.get(&id.key));
    let is_usable = |entity: &&Object<KongCustomEntity>| {
        let key = &entity.meta.key;
        let is_oversized =
            cx.inputs.budgets.size_problem(cx.store, Kind::KongCustomEntity, key).is_some_and(|size| size.is_error());
        is_served(cx, entity)
            && !is_oversized
            && parent(entity).as_ref() == Some(plugin)
            && problem(cx, entity, Some(kind)).is_none()
    };
    let mut entities: Vec<_> = objects.map(|entity| &**entity).filter(is_usable).collect();
    entities.sort_by_key(|entity| (entity.meta.created, entity.meta.key.clone()));
    entities
}

/// The hash of the configuration of a plugin with these entities, equal in all processes.
pub(super) fn configuration_hash(of_plugin: u64, entities: &[&Object<KongCustomEntity>]) -> u64 {
    if entities.is_empty() {
        return of_plugin;
    }
    // `DefaultHasher` has no random seed.
    let mut hasher = DefaultHasher::new();
    of_plugin.hash(&mut hasher);
    for entity in entities {
        let mut fields = Value::Object(entity.spec.fields.clone());
        fields.sort_all_objects();
        (&*entity.meta.key.namespace, &*entity.meta.key.name, fields.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}

fn is_served(cx: CompileContext<'_>, entity: &Object<KongCustomEntity>) -> bool {
    cx.inputs.classes.name == entity.spec.controller_name
}

/// Why an entity cannot belong to a plugin, whatever its fields. `kind`: that of its parent, if it has one.
fn problem(
    cx: CompileContext<'_>,
    entity: &Object<KongCustomEntity>,
    kind: Option<&dyn AnyPluginKind>,
) -> Option<Diagnostic> {
    let registry = &cx.inputs.plugin_factory.registry;
    let of_type =
        |kind: &&dyn AnyPluginKind| kind.entities().is_some_and(|list| list.types.contains(&entity.spec.kind.as_str()));
    if !registry.iter().any(|kind| of_type(&kind)) {
        let message = format!("entities of type {} are not served by this version", entity.spec.kind);
        let remedy = format!("use one of {}, or remove the object", known_types(registry));
        return Some(Diagnostic::error("spec.type", message, remedy));
    }
    let Some(reference) = &entity.spec.parent_ref else {
        let message = "is missing, so no plugin uses the entity";
        return Some(Diagnostic::error("spec.parentRef", message, "write the name of the KongPlugin"));
    };
    let Some(plugin) = parent(entity) else {
        let message =
            "only a KongPlugin can be the parent: entities of all namespaces would change a KongClusterPlugin";
        let remedy = "write the fields into the configuration of the KongClusterPlugin, or use a KongPlugin";
        return Some(Diagnostic::error("spec.parentRef.kind", message, remedy));
    };
    let from = Referrer { kind: Kind::KongCustomEntity, namespace: &entity.meta.key.namespace };
    let crossing = CrossNamespaceReference { from, to: Kind::KongPlugin, target: &plugin.key };
    if !crossing.is_allowed(cx.store) {
        return Some(crossing.problem(cx.store, "spec.parentRef.namespace".to_owned()));
    }
    let Some(settings) = cx.store.kong_plugins.get(&plugin.key) else {
        return Some(missing_object(cx.store, "spec.parentRef.name".to_owned(), Kind::KongPlugin, &plugin.key));
    };
    if !kind.is_some_and(|kind| of_type(&kind)) {
        let message =
            format!("KongPlugin {} configures {}, which has no such entities", reference.name, settings.plugin);
        let remedy = "correct the name of the plugin, or the type of the entity";
        return Some(Diagnostic::error("spec.parentRef.name", message, remedy));
    }
    None
}

fn known_types(registry: &PluginRegistry) -> String {
    let types = registry.iter().filter_map(AnyPluginKind::entities).flat_map(|list| list.types);
    types.copied().collect::<Vec<_>>().join(", ")
}

/// The verdict on an entity. `None` if it does not exist. `of_parent`: what the plugin that it names has found.
pub(super) fn verdict(
    cx: CompileContext<'_>,
    key: &ObjectKey,
    of_parent: impl Fn(&ObjectId) -> Option<Vec<Diagnostic>>,
) -> Option<Verdict> {
    let entity = cx.store.kong_custom_entities.get(key)?;
    let mut verdict = Verdict { generation: entity.meta.generation, ..Verdict::default() };
    if !is_served(cx, entity) {
        return Some(verdict);
    }
    let plugin = parent(entity);
    let settings = plugin.as_ref().and_then(|plugin| cx.store.kong_plugins.get(&plugin.key));
    let kind = settings.and_then(|settings| cx.inputs.plugin_factory.registry.find(&settings.plugin));
    let problems = match problem(cx, entity, kind) {
        Some(problem) => vec![problem],
        None => plugin.as_ref().and_then(of_parent).unwrap_or_else(|| vec![unusable_parent()]),
    };
    verdict.conditions.push(match problems.is_empty() {
        true => Condition::without_diagnostics(Code::ObjectProgrammed),
        false => Condition::new(Code::ObjectInvalid, problems),
    });
    Some(verdict)
}

/// The most entities of one plugin.
const MAX_ENTITIES: usize = 1000;
/// How often a plugin is built without the entities whose errors the last attempt has found.
const MAX_ROUNDS: usize = 16;
