//! Flags for what objects may expand to.

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::quantity::MemorySize;
use crate::store::LargeObjects;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct BudgetArgs {
    /// Only warn about objects that exceed a limit of the configuration, and serve them nevertheless; for the time of
    /// an upgrade, since such objects can exhaust the process
    #[arg(long, env = "PORTICO_LIMITS_WARN_ONLY", value_parser = BoolishValueParser::new())]
    limits_warn_only: bool,

    /// What the HTTPRoutes of a namespace may expand to in memory together, and so may its Ingresses; the youngest are
    /// refused
    #[arg(long, value_name = "SIZE", env = "PORTICO_NAMESPACE_BUDGET", default_value_t = NAMESPACE_BUDGET)]
    namespace_budget: MemorySize,

    /// Number of ports of a Gateway together with its ListenerSets; further ports of ListenerSets are refused
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_GATEWAY_PORTS", default_value_t = MAX_GATEWAY_PORTS)]
    max_gateway_ports: u16,
}

const NAMESPACE_BUDGET: MemorySize = MemorySize(64 << 20);
const MAX_GATEWAY_PORTS: u16 = 256;

/// The defaults of all flags.
impl Default for BudgetOptions {
    fn default() -> Self {
        let (limits_warn_only, namespace_budget, max_gateway_ports) = (false, NAMESPACE_BUDGET, MAX_GATEWAY_PORTS);
        BudgetArgs { limits_warn_only, namespace_budget, max_gateway_ports }.resolve()
    }
}

/// Limits of the configuration, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetOptions {
    pub warn_only: bool,
    /// In bytes.
    pub namespace_bytes: u64,
    pub gateway_ports: usize,
}

impl BudgetOptions {
    /// What happens to objects that are larger than an object may be.
    pub fn large_objects(self) -> LargeObjects {
        if self.warn_only { LargeObjects::Keep } else { LargeObjects::Reduce }
    }
}

impl BudgetArgs {
    pub(super) fn resolve(self) -> BudgetOptions {
        let namespace_bytes = u64::try_from(self.namespace_budget.0).unwrap_or(u64::MAX);
        BudgetOptions {
            warn_only: self.limits_warn_only,
            namespace_bytes,
            gateway_ports: self.max_gateway_ports.into(),
        }
    }
}
