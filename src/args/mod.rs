//! The command line: what can be asked of the program, and how it says that it was asked wrongly.
//!
//! ```text
//!   argv, PORTICO_… ──clap──▶ RunArgs (as given) ──resolve──▶ RunOptions (what everything else reads)
//! ```
//!
//! Single values are parsed where clap can name the flag and the value; what needs two flags or a look at the machine
//! happens in `resolve`.

mod check;
mod cluster;
mod gateways;
mod ingress;
mod kong;
mod network;
mod run;
mod tls;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use thiserror::Error;

pub use check::{CheckArgs, CheckOptions};
pub use cluster::{ClusterAccess, ClusterOptions};
pub use gateways::{AddressPool, AddressSource, GatewayOptions};
pub use ingress::{
    IngressClassOptions, IngressListen, IngressOptions, KongRouter, Name as NamespacedName, PublishOptions,
};
pub use kong::{KongHeaders, KongOptions};
pub use run::{AccessLog, DrainOptions, Limits, RunArgs, RunOptions};
pub use tls::{TlsOptions, TlsVersion};

use crate::proxy::access_log::Field;
use crate::schema;
use crate::telemetry::{LogFilter, LogFormat, LogOptions};

/// Kubernetes ingress controller, Gateway API implementation and API gateway in one binary
#[derive(Debug, Parser)]
#[command(name = "portico", version = crate::version::VERSION, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    Echo(EchoArgs),
    Crds(CrdsArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

/// What the command line asks for, ready to be done.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
pub enum Request {
    Run(RunOptions),
    Check(CheckOptions),
    Echo(EchoOptions),
    Crds,
    Version(OutputFormat),
    Completion(clap_complete::Shell),
}

/// Reads the command line. On a usage error, and for `--help`, the message is printed and the code to leave with is
/// returned.
pub fn parse(argv: impl IntoIterator<Item = OsString>, surroundings: &Surroundings) -> Result<Request, ExitCode> {
    try_parse(argv, surroundings).map_err(|error| {
        // Nobody is left to be told when stdout and stderr are closed.
        error.print().ok();
        if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() }
    })
}

fn try_parse(
    argv: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings,
) -> Result<Request, Box<clap::Error>> {
    let argv: Vec<_> = argv.into_iter().collect();
    let mut command = command().color(color_of_messages(&argv));
    let matches = command.try_get_matches_from_mut(argv)?;
    let Cli { command: given, color } = Cli::from_arg_matches(&matches)?;
    let name = matches.subcommand_name().expect("clap demands a subcommand");
    let resolved = match given {
        Command::Run(args) => args.resolve(&color, surroundings).map(Request::Run),
        Command::Check(args) => args.resolve(&color, surroundings).map(Request::Check),
        Command::Echo(args) => {
            Ok(Request::Echo(EchoOptions { listen: args.listen, log: args.log.resolve(&color, surroundings) }))
        }
        Command::Crds(CrdsArgs {}) => Ok(Request::Crds),
        Command::Version(args) => Ok(Request::Version(args.output)),
        Command::Completion(args) => Ok(Request::Completion(args.shell)),
    };
    resolved.map_err(|error| {
        let subcommand = command.find_subcommand_mut(name).expect("clap just matched it");
        Box::new(subcommand.error(ErrorKind::ValueValidation, error))
    })
}

/// clap colors help and errors before it has read `--color`, so it is looked for first. A value that is none is clap's to
/// refuse.
fn color_of_messages(argv: &[OsString]) -> clap::ColorChoice {
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

/// The whole command line as clap sees it, for completion scripts and documentation.
pub fn command() -> clap::Command {
    // The variables follow one rule, which is printed once; a hundred lines that repeat it would hide what matters.
    Cli::command()
        .mut_args(|arg| arg.hide_env(true))
        .mut_subcommands(|subcommand| subcommand.max_term_width(100).mut_args(|arg| arg.hide_env(true)))
}

/// What the machine and the terminal say, so that nothing below asks them.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    pub cores: NonZeroUsize,
    /// This process runs in a Pod, with a service account.
    pub in_cluster: bool,
}

impl Surroundings {
    pub fn of_this_process() -> Self {
        Surroundings {
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            in_cluster: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|value| !value.is_empty())
                && Path::new(SERVICE_ACCOUNT_TOKEN).exists(),
        }
    }
}

const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Fine,
    /// 1: something was refused.
    Refused,
    /// 2: the command line, or reading and writing, went wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => ExitCode::SUCCESS,
            Exit::Refused => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
        }
    }
}

/// Flags that contradict each other, or lack one another.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    #[error(
        "there is nothing to read objects from; give --manifests PATH (a file, a folder, or - for standard input), or \
         --kubernetes with --kubeconfig FILE or --context NAME"
    )]
    NoSource,
    #[error(
        "--kubernetes does not say which cluster, and this is not a Pod of one; give --kubeconfig FILE or --context NAME, \
         so that a kubeconfig is not used by accident"
    )]
    WhichCluster,
    #[error("{flag} is given without --kubernetes, and --manifests alone never contacts a cluster; add --kubernetes")]
    NeedsKubernetes { flag: &'static str },
    #[error(
        "--gateway-address-pool and --gateway-service-type are both given, and a Gateway gets its address from one of them; \
         leave one out"
    )]
    PoolAndService,
    #[error("{flag} names standard input (-) twice, and it can be read only once; give - once")]
    StandardInputTwice { flag: &'static str },
    #[error("{first} and {second} both want {address}, and only one can have it; give one of them another port")]
    SameAddress { first: &'static str, second: &'static str, address: SocketAddr },
    #[error("--access-log-fields names `{field}` twice, and a line has one value for it; name it once")]
    FieldTwice { field: Field },
    #[error("--tls-min-version 1.3 leaves none of --tls-ciphers; add one of TLS 1.3, such as TLS_AES_128_GCM_SHA256")]
    NoCipherForVersion,
}

#[derive(Debug, Args)]
struct ColorArgs {
    /// Whether to color messages; `auto` does so on a terminal unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN", global = true)]
    #[arg(env = "PORTICO_COLOR", help_heading = "Global options")]
    color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl ColorArgs {
    fn resolve(&self, is_terminal: bool, surroundings: &Surroundings) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !surroundings.no_color,
        }
    }
}

/// Which release channel of the Gateway API decides what exists
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Channel {
    Standard,
    Experimental,
}

impl From<Channel> for schema::Channel {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Standard => schema::Channel::Standard,
            Channel::Experimental => schema::Channel::Experimental,
        }
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
struct LogArgs {
    /// What to log to stderr: a level (error, warn, info, debug, trace) or, after it, single modules
    /// (`info,portico::proxy=debug`)
    #[arg(long, default_value = "info", value_name = "LEVEL", env = "PORTICO_LOG_LEVEL")]
    log_level: LogFilter,

    /// Form of all logs; without it text on a terminal, else JSON
    #[arg(long, value_enum, value_name = "FORMAT", env = "PORTICO_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

impl LogArgs {
    fn resolve(self, color: &ColorArgs, surroundings: &Surroundings) -> LogOptions {
        let on_terminal = surroundings.stderr_is_terminal;
        LogOptions {
            filter: self.log_level,
            format: self.log_format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json }),
            color: color.resolve(on_terminal, surroundings),
        }
    }
}

/// Answer every request with what was received, as JSON
#[derive(Debug, Args)]
#[command(after_help = ECHO_EXAMPLES)]
struct EchoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", env = "PORTICO_LISTEN", value_parser = network::address)]
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

/// Print the definitions of Kong's kinds, for a cluster that does not have them
#[derive(Debug, Args)]
#[command(after_help = CRDS_EXAMPLES)]
struct CrdsArgs {}

/// Print the version
#[derive(Debug, Args)]
struct VersionArgs {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

const EXAMPLES: &str = "\
Exit codes: 0 fine, 1 something was refused, 2 usage or I/O error.

Every flag can be given as an environment variable too: --drain-timeout is PORTICO_DRAIN_TIMEOUT.

Examples:
  # Check manifests like a compiler
  portico check gateway.yaml routes/

  # Serve them, with a backend that answers with what it received
  portico run --manifests gateway.yaml routes/ --echo 127.0.0.1:9000";

const ECHO_EXAMPLES: &str = "\
The query asks for another answer: ?status=503 sets the status code, ?delay=500ms waits first (30s at most).

Examples:
  # See what a backend would see
  portico echo --listen 127.0.0.1:9000
  curl 'http://127.0.0.1:9000/any/path?status=201&delay=250ms'";

const CRDS_EXAMPLES: &str = "\
With KongPlugin, KongConsumer and the others a cluster takes manifests that were written for Kong's
ingress controller. Where Kong's own definitions are installed, these are not needed.

Examples:
  # Install or update them
  portico crds | kubectl apply -f -

  # What can be written where
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
