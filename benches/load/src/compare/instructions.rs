//! Instructions per request, counted by valgrind and therefore independent of other load on the machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::callgrind::{self, Counts};
use super::wait_for;
use crate::backend::Backend;
use crate::plan::{Plan, RequestShape};
use crate::run::run;
use crate::server::{self, HOST, Server, Setup};

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
    fresh: bool,
    access_log: bool,
}

const PLAIN: Case = Case { name: "HTTP/1.1, 64 bytes", path: "/", fresh: false, access_log: true };

const CASES: [Case; 4] = [
    PLAIN,
    Case { name: "HTTP/1.1, 64 bytes, no access log", access_log: false, ..PLAIN },
    Case { name: "HTTP/1.1, 100 kB", path: super::LONG, ..PLAIN },
    Case { name: "HTTP/1.1, a connection for each request", fresh: true, ..PLAIN },
];

/// Runs each case for a shorter and a longer time; the difference excludes startup and shutdown.
pub async fn count_instructions(options: &Counting) -> Result<bool> {
    for case in &CASES {
        print!("  {:<42}", case.name);
        // nginx is always measured with an access log.
        let nginx = options.nginx.as_ref().filter(|_| case.access_log);
        for nginx in [None, nginx].into_iter().take(1 + usize::from(nginx.is_some())) {
            let (few, little) = run_counted(options, nginx, case, Duration::from_secs(1)).await?;
            let (many, much) = run_counted(options, nginx, case, Duration::from_secs(4)).await?;
            ensure!(many > few && much.total > little.total, "too few requests for a result: {few} and {many}");
            let each = |part: fn(Counts) -> u64| (part(much) - part(little)) as f64 / (many - few) as f64;
            match nginx {
                Some(_) => print!(" nginx {:>8.0}", each(|counts| counts.total)),
                None => {
                    let metrics = each(|counts| counts.metrics);
                    ensure!(metrics > 0.0, "no code for metrics was found; the binary needs line tables");
                    print!(" portico {:>8.0}, of which metrics {metrics:>5.0}", each(|counts| counts.total));
                }
            }
        }
        println!();
    }
    Ok(true)
}

/// Number of requests and instructions.
async fn run_counted(
    options: &Counting,
    nginx: Option<&PathBuf>,
    case: &Case,
    duration: Duration,
) -> Result<(u64, Counts)> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let key = server::write_certificate(folder.path())?;
    let setup = Setup {
        binary: &options.portico,
        folder: folder.path(),
        backend: backend.address,
        key: &key,
        flags: &[],
        objects: "",
        ingress: None,
        access_log: case.access_log,
    };
    let server = match nginx {
        None => server::counted_portico(&counts, &setup)?,
        Some(nginx) => server::counted_nginx(nginx, &counts, folder.path(), backend.address, &key)?,
    };
    let (kept, fresh) = if case.fresh { (0, 1) } else { (1, 0) };
    let shapes = vec![RequestShape::get(HOST, case.path)];
    let plan = Plan { single_use: fresh, ..Plan::new(server.address, shapes, duration, kept) };
    run_and_count(server, &counts, plan).await
}

/// A number of requests, one after another on one connection.
pub(crate) fn exactly(requests: usize, target: SocketAddr, shapes: Vec<RequestShape>) -> Plan {
    // All are due at once, so that their number is exact.
    let duration = Duration::from_secs_f64(requests as f64 / f64::from(AT_ONCE));
    Plan { rate: Some(AT_ONCE), ..Plan::new(target, shapes, duration, 1) }
}

/// Requests per second, far beyond what a connection can do.
const AT_ONCE: u32 = 1_000_000;

/// Runs a plan against a server under valgrind and ends it. Returns its requests and instructions.
pub(crate) async fn run_and_count(server: Server, counts: &Path, plan: Plan) -> Result<(u64, Counts)> {
    let before = wait_for(&server).await?;
    let report = run(plan).await;
    ensure!(report.is_clean(), "not every response was correct:\n{report}");
    let said = server.output();
    drop(server);
    let text = fs::read_to_string(counts).with_context(|| format!("no output of valgrind: {said}"))?;
    Ok((before + report.good, callgrind::read(&text)?))
}
