//! What Gateways set about the traces of their requests and connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access_log_syntax::{SamplingRate, SamplingRules};
use crate::plugin_api::trace::Propagation;

/// The settings by Gateway, `namespace/name`, of those that have some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayTraces(pub BTreeMap<Arc<str>, GatewayTracing>);

/// The settings of one Gateway. What it does not set is that of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayTracing {
    /// The part of the requests that is recorded, unless a rule decides.
    pub rate: Option<SamplingRate>,
    pub rules: Option<SamplingRules>,
    pub propagation: Option<Propagation>,
}

impl GatewayTracing {
    /// These settings, and those of `base` for absent ones.
    #[must_use]
    pub fn or(self, base: GatewayTracing) -> GatewayTracing {
        GatewayTracing {
            rate: self.rate.or(base.rate),
            rules: self.rules.or(base.rules),
            propagation: self.propagation.or(base.propagation),
        }
    }
}

impl GatewayTraces {
    /// The settings of a Gateway, if it has some.
    pub fn of(&self, gateway: &str) -> Option<&GatewayTracing> {
        // Most configurations have none, and then no text is compared.
        if self.0.is_empty() { None } else { self.0.get(gateway) }
    }
}
