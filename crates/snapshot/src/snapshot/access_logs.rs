//! What Gateways set about their entries of the access log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access_log_syntax::{LineRules, LineTemplate};

/// The settings by Gateway, `namespace/name`, of those that have some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayAccessLogs(pub BTreeMap<Arc<str>, GatewayAccessLog>);

/// The settings of one Gateway. What it does not set is that of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayAccessLog {
    pub template: Option<LineTemplate>,
    pub rules: Option<LineRules>,
}

impl GatewayAccessLog {
    /// These settings, and those of `base` for absent ones.
    #[must_use]
    pub fn or(self, base: GatewayAccessLog) -> GatewayAccessLog {
        GatewayAccessLog { template: self.template.or(base.template), rules: self.rules.or(base.rules) }
    }
}
