//! Objects in which one field names a type and another, of that type alone, holds the rest.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::channel_mark::{IN_EXPERIMENTAL, RULE_MEMBER};
use super::rule::{Rule, retain, rule};
use super::shape::{field, in_experimental, object};
use crate::api::gateway::Channel;

/// A value of the deciding field, and the field that goes with it.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    value: &'static str,
    field: &'static str,
    experimental: bool,
}

pub(crate) const fn member(value: &'static str, field: &'static str) -> Member {
    Member { value, field, experimental: false }
}

pub(crate) const fn experimental_member(value: &'static str, field: &'static str) -> Member {
    Member { value, field, experimental: true }
}

/// Each member's field is there if and only if `by` has its value; `by` has no other values.
pub(crate) fn union<const N: usize>(by: &'static str, members: [Member; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        for member in members {
            for mut rule in rules_of(by, member) {
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

/// Keeps these fields of a union, for a kind that has not all its members.
pub(crate) fn narrow<const N: usize>(by: &'static str, members: [Member; N]) -> impl FnMut(&mut Schema) {
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

fn rules_of(by: &str, Member { value, field, experimental }: Member) -> [Rule; 2] {
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
        let rule = rule.about(field);
        if experimental { rule.only(Channel::Experimental) } else { rule }
    })
}
