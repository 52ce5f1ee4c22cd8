//! Discriminated unions: one field selects which other field must be set.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::channel_mark::{IN_EXPERIMENTAL, RULE_MEMBER};
use super::rule::{CelRule, retain, rule};
use super::transforms::{field, in_experimental, object};
use crate::api::gateway::Channel;

/// A value of the discriminator and its field.
#[derive(Clone, Copy)]
pub(crate) struct UnionMember {
    value: &'static str,
    field: &'static str,
    experimental: bool,
}

pub(crate) const fn member(value: &'static str, field: &'static str) -> UnionMember {
    UnionMember { value, field, experimental: false }
}

pub(crate) const fn experimental_member(value: &'static str, field: &'static str) -> UnionMember {
    UnionMember { value, field, experimental: true }
}

/// Requires each member's field exactly when `by` has its value, and restricts `by` to these values.
pub(crate) fn union<const N: usize>(by: &'static str, members: [UnionMember; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        for member in members {
            for mut rule in member_rules(by, member) {
                rule.transform(schema);
            }
        }
        field(by, |schema: &mut Schema| {
            let standard = members.iter().filter(|member| !member.experimental).map(|member| json!(member.value));
            schema.insert("enum".to_owned(), standard.collect());
            if members.iter().any(|member| member.experimental) {
                let all: Vec<Value> = members.iter().map(|member| json!(member.value)).collect();
                in_experimental(json!({ "enum": all })).transform(schema);
            }
        })
        .transform(schema);
    }
}

/// Keeps only these members of a union, for a kind that lacks the others.
pub(crate) fn narrow<const N: usize>(by: &'static str, members: [UnionMember; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let kept = |name: &str| name == by || members.iter().any(|member| member.field == name);
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties.retain(|name, _| kept(name));
        }
        retain(object(schema), |rule| rule.get(RULE_MEMBER).is_none());
        if let Some(deciding) = schema.pointer_mut(&format!("/properties/{by}")).and_then(Value::as_object_mut) {
            deciding.remove(IN_EXPERIMENTAL);
        }
        union(by, members)(schema);
    }
}

fn member_rules(by: &str, UnionMember { value, field, experimental }: UnionMember) -> [CelRule; 2] {
    let rules = [
        rule(
            format!("self.{by} != '{value}' || has(self.{field})"),
            format!("{by} is {value} but {field} is missing; add {field}, or change {by}"),
        ),
        rule(
            format!("self.{by} == '{value}' || !has(self.{field})"),
            format!("{field} is set but {by} is not {value}; remove {field}, or set {by} to {value}"),
        ),
    ];
    rules.map(|rule| {
        let rule = rule.for_member(field);
        if experimental { rule.only(Channel::Experimental) } else { rule }
    })
}
