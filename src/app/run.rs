//! `portico run`: starts the parts, then carries every change from files and cluster to the proxy until told to stop.

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

use super::announce::{Announcer, Form};
use super::certificates::CertificateExpiry;
use super::cluster::Cluster;
use super::control::Control;
use super::control_loop::{ControlLoop, Files, Retry};
use super::descriptors::connections_that_fit;
use super::fingerprints::Fingerprints;
use super::fronts::Fronts;
use super::ingress::Ingresses;
use super::kong_metrics::{self, KongMetrics};
use super::meters::Meters;
use super::overlap::Overlap;
use super::problem_meters::ProblemMeters;
use super::servers::Servers;
use super::state_meters::StateMeters;
use super::tell::Telling;
use super::views::{Inside, Outside};
use super::watch_meters::WatchMeters;
use crate::admin;
use crate::args::{self, Exit, RunOptions};
use crate::drain::{self, Drain, Hangups, Phase, StopSignals};
use crate::echo;
use crate::manifests::Watcher;
use crate::metrics::Metrics;
use crate::plugin::{State, Workshop};
use crate::plugins;
use crate::proxy::access_log::{self, AccessLog};
use crate::proxy::{self, Proxy, Stats};
use crate::ready::Ready;
use crate::snapshot::Snapshot;
use crate::status::Writes;
use crate::telemetry::{self, LogFormat};
use crate::upstream::dns::Dns;
use crate::upstream::tls::Anchors;
use crate::upstream::{Authors, Loopback, Registry};

/// Serves until told to stop.
pub fn run(options: RunOptions) -> anyhow::Result<Exit> {
    let started = SystemTime::now();
    telemetry::init(&options.log)?;
    // Two threads: one may be busy compiling while the other answers probes. Requests have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let ended = runtime.block_on(serve(options, started));
    // Whatever is still being read, such as a standard input that nobody types, is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(options: RunOptions, started: SystemTime) -> anyhow::Result<Exit> {
    let signals = StopSignals::listen().context("cannot listen for signals")?;
    let hangups = Hangups::listen().context("cannot listen for SIGHUP")?;
    let (conductor, drain) = drain::conductor(signals, options.drain.delay, options.drain.timeout);
    let ready = Ready::new();
    let first_snapshot = ready.guard("first snapshot");

    let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
    let authors = match &options.cluster {
        Some(cluster) if cluster.loopback_backends => Authors::Tenants { loopback: Loopback::Served },
        Some(_) => Authors::Tenants { loopback: Loopback::Refused },
        None => Authors::Operator,
    };
    let upstreams = Arc::new(Registry::new(Anchors::of_system(), authors));
    let access_log = open_access_log(&options.access_log, &options.access_log_fields)?;
    let proxy = Proxy::start(proxy_config(&options, access_log.clone()), snapshots.clone())
        .context("cannot start the workers")?;
    let proxy = Arc::new(proxy);

    // Before the cluster is asked anything: whoever reads in the log that it does not answer can ask here what is waited for.
    let status_listener = listen("--status-listen", options.status_listen).await?;
    let admin_listener = listen("--admin-listen", options.admin_listen).await?;
    let admin = admin_listener
        .as_ref()
        .map(TcpListener::local_addr)
        .transpose()
        .context("cannot tell where --admin-listen is")?;
    let echo_listener = listen("--echo", options.echo).await?;
    let mut cluster = match &options.cluster {
        Some(cluster) => Some(Cluster::start(cluster, &ready).await?),
        None => None,
    };
    let mut metrics = Metrics::new(started);
    let telling = cluster.as_mut().zip(options.cluster.as_ref()).map(|(cluster, flags)| {
        let writes = Writes::register(metrics.registry());
        let telling = Telling::start(cluster, flags, &options.gateways, writes, drain.clone());
        cluster.desk = Some(telling.desk());
        telling
    });
    if let Some(cluster) = &cluster {
        metrics.registry().register_collector(Box::new(WatchMeters(cluster.counters())));
    }
    metrics.registry().register_collector(Box::new(Shared(proxy.stats())));
    metrics.registry().register_collector(Box::new(CertificateExpiry(snapshots.clone())));
    let fingerprints = Fingerprints::of(snapshots.clone());
    metrics.registry().register_collector(Box::new(StateMeters {
        ready: ready.clone(),
        leading: telling.as_ref().map(|telling| telling.leading.clone()),
        fingerprints: fingerprints.clone(),
        upstreams: upstreams.clone(),
        stats: proxy.stats(),
    }));
    let meters = Meters::register(metrics.registry());
    let problems = ProblemMeters::register(metrics.registry(), cluster.is_some());

    let mut tasks = JoinSet::new();
    let (state, node) = (State::default(), Arc::<str>::from(node_name()));
    let (inside, questions) = Inside::new(snapshots.clone(), fingerprints.clone());
    if let Some(listener) = status_listener {
        let kong = KongMetrics { state: state.clone(), node: Arc::clone(&node), upstreams: upstreams.clone() };
        let outside = Outside::new(metrics, kong, ready.clone(), proxy.stats(), fingerprints);
        let over = drain.clone();
        tasks.spawn(async move { admin::serve_status(listener, Arc::new(outside), async { over.over().await }).await });
    }
    if let Some(listener) = admin_listener {
        let over = drain.clone();
        tasks.spawn(async move { admin::serve_admin(listener, Arc::new(inside), async { over.over().await }).await });
    }
    if let Some(listener) = echo_listener {
        let over = drain.clone();
        tasks.spawn(async move { echo::serve(listener, async { over.over().await }).await });
    }
    tasks.spawn(reopen_on_hangup(hangups, access_log.clone()));
    tasks.spawn(unready_when_leaving(ready.clone(), drain.clone()));
    let conducting = tokio::spawn(conductor.run());

    let (watcher, ticks) = Watcher::start();
    let dns = {
        let upstreams = upstreams.clone();
        Dns::from_system(authors, move |name, addresses| {
            for upstream in upstreams.all() {
                upstream.set_resolved(name, addresses.to_vec());
            }
        })
    };
    let (servers, lookups) = Servers::start(authors.loopback()).context("cannot prepare connections of plugins")?;
    let troubles = servers.troubles();
    let fail_open = options.ingress_class.fail_open;
    let services = Arc::new(servers);
    let mut workshop = Workshop { registry: plugins::REGISTRY, state, services, node, fail_open, builtin: None };
    if options.kong.metrics {
        workshop.builtin = Some(kong_metrics::of_everything(&workshop));
    }
    let ingresses = Ingresses::served(&options.ingress_class, &options.ingress)?;
    let mut control = Control::new(options.gateways.clone(), upstreams.clone(), workshop, ingresses, snapshots.clone());
    if let Some(admin) = admin {
        control.keep_away_from_admin(admin);
    }
    let (fronts, goodbye) = match (&cluster, &options.cluster, &telling) {
        (Some(cluster), Some(flags), Some(telling)) => {
            let leading = telling.leading.clone();
            let (fronts, goodbye) = Fronts::start(cluster, flags, &options.gateways, &control, leading, &drain)?;
            (Some(fronts), Some(goodbye))
        }
        _ => (None, None),
    };
    let control_loop = ControlLoop {
        files: Files::new(options.manifests.clone(), options.channel, watcher),
        overlap: (cluster.is_some() && !options.manifests.is_empty()).then(Overlap::default),
        control,
        announcer: Announcer::new(form(&options), options.log.color),
        proxy: Arc::clone(&proxy),
        retry: Retry::default(),
        first: Some(first_snapshot),
        cluster,
        fronts,
        dns,
        troubles,
        upstreams,
        snapshots,
        meters,
        problems,
    };
    // A task of its own: reading files may take as long as it wants, and signals are heard meanwhile.
    let mut controlling = tokio::spawn(control_loop.run(ticks, questions, lookups));
    let until = tokio::select! {
        ended = &mut controlling => return ended.context("the control loop has failed").map(|()| Exit::Fine),
        until = drain.draining() => until,
    };
    controlling.abort();
    if let Some(goodbye) = goodbye {
        goodbye.say().await;
    }
    drain_until(&proxy, until, &drain).await;
    if let Some(telling) = telling {
        telling.end().await;
    }
    conducting.abort();
    // The last requests are often the ones that somebody will ask about.
    tokio::task::block_in_place(|| access_log.finish());
    Ok(Exit::Fine)
}

/// Finishes what is in flight, until the time is over or a second signal cuts it.
async fn drain_until(proxy: &Proxy, until: Instant, drain: &Drain) {
    let timeout = until.saturating_duration_since(Instant::now());
    let mut draining = std::pin::pin!(proxy.drain(timeout));
    let at_once = match drain.phase() {
        Phase::Over => true,
        _ => tokio::select! {
            biased;
            cut = &mut draining => return tell_drained(cut),
            () = drain.over() => Instant::now() < until,
        },
    };
    if at_once {
        warn!("Stopped at once; requests in flight were cut off");
    } else {
        // The time was over for both of us in the same moment.
        tell_drained(draining.await);
    }
}

fn tell_drained(cut: usize) {
    match cut {
        0 => info!("Stopped; every request was answered"),
        cut => warn!(cut, "Stopped; the drain timeout cut requests off"),
    }
}

/// The Pod, or the machine.
fn node_name() -> String {
    let named = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let machine = || Some(rustix::system::uname().nodename().to_str().ok()?.to_owned());
    named.or_else(machine).unwrap_or_else(|| "portico".to_owned())
}

/// Whoever edits files sees tables. What a cluster says is in its status, and here in the log.
fn form(options: &RunOptions) -> Form {
    match options.log.format {
        LogFormat::Text if options.cluster.is_none() => Form::Tables,
        LogFormat::Text | LogFormat::Json => Form::Events,
    }
}

/// None if that is off.
async fn listen(flag: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen there; stop what uses the port, or choose another address")
    })?;
    Ok(Some(listener))
}

async fn reopen_on_hangup(mut hangups: Hangups, access_log: Arc<AccessLog>) {
    loop {
        hangups.next().await;
        info!("Opening the access log again");
        access_log.reopen();
    }
}

/// Whoever sends requests is to look elsewhere before we stop taking them.
async fn unready_when_leaving(ready: Ready, drain: Drain) {
    drain.leaving().await;
    let _leaving = ready.guard("stopping");
    drain.over().await;
}

fn proxy_config(options: &RunOptions, access_log: Arc<AccessLog>) -> proxy::Config {
    let flags = &options.limits;
    let connections = connections_that_fit(flags.max_connections.get());
    let limits = proxy::Limits {
        header_timeout: flags.client_header_timeout,
        max_head: flags.client_header_bytes,
        max_fields: flags.client_header_count.get(),
        handshake_timeout: options.tls.handshake_timeout,
        keep_alive: flags.client_idle_timeout,
        max_streams: u32::try_from(flags.client_http2_streams.get()).unwrap_or(u32::MAX),
        tunnel_idle: flags.upgrade_idle_timeout,
        listener_leave: options.drain.timeout,
        max_connections: connections,
        max_upstream_connections: connections,
        connect_timeout: flags.upstream_connect_timeout,
        upstream_idle: flags.upstream_idle_timeout,
        ..proxy::Limits::default()
    };
    proxy::Config {
        workers: options.workers,
        limits,
        trusted: options.trusted_ips.clone(),
        tls: tls_policy(&options.tls),
        balancers: options.proxy_protocol_from.clone(),
        allow_port_sharing: options.allow_port_sharing,
        access_log,
        kong_headers: match options.kong.headers {
            None => proxy::KongHeaders::Auto,
            Some(args::KongHeaders::On) => proxy::KongHeaders::On,
            Some(args::KongHeaders::Off) => proxy::KongHeaders::Off,
        },
        product: proxy::Product::new(&options.kong.product).expect("the flag takes nothing else"),
        max_series: options.metrics_max_series.get(),
    }
}

fn tls_policy(options: &args::TlsOptions) -> proxy::TlsPolicy {
    let min_version = match options.min_version {
        args::TlsVersion::V1_2 => proxy::TlsVersion::V1_2,
        args::TlsVersion::V1_3 => proxy::TlsVersion::V1_3,
    };
    proxy::TlsPolicy { min_version, ciphers: options.ciphers.clone() }
}

fn open_access_log(log: &args::AccessLog, fields: &[access_log::Field]) -> anyhow::Result<Arc<AccessLog>> {
    let (destination, format) = match log {
        args::AccessLog::Off => (access_log::Destination::Off, LogFormat::Json),
        args::AccessLog::Stdout(format) => (access_log::Destination::Stdout, *format),
        args::AccessLog::File(path, format) => (access_log::Destination::File(path.clone()), *format),
    };
    let format = match format {
        LogFormat::Text => access_log::Format::Text,
        LogFormat::Json => access_log::Format::Json,
    };
    let log = AccessLog::start(destination.clone(), format, fields);
    log.map(Arc::new).with_context(|| match destination {
        access_log::Destination::File(path) => format!(
            "--access-log {}: cannot be opened; give a file in a folder that exists and may be written to, `-` or `off`",
            path.display()
        ),
        access_log::Destination::Off | access_log::Destination::Stdout => "--access-log: cannot be started".to_owned(),
    })
}

/// The proxy and the registry both hold the counters.
#[derive(Debug)]
struct Shared(Arc<Stats>);

impl Collector for Shared {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}
