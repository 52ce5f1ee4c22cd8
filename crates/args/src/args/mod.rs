//! The command line: subcommands, flags and usage errors.
//!
//! ```text
//!   argv, PORTICO_… ──clap──▶ RunArgs (as given) ──resolve──▶ RunOptions (what everything else reads)
//! ```
//!
//! clap parses single values and reports their errors. `resolve` checks rules that concern several flags, and sets
//! defaults that depend on the environment.

mod access_log;
mod budgets;
mod check;
mod cluster;
mod cluster_access;
mod convert;
mod environment;
mod gateways;
mod ingress;
mod kong;
mod label_selector;
mod location;
mod network;
mod nginx_classes;
mod nginx_metrics;
mod object_name;
mod otlp;
mod output_format;
mod run;
mod slo;
mod tls;
mod tracing;
mod verify;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use thiserror::Error;

pub use access_log::{AccessLogContent, AccessLogOptions};
pub use budgets::BudgetOptions;
pub(crate) use check::CheckArgs;
pub use check::CheckOptions;
pub use cluster::ClusterOptions;
pub use cluster_access::ClusterAccess;
use cluster_access::UNKNOWN_CLUSTER;
pub(crate) use convert::ConvertArgs;
pub use convert::{
    ConvertIngressNginxOptions, ConvertKongOptions, ConvertOptions, ConvertedSource, IngressSource, MigrationFormat,
    MigrationOutput, NGINX_CONTROLLER,
};
pub use environment::Environment;
pub use gateways::{AddressPool, AddressSource, GatewayOptions};
pub use ingress::{
    ConsumerScopeArg, HostOwner, IngressClassOptions, IngressListenAddress, IngressOptions, KongRouter, PublishOptions,
    StreamPortProtocol,
};
pub use kong::{KongHeadersArg, KongOptions};
pub use location::LocationOptions;
pub use network::PathFormArg;
pub use nginx_classes::{NGINX_CLASS, NginxClassOptions, NginxOptions};
pub use nginx_metrics::NginxMetricsOptions;
pub use object_name::NamespacedName;
pub use otlp::{OtlpOptions, OtlpProtocolArg};
pub use output_format::OutputFormat;
pub(crate) use run::RunArgs;
pub use run::{DRAIN_DELAY_IN_CLUSTER, DrainOptions, RunOptions};
pub use tls::{TlsOptions, TlsVersionArg};
pub use tracing::{TraceFormatArg, TraceOptions};
pub(crate) use verify::VerifyArgs;
pub use verify::{ConnectToArg, SendOption, VerifyOptions};

use crate::process_log::{LogFilter, LogFormat, LogOptions};
use crate::schema;
use crate::slo::SloOptions;

/// Kubernetes ingress controller, Gateway API implementation and API gateway in one binary
#[derive(Debug, Parser)]
#[command(name = "portico", version = crate::version::VERSION, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,

    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
enum CliCommand {
    Run(RunArgs),
    Check(CheckArgs),
    Verify(VerifyArgs),
    Convert(ConvertArgs),
    Echo(EchoArgs),
    Crds(CrdsArgs),
    Slo(slo::SloArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

/// The parsed command, ready to execute.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
pub enum CliRequest {
    Run(RunOptions),
    Check(CheckOptions),
    Verify(VerifyOptions),
    Convert(ConvertOptions),
    Echo(EchoOptions),
    Crds,
    Slo(SloOptions),
    Version(OutputFormat),
    Completion(clap_complete::Shell),
}

/// Parses the command line. For a usage error or `--help`, prints the text and returns the exit code as the error.
pub fn parse(argv: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<CliRequest, ExitCode> {
    try_parse(argv, environment).map_err(|error| {
        // If stdout and stderr are closed, the message cannot be delivered.
        error.print().ok();
        if error.use_stderr() { ExitStatus::Usage.into() } else { ExitStatus::Success.into() }
    })
}

fn try_parse(
    argv: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<CliRequest, Box<clap::Error>> {
    let argv: Vec<_> = argv.into_iter().collect();
    let mut command = command().color(message_color(&argv));
    let matches = command.try_get_matches_from_mut(argv)?;
    let Cli { command: cli_command, color } = Cli::from_arg_matches(&matches)?;
    let name = matches.subcommand_name().expect("clap demands a subcommand");
    let resolved = match cli_command {
        CliCommand::Run(args) => args.resolve(&color, environment).map(CliRequest::Run),
        CliCommand::Check(args) => args.resolve(&color, environment).map(CliRequest::Check),
        CliCommand::Verify(args) => args.resolve(&color, environment).map(CliRequest::Verify),
        CliCommand::Convert(args) => {
            let color = color.resolve(environment.stderr_is_terminal, environment);
            let checked = run::require_single_standard_input("PATH", args.paths());
            checked.and_then(|()| Ok(args.resolve(color, environment)?)).map(CliRequest::Convert)
        }
        CliCommand::Echo(args) => {
            Ok(CliRequest::Echo(EchoOptions { listen: args.listen, log: args.log.resolve(&color, environment) }))
        }
        CliCommand::Crds(CrdsArgs {}) => Ok(CliRequest::Crds),
        CliCommand::Slo(args) => args.resolve().map(CliRequest::Slo).map_err(UsageError::from),
        CliCommand::Version(args) => Ok(CliRequest::Version(args.output)),
        CliCommand::Completion(args) => Ok(CliRequest::Completion(args.shell)),
    };
    resolved.map_err(|error| {
        let subcommand = command.find_subcommand_mut(name).expect("clap just matched it");
        Box::new(subcommand.error(ErrorKind::ValueValidation, error))
    })
}

/// Whether help and usage errors are colored. clap decides that before it parses `--color`, so the flag is looked up
/// here; clap reports an invalid value later.
fn message_color(argv: &[OsString]) -> clap::ColorChoice {
    let flag = argv.iter().zip(argv.iter().skip(1).map(Some).chain([None])).find_map(|(argument, next)| {
        let argument = argument.to_str()?;
        if argument == "--color" { next?.to_str() } else { argument.strip_prefix("--color=") }
    });
    let variable = std::env::var("PORTICO_COLOR").ok();
    match flag.or(variable.as_deref()) {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

/// The whole command line as a clap command, for completion scripts and documentation.
pub fn command() -> clap::Command {
    // The names of the environment variables follow one rule, which the help states once instead of for every flag.
    Cli::command()
        .mut_args(|arg| arg.hide_env(true))
        .mut_subcommands(|subcommand| subcommand.max_term_width(100).mut_args(|arg| arg.hide_env(true)))
}

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0
    Success,
    /// 1: an object has an error, or a warning with `--warnings-as-errors`; or a request is not served as written.
    Rejected,
    /// 2: usage or I/O error.
    Usage,
}

impl From<ExitStatus> for ExitCode {
    fn from(exit: ExitStatus) -> Self {
        match exit {
            ExitStatus::Success => ExitCode::SUCCESS,
            ExitStatus::Rejected => ExitCode::from(1),
            ExitStatus::Usage => ExitCode::from(2),
        }
    }
}

/// Flags that contradict each other, a flag without one that it requires, or no source of objects.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    #[error(
        "no source of objects is given; give --manifests PATH (a file, a directory, or - for standard input), \
         --kong-config FILE, or --kubernetes with --kubeconfig FILE or --context NAME"
    )]
    NoSource,
    #[error("{UNKNOWN_CLUSTER}")]
    UnknownCluster,
    #[error(transparent)]
    IngressSource(#[from] convert::IngressSourceError),
    #[error("{flag} is given without --kubernetes, and files alone never contact a cluster; add --kubernetes")]
    RequiresKubernetes { flag: &'static str },
    #[error("--gateway-address-pool and --gateway-service-type exclude each other; remove one")]
    PoolAndService,
    #[error("{flag} names standard input (-) twice, and it can be read only once; give - once")]
    DuplicateStandardInput { flag: &'static str },
    #[error("{first} and {second} both listen on {address}; give one of them another port")]
    DuplicateAddress { first: &'static str, second: &'static str, address: SocketAddr },
    #[error(transparent)]
    AccessLog(#[from] access_log::AccessLogUsageError),
    #[error(transparent)]
    Trace(#[from] tracing::TraceUsageError),
    #[error(transparent)]
    NginxMetrics(#[from] nginx_metrics::NginxMetricsUsageError),
    #[error(transparent)]
    Slo(#[from] slo::SloUsageError),
    #[error("--tls-min-version 1.3 excludes all of --tls-ciphers; add one of TLS 1.3, such as TLS_AES_128_GCM_SHA256")]
    NoCipherForVersion,
}

#[derive(Debug, Args)]
struct ColorArgs {
    /// When to color messages; `auto` does so on a terminal unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", global = true)]
    #[arg(env = "PORTICO_COLOR", help_heading = "Global options")]
    color: ColorChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorArgs {
    fn resolve(&self, is_terminal: bool, environment: &Environment) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !environment.no_color,
        }
    }
}

/// Release channel of the Gateway API that decides which kinds and fields exist
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChannelArg {
    Standard,
    Experimental,
}

impl From<ChannelArg> for schema::Channel {
    fn from(channel: ChannelArg) -> Self {
        match channel {
            ChannelArg::Standard => schema::Channel::Standard,
            ChannelArg::Experimental => schema::Channel::Experimental,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
struct LogArgs {
    /// Log level for stderr (error, warn, info, debug, trace), optionally followed by levels of single modules
    /// (`info,portico::proxy=debug`)
    #[arg(long, default_value = "info", value_name = "LEVEL", env = "PORTICO_LOG_LEVEL")]
    log_level: LogFilter,

    /// Format of all logs; default: text on a terminal, otherwise JSON
    #[arg(long, value_enum, value_name = "FORMAT", env = "PORTICO_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

impl LogArgs {
    fn resolve(self, color: &ColorArgs, environment: &Environment) -> LogOptions {
        let is_terminal = environment.stderr_is_terminal;
        LogOptions {
            filter: self.log_level,
            format: self.log_format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json }),
            color: color.resolve(is_terminal, environment),
        }
    }
}

/// Respond to every request with a JSON description of it
#[derive(Debug, Args)]
#[command(after_help = ECHO_EXAMPLES)]
struct EchoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", env = "PORTICO_LISTEN", value_parser = network::parse_socket_address)]
    listen: SocketAddr,

    #[command(flatten)]
    log: LogArgs,
}

/// `portico echo`, resolved.
#[derive(Debug)]
pub struct EchoOptions {
    pub listen: SocketAddr,
    pub log: LogOptions,
}

/// Print the CustomResourceDefinitions of Portico's own and of Kong's kinds, for clusters that do not have them
#[derive(Debug, Args)]
#[command(after_help = CRDS_EXAMPLES)]
struct CrdsArgs {}

/// Print the version
#[derive(Debug, Args)]
struct VersionArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
struct CompletionArgs {
    /// Shell to generate the script for
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

const EXAMPLES: &str = "\
Exit codes: 0 no errors, warnings do not count; 1 an object has an error, or `verify` found a request that is not \
served as written; 2 usage or I/O error.

Every flag can also be set by an environment variable: --drain-timeout is PORTICO_DRAIN_TIMEOUT.

Examples:
  # Validate manifests
  portico check gateway.yaml routes/

  # Serve them, with a backend that echoes the request
  portico run --manifests gateway.yaml routes/ --echo 127.0.0.1:9000

  # Send requests that their routes match, and show what serves them
  portico verify gateway.yaml routes/";

const ECHO_EXAMPLES: &str = "\
The query controls the response: ?status=503 sets the status code, ?delay=500ms delays it (30s at most).

Examples:
  # Show what a backend would receive
  portico echo --listen 127.0.0.1:9000
  curl 'http://127.0.0.1:9000/any/path?status=201&delay=250ms'";

const CRDS_EXAMPLES: &str = "\
GatewayParameters has settings of the Services in front of Gateways. With KongPlugin, KongConsumer and the other
kinds, a cluster accepts manifests written for Kong's ingress controller; they are not needed where Kong's own
definitions are installed.

Examples:
  # Install or update the definitions
  portico crds | kubectl apply -f -

  # Explore the fields
  kubectl explain kongplugin.config
  kubectl get kong --all-namespaces";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  # bash, for this session
  source <(portico completion bash)

  # zsh, for all sessions
  portico completion zsh > \"${fpath[1]}/_portico\"

  # fish, for all sessions
  portico completion fish > ~/.config/fish/completions/portico.fish";

#[cfg(test)]
mod tests;
