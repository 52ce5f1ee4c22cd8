//! Flags of `portico convert kong` and the options they resolve to.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::super::object_name::parse_short_name;
use super::super::output_format::OutputFormat;
use crate::api::names::INGRESS_CLASS_NAME;

/// Convert a declarative file of Kong (kong.yml), or a script of calls to its Admin API, into manifests
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConvertKongArgs {
    /// Declarative file of format 1.1, 2.1 or 3.0
    #[arg(value_name = "FILE", required_unless_present = "admin_calls")]
    file: Option<PathBuf>,

    /// Convert the `curl` calls of this shell script to the Admin API instead of a file
    #[arg(long, value_name = "FILE", env = "PORTICO_ADMIN_CALLS", conflicts_with = "file")]
    admin_calls: Option<PathBuf>,

    /// Namespace of the objects
    #[arg(long, value_name = "NAME", default_value = "default", env = "PORTICO_NAMESPACE")]
    #[arg(value_parser = parse_short_name)]
    namespace: String,

    /// IngressClass of the objects
    #[arg(long, value_name = "NAME", env = "PORTICO_INGRESS_CLASS", value_parser = parse_short_name)]
    #[arg(default_value = INGRESS_CLASS_NAME)]
    ingress_class: String,

    /// Exit with status 0 although something is left out or invalid
    #[arg(long, env = "PORTICO_ALLOW_PARTIAL", value_parser = BoolishValueParser::new())]
    allow_partial: bool,

    /// Format of the report on stderr
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_REPORT")]
    report: OutputFormat,
}

/// `portico convert kong`, resolved.
#[derive(Clone, Debug)]
pub struct ConvertKongOptions {
    pub source: ConvertedSource,
    pub namespace: String,
    pub ingress_class: String,
    pub allow_partial: bool,
    pub report: OutputFormat,
    pub color_stderr: bool,
}

#[derive(Clone, Debug)]
pub enum ConvertedSource {
    /// `kong.yml`
    DeclarativeFile(PathBuf),
    /// A script of calls to the Admin API.
    AdminCalls(PathBuf),
}

impl ConvertKongArgs {
    pub(super) fn resolve(self, color_stderr: bool) -> ConvertKongOptions {
        let source = match (self.admin_calls, self.file) {
            (Some(script), _) => ConvertedSource::AdminCalls(script),
            (None, file) => ConvertedSource::DeclarativeFile(file.unwrap_or_default()),
        };
        ConvertKongOptions {
            source,
            namespace: self.namespace,
            ingress_class: self.ingress_class,
            allow_partial: self.allow_partial,
            report: self.report,
            color_stderr,
        }
    }
}

const EXAMPLES: &str = "\
The manifests are written to stdout, the report to stderr. References such as ${{ env \"DECK_HOST\" }} in a
file, and variables that a script does not set, are replaced by the variables of this process, so the output
may contain secrets. Scripts are not run: only calls of curl are read, with the files that they send.

Exit codes: 0 everything is converted; 1 something is left out or would not work, and --allow-partial is
not set, or the file is invalid; 2 the file cannot be read.

Examples:
  # Convert, and see what differs
  portico convert kong kong.yml > manifests.yaml

  # Convert a script that configures Kong by its Admin API
  portico convert kong --admin-calls setup.sh > manifests.yaml

  # Serve the file as it is
  portico run --kong-config kong.yml";
