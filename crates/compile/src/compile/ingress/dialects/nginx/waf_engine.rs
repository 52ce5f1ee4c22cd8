//! What the rules of ModSecurity do: only log what they find, or refuse requests.

use crate::diagnostic::Diagnostic;

/// The annotation with rules, and the key of the ConfigMap with its name.
pub(super) const RULES: &str = "modsecurity-snippet";

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

/// The error about rules of the ConfigMap.
pub(super) fn of_global_rules() -> Diagnostic {
    let message = "modsecurity-snippet in the ConfigMap of ingress-nginx lets ModSecurity refuse requests, and it is \
                   not part of Portico, so requests get status 503";
    Diagnostic::of_object(message.to_owned(), REMEDY)
}

pub(super) const ONLY_LOGS: &str = "ModSecurity only logs what it finds unless its rules have SecRuleEngine On, and is \
                                    not part of Portico, so it has no effect";
pub(super) const ONLY_LOGS_REMEDY: &str = "remove it, or use the plugin injection-protection";

pub(super) const REMEDY: &str = "use the plugin injection-protection, and remove the annotations and keys about \
                                 ModSecurity; if requests may be served without it, list the annotation in \
                                 portico.dev/ignore-foreign-guards, or set enable-modsecurity to false; otherwise let \
                                 ingress-nginx serve the Ingress";

#[cfg(test)]
mod tests {
    use super::*;

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
}
