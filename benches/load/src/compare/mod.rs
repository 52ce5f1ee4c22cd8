//! Measures Portico, alone or compared with nginx: both have the same backend and work, and run alternately on the same
//! core.

mod callgrind;
mod instructions;
mod spread;
mod summary;

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

pub use self::instructions::{Counting, count_instructions};
pub(crate) use self::instructions::{run_and_count, sequential_plan};
pub(crate) use self::spread::Spread;
use self::summary::{Figures, Summary};
use crate::backend::Backend;
use crate::http1;
use crate::plan::{Plan, Protocol, RequestShape};
use crate::process::Process;
use crate::report::Report;
use crate::run::{connect, run};
use crate::server::{self, HOST, Server, Setup};
use crate::tls::Tls;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The nginx binary, to compare with nginx.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The core for the servers, which run one at a time; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Run only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Idle connections opened at the end to measure their memory; 0 for none.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// File for all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    path: &'static str,
    /// Well below the capacity of both servers, so that the figures contain no queueing.
    rate: u32,
    tls_mode: TlsMode,
    protocol: Protocol,
    /// Open a connection for each request.
    fresh: bool,
}

impl Case {
    fn measures_handshakes(&self) -> bool {
        self.fresh && !matches!(self.tls_mode, TlsMode::None)
    }
}

#[derive(Clone, Copy, Debug)]
enum TlsMode {
    /// Without TLS.
    None,
    /// Full handshakes.
    Full,
    /// Handshakes that resume a session.
    Resumed,
}

const PLAIN: Case = Case {
    name: "HTTP/1.1, 64 bytes",
    path: "/",
    rate: 5000,
    tls_mode: TlsMode::None,
    protocol: Protocol::Http1,
    fresh: false,
};
const LONG_BODY_PATH: &str = "/bytes/100000";

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "HTTP/1.1, 100 kB", path: LONG_BODY_PATH, rate: 1000, ..PLAIN },
    Case { name: "HTTPS, 64 bytes", tls_mode: TlsMode::Full, ..PLAIN },
    Case { name: "HTTPS, 100 kB", path: LONG_BODY_PATH, rate: 1000, tls_mode: TlsMode::Full, ..PLAIN },
    Case { name: "HTTP/2, 64 bytes", tls_mode: TlsMode::Full, protocol: Protocol::Http2, ..PLAIN },
    Case {
        name: "HTTP/2, 100 kB",
        path: LONG_BODY_PATH,
        rate: 1000,
        tls_mode: TlsMode::Full,
        protocol: Protocol::Http2,
        ..PLAIN
    },
    Case { name: "HTTP/1.1, a connection for each request", rate: 1000, fresh: true, ..PLAIN },
    Case { name: "HTTPS, a full handshake for each request", rate: 500, tls_mode: TlsMode::Full, fresh: true, ..PLAIN },
    Case {
        name: "HTTPS, a resumed handshake for each request",
        rate: 500,
        tls_mode: TlsMode::Resumed,
        fresh: true,
        ..PLAIN
    },
];

/// Returns whether all responses were correct.
pub async fn compare(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let servers = start_all(options, folder.path(), backend.address)?;
    for server in &servers {
        wait_for(server).await?;
    }
    let cases: Vec<&'static Case> =
        CASES.iter().filter(|case| options.case.as_ref().is_none_or(|word| case.name.contains(word))).collect();
    let mut summary = Summary::new(&cases, &servers);
    for round in 0..options.rounds {
        for (case_index, case) in cases.iter().enumerate() {
            // The order alternates, so that cache effects do not favor one server.
            let mut order: Vec<usize> = (0..servers.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for server_index in order {
                let figures = measure(options, &servers[server_index], case).await?;
                eprintln!("round {} of {}: {}: {}", round + 1, options.rounds, servers[server_index].name, case.name);
                summary.add(case_index, server_index, figures);
            }
        }
    }
    println!("{summary}");
    if options.idle > 0 {
        println!("Memory of {} idle connections, KiB each", options.idle);
        drop(servers);
        for tls in [None, Some(Tls::new(HOST, Protocol::Http1)?)] {
            // Starts new servers for each measurement, because connections would reuse memory that earlier ones freed.
            let folder = tempfile::tempdir()?;
            for server in start_all(options, folder.path(), backend.address)? {
                wait_for(&server).await?;
                let kib = memory_per_idle_connection(&server, options.idle, tls.clone()).await?;
                println!("  {:<10} {:<6} {kib:>6.1}", server.name, if tls.is_some() { "TLS" } else { "plain" });
            }
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!({ "cases": summary.to_json() }))?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(summary.is_clean())
}

fn start_all(options: &Options, folder: &Path, backend: SocketAddr) -> Result<Vec<Server>> {
    let key = server::write_certificate(folder)?;
    let setup = Setup {
        binary: &options.portico,
        folder,
        backend,
        key_pair: &key,
        flags: &[],
        objects: "",
        ingress: None,
        access_log: true,
    };
    let mut servers = vec![server::portico(options.core, &setup)?];
    if let Some(nginx) = &options.nginx {
        servers.push(server::nginx(nginx, options.core, folder, backend, &key)?);
    }
    Ok(servers)
}

async fn measure(options: &Options, server: &Server, case: &Case) -> Result<Figures> {
    let process = server.process().serving();
    let shapes = vec![RequestShape::get(HOST, case.path)];
    let (target, tls) = match case.tls_mode {
        TlsMode::None => (server.address, None),
        TlsMode::Full => (server.tls_address, Some(Tls::new(HOST, case.protocol)?)),
        TlsMode::Resumed => (server.tls_address, Some(Tls::new(HOST, case.protocol)?.resuming())),
    };
    let duration = Duration::from_secs_f64(options.seconds);
    let (kept, fresh) = if case.fresh { (0, CONNECTIONS) } else { (CONNECTIONS, 0) };
    let plan = Plan {
        rate: Some(case.rate),
        single_use: fresh,
        tls,
        protocol: case.protocol,
        ..Plan::new(target, shapes, duration, kept)
    };
    // Warms up connections and caches.
    run(Plan { duration: WARM_UP, ..plan.clone() }).await;
    let before = process.cpu()?;
    let paced = run(plan.clone()).await;
    let paced_cpu = process.cpu()?.saturating_sub(before);

    let (before, generator_before) = (process.cpu()?, Process(std::process::id()).cpu()?);
    let full = run(Plan { rate: None, ..plan }).await;
    let (full_cpu, generator_cpu) =
        (process.cpu()?.saturating_sub(before), Process(std::process::id()).cpu()?.saturating_sub(generator_before));
    check_handshakes(server, case, &[&paced, &full])?;
    ensure!(paced.good > 0 && full.good > 0, "{} did not respond:\n{paced}{full}", server.name);
    Ok(Figures {
        cpu_paced: paced_cpu.as_secs_f64() * 1e6 / paced.good as f64,
        cpu_full: full_cpu.as_secs_f64() * 1e6 / full.good as f64,
        per_second: full.per_second(),
        busy: full_cpu.as_secs_f64() / full.elapsed.as_secs_f64(),
        load_busy: generator_cpu.as_secs_f64() / full.elapsed.as_secs_f64(),
        p50: paced.percentile(0.5),
        p99: paced.percentile(0.99),
        resident: process.resident()?,
        bad: paced.failed + paced.wrong + full.failed + full.wrong,
    })
}

/// Fails if a case for full handshakes has resumed ones, or vice versa, which would invalidate its figures.
fn check_handshakes(server: &Server, case: &Case, reports: &[&Report]) -> Result<()> {
    let sum = |count: fn(&Report) -> u64| reports.iter().map(|report| count(report)).sum::<u64>();
    let (all, resumed) = (sum(|report| report.handshakes), sum(|report| report.resumed));
    let expected = match (case.fresh, case.tls_mode) {
        (true, TlsMode::Full) => all > 0 && resumed == 0,
        // Connections opened before the first ticket arrives cannot resume.
        (true, TlsMode::Resumed) => all > 0 && resumed * 100 >= all * 98,
        (false, _) | (_, TlsMode::None) => true,
    };
    ensure!(expected, "{}: {}: {resumed} of {all} handshakes were resumed", server.name, case.name);
    Ok(())
}

/// KiB of resident memory per idle connection that had one request.
async fn memory_per_idle_connection(server: &Server, count: usize, tls: Option<Tls>) -> Result<f64> {
    let process = server.process().serving();
    let target = if tls.is_some() { server.tls_address } else { server.address };
    let shape = RequestShape::get(HOST, "/");
    let plan = Plan { tls, ..Plan::new(target, vec![], Duration::ZERO, 0) };
    let before = process.resident()?;
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = http1::Connection::new(connect(&plan, &RefCell::default()).await?.0);
        connection.exchange(&shape, number as u64, false).await?;
        connections.push(connection);
    }
    sleep(UNTIL_AT_REST).await;
    Ok((process.resident()? - before) * 1024.0 / count as f64)
}

/// Waits for the first response. Returns the number of requests, which is one.
pub(crate) async fn wait_for(server: &Server) -> Result<u64> {
    let begin = Instant::now();
    loop {
        let shapes = vec![RequestShape::get(HOST, "/")];
        let report = run(sequential_plan(1, server.address, shapes)).await;
        if report.is_clean() {
            return Ok(report.good);
        }
        ensure!(begin.elapsed() < START_TIMEOUT, "{} does not respond; {}", server.name, server.output());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Number of concurrent connections of the load.
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_millis(500);
/// Longer than servers keep the buffers of an idle connection, and allocators the pages that they freed.
const UNTIL_AT_REST: Duration = Duration::from_secs(4);
const START_TIMEOUT: Duration = Duration::from_secs(60);
