//! What Gateways, and the dialects of Ingresses, set about entries of the access log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access_log_syntax::{LineRules, LineTemplate};

/// The settings of those that have some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// By Gateway, `namespace/name`.
    pub gateways: BTreeMap<Arc<str>, GatewayAccessLog>,
    /// Of the requests of rules with a `RuleTelemetry`.
    pub locations: LocationAccessLog,
}

/// The settings of one Gateway. What it does not set is that of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayAccessLog {
    pub template: Option<LineTemplate>,
    pub rules: Option<LineRules>,
}

/// The settings of a dialect of Ingresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocationAccessLog {
    /// `None` for that of the process.
    pub template: Option<LineTemplate>,
    /// Targets whose requests have no entry, as clients send them. They match in any case.
    pub unlogged_targets: Box<[Box<str>]>,
}

impl GatewayAccessLog {
    /// These settings, and those of `base` for absent ones.
    #[must_use]
    pub fn or(self, base: GatewayAccessLog) -> GatewayAccessLog {
        GatewayAccessLog { template: self.template.or(base.template), rules: self.rules.or(base.rules) }
    }
}

impl LocationAccessLog {
    /// Whether requests with this target have an entry.
    pub fn logs(&self, target: &str) -> bool {
        !self.unlogged_targets.iter().any(|unlogged| unlogged.eq_ignore_ascii_case(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_targets_are_compared() {
        let unlogged_targets = ["/healthz", "/status?full"].map(Into::into).into();
        let settings = LocationAccessLog { unlogged_targets, ..LocationAccessLog::default() };
        for (target, is_logged) in [
            ("/healthz", false),
            ("/HEALTHZ", false),
            ("/healthz?a", true),
            ("/healthz/", true),
            ("/status?full", false),
        ] {
            assert_eq!(settings.logs(target), is_logged, "{target}");
        }
        assert!(LocationAccessLog::default().logs(""));
    }
}
