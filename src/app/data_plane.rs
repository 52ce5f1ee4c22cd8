//! Starts the data plane: the proxy with its workers, the upstreams and the access log, as the flags configure them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::certificate_metrics::CertificateExpiry;
use super::file_descriptors::{DescriptorUse, raise_descriptor_limit};
use super::nginx_meters;
use crate::args::{self, RunOptions};
use crate::compile::kong::rule_options::PRODUCT_HEADERS;
use crate::endpoint_tls::TrustAnchors;
use crate::http1::NameCase;
use crate::limits::ProxyLimits;
use crate::process_log::LogFormat;
use crate::proxy::access_log::{self, AccessLogger};
use crate::proxy::{self, Proxy, ProxyStats};
use crate::snapshot::Snapshot;
use crate::ssrf_guard::{AddressPolicy, AddressSources, LoopbackPolicy, TrustModel};
use crate::upstream::dns::DnsFollower;
use crate::upstream::{HealthChecks, UpstreamRegistry};

pub(super) struct DataPlane {
    pub(super) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) upstreams: Arc<UpstreamRegistry>,
    pub(super) trust: TrustModel,
    pub(super) access_log: Arc<AccessLogger>,
    pub(super) proxy: Arc<Proxy>,
    /// The limit of connections of plugins.
    pub(super) plugin_connections: usize,
    _health_checks: HealthChecks,
}

impl DataPlane {
    pub(super) fn start(options: &RunOptions) -> anyhow::Result<Self> {
        let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
        let trust = match &options.cluster {
            Some(cluster) => TrustModel::MultiTenant {
                addresses: AddressPolicy {
                    loopback: if cluster.loopback_backends { LoopbackPolicy::Allowed } else { LoopbackPolicy::Blocked },
                    denied: cluster.denied_endpoints.as_slice().into(),
                },
                sources: AddressSources {
                    annotation: cluster.address_annotation,
                    external_names: cluster.external_names,
                },
            },
            None => TrustModel::SingleTenant,
        };
        let upstreams = Arc::new(UpstreamRegistry::new(TrustAnchors::from_system(), trust.clone()));
        let access_log = open_access_log(options)?;
        let wanted = DescriptorUse {
            connections: options.limits.max_connections,
            udp_sessions: options.limits.max_udp_sessions,
            plugin_connections: options.max_plugin_connections,
        };
        let descriptors = raise_descriptor_limit(wanted, options.workers.get());
        let proxy = Proxy::start(proxy_config(options, descriptors, access_log.clone()), snapshots.clone())
            .context("cannot start the workers")?;
        let plugin_connections = descriptors.plugin_connections;
        let health_checks =
            HealthChecks::start(upstreams.clone(), proxy.own_sockets(), options.health_checks_per_second)
                .context("cannot start the health checks")?;
        Ok(DataPlane {
            snapshots,
            upstreams,
            trust,
            access_log,
            proxy: Arc::new(proxy),
            plugin_connections,
            _health_checks: health_checks,
        })
    }

    /// The traced requests that OpenMetrics refers to.
    pub(super) fn exemplars(&self) -> impl Fn() -> HashMap<String, String> + Send + Sync + 'static {
        let stats = self.proxy.stats();
        move || stats.exemplars()
    }

    pub(super) fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(StatsCollector(self.proxy.stats())));
        registry.register_collector(Box::new(CertificateExpiry(self.snapshots.clone())));
    }

    /// Resolves the names of backends, and passes the addresses to their upstreams.
    pub(super) fn follow_dns(&self) -> DnsFollower {
        let upstreams = self.upstreams.clone();
        DnsFollower::from_system(&self.trust, move |name, addresses| {
            for upstream in upstreams.all() {
                upstream.set_resolved(name, addresses.to_vec());
            }
        })
    }
}

fn proxy_config(options: &RunOptions, descriptors: DescriptorUse, access_log: Arc<AccessLogger>) -> proxy::ProxyConfig {
    let limits = ProxyLimits {
        max_connections: descriptors.connections,
        max_upstream_connections: descriptors.connections,
        max_udp_sessions: descriptors.udp_sessions,
        ..options.limits.clone()
    };
    proxy::ProxyConfig {
        workers: options.workers,
        limits,
        trusted_ips: options.trusted_ips.clone(),
        rejected_paths: rejected_paths(&options.reject_paths),
        name_case: if options.keep_header_case { NameCase::Received } else { NameCase::Lower },
        tls: tls_policy(&options.tls),
        proxy_protocol_peers: options.proxy_protocol_from.clone(),
        allow_port_sharing: options.allow_port_sharing,
        access_log,
        product_headers: match options.kong.headers {
            None => proxy::ProductHeaderMode::ByRule,
            Some(args::KongHeadersArg::On) => proxy::ProductHeaderMode::Always(&PRODUCT_HEADERS),
            Some(args::KongHeadersArg::Off) => proxy::ProductHeaderMode::Never,
        },
        product_token: proxy::ProductToken::new(&options.kong.product).expect("the flag was validated"),
        max_series: options.metrics_max_series.get(),
        counts_endpoints: options.endpoint_metrics,
        location_metrics: options.nginx_metrics.map(nginx_meters::location_metrics),
    }
}

fn rejected_paths(forms: &[args::PathFormArg]) -> proxy::RejectedPaths {
    proxy::RejectedPaths {
        backslash: forms.contains(&args::PathFormArg::Backslash),
        encoded_slash: forms.contains(&args::PathFormArg::EncodedSlash),
        dot_parameters: forms.contains(&args::PathFormArg::DotParameters),
        empty_segment: forms.contains(&args::PathFormArg::EmptySegment),
        path_parameters: forms.contains(&args::PathFormArg::PathParameters),
    }
}

fn tls_policy(options: &args::TlsOptions) -> proxy::TlsPolicy {
    let min_version = match options.min_version {
        args::TlsVersionArg::V1_2 => proxy::MinTlsVersion::V1_2,
        args::TlsVersionArg::V1_3 => proxy::MinTlsVersion::V1_3,
    };
    proxy::TlsPolicy { min_version, ciphers: options.ciphers.clone() }
}

fn open_access_log(options: &RunOptions) -> anyhow::Result<Arc<AccessLogger>> {
    let content = &options.access_log_content;
    let (destination, format) = match &options.access_log {
        args::AccessLogOptions::Off if options.otlp.access_log.is_some() => {
            (access_log::AccessLogDestination::ExportOnly, LogFormat::Json)
        }
        args::AccessLogOptions::Off => (access_log::AccessLogDestination::Off, LogFormat::Json),
        args::AccessLogOptions::Stdout(format) => (access_log::AccessLogDestination::Stdout, *format),
        args::AccessLogOptions::File(path, format) => (access_log::AccessLogDestination::File(path.clone()), *format),
    };
    let format = match format {
        LogFormat::Text => access_log::AccessLogFormat::Text,
        LogFormat::Json => access_log::AccessLogFormat::Json,
    };
    let fields = || access_log::AccessLogLines::Fields(format, content.fields.clone());
    let log = AccessLogger::start(access_log::AccessLogConfig {
        destination: destination.clone(),
        lines: content.template.clone().map_or_else(fields, access_log::AccessLogLines::Template),
        rules: content.rules.clone(),
        privacy: access_log::Privacy {
            shown_parameters: content.query_values.iter().map(|name| name.as_str().into()).collect(),
            masks_clients: content.masks_clients,
        },
    });
    log.map(Arc::new).with_context(|| match destination {
        access_log::AccessLogDestination::File(path) => format!(
            "--access-log {}: cannot be opened; give a file in an existing, writable directory, `-` or `off`",
            path.display()
        ),
        access_log::AccessLogDestination::Off
        | access_log::AccessLogDestination::ExportOnly
        | access_log::AccessLogDestination::Stdout => "--access-log: cannot be started".to_owned(),
    })
}

/// Collector for the counters, which the proxy and the registry share.
#[derive(Debug)]
struct StatsCollector(Arc<ProxyStats>);

impl Collector for StatsCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}
