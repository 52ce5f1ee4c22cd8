//! Builds the configuration of a plugin: from a Secret, or from the plugin object with text and patches from Secrets
//! and text from ConfigMaps.
//!
//! Diagnostics never contain the content of Secrets. Where the configuration has it is returned, for those of the
//! plugin (hidden_values.rs).

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

use super::hidden_values::Origin;
use super::secret_values::{SecretValueError, SecretValues};
use crate::api::kong::{PluginSettings, SecretKeyRef, ValueReference};
use crate::api::{Kind, ObjectKey};
use crate::compile::OVER_BUDGET;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// The complete configuration, and what Secrets have contributed to it. `owner` is the plugin object, whose namespace
/// is the default for its Secrets. What Secrets contribute may have `max_secret_values` bytes, counted like the size of
/// an object.
pub(super) fn build(
    store: &Store,
    owner: &ObjectKey,
    settings: &PluginSettings,
    max_secret_values: u64,
) -> Result<(Value, Vec<Origin>), Diagnostic> {
    let mut origins = Vec::new();
    let config = build_with(store, owner, settings, max_secret_values, &mut |mut origin, value| {
        origin.add_texts(&value);
        origins.push(origin);
        value
    })?;
    Ok((config, origins))
}

/// The same with what `contribute` returns in place of each value of a Secret.
pub(super) fn build_with(
    store: &Store,
    owner: &ObjectKey,
    settings: &PluginSettings,
    max_secret_values: u64,
    contribute: &mut dyn FnMut(Origin, Value) -> Value,
) -> Result<Value, Diagnostic> {
    let values = SecretValues::new(max_secret_values);
    if let Some(source) = &settings.config_from {
        let field = "configFrom.secretKeyRef";
        let bytes = secret_value(store, owner, &source.secret_key_ref, field)?;
        let config = values.document(bytes).map_err(|error| match error {
            SecretValueError::Malformed => {
                let SecretKeyRef { name, key, .. } = &source.secret_key_ref;
                let message = format!("key {key} of Secret {name} has no object in JSON or YAML");
                Diagnostic::error(field, message, "store the plugin's configuration there, with the fields of config")
            }
            SecretValueError::TooLarge => too_large(field, &source.secret_key_ref, max_secret_values),
        })?;
        return Ok(contribute(Origin::of_secret("config", field, &source.secret_key_ref), config));
    }
    let mut config = settings.config.clone().unwrap_or_default();
    ValueReference::replace_all(&mut config, &mut |path, reference| {
        let path = format!("config.{path}");
        let text = referenced_text(store, owner, reference, &path, &values, max_secret_values)?;
        if reference.kind == Kind::ConfigMap {
            return Ok(text);
        }
        match contribute(Origin::of_secret(&*path, &*path, &reference.target), Value::String(text)) {
            Value::String(text) => Ok(text),
            value => Ok(value.to_string()),
        }
    })?;
    let mut config = Value::Object(config);
    for (index, patch) in settings.config_patches.iter().enumerate() {
        let reference = &patch.value_from.secret_key_ref;
        let field = format!("configPatches[{index}].valueFrom.secretKeyRef");
        let bytes = secret_value(store, owner, reference, &field)?;
        let value = values.json(bytes).map_err(|error| match error {
            SecretValueError::Malformed => {
                let SecretKeyRef { name, key, .. } = reference;
                let message = format!("key {key} of Secret {name}, used for {:?}, is not JSON", shown(&patch.path));
                let remedy = "write strings with quotes, for example \"secret-value\", also in stringData";
                Diagnostic::error(&*field, message, remedy)
            }
            SecretValueError::TooLarge => too_large(&field, reference, max_secret_values),
        })?;
        let value = contribute(Origin::of_patch(&patch.path, &*field, reference), value);
        apply_patch(&mut config, &patch.path, value).map_err(|message| {
            let remedy = "write a JSON pointer into config, for example /redis/password";
            Diagnostic::error(format!("configPatches[{index}].path"), message, remedy)
        })?;
    }
    if !config.is_object() {
        return Err(Diagnostic::error(
            "configPatches",
            "the patched config is not an object",
            "use paths of fields in config",
        ));
    }
    Ok(config)
}

/// A hash of the configuration, equal in all processes. It covers the resource version of Secrets instead
/// of their content, and excludes secret fields of the object, because the hash is public.
pub(super) fn configuration_hash(store: &Store, owner: &ObjectKey, settings: &PluginSettings) -> u64 {
    let sources = settings.config_from.iter().map(|source| ("", &source.secret_key_ref));
    let patches = settings.config_patches.iter().map(|patch| (&*patch.path, &patch.value_from.secret_key_ref));
    let secrets: Vec<_> = sources
        .chain(patches)
        .map(|(path, reference)| {
            let secret = secret_key(owner, reference);
            let revision = store.secrets.get(&secret).map(|secret| secret.meta.revision);
            (path, secret, &reference.key, revision)
        })
        .collect();
    let references: Vec<_> = settings
        .config
        .iter()
        .flat_map(ValueReference::find_all)
        .map(|(path, reference)| {
            let object = secret_key(owner, &reference.target);
            let revision = match reference.kind {
                Kind::ConfigMap => store.config_maps.get(&object).map(|map| map.meta.revision),
                _ => store.secrets.get(&object).map(|secret| secret.meta.revision),
            };
            (path, revision)
        })
        .collect();
    let mut config = Value::Object(settings.config.clone().unwrap_or_default());
    remove_secrets(&mut config);
    // The hash must not depend on the order of fields.
    config.sort_all_objects();
    // `DefaultHasher` has no random seed.
    let mut hasher = DefaultHasher::new();
    (config.to_string(), secrets, references).hash(&mut hasher);
    hasher.finish()
}

/// Removes the values of fields whose names mark them as secret.
fn remove_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if SECRET_FIELD_SUFFIXES.iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix)) {
                    *field = Value::Null;
                }
                remove_secrets(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(remove_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const SECRET_FIELD_SUFFIXES: [&str; 4] = ["password", "passphrase", "secret", "token"];

/// KongPlugins use only objects of their own namespace. Portico's schema of KongPlugin lacks the field, but API servers
/// may have another schema.
fn check_namespace(owner: &ObjectKey, reference: &SecretKeyRef, kind: Kind, field: &str) -> Result<(), Diagnostic> {
    let namespace = reference.namespace.as_deref().unwrap_or(&owner.namespace);
    if owner.namespace.is_empty() || namespace == &*owner.namespace {
        return Ok(());
    }
    let message = format!("KongPlugins cannot use {kind}s of other namespaces");
    let remedy = format!("remove it, and store the {kind} in the namespace of the plugin");
    Err(Diagnostic::error(format!("{field}.namespace"), message, remedy))
}

fn secret_value<'s>(
    store: &'s Store,
    owner: &ObjectKey,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<&'s [u8], Diagnostic> {
    check_namespace(owner, reference, Kind::Secret, field)?;
    let secret = secret_key(owner, reference);
    let Some(object) = store.secrets.get(&secret) else {
        return Err(missing_object(store, format!("{field}.name"), Kind::Secret, &secret));
    };
    object.value(&reference.key).ok_or_else(|| {
        let message = format!("Secret {secret} has no key {}", reference.key);
        Diagnostic::error(format!("{field}.key"), message, "add it or correct the name of the key")
    })
}

/// The text to which a reference in the configuration leads.
fn referenced_text(
    store: &Store,
    owner: &ObjectKey,
    reference: &ValueReference,
    path: &str,
    values: &SecretValues,
    max_secret_values: u64,
) -> Result<String, Diagnostic> {
    let ValueReference { kind, field, target } = reference;
    let field = format!("{path}.{field}");
    let bytes = match kind {
        Kind::ConfigMap => config_map_value(store, owner, target, &field)?,
        _ => secret_value(store, owner, target, &field)?,
    };
    let SecretKeyRef { name, key, .. } = target;
    values.text(bytes).map_err(|error| match error {
        SecretValueError::Malformed => {
            let message = format!("key {key} of {kind} {name} is not text");
            Diagnostic::error(&field, message, "store text in UTF-8, for example PEM")
        }
        SecretValueError::TooLarge => too_large(&field, target, max_secret_values),
    })
}

fn config_map_value<'s>(
    store: &'s Store,
    owner: &ObjectKey,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<&'s [u8], Diagnostic> {
    check_namespace(owner, reference, Kind::ConfigMap, field)?;
    let key = secret_key(owner, reference);
    let Some(map) = store.config_maps.get(&key) else {
        return Err(missing_object(store, format!("{field}.name"), Kind::ConfigMap, &key));
    };
    let value = map.data.get(&reference.key).map(|text| text.as_bytes());
    value.ok_or_else(|| {
        let message = format!("ConfigMap {key} has no key {}", reference.key);
        Diagnostic::error(format!("{field}.key"), message, "add it or correct the name of the key")
    })
}

/// The Secret to which a reference of the plugin object `owner` leads.
fn secret_key(owner: &ObjectKey, reference: &SecretKeyRef) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&owner.namespace), &reference.name)
}

fn too_large(field: &str, reference: &SecretKeyRef, limit: u64) -> Diagnostic {
    let SecretKeyRef { name, key, .. } = reference;
    let message = format!(
        "with key {key} of Secret {name}, what Secrets add to the configuration is larger than {} KiB",
        limit / 1024
    );
    let remedy = "remove what is not needed, or use several plugins; docs/limits.md explains how the size is counted";
    Diagnostic::error(field, message, remedy).with_reason(OVER_BUDGET)
}

/// The beginning of a path.
fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_SHOWN_PATH)]
}

const MAX_SHOWN_PATH: usize = 200;

/// Like `add` of JSON Patch (RFC 6902), but creates missing parents.
fn apply_patch(root: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    // Each step may create a level, and functions that read the configuration are recursive.
    let step_count = pointer.bytes().filter(|byte| *byte == b'/').count();
    if step_count > MAX_PATCH_STEPS {
        return Err(format!("the path has {step_count} steps, which is more than the limit of {MAX_PATCH_STEPS}"));
    }
    if pointer.is_empty() {
        *root = value;
        return Ok(());
    }
    let Some(path) = pointer.strip_prefix('/') else { return Err("the path does not start with a slash".to_owned()) };
    let mut steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop().unwrap_or_default();
    let mut target = root;
    for step in steps {
        if target.is_null() {
            *target = Value::Object(Map::new());
        }
        target = match target {
            Value::Object(fields) => fields.entry(step).or_insert(Value::Null),
            Value::Array(items) => {
                let index: usize =
                    step.parse().map_err(|_| format!("{step:?} is not an index of the list that contains it"))?;
                let length = items.len();
                items
                    .get_mut(index)
                    .ok_or_else(|| format!("index {index} is out of range, since its list has {length} entries"))?
            }
            _ => return Err(format!("{step:?} has no object or list as its parent")),
        };
    }
    if target.is_null() {
        *target = Value::Object(Map::new());
    }
    match target {
        Value::Object(fields) => drop(fields.insert(last, value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let index: usize =
                last.parse().map_err(|_| format!("{last:?} is not an index of the list that contains it"))?;
            if index > items.len() {
                return Err(format!("index {index} is out of range, since its list has {} entries", items.len()));
            }
            items.insert(index, value);
        }
        _ => return Err(format!("{last:?} has no object or list as its parent")),
    }
    Ok(())
}

/// More than the levels of any plugin's configuration.
const MAX_PATCH_STEPS: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Kind;
    use crate::store::{AnyObject, Batch};

    // docs/kong-compatibility.md, 1.3
    #[test]
    fn patches_create_missing_parents() {
        let cases = [
            (json!({}), "", json!({"a": 1}), Ok(json!({"a": 1}))),
            (json!({"a": 1}), "/a", json!(2), Ok(json!({"a": 2}))),
            (json!({}), "/redis/password", json!("s"), Ok(json!({"redis": {"password": "s"}}))),
            (json!({"redis": null}), "/redis/password", json!("s"), Ok(json!({"redis": {"password": "s"}}))),
            (
                json!({"add": {"x": 1}}),
                "/add/headers",
                json!(["a:b"]),
                Ok(json!({"add": {"x": 1, "headers": ["a:b"]}})),
            ),
            (json!({"l": [1, 3]}), "/l/1", json!(2), Ok(json!({"l": [1, 2, 3]}))),
            (json!({"l": [1]}), "/l/-", json!(2), Ok(json!({"l": [1, 2]}))),
            (json!({"l": [{}]}), "/l/0/a", json!(2), Ok(json!({"l": [{"a": 2}]}))),
            (json!({}), "/a~1b/c~0d", json!(1), Ok(json!({"a/b": {"c~d": 1}}))),
            (json!({}), "a", json!(1), Err("slash")),
            (json!({"a": 1}), "/a/b", json!(1), Err("no object or list")),
            (json!({"l": [1]}), "/l/3", json!(1), Err("1 entries")),
            (json!({"l": [1]}), "/l/x/y", json!(1), Err("not an index")),
            (json!({}), &"/a".repeat(33), json!(1), Err("33 steps, which is more than the limit of 32")),
        ];
        for (mut config, pointer, value, expected) in cases {
            let outcome = apply_patch(&mut config, pointer, value);
            match expected {
                Ok(expected) => assert_eq!((outcome, config), (Ok(()), expected), "{pointer}"),
                Err(message) => assert!(outcome.unwrap_err().contains(message), "{pointer}"),
            }
        }
    }

    #[test]
    fn only_cluster_plugins_read_secrets_of_any_namespace() {
        let secret = json!({"metadata": {"namespace": "b", "name": "s"}, "stringData": {"key": "{\"minute\": 5}"}});
        let mut store = Store::default();
        let secret = AnyObject::parse(Kind::Secret, secret).unwrap();
        store.apply(Batch { upserts: vec![secret], removes: vec![] });
        let reference = json!({"name": "s", "key": "key", "namespace": "b"});
        for source in [
            json!({"configFrom": {"secretKeyRef": reference}}),
            json!({"configPatches": [{"path": "", "valueFrom": {"secretKeyRef": reference}}]}),
        ] {
            let mut plugin = json!({"metadata": {"name": "p"}, "plugin": "rate-limiting"});
            plugin.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            let AnyObject::KongClusterPlugin(plugin) = AnyObject::parse(Kind::KongClusterPlugin, plugin).unwrap()
            else {
                panic!("not a KongClusterPlugin")
            };
            let build_for = |owner: &ObjectKey| Ok(build(&store, owner, &plugin.settings, 1000)?.0);
            assert_eq!(build_for(&ObjectKey::cluster("p")), Ok(json!({"minute": 5})));
            let problem = build(&store, &ObjectKey::cluster("p"), &plugin.settings, 30).unwrap_err();
            assert_eq!(problem.reason, OVER_BUDGET);
            assert!(problem.to_string().contains("with key key of Secret s"), "{problem}");
            assert_eq!(build_for(&ObjectKey::new("b", "p")), Ok(json!({"minute": 5})));
            let problem: Result<Value, Diagnostic> = build_for(&ObjectKey::new("a", "p"));
            let problem = problem.unwrap_err().to_string();
            assert!(problem.contains("secretKeyRef.namespace: KongPlugins cannot use Secrets"), "{problem}");
        }
    }

    #[test]
    fn references_in_a_configuration_become_text() {
        let mut store = Store::default();
        let objects = [
            (
                Kind::Secret,
                json!({"metadata": {"namespace": "a", "name": "s"}, "stringData": {"k": "line 1\nline 2\n"}}),
            ),
            (Kind::ConfigMap, json!({"metadata": {"namespace": "a", "name": "m"}, "data": {"k": "text"}})),
        ];
        let upserts = objects.map(|(kind, object)| AnyObject::parse(kind, object).unwrap());
        store.apply(Batch { upserts: upserts.into(), removes: vec![] });
        let reference = |field: &str, name: &str, key: &str| json!({(field): {"name": name, "key": key}});
        let build = |config: Value, limit: u64| {
            let plugin = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "x", "config": config});
            let AnyObject::KongPlugin(plugin) = AnyObject::parse(Kind::KongPlugin, plugin).unwrap() else {
                panic!("not a KongPlugin")
            };
            Ok(build(&store, &plugin.meta.key, &plugin.settings, limit)?.0)
        };
        let config = json!({
            "keys": ["a", reference("secretKeyRef", "s", "k")],
            "nested": {"text": reference("configMapKeyRef", "m", "k"), "kept": {"secretKeyRef": "text"}},
        });
        let expected = json!({
            "keys": ["a", "line 1\nline 2\n"], "nested": {"text": "text", "kept": {"secretKeyRef": "text"}},
        });
        assert_eq!(build(config, 1000), Ok(expected));
        for (value, limit, expected) in [
            (reference("secretKeyRef", "none", "k"), 1000, "config.keys[0].secretKeyRef.name: "),
            (reference("secretKeyRef", "s", "none"), 1000, "config.keys[0].secretKeyRef.key: "),
            (reference("configMapKeyRef", "m", "none"), 1000, "config.keys[0].configMapKeyRef.key: "),
            (reference("configMapKeyRef", "m", "k"), 3, "config.keys[0].configMapKeyRef: with key k of"),
            (
                json!({"secretKeyRef": {"name": "s", "key": "k", "namespace": "b"}}),
                1000,
                "config.keys[0].secretKeyRef.namespace: KongPlugins cannot use Secrets",
            ),
        ] {
            let problem: Result<Value, Diagnostic> = build(json!({"keys": [value.clone()]}), limit);
            let problem = problem.unwrap_err().to_string();
            assert!(problem.contains(expected), "{value}: {problem}");
        }
    }

    #[test]
    fn configuration_hash_does_not_depend_on_secret_values() {
        let hash_of = |config: Value, secret: Value| {
            let mut store = Store::default();
            store.apply(Batch { upserts: vec![AnyObject::parse(Kind::Secret, secret).unwrap()], removes: vec![] });
            let patches = json!([{"path": "/redis/host", "valueFrom": {"secretKeyRef": {"name": "s", "key": "host"}}}]);
            let plugin = json!({
                "metadata": {"namespace": "a", "name": "p"}, "plugin": "rate-limiting", "config": config,
                "configPatches": patches,
            });
            let AnyObject::KongPlugin(plugin) = AnyObject::parse(Kind::KongPlugin, plugin).unwrap() else {
                panic!("not a KongPlugin")
            };
            self::configuration_hash(&store, &plugin.meta.key, &plugin.settings)
        };
        let config = |minute: u32, password: &str| json!({"minute": minute, "redis": {"password": password}});
        let secret = |version: &str, host: &str| {
            let metadata = json!({"namespace": "a", "name": "s", "resourceVersion": version});
            json!({"metadata": metadata, "stringData": {"host": host}})
        };
        let first = hash_of(config(5, "one"), secret("1", "one"));
        assert_eq!(
            first,
            hash_of(config(5, "one"), secret("1", "two")),
            "the resource version counts, not the content"
        );
        assert_eq!(first, hash_of(config(5, "two"), secret("1", "one")), "secret fields are excluded");
        let reordered = json!({"redis": {"password": "one"}, "minute": 5});
        assert_ne!(reordered.to_string(), config(5, "one").to_string(), "serialization keeps the order");
        assert_eq!(first, hash_of(reordered, secret("1", "one")), "order does not matter");
        assert_ne!(first, hash_of(config(6, "one"), secret("1", "one")));
        assert_ne!(first, hash_of(config(5, "one"), secret("2", "one")));
    }
}
