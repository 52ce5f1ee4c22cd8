//! Instructions per request, counted by valgrind: a figure that does not depend on what else the machine does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::callgrind::{self, Counts};
use super::wait_for;
use crate::backend::Backend;
use crate::plan::{Plan, Shape};
use crate::run::run;
use crate::server::{self, HOST, Server, Setup};

#[derive(Clone, Debug, clap::Args)]
pub struct Counting {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// nginx, if it is to be counted too.
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

/// Runs each twice, for a shorter and a longer time, so that starting and stopping drop out of the difference.
pub async fn count_instructions(options: &Counting) -> Result<bool> {
    for case in &CASES {
        print!("  {:<42}", case.name);
        // nginx always has its log.
        let nginx = options.nginx.as_ref().filter(|_| case.access_log);
        for nginx in [None, nginx].into_iter().take(1 + usize::from(nginx.is_some())) {
            let (few, little) = once(options, nginx, case, Duration::from_secs(1)).await?;
            let (many, much) = once(options, nginx, case, Duration::from_secs(4)).await?;
            ensure!(many > few && much.total > little.total, "too few requests to tell: {few} and {many}");
            let each = |part: fn(Counts) -> u64| (part(much) - part(little)) as f64 / (many - few) as f64;
            match nginx {
                Some(_) => print!(" nginx {:>8.0}", each(|counts| counts.total)),
                None => {
                    let metrics = each(|counts| counts.metrics);
                    ensure!(metrics > 0.0, "no code of metrics was seen; the binary needs its line tables");
                    print!(" portico {:>8.0}, of which metrics {metrics:>5.0}", each(|counts| counts.total));
                }
            }
        }
        println!();
    }
    Ok(true)
}

/// Requests and instructions.
async fn once(options: &Counting, nginx: Option<&PathBuf>, case: &Case, duration: Duration) -> Result<(u64, Counts)> {
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
    let shapes = vec![Shape::get(HOST, case.path)];
    let plan = Plan { fresh, ..Plan::new(server.address, shapes, duration, kept) };
    counted(server, &counts, plan).await
}

/// Runs a plan on a server that valgrind runs, and ends it: requests and instructions from its start to its end.
pub(crate) async fn counted(server: Server, counts: &Path, plan: Plan) -> Result<(u64, Counts)> {
    let before = wait_for(&server).await?;
    let report = run(plan).await;
    ensure!(report.is_clean(), "not every answer was right:\n{report}");
    let said = server.said();
    drop(server);
    let text = fs::read_to_string(counts).with_context(|| format!("valgrind counted nothing: {said}"))?;
    Ok((before + report.good, callgrind::read(&text)?))
}
