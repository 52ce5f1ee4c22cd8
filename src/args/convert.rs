//! Flags of `portico convert` and the options they resolve to.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};

use super::ingress::parse_class;
use super::{ColorArgs, Environment};
use crate::api::names::INGRESS_CLASS_NAME;

/// Convert the configuration of another gateway into manifests
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct ConvertArgs {
    #[command(subcommand)]
    source: ConvertSource,
}

#[derive(Debug, Subcommand)]
enum ConvertSource {
    Kong(ConvertKongArgs),
}

/// Convert a declarative file of Kong (kong.yml) into manifests, with a report of what differs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ConvertKongArgs {
    /// Declarative file of format 1.1, 2.1 or 3.0
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Namespace of the objects
    #[arg(long, value_name = "NAME", default_value = "default", env = "PORTICO_NAMESPACE")]
    namespace: String,

    /// IngressClass of the objects
    #[arg(long, value_name = "NAME", env = "PORTICO_INGRESS_CLASS", value_parser = parse_class)]
    #[arg(default_value = INGRESS_CLASS_NAME)]
    ingress_class: String,

    /// Exit with status 0 although something is left out
    #[arg(long, env = "PORTICO_ALLOW_PARTIAL", value_parser = BoolishValueParser::new())]
    allow_partial: bool,
}

/// `portico convert kong`, resolved.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    pub file: PathBuf,
    pub namespace: String,
    pub ingress_class: String,
    pub allow_partial: bool,
    pub color_stderr: bool,
}

impl ConvertArgs {
    pub(super) fn resolve(self, color: &ColorArgs, environment: &Environment) -> ConvertOptions {
        let ConvertSource::Kong(args) = self.source;
        ConvertOptions {
            file: args.file,
            namespace: args.namespace,
            ingress_class: args.ingress_class,
            allow_partial: args.allow_partial,
            color_stderr: color.resolve(environment.stderr_is_terminal, environment),
        }
    }
}

const EXAMPLES: &str = "\
The manifests are written to stdout, the report to stderr. References such as ${{ env \"DECK_HOST\" }} are
replaced by the variables of this process, so the output may contain secrets.

Exit codes: 0 everything is converted; 1 something is left out and --allow-partial is not set, or the file
is invalid; 2 the file cannot be read.

Examples:
  # Convert, and see what differs
  portico convert kong kong.yml > manifests.yaml

  # Serve the file as it is
  portico run --kong-config kong.yml";
