//! The format in which a subcommand prints its results.

use clap::ValueEnum;

/// Output format of a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}
