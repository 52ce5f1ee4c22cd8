//! Measures memory before, during and after floods, and whether other clients are served during them.

mod attack;
mod frames;
mod kinds;
mod running;

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::attack::attack;
use self::kinds::{AfterOpening, Flood};
use crate::backend::Backend;
use crate::compare::wait_for;
use crate::plan::{Plan, RequestShape};
use crate::report::Report;
use crate::run::run;
use crate::server::portico::{Setup, portico};
use crate::server::variant::ServerVariant;
use crate::server::{self, HOST, Peer, Server, Site};

pub use self::running::{FloodCounts, flood, flood_names};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The nginx binary, to flood nginx too.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The core for the server; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Duration of each flood.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Number of repetitions, to find memory that accumulates.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Run only floods whose name contains this.
    #[arg(long)]
    case: Option<String>,
}

/// Returns whether all requests of the other clients were served correctly, and memory was released after each flood.
pub async fn floods(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let key = server::write_certificate(folder.path())?;
    let backend = start_backend()?;
    let site = Site { folder: folder.path(), backend, key_pair: &key, access_log: true, variant: ServerVariant::PLAIN };
    let mut clean = true;
    // One server at a time, so that they do not compete for resources.
    for nginx in [None, options.nginx.as_ref()].into_iter().take(if options.nginx.is_some() { 2 } else { 1 }) {
        let server = match nginx {
            None => {
                let setup = Setup { flags: &SHORT_TIMEOUTS, ..Setup::new(&options.portico, site) };
                portico(&[options.core], &setup)?
            }
            Some(nginx) => Peer::Nginx.start(nginx, &[options.core], &site)?,
        };
        wait_for(&server).await?;
        clean &= flood_all(options, &server).await?;
    }
    Ok(clean)
}

async fn flood_all(options: &Options, server: &Server) -> Result<bool> {
    println!(
        "\nFloods of {}, {} s each: MiB of memory, and other clients at {OTHER_CLIENTS_RATE} requests/s\n\
         {:<54} {:>5} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7} {:>6}",
        server.name, options.seconds, "", "conns", "before", "peak", "held", "after", "shed", "good", "bad", "p99 ms"
    );
    let mut clean = true;
    let mut report = |name: &str, row: Row| {
        let Row { connections, before, peak, held, after, closed, other_clients } = row;
        let bad = other_clients.failed + other_clients.wrong;
        let p99 = other_clients.percentile(0.99).as_secs_f64() * 1e3;
        println!(
            "{name:<54} {connections:>5} {before:>7.1} {peak:>7.1} {held:>7.1} {after:>7.1} {closed:>7} \
             {:>6} {bad:>6} {p99:>6.1}",
            other_clients.good
        );
        if bad > 0 {
            print!("{other_clients}");
        }
        if after > before * MAX_GROWTH {
            println!("  The flood has left {:.0} % more memory in use than before it.", (after / before - 1.0) * 100.0);
            clean = false;
        }
        clean &= other_clients.is_clean();
    };
    for _ in 0..options.rounds {
        for flood in kinds::all()? {
            if options.case.as_ref().is_none_or(|word| flood.name.contains(word)) {
                let name = flood.name;
                report(name, run_flood(options, server, flood).await.with_context(|| name.to_owned())?);
            }
        }
    }
    Ok(clean)
}

/// Figures of one flood. Memory is in MiB.
struct Row {
    connections: usize,
    before: f64,
    /// The maximum during the flood.
    peak: f64,
    /// At the end of the flood, with open connections.
    held: f64,
    /// After all connections are closed and memory is released.
    after: f64,
    /// Connections closed by the server.
    closed: u64,
    other_clients: Report,
}

async fn run_flood(options: &Options, server: &Server, flood: Flood) -> Result<Row> {
    let processes = server.process().serving();
    let duration = Duration::from_secs_f64(options.seconds);
    let target = if flood.over_tls { server.tls_address } else { server.address };
    let before = processes.resident()?;
    let other_clients = load_in_background(server.address, duration);
    let end = Instant::now() + duration;
    let connections = flood.connections;
    let flood = Rc::new((flood, Cell::new(0_u64)));
    let tasks = LocalSet::new();
    for _ in 0..connections {
        let flood = Rc::clone(&flood);
        tasks.spawn_local(async move {
            let (flood, closed) = &*flood;
            // Connections open at the end of the flood stay open until memory is measured.
            let mut open_connection = None;
            while timeout_at(end, attack(flood, target, &mut open_connection)).await.is_ok() {
                closed.set(closed.get() + u64::from(!matches!(flood.after_opening, AfterOpening::Close)));
                // Rejected connections are retried with a pause, to leave the core to the server.
                sleep_until((Instant::now() + RETRY_DELAY).min(end)).await;
            }
            std::future::pending::<()>().await;
            drop(open_connection);
        });
    }
    let mut peak = before;
    let sample_memory = async {
        while Instant::now() < end {
            peak = processes.resident().unwrap_or_default().max(peak);
            sleep(SAMPLE_INTERVAL).await;
        }
    };
    tasks.run_until(sample_memory).await;
    let held = processes.resident()?;
    drop(tasks);
    let after = memory_at_rest(before, || processes.resident()).await?;
    let other_clients = other_clients.await.context("the client next to the flood panicked")?;
    ensure!(other_clients.good > 0, "no other request was served:\n{other_clients}{}", server.output());
    Ok(Row { connections, before, peak: peak.max(held), held, after, closed: flood.1.get(), other_clients })
}

/// Load of a well-behaved client, in a separate thread that is not delayed by the flood.
fn load_in_background(target: SocketAddr, duration: Duration) -> oneshot::Receiver<Report> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        let shapes = vec![RequestShape::get(HOST, "/"), RequestShape::post(HOST, "/bytes/10000", 1000, false)];
        let plan = Plan { rate: Some(OTHER_CLIENTS_RATE), single_use: 4, ..Plan::new(target, shapes, duration, 4) };
        // The receiver is dropped if the flood has failed.
        sender.send(runtime.block_on(run(plan))).ok();
    });
    receiver
}

/// Starts the backend in a separate thread that is not delayed by the flood. It runs as long as this program.
fn start_backend() -> Result<SocketAddr> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async move {
            let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await;
            let started = backend.as_ref().map(|backend| backend.address).map_err(|error| format!("{error:#}"));
            sender.send(started).ok();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().context("the backend's thread ended")?.map_err(anyhow::Error::msg)
}

/// The minimum of the memory, once it has not decreased for [`REST_TIME`] and is about what it was before. That takes
/// as long as the server processes what has arrived in its sockets.
async fn memory_at_rest(before: f64, resident: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut minimum = resident()?;
    let mut since = Instant::now();
    let settled = async {
        while since.elapsed() < REST_TIME || minimum > before * MAX_GROWTH {
            sleep(SAMPLE_INTERVAL).await;
            let current = resident()?;
            if current < minimum - 0.1 {
                (minimum, since) = (current, Instant::now());
            }
        }
        anyhow::Ok(())
    };
    // On timeout, the minimum so far is returned.
    timeout(MAX_REST_TIME, settled).await.unwrap_or(Ok(()))?;
    Ok(minimum)
}

/// Shorter than the defaults, so that the timeouts expire during a flood.
const SHORT_TIMEOUTS: [&str; 2] = ["--client-header-timeout=2s", "--tls-handshake-timeout=2s"];
/// Of the memory after a flood, compared with that before. Part of it is the program's own code, which is loaded when
/// it runs for the first time.
const MAX_GROWTH: f64 = 1.2;
/// Requests per second of the well-behaved client.
const OTHER_CLIENTS_RATE: u32 = 200;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const RETRY_DELAY: Duration = Duration::from_millis(20);
const REST_TIME: Duration = Duration::from_millis(1500);
const MAX_REST_TIME: Duration = Duration::from_secs(30);
