//! Replaces references to values of vaults in the configuration of a plugin, and in its KongCustomEntities. Any text
//! may be a reference, as a whole.

use std::sync::Arc;

use serde_json::Value;

use super::hidden_values::Origin;
use crate::api::kong::VaultReference;
use crate::compile::CompileContext;
use crate::compile::kong::vaults::{self, ResolvedValue};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::vault::VaultQuery;

/// What the references in a configuration, or in the fields of an entity, have led to.
#[derive(Debug, Default)]
pub(super) struct ResolvedReferences {
    /// The problem of the first reference without a value.
    pub problem: Option<Diagnostic>,
    /// Whether some value is not known to this process, which will not serve requests.
    pub is_unknown: bool,
    pub has_references: bool,
    /// Where the values are.
    pub origins: Vec<Origin>,
    /// What must be read from servers, whether they have responded or not.
    pub queries: Vec<Arc<VaultQuery>>,
}

impl ResolvedReferences {
    fn report(&mut self, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problem.get_or_insert_with(|| Diagnostic::error(field, message, remedy));
    }
}

/// Resolves the references of one plugin. Its configuration and its entities share the limits.
pub(super) struct VaultResolver<'a> {
    cx: CompileContext<'a>,
    resolved: ResolvedReferences,
    count: usize,
    bytes: u64,
    max_bytes: u64,
}

impl<'a> VaultResolver<'a> {
    /// All values may have `max_bytes` together.
    pub(super) fn new(cx: CompileContext<'a>, max_bytes: u64) -> Self {
        VaultResolver { cx, resolved: ResolvedReferences::default(), count: 0, bytes: 0, max_bytes }
    }

    /// Replaces all references in `value`, whose path in its object is `path`.
    pub(super) fn resolve(&mut self, value: &mut Value, path: &str) -> ResolvedReferences {
        self.visit(value, path, 0);
        std::mem::take(&mut self.resolved)
    }

    /// Configurations have a limited number of levels, which the store checks.
    fn visit(&mut self, value: &mut Value, path: &str, level: usize) {
        match value {
            Value::String(text) if VaultReference::is_meant(text) => {
                if let Some(known) = self.value_of(text, path) {
                    *text = known;
                }
            }
            Value::Array(items) if level < MAX_LEVELS => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.visit(item, &format!("{path}[{index}]"), level + 1);
                }
            }
            Value::Object(fields) if level < MAX_LEVELS => {
                for (name, field) in fields {
                    self.visit(field, &format!("{path}.{name}"), level + 1);
                }
            }
            Value::Array(_) | Value::Object(_) => {
                self.resolved.report(path, "it has too many levels to look for references", "nest it less deeply");
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn value_of(&mut self, text: &str, path: &str) -> Option<String> {
        self.resolved.has_references = true;
        self.resolved.origins.push(Origin::of_vault(path, text));
        self.count += 1;
        if self.count > MAX_REFERENCES {
            let message = format!("the plugin and its entities have more than {MAX_REFERENCES} references to vaults");
            self.resolved.report(path, message, "use fewer, or several plugins");
            return None;
        }
        let reference = match VaultReference::parse(text) {
            Ok(reference) => reference,
            Err(message) => {
                let message = format!("the reference to a vault is malformed: {message}");
                self.resolved.report(path, message, "write {vault://PREFIX/PATH/KEY}");
                return None;
            }
        };
        let (value, query) = vaults::resolve(self.cx, &reference);
        self.resolved.queries.extend(query);
        match value {
            ResolvedValue::Known(value) => {
                self.bytes = self.bytes.saturating_add(value.len() as u64);
                if self.bytes > self.max_bytes {
                    let message = format!("the values of vaults are larger than {} KiB", self.max_bytes / 1024);
                    self.resolved.report(path, message, "use smaller values, or several plugins");
                    return None;
                }
                if let Some(origin) = self.resolved.origins.last_mut() {
                    origin.add_texts(&Value::String(value.clone()));
                }
                return Some(value);
            }
            ResolvedValue::Missing(message, remedy) => self.resolved.report(path, message, remedy),
            ResolvedValue::Unknown => self.resolved.is_unknown = true,
        }
        None
    }
}

/// More than any plugin has secrets.
const MAX_REFERENCES: usize = 32;
/// More levels than the configuration of any plugin has.
const MAX_LEVELS: usize = 32;
