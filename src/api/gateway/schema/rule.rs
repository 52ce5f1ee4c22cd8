//! Rules in CEL, written at the type that they are about.
//!
//! A message is two halves with a semicolon between them: what is wrong, then what would be right.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::channel_mark::{RULE_CHANNEL, RULE_MEMBER};
use crate::api::gateway::Channel;

/// The keyword under which a structural schema keeps its rules.
pub(super) const VALIDATIONS: &str = "x-kubernetes-validations";

/// What must hold of a value, and what to say when it does not.
pub(crate) struct Rule {
    expression: String,
    message: String,
    /// An expression that computes the message where the value itself must be looked at to say enough.
    telling: Option<String>,
    channel: Option<Channel>,
    member: Option<&'static str>,
}

/// `self` in the expression is the value of the type or field that carries the rule.
pub(crate) fn rule(expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule { expression: expression.into(), message: message.into(), telling: None, channel: None, member: None }
}

/// What must hold of every entry of a list or key of a map. The message begins with the first entry that breaks it,
/// since the API reports such a rule at the list: `listener web: …`. `entry` is the entry's name in the expressions and
/// in the message, `named_by` what tells it from the others.
pub(crate) fn every(entry: &str, named_by: &str, holds: &str, message: impl Into<String>) -> Rule {
    let message = message.into();
    // JSON writes a text as CEL reads it.
    let told = Value::from(format!(": {message}"));
    Rule {
        telling: Some(format!(
            "'{entry} ' + string(self.filter({entry}, !({holds})).map({entry}, {named_by})[0]) + {told}"
        )),
        ..rule(format!("self.all({entry}, {holds})"), message)
    }
}

impl Rule {
    /// Holds in one channel only.
    pub(crate) fn only(self, channel: Channel) -> Rule {
        Rule { channel: Some(channel), ..self }
    }

    /// Concerns one member of a union and goes when the member goes.
    pub(super) fn about(self, member: &'static str) -> Rule {
        Rule { member: Some(member), ..self }
    }
}

impl Transform for Rule {
    fn transform(&mut self, schema: &mut Schema) {
        let mut rule = json!({ "rule": self.expression, "message": self.message });
        if let Some(telling) = &self.telling {
            rule["messageExpression"] = json!(telling);
        }
        if let Some(channel) = self.channel {
            rule[RULE_CHANNEL] = json!(channel.name());
        }
        if let Some(member) = self.member {
            rule[RULE_MEMBER] = json!(member);
        }
        let rules = schema.ensure_object().entry(VALIDATIONS).or_insert_with(|| json!([]));
        if let Some(rules) = rules.as_array_mut() {
            rules.push(rule);
        }
    }
}

/// How a message names the key of a map. Nothing else bounds its length, so that the message must.
pub(crate) const KEY: &str = "key.size() > 64 ? key.substring(0, 64) + '…' : key";

/// Rules that one channel words differently from the other.
pub(crate) fn in_channel<const N: usize>(channel: Channel, rules: [Rule; N]) -> impl Transform {
    let mut rules = rules.map(|rule| rule.only(channel));
    move |schema: &mut Schema| rules.iter_mut().for_each(|rule| rule.transform(schema))
}

/// Entries of a list that have a name have different ones.
pub(crate) fn names_differ(schema: &mut Schema) {
    every(
        "rule",
        "rule.name",
        "!has(rule.name) || self.filter(other, has(other.name) && other.name == rule.name).size() == 1",
        "another rule has the same name; give each rule a name of its own, or none",
    )
    .transform(schema);
}

/// Rules kept by a predicate; an empty list disappears.
pub(super) fn retain(schema: &mut serde_json::Map<String, Value>, mut keep: impl FnMut(&Value) -> bool) {
    if let Some(rules) = schema.get_mut(VALIDATIONS).and_then(Value::as_array_mut) {
        rules.retain(|rule| keep(rule));
        if rules.is_empty() {
            schema.remove(VALIDATIONS);
        }
    }
}
