//! Discriminated unions: one field selects which other field must be set.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::channel_mark::{IN_EXPERIMENTAL, RULE_MEMBER};
use super::rule::{CelRule, retain_rules, rule};
use super::transforms::{field, in_experimental, keywords};
use crate::api::gateway::Channel;

/// A value of the discriminator, and its field: required if the discriminator has this value, otherwise forbidden.
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

/// Requires each member's field exactly when the field `discriminator` has the member's value. Restricts
/// `discriminator` to the values of the members.
pub(crate) fn union<const N: usize>(discriminator: &'static str, members: [UnionMember; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        for member in members {
            for mut rule in member_rules(discriminator, member) {
                rule.transform(schema);
            }
        }
        field(discriminator, |discriminator_schema: &mut Schema| {
            let standard_values =
                members.iter().filter(|member| !member.experimental).map(|member| json!(member.value));
            discriminator_schema.insert("enum".to_owned(), standard_values.collect());
            if members.iter().any(|member| member.experimental) {
                let all_values: Vec<Value> = members.iter().map(|member| json!(member.value)).collect();
                in_experimental(json!({ "enum": all_values })).transform(discriminator_schema);
            }
        })
        .transform(schema);
    }
}

/// Keeps only these members of a union, for a kind that lacks the others. All fields other than the discriminator and
/// those of the kept members are removed.
pub(crate) fn narrow<const N: usize>(
    discriminator: &'static str,
    members: [UnionMember; N],
) -> impl FnMut(&mut Schema) {
    move |schema| {
        let is_kept = |name: &str| name == discriminator || members.iter().any(|member| member.field == name);
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties.retain(|name, _| is_kept(name));
        }
        // The call of `union` below adds the rules and discriminator values of the kept members again.
        retain_rules(keywords(schema), |rule| rule.get(RULE_MEMBER).is_none());
        let pointer = format!("/properties/{discriminator}");
        if let Some(discriminator_schema) = schema.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            discriminator_schema.remove(IN_EXPERIMENTAL);
        }
        union(discriminator, members)(schema);
    }
}

fn member_rules(discriminator: &str, UnionMember { value, field, experimental }: UnionMember) -> [CelRule; 2] {
    let rules = [
        rule(
            format!("self.{discriminator} != '{value}' || has(self.{field})"),
            format!("{discriminator} is {value} but {field} is missing; add {field}, or change {discriminator}"),
        ),
        rule(
            format!("self.{discriminator} == '{value}' || !has(self.{field})"),
            format!(
                "{field} is set but {discriminator} is not {value}; remove {field}, or set {discriminator} to {value}"
            ),
        ),
    ];
    rules.map(|rule| {
        let rule = rule.for_member(field);
        if experimental { rule.only(Channel::Experimental) } else { rule }
    })
}
