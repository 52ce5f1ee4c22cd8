//! CEL rules, attached to the types that they validate.
//!
//! A message has two halves separated by a semicolon: what is wrong, then how to fix it.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::channel_mark::{RULE_CHANNEL, RULE_MEMBER};
use crate::api::gateway::Channel;

/// Keyword for rules in a structural schema.
pub(in crate::api) const VALIDATIONS: &str = "x-kubernetes-validations";

/// A CEL rule and the message for values that violate it.
pub(crate) struct CelRule {
    expression: String,
    message: String,
    /// CEL expression that computes the message from the value.
    message_expression: Option<String>,
    /// `None` for both channels.
    channel: Option<Channel>,
    /// The field of the union member that the rule concerns.
    member: Option<&'static str>,
}

/// Creates a rule. `self` in the expression is the value of the annotated type or field.
pub(crate) fn rule(expression: impl Into<String>, message: impl Into<String>) -> CelRule {
    CelRule {
        expression: expression.into(),
        message: message.into(),
        message_expression: None,
        channel: None,
        member: None,
    }
}

/// Creates a rule for every entry of a list or key of a map. The API server reports a violation at the list or map, so
/// the message starts with the first entry that violates the rule: `listener web: …`.
///
/// `entry` is the noun in the message (`listener`) and the variable of the entry in the CEL expressions `name` and
/// `holds`. The value of `name` is the name in the message (`web`).
pub(crate) fn every(entry: &str, name: &str, holds: &str, message: impl Into<String>) -> CelRule {
    let message = message.into();
    // A JSON string has the syntax of a CEL string literal.
    let message_literal = Value::from(format!(": {message}"));
    CelRule {
        message_expression: Some(format!(
            "'{entry} ' + string(self.filter({entry}, !({holds})).map({entry}, {name})[0]) + {message_literal}"
        )),
        ..rule(format!("self.all({entry}, {holds})"), message)
    }
}

impl CelRule {
    /// Restricts the rule to one channel.
    pub(crate) fn only(self, channel: Channel) -> CelRule {
        CelRule { channel: Some(channel), ..self }
    }

    /// Ties the rule to the field of a union member, so that both are removed together.
    pub(super) fn for_member(self, member: &'static str) -> CelRule {
        CelRule { member: Some(member), ..self }
    }
}

impl Transform for CelRule {
    fn transform(&mut self, schema: &mut Schema) {
        let mut rule = json!({ "rule": self.expression, "message": self.message });
        if let Some(expression) = &self.message_expression {
            rule["messageExpression"] = json!(expression);
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

/// CEL expression for the variable `key` in a message. It truncates the key, since no schema limits the length of keys.
pub(crate) const TRUNCATED_KEY: &str = "key.size() > 64 ? key.substring(0, 64) + '…' : key";

/// Adds rules that apply in one channel only.
pub(crate) fn in_channel<const N: usize>(channel: Channel, rules: [CelRule; N]) -> impl Transform {
    let mut rules = rules.map(|rule| rule.only(channel));
    move |schema: &mut Schema| rules.iter_mut().for_each(|rule| rule.transform(schema))
}

/// Requires unique names of the route rules in a list, as far as they have names.
pub(crate) fn unique_rule_names(schema: &mut Schema) {
    every(
        "rule",
        "rule.name",
        "!has(rule.name) || self.filter(other, has(other.name) && other.name == rule.name).size() == 1",
        "another rule has the same name; give each rule a unique name, or none",
    )
    .transform(schema);
}

/// Keeps the rules of a node that match a predicate, and removes the keyword if none is left.
pub(super) fn retain_rules(node: &mut serde_json::Map<String, Value>, mut keep: impl FnMut(&Value) -> bool) {
    if let Some(rules) = node.get_mut(VALIDATIONS).and_then(Value::as_array_mut) {
        rules.retain(|rule| keep(rule));
        if rules.is_empty() {
            node.remove(VALIDATIONS);
        }
    }
}
