//! The entities that calls of the Admin API create, change and delete, and the file that has the same ones.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::curl::{AdminBody, AdminCall, AdminMethod};
use super::field_types;
use super::form::NotUnderstood;
use crate::kong_config::service_location::split_url;

/// All entities that the calls so far have left.
#[derive(Default)]
pub(super) struct ScriptEntities {
    /// `None` for a deleted one.
    entities: Vec<Option<ScriptEntity>>,
    /// By collection and id or name.
    index: HashMap<(&'static str, String), usize>,
}

#[derive(Clone)]
struct ScriptEntity {
    collection: &'static str,
    fields: Map<String, Value>,
    /// The line of the call that created it.
    line: u32,
    /// The lines of calls that changed single fields.
    field_lines: HashMap<String, u32>,
}

/// What a path of the Admin API means.
struct AdminPath<'p> {
    collection: &'static str,
    /// The fields that refer to the entities in the path.
    parents: Vec<(&'static str, &'static str, &'p str)>,
    key: Option<&'p str>,
}

/// The lines of the script, by the paths of the file.
pub(super) struct ScriptLines(HashMap<String, (u32, HashMap<String, u32>)>);

impl ScriptEntities {
    /// Applies a call. `plugin_schema`: the JSON schema of the configuration of a plugin.
    pub(super) fn apply(
        &mut self,
        call: AdminCall,
        line: u32,
        plugin_schema: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<(), NotUnderstood> {
        let AdminCall { method, path, body } = call;
        let target = target(&path)?;
        let mut parents = Vec::new();
        for &(field, collection, key) in &target.parents {
            self.find(collection, key).ok_or_else(|| no_entity(collection, key))?;
            parents.push((field, Value::String(key.to_owned())));
        }
        let existing = target.key.and_then(|key| self.find_target(&target, key));
        let is_form = matches!(body, AdminBody::Form(_));
        let (AdminBody::Form(mut fields) | AdminBody::Json(mut fields)) = body;
        if target.collection == "consumer_group_consumers"
            && let Some(group) = fields.shift_remove("group")
        {
            fields.insert("consumer_group".to_owned(), group);
        }
        if is_form {
            let before = existing.and_then(|position| self.entities[position].as_ref());
            let plugin = fields.get("name").or_else(|| before?.fields.get("name")).and_then(Value::as_str);
            let schema = plugin.filter(|_| target.collection == "plugins").and_then(plugin_schema);
            field_types::of_entity(&mut fields);
            if let (Some(schema), Some(config)) = (schema, fields.get_mut("config")) {
                field_types::of_config(config, &schema);
            }
        }
        if let Some(Value::String(url)) = fields.get("url").filter(|_| target.collection == "services")
            && let Some(parts) = split_url(url)
        {
            fields.shift_remove("url");
            fields.extend(parts);
        }
        fields.extend(parents.into_iter().map(|(field, key)| (field.to_owned(), key)));
        self.check_references(&fields)?;
        match (method, target.key, existing) {
            (AdminMethod::Post, None, _) => self.create(target.collection, fields, line),
            (AdminMethod::Put, Some(_), Some(position)) => {
                self.keep_identity(position, &mut fields);
                let collection = target.collection;
                self.set(position, ScriptEntity { collection, fields, line, field_lines: HashMap::new() })
            }
            (AdminMethod::Put, Some(key), None) => {
                let name = if is_uuid(key) { "id" } else { key_field(target.collection) };
                fields.insert(name.to_owned(), json!(key));
                self.create(target.collection, fields, line)
            }
            (AdminMethod::Patch, Some(_), Some(position)) => self.change(position, fields, line),
            (AdminMethod::Delete, Some(_), Some(position)) => self.delete(position),
            (AdminMethod::Patch | AdminMethod::Delete, Some(key), None) => Err(no_entity(target.collection, key)),
            (AdminMethod::Post, Some(_), _) | (_, None, _) => {
                let message = format!("the Admin API has no such method for /{}", path.join("/"));
                Err((message, CORRECT.to_owned()))
            }
        }
    }

    fn find(&self, collection: &'static str, key: &str) -> Option<usize> {
        self.index.get(&(collection, key.to_owned())).copied()
    }

    /// The entity that a path with a key means, which belongs to the entities before it in the path.
    fn find_target(&self, target: &AdminPath<'_>, key: &str) -> Option<usize> {
        let belongs = |entity: &ScriptEntity| {
            target.parents.iter().all(|(field, collection, parent)| {
                let own = entity.fields.get(*field).and_then(reference).and_then(|own| self.find(collection, own));
                own.is_some() && own == self.find(collection, parent)
            })
        };
        let is_it = |position: &usize| self.entities[*position].as_ref().is_some_and(belongs);
        if !has_shared_keys(target.collection) {
            return self.find(target.collection, key).filter(is_it);
        }
        let has_key = |entity: &&ScriptEntity| {
            let fields = ["id", key_field(target.collection)];
            entity.collection == target.collection
                && fields.iter().any(|field| entity.fields.get(*field).and_then(Value::as_str) == Some(key))
        };
        let found = |position: &usize| self.entities[*position].as_ref().filter(has_key).is_some() && is_it(position);
        (0..self.entities.len()).find(found)
    }

    /// The texts by which calls name an entity.
    fn keys(entity: &ScriptEntity) -> impl Iterator<Item = (&'static str, String)> {
        // Several plugins have the same name.
        let name = Some(key_field(entity.collection)).filter(|_| entity.collection != "plugins");
        let keys = [Some("id"), name].into_iter().flatten().filter_map(|field| entity.fields.get(field)?.as_str());
        keys.map(|key| (entity.collection, key.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn create(&mut self, collection: &'static str, fields: Map<String, Value>, line: u32) -> Result<(), NotUnderstood> {
        let position = self.entities.len();
        self.set(position, ScriptEntity { collection, fields, line, field_lines: HashMap::new() })
    }

    /// Adds an entity at the end, or replaces the one at the position. Changes nothing if another entity has its key.
    fn set(&mut self, position: usize, entity: ScriptEntity) -> Result<(), NotUnderstood> {
        let collection = entity.collection;
        let keys: Vec<_> = ScriptEntities::keys(&entity).collect();
        let is_taken = |key: &_| self.index.get(key).is_some_and(|taken| *taken != position);
        if let Some((_, key)) = keys.iter().find(|key| !has_shared_keys(collection) && is_taken(*key)) {
            let shown = if collection.ends_with("_credentials") || collection == "jwt_secrets" { "it" } else { key };
            let message = format!("a call before this one has created {shown} in {collection}, so Kong refuses it");
            return Err((message, "remove one of the two, or use PATCH".to_owned()));
        }
        if position == self.entities.len() {
            self.entities.push(None);
        }
        self.remove(position);
        self.index.extend(keys.into_iter().map(|key| (key, position)));
        self.entities[position] = Some(entity);
        Ok(())
    }

    /// A replaced entity keeps its id and name, if the call does not set them.
    fn keep_identity(&self, position: usize, fields: &mut Map<String, Value>) {
        let Some(before) = &self.entities[position] else { return };
        for field in ["id", key_field(before.collection)] {
            if let Some(value) = before.fields.get(field) {
                fields.entry(field).or_insert_with(|| value.clone());
            }
        }
    }

    fn remove(&mut self, position: usize) {
        if let Some(entity) = self.entities[position].take() {
            for key in ScriptEntities::keys(&entity) {
                self.index.remove(&key);
            }
        }
    }

    fn change(&mut self, position: usize, fields: Map<String, Value>, line: u32) -> Result<(), NotUnderstood> {
        let Some(mut entity) = self.entities[position].clone() else { return Ok(()) };
        for (name, value) in fields {
            entity.field_lines.insert(name.clone(), line);
            merge(entity.fields.entry(name).or_insert(Value::Null), value);
        }
        self.set(position, entity)
    }

    fn delete(&mut self, position: usize) -> Result<(), NotUnderstood> {
        let Some(entity) = &self.entities[position] else { return Ok(()) };
        let Some((field, _)) = REFERENCES.iter().find(|(_, collection)| *collection == entity.collection) else {
            self.remove(position);
            return Ok(());
        };
        let keys: Vec<String> = ScriptEntities::keys(entity).map(|(_, key)| key).collect();
        let refers = |other: &ScriptEntity| {
            other.fields.get(*field).and_then(reference).is_some_and(|key| keys.iter().any(|own| own == key))
        };
        let dependents: Vec<usize> = self
            .entities
            .iter()
            .enumerate()
            .filter(|(_, other)| other.as_ref().is_some_and(refers))
            .map(|(position, _)| position)
            .collect();
        let is_route = |position: &usize| self.entities[*position].as_ref().is_some_and(|e| e.collection == "routes");
        if entity.collection == "services" && dependents.iter().any(is_route) {
            let message = "the service still has routes, so Kong refuses to delete it";
            return Err((message.to_owned(), "delete its routes first".to_owned()));
        }
        // As in Kong, what belongs to it is deleted with it.
        for dependent in dependents {
            self.remove(dependent);
        }
        self.remove(position);
        Ok(())
    }

    /// An entity that refers to one whose call was left out is left out too, and not the whole script.
    fn check_references(&self, fields: &Map<String, Value>) -> Result<(), NotUnderstood> {
        for (field, collection) in REFERENCES {
            let Some(key) = fields.get(field).and_then(reference) else { continue };
            self.find(collection, key).ok_or_else(|| no_entity(collection, key))?;
        }
        for key in fields.get("ca_certificates").and_then(Value::as_array).into_iter().flatten() {
            if let Some(key) = key.as_str() {
                self.find("ca_certificates", key).ok_or_else(|| no_entity("ca_certificates", key))?;
            }
        }
        Ok(())
    }

    /// The declarative file with these entities.
    pub(super) fn into_file(self) -> (Value, ScriptLines) {
        let mut file = Map::new();
        let mut lines = HashMap::new();
        for entity in self.entities.into_iter().flatten() {
            let list = file.entry(entity.collection).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                lines.insert(format!("{}[{}]", entity.collection, list.len()), (entity.line, entity.field_lines));
                list.push(Value::Object(entity.fields));
            }
        }
        file.insert("_format_version".to_owned(), json!("3.0"));
        (Value::Object(file), ScriptLines(lines))
    }
}

impl ScriptLines {
    /// The line of the call that a path of the file is from.
    pub(super) fn line(&self, field: &str) -> u32 {
        let entity = field.split_inclusive(']').next().unwrap_or_default();
        let Some((line, fields)) = self.0.get(entity) else { return 0 };
        let name = field[entity.len()..].trim_start_matches('.').split(['.', '[']).next().unwrap_or_default();
        fields.get(name).copied().unwrap_or(*line)
    }
}

/// The fields of an object replace those before; other values replace the whole.
fn merge(before: &mut Value, value: Value) {
    match (before, value) {
        (Value::Object(before), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(before.entry(name).or_insert(Value::Null), value);
            }
        }
        (before, value) => *before = value,
    }
}

/// The name or id in a reference.
fn reference(value: &Value) -> Option<&str> {
    match value {
        Value::String(key) => Some(key),
        Value::Object(fields) => ["id", "name", "username"].iter().find_map(|name| fields.get(*name)?.as_str()),
        _ => None,
    }
}

fn no_entity(collection: &str, key: &str) -> NotUnderstood {
    let message = format!("no call before this one that is understood has created {key:?} in {collection}");
    (message, "add the call, or correct the name".to_owned())
}

fn target(path: &[String]) -> Result<AdminPath<'_>, NotUnderstood> {
    let segments: Vec<&str> = path.iter().map(String::as_str).collect();
    let segments = match &segments[..] {
        ["default", rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let of_collection = |name: &str| COLLECTIONS.iter().find(|(segment, _)| *segment == name).map(|(_, found)| *found);
    let unknown = || {
        let message = format!("/{} is no path of the Admin API whose calls are read", path.join("/"));
        (message, "write what it configures by hand; of workspaces, only `default` is read".to_owned())
    };
    let parent_of = |name: &str, key: &'_ str| -> Option<(&'static str, &'static str)> {
        let collection = of_collection(name).filter(|_| !key.is_empty())?;
        REFERENCES.iter().find(|(field, found)| *found == collection && *field != "client_certificate").copied()
    };
    let target = match segments {
        [collection] => of_collection(collection).map(|collection| (collection, Vec::new(), None)),
        [collection, key] => of_collection(collection).map(|collection| (collection, Vec::new(), Some(*key))),
        [parent, parent_key, child, rest @ ..] if rest.len() <= 1 => {
            let collection = CHILDREN.iter().find(|(known, segment, _)| known == parent && segment == child);
            collection.and_then(|(_, _, collection)| {
                let (field, of) = parent_of(parent, parent_key)?;
                Some((*collection, vec![(field, of, *parent_key)], rest.first().copied()))
            })
        }
        _ => None,
    };
    let (collection, parents, key) = target.ok_or_else(unknown)?;
    Ok(AdminPath { collection, parents, key })
}

/// The field with the name by which paths of the Admin API mean an entity.
fn key_field(collection: &str) -> &'static str {
    match collection {
        "consumers" | "basicauth_credentials" | "hmacauth_credentials" => "username",
        "keyauth_credentials" | "jwt_secrets" => "key",
        "oauth2_credentials" => "client_id",
        "acls" => "group",
        "targets" => "target",
        "certificates" | "ca_certificates" => "id",
        "vaults" => "prefix",
        _ => "name",
    }
}

/// Whether entities of different parents may have the same key.
fn has_shared_keys(collection: &str) -> bool {
    matches!(collection, "targets" | "acls" | "consumer_group_consumers")
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The first segment of a path, and the collection of the file.
const COLLECTIONS: [(&str, &str); 18] = [
    ("services", "services"),
    ("routes", "routes"),
    ("consumers", "consumers"),
    ("consumer_groups", "consumer_groups"),
    ("upstreams", "upstreams"),
    ("targets", "targets"),
    ("plugins", "plugins"),
    ("certificates", "certificates"),
    ("snis", "snis"),
    ("ca_certificates", "ca_certificates"),
    ("vaults", "vaults"),
    ("key-auths", "keyauth_credentials"),
    ("basic-auths", "basicauth_credentials"),
    ("jwts", "jwt_secrets"),
    ("hmac-auths", "hmacauth_credentials"),
    ("acls", "acls"),
    ("oauth2", "oauth2_credentials"),
    ("mtls-auths", "mtls_auth_credentials"),
];

/// Parents, the segments after their keys, and the collection of the file.
const CHILDREN: [(&str, &str, &str); 16] = [
    ("services", "routes", "routes"),
    ("services", "plugins", "plugins"),
    ("routes", "plugins", "plugins"),
    ("consumers", "plugins", "plugins"),
    ("consumer_groups", "plugins", "plugins"),
    ("upstreams", "targets", "targets"),
    ("certificates", "snis", "snis"),
    ("consumers", "key-auth", "keyauth_credentials"),
    ("consumers", "basic-auth", "basicauth_credentials"),
    ("consumers", "jwt", "jwt_secrets"),
    ("consumers", "hmac-auth", "hmacauth_credentials"),
    ("consumers", "acls", "acls"),
    ("consumers", "oauth2", "oauth2_credentials"),
    ("consumers", "mtls-auth", "mtls_auth_credentials"),
    ("consumers", "consumer_groups", "consumer_group_consumers"),
    ("consumer_groups", "consumers", "consumer_group_consumers"),
];

/// Fields that refer to an entity, and the collection of that entity.
const REFERENCES: [(&str, &str); 8] = [
    ("service", "services"),
    ("route", "routes"),
    ("consumer", "consumers"),
    ("consumer_group", "consumer_groups"),
    ("upstream", "upstreams"),
    ("certificate", "certificates"),
    ("client_certificate", "certificates"),
    ("ca_certificate", "ca_certificates"),
];

const CORRECT: &str = "correct the call";
