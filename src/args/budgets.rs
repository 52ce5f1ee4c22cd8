//! Flags for what objects may expand to.

use clap::Args;
use clap::builder::BoolishValueParser;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct BudgetArgs {
    /// Only warn about objects that exceed a limit of the configuration, and serve them nevertheless; for the time of
    /// an upgrade, since such objects can exhaust the process
    #[arg(long, env = "PORTICO_LIMITS_WARN_ONLY", value_parser = BoolishValueParser::new())]
    limits_warn_only: bool,
}

/// Limits of the configuration, resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetOptions {
    pub warn_only: bool,
}

impl BudgetArgs {
    pub(super) fn resolve(self) -> BudgetOptions {
        BudgetOptions { warn_only: self.limits_warn_only }
    }
}
