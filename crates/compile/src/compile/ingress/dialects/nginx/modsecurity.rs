//! ModSecurity, which Portico does not have. An Ingress whose requests it would refuse is not served. Without
//! `SecRuleEngine On` it only logs what it finds, so that such an Ingress is served, with a warning.

use super::config_map::NginxConfig;
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::{self, PREFIX};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;

/// The annotation that configures it.
pub(super) const RULES: &str = "modsecurity-snippet";

/// Those that have an effect only with `enable-modsecurity`.
const DEPENDENT: [&str; 3] = ["enable-owasp-core-rules", RULES, "modsecurity-transaction-id"];

/// Whether an annotation is about ModSecurity.
pub(super) fn is_about(name: &str) -> bool {
    name == "enable-modsecurity" || DEPENDENT.contains(&name)
}

/// What rules make of requests that match them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WafEngine {
    /// They may be refused.
    Refuses,
    Logs,
}

impl WafEngine {
    /// What the rules of a snippet say, as ModSecurity reads them. `None` if they leave it to the rules around them,
    /// which only log unless they say otherwise. Rules in files that are not known may refuse requests.
    pub(super) fn of_rules(text: &str) -> Option<Self> {
        let text = text.replace("\\\n", " ").replace("\\\r\n", " ");
        let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
        let mut engine = None;
        for line in lines {
            let line = line.to_ascii_lowercase();
            let words = line.split(|separator: char| separator.is_whitespace() || "\"'".contains(separator));
            let mut words = words.filter(|word| !word.is_empty());
            let found = match words.next() {
                Some("secruleengine") => Some(WafEngine::of_value(words.next().unwrap_or_default())),
                Some("include" | "includeoptional" | "secremoterules") => Some(WafEngine::Refuses),
                _ => line.split("ctl:ruleengine=").skip(1).map(WafEngine::of_action).min(),
            };
            // One that refuses is not taken back: a condition may be around it.
            if engine != Some(WafEngine::Refuses) {
                engine = found.or(engine);
            }
        }
        engine
    }

    /// `rest`: what follows the equals sign of an action.
    fn of_action(rest: &str) -> Self {
        WafEngine::of_value(rest.split([',', '"', '\'', ' ']).next().unwrap_or_default())
    }

    fn of_value(value: &str) -> Self {
        if matches!(value, "off" | "detectiononly") { WafEngine::Logs } else { WafEngine::Refuses }
    }
}

/// What the ConfigMap says for all Ingresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GlobalWaf {
    pub is_on: bool,
    /// What `modsecurity-snippet` says.
    pub engine: Option<WafEngine>,
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
    let are_rules_read = config.allows_snippets && config.allows_critical_annotations;
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

/// The error about rules of the ConfigMap.
pub(super) fn of_global_rules() -> Diagnostic {
    let message = "modsecurity-snippet in the ConfigMap of ingress-nginx lets ModSecurity refuse requests, and it is \
                   not part of Portico, so requests get status 503";
    Diagnostic::of_object(message.to_owned(), REMEDY)
}

pub(super) const ONLY_LOGS: &str = "ModSecurity only logs what it finds unless its rules have SecRuleEngine On, and is \
                                    not part of Portico, so it has no effect";
pub(super) const ONLY_LOGS_REMEDY: &str = "remove it, or use the plugin injection-protection";

const REMEDY: &str = "use the plugin injection-protection, and remove the annotations and keys about ModSecurity; if \
                      requests may be served without it, list the annotation in portico.dev/ignore-foreign-guards, or \
                      set enable-modsecurity to false; otherwise let ingress-nginx serve the Ingress";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::api::Meta;
    use crate::api::names::IGNORE_GUARDS_ANNOTATION;

    #[test]
    fn engines_are_those_of_the_rules() {
        for (rules, expected) in [
            ("", None),
            ("SecRequestBodyAccess On", None),
            ("SecRuleEngine On", Some(WafEngine::Refuses)),
            ("  secruleengine \"on\"\n", Some(WafEngine::Refuses)),
            ("SecRuleEngine \\\n  On", Some(WafEngine::Refuses)),
            ("# SecRuleEngine On\nSecRuleEngine DetectionOnly", Some(WafEngine::Logs)),
            ("SecRuleEngine On\nSecRuleEngine Off", Some(WafEngine::Refuses)),
            ("SecRuleEngine Off", Some(WafEngine::Logs)),
            ("SecRuleEngine", Some(WafEngine::Refuses)),
            ("SecAction \"id:1,ctl:ruleEngine=On\"", Some(WafEngine::Refuses)),
            ("SecAction \"id:1,ctl:ruleEngine=DetectionOnly,pass\"", Some(WafEngine::Logs)),
            ("Include /etc/nginx/owasp-modsecurity-crs/nginx-modsecurity.conf", Some(WafEngine::Refuses)),
        ] {
            assert_eq!(WafEngine::of_rules(rules), expected, "{rules}");
        }
    }

    /// The numbers of errors and of warnings.
    fn checked(annotations: &[(&str, &str)], waf: GlobalWaf, allows_snippets: bool) -> (usize, usize) {
        let annotations: BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
        let meta: Meta = serde_json::from_value(meta).unwrap();
        let config = NginxConfig {
            waf,
            allows_snippets,
            allows_critical_annotations: allows_snippets,
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
