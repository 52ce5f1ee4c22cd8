//! What the fields of BackendPolicies need to have an effect, evaluated in one place, so that no field is ignored
//! silently.
//!
//! ```text
//!   table.rs   field ─▶ the traffic for which it has a meaning, and what else it needs
//!   mod.rs     a policy and the traffic of its targets ─▶ its fields without effect
//! ```
//!
//! A new field of the schema fails the tests until it has a row, with a policy in which it has an effect and one in
//! which it has none.

mod table;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::blocks::Block;
use crate::api::portico::BackendPolicySpec;
use crate::diagnostic::Diagnostic;
use table::FIELDS;

/// What the targets of a policy get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetTraffic {
    /// Also what is not known yet.
    Requests,
    /// Only routes for connections refer to the targets.
    Connections,
    /// All ports of the targets are UDP ports.
    Datagrams,
}

/// The traffic for which a field has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Any,
    /// Not for datagrams, whose sessions have no connections.
    Connections,
    /// For requests with responses only.
    Requests,
}

impl Meaning {
    /// Why a field has no meaning for this traffic.
    fn lacks(self, traffic: TargetTraffic) -> Option<&'static str> {
        match (self, traffic) {
            (_, TargetTraffic::Requests) | (Meaning::Any, _) | (Meaning::Connections, TargetTraffic::Connections) => {
                None
            }
            (_, TargetTraffic::Datagrams) => {
                Some("all ports of the targets are UDP ports, for which the field has no meaning")
            }
            (Meaning::Requests, TargetTraffic::Connections) => {
                Some("only routes for connections refer to the targets, for which the field has no meaning")
            }
        }
    }
}

/// What a field needs in addition.
enum Need {
    Nothing,
    /// Something else in the policy. Without it, the field has no effect, which is a remark.
    When {
        holds: fn(&PolicyFields<'_>) -> bool,
        message: &'static str,
        remedy: &'static str,
    },
    /// The same for the elements of a list: the positions of those without effect, with the message and the remedy.
    Elements(fn(&BackendPolicySpec) -> Vec<(usize, String, &'static str)>),
    /// Something else in the policy. Without it, the block is invalid, which the file of the block decides.
    ForValidity,
}

/// A field, and what it needs.
struct FieldNeeds {
    /// The path below `spec`. `[]` stands for the elements of a list.
    path: &'static str,
    meaning: Meaning,
    need: Need,
}

/// The values of the fields of a policy by path.
struct PolicyFields<'s>(&'s Value);

impl PolicyFields<'_> {
    /// `None` if the field is absent or empty.
    fn value(&self, path: &str) -> Option<&Value> {
        let mut value = self.0;
        for name in path.split('.') {
            value = value.get(name)?;
        }
        let is_empty = match value {
            Value::Null => true,
            Value::Array(elements) => elements.is_empty(),
            _ => false,
        };
        (!is_empty).then_some(value)
    }

    fn is_set(&self, path: &str) -> bool {
        self.value(path).is_some()
    }

    fn text<'f>(&'f self, path: &str, default: &'f str) -> &'f str {
        self.value(path).and_then(Value::as_str).unwrap_or(default)
    }

    fn number(&self, path: &str, default: i64) -> i64 {
        self.value(path).and_then(Value::as_i64).unwrap_or(default)
    }

    fn is_true(&self, path: &str) -> bool {
        self.value(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether a list has one of these texts.
    fn has_any(&self, path: &str, texts: &[&str]) -> bool {
        let elements = self.value(path).and_then(Value::as_array);
        elements.is_some_and(|elements| elements.iter().filter_map(Value::as_str).any(|text| texts.contains(&text)))
    }

    fn length(&self, path: &str) -> usize {
        self.value(path).and_then(Value::as_array).map_or(0, Vec::len)
    }
}

/// The fields of a policy that have no effect, each with its block. `None`: the field of the whole policy.
pub(super) fn fields_without_effect(
    spec: &BackendPolicySpec,
    traffic: TargetTraffic,
) -> Vec<(Option<Block>, Diagnostic)> {
    let value = serde_json::to_value(spec).expect("a policy was read from JSON");
    let fields = PolicyFields(&value);
    let mut found: Vec<(&str, Option<Block>, Diagnostic)> = Vec::new();
    for FieldNeeds { path, meaning, need } in FIELDS {
        if !fields.is_set(path) && !matches!(need, Need::Elements(_)) {
            continue;
        }
        // Of an object, its fields need not be reported too.
        if found.iter().any(|(parent, ..)| is_within(path, parent)) {
            continue;
        }
        let block = block_of(path);
        let mut report = |field: String, message: &str, remedy: &str| {
            found.push((*path, block, Diagnostic::warning(format!("spec.{field}"), message, remedy)));
        };
        if fields.is_set(path)
            && let Some(message) = meaning.lacks(traffic)
        {
            report((*path).to_owned(), message, "remove it");
            continue;
        }
        match need {
            Need::Nothing | Need::ForValidity => {}
            Need::When { holds, message, remedy } => {
                if !holds(&fields) {
                    report((*path).to_owned(), message, remedy);
                }
            }
            Need::Elements(without_effect) => {
                let list = path.split("[]").next().unwrap_or(path);
                for (index, message, remedy) in without_effect(spec) {
                    report(format!("{list}[{index}]"), &message, remedy);
                }
            }
        }
    }
    found.into_iter().map(|(_, block, diagnostic)| (block, diagnostic)).collect()
}

fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['))
}

/// The block of a field.
fn block_of(path: &str) -> Option<Block> {
    if path == "health.maxEjectionPercent" {
        return Some(Block::PassiveHealth);
    }
    let blocks = Block::ALL.into_iter().filter(|block| block.path() == path || is_within(path, block.path()));
    blocks.max_by_key(|block| block.path().len())
}
