//! Measures Portico, alone or compared with other proxies: all have the same backend and work, and run alternately on
//! the same core.

mod callgrind;
mod cases;
mod equal_work;
mod figures;
mod idle;
mod instructions;
mod measure;
mod ratio;
mod rounds;
mod spread;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use self::cases::{CASES, Case};
pub use self::instructions::{Counting, count_instructions};
pub(crate) use self::instructions::{run_and_count, sequential_plan};
use self::measure::measure;
use self::rounds::Rounds;
pub(crate) use self::spread::Spread;
use crate::backend::Backend;
use crate::plan::RequestShape;
use crate::run::run;
use crate::server::portico::{Setup, portico};
use crate::server::{self, HOST, Peer, Server, Site};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The nginx binary, to compare with nginx.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The HAProxy binary, to compare with HAProxy.
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// The Envoy binary, to compare with Envoy.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The core for the servers, which run one at a time; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Run only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Idle connections opened at the end to measure their memory; 0 for none.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// File for the figures of all rounds as JSON, written after each round.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the rounds that the JSON file has, and measure the others. The programs must be the same.
    #[arg(long, requires = "json")]
    resume: bool,
    /// File for the table as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Options {
    /// The programs to compare with.
    fn peers(&self) -> Vec<(Peer, &Path)> {
        let all = [(Peer::Nginx, &self.nginx), (Peer::Haproxy, &self.haproxy), (Peer::Envoy, &self.envoy)];
        all.into_iter().filter_map(|(peer, binary)| Some((peer, binary.as_deref()?))).collect()
    }
}

/// Returns whether all responses were correct.
pub async fn compare(options: &Options) -> Result<bool> {
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let cases: Vec<&'static Case> =
        CASES.iter().filter(|case| options.case.as_ref().is_none_or(|word| case.name.contains(word))).collect();
    let mut rounds = match (&options.json, options.resume) {
        (Some(file), true) => Rounds::read(file)?,
        _ => Rounds::default(),
    };
    // With and without an access log.
    for access_log in [false, true] {
        let cases: Vec<_> = cases.iter().copied().filter(|case| case.access_log == access_log).collect();
        if cases.iter().all(|case| rounds.count(case) >= options.rounds) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let servers = start_all(options, folder.path(), backend.address, access_log).await?;
        for round in 0..options.rounds {
            for case in &cases {
                if round < rounds.count(case) {
                    continue;
                }
                rounds.add(case, measure_all(options, &servers, case, round).await?);
                eprintln!("round {} of {}: {}", round + 1, options.rounds, case.name);
            }
            if let Some(file) = &options.json {
                rounds.write(file)?;
            }
        }
    }
    let results: Vec<_> = cases.iter().map(|case| (*case, rounds.of(case))).collect();
    println!("{}", table::text(&results));
    if let Some(file) = &options.markdown {
        std::fs::write(file, table::markdown(&results))?;
    }
    if options.idle > 0 {
        idle::measure_idle(options, backend.address).await?;
    }
    Ok(results.iter().all(|(_, rounds)| rounds.iter().flatten().all(|(_, figures)| figures.bad == 0)))
}

/// One round of a case: the figures of each server.
async fn measure_all(
    options: &Options,
    servers: &[Server],
    case: &Case,
    round: usize,
) -> Result<Vec<(String, figures::Figures)>> {
    let mut round_figures = Vec::new();
    for offset in 0..servers.len() {
        // Another server is first in each round, and every second round runs backward, so that the order favors none.
        let index = (round + offset) % servers.len();
        let server = &servers[if round % 2 == 1 { servers.len() - 1 - index } else { index }];
        let duration = Duration::from_secs_f64(options.seconds);
        round_figures.push((server.name.to_owned(), measure(server, case, duration).await?));
    }
    Ok(round_figures)
}

/// Starts Portico and all peers, waits until they respond, and verifies that they do the same work.
async fn start_all(options: &Options, folder: &Path, backend: SocketAddr, access_log: bool) -> Result<Vec<Server>> {
    let key = server::write_certificate(folder)?;
    let site = Site { folder, backend, key_pair: &key, access_log };
    let mut servers = vec![portico(options.core, &Setup::new(&options.portico, site))?];
    for (peer, binary) in options.peers() {
        servers.push(peer.start(binary, options.core, &site)?);
    }
    for server in &servers {
        wait_for(server).await?;
        equal_work::check(server).await?;
    }
    Ok(servers)
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

const START_TIMEOUT: Duration = Duration::from_secs(60);
