//! Flags of `portico run` and the options they resolve to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;

use super::access_log::{AccessLogArgs, AccessLogContent, AccessLogOptions};
use super::budgets::{BudgetArgs, BudgetOptions};
use super::cluster::{ClusterArgs, ClusterOptions};
use super::gateways::{GatewayArgs, GatewayServiceArgs};
use super::ingress::{IngressArgs, IngressClassArgs, IngressClassOptions, IngressOptions};
use super::kong::{KongArgs, KongOptions};
use super::location::{LocationArgs, LocationOptions};
use super::network::{self, ListenArg, PathFormArg};
use super::nginx_metrics::{NginxMetricsArgs, NginxMetricsOptions};
use super::otlp::{OtlpArgs, OtlpOptions};
use super::tls::{TlsArgs, TlsOptions};
use super::tracing::{TraceArgs, TraceOptions};
use super::{ChannelArg, ColorArgs, Environment, GatewayOptions, LogArgs, UsageError};
use crate::limits::ProxyLimits;
use crate::plugin_api::batch_queue::DEFAULT_QUEUED_BYTES;
use crate::plugin_api::remote::DEFAULT_MAX_CONNECTIONS;
use crate::plugin_kit::default_limits::DEFAULT_CACHE_BYTES;
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;
use crate::process_log::LogOptions;
use crate::quantity::{HeaderSize, MemorySize, MinimumRate, NonZeroTimeout, WaitTime};
use crate::schema;
use crate::upstream::HealthChecks;

/// Serve the Gateways and routes of a cluster, of manifests or of both, and follow their changes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    location: LocationArgs,
    #[command(flatten)]
    gateways: GatewayArgs,
    #[command(flatten)]
    gateway_service: GatewayServiceArgs,
    #[command(flatten)]
    listening: ListeningArgs,
    #[command(flatten)]
    ingress_class: IngressClassArgs,
    #[command(flatten)]
    ingress: IngressArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
    #[command(flatten)]
    kong: KongArgs,
    #[command(flatten)]
    drain: DrainArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    access_log: AccessLogArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    nginx_metrics: NginxMetricsArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sources")]
struct SourceArgs {
    /// YAML files and directories to serve and watch, or - for standard input (repeatable); no cluster is contacted
    /// unless --kubernetes is given too
    #[arg(long, value_name = "PATH", num_args = 1.., env = "PORTICO_MANIFESTS")]
    manifests: Vec<PathBuf>,

    /// Declarative file of Kong (kong.yml) to serve as it is and to watch, alone or in addition to manifests
    #[arg(long, value_name = "FILE", env = "PORTICO_KONG_CONFIG")]
    kong_config: Option<PathBuf>,

    #[command(flatten)]
    cluster: ClusterArgs,

    /// Release channel of the Gateway API that decides which kinds and fields exist
    #[arg(long, value_enum, default_value_t = ChannelArg::Experimental, value_name = "CHANNEL", env = "PORTICO_CHANNEL")]
    channel: ChannelArg,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Listening")]
struct ListeningArgs {
    /// Address for /healthz, /readyz and /metrics, or off; default: 127.0.0.1:8100, or 0.0.0.0:8100 in a cluster
    #[arg(long, value_name = "ADDR", env = "PORTICO_STATUS_LISTEN")]
    status_listen: Option<ListenArg>,

    /// Address for the views under /debug and for portico verify, or off
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8101", env = "PORTICO_ADMIN_LISTEN")]
    admin_listen: ListenArg,

    /// File with the token of clients that may purge stored responses with DELETE /cache on the admin listener; without
    /// it, no client may
    #[arg(long, value_name = "FILE", env = "PORTICO_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Also start an echo backend on this address, which responds with a description of the request
    #[arg(long, value_name = "ADDR", env = "PORTICO_ECHO", value_parser = network::parse_socket_address)]
    echo: Option<SocketAddr>,

    /// Let another Portico process listen on the same ports, for a handover without downtime
    #[arg(long, env = "PORTICO_ALLOW_PORT_SHARING", value_parser = BoolishValueParser::new())]
    allow_port_sharing: bool,

    /// Peers whose X-Forwarded headers are trusted: addresses or CIDRs (repeatable); default: none
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_TRUSTED_IPS")]
    #[arg(value_parser = network::parse_network)]
    trusted_ips: Vec<IpNet>,

    /// Forms of paths that get 400, because some backends read such a path as another one (repeatable); default: none
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',', env = "PORTICO_REJECT_PATHS")]
    reject_paths: Vec<PathFormArg>,

    /// Forward the names of header fields over HTTP/1 in the case in which they arrive, instead of in lower case
    #[arg(long, env = "PORTICO_KEEP_HEADER_CASE", value_parser = BoolishValueParser::new())]
    keep_header_case: bool,

    /// Load balancers that start every connection with a PROXY header, version 1 or 2: addresses or CIDRs (repeatable)
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_PROXY_PROTOCOL_FROM")]
    #[arg(value_parser = network::parse_network)]
    proxy_protocol_from: Vec<IpNet>,

    /// Threads that serve requests; default: one per core
    #[arg(long, value_name = "NUMBER", env = "PORTICO_WORKERS", value_parser = parse_count::<1024>)]
    workers: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Maximum number of client connections, and of connections to backends; more wait while idle ones close
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_CONNECTIONS")]
    #[arg(value_parser = parse_limit::<usize, 10_000_000>, default_value_t = ProxyLimits::DEFAULT.max_connections)]
    max_connections: usize,

    /// Time for a client to send the header of a request
    #[arg(long, value_name = "DURATION", env = "PORTICO_CLIENT_HEADER_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.header_timeout))]
    client_header_timeout: NonZeroTimeout,

    /// Maximum size of a request header, request line included (8KiB to 1MiB)
    #[arg(long, value_name = "SIZE", env = "PORTICO_CLIENT_HEADER_BYTES")]
    #[arg(default_value_t = HeaderSize(ProxyLimits::DEFAULT.max_request_head))]
    client_header_bytes: HeaderSize,

    /// Maximum number of fields in a request header
    #[arg(long, value_name = "NUMBER", env = "PORTICO_CLIENT_HEADER_COUNT")]
    #[arg(value_parser = parse_limit::<usize, 10_000>, default_value_t = ProxyLimits::DEFAULT.max_request_fields)]
    client_header_count: usize,

    /// Maximum number of Portico processes that forward a request one after the other; the next one rejects it
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_HOPS")]
    #[arg(value_parser = parse_limit::<u8, 255>, default_value_t = ProxyLimits::DEFAULT.max_hops)]
    max_hops: u8,

    /// Idle timeout of client connections
    #[arg(long, value_name = "DURATION", env = "PORTICO_CLIENT_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.client_idle_timeout))]
    client_idle_timeout: NonZeroTimeout,

    /// Time in which a client may send nothing of a request body that the backend waits for
    #[arg(long, value_name = "DURATION", env = "PORTICO_CLIENT_BODY_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.request_body_timeout))]
    client_body_timeout: NonZeroTimeout,

    /// Minimum bytes of a request body that a client has to send per second on average while the backend waits for
    /// them, beyond a grace period of 10s; 0 for no minimum
    #[arg(long, value_name = "SIZE", env = "PORTICO_CLIENT_MIN_RATE")]
    #[arg(default_value_t = MinimumRate(ProxyLimits::DEFAULT.client_min_rate))]
    client_min_rate: MinimumRate,

    /// Maximum number of concurrent requests on one HTTP/2 client connection
    #[arg(long, value_name = "NUMBER", env = "PORTICO_CLIENT_HTTP2_STREAMS")]
    #[arg(value_parser = parse_limit::<u32, 10_000>, default_value_t = ProxyLimits::DEFAULT.max_streams)]
    client_http2_streams: u32,

    /// Idle timeout of upgraded connections, such as WebSockets
    #[arg(long, value_name = "DURATION", env = "PORTICO_UPGRADE_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.upgrade_idle_timeout))]
    upgrade_idle_timeout: NonZeroTimeout,

    /// Idle timeout of the connections of TCP listeners and of TLS listeners with TLSRoutes
    #[arg(long, value_name = "DURATION", env = "PORTICO_STREAM_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.stream_idle_timeout))]
    stream_idle_timeout: NonZeroTimeout,

    /// Idle timeout of the sessions of UDP listeners
    #[arg(long, value_name = "DURATION", env = "PORTICO_UDP_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.udp_idle_timeout))]
    udp_idle_timeout: NonZeroTimeout,

    /// Maximum number of sessions of UDP listeners; a new one then replaces the one that has been idle for longest
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_UDP_SESSIONS")]
    #[arg(value_parser = parse_limit::<usize, 10_000_000>, default_value_t = ProxyLimits::DEFAULT.max_udp_sessions)]
    max_udp_sessions: usize,

    /// Maximum number of connections of one client to TCP listeners and to TLS listeners with TLSRoutes; 0 for no
    /// limit. The addresses of an IPv6 network of 64 bits are one client
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_STREAM_CONNECTIONS_PER_CLIENT")]
    #[arg(default_value_t = ProxyLimits::DEFAULT.max_stream_connections_per_client)]
    max_stream_connections_per_client: u32,

    /// Maximum number of sessions of one client of UDP listeners; 0 for no limit
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_UDP_SESSIONS_PER_CLIENT")]
    #[arg(default_value_t = ProxyLimits::DEFAULT.max_udp_sessions_per_client)]
    max_udp_sessions_per_client: u32,

    /// Timeout of connecting to a backend
    #[arg(long, value_name = "DURATION", env = "PORTICO_UPSTREAM_CONNECT_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.connect_timeout))]
    upstream_connect_timeout: NonZeroTimeout,

    /// Time for a backend to respond, or to read more of the request, unless the rule has timeouts
    #[arg(long, value_name = "DURATION", env = "PORTICO_UPSTREAM_RESPONSE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.response_timeout))]
    upstream_response_timeout: NonZeroTimeout,

    /// Time for an external authorization server to decide, from connecting to the end of its response
    #[arg(long, value_name = "DURATION", env = "PORTICO_EXTERNAL_AUTH_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.authorization_timeout))]
    external_auth_timeout: NonZeroTimeout,

    /// Time without progress in a response, because the backend sends nothing or the client does not read
    #[arg(long, value_name = "DURATION", env = "PORTICO_RESPONSE_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.stall_timeout))]
    response_idle_timeout: NonZeroTimeout,

    /// Minimum bytes of a response that a client has to read per second on average while there is more to send, beyond
    /// a grace period of 10s; 0 for no minimum
    #[arg(long, value_name = "SIZE", env = "PORTICO_RESPONSE_MIN_RATE")]
    #[arg(default_value_t = MinimumRate(ProxyLimits::DEFAULT.response_min_rate))]
    response_min_rate: MinimumRate,

    /// Maximum bytes of bodies that are kept in memory, for plugins that read them and for copies of requests
    #[arg(long, value_name = "SIZE", env = "PORTICO_MAX_BUFFERED_BYTES")]
    #[arg(default_value_t = MemorySize(ProxyLimits::DEFAULT.max_buffered_bytes))]
    max_buffered_bytes: MemorySize,

    /// Maximum bytes of request bodies that HTTP/2 clients have sent ahead of the backends, and of responses that they
    /// have not read, of all connections together
    #[arg(long, value_name = "SIZE", env = "PORTICO_MAX_UNFORWARDED_BYTES")]
    #[arg(default_value_t = MemorySize(ProxyLimits::DEFAULT.max_unforwarded_bytes))]
    max_unforwarded_bytes: MemorySize,

    /// Maximum number of identifiers, such as client addresses, that all rate-limiting plugins count in memory
    #[arg(long, value_name = "NUMBER", env = "PORTICO_RATE_LIMIT_ENTRIES")]
    #[arg(value_parser = parse_limit::<usize, 100_000_000>, default_value_t = DEFAULT_ENTRIES)]
    rate_limit_entries: usize,

    /// Maximum bytes of responses that caches have in memory. Each namespace has a share
    #[arg(long, value_name = "SIZE", env = "PORTICO_MAX_CACHE_BYTES")]
    #[arg(default_value_t = MemorySize(DEFAULT_CACHE_BYTES))]
    max_cache_bytes: MemorySize,

    /// Maximum number of connections of plugins to their servers, and of requests of plugins at the same time. Each
    /// namespace has a share
    #[arg(long, value_name = "NUMBER", env = "PORTICO_MAX_PLUGIN_CONNECTIONS")]
    #[arg(value_parser = parse_limit::<usize, 1_000_000>, default_value_t = DEFAULT_MAX_CONNECTIONS)]
    max_plugin_connections: usize,

    /// Maximum bytes of log objects of plugins that wait for their servers or are being sent. Each namespace has a
    /// share
    #[arg(long, value_name = "SIZE", env = "PORTICO_MAX_QUEUED_BYTES")]
    #[arg(default_value_t = MemorySize(DEFAULT_QUEUED_BYTES))]
    max_queued_bytes: MemorySize,

    /// Idle timeout of pooled connections to backends
    #[arg(long, value_name = "DURATION", env = "PORTICO_UPSTREAM_IDLE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.upstream_idle_timeout))]
    upstream_idle_timeout: NonZeroTimeout,

    /// Maximum number of active health checks of endpoints that begin in a second, of all Services together; with more,
    /// all intervals are longer
    #[arg(long, value_name = "NUMBER", env = "PORTICO_HEALTH_CHECKS_PER_SECOND")]
    #[arg(value_parser = parse_rate::<100_000>, default_value_t = HealthChecks::DEFAULT_RATE)]
    health_checks_per_second: NonZeroU32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Stopping")]
struct DrainArgs {
    /// Time to keep serving after SIGTERM while /readyz already fails; default: 0s, or 5s in a cluster
    #[arg(long, value_name = "DURATION", env = "PORTICO_DRAIN_DELAY")]
    drain_delay: Option<WaitTime>,

    /// Time for requests to finish after the drain delay, or when their listener is removed; a second signal stops
    /// Portico at once
    #[arg(long, value_name = "DURATION", env = "PORTICO_DRAIN_TIMEOUT")]
    #[arg(default_value_t = WaitTime(ProxyLimits::DEFAULT.listener_grace_period))]
    drain_timeout: WaitTime,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
struct MetricsArgs {
    /// Folder in which file-log plugins may write; without it, they write to /dev/stdout and /dev/stderr only
    #[arg(long, value_name = "FOLDER", env = "PORTICO_FILE_LOG_FOLDER", value_parser = parse_absolute_path)]
    file_log_folder: Option<PathBuf>,

    /// Maximum number of time series of request metrics; excess series are merged into one
    #[arg(long, value_name = "NUMBER", default_value = "10000", env = "PORTICO_METRICS_MAX_SERIES")]
    #[arg(value_parser = parse_count::<10_000_000>)]
    metrics_max_series: NonZeroUsize,

    /// Also count attempts and their times by endpoint, for at most as many endpoints as --metrics-max-series says
    #[arg(long, env = "PORTICO_ENDPOINT_METRICS", value_parser = BoolishValueParser::new())]
    endpoint_metrics: bool,
}

/// `portico run`, resolved.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// `-` means standard input and occurs at most once. Empty only if there is another source.
    pub manifests: Vec<PathBuf>,
    /// A declarative file of Kong.
    pub kong_config: Option<PathBuf>,
    /// The cluster to watch, alone or in addition to manifests.
    pub cluster: Option<ClusterOptions>,
    pub channel: schema::Channel,
    pub location: LocationOptions,
    pub gateways: GatewayOptions,
    /// `None` means off.
    pub status_listen: Option<SocketAddr>,
    /// `None` means off.
    pub admin_listen: Option<SocketAddr>,
    /// The file with the token of clients that may purge stored responses. `None`: no client may.
    pub admin_token_file: Option<PathBuf>,
    /// `None` means off.
    pub echo: Option<SocketAddr>,
    pub allow_port_sharing: bool,
    /// Peers whose `X-Forwarded-…` fields are trusted.
    pub trusted_ips: Vec<IpNet>,
    /// Forms of paths that get 400.
    pub reject_paths: Vec<PathFormArg>,
    pub keep_header_case: bool,
    /// Peers that start every connection with a PROXY header.
    pub proxy_protocol_from: Vec<IpNet>,
    pub workers: NonZeroUsize,
    pub tls: TlsOptions,
    /// Limits without a flag have their defaults.
    pub limits: ProxyLimits,
    pub budgets: BudgetOptions,
    pub kong: KongOptions,
    pub ingress_class: IngressClassOptions,
    pub ingress: IngressOptions,
    pub drain: DrainOptions,
    pub access_log: AccessLogOptions,
    pub access_log_content: AccessLogContent,
    /// The folder in which plugins may write files, an absolute path.
    pub file_log_folder: Option<PathBuf>,
    pub metrics_max_series: NonZeroUsize,
    /// Whether attempts are counted by endpoint.
    pub endpoint_metrics: bool,
    /// Set if the metrics of ingress-nginx are exported.
    pub nginx_metrics: Option<NginxMetricsOptions>,
    /// Set if all requests are traced.
    pub tracing: Option<TraceOptions>,
    pub otlp: OtlpOptions,
    /// Limit of the identifiers that rate-limiting counts in memory.
    pub rate_limit_entries: usize,
    /// Limit of the bytes of stored responses.
    pub max_cache_bytes: usize,
    /// Limit of the connections of plugins.
    pub max_plugin_connections: usize,
    /// The rate of active health checks.
    pub health_checks_per_second: NonZeroU32,
    /// Limit of the bytes in the queues of plugins.
    pub max_queued_bytes: usize,
    pub log: LogOptions,
    /// Whether output on stdout, such as verdicts, is colored.
    pub color_stdout: bool,
}

/// Graceful shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOptions {
    /// Not ready, but still serving.
    pub delay: Duration,
    /// Time for running requests after the delay; no new work starts.
    pub timeout: Duration,
}

impl RunArgs {
    pub(super) fn resolve(self, color: &ColorArgs, environment: &Environment) -> Result<RunOptions, UsageError> {
        let manifests = self.sources.manifests;
        require_single_standard_input("--manifests", &manifests)?;
        let (kong_config, has_manifests) = (self.sources.kong_config, !manifests.is_empty());
        let cluster = self.sources.cluster.resolve(has_manifests || kong_config.is_some(), environment.in_cluster)?;
        let in_cluster = cluster.is_some() && environment.in_cluster;
        let gateways = self.gateways.resolve(Some(self.gateway_service), cluster.is_some(), in_cluster)?;
        let listening = self.listening;
        let budgets = self.budgets.resolve();
        let status_listen = match listening.status_listen {
            Some(listen) => listen.address(),
            None if in_cluster => Some(DEFAULT_STATUS_ADDRESS_IN_CLUSTER),
            None => Some(DEFAULT_STATUS_ADDRESS),
        };
        let default_delay = if in_cluster { DRAIN_DELAY_IN_CLUSTER } else { Duration::ZERO };
        let admin_listen = listening.admin_listen.address();
        let ingress = self.ingress.resolve(in_cluster);
        let mut listeners = vec![
            ("--status-listen", status_listen),
            ("--admin-listen", admin_listen),
            ("--echo", listening.echo),
            ("--ingress-http-listen", ingress.http.filter(|listen| listen.explicit).map(|listen| listen.address)),
            ("--ingress-https-listen", ingress.https.filter(|listen| listen.explicit).map(|listen| listen.address)),
        ];
        let of_streams = |is_udp: bool| {
            let streams = ingress.streams.iter().filter(move |(_, protocol)| protocol.is_udp() == is_udp);
            streams.map(|(address, _)| ("--ingress-stream-ports", Some(*address)))
        };
        listeners.extend(of_streams(false));
        require_distinct_addresses(&listeners)?;
        require_distinct_addresses(&of_streams(true).collect::<Vec<_>>())?;
        let (access_log, access_log_content) =
            self.access_log.resolve(self.log.log_format, environment.stdout_is_terminal)?;
        Ok(RunOptions {
            manifests,
            kong_config,
            cluster,
            channel: self.sources.channel.into(),
            location: self.location.resolve(),
            gateways,
            status_listen,
            admin_listen,
            admin_token_file: listening.admin_token_file,
            echo: listening.echo,
            allow_port_sharing: listening.allow_port_sharing,
            trusted_ips: listening.trusted_ips,
            reject_paths: listening.reject_paths,
            keep_header_case: listening.keep_header_case,
            proxy_protocol_from: listening.proxy_protocol_from,
            workers: listening.workers.unwrap_or(environment.cores),
            rate_limit_entries: self.limits.rate_limit_entries,
            max_cache_bytes: self.limits.max_cache_bytes.0,
            max_plugin_connections: self.limits.max_plugin_connections,
            health_checks_per_second: self.limits.health_checks_per_second,
            max_queued_bytes: self.limits.max_queued_bytes.0,
            limits: ProxyLimits {
                max_regex_steps: if budgets.warn_only { u64::MAX } else { ProxyLimits::DEFAULT.max_regex_steps },
                ..self.limits.resolve(self.tls.tls_handshake_timeout, self.drain.drain_timeout)
            },
            budgets,
            tls: self.tls.resolve()?,
            kong: self.kong.resolve(),
            ingress_class: self.ingress_class.resolve(),
            ingress,
            drain: DrainOptions {
                delay: self.drain.drain_delay.map_or(default_delay, |delay| delay.0),
                timeout: self.drain.drain_timeout.0,
            },
            access_log,
            access_log_content,
            file_log_folder: self.metrics.file_log_folder,
            metrics_max_series: self.metrics.metrics_max_series,
            endpoint_metrics: self.metrics.endpoint_metrics,
            nginx_metrics: self.nginx_metrics.resolve()?,
            tracing: self.traces.resolve()?,
            otlp: self.otlp.resolve(),
            log: self.log.resolve(color, environment),
            color_stdout: color.resolve(environment.stdout_is_terminal, environment),
        })
    }
}

impl LimitArgs {
    fn resolve(self, handshake_timeout: NonZeroTimeout, drain_timeout: WaitTime) -> ProxyLimits {
        ProxyLimits {
            header_timeout: self.client_header_timeout.0,
            max_request_head: self.client_header_bytes.0,
            max_request_fields: self.client_header_count,
            max_hops: self.max_hops,
            handshake_timeout: handshake_timeout.0,
            client_idle_timeout: self.client_idle_timeout.0,
            request_body_timeout: self.client_body_timeout.0,
            client_min_rate: self.client_min_rate.0,
            response_min_rate: self.response_min_rate.0,
            response_timeout: self.upstream_response_timeout.0,
            authorization_timeout: self.external_auth_timeout.0,
            stall_timeout: self.response_idle_timeout.0,
            max_streams: self.client_http2_streams,
            upgrade_idle_timeout: self.upgrade_idle_timeout.0,
            stream_idle_timeout: self.stream_idle_timeout.0,
            udp_idle_timeout: self.udp_idle_timeout.0,
            max_udp_sessions: self.max_udp_sessions,
            max_stream_connections_per_client: self.max_stream_connections_per_client,
            max_udp_sessions_per_client: self.max_udp_sessions_per_client,
            listener_grace_period: drain_timeout.0,
            max_connections: self.max_connections,
            max_upstream_connections: self.max_connections,
            connect_timeout: self.upstream_connect_timeout.0,
            upstream_idle_timeout: self.upstream_idle_timeout.0,
            max_buffered_bytes: self.max_buffered_bytes.0,
            max_unforwarded_bytes: self.max_unforwarded_bytes.0,
            ..ProxyLimits::DEFAULT
        }
    }
}

fn parse_absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && is_plain { Ok(path) } else { Err("write an absolute path without `..`".to_owned()) }
}

/// Rejects `-` if it occurs twice in the paths of a flag.
pub(super) fn require_single_standard_input(flag: &'static str, paths: &[PathBuf]) -> Result<(), UsageError> {
    let count = paths.iter().filter(|path| *path == Path::new("-")).count();
    if count > 1 { Err(UsageError::DuplicateStandardInput { flag }) } else { Ok(()) }
}

/// Rejects two flags with the same address. Port 0 stands for any free port and therefore never collides.
fn require_distinct_addresses(addresses: &[(&'static str, Option<SocketAddr>)]) -> Result<(), UsageError> {
    for (index, (second, address)) in addresses.iter().enumerate() {
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        if let Some((first, _)) = addresses[..index].iter().find(|(_, other)| *other == Some(address)) {
            return Err(UsageError::DuplicateAddress { first, second, address });
        }
    }
    Ok(())
}

/// Parses a limit from 1 to `MAX`.
fn parse_limit<T: TryFrom<usize>, const MAX: usize>(text: &str) -> Result<T, String> {
    let count = parse_count::<MAX>(text)?;
    T::try_from(count.get()).map_err(|_| format!("not in range; write a smaller number than {count}"))
}

/// Parses a number from 1 to `MAX`, which fits into the type.
fn parse_rate<const MAX: usize>(text: &str) -> Result<NonZeroU32, String> {
    let count = parse_count::<MAX>(text)?;
    NonZeroU32::try_from(count).map_err(|_| format!("not in range; write a smaller number than {count}"))
}

/// Parses a number from 1 to `MAX`.
fn parse_count<const MAX: usize>(text: &str) -> Result<NonZeroUsize, String> {
    text.parse::<NonZeroUsize>()
        .ok()
        .filter(|number| number.get() <= MAX)
        .ok_or_else(|| format!("not in range; write a whole number from 1 to {MAX}"))
}

const DEFAULT_STATUS_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8100);
/// Reachable from outside of the Pod, for the kubelet and Prometheus.
const DEFAULT_STATUS_ADDRESS_IN_CLUSTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8100);
/// Time for a cluster to remove a terminating Pod from all load balancers. The chart and the manifests allow for it.
pub const DRAIN_DELAY_IN_CLUSTER: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Every flag can also be set by an environment variable: --drain-timeout is PORTICO_DRAIN_TIMEOUT.
Lists are separated by commas there; PORTICO_MANIFESTS is a single path.
Durations are written like 10s, 500ms or 1m30s, sizes like 64KiB.

Examples:
  # Serve a directory of manifests; saved edits take effect at once
  portico run --manifests ./manifests

  # Try a route without a backend
  portico run --manifests gateway.yaml route.yaml --echo 127.0.0.1:9000

  # Serve the objects of a cluster; in a Pod no flag is needed
  portico run --kubernetes --context my-cluster

  # On a dedicated server: listen on all interfaces, log requests to a file
  portico run --manifests /etc/portico --gateway-address-pool 0.0.0.0 \\
    --access-log /var/log/portico.log";
