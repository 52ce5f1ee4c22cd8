//! `portico check`: its flags, and what they come to.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::gateways::GatewayArgs;
use super::ingress::{IngressClassArgs, IngressClassOptions};
use super::run::standard_input_once;
use super::{Channel, ColorArgs, GatewayOptions, OutputFormat, Surroundings, UsageError};
use crate::schema;

/// Say what is wrong with manifests, and what would be right, without serving them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Files and folders of YAML, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,

    /// Let warnings count as errors
    #[arg(long, env = "PORTICO_WARNINGS_AS_ERRORS", value_parser = BoolishValueParser::new())]
    warnings_as_errors: bool,

    /// Release channel of the Gateway API that decides which kinds and fields exist
    #[arg(long, value_enum, default_value_t = Channel::Experimental, value_name = "CHANNEL", env = "PORTICO_CHANNEL")]
    channel: Channel,

    #[command(flatten)]
    gateways: GatewayArgs,
    #[command(flatten)]
    ingress_class: IngressClassArgs,
}

/// `portico check`, resolved.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// At least one; `-` is standard input and there at most once.
    pub paths: Vec<PathBuf>,
    pub output: OutputFormat,
    pub warnings_as_errors: bool,
    pub channel: schema::Channel,
    pub gateways: GatewayOptions,
    pub ingress_class: IngressClassOptions,
    pub color_stdout: bool,
    pub color_stderr: bool,
}

impl CheckArgs {
    pub(super) fn resolve(self, color: &ColorArgs, surroundings: &Surroundings) -> Result<CheckOptions, UsageError> {
        standard_input_once("PATH", &self.paths)?;
        Ok(CheckOptions {
            paths: self.paths,
            output: self.output,
            warnings_as_errors: self.warnings_as_errors,
            channel: self.channel.into(),
            gateways: self.gateways.resolve(None, false, false)?,
            ingress_class: self.ingress_class.resolve(),
            color_stdout: color.resolve(surroundings.stdout_is_terminal, surroundings),
            color_stderr: color.resolve(surroundings.stderr_is_terminal, surroundings),
        })
    }
}

const EXAMPLES: &str = "\
Exit codes: 0 fine, 1 something was refused, 2 usage or I/O error.

Examples:
  # A folder, as a step of a pipeline
  portico check --warnings-as-errors ./manifests

  # What another tool renders
  helm template my-chart | portico check -

  # For a program: a list with file, line, column, object, field, type, status, reason, message
  # and remedy
  portico check -o json ./manifests";
