//! Flags of `portico verify` and the options they resolve to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::network::parse_socket_address;
use super::run::require_single_standard_input;
use super::{ChannelArg, ColorArgs, Environment, OutputFormat, UsageError};
use crate::quantity::NonZeroTimeout;
use crate::schema;

/// Send requests that the routes in manifests match to a running gateway, and compare what serves them with the
/// manifests
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Files and folders of YAML, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", env = "PORTICO_OUTPUT")]
    output: OutputFormat,

    /// Address of the gateway's admin listener, which reports what served each request
    #[arg(long, value_name = "ADDR", env = "PORTICO_ADMIN", default_value = "127.0.0.1:8101")]
    #[arg(value_parser = parse_socket_address)]
    admin: SocketAddr,

    /// Address to connect to instead of the one that the gateway listens on at this port; without `PORT=`, at all ports
    #[arg(long, value_name = "PORT=ADDR", value_delimiter = ',', env = "PORTICO_CONNECT_TO")]
    connect_to: Vec<ConnectToArg>,

    /// Forward no request: the gateway selects the rule and the backend, and responds itself
    #[arg(long, env = "PORTICO_DRY_RUN", value_parser = BoolishValueParser::new(), conflicts_with = "send_unsafe")]
    dry_run: bool,

    /// Also forward requests with methods other than GET, HEAD and OPTIONS, which may change data of backends; without
    /// this flag, they are dry runs
    #[arg(long, env = "PORTICO_SEND_UNSAFE", value_parser = BoolishValueParser::new())]
    send_unsafe: bool,

    /// Timeout of each request
    #[arg(long, value_name = "DURATION", env = "PORTICO_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(DEFAULT_TIMEOUT))]
    timeout: NonZeroTimeout,

    /// Release channel of the Gateway API that decides which kinds and fields exist
    #[arg(long, value_enum, default_value_t = ChannelArg::Experimental, value_name = "CHANNEL", env = "PORTICO_CHANNEL")]
    channel: ChannelArg,
}

/// `portico verify`, resolved.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// At least one; `-` means standard input and occurs at most once.
    pub paths: Vec<PathBuf>,
    pub output: OutputFormat,
    pub admin: SocketAddr,
    pub connect_to: Vec<ConnectToArg>,
    pub send: SendOption,
    pub timeout: Duration,
    pub channel: schema::Channel,
    pub color_stderr: bool,
    /// Whether a line of progress can be replaced.
    pub stderr_is_terminal: bool,
}

/// Which requests are forwarded to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOption {
    None,
    /// Those with GET, HEAD or OPTIONS.
    Safe,
    All,
}

/// An address to connect to, for one port that the gateway listens on or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectToArg {
    pub port: Option<u16>,
    pub address: SocketAddr,
}

impl FromStr for ConnectToArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((port, address)) = text.split_once('=') else {
            return Ok(ConnectToArg { port: None, address: parse_socket_address(text)? });
        };
        let port = port.parse::<u16>().ok().filter(|port| *port != 0);
        let port = port.ok_or("does not begin with a port; write for example 80=127.0.0.1:8080")?;
        Ok(ConnectToArg { port: Some(port), address: parse_socket_address(address)? })
    }
}

impl VerifyArgs {
    pub(super) fn resolve(self, color: &ColorArgs, environment: &Environment) -> Result<VerifyOptions, UsageError> {
        require_single_standard_input("PATH", &self.paths)?;
        Ok(VerifyOptions {
            paths: self.paths,
            output: self.output,
            admin: self.admin,
            connect_to: self.connect_to,
            send: match (self.dry_run, self.send_unsafe) {
                (true, _) => SendOption::None,
                (false, false) => SendOption::Safe,
                (false, true) => SendOption::All,
            },
            timeout: self.timeout.0,
            channel: self.channel.into(),
            color_stderr: color.resolve(environment.stderr_is_terminal, environment),
            stderr_is_terminal: environment.stderr_is_terminal,
        })
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
For each match of each HTTPRoute, GRPCRoute and Ingress, on each listener that has the route and for each hostname, \
one request is sent to the gateway. The gateway records which route, rule and backend serve it, and the record is \
compared with the manifests.

Exit codes: 0 all requests are served as written, 1 a request is not, or an object is invalid, 2 invalid arguments, or \
the admin listener cannot be reached.

Examples:
  # What `make run` serves
  portico verify examples/quickstart

  # Without a request to a backend
  portico verify --dry-run ./manifests

  # The routes of a cluster, in the Pod of the gateway
  kubectl get httproutes,ingresses --all-namespaces -o yaml |
    kubectl exec -i -n portico deploy/portico -- portico verify -

  # Machine-readable: a list with object, rule, field, listener, request, servedBy, result and
  # message
  portico verify -o json ./manifests";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_connect_to_are_parsed() {
        let entry = |port, address: &str| Ok(ConnectToArg { port, address: address.parse().unwrap() });
        for (text, expected) in [
            ("127.0.0.1:8080", entry(None, "127.0.0.1:8080")),
            ("80=[::1]:8080", entry(Some(80), "[::1]:8080")),
            ("0=127.0.0.1:80", Err("does not begin with a port; write for example 80=127.0.0.1:8080".to_owned())),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        assert!("80=10.0.0.1".parse::<ConnectToArg>().unwrap_err().starts_with("has no port"));
    }
}
