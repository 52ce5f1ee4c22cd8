//! Measures Portico, alone or compared with other proxies and with another configuration of Portico: all have the same
//! backend and work, and run alternately on the same core.

pub(crate) mod callgrind;
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

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use self::cases::{Case, Reference, Servers, by_servers, selected};
use self::idle::measure_idle;
pub use self::instructions::{Counting, count_instructions};
pub(crate) use self::instructions::{run_and_count, sequential_plan};
use self::measure::measure;
use self::rounds::Rounds;
pub(crate) use self::spread::Spread;
use crate::backend::Backend;
use crate::heads::Heads;
use crate::plan::RequestShape;
use crate::run::run;
use crate::server::objects::protocol_objects;
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
    /// The Traefik binary, to compare with Traefik.
    #[arg(long)]
    traefik: Option<PathBuf>,
    /// The Caddy binary, to compare with Caddy.
    #[arg(long)]
    caddy: Option<PathBuf>,
    /// The core for the servers, which run one at a time; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Another core for servers with several workers, which share the core otherwise.
    #[arg(long)]
    second_core: Option<usize>,
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = SECONDS)]
    seconds: f64,
    /// Run only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Also run the cases of `make bench-full`.
    #[arg(long)]
    full: bool,
    /// Idle connections of each kind that are opened at the end to measure their memory, a quarter for WebSockets; 0
    /// for none.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// File for the figures of all rounds as JSON, written after each round.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the rounds and the memory that the JSON file has, and measure the others. The programs must be the same.
    #[arg(long, requires = "json")]
    resume: bool,
    /// File for the table as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Options {
    /// The programs to compare with.
    fn peers(&self) -> Vec<(Peer, &Path)> {
        let all = [
            (Peer::Nginx, &self.nginx),
            (Peer::Haproxy, &self.haproxy),
            (Peer::Envoy, &self.envoy),
            (Peer::Traefik, &self.traefik),
            (Peer::Caddy, &self.caddy),
        ];
        all.into_iter().filter_map(|(peer, binary)| Some((peer, binary.as_deref()?))).collect()
    }

    /// The cores for a server with this number of workers.
    fn cores(&self, workers: usize) -> Vec<usize> {
        [self.core].into_iter().chain(self.second_core.filter(|_| workers > 1)).collect()
    }
}

/// Returns whether all responses were correct.
pub async fn compare(options: &Options) -> Result<bool> {
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let cases = selected(options.case.as_deref(), options.full);
    let mut rounds = match (&options.json, options.resume) {
        (Some(file), true) => Rounds::read(file)?,
        _ => Rounds::default(),
    };
    for (servers, cases) in by_servers(&cases) {
        if cases.iter().all(|case| rounds.count(case) >= options.rounds) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let servers = start_all(options, folder.path(), backend.address, &servers, &cases).await?;
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
    let is_clean = results.iter().all(|(_, rounds)| rounds.iter().flatten().all(|(_, figures)| figures.bad == 0));
    let mut markdown = table::markdown(&results);
    write_markdown(options, &markdown)?;
    if options.idle > 0 {
        measure_idle(options, backend.address, &mut rounds).await?;
        markdown += &idle::markdown(&rounds);
        write_markdown(options, &markdown)?;
    }
    Ok(is_clean)
}

fn write_markdown(options: &Options, text: &str) -> Result<()> {
    if let Some(file) = &options.markdown {
        std::fs::write(file, text)?;
    }
    Ok(())
}

/// One round of a case: the figures of each server that supports it.
async fn measure_all(
    options: &Options,
    servers: &[Server],
    case: &Case,
    round: usize,
) -> Result<Vec<(String, figures::Figures)>> {
    let servers: Vec<&Server> = servers.iter().filter(|server| case.is_supported_by(server.name)).collect();
    let mut round_figures = Vec::new();
    for offset in 0..servers.len() {
        // Another server is first in each round, and every second round runs backward, so that the order favors none.
        let index = (round + offset) % servers.len();
        let server = servers[if round % 2 == 1 { servers.len() - 1 - index } else { index }];
        let duration = Duration::from_secs_f64(options.seconds);
        round_figures.push((server.name.to_owned(), measure(server, case, duration).await?));
    }
    Ok(round_figures)
}

/// Starts Portico, its reference and all peers for these cases, waits until they respond, and verifies that they do the
/// same work.
async fn start_all(
    options: &Options,
    folder: &Path,
    backend: SocketAddr,
    which: &Servers,
    cases: &[&Case],
) -> Result<Vec<Server>> {
    let Servers { access_log, variant, reference } = *which;
    let key = server::write_certificate(folder)?;
    let site = Site { folder, backend, key_pair: &key, access_log, variant };
    let objects = protocol_objects(backend);
    let cores = options.cores(variant.workers);
    let setup = Setup { objects: &objects, ..Setup::new(&options.portico, site) };
    let mut servers = vec![portico(&cores, &setup)?];
    if let Some(Reference { name, variant, imitates }) = reference {
        let filters = match cases.first() {
            Some(case) if imitates => imitating_filters(&servers[0], &case.shape()).await?,
            _ => String::new(),
        };
        let setup = Setup { name, site: Site { variant, ..site }, filters: &filters, ..setup };
        servers.push(portico(&options.cores(variant.workers), &setup)?);
    }
    for (peer, binary) in options.peers().into_iter().filter(|(peer, _)| variant.fits(*peer)) {
        servers.push(peer.start(binary, &cores, &site)?);
    }
    for server in &servers {
        wait_for(server).await?;
        equal_work::check(server).await?;
    }
    if let ([chain, imitation, ..], Some(Reference { imitates: true, .. })) = (servers.as_slice(), reference) {
        for case in cases {
            equal_work::check_imitation(chain, imitation, &case.shape()).await?;
        }
    }
    Ok(servers)
}

/// Filters that add the header fields which the plugins of this server add to such a request and its response.
async fn imitating_filters(server: &Server, shape: &RequestShape) -> Result<String> {
    wait_for(server).await?;
    let request = server.variant.requests(shape).swap_remove(0);
    // The same request for the route without plugins, whose host is as long.
    let plain = RequestShape { host: shape.host.clone(), ..request.clone() };
    let plain = Heads::observe(server.address, &plain).await?;
    let chain = Heads::observe(server.address, &request).await?;
    let mut added_fields = chain.added_to(&plain);
    added_fields.lengthen(chain.longer_values_than(&plain));
    Ok(added_fields.filters())
}

/// Waits until both listeners accept connections, and for the first response. Returns the number of requests, which is
/// one.
pub(crate) async fn wait_for(server: &Server) -> Result<u64> {
    let responds = async || {
        TcpStream::connect(server.tls_address).await.context("the listener with TLS refuses connections")?;
        let report = run(sequential_plan(1, server.address, vec![RequestShape::get(HOST, "/")])).await;
        ensure!(report.is_clean(), "{report:?}");
        Ok(report.good)
    };
    server.until_ready(responds).await
}

/// Defaults of the options, with which the comparison takes about 45 minutes.
const ROUNDS: usize = 7;
const SECONDS: f64 = 1.5;
