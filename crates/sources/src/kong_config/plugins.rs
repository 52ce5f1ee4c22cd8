//! Plugins: each becomes a KongPlugin that the objects of its scope refer to, or a global KongClusterPlugin.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::consumers::ConsumerPlans;
use super::custom_entities::CustomEntities;
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

pub(super) fn plan(
    plugins: Vec<Entity<'_>>,
    shared: &Map<String, Value>,
    scopes: &mut PluginScopes<'_>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Vec<Draft> {
    let index = scopes.index;
    let mut read = Vec::new();
    for mut plugin in plugins {
        add_shared_config(&mut plugin, shared);
        let scope = AttachedScope {
            service: plugin.owner(EntityKind::Service, index),
            route: plugin.owner(EntityKind::Route, index),
            consumer: plugin.owner(EntityKind::Consumer, index),
            group: plugin.owner(EntityKind::Group, index),
        };
        match plugin.name.clone() {
            // Its owner, which is unknown, is not that of another plugin.
            Some(_) if plugin.is_orphan => {}
            Some(kind) => read.push((kind, scope, plugin)),
            None if plugin.fields.is_mistyped("name") => {}
            None => plugin.fields.findings.reject(plugin.path(), "the plugin has no name", "write its name"),
        }
    }
    let mut instance_names = HashSet::new();
    let mut by_kind: HashMap<String, HashSet<AttachedScope>> = HashMap::new();
    for (kind, scope, plugin) in &read {
        let instance_name = plugin.fields.peek("instance_name").and_then(Value::as_str);
        if instance_name.is_some_and(|name| !instance_names.insert(name.to_owned())) {
            let message = "another plugin has the same instance_name";
            plugin.fields.findings.reject(plugin.fields.field("instance_name"), message, "rename one of the two");
        }
        // An instance that is switched off still counts in Kong's uniqueness.
        if !by_kind.entry(kind.clone()).or_default().insert(*scope) {
            let message = format!("another plugin {kind} has the same scope");
            plugin.fields.findings.reject(plugin.path(), message, "remove one of the two, or merge them");
        }
    }
    read.into_iter()
        .map(|(kind, scope, plugin)| plan_plugin(kind, scope, plugin, &by_kind, scopes, settings, names))
        .collect()
}

fn plan_plugin(
    kind: String,
    scope: AttachedScope,
    mut plugin: Entity<'_>,
    by_kind: &HashMap<String, HashSet<AttachedScope>>,
    scopes: &mut PluginScopes<'_>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Draft {
    let path = plugin.path().to_owned();
    let findings = plugin.fields.findings;
    let is_global = scope == AttachedScope::default();
    let owner = owner_name(scope, scopes);
    let label = if owner.is_empty() { kind.clone() } else { format!("{owner}-{kind}") };
    let name = names.name(if is_global { "KongClusterPlugin" } else { "KongPlugin" }, &label);
    let mut draft = match is_global {
        true => {
            let draft = Draft::new("configuration.konghq.com/v1", "KongClusterPlugin", &name, &path);
            let mut draft = draft.cluster_wide().of_class(settings);
            draft.label(GLOBAL_LABEL, "true");
            draft
        }
        false => Draft::new("configuration.konghq.com/v1", "KongPlugin", &name, &path),
    };
    draft.fields.insert("plugin".to_owned(), json!(kind));
    if let Some(name) = plugin.fields.text("instance_name") {
        plugin.fields.check_name("instance_name", &name);
        draft.fields.insert("instance_name".to_owned(), json!(name));
    }
    if plugin.fields.flag("enabled") == Some(false) {
        draft.fields.insert("disabled".to_owned(), json!(true));
    }
    if let Some(protocols) = plugin.fields.texts("protocols").filter(|protocols| !protocols.is_empty()) {
        draft.fields.insert("protocols".to_owned(), json!(protocols_of(protocols)));
    }
    if let Some(ordering) = plugin.fields.object("ordering") {
        draft.fields.insert("ordering".to_owned(), Value::Object(ordering));
    }
    if plugin.fields.text("run_on").is_some_and(|run_on| run_on != "first") {
        let message = "it has no effect: there is no second proxy of a mesh that could run the plugin";
        findings.differs(plugin.fields.field("run_on"), message, "remove it");
    }
    plugin.fields.value("condition").into_iter().for_each(|_| {
        findings.reject(format!("{path}.condition"), "conditions of plugins are not supported", "remove it");
    });
    let config = plugin.fields.object("config");
    let (is_set, mut config) = (config.is_some(), config.unwrap_or_default());
    if let Some(anonymous) = config.get_mut("anonymous")
        && let Some(username) = anonymous.as_str().and_then(|key| username_of(key, scopes))
    {
        *anonymous = username;
    }
    let service = scope.service.or_else(|| scopes.routes[scope.route?].service);
    scopes.entities.add_to(&mut config, &kind, service);
    if is_set || !config.is_empty() {
        draft.fields.insert("config".to_owned(), Value::Object(config));
    }
    plugin.fields.finish();

    // A KongPlugin cannot belong to a route and a service. Requests of a route always are those of its service, so the
    // route suffices, unless the order of precedence among instances would change.
    if scope.route.is_some() && scope.service.is_some() {
        let competes = |other: &AttachedScope| {
            *other != scope && (other.consumer.is_some() || other.group.is_some() || other.route == scope.route)
        };
        let route_service = scope.route.and_then(|route| scopes.routes[route].service);
        if route_service != scope.service {
            findings.differs(&path, "the route has another service, so the plugin never runs", "remove the plugin");
            return draft;
        }
        if by_kind.get(&kind).is_some_and(|others| others.iter().any(competes)) {
            let message =
                "a plugin of a route and a service, with other instances of the same plugin, has no equivalent";
            findings.reject(&path, message, "remove the service of the plugin");
        }
    }
    if scope.consumer.is_some() && scope.group.is_some() {
        findings.reject(&path, "a plugin belongs to a consumer or to a group", "remove one of the two");
    }
    let attached = match scope {
        AttachedScope { route: Some(route), .. } => scopes.routes[route].draft.as_mut(),
        AttachedScope { service: Some(service), .. } => scopes.services[service].draft.as_mut(),
        _ => None,
    };
    let needs_site = scope.route.is_some() || scope.service.is_some();
    let is_attached = attached.is_some();
    if let Some(site) = attached {
        site.plugins.push(name.clone());
    }
    // Attached to the consumer alone, a plugin of an unserved route would run on all others.
    if !needs_site || is_attached {
        if let Some(consumer) = scope.consumer {
            scopes.consumers.consumers[consumer].plugins.push(name.clone());
        }
        if let Some(group) = scope.group {
            scopes.consumers.groups[group].plugins.push(name);
        }
    }
    draft
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
