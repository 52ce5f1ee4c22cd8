//! Counts instructions per request with valgrind, independent of other load on the machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::callgrind::{self, Counts};
use super::wait_for;
use crate::backend::Backend;
use crate::plan::{Plan, RequestShape};
use crate::run::run;
use crate::server::nginx::counted_nginx;
use crate::server::portico::{Setup, counted_portico};
use crate::server::variant::ServerVariant;
use crate::server::{self, HOST, Server, Site};

#[derive(Clone, Debug, clap::Args)]
pub struct Counting {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The nginx binary, to count nginx too.
    #[arg(long)]
    nginx: Option<PathBuf>,
}

struct Case {
    name: &'static str,
    path: &'static str,
    /// Open a connection for each request.
    fresh: bool,
    access_log: bool,
}

const PLAIN: Case = Case { name: "HTTP/1.1, 64 bytes", path: "/", fresh: false, access_log: true };

const CASES: [Case; 4] = [
    PLAIN,
    Case { name: "HTTP/1.1, 64 bytes, no access log", access_log: false, ..PLAIN },
    Case { name: "HTTP/1.1, 100 kB", path: "/bytes/100000", ..PLAIN },
    Case { name: "HTTP/1.1, a connection for each request", fresh: true, ..PLAIN },
];

const SHORTER_RUN: Duration = Duration::from_secs(1);
const LONGER_RUN: Duration = Duration::from_secs(4);

/// Runs each case for a shorter and a longer time; the difference excludes startup.
pub async fn count_instructions(options: &Counting) -> Result<bool> {
    for case in &CASES {
        print!("  {:<42}", case.name);
        let nginx = options.nginx.as_ref();
        // `None` measures Portico.
        for nginx in [None, nginx].into_iter().take(1 + usize::from(nginx.is_some())) {
            let (fewer_requests, fewer) = run_counted(options, nginx, case, SHORTER_RUN).await?;
            let (more_requests, more) = run_counted(options, nginx, case, LONGER_RUN).await?;
            ensure!(
                more_requests > fewer_requests && more.total > fewer.total,
                "too few requests for a result: {fewer_requests} and {more_requests}"
            );
            let per_request = |count: fn(Counts) -> u64| {
                (count(more) - count(fewer)) as f64 / (more_requests - fewer_requests) as f64
            };
            match nginx {
                Some(_) => print!(" nginx {:>8.0}", per_request(|counts| counts.total)),
                None => {
                    let metrics = per_request(|counts| counts.metrics);
                    ensure!(metrics > 0.0, "no code for metrics was found; the binary needs line tables");
                    print!(" portico {:>8.0}, of which metrics {metrics:>5.0}", per_request(|counts| counts.total));
                }
            }
        }
        println!();
    }
    Ok(true)
}

/// Runs a case under valgrind. Returns the numbers of requests and instructions.
async fn run_counted(
    options: &Counting,
    nginx: Option<&PathBuf>,
    case: &Case,
    duration: Duration,
) -> Result<(u64, Counts)> {
    let folder = tempfile::tempdir()?;
    let counts_file = folder.path().join("counts");
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let key = server::write_certificate(folder.path())?;
    let site = Site {
        folder: folder.path(),
        backend: backend.address,
        key_pair: &key,
        access_log: case.access_log,
        variant: ServerVariant::PLAIN,
    };
    let server = match nginx {
        None => counted_portico(&counts_file, &Setup::new(&options.portico, site))?,
        Some(nginx) => counted_nginx(nginx, &counts_file, &site)?,
    };
    let (kept, fresh) = if case.fresh { (0, 1) } else { (1, 0) };
    let shapes = vec![RequestShape::get(HOST, case.path)];
    let plan = Plan { single_use: fresh, ..Plan::new(server.address, shapes, duration, kept) };
    run_and_count(server, &counts_file, plan).await
}

/// Exactly this number of requests, one after another on one connection.
pub(crate) fn sequential_plan(requests: usize, target: SocketAddr, shapes: Vec<RequestShape>) -> Plan {
    // A plan at a fixed rate sends rate × duration requests, however late. At this rate all are due almost at once, so
    // the connection sends each one as soon as it has read the response to the last.
    let duration = Duration::from_secs_f64(requests as f64 / f64::from(UNREACHABLE_RATE));
    Plan { rate: Some(UNREACHABLE_RATE), ..Plan::new(target, shapes, duration, 1) }
}

/// Requests per second, far more than one connection can send.
const UNREACHABLE_RATE: u32 = 1_000_000;

/// Runs a plan against a server under valgrind. Returns the numbers of its requests and instructions.
pub(crate) async fn run_and_count(server: Server, counts_file: &Path, plan: Plan) -> Result<(u64, Counts)> {
    let startup_requests = wait_for(&server).await?;
    let report = run(plan).await;
    ensure!(report.is_clean(), "not every response was correct:\n{report}");
    let counts = callgrind::dump(server.process(), counts_file).with_context(|| server.output())?;
    Ok((startup_requests + report.good, counts))
}
