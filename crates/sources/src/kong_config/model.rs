//! The entities of a file: nested ones are collected, and references are resolved by name or id.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::entity_types::{ENTITY_TYPES, EntityType};
use super::fields::{EntityFields, EntityReference, FileFindings, type_name};

/// Entities of every kind, in the order of the file, each with its fields that are still to be read.
#[derive(Default)]
pub(super) struct Model<'f> {
    pub(super) version: FormatVersion,
    pub(super) services: Vec<Entity<'f>>,
    pub(super) routes: Vec<Entity<'f>>,
    pub(super) consumers: Vec<Entity<'f>>,
    pub(super) groups: Vec<Entity<'f>>,
    /// With the collection that they are from: `keyauth_credentials`.
    pub(super) credentials: Vec<(&'static str, Entity<'f>)>,
    pub(super) memberships: Vec<Entity<'f>>,
    pub(super) plugins: Vec<Entity<'f>>,
    pub(super) upstreams: Vec<Entity<'f>>,
    pub(super) targets: Vec<Entity<'f>>,
    pub(super) certificates: Vec<Entity<'f>>,
    pub(super) snis: Vec<Entity<'f>>,
    pub(super) authorities: Vec<Entity<'f>>,
    pub(super) custom_entities: Vec<(&'static EntityType, Entity<'f>)>,
    pub(super) vaults: Vec<Entity<'f>>,
    /// Configurations that several plugins share, by name.
    pub(super) plugin_configs: Map<String, Value>,
}

/// The format of the file. Before 3.0, paths with special characters are regular expressions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FormatVersion {
    V1,
    V2,
    #[default]
    V3,
}

pub(super) struct Entity<'f> {
    pub(super) fields: EntityFields<'f>,
    /// The entities in which it is nested, as (kind, index).
    parents: Vec<(EntityKind, usize)>,
    /// Whether it refers to an entity that does not exist, for which the file is rejected.
    pub(super) is_orphan: bool,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum EntityKind {
    Service,
    Route,
    Consumer,
    Group,
    Upstream,
    Certificate,
    Authority,
}

impl EntityKind {
    /// The field that refers to an entity of this kind.
    fn field(self) -> &'static str {
        match self {
            EntityKind::Service => "service",
            EntityKind::Route => "route",
            EntityKind::Consumer => "consumer",
            EntityKind::Group => "consumer_group",
            EntityKind::Upstream => "upstream",
            EntityKind::Certificate => "certificate",
            EntityKind::Authority => "ca_certificate",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            EntityKind::Group => "consumer group",
            EntityKind::Authority => "CA certificate",
            other => other.field(),
        }
    }
}

/// The names and ids of all entities, by kind.
#[derive(Default)]
pub(super) struct EntityIndex(HashMap<(EntityKind, String), usize>);

impl EntityIndex {
    pub(super) fn find(&self, kind: EntityKind, key: &str) -> Option<usize> {
        self.0.get(&(kind, key.to_owned())).copied()
    }

    /// The entity that a reference means. Rejects the file if there is none.
    pub(super) fn resolve(
        &self,
        kind: EntityKind,
        reference: &EntityReference,
        findings: &FileFindings,
    ) -> Option<usize> {
        let found = self.find(kind, &reference.key);
        if found.is_none() {
            let message = format!("{} {:?} does not exist in this file", kind.noun(), reference.key);
            findings.reject(&reference.field, message, "correct the name or id, or add the entity");
        }
        found
    }
}

impl<'f> Entity<'f> {
    fn read(mut fields: EntityFields<'f>, parents: Vec<(EntityKind, usize)>) -> Self {
        let (id, name) = (fields.text("id"), fields.text("name"));
        Entity { fields, parents, is_orphan: false, id, name }
    }

    /// The entity of a kind that this one belongs to: the one it is nested in, or the one it refers to.
    pub(super) fn parent(&mut self, kind: EntityKind, index: &EntityIndex) -> Option<usize> {
        let reference = self.fields.reference(kind.field());
        let nested = self.parents.iter().rev().find(|(parent, _)| *parent == kind).map(|(_, position)| *position);
        let Some(reference) = reference else { return nested };
        let Some(named) = index.resolve(kind, &reference, self.fields.findings) else {
            self.is_orphan = true;
            return None;
        };
        if nested.is_some_and(|nested| nested != named) {
            let message = format!("it is nested in another {}", kind.noun());
            self.fields.findings.reject(&reference.field, message, "remove the reference, or move the entity");
        }
        Some(named)
    }

    /// Like [`Entity::parent`], for plugins and credentials, which cannot repeat the entity that they are nested in.
    pub(super) fn owner(&mut self, kind: EntityKind, index: &EntityIndex) -> Option<usize> {
        let is_nested = self.parents.iter().any(|(parent, _)| *parent == kind);
        if is_nested && self.fields.has(kind.field()) {
            let message = format!("the entity is nested in a {}, so it must not refer to one", kind.noun());
            self.fields.findings.reject(self.fields.field(kind.field()), message, "remove the reference");
        }
        self.parent(kind, index)
    }

    /// Rejects an entity without a name. One of a wrong type is not missing.
    pub(super) fn reject_unnamed(&self, message: &str, remedy: &str) {
        if !self.fields.is_mistyped("name") {
            self.fields.findings.reject(self.path(), message, remedy);
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.fields.path
    }

    /// Its name or id, for messages and for names of objects.
    pub(super) fn label(&self, otherwise: &str) -> String {
        self.name.clone().or_else(|| self.id.clone()).unwrap_or_else(|| otherwise.to_owned())
    }
}

/// The collections of credentials, nested in consumers and at the top level.
const CREDENTIALS: [&str; 7] = [
    "keyauth_credentials",
    "basicauth_credentials",
    "jwt_secrets",
    "hmacauth_credentials",
    "acls",
    "oauth2_credentials",
    "mtls_auth_credentials",
];

/// Collections whose entities have no equivalent, and what these are.
const UNSUPPORTED: [(&str, &str); 13] = [
    ("licenses", "licenses"),
    ("filter_chains", "WebAssembly filters"),
    ("keys", "keys"),
    ("key_sets", "sets of keys"),
    ("oauth2_authorization_codes", "stored authorization codes"),
    ("oauth2_tokens", "stored tokens"),
    ("sessions", "stored sessions"),
    ("ratelimiting_metrics", "stored counters"),
    ("acme_storage", "stored certificates of acme"),
    ("clustering_data_planes", "data planes"),
    ("parameters", "parameters of clusters"),
    ("workspaces", "workspaces"),
    ("tags", "lists of tags"),
];

/// Collects the entities of a file.
pub(super) fn read(mut value: Value, findings: &FileFindings) -> (Model<'_>, EntityIndex) {
    let tags: Vec<Value> = value["_info"]["select_tags"].as_array().cloned().unwrap_or_default();
    if !tags.is_empty() {
        add_tags(&mut value, &tags);
    }
    let mut root = EntityFields::new(String::new(), value, None, findings);
    let mut model = Model { version: read_version(&mut root), ..Model::default() };
    let defaults = read_info(&mut root);
    let defaults_of = |name: &str| defaults.get(name).and_then(Value::as_object);
    root.flag("_transform");
    model.plugin_configs = root.object("_plugin_configs").unwrap_or_default();
    read_destination(&mut root);
    for fields in root.entities("services", defaults_of("service")) {
        model.add_service(fields, &defaults_of);
    }
    for fields in root.entities("routes", defaults_of("route")) {
        model.add_route(fields, Vec::new());
    }
    for fields in root.entities("consumer_groups", defaults_of("consumer_group")) {
        model.add_group(fields);
    }
    for fields in root.entities("consumers", defaults_of("consumer")) {
        model.add_consumer(fields);
    }
    for kind in CREDENTIALS {
        for fields in root.entities(kind, None) {
            model.credentials.push((kind, Entity::read(fields, Vec::new())));
        }
    }
    model.memberships.extend(root.entities("consumer_group_consumers", None).into_iter().map(unnested));
    for fields in root.entities("upstreams", defaults_of("upstream")) {
        model.add_upstream(fields, &defaults_of);
    }
    model.targets.extend(root.entities("targets", defaults_of("target")).into_iter().map(unnested));
    for fields in root.entities("certificates", None) {
        model.add_certificate(fields);
    }
    model.snis.extend(root.entities("snis", None).into_iter().map(unnested));
    model.authorities.extend(root.entities("ca_certificates", None).into_iter().map(unnested));
    model.plugins.extend(root.entities("plugins", defaults_of("plugin")).into_iter().map(unnested));
    for kind in &ENTITY_TYPES {
        let entities = root.entities(kind.name, None).into_iter().map(unnested);
        model.custom_entities.extend(entities.map(|entity| (kind, entity)));
    }
    for fields in root.entities("custom_entities", None) {
        model.add_custom_entity(fields);
    }
    model.vaults.extend(root.entities("vaults", None).into_iter().map(unnested));
    for (name, what) in UNSUPPORTED {
        for fields in root.entities(name, None) {
            findings.leave_out(fields.path, format!("{what} are not supported"), "remove it");
        }
    }
    root.finish();
    let index = model.index(findings);
    (model, index)
}

fn unnested(fields: EntityFields<'_>) -> Entity<'_> {
    Entity::read(fields, Vec::new())
}

fn read_version(root: &mut EntityFields<'_>) -> FormatVersion {
    let value = root.value("_format_version");
    match value.as_ref().map(|value| (value, value.as_str())) {
        Some((_, Some("1.1"))) => FormatVersion::V1,
        Some((_, Some("2.1"))) => FormatVersion::V2,
        Some((_, Some("3.0"))) => FormatVersion::V3,
        found => {
            let message = match found {
                None => "the version of the format is missing".to_owned(),
                Some((value, None)) => format!("this is {}, and not a text", type_name(value)),
                Some((_, Some(text))) => format!("version {text:?} of the format is unknown"),
            };
            root.findings.reject("_format_version", message, "write \"1.1\", \"2.1\" or \"3.0\", in quotes");
            FormatVersion::V3
        }
    }
}

/// Where decK writes the entities, which are served here instead.
fn read_destination(root: &mut EntityFields<'_>) {
    let workspace = root.text("_workspace").filter(|workspace| workspace != "default");
    if let Some(workspace) = workspace {
        let message = format!("there are no workspaces here: logs and metrics have `default` instead of {workspace:?}");
        root.findings.differs("_workspace", message, "ignore this if the other workspaces have files of their own");
    }
    let Some(konnect) = root.object("_konnect") else { return };
    let mut konnect = EntityFields::new("_konnect".to_owned(), Value::Object(konnect), None, root.findings);
    for name in ["control_plane_name", "runtime_group_name"] {
        if konnect.text(name).is_some() {
            let field = konnect.field(name);
            root.findings.differs(field, "the control plane has no effect: this file is served", "");
        }
    }
    konnect.finish();
}

/// Adds the tags of `select_tags`, which decK gives to all entities, where something shows tags.
fn add_tags(value: &mut Value, tags: &[Value]) {
    let collections = ["services", "routes", "consumers", "consumer_groups", "plugins", "upstreams"];
    for name in collections {
        for entity in value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(fields) = entity.as_object_mut() else { continue };
            let own = fields.entry("tags").or_insert(Value::Null);
            if own.is_null() {
                *own = Value::Array(Vec::new());
            }
            // Another type is reported when the entity is read.
            if let Some(own) = own.as_array_mut() {
                for tag in tags {
                    if !own.contains(tag) {
                        own.push(tag.clone());
                    }
                }
            }
            add_tags(entity, tags);
        }
    }
}

/// The defaults of entities, from `_info.defaults`.
fn read_info(root: &mut EntityFields<'_>) -> Map<String, Value> {
    let Some(info) = root.object("_info") else { return Map::new() };
    let mut info = EntityFields::new("_info".to_owned(), Value::Object(info), None, root.findings);
    info.texts("select_tags");
    if info.object("default_lookup_tags").is_some_and(|tags| !tags.is_empty()) {
        let message = "entities of a running Kong are not looked up: only those of this file exist";
        root.findings.differs(info.field("default_lookup_tags"), message, "write the entities in this file");
    }
    // How decK writes groups and passwords, and reads plugins; `skip_hash_for_basic_auth` is read with the passwords.
    for name in ["consumer_group_policy_overrides", "skip_hash_for_basic_auth", "include_plugin_definitions"] {
        info.flag(name);
    }
    let defaults = info.object("defaults").unwrap_or_default();
    info.finish();
    for (name, value) in &defaults {
        let known = ["service", "route", "upstream", "target", "consumer", "consumer_group", "plugin"];
        if !known.contains(&&**name) || !value.is_object() {
            let remedy = format!("write fields below one of {}", known.join(", "));
            root.findings.reject(format!("_info.defaults.{name}"), "there are no such defaults", remedy);
        }
    }
    defaults
}

impl<'f> Model<'f> {
    fn add_service<'d>(
        &mut self,
        fields: EntityFields<'f>,
        defaults_of: &impl Fn(&str) -> Option<&'d Map<String, Value>>,
    ) {
        let mut service = Entity::read(fields, Vec::new());
        let position = self.services.len();
        let parents = vec![(EntityKind::Service, position)];
        for route in service.fields.entities("routes", defaults_of("route")) {
            self.add_route(route, parents.clone());
        }
        self.add_plugins(&mut service, &parents);
        self.services.push(service);
    }

    fn add_route(&mut self, fields: EntityFields<'f>, parents: Vec<(EntityKind, usize)>) {
        let mut route = Entity::read(fields, parents);
        // A plugin of a route is not one of its service.
        let parents = [(EntityKind::Route, self.routes.len())];
        self.add_plugins(&mut route, &parents);
        self.routes.push(route);
    }

    fn add_plugins(&mut self, entity: &mut Entity<'f>, parents: &[(EntityKind, usize)]) {
        let plugins = entity.fields.entities("plugins", None);
        self.plugins.extend(plugins.into_iter().map(|plugin| Entity::read(plugin, parents.to_vec())));
    }

    fn add_consumer(&mut self, fields: EntityFields<'f>) {
        let mut consumer = Entity::read(fields, Vec::new());
        let parents = vec![(EntityKind::Consumer, self.consumers.len())];
        for kind in CREDENTIALS {
            for fields in consumer.fields.entities(kind, None) {
                self.credentials.push((kind, Entity::read(fields, parents.clone())));
            }
        }
        self.add_plugins(&mut consumer, &parents);
        self.consumers.push(consumer);
    }

    /// An entity with its type and its fields.
    fn add_custom_entity(&mut self, mut entity: EntityFields<'f>) {
        let (path, findings) = (entity.path.clone(), entity.findings);
        entity.text("id");
        let (kind, fields) = (entity.text("type"), entity.object("fields").unwrap_or_default());
        entity.finish();
        match ENTITY_TYPES.iter().find(|known| Some(known.name) == kind.as_deref()) {
            Some(kind) => {
                let fields = EntityFields::new(format!("{path}.fields"), Value::Object(fields), None, findings);
                self.custom_entities.push((kind, unnested(fields)));
            }
            None => {
                let remedy = format!("use one of {}", ENTITY_TYPES.map(|known| known.name).join(", "));
                findings.reject(format!("{path}.type"), "entities of this type are not supported", remedy);
            }
        }
    }

    fn add_group(&mut self, fields: EntityFields<'f>) {
        let mut group = Entity::read(fields, Vec::new());
        let parents = vec![(EntityKind::Group, self.groups.len())];
        self.add_plugins(&mut group, &parents);
        self.groups.push(group);
    }

    fn add_upstream<'d>(
        &mut self,
        fields: EntityFields<'f>,
        defaults_of: &impl Fn(&str) -> Option<&'d Map<String, Value>>,
    ) {
        let mut upstream = Entity::read(fields, Vec::new());
        let parents = vec![(EntityKind::Upstream, self.upstreams.len())];
        let targets = upstream.fields.entities("targets", defaults_of("target"));
        self.targets.extend(targets.into_iter().map(|target| Entity::read(target, parents.clone())));
        self.upstreams.push(upstream);
    }

    fn add_certificate(&mut self, fields: EntityFields<'f>) {
        let mut certificate = Entity::read(fields, Vec::new());
        let parents = vec![(EntityKind::Certificate, self.certificates.len())];
        let snis = certificate.fields.list("snis").unwrap_or_default();
        let base = certificate.fields.field("snis");
        for (index, sni) in snis.into_iter().enumerate() {
            // A text is the name of the SNI.
            let value = match sni {
                Value::String(name) => Value::Object(Map::from_iter([("name".to_owned(), Value::String(name))])),
                other => other,
            };
            let fields = EntityFields::new(format!("{base}[{index}]"), value, None, certificate.fields.findings);
            self.snis.push(Entity::read(fields, parents.clone()));
        }
        self.certificates.push(certificate);
    }

    /// The names and ids; rejects the file if two entities of a kind have the same.
    fn index(&mut self, findings: &FileFindings) -> EntityIndex {
        let mut index = EntityIndex::default();
        for (kind, entities) in [
            (EntityKind::Service, &mut self.services),
            (EntityKind::Route, &mut self.routes),
            (EntityKind::Consumer, &mut self.consumers),
            (EntityKind::Group, &mut self.groups),
            (EntityKind::Upstream, &mut self.upstreams),
            (EntityKind::Certificate, &mut self.certificates),
            (EntityKind::Authority, &mut self.authorities),
        ] {
            for (position, entity) in entities.iter_mut().enumerate() {
                if kind == EntityKind::Consumer {
                    // Consumers have usernames instead of names.
                    entity.name = entity.fields.text("username");
                }
                for (field, key) in [("id", &entity.id), ("name", &entity.name)] {
                    let Some(key) = key else { continue };
                    if let Some(other) = index.0.insert((kind, key.clone()), position)
                        && other != position
                    {
                        let field = if kind == EntityKind::Consumer && field == "name" { "username" } else { field };
                        let message = format!("another {} has the {field} {key:?}", kind.noun());
                        findings.reject(entity.fields.field(field), message, "rename or delete one of the two");
                    }
                }
            }
        }
        index
    }
}
