//! Flags of servers that get traces, the access log and metrics by OTLP.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use crate::quantity::NonZeroTimeout;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics", group = ArgGroup::new(OTLP_SERVERS).multiple(true))]
pub(super) struct OtlpArgs {
    /// URL of a server that gets the entries of the access log by OTLP as well; without a path, /v1/logs is added,
    /// except for grpc
    #[arg(long, value_name = "URL", env = "PORTICO_ACCESS_LOG_OTLP_ENDPOINT", group = OTLP_SERVERS)]
    access_log_otlp_endpoint: Option<String>,

    /// URL of a server that gets the metrics by OTLP; without a path, /v1/metrics is added, except for grpc
    #[arg(long, value_name = "URL", env = "PORTICO_METRICS_OTLP_ENDPOINT", group = OTLP_SERVERS)]
    metrics_otlp_endpoint: Option<String>,

    /// Interval at which the metrics are sent by OTLP
    #[arg(long, value_name = "DURATION", env = "PORTICO_METRICS_OTLP_INTERVAL", default_value = "60s")]
    #[arg(requires = "metrics_otlp_endpoint")]
    metrics_otlp_interval: NonZeroTimeout,

    /// Protocol of all servers for OTLP
    #[arg(long, value_enum, value_name = "NAME", env = "PORTICO_OTLP_PROTOCOL", requires = OTLP_SERVERS)]
    #[arg(default_value_t = OtlpProtocolArg::HttpProtobuf)]
    otlp_protocol: OtlpProtocolArg,

    /// File with headers of the requests to servers for OTLP, such as `Authorization: Bearer TOKEN`, one in each line
    #[arg(long, value_name = "FILE", env = "PORTICO_OTLP_HEADERS_FILE", requires = OTLP_SERVERS)]
    otlp_headers_file: Option<PathBuf>,

    /// File with the certificates of the authorities that are trusted for servers for OTLP, in place of the system's
    #[arg(long, value_name = "FILE", env = "PORTICO_OTLP_CA_FILE", requires = OTLP_SERVERS)]
    otlp_ca_file: Option<PathBuf>,

    /// File with the certificate that servers for OTLP get if they request one, followed by those of its intermediates;
    /// files of certificates and keys are read again for each connection
    #[arg(long, value_name = "FILE", env = "PORTICO_OTLP_CLIENT_CERT_FILE", requires = OTLP_SERVERS)]
    #[arg(requires = "otlp_client_key_file")]
    otlp_client_cert_file: Option<PathBuf>,

    /// File with the key of --otlp-client-cert-file
    #[arg(long, value_name = "FILE", env = "PORTICO_OTLP_CLIENT_KEY_FILE", requires = "otlp_client_cert_file")]
    otlp_client_key_file: Option<PathBuf>,
}

/// A protocol of OTLP, in the words of OpenTelemetry's `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OtlpProtocolArg {
    Grpc,
    #[value(name = "http/protobuf")]
    HttpProtobuf,
    #[value(name = "http/json")]
    HttpJson,
}

/// How servers get OTLP, and which ones get the access log and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpOptions {
    pub protocol: OtlpProtocolArg,
    pub headers_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    /// The certificate of the client, and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The URL of the server for the access log.
    pub access_log: Option<String>,
    /// The URL of the server for metrics, and how often it gets them.
    pub metrics: Option<(String, Duration)>,
}

impl OtlpArgs {
    pub(super) fn resolve(self) -> OtlpOptions {
        let interval = self.metrics_otlp_interval.0;
        OtlpOptions {
            protocol: self.otlp_protocol,
            headers_file: self.otlp_headers_file,
            ca_file: self.otlp_ca_file,
            client_certificate: self.otlp_client_cert_file.zip(self.otlp_client_key_file),
            access_log: self.access_log_otlp_endpoint,
            metrics: self.metrics_otlp_endpoint.map(|url| (url, interval)),
        }
    }
}

/// The group of the flags with URLs of servers, one of which the flags about all of them require.
pub(super) const OTLP_SERVERS: &str = "otlp_servers";
