//! Plugins: each becomes a KongPlugin that the objects of its scope refer to, or a global KongClusterPlugin.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::consumers::ConsumerPlans;
use super::custom_entities::CustomEntities;
use super::fields::{EntityFields, FileFindings};
use super::model::{Entity, EntityIndex, EntityKind};
use super::names::Names;
use super::objects::Draft;
use super::routes::ConvertedRoute;
use super::services::ServicePlan;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::GLOBAL_LABEL;

/// What plugins are attached to.
pub(super) struct PluginScopes<'a> {
    pub(super) services: &'a mut [ServicePlan],
    pub(super) routes: &'a mut [ConvertedRoute],
    pub(super) consumers: &'a mut ConsumerPlans,
    /// What plugins get in addition to their configurations.
    pub(super) entities: &'a mut CustomEntities,
    pub(super) index: &'a EntityIndex,
}

/// The positions of the entities that a plugin belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct AttachedScope {
    service: Option<usize>,
    route: Option<usize>,
    consumer: Option<usize>,
    group: Option<usize>,
}

/// A plugin, and what it belongs to.
struct ScopedPlugin<'f> {
    /// The name of the plugin, such as `key-auth`.
    kind: String,
    scope: AttachedScope,
    entity: Entity<'f>,
}

/// The scopes of all instances of each plugin, by its name.
type ScopesByKind = HashMap<String, HashSet<AttachedScope>>;

pub(super) fn plan(
    plugins: Vec<Entity<'_>>,
    shared: &Map<String, Value>,
    scopes: &mut PluginScopes<'_>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Vec<Draft> {
    let index = scopes.index;
    let plugins: Vec<_> = plugins.into_iter().filter_map(|plugin| read_scope(plugin, shared, index)).collect();
    let by_kind = check_uniqueness(&plugins);
    let plan = |plugin| plan_plugin(plugin, &by_kind, scopes, settings, names);
    plugins.into_iter().map(plan).collect()
}

/// Reads what a plugin belongs to. `None` if that, or which plugin it is, is unknown, for which the file is rejected.
fn read_scope<'f>(
    mut entity: Entity<'f>,
    shared: &Map<String, Value>,
    index: &EntityIndex,
) -> Option<ScopedPlugin<'f>> {
    add_shared_config(&mut entity, shared);
    let scope = AttachedScope {
        service: entity.owner(EntityKind::Service, index),
        route: entity.owner(EntityKind::Route, index),
        consumer: entity.owner(EntityKind::Consumer, index),
        group: entity.owner(EntityKind::Group, index),
    };
    match entity.name.clone() {
        // Its owner, which is unknown, is not that of another plugin.
        Some(_) if entity.is_orphan => None,
        Some(kind) => Some(ScopedPlugin { kind, scope, entity }),
        None => {
            entity.reject_unnamed("the plugin has no name", "write its name");
            None
        }
    }
}

/// Rejects the file if two plugins have the same name of an instance, or the same kind and scope.
fn check_uniqueness(plugins: &[ScopedPlugin<'_>]) -> ScopesByKind {
    let mut instance_names = HashSet::new();
    let mut by_kind = ScopesByKind::new();
    for ScopedPlugin { kind, scope, entity } in plugins {
        let findings = entity.fields.findings;
        let instance_name = entity.fields.peek("instance_name").and_then(Value::as_str);
        if instance_name.is_some_and(|name| !instance_names.insert(name.to_owned())) {
            let message = "another plugin has the same instance_name";
            findings.reject(entity.fields.field("instance_name"), message, "rename one of the two");
        }
        // An instance that is switched off still counts in Kong's uniqueness.
        if !by_kind.entry(kind.clone()).or_default().insert(*scope) {
            let message = format!("another plugin {kind} has the same scope");
            findings.reject(entity.path(), message, "remove one of the two, or merge them");
        }
    }
    by_kind
}

fn plan_plugin(
    plugin: ScopedPlugin<'_>,
    by_kind: &ScopesByKind,
    scopes: &mut PluginScopes<'_>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Draft {
    let ScopedPlugin { kind, scope, mut entity } = plugin;
    let findings = entity.fields.findings;
    let mut draft = new_draft(&kind, scope, entity.path(), scopes, settings, names);
    read_settings(&mut entity.fields, &mut draft);
    if let Some(config) = read_config(&mut entity.fields, &kind, scope, scopes) {
        draft.fields.insert("config".to_owned(), Value::Object(config));
    }
    entity.fields.finish();
    if runs(&draft.source, scope, by_kind.get(&kind), scopes, findings) {
        attach(&draft.name, scope, scopes);
    }
    draft
}

/// The object of a plugin: a global one belongs to nothing.
fn new_draft(
    kind: &str,
    scope: AttachedScope,
    path: &str,
    scopes: &PluginScopes<'_>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Draft {
    let owner = owner_name(scope, scopes);
    let label = if owner.is_empty() { kind.to_owned() } else { format!("{owner}-{kind}") };
    let mut draft = if scope == AttachedScope::default() {
        let name = names.name("KongClusterPlugin", &label);
        let draft = Draft::new("configuration.konghq.com/v1", "KongClusterPlugin", &name, path);
        let mut draft = draft.cluster_wide().of_class(settings);
        draft.label(GLOBAL_LABEL, "true");
        draft
    } else {
        let name = names.name("KongPlugin", &label);
        Draft::new("configuration.konghq.com/v1", "KongPlugin", &name, path)
    };
    draft.fields.insert("plugin".to_owned(), json!(kind));
    draft
}

/// Everything but the scope and the configuration.
fn read_settings(fields: &mut EntityFields<'_>, draft: &mut Draft) {
    let findings = fields.findings;
    if let Some(name) = fields.text("instance_name") {
        fields.check_name("instance_name", &name);
        draft.fields.insert("instance_name".to_owned(), json!(name));
    }
    if fields.flag("enabled") == Some(false) {
        draft.fields.insert("disabled".to_owned(), json!(true));
    }
    if let Some(protocols) = fields.texts("protocols").filter(|protocols| !protocols.is_empty()) {
        draft.fields.insert("protocols".to_owned(), json!(protocols_of(protocols)));
    }
    if let Some(ordering) = fields.object("ordering") {
        draft.fields.insert("ordering".to_owned(), Value::Object(ordering));
    }
    if fields.text("run_on").is_some_and(|run_on| run_on != "first") {
        let message = "it has no effect: there is no second proxy of a mesh that could run the plugin";
        findings.differs(fields.field("run_on"), message, "remove it");
    }
    if fields.value("condition").is_some() {
        findings.reject(fields.field("condition"), "conditions of plugins are not supported", "remove it");
    }
}

/// The configuration, with the username of the anonymous consumer and the entities of the plugin. `None` if there is
/// nothing in it.
fn read_config(
    fields: &mut EntityFields<'_>,
    kind: &str,
    scope: AttachedScope,
    scopes: &mut PluginScopes<'_>,
) -> Option<Map<String, Value>> {
    let config = fields.object("config");
    let (is_set, mut config) = (config.is_some(), config.unwrap_or_default());
    if let Some(anonymous) = config.get_mut("anonymous")
        && let Some(username) = anonymous.as_str().and_then(|key| username_of(key, scopes))
    {
        *anonymous = username;
    }
    let service = scope.service.or_else(|| scopes.routes[scope.route?].service);
    scopes.entities.add_to(&mut config, kind, service);
    (is_set || !config.is_empty()).then_some(config)
}

/// Whether the plugin ever runs. Rejects what has no equivalent: a KongPlugin cannot belong to a route and a service.
/// Requests of a route always are those of its service, so the route suffices, unless the order of precedence among
/// instances would change.
fn runs(
    path: &str,
    scope: AttachedScope,
    instances: Option<&HashSet<AttachedScope>>,
    scopes: &PluginScopes<'_>,
    findings: &FileFindings,
) -> bool {
    if let (Some(route), Some(_)) = (scope.route, scope.service) {
        if scopes.routes[route].service != scope.service {
            findings.differs(path, "the route has another service, so the plugin never runs", "remove the plugin");
            return false;
        }
        let competes = |other: &AttachedScope| {
            *other != scope && (other.consumer.is_some() || other.group.is_some() || other.route == scope.route)
        };
        if instances.is_some_and(|others| others.iter().any(competes)) {
            let message =
                "a plugin of a route and a service, with other instances of the same plugin, has no equivalent";
            findings.reject(path, message, "remove the service of the plugin");
        }
    }
    if scope.consumer.is_some() && scope.group.is_some() {
        findings.reject(path, "a plugin belongs to a consumer or to a group", "remove one of the two");
    }
    true
}

/// Lets the objects of the scope refer to the plugin.
fn attach(name: &str, scope: AttachedScope, scopes: &mut PluginScopes<'_>) {
    let site = match scope {
        AttachedScope { route: Some(route), .. } => scopes.routes[route].draft.as_mut(),
        AttachedScope { service: Some(service), .. } => scopes.services[service].draft.as_mut(),
        _ => None,
    };
    match site {
        Some(site) => site.plugins.push(name.to_owned()),
        // Attached to the consumer alone, a plugin of an unserved route would run on all others.
        None if scope.route.is_some() || scope.service.is_some() => return,
        None => {}
    }
    if let Some(consumer) = scope.consumer {
        scopes.consumers.consumers[consumer].plugins.push(name.to_owned());
    }
    if let Some(group) = scope.group {
        scopes.consumers.groups[group].plugins.push(name.to_owned());
    }
}

/// Adds the fields of the configuration in `_plugin_configs` that the plugin names, and does not have itself.
fn add_shared_config(plugin: &mut Entity<'_>, shared: &Map<String, Value>) {
    let Some(name) = plugin.fields.text("_config") else { return };
    let Some(Value::Object(fields)) = shared.get(&name) else {
        let message = format!("_plugin_configs has no configuration {name:?}");
        plugin.fields.findings.reject(plugin.fields.field("_config"), message, "correct the name, or add it there");
        return;
    };
    plugin.fields.add_below("config", fields);
}

/// The protocols as those of a KongPlugin, which names those of WebSockets like their handshakes. A plugin runs for all
/// requests if it has one protocol of them.
fn protocols_of(protocols: Vec<String>) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for protocol in protocols {
        let name = match &*protocol {
            "ws" => "http".to_owned(),
            "wss" => "https".to_owned(),
            _ => protocol,
        };
        if !named.contains(&name) {
            named.push(name);
        }
    }
    named
}

/// The username of the consumer with this id, which is not the id of its KongConsumer.
fn username_of(id: &str, scopes: &PluginScopes<'_>) -> Option<Value> {
    let consumer = scopes.index.find(EntityKind::Consumer, id)?;
    scopes.consumers.consumers[consumer].fields.get("username").cloned()
}

/// The names of what the plugin belongs to.
fn owner_name(scope: AttachedScope, scopes: &PluginScopes<'_>) -> String {
    let parts = [
        scope.route.map(|route| scopes.routes[route].label.clone()),
        scope.service.filter(|_| scope.route.is_none()).map(|service| scopes.services[service].label.clone()),
        scope.consumer.map(|consumer| scopes.consumers.consumers[consumer].name.clone()),
        scope.group.map(|group| scopes.consumers.groups[group].name.clone()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("-")
}
