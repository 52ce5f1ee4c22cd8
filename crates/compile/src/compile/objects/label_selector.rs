//! Kubernetes label selectors: all labels and all expressions must match.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::gateway::LabelSelector;

/// Whether the labels match the selector. An unknown operator never matches.
pub(in crate::compile) fn matches(selector: &LabelSelector, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|label| &**label == value);
    selector.match_labels.iter().all(|(key, value)| has(key, value))
        && selector.match_expressions.iter().all(|expression| {
            let one_of = || expression.values.iter().any(|value| has(&expression.key, value));
            match &*expression.operator {
                "In" => one_of(),
                "NotIn" => !one_of(),
                "Exists" => labels.contains_key(&*expression.key),
                "DoesNotExist" => !labels.contains_key(&*expression.key),
                _ => false,
            }
        })
}

pub(in crate::compile) fn is_known_operator(operator: &str) -> bool {
    matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_like_kubernetes() {
        let labels = BTreeMap::from([("team".into(), "web".into()), ("tier".into(), "front".into())]);
        let expression = |key: &str, operator: &str, values: &[&str]| {
            let expression = json!({"key": key, "operator": operator, "values": values});
            json!({"matchExpressions": [expression]})
        };
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"team": "web"}}), true),
            (json!({"matchLabels": {"team": "web", "tier": "back"}}), false),
            (expression("team", "In", &["api", "web"]), true),
            (expression("team", "In", &["api"]), false),
            (expression("team", "NotIn", &["api"]), true),
            (expression("absent", "NotIn", &["api"]), true),
            (expression("team", "Exists", &[]), true),
            (expression("absent", "Exists", &[]), false),
            (expression("absent", "DoesNotExist", &[]), true),
            (expression("team", "Newer", &["web"]), false),
        ] {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&parsed, &labels), expected, "{selector}");
        }
    }
}
