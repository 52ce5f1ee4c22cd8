//! `portico run`: starts all components and runs the control loop until a stop is requested.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::announce::{AnnouncementFormat, Announcer};
use super::change_meters::ChangeMeters;
use super::cluster::ClusterSource;
use super::control::Control;
use super::control_loop::{BindRetry, ControlLoop, ManifestFiles};
use super::data_plane::DataPlane;
use super::diagnostic_meters::DiagnosticMeters;
use super::exports::Exports;
use super::fingerprint_cache::FingerprintCache;
use super::gateway_services::{GatewayServicesHandle, GatewayServicesShutdown};
use super::health_meters::HealthMeters;
use super::host_addresses::host_addresses;
use super::ingress::IngressConfig;
use super::kong_config;
use super::kong_metrics::KongMetrics;
use super::nginx_meters::{ControllerLabels, NginxMeters};
use super::overload_meters::OverloadMeters;
use super::own_listeners::{OwnListeners, cache_purges};
use super::plugin_runtime::{PluginRuntime, PluginServers};
use super::shutdown::{announce_close, drain_until, withdraw_readiness};
use super::source_overlap::SourceOverlap;
use super::state_meters::StateMeters;
use super::status_publisher::StatusPublisher;
use super::upstream_events::report_upstream_events;
use super::views::{AdminViews, ProxyObserver, StatusViews};
use super::watch_meters::WatchMeters;
use crate::api::ingress_nginx::set_prefixes;
use crate::args::{BudgetOptions, ExitStatus, IngressClassOptions, LocationOptions, RunOptions};
use crate::cluster_keys;
use crate::compile::{Budgets, ProcessLocation};
use crate::drain::{self, Drain, HangupSignals, StopSignals};
use crate::manifests::{ManifestWatcher, Manifests};
use crate::metrics::Metrics;
use crate::plugin_chain::PluginFactory;
use crate::process_log::{self, LogFormat};
use crate::proxy::access_log::AccessLogger;
use crate::ready::Readiness;
use crate::status::StatusWriteMetrics;

/// Serves until a stop is requested.
pub fn run(options: RunOptions) -> anyhow::Result<ExitStatus> {
    let started = SystemTime::now();
    if let Some(problem) = path_problem(&options) {
        anyhow::bail!(problem);
    }
    process_log::init(&options.log)?;
    set_prefixes(&options.ingress_class.nginx.annotation_prefixes);
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
    let listeners = OwnListeners::open(&options, &data_plane.proxy.own_sockets()).await?;
    let admin_address = listeners.admin_address()?;
    let mut cluster = match &options.cluster {
        Some(cluster) => Some(ClusterSource::start(cluster, options.budgets.large_objects(), &ready).await?),
        None => None,
    };

    let mut metrics = Metrics::new(started);
    let statuses = start_status_publisher(&options, cluster.as_mut(), metrics.registry(), &drain);
    let fingerprints = FingerprintCache::new(data_plane.snapshots.clone());
    let leading = statuses.as_ref().map(|statuses| statuses.leading.clone());
    metrics.set_exemplars(data_plane.exemplars());
    register_meters(metrics.registry(), &data_plane, cluster.as_ref(), leading.clone(), &ready, &fingerprints);
    let meters = ChangeMeters::register(metrics.registry());
    let diagnostic_meters = DiagnosticMeters::register(metrics.registry(), cluster.is_some());

    let plugins = PluginRuntime::new(&options, metrics.registry());
    if let Some(nginx) = options.nginx_metrics {
        let controller = controller_labels(&options, &plugins.node);
        let meters = NginxMeters {
            controller,
            options: nginx,
            max_series: options.metrics_max_series.get(),
            stats: data_plane.proxy.stats(),
            snapshots: data_plane.snapshots.clone(),
            fingerprints: Arc::clone(&fingerprints),
            served: meters.served(),
            leading,
            started,
        };
        metrics.registry().register_collector(Box::new(meters));
    }
    let purges = cache_purges(&options, plugins.caches.clone(), &plugins.node).await?;
    let (snapshots, upstreams) = (data_plane.snapshots.clone(), data_plane.upstreams.clone());
    let (admin_views, view_queries) =
        AdminViews::new(snapshots, upstreams, fingerprints.clone(), Arc::clone(&plugins.usage));
    let (state, node, upstreams) = (plugins.state.clone(), plugins.node.clone(), data_plane.upstreams.clone());
    let kong = KongMetrics { state, node, upstreams };
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
    let PluginServers { services, vaults, lookups } = plugins.connect(&options, &data_plane, keys, &mut tasks)?;
    let exports = Exports::start(&options, &data_plane, (&plugins, &services), (status_views, started), &mut tasks)?;
    let plugin_diagnostics = services.diagnostics();
    let control = new_control(&options, &data_plane, plugins.factory(&options, services), admin_address)?;
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
    exports.finish(&data_plane).await;
    plugins.flush().await;
    if let Some(statuses) = statuses {
        statuses.shutdown().await;
    }
    drain_task.abort();
    // The last log entries matter most for diagnosis.
    tokio::task::block_in_place(|| data_plane.access_log.finish());
    Ok(ExitStatus::Success)
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

/// What the metrics of ingress-nginx call this process.
fn controller_labels(options: &RunOptions, pod: &Arc<str>) -> ControllerLabels {
    let IngressClassOptions { nginx, controller, .. } = &options.ingress_class;
    ControllerLabels {
        class: nginx.classes.as_ref().map_or(controller, |nginx| &nginx.controller).clone(),
        namespace: environment_variable("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
        pod: Arc::clone(pod),
    }
}

/// The value of a variable that is set and not empty.
fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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
    let variable = environment_variable;
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

async fn reopen_on_hangup(mut hangup_signals: HangupSignals, access_log: Arc<AccessLogger>) {
    loop {
        hangup_signals.next().await;
        info!("Reopening the access log");
        access_log.reopen();
    }
}
