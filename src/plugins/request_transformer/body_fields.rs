//! Editing of the members of a JSON object. Members that are not edited keep their text and their order.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::edits::EditableFields;

pub(super) struct JsonFields<'r> {
    members: IndexMap<Cow<'r, str>, Cow<'r, RawValue>>,
}

impl<'r> JsonFields<'r> {
    /// The members of the object. An empty body has none. `None` if the body is not an object.
    pub(super) fn parse(body: &'r [u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(JsonFields { members: IndexMap::new() });
        }
        let members: IndexMap<Cow<'r, str>, &'r RawValue> = serde_json::from_slice(body).ok()?;
        Some(JsonFields { members: members.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.members).expect("names are strings, and values are JSON")
    }
}

impl EditableFields<Box<str>> for JsonFields<'_> {
    fn contains(&self, name: &Box<str>) -> bool {
        self.members.contains_key(&**name)
    }

    fn remove(&mut self, name: &Box<str>) {
        self.members.shift_remove(&**name);
    }

    fn rename(&mut self, name: &Box<str>, new_name: &Box<str>) {
        if name == new_name {
            return;
        }
        self.members.shift_remove(&**new_name);
        if let Some((index, _, value)) = self.members.shift_remove_full(&**name) {
            self.members.shift_insert(index, Cow::Owned(new_name.to_string()), value);
        }
    }

    fn replace(&mut self, name: &Box<str>, value: Option<&[u8]>) -> Result<(), &'static str> {
        let value = raw(&Value::String(text(value)?))?;
        self.members.insert(Cow::Owned(name.to_string()), value);
        Ok(())
    }

    fn add(&mut self, name: &Box<str>, value: Option<&[u8]>) -> Result<(), &'static str> {
        self.replace(name, value)
    }

    /// The result is a list.
    fn append(&mut self, name: &Box<str>, value: Option<&[u8]>) -> Result<(), &'static str> {
        let new = raw(&Value::String(text(value)?))?;
        let existing = self.members.get(&**name).map(|existing| &**existing);
        // The existing values keep their text, so numbers keep their digits.
        let mut values: Vec<&RawValue> = match existing {
            None => Vec::new(),
            Some(existing) if existing.get() == "null" => Vec::new(),
            Some(existing) => serde_json::from_str(existing.get()).unwrap_or_else(|_| vec![existing]),
        };
        values.push(&new);
        let values = to_raw_value(&values).map_err(|_| NOT_TEXT)?;
        self.members.insert(Cow::Owned(name.to_string()), Cow::Owned(values));
        Ok(())
    }
}

const NOT_TEXT: &str = "the value is not UTF-8, which JSON requires";

fn text(value: Option<&[u8]>) -> Result<String, &'static str> {
    String::from_utf8(value.unwrap_or_default().to_vec()).map_err(|_| NOT_TEXT)
}

fn raw<'v>(value: &Value) -> Result<Cow<'v, RawValue>, &'static str> {
    to_raw_value(value).map(Cow::Owned).map_err(|_| NOT_TEXT)
}
