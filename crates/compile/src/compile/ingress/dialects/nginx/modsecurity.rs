//! ModSecurity, which Portico does not have. An Ingress whose requests it would refuse is not served. Without
//! `SecRuleEngine On` it only logs what it finds, so that such an Ingress is served, with a warning.

use super::config_map::NginxConfig;
use super::value_reader::{ValueReader, written};
use super::waf_engine::{ONLY_LOGS, ONLY_LOGS_REMEDY, REMEDY, RULES, WafEngine, of_global_rules};
use crate::api::ingress_nginx::{self, AnnotationRisk, PREFIX};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;

/// Those that have an effect only with `enable-modsecurity`.
const DEPENDENT: [&str; 3] = ["enable-owasp-core-rules", RULES, "modsecurity-transaction-id"];

/// Whether an annotation is about ModSecurity.
pub(super) fn is_about(name: &str) -> bool {
    name == "enable-modsecurity" || DEPENDENT.contains(&name)
}

/// What is to say about the annotations of an Ingress, in the reader. `refuses_guards`: whether it is not served if
/// ModSecurity would refuse requests.
pub(super) fn check(reader: &mut ValueReader<'_>, config: &NginxConfig, refuses_guards: bool) {
    let own = reader.text("enable-modsecurity").and_then(ingress_nginx::flag);
    if !own.unwrap_or(config.waf.is_on) {
        let is_set = |name: &&str| written(reader.meta, name).is_some_and(|value| value != "false");
        let without_effect: Vec<&str> = DEPENDENT.into_iter().filter(is_set).collect();
        return reader.note_without(&without_effect, "enable-modsecurity");
    }
    let of_annotation = written(reader.meta, RULES).and_then(WafEngine::of_rules);
    let are_rules_read = config.allows_snippets && config.highest_risk == AnnotationRisk::Critical;
    let own_engine = of_annotation.filter(|engine| are_rules_read || *engine == WafEngine::Refuses);
    let global = config.waf.engine.filter(|_| config.waf.is_on);
    if own_engine.or(global) == Some(WafEngine::Refuses) {
        let is_own = own_engine.is_some();
        let is_ignored = |name: &&str| foreign_annotations::is_ignored(reader.meta, &format!("{PREFIX}{name}"));
        let problem = if is_own { of_annotation_rules() } else { of_global_rules() };
        if refuses_guards && !["enable-modsecurity", RULES].iter().any(is_ignored) {
            return reader.errors.push(problem);
        }
        let message = "ModSecurity restricts requests in ingress-nginx, and not here, as the configuration permits";
        return reader.warn(if is_own { RULES } else { "enable-modsecurity" }, message.to_owned(), "remove it");
    }
    for name in ["enable-modsecurity"].into_iter().chain(DEPENDENT) {
        if written(reader.meta, name).is_some_and(|value| ingress_nginx::flag(value) != Some(false)) {
            reader.warn(name, ONLY_LOGS.to_owned(), ONLY_LOGS_REMEDY);
        }
    }
}

fn of_annotation_rules() -> Diagnostic {
    let message = "ModSecurity refuses requests by these rules, and is not part of Portico, so requests get status 503";
    Diagnostic::error(annotation_field(&format!("{PREFIX}{RULES}")), message, REMEDY)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::waf_engine::GlobalWaf;
    use super::*;
    use crate::api::Meta;
    use crate::api::names::IGNORE_GUARDS_ANNOTATION;

    /// The numbers of errors and of warnings.
    fn checked(annotations: &[(&str, &str)], waf: GlobalWaf, allows_snippets: bool) -> (usize, usize) {
        let annotations: BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
        let meta: Meta = serde_json::from_value(meta).unwrap();
        let config = NginxConfig {
            waf,
            allows_snippets,
            highest_risk: if allows_snippets { AnnotationRisk::Critical } else { AnnotationRisk::High },
            ..NginxConfig::default()
        };
        let mut reader = ValueReader::new(&meta);
        check(&mut reader, &config, true);
        (reader.errors.len(), reader.notes.len())
    }

    const ON: (&str, &str) = ("enable-modsecurity", "true");
    const OFF: (&str, &str) = ("enable-modsecurity", "false");
    const REFUSES: (&str, &str) = (RULES, "SecRuleEngine On");
    const LOGS: (&str, &str) = (RULES, "SecRuleEngine DetectionOnly");

    #[test]
    fn only_rules_that_refuse_requests_close_an_ingress() {
        let none = GlobalWaf::default();
        let logging = GlobalWaf { is_on: true, engine: None };
        let refusing = GlobalWaf { is_on: true, engine: Some(WafEngine::Refuses) };
        let off = GlobalWaf { is_on: false, ..refusing };
        for (annotations, waf, allows_snippets, expected) in [
            (&[][..], none, true, (0, 0)),
            (&[ON], none, true, (0, 1)),
            (&[ON, ("enable-owasp-core-rules", "true")], none, true, (0, 2)),
            (&[("enable-owasp-core-rules", "true")], none, true, (0, 1)),
            (&[REFUSES], none, true, (0, 1)),
            (&[ON, REFUSES], none, true, (1, 0)),
            (&[ON, REFUSES], none, false, (1, 0)),
            (&[OFF, REFUSES], none, true, (0, 1)),
            (&[ON, LOGS, ("modsecurity-transaction-id", "$request_id")], none, true, (0, 3)),
            (&[("enable-modsecurity", "yes"), REFUSES], none, true, (0, 2)),
            (&[REFUSES], logging, true, (1, 0)),
            (&[], refusing, true, (1, 0)),
            (&[ON], refusing, true, (1, 0)),
            (&[OFF], refusing, true, (0, 0)),
            (&[LOGS], refusing, true, (0, 1)),
            // The ConfigMap does not allow the snippet, so that its own rules apply.
            (&[LOGS], refusing, false, (1, 0)),
            (&[ON], off, true, (0, 1)),
        ] {
            assert_eq!(checked(annotations, waf, allows_snippets), expected, "{annotations:?} {waf:?}");
        }
        let ignored = (IGNORE_GUARDS_ANNOTATION, format!("{PREFIX}{RULES}"));
        let annotations = json!({
            format!("{PREFIX}enable-modsecurity"): "true",
            format!("{PREFIX}{RULES}"): "SecRuleEngine On",
            ignored.0: ignored.1,
        });
        let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
        let meta: Meta = serde_json::from_value(meta).unwrap();
        let mut reader = ValueReader::new(&meta);
        check(&mut reader, &NginxConfig::default(), true);
        assert_eq!((reader.errors.len(), reader.notes.len()), (0, 1));
    }
}
