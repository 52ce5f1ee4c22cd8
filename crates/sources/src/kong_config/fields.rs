//! Reads the fields of one entity: every field has a type, and a field that is not read is an error.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Reason};
use crate::manifests::LEFT_OUT;
use crate::schema::nearest;

/// What was found in a file. Shared by all readers of the file, none of which holds on to it.
#[derive(Debug, Default)]
pub(super) struct FileFindings {
    /// Why the file cannot be used at all.
    rejections: RefCell<Vec<Diagnostic>>,
    /// What is left out, as errors, and what differs, as warnings.
    notes: RefCell<Vec<Diagnostic>>,
    rejected: Cell<usize>,
}

impl FileFindings {
    pub(super) fn reject(&self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.add_rejection(Diagnostic::error(field, message, remedy));
    }

    pub(super) fn leave_out(&self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = Diagnostic::error(field, message, remedy);
        self.notes.borrow_mut().push(problem.with_reason(Reason::Named(LEFT_OUT)));
    }

    pub(super) fn differs(&self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        let note = Diagnostic::warning(field, message, remedy);
        self.notes.borrow_mut().push(note.with_reason(Reason::Named(DIFFERENCE)));
    }

    fn add_rejection(&self, problem: Diagnostic) {
        self.rejected.set(self.rejected.get() + 1);
        let mut rejections = self.rejections.borrow_mut();
        if rejections.len() < MAX_REJECTIONS {
            rejections.push(problem);
        }
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.get() > 0
    }

    /// The rejections, and the notes.
    pub(super) fn into_parts(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let mut rejections = self.rejections.into_inner();
        let hidden = self.rejected.get() - rejections.len();
        if hidden > 0 {
            let message = format!("{hidden} more problems in this file are not shown");
            rejections.push(Diagnostic::of_file("MoreProblems", message, "correct the shown ones first"));
        }
        (rejections, self.notes.into_inner())
    }
}

/// The fields of an entity that were not read yet.
pub(super) struct EntityFields<'f> {
    /// The path of the entity in the file.
    pub(super) path: String,
    values: Map<String, Value>,
    known: BTreeSet<&'static str>,
    /// The fields that only the defaults of the file have.
    defaults: BTreeSet<String>,
    /// The fields whose values have a wrong type, which is reported.
    mistyped: BTreeSet<&'static str>,
    pub(super) findings: &'f FileFindings,
}

impl<'f> EntityFields<'f> {
    /// The fields of a value, which has to be an object. `defaults`: the fields that it has if it does not name them.
    pub(super) fn new(
        path: String,
        value: Value,
        defaults: Option<&Map<String, Value>>,
        findings: &'f FileFindings,
    ) -> EntityFields<'f> {
        let mut values = match value {
            Value::Object(values) => values,
            other => {
                let message = format!("this is {}, and not an entity", type_name(&other));
                findings.reject(&path, message, "write its fields, each as `name: value`");
                Map::new()
            }
        };
        let mut added = BTreeSet::new();
        for (name, default) in defaults.into_iter().flatten() {
            if !values.contains_key(name) {
                values.insert(name.clone(), default.clone());
                added.insert(name.clone());
            }
        }
        EntityFields { path, values, known: BTreeSet::new(), defaults: added, mistyped: BTreeSet::new(), findings }
    }

    /// Whether the entity has a field only because the defaults of the file have it.
    pub(super) fn is_default(&self, name: &str) -> bool {
        self.defaults.contains(name)
    }

    pub(super) fn field(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether a field has a value other than null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// Adds fields to an object, which is created if it is missing. Fields that it has stay.
    pub(super) fn add_below(&mut self, name: &str, fields: &Map<String, Value>) {
        let object = self.values.entry(name.to_owned()).or_insert(Value::Null);
        if object.is_null() {
            *object = Value::Object(Map::new());
        }
        // Another type is reported when the field is read.
        if let Some(object) = object.as_object_mut() {
            for (name, value) in fields {
                object.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// The value of a field, which does not count as read.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The value of a field, which counts as read. Null is the same as no value.
    pub(super) fn value(&mut self, name: &'static str) -> Option<Value> {
        self.known.insert(name);
        self.values.shift_remove(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        convert: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Option<T> {
        let value = self.value(name)?;
        match convert(value) {
            Ok(value) => Some(value),
            Err(value) => {
                let message = format!("this is {}, and not {expected}", type_name(&value));
                self.reject_value(name, message, format!("write {expected}"));
                None
            }
        }
    }

    /// Rejects the value of a field.
    fn reject_value(&mut self, name: &'static str, message: String, remedy: impl Into<String>) {
        self.mistyped.insert(name);
        self.findings.reject(self.field(name), message, remedy);
    }

    /// Whether the value of a field that was read has a wrong type. That is reported, so the field is not missing.
    pub(super) fn is_mistyped(&self, name: &str) -> bool {
        self.mistyped.contains(name)
    }

    /// Rejects a field without a value. One of a wrong type is not missing.
    pub(super) fn reject_missing(&self, name: &str, message: &str, remedy: &str) {
        if !self.is_mistyped(name) {
            self.findings.reject(self.field(name), message, remedy);
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => {
                let (message, remedy) = not_a_text(&other);
                self.reject_value(name, message, remedy);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let value = self.value(name)?;
        let number = value.as_i64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
        let expected = format!("a whole number from {min} to {max}");
        let message = match number {
            Some(number) if (min..=max).contains(&number) => return Some(number),
            Some(number) if number > max => format!("{value} is more than {max}"),
            Some(_) => format!("{value} is less than {min}"),
            None if value.is_number() => format!("{value} is not a whole number"),
            None => format!("this is {}, and not {expected}", type_name(&value)),
        };
        self.reject_value(name, message, format!("write {expected}"));
        None
    }

    pub(super) fn decimal(&mut self, name: &'static str) -> Option<f64> {
        self.typed(name, "a number", |value| value.as_f64().ok_or(value))
    }

    pub(super) fn object(&mut self, name: &'static str) -> Option<Map<String, Value>> {
        self.typed(name, "an object with fields", |value| match value {
            Value::Object(fields) => Ok(fields),
            other => Err(other),
        })
    }

    pub(super) fn list(&mut self, name: &'static str) -> Option<Vec<Value>> {
        self.typed(name, "a list", |value| match value {
            Value::Array(items) => Ok(items),
            other => Err(other),
        })
    }

    /// Whether a list has entries. It counts as read.
    pub(super) fn has_entries(&mut self, name: &'static str) -> bool {
        self.list(name).is_some_and(|list| !list.is_empty())
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        for (index, item) in self.list(name)?.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => {
                    let (message, remedy) = not_a_text(&other);
                    self.findings.reject(format!("{}[{index}]", self.field(name)), message, remedy);
                }
            }
        }
        Some(texts)
    }

    /// A name that Kong accepts: letters, digits and some other characters.
    pub(super) fn check_name(&self, field: &str, name: &str) {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_~".contains(c) || !c.is_ascii() && !c.is_control();
        if name.is_empty() || !name.chars().all(is_allowed) {
            let message = format!("{name:?} is not a name");
            self.findings.reject(self.field(field), message, "write letters, digits, `.`, `-`, `_` and `~`");
        }
    }

    /// The tags, which Kong restricts: they are parts of paths and lists.
    pub(super) fn tags(&mut self) -> Vec<String> {
        let field = self.field("tags");
        let tags = self.texts("tags").unwrap_or_default();
        for (index, tag) in tags.iter().enumerate() {
            if tag.is_empty() || tag.contains([',', '/']) || tag.contains(char::is_control) {
                let message = format!("{tag:?} is not a tag");
                self.findings.reject(format!("{field}[{index}]"), message, "write a text without commas and slashes");
            }
        }
        tags
    }

    /// The entities of a list.
    pub(super) fn entities(
        &mut self,
        name: &'static str,
        defaults: Option<&Map<String, Value>>,
    ) -> Vec<EntityFields<'f>> {
        let base = self.field(name);
        let items = self.list(name).unwrap_or_default().into_iter().enumerate();
        items
            .map(|(index, item)| EntityFields::new(format!("{base}[{index}]"), item, defaults, self.findings))
            .collect()
    }

    /// A reference to another entity by its name or id: a text, or an object with one of these.
    pub(super) fn reference(&mut self, name: &'static str) -> Option<EntityReference> {
        let field = self.field(name);
        let (key, field) = match self.value(name)? {
            Value::String(key) => (Some(key), field),
            Value::Object(mut object) => {
                let found = ["id", "name", "username"].iter().find_map(|key| match object.shift_remove(*key)? {
                    Value::String(text) => Some(text),
                    _ => None,
                });
                (found, field)
            }
            _ => (None, field),
        };
        if key.is_none() {
            self.findings.reject(&field, "this refers to nothing", "write the name or the id of the other entity");
        }
        key.map(|key| EntityReference { key, field })
    }

    /// Reads what every entity has, and rejects fields that were not read.
    pub(super) fn finish(mut self) {
        // At the root, this is another collection.
        if !self.path.is_empty() {
            self.tags();
        }
        for name in ["created_at", "updated_at"] {
            self.decimal(name);
        }
        for name in ["ws_id", "_comment"] {
            self.text(name);
        }
        self.list("_ignore");
        for (name, _) in &self.values {
            let remedy = match nearest(name, self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`? Otherwise delete it"),
                None => "delete it, or correct its name".to_owned(),
            };
            let problem = Diagnostic::error(self.field(name), "this field is unknown", remedy);
            self.findings.add_rejection(problem.with_reason(Reason::UnknownField));
        }
    }
}

/// A reference to an entity, and the field that has it.
#[derive(Clone, Debug)]
pub(super) struct EntityReference {
    pub(super) key: String,
    pub(super) field: String,
}

/// The message and the remedy about a value that is no text. It may be a secret, so the message does not contain it.
fn not_a_text(value: &Value) -> (String, &'static str) {
    let remedy = match value {
        Value::Number(_) | Value::Bool(_) => "put it in quotes",
        _ => "write a text",
    };
    (format!("this is {}, and not a text", type_name(value)), remedy)
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The reason of what is served in another way than by Kong.
const DIFFERENCE: &str = "Difference";
/// Diagnostics that reject a file and are shown.
const MAX_REJECTIONS: usize = 1000;
