//! The objects that a migration writes in addition to its report.

use clap::ValueEnum;

/// Values of `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationOutput {
    /// A Gateway, HTTPRoutes and plugins for the hosts that they serve in the same way
    GatewayApi,
}
