//! Values that Kong writes although they were not set. Its Admin API and decK write every field of a configuration,
//! also those that a plugin here does not have, so these fields are accepted with a value that asks for nothing.

use serde_json::{Map, Value};

/// Fields that have the same value in Kong if they are not set. With it, a field counts as unset here; another value of
/// a field that the plugin does not have is an error.
#[derive(Clone, Copy, Debug)]
pub struct DumpedFields {
    /// Paths below `config`. `[]` after the name of a list stands for each of its elements.
    pub fields: &'static [&'static str],
    pub value: DumpedValue,
    /// The first version of Kong with one of the fields, or `3.4` for an older one.
    pub since: &'static str,
    /// A field of the same object, and the value of it with which they have an effect in any case.
    pub unless: Option<(&'static str, &'static str)>,
}

/// The value of a field in Kong if it is not set.
#[derive(Clone, Copy, Debug)]
pub enum DumpedValue {
    /// Null, or a list or an object without content, which are the same in Lua.
    Nothing,
    Flag(bool),
    Number(f64),
    Text(&'static str),
    /// A set, in any order.
    Texts(&'static [&'static str]),
    /// An object with fields that have these values, or null.
    Record(&'static [(&'static str, DumpedValue)]),
    /// Any number, because versions and plugins have different ones, and it has no effect here.
    AnyNumber,
    /// Any value, because another field, which has only one value here, decides that it has no effect.
    Anything,
}

impl DumpedFields {
    pub const fn new(fields: &'static [&'static str], value: DumpedValue, since: &'static str) -> Self {
        DumpedFields { fields, value, since, unless: None }
    }

    /// The same, unless another field of the object has a value with which they have an effect.
    #[must_use]
    pub const fn unless(self, field: &'static str, value: &'static str) -> Self {
        DumpedFields { unless: Some((field, value)), ..self }
    }

    /// Removes the fields that have the value.
    pub fn remove_from(&self, config: &mut Map<String, Value>) {
        for path in self.fields {
            self.remove(config, path);
        }
    }

    fn remove(&self, object: &mut Map<String, Value>, path: &str) {
        match path.split_once('.') {
            None => {
                let has_effect =
                    self.unless.is_some_and(|(field, value)| object.get(field) == Some(&Value::from(value)));
                if !has_effect && object.get(path).is_some_and(|found| self.value.is(found)) {
                    object.shift_remove(path);
                }
            }
            Some((parent, rest)) => match (object.get_mut(parent.trim_end_matches("[]")), parent.ends_with("[]")) {
                (Some(Value::Object(fields)), false) => self.remove(fields, rest),
                (Some(Value::Array(items)), true) => {
                    for fields in items.iter_mut().filter_map(Value::as_object_mut) {
                        self.remove(fields, rest);
                    }
                }
                _ => {}
            },
        }
    }
}

impl DumpedValue {
    fn is(self, value: &Value) -> bool {
        let is_nothing = match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        match self {
            DumpedValue::AnyNumber => value.is_number(),
            DumpedValue::Anything => true,
            DumpedValue::Nothing => is_nothing,
            DumpedValue::Flag(flag) => value.as_bool() == Some(flag),
            DumpedValue::Number(number) => value.as_f64() == Some(number),
            DumpedValue::Text(text) => value.as_str() == Some(text),
            DumpedValue::Texts(texts) => value.as_array().is_some_and(|items| {
                // Each text, and not only known ones: a list with one of them several times is a setting.
                let occurs = |text: &&str| items.iter().any(|item| item.as_str() == Some(*text));
                items.len() == texts.len() && texts.iter().all(occurs)
            }),
            DumpedValue::Record(defaults) => value.as_object().is_some_and(|fields| {
                fields.iter().all(|(name, value)| {
                    let default = defaults.iter().find(|(known, _)| known == name);
                    default.is_some_and(|(_, default)| DumpedValue::Nothing.is(value) || default.is(value))
                })
            }),
        }
    }

    /// How the value is written, for messages and pages.
    pub fn shown(self) -> String {
        match self {
            DumpedValue::Nothing => "null".to_owned(),
            DumpedValue::Flag(flag) => flag.to_string(),
            DumpedValue::Number(number) => number.to_string(),
            DumpedValue::Text(text) => format!("{text:?}"),
            DumpedValue::Texts(texts) => format!("[{}]", texts.join(", ")),
            DumpedValue::Record(_) => "defaults in each of its fields".to_owned(),
            DumpedValue::AnyNumber => "any number, which has no effect".to_owned(),
            DumpedValue::Anything => "any value, which has no effect".to_owned(),
        }
    }
}

/// The default of a field, by its path in a configuration, such as `redis.host` or `nodes[1].port`.
pub(super) fn of_field(rows: &[DumpedFields], path: &str) -> Option<DumpedValue> {
    let mut general = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        general = general + before + "[]";
        rest = after.split_once(']').map_or("", |(_, rest)| rest);
    }
    general += rest;
    rows.iter().find(|row| row.fields.contains(&&*general)).map(|row| row.value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_defaults_are_removed() {
        const ROWS: &[DumpedFields] = &[
            DumpedFields::new(&["a"], DumpedValue::Flag(false), "3.4"),
            DumpedFields::new(&["b", "list[].b"], DumpedValue::Nothing, "3.4"),
            DumpedFields::new(&["c"], DumpedValue::Texts(&["x", "y"]), "3.4"),
            DumpedFields::new(&["below.d"], DumpedValue::Number(1.0), "3.4"),
            DumpedFields::new(&["e"], DumpedValue::Record(&[("f", DumpedValue::Text("x"))]), "3.4").unless("s", "on"),
        ];
        let removed = |config: Value| {
            let Value::Object(mut config) = config else { unreachable!("the cases are objects") };
            ROWS.iter().for_each(|row| row.remove_from(&mut config));
            Value::Object(config)
        };
        for (config, expected) in [
            (json!({"a": false, "b": {}, "c": ["y", "x"], "below": {"d": 1}}), json!({"below": {}})),
            (json!({"a": true, "b": [1], "c": ["x"]}), json!({"a": true, "b": [1], "c": ["x"]})),
            (json!({"c": ["x", "x"]}), json!({"c": ["x", "x"]})),
            (json!({"list": [{"b": [], "x": 1}, {"b": "t"}]}), json!({"list": [{"x": 1}, {"b": "t"}]})),
            (json!({"below": {"d": 2}, "c": "x"}), json!({"below": {"d": 2}, "c": "x"})),
            (json!({"e": {"f": "x"}, "s": "off"}), json!({"s": "off"})),
            (json!({"e": {}}), json!({})),
            (json!({"e": {"f": "x"}, "s": "on"}), json!({"e": {"f": "x"}, "s": "on"})),
            (json!({"e": {"f": "y"}}), json!({"e": {"f": "y"}})),
            (json!({"e": {"g": "x"}}), json!({"e": {"g": "x"}})),
        ] {
            assert_eq!(removed(config.clone()), expected, "{config}");
        }
    }
}
