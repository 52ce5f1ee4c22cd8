//! Flags of `portico convert`: a subcommand for each gateway whose configuration is converted.

mod ingress_nginx;
mod kong;
mod migration_output;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::ingress_nginx::ConvertIngressNginxArgs;
pub(crate) use self::ingress_nginx::IngressSourceError;
pub use self::ingress_nginx::{ConvertIngressNginxOptions, IngressSource, MigrationFormat, NGINX_CONTROLLER};
use self::kong::ConvertKongArgs;
pub use self::kong::{ConvertKongOptions, ConvertedSource};
pub use self::migration_output::MigrationOutput;
use super::environment::Environment;

/// Convert the configuration of another gateway, or report what becomes of it
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct ConvertArgs {
    #[command(subcommand)]
    source: ConvertSource,
}

#[derive(Debug, Subcommand)]
enum ConvertSource {
    Kong(ConvertKongArgs),
    IngressNginx(ConvertIngressNginxArgs),
}

/// `portico convert`, resolved.
#[derive(Clone, Debug)]
pub enum ConvertOptions {
    Kong(ConvertKongOptions),
    IngressNginx(ConvertIngressNginxOptions),
}

impl ConvertArgs {
    /// The paths of files and folders, among which standard input may be.
    pub(super) fn paths(&self) -> &[PathBuf] {
        match &self.source {
            ConvertSource::Kong(_) => &[],
            ConvertSource::IngressNginx(args) => &args.paths,
        }
    }

    pub(super) fn resolve(
        self,
        color_stderr: bool,
        environment: &Environment,
    ) -> Result<ConvertOptions, IngressSourceError> {
        Ok(match self.source {
            ConvertSource::Kong(args) => ConvertOptions::Kong(args.resolve(color_stderr)),
            ConvertSource::IngressNginx(args) => ConvertOptions::IngressNginx(args.resolve(color_stderr, environment)?),
        })
    }
}
