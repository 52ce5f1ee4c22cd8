//! What Secrets and vaults contribute to the configuration of a plugin, and diagnostics that do not reveal it.
//!
//! A message may quote a value in any form: cut, decoded, in lower case, together with others. So no message is
//! searched for values. A diagnostic is shown as it is only if a configuration gives it, too, that has placeholders in
//! place of the values. Of any other one, the message names the reference instead, and has the remedy only if a
//! placeholder gives the same one.
//!
//! ```text
//!   configuration ─ build ─▶ diagnostics ─┬─ also with a placeholder ─▶ as they are
//!   with placeholders ─ build ─▶ ─────────┘  otherwise ─▶ "the value of key host of Secret redis is not valid here"
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::api::kong::SecretKeyRef;
use crate::api::kong::VaultReference;
use crate::diagnostic::{Diagnostic, Reason};
use crate::plugin_api::AnyPluginKind;
use crate::plugin_api::hidden_texts::HiddenTexts;
use crate::plugin_chain::factory::{BuiltPlugin, PluginFactory};

/// A value that is not in the object itself.
#[derive(Clone)]
pub(super) struct Origin {
    /// Where it is in the configuration: `config.redis.password`, or `config` for the whole.
    path: String,
    /// The field of the object that refers to it.
    field: String,
    /// The reference, such as `key password of Secret redis`.
    name: String,
    /// The texts of the value.
    texts: Vec<Box<str>>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Origin").field("path", &self.path).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Origin {
    /// `field` refers to a Secret, whose value is at `path`.
    pub(super) fn of_secret(path: impl Into<String>, field: impl Into<String>, reference: &SecretKeyRef) -> Self {
        let SecretKeyRef { name, key, .. } = reference;
        let name = format!("key {key} of Secret {name}");
        Origin { path: path.into(), field: field.into(), name, texts: Vec::new() }
    }

    pub(super) fn of_vault(path: &str, reference: &str) -> Self {
        Origin { path: path.to_owned(), field: path.to_owned(), name: reference.to_owned(), texts: Vec::new() }
    }

    /// Adds the texts of the value.
    pub(super) fn add_texts(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.texts.push(text.as_str().into()),
            Value::Array(items) => items.iter().for_each(|item| self.add_texts(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.add_texts(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds the texts of other origins.
    pub(super) fn add_texts_of(&mut self, others: &[Origin]) {
        self.texts.extend(others.iter().flat_map(|other| other.texts.iter().cloned()));
    }

    /// The value is at the path of a JSON pointer in the configuration.
    pub(super) fn of_patch(pointer: &str, field: impl Into<String>, reference: &SecretKeyRef) -> Self {
        let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        // `-` is the end of a list, whose length is not known here.
        let steps: Vec<String> = steps.take_while(|step| step != "-").collect();
        let path = std::iter::once("config".to_owned()).chain(steps).collect::<Vec<_>>().join(".");
        Origin::of_secret(path, field, reference)
    }

    /// Whether the value is at, above or below a field.
    fn concerns(&self, field: &str) -> bool {
        steps(&self.path).zip(steps(field)).all(|(own, other)| own == other)
    }
}

/// The steps of a path: `config.a[0]` and `config.a.0` have the same ones.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty())
}

/// The diagnostic without the value to which its field refers, if it does. For diagnostics about what a plugin names
/// after it was built.
pub(super) fn hide_value_at_field(origins: &[Origin], diagnostic: Diagnostic) -> Diagnostic {
    match origins.iter().find(|origin| origin.concerns(&diagnostic.field)) {
        Some(origin) => hidden(diagnostic, origin, &[]),
        None => diagnostic,
    }
}

/// What stands in place of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placeholder<'n> {
    /// In place of each text. `None`: the name of its reference.
    text: Option<&'static str>,
    /// The names of fields that the plugin has. A document may contain other ones, which may be values in the wrong
    /// place.
    known_fields: &'n BTreeSet<String>,
}

/// Several, because each plugin checks other texts, and some stop at the first error.
const TEXTS: [Option<&str>; 8] =
    [None, Some("a"), Some("a.example"), Some("http://a.example/a"), Some("/a"), Some("a:b"), Some("1"), Some("{}")];

impl Placeholder<'_> {
    /// The value with placeholders in place of its texts, numbers and the names of unknown fields.
    pub(super) fn fill(self, value: &Value, origin: &Origin) -> Value {
        match value {
            Value::String(_) => Value::String(self.text.unwrap_or(&origin.name).to_owned()),
            Value::Number(_) => Value::from(1),
            Value::Array(items) => items.iter().map(|item| self.fill(item, origin)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| {
                    let name = if self.known_fields.contains(name) { name.clone() } else { UNKNOWN_FIELD.to_owned() };
                    (name, self.fill(value, origin))
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }

    /// Replaces the references to vaults. Configurations have a limited number of levels.
    pub(super) fn fill_vaults(self, value: &mut Value) {
        match value {
            Value::String(text) if VaultReference::is_meant(text) => {
                if let Some(placeholder) = self.text {
                    placeholder.clone_into(text);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill_vaults(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.fill_vaults(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// In place of the name of a field that the plugin does not have.
const UNKNOWN_FIELD: &str = "unknown";

/// Builds a plugin, whose diagnostics do not reveal values. `origins`: where the configuration has them.
/// `without_values`: the configuration with placeholders.
pub(super) fn build(
    factory: &PluginFactory,
    kind: &dyn AnyPluginKind,
    object: &str,
    config: &Value,
    origins: &[Origin],
    without_values: &dyn Fn(Placeholder<'_>) -> Option<Value>,
) -> Result<BuiltPlugin, Vec<Diagnostic>> {
    // Held until the plugin has its servers, whose messages contain none of the texts.
    let hidden_texts = HiddenTexts::of_object(&factory.state, object);
    for origin in origins {
        origin.texts.iter().for_each(|text| hidden_texts.add(&origin.name, text));
    }
    let built = factory.build(kind, object, config);
    let has_diagnostics = built.as_ref().map_or(true, |(_, notes)| !notes.is_empty());
    if origins.is_empty() || !has_diagnostics {
        return built;
    }
    let mut known_fields = BTreeSet::new();
    collect_fields(kind.schema().as_value(), &mut known_fields);
    // Without access to servers, and with a state of its own: what is built here serves nothing.
    let offline = PluginFactory::offline(factory.registry);
    let mut public = Vec::new();
    for text in TEXTS {
        let Some(config) = without_values(Placeholder { text, known_fields: &known_fields }) else { continue };
        match offline.build(kind, object, &config) {
            Ok((_, notes)) => public.extend(notes),
            Err(problems) => public.extend(problems),
        }
    }
    let hide = |diagnostics: Vec<Diagnostic>| {
        let mut shown: Vec<Diagnostic> = Vec::new();
        for diagnostic in diagnostics {
            let diagnostic = if public.contains(&diagnostic) {
                diagnostic
            } else {
                let concerned = origins.iter().find(|origin| origin.concerns(&diagnostic.field));
                hidden(diagnostic, concerned.unwrap_or(&origins[0]), &public)
            };
            if !shown.contains(&diagnostic) {
                shown.push(diagnostic);
            }
        }
        shown
    };
    match built {
        Ok((plugin, notes)) => Ok((plugin, hide(notes))),
        Err(problems) => Err(hide(problems)),
    }
}

/// The diagnostic without the value. `public`: diagnostics that contain none.
fn hidden(diagnostic: Diagnostic, origin: &Origin, public: &[Diagnostic]) -> Diagnostic {
    let is_concerned = origin.concerns(&diagnostic.field);
    let is_public = |field: &str| public.iter().any(|public| public.field == field);
    let field = match () {
        // A step below the value may be a part of it.
        () if is_concerned && !is_public(&diagnostic.field) && diagnostic.field != origin.path => origin.field.clone(),
        () => diagnostic.field.clone(),
    };
    let is_unknown = diagnostic.reason == Reason::UnknownField;
    let message = match () {
        () if is_unknown && is_concerned => format!("the value of {} has an unknown field", origin.name),
        () if is_concerned => format!("the value of {} is not valid here", origin.name),
        () => format!("it is not valid together with the value of {}", origin.name),
    };
    let same_remedy = public.iter().any(|public| public.remedy == diagnostic.remedy && public.field == field);
    let remedy = if same_remedy { diagnostic.remedy } else { REMEDY.to_owned() };
    let reason = if is_unknown { Reason::UnknownField } else { Reason::default() };
    Diagnostic { field, message, remedy, reason, ..diagnostic }
}

const REMEDY: &str = "see the plugin's reference page for the values that this field can have; no message shows values \
                      of Secrets and vaults";

/// Adds the names of all fields that a schema has at any level.
fn collect_fields(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                names.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| collect_fields(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_fields(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
