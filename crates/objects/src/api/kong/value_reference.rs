//! References in the configuration of a plugin to text in Secrets and ConfigMaps: an object such as
//! `{secretKeyRef: {name: signing, key: tls.key}}` in place of a string.

use serde_json::{Map, Value};

use super::secret_ref::SecretKeyRef;
use crate::api::Kind;

/// A reference in place of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueReference {
    /// Secret or ConfigMap.
    pub kind: Kind,
    /// The name of its field: `secretKeyRef` or `configMapKeyRef`.
    pub field: &'static str,
    pub target: SecretKeyRef,
}

const FIELDS: [(&str, Kind); 2] = [("secretKeyRef", Kind::Secret), ("configMapKeyRef", Kind::ConfigMap)];

impl ValueReference {
    /// The reference that a value is. `None` for all other values.
    pub fn parse(value: &Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| fields.len() == 1)?;
        let (name, target) = fields.iter().next()?;
        let (field, kind) = FIELDS.into_iter().find(|(field, _)| field == name)?;
        let target = target.as_object()?;
        let text = |name: &str| target.get(name)?.as_str().map(str::to_owned);
        // All fields are those of a reference, so a setting that looks like one is not replaced.
        let is_known = |name: &String| ["name", "key", "namespace"].contains(&name.as_str());
        if !target.keys().all(is_known) {
            return None;
        }
        let namespace = match target.get("namespace") {
            None | Some(Value::Null) => None,
            Some(namespace) => Some(namespace.as_str()?.to_owned()),
        };
        Some(ValueReference { kind, field, target: SecretKeyRef { name: text("name")?, key: text("key")?, namespace } })
    }

    /// All references in a configuration, each with its path, such as `keys[0]`.
    pub fn find_all(config: &Map<String, Value>) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        for (name, value) in config {
            collect(value, name, 0, &mut found);
        }
        found
    }

    /// Replaces all references in a configuration by what `resolve` returns, which gets the path of each. The first
    /// error ends it.
    pub fn replace_all<E>(
        config: &mut Map<String, Value>,
        resolve: &mut impl FnMut(&str, &Self) -> Result<String, E>,
    ) -> Result<(), E> {
        config.iter_mut().try_for_each(|(name, value)| replace(value, name, 0, resolve))
    }
}

fn replace<E>(
    value: &mut Value,
    path: &str,
    level: usize,
    resolve: &mut impl FnMut(&str, &ValueReference) -> Result<String, E>,
) -> Result<(), E> {
    if level > MAX_LEVELS {
        return Ok(());
    }
    if let Some(reference) = ValueReference::parse(value) {
        *value = Value::String(resolve(path, &reference)?);
        return Ok(());
    }
    match value {
        Value::Object(fields) => fields
            .iter_mut()
            .try_for_each(|(name, value)| replace(value, &format!("{path}.{name}"), level + 1, resolve)),
        Value::Array(items) => {
            let mut items = items.iter_mut().enumerate();
            items.try_for_each(|(index, value)| replace(value, &format!("{path}[{index}]"), level + 1, resolve))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn collect(value: &Value, path: &str, level: usize, found: &mut Vec<(String, ValueReference)>) {
    if level > MAX_LEVELS {
        return;
    }
    if let Some(reference) = ValueReference::parse(value) {
        found.push((path.to_owned(), reference));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, &format!("{path}.{name}"), level + 1, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(value, &format!("{path}[{index}]"), level + 1, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// More levels than the configuration of any plugin has.
const MAX_LEVELS: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_objects_of_the_form_of_a_reference_are_references() {
        let config = json!({
            "keys": [{"secretKeyRef": {"name": "a", "key": "tls.key"}}, "text"],
            "nested": {"ca": {"configMapKeyRef": {"name": "b", "key": "ca.crt", "namespace": "ns"}}},
            "headers": {"secretKeyRef": "text"},
            "no_key": {"secretKeyRef": {"name": "a"}},
            "more": {"secretKeyRef": {"name": "a", "key": "b", "optional": true}},
            "two": {"secretKeyRef": {"name": "a", "key": "b"}, "other": 1},
        });
        let found = ValueReference::find_all(config.as_object().unwrap());
        let found: Vec<_> = found
            .iter()
            .map(|(path, reference)| {
                let SecretKeyRef { name, key, namespace } = &reference.target;
                (&**path, reference.field, &**name, &**key, namespace.as_deref())
            })
            .collect();
        let expected = [
            ("keys[0]", "secretKeyRef", "a", "tls.key", None),
            ("nested.ca", "configMapKeyRef", "b", "ca.crt", Some("ns")),
        ];
        assert_eq!(found, expected);
    }
}
