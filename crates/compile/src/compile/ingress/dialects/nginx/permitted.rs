//! Which annotations the ConfigMap permits: those without the words of its list, and up to its highest risk. An Ingress
//! with others is not served.

use std::sync::Arc;

use super::config_map::NginxConfig;
use crate::api::Meta;
use crate::api::ingress_nginx::{AnnotationRisk, PREFIX, risk};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;

/// What is wrong with annotations that are not permitted.
pub(super) fn problems(meta: &Meta, config: &NginxConfig) -> Vec<Diagnostic> {
    of_nginx(meta).filter_map(|(key, name, value)| problem(config, key, name, value)).collect()
}

/// Whether all annotations are permitted.
pub(super) fn are_permitted(meta: &Meta, config: &NginxConfig) -> bool {
    of_nginx(meta).all(|(key, name, value)| problem(config, key, name, value).is_none())
}

/// The key, the name and the value of each annotation of ingress-nginx.
fn of_nginx(meta: &Meta) -> impl Iterator<Item = (&Arc<str>, &str, &str)> {
    meta.annotations.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, &**value)))
}

fn problem(config: &NginxConfig, key: &str, name: &str, value: &str) -> Option<Diagnostic> {
    if let Some(word) = config.blocked_words.iter().find(|word| value.contains(&***word)) {
        let message = format!(
            "its value contains {word:?}, which annotation-value-word-blocklist of the ConfigMap lists, so requests \
             get status 503"
        );
        return Some(Diagnostic::error(annotation_field(key), message, "remove the word, or take it off the list"));
    }
    let risk = risk(name).filter(|risk| *risk > config.highest_risk && !is_left_to_others(config, name, *risk))?;
    let message = format!(
        "its risk is {risk}, and annotations-risk-level of the ConfigMap permits {} at most, so requests get status \
         503",
        config.highest_risk
    );
    let remedy = format!("set annotations-risk-level to {risk} there, or remove the annotation");
    Some(Diagnostic::error(annotation_field(key), message, remedy))
}

/// Whether something else says what becomes of a snippet: those that are read here report their risk themselves, and
/// without the permission of the ConfigMap, no snippet counts.
fn is_left_to_others(config: &NginxConfig, name: &str, risk: AnnotationRisk) -> bool {
    let is_read = ["auth-snippet", "configuration-snippet", "server-snippet"].contains(&name);
    risk == AnnotationRisk::Critical && (is_read || !config.allows_snippets)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(config: &NginxConfig) -> Vec<String> {
        let annotations = json!({
            format!("{PREFIX}auth-url"): "http://auth.example/",
            format!("{PREFIX}configuration-snippet"): "return 204;",
            format!("{PREFIX}modsecurity-snippet"): "SecRuleEngine On",
            format!("{PREFIX}rewrite-target"): "/",
            format!("{PREFIX}unknown"): "exec",
            format!("{PREFIX}use-regex"): "true",
            "konghq.com/methods": "exec",
        });
        let meta: Meta = serde_json::from_value(json!({"name": "a", "annotations": annotations})).unwrap();
        let found = problems(&meta, config);
        assert_eq!(found.is_empty(), are_permitted(&meta, config));
        let name = |problem: &Diagnostic| {
            let field = problem.field.trim_start_matches("metadata.annotations[").trim_end_matches(']');
            field.trim_start_matches(PREFIX).to_owned()
        };
        found.iter().map(name).collect()
    }

    #[test]
    fn risks_above_the_highest_one_are_problems() {
        for (highest_risk, allows_snippets, expected) in [
            (AnnotationRisk::Low, false, &["auth-url", "rewrite-target"][..]),
            (AnnotationRisk::Medium, false, &["auth-url"]),
            (AnnotationRisk::High, false, &[]),
            (AnnotationRisk::High, true, &["modsecurity-snippet"]),
            (AnnotationRisk::Critical, true, &[]),
        ] {
            let config = NginxConfig { highest_risk, allows_snippets, ..NginxConfig::default() };
            assert_eq!(fields(&config), expected, "{highest_risk} {allows_snippets}");
        }
    }

    #[test]
    fn words_of_the_list_are_problems() {
        for (words, expected) in [
            (&["exec", "auth.example"][..], &["auth-url", "unknown"][..]),
            (&["return 2"], &["configuration-snippet"]),
            (&["absent"], &[]),
        ] {
            let blocked_words = words.iter().map(|word| Box::from(*word)).collect();
            assert_eq!(fields(&NginxConfig { blocked_words, ..NginxConfig::default() }), expected, "{words:?}");
        }
    }
}
