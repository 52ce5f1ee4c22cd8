//! Flags of `portico check` and the options they resolve to.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::budgets::{BudgetArgs, BudgetOptions};
use super::gateways::GatewayArgs;
use super::ingress::{IngressClassArgs, IngressClassOptions};
use super::run::require_single_standard_input;
use super::{ChannelArg, ColorArgs, Environment, GatewayOptions, OutputFormat, UsageError};
use crate::schema;

/// Report errors in manifests and declarative files of Kong, and how to fix them, without serving them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Files and folders of YAML, or - for standard input; files with _format_version are declarative files of Kong
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,

    /// Where the objects will be served: from these files, or from a cluster whose controllers write endpoints and the
    /// Secrets of cert-manager, External Secrets and Sealed Secrets
    #[arg(long = "for", value_enum, default_value_t = CheckedPlace::Files, value_name = "PLACE", env = "PORTICO_FOR")]
    place: CheckedPlace,

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

/// Values of `--for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckedPlace {
    Files,
    Cluster,
}

/// `portico check`, resolved.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// At least one; `-` means standard input and occurs at most once.
    pub paths: Vec<PathBuf>,
    pub output: OutputFormat,
    /// Whether controllers of a cluster write further objects.
    pub for_cluster: bool,
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
            for_cluster: self.place == CheckedPlace::Cluster,
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

  # Manifests of a cluster, in which controllers write endpoints and certificates
  portico check --for cluster --warnings-as-errors ./manifests

  # A declarative file of Kong
  portico check kong.yml

  # The output of another tool
  helm template my-chart | portico check -

  # Machine-readable: a list with file, line, column, object, field, severity, type, status, reason,
  # message and remedy
  portico check -o json ./manifests";
