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
    channel: Option<Channel>,
    member: Option<&'static str>,
}

/// `self` in the expression is the value of the type or field that carries the rule.
pub(crate) fn rule(expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule { expression: expression.into(), message: message.into(), channel: None, member: None }
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

/// Rules that one channel words differently from the other.
pub(crate) fn in_channel<const N: usize>(channel: Channel, rules: [Rule; N]) -> impl Transform {
    let mut rules = rules.map(|rule| rule.only(channel));
    move |schema: &mut Schema| rules.iter_mut().for_each(|rule| rule.transform(schema))
}

/// Entries of a list that have a name have different ones.
pub(crate) fn names_differ(schema: &mut Schema) {
    rule(
        "self.all(one, !has(one.name) || self.filter(other, has(other.name) && other.name == one.name).size() == 1)",
        "two rules of this route have the same name; give each rule a name of its own, or none",
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
