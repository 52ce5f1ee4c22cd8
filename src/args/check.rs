//! Flags of `portico check` and the options they resolve to.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::budgets::{BudgetArgs, BudgetOptions};
use super::gateways::GatewayArgs;
use super::ingress::{IngressClassArgs, IngressClassOptions};
use super::run::require_single_standard_input;
use super::{ChannelArg, ColorArgs, Environment, GatewayOptions, OutputFormat, UsageError};
use crate::schema;

/// Report errors in manifests and how to fix them, without serving the manifests
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Files and folders of YAML, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,

    /// Treat warnings as errors
    #[arg(long, env = "PORTICO_WARNINGS_AS_ERRORS", value_parser = BoolishValueParser::new())]
    warnings_as_errors: bool,

    /// Release channel of the Gateway API that decides which kinds and fields exist
    #[arg(long, value_enum, default_value_t = ChannelArg::Experimental, value_name = "CHANNEL", env = "PORTICO_CHANNEL")]
    channel: ChannelArg,

    #[command(flatten)]
    gateways: GatewayArgs,
    #[command(flatten)]
    ingress_class: IngressClassArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
}

/// `portico check`, resolved.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// At least one; `-` means standard input and occurs at most once.
    pub paths: Vec<PathBuf>,
    pub output: OutputFormat,
    pub warnings_as_errors: bool,
    pub channel: schema::Channel,
    pub gateways: GatewayOptions,
    pub ingress_class: IngressClassOptions,
    pub budgets: BudgetOptions,
    pub color_stdout: bool,
    pub color_stderr: bool,
}

impl CheckArgs {
    pub(super) fn resolve(self, color: &ColorArgs, environment: &Environment) -> Result<CheckOptions, UsageError> {
        require_single_standard_input("PATH", &self.paths)?;
        let (service, has_cluster, in_cluster) = (None, false, false);
        Ok(CheckOptions {
            paths: self.paths,
            output: self.output,
            warnings_as_errors: self.warnings_as_errors,
            channel: self.channel.into(),
            gateways: self.gateways.resolve(service, has_cluster, in_cluster)?,
            ingress_class: self.ingress_class.resolve(),
            budgets: self.budgets.resolve(),
            color_stdout: color.resolve(environment.stdout_is_terminal, environment),
            color_stderr: color.resolve(environment.stderr_is_terminal, environment),
        })
    }
}

const EXAMPLES: &str = "\
Exit codes: 0 no errors; 1 an object has an error, a file cannot be read, or there is a warning and \
--warnings-as-errors is set; 2 invalid arguments, or a PATH that does not exist.

Examples:
  # A directory, as a step of a CI pipeline
  portico check --warnings-as-errors ./manifests

  # The output of another tool
  helm template my-chart | portico check -

  # Machine-readable: a list with file, line, column, object, field, type, status, reason, message
  # and remedy
  portico check -o json ./manifests";
