//! Parses selectors of labels in flags, in the notation of kubectl: `team=web,env!=test,tier in (a, b),!legacy`.

use std::collections::BTreeSet;

use crate::api::gateway::{LabelSelector, LabelSelectorRequirement};

/// Parses a selector with at least one condition, all of which must match.
pub(super) fn parse_label_selector(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    let mut keys = BTreeSet::new();
    for condition in conditions(text) {
        let requirement = parse_condition(condition.trim()).ok_or_else(|| {
            format!(
                "{:?} is not a condition; write for example team=web, env!=test or tier in (a, b)",
                condition.trim()
            )
        })?;
        if requirement.operator == "In" && requirement.values.len() == 1 && keys.insert(requirement.key.clone()) {
            selector.match_labels.extend(requirement.values.into_iter().map(|value| (requirement.key.clone(), value)));
        } else {
            selector.match_expressions.push(requirement);
        }
    }
    Ok(selector)
}

/// The parts between commas that are not in parentheses.
fn conditions(text: &str) -> impl Iterator<Item = &str> {
    let mut is_in_list = false;
    text.split(move |character| {
        match character {
            '(' => is_in_list = true,
            ')' => is_in_list = false,
            _ => {}
        }
        character == ',' && !is_in_list
    })
}

fn parse_condition(text: &str) -> Option<LabelSelectorRequirement> {
    let requirement = |key: &str, operator: &str, values: Vec<String>| {
        let key = key.trim();
        let is_valid = is_label_key(key) && values.iter().all(|value| is_label_value(value));
        is_valid.then(|| LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(list) = text.strip_suffix(')') {
        let (condition, list) = list.split_once('(')?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = condition.trim_end().rsplit_once(' ')?;
        return match operator {
            "in" => requirement(key, "In", values),
            "notin" => requirement(key, "NotIn", values),
            _ => None,
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return requirement(key, "NotIn", one(value));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return requirement(key, "In", one(value));
    }
    match text.strip_prefix('!') {
        Some(key) => requirement(key, "DoesNotExist", Vec::new()),
        None => requirement(text, "Exists", Vec::new()),
    }
}

fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').unwrap_or(("a", text));
    super::object_name::is_dns_subdomain(prefix) && !name.is_empty() && is_label_value(name)
}

/// An empty value is valid.
fn is_label_value(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63 && text.bytes().all(is_allowed) && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key operator values` of each expression, after the labels.
    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let LabelSelector { match_labels, match_expressions } = parse_label_selector(text)?;
        let labels = match_labels.into_iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = match_expressions
            .into_iter()
            .map(|expression| format!("{} {} {}", expression.key, expression.operator, expression.values.join("|")));
        Ok(labels.chain(expressions).collect())
    }

    #[test]
    fn conditions_are_those_of_kubectl() {
        for (text, expected) in [
            ("team=web", &["team=web"][..]),
            ("team==web", &["team=web"]),
            ("team = web , env!=test", &["team=web", "env NotIn test"]),
            ("a.example/tier in (front, back),!legacy", &["a.example/tier In front|back", "legacy DoesNotExist "]),
            ("tier notin (a),team", &["tier NotIn a", "team Exists "]),
            ("team=", &["team="]),
            // No label has both values.
            ("team=a,team=b", &["team=a", "team In b"]),
        ] {
            assert_eq!(parsed(text).unwrap(), expected, "{text}");
        }
        for text in ["", "a=b,", "team=web space", "-a=b", "a in b", "a on (b)", "a=(b)", "/a=b", "a in (b"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
