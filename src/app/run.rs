//! `portico run`: starts all components and runs the control loop until a stop is requested.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::announce::{AnnouncementFormat, Announcer};
use super::certificate_metrics::CertificateExpiry;
use super::change_meters::ChangeMeters;
use super::cluster::ClusterSource;
use super::control::Control;
use super::control_loop::{BindRetry, ControlLoop, ManifestFiles};
use super::diagnostic_meters::DiagnosticMeters;
use super::file_descriptors::raise_descriptor_limit;
use super::fingerprint_cache::FingerprintCache;
use super::gateway_services::GatewayServicesHandle;
use super::ingress::IngressConfig;
use super::kong_metrics::{self, KongMetrics};
use super::plugin_servers::PluginServers;
use super::source_overlap::SourceOverlap;
use super::state_meters::StateMeters;
use super::status_publisher::StatusPublisher;
use super::views::{AdminViews, StatusViews};
use super::watch_meters::WatchMeters;
use crate::admin;
use crate::args::{self, ExitStatus, RunOptions};
use crate::drain::{self, Drain, DrainPhase, HangupSignals, StopSignals};
use crate::echo;
use crate::manifests::ManifestWatcher;
use crate::metrics::Metrics;
use crate::plugin_api::{PluginFactory, PluginState};
use crate::plugins;
use crate::proxy::access_log::{self, AccessLogger};
use crate::proxy::{self, Proxy, ProxyStats};
use crate::ready::Readiness;
use crate::snapshot::Snapshot;
use crate::status::StatusWriteMetrics;
use crate::telemetry::{self, LogFormat};
use crate::upstream::dns::DnsFollower;
use crate::upstream::tls::TrustAnchors;
use crate::upstream::{LoopbackPolicy, TrustModel, UpstreamRegistry};

/// Serves until a stop is requested.
pub fn run(options: RunOptions) -> anyhow::Result<ExitStatus> {
    let started = SystemTime::now();
    telemetry::init(&options.log)?;
    // Two threads: one may compile while the other serves probes. The proxy's workers have their own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let ended = runtime.block_on(serve(options, started));
    // Does not wait for blocking reads, such as an idle standard input.
    runtime.shutdown_background();
    ended
}

async fn serve(options: RunOptions, started: SystemTime) -> anyhow::Result<ExitStatus> {
    let signals = StopSignals::listen().context("cannot listen for signals")?;
    let hangups = HangupSignals::listen().context("cannot listen for SIGHUP")?;
    let (conductor, drain) = drain::drain_controller(signals, options.drain.delay, options.drain.timeout);
    let ready = Readiness::new();
    let first_snapshot = ready.guard("first snapshot");

    let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
    let authors = match &options.cluster {
        Some(cluster) if cluster.loopback_backends => TrustModel::MultiTenant { loopback: LoopbackPolicy::Allowed },
        Some(_) => TrustModel::MultiTenant { loopback: LoopbackPolicy::Blocked },
        None => TrustModel::SingleTenant,
    };
    let upstreams = Arc::new(UpstreamRegistry::new(TrustAnchors::from_system(), authors));
    let access_log = open_access_log(&options.access_log, &options.access_log_fields)?;
    let proxy = Proxy::start(proxy_config(&options, access_log.clone()), snapshots.clone())
        .context("cannot start the workers")?;
    let proxy = Arc::new(proxy);

    // Before the cluster is contacted, so that /readyz shows what is pending while the API server does not respond.
    let status_listener = listen("--status-listen", options.status_listen).await?;
    let admin_listener = listen("--admin-listen", options.admin_listen).await?;
    let admin = admin_listener
        .as_ref()
        .map(TcpListener::local_addr)
        .transpose()
        .context("cannot read the local address of --admin-listen")?;
    let echo_listener = listen("--echo", options.echo).await?;
    let mut cluster = match &options.cluster {
        Some(cluster) => Some(ClusterSource::start(cluster, &ready).await?),
        None => None,
    };
    let mut metrics = Metrics::new(started);
    let telling = cluster.as_mut().zip(options.cluster.as_ref()).map(|(cluster, flags)| {
        let writes = StatusWriteMetrics::register(metrics.registry());
        let telling = StatusPublisher::start(cluster, flags, &options.gateways, writes, drain.clone());
        cluster.status_queue = Some(telling.queue());
        telling
    });
    if let Some(cluster) = &cluster {
        metrics.registry().register_collector(Box::new(WatchMeters(cluster.counters())));
    }
    metrics.registry().register_collector(Box::new(StatsCollector(proxy.stats())));
    metrics.registry().register_collector(Box::new(CertificateExpiry(snapshots.clone())));
    let fingerprints = FingerprintCache::new(snapshots.clone());
    metrics.registry().register_collector(Box::new(StateMeters {
        ready: ready.clone(),
        leading: telling.as_ref().map(|telling| telling.leading.clone()),
        fingerprints: fingerprints.clone(),
        upstreams: upstreams.clone(),
        stats: proxy.stats(),
    }));
    let meters = ChangeMeters::register(metrics.registry());
    let problems = DiagnosticMeters::register(metrics.registry(), cluster.is_some());

    let mut tasks = JoinSet::new();
    let (state, node) = (PluginState::default(), Arc::<str>::from(node_name()));
    let (inside, questions) = AdminViews::new(snapshots.clone(), fingerprints.clone());
    if let Some(listener) = status_listener {
        let kong = KongMetrics { state: state.clone(), node: Arc::clone(&node), upstreams: upstreams.clone() };
        let outside = StatusViews::new(metrics, kong, ready.clone(), proxy.stats(), fingerprints);
        let over = drain.clone();
        tasks
            .spawn(async move { admin::serve_status(listener, Arc::new(outside), async { over.ended().await }).await });
    }
    if let Some(listener) = admin_listener {
        let over = drain.clone();
        tasks.spawn(async move { admin::serve_admin(listener, Arc::new(inside), async { over.ended().await }).await });
    }
    if let Some(listener) = echo_listener {
        let over = drain.clone();
        tasks.spawn(async move { echo::serve(listener, async { over.ended().await }).await });
    }
    tasks.spawn(reopen_on_hangup(hangups, access_log.clone()));
    tasks.spawn(withdraw_readiness(ready.clone(), drain.clone()));
    let conducting = tokio::spawn(conductor.run());

    let (watcher, ticks) = ManifestWatcher::start();
    let dns = {
        let upstreams = upstreams.clone();
        DnsFollower::from_system(authors, move |name, addresses| {
            for upstream in upstreams.all() {
                upstream.set_resolved(name, addresses.to_vec());
            }
        })
    };
    let (servers, lookups) =
        PluginServers::start(authors.loopback()).context("cannot set up connections for plugins")?;
    let troubles = servers.diagnostics();
    let fail_open = options.ingress_class.fail_open;
    let services = Arc::new(servers);
    let mut workshop = PluginFactory { registry: plugins::REGISTRY, state, services, node, fail_open, builtin: None };
    if options.kong.metrics {
        workshop.builtin = Some(kong_metrics::builtin_plugin(&workshop));
    }
    let ingresses = IngressConfig::with_listeners(&options.ingress_class, &options.ingress)?;
    let mut control = Control::new(options.gateways.clone(), upstreams.clone(), workshop, ingresses, snapshots.clone());
    if let Some(admin) = admin {
        control.forbid_admin_backend(admin);
    }
    let (fronts, goodbye) = match (&cluster, &options.cluster, &telling) {
        (Some(cluster), Some(flags), Some(telling)) => {
            let leading = telling.leading.clone();
            let (fronts, goodbye) =
                GatewayServicesHandle::start(cluster, flags, &options.gateways, &control, leading, &drain)?;
            (Some(fronts), Some(goodbye))
        }
        _ => (None, None),
    };
    let control_loop = ControlLoop {
        files: ManifestFiles::new(options.manifests.clone(), options.channel, watcher),
        overlap: (cluster.is_some() && !options.manifests.is_empty()).then(SourceOverlap::default),
        control,
        announcer: Announcer::new(announcement_format(&options), options.log.color),
        proxy: Arc::clone(&proxy),
        bind_retry: BindRetry::default(),
        first_snapshot: Some(first_snapshot),
        cluster,
        gateway_services: fronts,
        dns,
        plugin_diagnostics: troubles,
        upstreams,
        snapshots,
        meters,
        diagnostic_meters: problems,
    };
    // A separate task, so that slow file reads do not delay signals.
    let mut controlling = tokio::spawn(control_loop.run(ticks, questions, lookups));
    let until = tokio::select! {
        ended = &mut controlling => return ended.context("the control loop has failed").map(|()| ExitStatus::Success),
        until = drain.draining() => until,
    };
    controlling.abort();
    if let Some(goodbye) = goodbye {
        goodbye.run().await;
    }
    drain_until(&proxy, until, &drain).await;
    if let Some(telling) = telling {
        telling.shutdown().await;
    }
    conducting.abort();
    // The last log entries matter most for diagnosis.
    tokio::task::block_in_place(|| access_log.finish());
    Ok(ExitStatus::Success)
}

/// Waits for requests in flight until the deadline or a second signal.
async fn drain_until(proxy: &Proxy, until: Instant, drain: &Drain) {
    let timeout = until.saturating_duration_since(Instant::now());
    let mut draining = std::pin::pin!(proxy.drain(timeout));
    let at_once = match drain.phase() {
        DrainPhase::Ended => true,
        _ => tokio::select! {
            biased;
            cut = &mut draining => return log_drained(cut),
            () = drain.ended() => Instant::now() < until,
        },
    };
    if at_once {
        warn!("Stopped at once; requests in flight were aborted");
    } else {
        // The drain and the shutdown reached the deadline at the same moment.
        log_drained(draining.await);
    }
}

fn log_drained(cut: usize) {
    match cut {
        0 => info!("Stopped; all requests completed"),
        cut => warn!(cut, "Stopped; the drain timeout aborted requests in flight"),
    }
}

/// Name of the Pod, otherwise of the machine.
fn node_name() -> String {
    let named = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let machine = || Some(rustix::system::uname().nodename().to_str().ok()?.to_owned());
    named.or_else(machine).unwrap_or_else(|| "portico".to_owned())
}

/// Tables for editing files at a terminal; with a cluster, verdicts are in the statuses and the log.
fn announcement_format(options: &RunOptions) -> AnnouncementFormat {
    match options.log.format {
        LogFormat::Text if options.cluster.is_none() => AnnouncementFormat::Tables,
        LogFormat::Text | LogFormat::Json => AnnouncementFormat::Events,
    }
}

/// `None` if the listener is off.
async fn listen(flag: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen; stop the process that uses the port, or choose another address")
    })?;
    Ok(Some(listener))
}

async fn reopen_on_hangup(mut hangups: HangupSignals, access_log: Arc<AccessLogger>) {
    loop {
        hangups.next().await;
        info!("Reopening the access log");
        access_log.reopen();
    }
}

/// Withdraws readiness first, so that load balancers stop sending requests before listeners close.
async fn withdraw_readiness(ready: Readiness, drain: Drain) {
    drain.leaving().await;
    let _leaving = ready.guard("stopping");
    drain.ended().await;
}

fn proxy_config(options: &RunOptions, access_log: Arc<AccessLogger>) -> proxy::ProxyConfig {
    let connections = raise_descriptor_limit(options.limits.max_connections);
    let limits = proxy::ProxyLimits {
        max_connections: connections,
        max_upstream_connections: connections,
        ..options.limits.clone()
    };
    proxy::ProxyConfig {
        workers: options.workers,
        limits,
        trusted_ips: options.trusted_ips.clone(),
        tls: tls_policy(&options.tls),
        proxy_protocol_peers: options.proxy_protocol_from.clone(),
        allow_port_sharing: options.allow_port_sharing,
        access_log,
        kong_headers: match options.kong.headers {
            None => proxy::KongHeaderMode::Auto,
            Some(args::KongHeadersArg::On) => proxy::KongHeaderMode::On,
            Some(args::KongHeadersArg::Off) => proxy::KongHeaderMode::Off,
        },
        product_token: proxy::ProductToken::new(&options.kong.product).expect("the flag was validated"),
        max_series: options.metrics_max_series.get(),
    }
}

fn tls_policy(options: &args::TlsOptions) -> proxy::TlsPolicy {
    let min_version = match options.min_version {
        args::TlsVersionArg::V1_2 => proxy::MinTlsVersion::V1_2,
        args::TlsVersionArg::V1_3 => proxy::MinTlsVersion::V1_3,
    };
    proxy::TlsPolicy { min_version, ciphers: options.ciphers.clone() }
}

fn open_access_log(
    log: &args::AccessLogOptions,
    fields: &[access_log::AccessLogField],
) -> anyhow::Result<Arc<AccessLogger>> {
    let (destination, format) = match log {
        args::AccessLogOptions::Off => (access_log::AccessLogDestination::Off, LogFormat::Json),
        args::AccessLogOptions::Stdout(format) => (access_log::AccessLogDestination::Stdout, *format),
        args::AccessLogOptions::File(path, format) => (access_log::AccessLogDestination::File(path.clone()), *format),
    };
    let format = match format {
        LogFormat::Text => access_log::AccessLogFormat::Text,
        LogFormat::Json => access_log::AccessLogFormat::Json,
    };
    let log = AccessLogger::start(destination.clone(), format, fields);
    log.map(Arc::new).with_context(|| match destination {
        access_log::AccessLogDestination::File(path) => format!(
            "--access-log {}: cannot be opened; give a file in an existing, writable directory, `-` or `off`",
            path.display()
        ),
        access_log::AccessLogDestination::Off | access_log::AccessLogDestination::Stdout => {
            "--access-log: cannot be started".to_owned()
        }
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
