//! The objects that a migration writes in addition to its report.

use clap::ValueEnum;

/// Values of `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationOutput {
    /// What serves the same Ingresses by Portico: values of its Helm chart, the IngressClasses and the ConfigMaps
    Manifests,
    /// A Gateway, HTTPRoutes and plugins for the hosts that they serve in the same way
    GatewayApi,
}
