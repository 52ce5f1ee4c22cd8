//! `portico run`: starts all components and runs the control loop until a stop is requested.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::announce::{AnnouncementFormat, Announcer};
use super::cache_meters::CacheMeters;
use super::change_meters::ChangeMeters;
use super::cluster::ClusterSource;
use super::control::Control;
use super::control_loop::{BindRetry, ControlLoop, ManifestFiles};
use super::data_plane::DataPlane;
use super::diagnostic_meters::DiagnosticMeters;
use super::fingerprint_cache::FingerprintCache;
use super::gateway_services::{GatewayServicesHandle, GatewayServicesShutdown};
use super::health_meters::HealthMeters;
use super::host_addresses::host_addresses;
use super::ingress::IngressConfig;
use super::kong_config;
use super::kong_metrics::{self, KongMetrics};
use super::overload_meters::OverloadMeters;
use super::queue_meters::QueueMeters;
use super::rate_limit_meters::RateLimitMeters;
use super::request_tracer;
use super::source_overlap::SourceOverlap;
use super::state_meters::StateMeters;
use super::status_publisher::StatusPublisher;
use super::upstream_events::report_upstream_events;
use super::usage_meters::UsageMeters;
use super::views::{AdminViews, ProxyObserver, StatusViews};
use super::watch_meters::WatchMeters;
use crate::admin::{self, CachePurges, StatusSource};
use crate::args::{BudgetOptions, ExitStatus, LocationOptions, RunOptions};
use crate::cluster_keys;
use crate::compile::{Budgets, ProcessLocation};
use crate::drain::{self, Drain, DrainPhase, HangupSignals, StopSignals};
use crate::echo;
use crate::log_delivery::DEFAULT_LOG_QUEUE;
use crate::manifests::{ManifestWatcher, Manifests};
use crate::metrics::{Exposition, Metrics};
use crate::metrics_export::{METRICS_QUEUE, MetricsExport};
use crate::otlp_delivery::OtlpSignal;
use crate::otlp_servers::OtlpServers;
use crate::plugin_api::aws_environment::AwsEnvironment;
use crate::plugin_api::batch_queue::{QueuedBytes, flush_queues};
use crate::plugin_api::vault::VaultValues;
use crate::plugin_api::{PluginServices, PluginState};
use crate::plugin_chain::PluginFactory;
use crate::plugin_kit::counting::{EntryBudget, UsageReports};
use crate::plugin_services::{MachineIdentity, OnlineServices};
use crate::plugins;
use crate::plugins::file_log::LogFolder;
use crate::plugins::proxy_cache::store::CacheStore;
use crate::process_log::{self, LogFormat};
use crate::proxy::Proxy;
use crate::proxy::access_log::{AccessLogger, LineExport};
use crate::ready::Readiness;
use crate::status::StatusWriteMetrics;
use crate::upstream::OwnSockets;
use crate::vaults::follow_vaults;

/// Serves until a stop is requested.
pub fn run(options: RunOptions) -> anyhow::Result<ExitStatus> {
    let started = SystemTime::now();
    if let Some(problem) = path_problem(&options) {
        anyhow::bail!(problem);
    }
    process_log::init(&options.log)?;
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
    let hangup_signals = HangupSignals::listen().context("cannot listen for SIGHUP")?;
    let (drain_controller, drain) = drain::drain_controller(signals, options.drain.delay, options.drain.timeout);
    let ready = Readiness::new();
    let first_snapshot = ready.guard("first snapshot");
    let data_plane = DataPlane::start(&options)?;
    // Opened before the cluster is contacted, so that /readyz shows what is pending if the API server does not respond.
    let listeners = OwnListeners::open(&options).await?;
    let admin_address = listeners.admin_address()?;
    listeners.forbid_connections(&data_plane.proxy.own_sockets())?;
    let mut cluster = match &options.cluster {
        Some(cluster) => Some(ClusterSource::start(cluster, options.budgets.large_objects(), &ready).await?),
        None => None,
    };

    let mut metrics = Metrics::new(started);
    let statuses = start_status_publisher(&options, cluster.as_mut(), metrics.registry(), &drain);
    let fingerprints = FingerprintCache::new(data_plane.snapshots.clone());
    let leading = statuses.as_ref().map(|statuses| statuses.leading.clone());
    metrics.set_exemplars(data_plane.exemplars());
    register_meters(metrics.registry(), &data_plane, cluster.as_ref(), leading, &ready, &fingerprints);
    let meters = ChangeMeters::register(metrics.registry());
    let diagnostic_meters = DiagnosticMeters::register(metrics.registry(), cluster.is_some());

    let node = Arc::<str>::from(node_name());
    let StateOfPlugins { state, log_folder: _log_folder, caches, usage } =
        StateOfPlugins::new(&options, metrics.registry());
    let purges = cache_purges(&options, caches, &node).await?;
    let (admin_views, view_queries) =
        AdminViews::new(data_plane.snapshots.clone(), data_plane.upstreams.clone(), fingerprints.clone(), usage);
    let kong = KongMetrics { state: state.clone(), node: node.clone(), upstreams: data_plane.upstreams.clone() };
    let status_views = Arc::new(StatusViews::new(metrics, kong, ready.clone(), data_plane.proxy.stats(), fingerprints));
    // Aborts its tasks when it is dropped.
    let mut tasks = JoinSet::new();
    let observer = ProxyObserver(data_plane.proxy.observed_requests());
    listeners.serve(&mut tasks, Arc::clone(&status_views), (admin_views, observer, purges), &drain);
    tasks.spawn(reopen_on_hangup(hangup_signals, data_plane.access_log.clone()));
    let keys = cluster.as_ref().zip(statuses.as_ref()).map(|(cluster, statuses)| {
        let guard = ready.guard("the keys of sessions");
        cluster_keys::start(&cluster.source, statuses.key_secret_parts(), guard, &mut tasks)
    });
    tasks.spawn(withdraw_readiness(ready, drain.clone()));
    if let Some(statuses) = &statuses {
        tasks.spawn(report_upstream_events(data_plane.upstreams.clone(), statuses.queue()));
    }
    tasks.spawn(announce_close(data_plane.proxy.clone(), drain.clone()));
    let drain_task = tokio::spawn(drain_controller.run());

    let (watcher, ticks) = ManifestWatcher::start();
    let dns = data_plane.follow_dns();
    let own_sockets = data_plane.proxy.own_sockets();
    let (identity, connections) = (machine_identity(&options), data_plane.plugin_connections);
    let (plugin_services, lookups) = OnlineServices::start(&data_plane.trust, own_sockets, connections, keys, identity)
        .context("cannot set up connections for plugins")?;
    let plugin_diagnostics = plugin_services.diagnostics();
    let plugin_services = Arc::new(plugin_services);
    let vaults = VaultValues::of(&state);
    vaults.set_environment(
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    tasks.spawn(follow_vaults(Arc::clone(&vaults), Arc::clone(&plugin_services) as _));
    let services: Arc<dyn PluginServices> = Arc::clone(&plugin_services) as _;
    let servers = OtlpServers::new(&options.otlp, &state, &services, &node)?;
    let metrics_export = start_exports(&options, &servers, &data_plane, (status_views, started), &mut tasks)?;
    let plugins = plugin_factory(&options, plugin_services, state.clone(), node);
    let control = new_control(&options, &data_plane, plugins, admin_address)?;
    let (gateway_services, services_shutdown) =
        start_gateway_services(&options, cluster.as_ref(), statuses.as_ref(), &control, &drain)?.unzip();
    let has_files = !options.manifests.is_empty() || options.kong_config.is_some();
    let control_loop = ControlLoop {
        files: ManifestFiles::new(manifest_files(&options), watcher),
        overlap: (cluster.is_some() && has_files).then(SourceOverlap::default),
        control,
        withheld_statuses: BTreeSet::new(),
        announcer: Announcer::new(announcement_format(&options), options.log.color),
        proxy: Arc::clone(&data_plane.proxy),
        bind_retry: BindRetry::default(),
        first_snapshot: Some(first_snapshot),
        cluster,
        gateway_services,
        dns,
        plugin_diagnostics,
        vaults,
        first_values: None,
        snapshots: data_plane.snapshots.clone(),
        meters,
        diagnostic_meters,
    };
    // A separate task, so that slow file reads do not delay signals.
    let mut loop_task = tokio::spawn(control_loop.run(ticks, view_queries, lookups));
    let deadline = tokio::select! {
        ended = &mut loop_task => return ended.context("the control loop has failed").map(|()| ExitStatus::Success),
        deadline = drain.draining() => deadline,
    };
    loop_task.abort();
    if let Some(services) = services_shutdown {
        services.run().await;
    }
    drain_until(&data_plane.proxy, deadline, &drain).await;
    send_what_is_left(&options, &data_plane, metrics_export, &state).await;
    if let Some(statuses) = statuses {
        statuses.shutdown().await;
    }
    drain_task.abort();
    // The last log entries matter most for diagnosis.
    tokio::task::block_in_place(|| data_plane.access_log.finish());
    Ok(ExitStatus::Success)
}

/// The state of plugins, with what the flags limit for all of them together.
struct StateOfPlugins {
    state: PluginState,
    /// The plugins that write files use it as long as it exists.
    log_folder: Arc<LogFolder>,
    caches: CacheMeters,
    usage: Arc<UsageReports>,
}

impl StateOfPlugins {
    fn new(options: &RunOptions, registry: &mut Registry) -> Self {
        let state = PluginState::default();
        let queued_bytes = QueuedBytes::of(&state, options.max_queued_bytes);
        registry.register_collector(Box::new(QueueMeters { state: state.clone(), bytes: queued_bytes }));
        let log_folder = LogFolder::set(&state, options.file_log_folder.clone());
        let rate_limit_entries = EntryBudget::of(&state, options.rate_limit_entries);
        registry.register_collector(Box::new(RateLimitMeters(rate_limit_entries)));
        let caches = CacheMeters(CacheStore::of(&state, options.max_cache_bytes));
        registry.register_collector(Box::new(caches.clone()));
        let usage = UsageReports::of(&state);
        registry.register_collector(Box::new(UsageMeters(Arc::clone(&usage))));
        StateOfPlugins { state, log_folder, caches, usage }
    }
}

/// What plugins and vaults may do with the identity of this Pod or machine.
fn machine_identity(options: &RunOptions) -> MachineIdentity {
    let permits_aws = options.cluster.as_ref().is_none_or(|cluster| cluster.aws_pod_credentials);
    let aws = permits_aws.then(|| Arc::new(AwsEnvironment::from_variables(|name| std::env::var(name).ok())));
    let google = options.cluster.as_ref().is_none_or(|cluster| cluster.gcp_pod_credentials);
    MachineIdentity { aws, google }
}

/// Sends what logs, metrics and plugins have kept for their servers, after the last request.
async fn send_what_is_left(
    options: &RunOptions,
    data_plane: &DataPlane,
    metrics_export: Option<MetricsExport>,
    state: &PluginState,
) {
    if options.otlp.access_log.is_some() {
        // The lines of the last requests are still to be added to the queue of their server.
        tokio::task::block_in_place(|| data_plane.access_log.flush());
    }
    if let Some(export) = metrics_export {
        // What has happened since the last interval.
        export.send().await;
    }
    // After the last request, whose log phase may add to the queues.
    flush_queues(state, QUEUE_FLUSH_LIMIT).await;
}

/// Starts the traces, and what servers of OTLP get of the access log and the metrics. Returns the export of metrics.
fn start_exports(
    options: &RunOptions,
    servers: &OtlpServers<'_>,
    data_plane: &DataPlane,
    (views, started): (Arc<StatusViews>, SystemTime),
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Option<MetricsExport>> {
    if let Some(tracing) = &options.tracing {
        data_plane.proxy.trace(request_tracer::start(tracing, servers)?);
    }
    if let Some(url) = &options.otlp.access_log {
        let flag = "--access-log-otlp-endpoint";
        let queue = servers.start(flag, url, OtlpSignal::Logs, DEFAULT_LOG_QUEUE)?;
        data_plane.access_log.export(LineExport::new(servers.resource(), queue));
    }
    let Some((url, period)) = &options.otlp.metrics else { return Ok(None) };
    let queue = servers.start("--metrics-otlp-endpoint", url, OtlpSignal::Metrics, METRICS_QUEUE)?;
    let render = Arc::new(move || views.metrics(Exposition::OpenMetrics));
    let export = MetricsExport { render, started, resource: servers.resource(), queue };
    tasks.spawn(export.clone().run(*period));
    Ok(Some(export))
}

/// How long the queues of plugins may take to send what is left when the process stops.
const QUEUE_FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The listeners of this process besides those of Gateways and Ingresses; None if a flag turns one off.
struct OwnListeners {
    status: Option<TcpListener>,
    admin: Option<TcpListener>,
    echo: Option<TcpListener>,
}

impl OwnListeners {
    async fn open(options: &RunOptions) -> anyhow::Result<Self> {
        Ok(OwnListeners {
            status: listen("--status-listen", options.status_listen).await?,
            admin: listen("--admin-listen", options.admin_listen).await?,
            echo: listen("--echo", options.echo).await?,
        })
    }

    fn admin_address(&self) -> anyhow::Result<Option<SocketAddr>> {
        let address = self.admin.as_ref().map(TcpListener::local_addr).transpose();
        address.context("cannot read the local address of --admin-listen")
    }

    /// Nothing in this process connects to the status and admin listeners. The echo server is a backend.
    fn forbid_connections(&self, own_sockets: &OwnSockets) -> anyhow::Result<()> {
        for listener in [&self.status, &self.admin].into_iter().flatten() {
            own_sockets.add_fixed(listener.local_addr().context("cannot read the local address of a listener")?);
        }
        Ok(())
    }

    /// Serves until the end of the drain.
    fn serve(
        self,
        tasks: &mut JoinSet<()>,
        status: Arc<StatusViews>,
        (views, observer, purges): (AdminViews, ProxyObserver, Option<CachePurges>),
        drain: &Drain,
    ) {
        let ended = || {
            let drain = drain.clone();
            async move { drain.ended().await }
        };
        if let Some(listener) = self.status {
            tasks.spawn(admin::serve_status(listener, status, ended()));
        }
        if let Some(listener) = self.admin {
            tasks.spawn(admin::serve_admin(listener, Arc::new(views), Arc::new(observer), purges, ended()));
        }
        if let Some(listener) = self.echo {
            tasks.spawn(echo::serve(listener, ended()));
        }
    }
}

/// The purges that `--admin-token-file` permits.
async fn cache_purges(
    options: &RunOptions,
    caches: CacheMeters,
    node: &Arc<str>,
) -> anyhow::Result<Option<CachePurges>> {
    let Some(token_file) = options.admin_token_file.clone() else { return Ok(None) };
    let purges = CachePurges { caches: Arc::new(caches), token_file, replica: Arc::clone(node) };
    purges.check().await.map_err(anyhow::Error::msg).context("--admin-token-file")?;
    Ok(Some(purges))
}

/// With a cluster, starts the leader election and the publishing of statuses.
fn start_status_publisher(
    options: &RunOptions,
    cluster: Option<&mut ClusterSource>,
    registry: &mut Registry,
    drain: &Drain,
) -> Option<StatusPublisher> {
    let (cluster, flags) = cluster.zip(options.cluster.as_ref())?;
    let writes = StatusWriteMetrics::register(registry);
    let publisher = StatusPublisher::start(cluster, flags, &options.gateways, writes, drain.clone());
    cluster.status_queue = Some(publisher.queue());
    Some(publisher)
}

/// Registers the collectors whose metrics are computed at each scrape.
fn register_meters(
    registry: &mut Registry,
    data_plane: &DataPlane,
    cluster: Option<&ClusterSource>,
    leading: Option<watch::Receiver<bool>>,
    ready: &Readiness,
    fingerprints: &Arc<FingerprintCache>,
) {
    if let Some(cluster) = cluster {
        registry.register_collector(Box::new(WatchMeters(cluster.counters())));
    }
    data_plane.register_metrics(registry);
    registry.register_collector(Box::new(OverloadMeters { upstreams: data_plane.upstreams.clone() }));
    registry.register_collector(Box::new(HealthMeters { upstreams: data_plane.upstreams.clone() }));
    registry.register_collector(Box::new(StateMeters {
        ready: ready.clone(),
        leading,
        fingerprints: fingerprints.clone(),
        upstreams: data_plane.upstreams.clone(),
        stats: data_plane.proxy.stats(),
    }));
}

fn plugin_factory(
    options: &RunOptions,
    services: Arc<OnlineServices>,
    state: PluginState,
    node: Arc<str>,
) -> PluginFactory {
    let fail_open = options.ingress_class.fail_open;
    let mut factory = PluginFactory {
        registry: plugins::REGISTRY,
        state,
        services,
        node,
        fail_open,
        shares_consumers: options.ingress_class.shares_consumers(),
        has_trusted_peers: !options.trusted_ips.is_empty(),
        builtin: None,
    };
    if options.kong.metrics {
        factory.builtin = Some(kong_metrics::builtin_plugin(&factory));
    }
    factory
}

fn new_control(
    options: &RunOptions,
    data_plane: &DataPlane,
    plugins: PluginFactory,
    admin_address: Option<SocketAddr>,
) -> anyhow::Result<Control> {
    let ingresses = IngressConfig::with_listeners(&options.ingress_class, &options.ingress)?;
    let (upstreams, snapshots) = (data_plane.upstreams.clone(), data_plane.snapshots.clone());
    let BudgetOptions { warn_only, namespace_bytes, gateway_ports } = options.budgets;
    let budgets = Budgets { warn_only, namespace_bytes, gateway_ports };
    let mut control = Control::new(options.gateways.clone(), upstreams, plugins, ingresses, budgets, snapshots);
    if let Some(address) = admin_address {
        control.forbid_admin_backend(address);
    }
    control.forbid_machine_addresses(host_addresses());
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let LocationOptions { zone, node } = options.location.clone();
    let configured =
        ProcessLocation { zone: zone.map(Arc::from), node: node.or_else(|| variable("NODE_NAME")).map(Arc::from) };
    control.set_location(variable("POD_NAMESPACE").map(Arc::from), configured);
    Ok(control)
}

/// With a cluster, starts the reconciler of the Services in front of Gateways.
fn start_gateway_services(
    options: &RunOptions,
    cluster: Option<&ClusterSource>,
    statuses: Option<&StatusPublisher>,
    control: &Control,
    drain: &Drain,
) -> anyhow::Result<Option<(GatewayServicesHandle, GatewayServicesShutdown)>> {
    let (Some(cluster), Some(flags), Some(statuses)) = (cluster, &options.cluster, statuses) else { return Ok(None) };
    let leading = statuses.leading.clone();
    GatewayServicesHandle::start(cluster, flags, &options.gateways, control, leading, drain).map(Some)
}

/// Waits for requests in flight until the deadline or a second signal.
async fn drain_until(proxy: &Proxy, deadline: Instant, drain: &Drain) {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let mut draining = std::pin::pin!(proxy.drain(timeout));
    let at_once = match drain.phase() {
        DrainPhase::Ended => true,
        _ => tokio::select! {
            biased;
            cut = &mut draining => return log_drained(cut),
            () = drain.ended() => Instant::now() < deadline,
        },
    };
    if at_once {
        warn!("Stopped at once; requests in flight were aborted");
    } else {
        // The drain timeout ended, and `proxy.drain` ends with it.
        log_drained(draining.await);
    }
}

/// `cut` is the number of aborted requests.
fn log_drained(cut: usize) {
    match cut {
        0 => info!("Stopped; all requests completed"),
        cut => warn!(cut, "Stopped; the drain timeout aborted requests in flight"),
    }
}

/// The name of the Pod; outside of a Pod, the host name.
fn node_name() -> String {
    let pod_name = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host_name = || Some(rustix::system::uname().nodename().to_str().ok()?.to_owned());
    pod_name.or_else(host_name).unwrap_or_else(|| "portico".to_owned())
}

/// The files of the command line.
fn manifest_files(options: &RunOptions) -> Manifests {
    let manifests =
        Manifests::new(options.manifests.clone(), options.channel).with_large_objects(options.budgets.large_objects());
    let files = options.kong_config.iter().cloned().collect();
    manifests.with_translated(files, kong_config::serving_translator(&options.ingress_class.class))
}

/// What is wrong with a path of the command line: a misspelled one would be waited for while nothing is served.
fn path_problem(options: &RunOptions) -> Option<String> {
    let files = options.kong_config.iter().map(|path| ("--kong-config", path));
    let manifests = options.manifests.iter().filter(|path| path.as_os_str() != "-").map(|path| ("--manifests", path));
    files.chain(manifests).find_map(|(flag, path)| match path.metadata() {
        Ok(metadata) if metadata.is_dir() && flag == "--kong-config" => Some(format!(
            "{flag} {}: it is a folder; give one file, which `deck file merge` makes of several",
            path.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("{flag} {}: no such file or folder; correct the path, or create it", path.display()))
        }
        _ => None,
    })
}

/// Tables for editing files at a terminal; with a cluster, verdicts are in the statuses and the log.
fn announcement_format(options: &RunOptions) -> AnnouncementFormat {
    match options.log.format {
        LogFormat::Text if options.cluster.is_none() => AnnouncementFormat::Tables,
        LogFormat::Text | LogFormat::Json => AnnouncementFormat::Events,
    }
}

/// Binds the address of a flag; `None` if the flag turns the listener off.
async fn listen(flag: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen; stop the process that uses the port, or choose another address")
    })?;
    Ok(Some(listener))
}

async fn reopen_on_hangup(mut hangup_signals: HangupSignals, access_log: Arc<AccessLogger>) {
    loop {
        hangup_signals.next().await;
        info!("Reopening the access log");
        access_log.reopen();
    }
}

/// While the process is leaving, responses ask HTTP/1 clients to close their connections, before the drain does.
async fn announce_close(proxy: Arc<Proxy>, drain: Drain) {
    drain.leaving().await;
    proxy.announce_close().await;
}

/// Withdraws readiness when the stop begins, so that load balancers stop sending requests before listeners close.
async fn withdraw_readiness(ready: Readiness, drain: Drain) {
    drain.leaving().await;
    let _leaving = ready.guard("stopping");
    drain.ended().await;
}
