//! The plugins that log, trace and count requests, and that write them to Kafka.

mod correlation_id;
mod datadog;
pub mod file_log;
mod http_log;
mod kafka_log;
mod kafka_upstream;
mod loggly;
mod mask;
mod opentelemetry;
pub mod prometheus;
mod statsd;
mod syslog;
mod tcp_log;
mod udp_log;
mod zipkin;

use crate::plugin_api::{PluginKinds, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<correlation_id::CorrelationId>::NEW,
    &RegisteredKind::<datadog::Datadog>::NEW,
    &RegisteredKind::<file_log::FileLog>::NEW,
    &RegisteredKind::<http_log::HttpLog>::NEW,
    &RegisteredKind::<kafka_log::KafkaLog>::NEW,
    &RegisteredKind::<kafka_upstream::KafkaUpstream>::NEW,
    &RegisteredKind::<loggly::Loggly>::NEW,
    &RegisteredKind::<mask::Mask>::NEW,
    &RegisteredKind::<opentelemetry::OpenTelemetry>::NEW,
    &RegisteredKind::<prometheus::Prometheus>::NEW,
    &RegisteredKind::<statsd::Statsd>::NEW,
    &RegisteredKind::<syslog::Syslog>::NEW,
    &RegisteredKind::<tcp_log::TcpLog>::NEW,
    &RegisteredKind::<udp_log::UdpLog>::NEW,
    &RegisteredKind::<zipkin::Zipkin>::NEW,
];
