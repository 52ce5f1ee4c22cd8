//! `portico run`: starts the parts, then carries every change from the files to the proxy until told to stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::announce::Announcer;
use super::certificates::CertificateExpiry;
use super::control::Control;
use super::descriptors::connections_that_fit;
use super::meters::Meters;
use super::views::{Inside, Outside, Question};
use crate::admin;
use crate::args::{self, Exit, RunOptions};
use crate::drain::{self, Drain, Hangups, Phase, StopSignals};
use crate::echo;
use crate::manifests::{Changed, Manifests, Update, Watcher};
use crate::metrics::Metrics;
use crate::proxy::access_log::{self, AccessLog};
use crate::proxy::{self, BindState, Binds, Proxy, Stats};
use crate::ready::{Ready, ReadyGuard};
use crate::snapshot::Snapshot;
use crate::status::Bind;
use crate::telemetry::{self, LogFormat};
use crate::upstream::Registry;
use crate::upstream::dns::Dns;

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
    let upstreams: Arc<Registry> = Arc::default();
    let access_log = open_access_log(&options.access_log)?;
    let proxy = Proxy::start(proxy_config(&options, access_log.clone()), snapshots.clone())
        .context("cannot start the workers")?;
    let proxy = Arc::new(proxy);

    let mut metrics = Metrics::new(started);
    metrics.registry().register_collector(Box::new(Shared(proxy.stats())));
    metrics.registry().register_collector(Box::new(CertificateExpiry(snapshots.clone())));
    let meters = Meters::register(metrics.registry());

    let mut tasks = JoinSet::new();
    let (inside, questions) = Inside::new(snapshots.clone());
    if let Some(address) = options.status_listen {
        let listener = listen("--status-listen", address).await?;
        let outside = Outside::new(metrics, ready.clone(), proxy.stats(), snapshots.clone());
        let over = drain.clone();
        tasks.spawn(async move { admin::serve_status(listener, Arc::new(outside), async { over.over().await }).await });
    }
    if let Some(address) = options.admin_listen {
        let listener = listen("--admin-listen", address).await?;
        let over = drain.clone();
        tasks.spawn(async move { admin::serve_admin(listener, Arc::new(inside), async { over.over().await }).await });
    }
    if let Some(address) = options.echo {
        let listener = listen("--echo", address).await?;
        let over = drain.clone();
        tasks.spawn(async move { echo::serve(listener, async { over.over().await }).await });
    }
    tasks.spawn(reopen_on_hangup(hangups, access_log.clone()));
    tasks.spawn(unready_when_leaving(ready.clone(), drain.clone()));
    let conducting = tokio::spawn(conductor.run());

    let (watcher, ticks) = Watcher::start();
    let dns = {
        let upstreams = upstreams.clone();
        Dns::from_system(move |name, addresses| {
            for upstream in upstreams.all() {
                upstream.set_resolved(name, addresses.to_vec());
            }
        })
    };
    let manifests = Manifests::new(options.manifests.clone(), options.channel);
    let control = Control::new(options.gateways.clone(), upstreams.clone(), snapshots.clone());
    let announcer = Announcer::new(options.log.format, options.log.color);
    let control_loop = ControlLoop { manifests, control, announcer, watcher, dns, upstreams, snapshots, meters };
    // A task of its own: reading files may take as long as it wants, and signals are heard meanwhile.
    let mut controlling = tokio::spawn(control_loop.run(Arc::clone(&proxy), ticks, questions, first_snapshot));
    let until = tokio::select! {
        ended = &mut controlling => return ended.context("the control loop has failed").map(|()| Exit::Fine),
        until = drain.draining() => until,
    };
    controlling.abort();
    drain_until(&proxy, until, &drain).await;
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

/// What the control loop owns, and nobody else writes.
struct ControlLoop {
    manifests: Manifests,
    control: Control,
    announcer: Announcer,
    watcher: Watcher,
    dns: Dns,
    upstreams: Arc<Registry>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    meters: Meters,
}

impl ControlLoop {
    /// Never returns by itself.
    async fn run(
        mut self,
        proxy: Arc<Proxy>,
        mut ticks: mpsc::Receiver<()>,
        mut questions: mpsc::Receiver<Question>,
        first_snapshot: ReadyGuard,
    ) {
        let (update, _) = self.reload(Changed::Anything);
        let mut retry = Retry::default();
        self.reconcile(&proxy, &mut retry).await;
        let snapshot = self.snapshots.load_full();
        // Before anything is printed: nobody who does not read it may keep us from being ready.
        drop(first_snapshot);
        self.announcer.start(&mut self.control, &self.manifests, &update, &snapshot);
        loop {
            tokio::select! {
                Some(()) = ticks.recv() => {
                    let begin = Instant::now();
                    let (update, swapped) = self.reload(self.watcher.changed());
                    let took = begin.elapsed();
                    if swapped {
                        self.meters.propagated(took);
                        self.reconcile(&proxy, &mut retry).await;
                    }
                    self.announcer.edit(&mut self.control, &self.manifests, &update, took);
                }
                () = retry.due() => {
                    self.reconcile(&proxy, &mut retry).await;
                    self.announcer.verdicts(&mut self.control, &self.manifests);
                }
                Some(question) = questions.recv() => question.answer(&self.control),
            }
        }
    }

    /// Reads what changed and takes it to the snapshot that is served from then on; says whether that is another one.
    fn reload(&mut self, changed: Changed) -> (Update, bool) {
        let (update, applied) = tokio::task::block_in_place(|| {
            let mut update = self.manifests.read_changed(&changed);
            let begin = Instant::now();
            let applied = self.control.apply(std::mem::take(&mut update.batch));
            if applied.changes > 0 {
                self.meters.compiled(begin.elapsed(), applied.routers_built, applied.swapped);
            }
            (update, applied)
        });
        self.watcher.follow(self.manifests.folders());
        self.follow_names();
        (update, applied.swapped)
    }

    /// Asks DNS about the names that endpoints have now. A name that is known already is told to whoever is new to it.
    fn follow_names(&mut self) {
        let upstreams = self.upstreams.all();
        let names: BTreeSet<Arc<str>> = upstreams.iter().flat_map(|upstream| upstream.names()).collect();
        self.dns.follow(&names);
        for upstream in upstreams {
            for name in upstream.names() {
                if let Some(addresses) = self.dns.addresses(&name) {
                    upstream.set_resolved(&name, addresses);
                }
            }
        }
    }

    async fn reconcile(&mut self, proxy: &Proxy, retry: &mut Retry) {
        let binds = proxy.reconcile().await;
        retry.after(&binds);
        self.control.bound(binds.into_iter().map(|(address, state)| (address, bind(state))).collect());
    }
}

/// When to try again what could not be bound: it comes alive without an edit.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    wait: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(15);

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn after(&mut self, binds: &Binds) {
        if binds.values().all(|state| *state == BindState::Bound) {
            *self = Retry::default();
        } else {
            self.wait = (self.wait * 2).clamp(Self::FIRST, Self::LONGEST);
            self.at = Some(Instant::now() + self.wait);
        }
    }
}

fn bind(state: BindState) -> Bind {
    match state {
        BindState::Bound => Bind::Bound,
        BindState::InUse => Bind::InUse,
        BindState::NotPermitted => Bind::NotPermitted,
        BindState::NotOurs => Bind::NotOurs,
        BindState::Failed(what) => Bind::Failed(what),
    }
}

async fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen there; stop what uses the port, or choose another address")
    })
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

fn open_access_log(log: &args::AccessLog) -> anyhow::Result<Arc<AccessLog>> {
    let (destination, format) = match log {
        args::AccessLog::Off => (access_log::Destination::Off, LogFormat::Json),
        args::AccessLog::Stdout(format) => (access_log::Destination::Stdout, *format),
        args::AccessLog::File(path, format) => (access_log::Destination::File(path.clone()), *format),
    };
    let format = match format {
        LogFormat::Text => access_log::Format::Text,
        LogFormat::Json => access_log::Format::Json,
    };
    let log = AccessLog::start(destination.clone(), format);
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
