//! The committed baseline of costs per request, and instructions per request, counted by valgrind and compared with it.
//! Unlike times they hardly depend on the load of the machine, so a small difference shows a change of the code.

mod file;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

pub use self::file::compare;
use crate::backend::Backend;
use crate::compare::{exactly, run_and_count};
use crate::plan::{Plan, Protocol, RequestShape};
use crate::plugins::run_chain;
use crate::server::{self, HOST, Setup};
use crate::tls::Tls;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The binary of Portico that `make image-root-test` builds; other builds have other figures.
    #[arg(long)]
    portico: PathBuf,
}

struct Case {
    name: &'static str,
    load: Load,
    access_log: bool,
}

/// What one connection sends.
#[derive(Clone, Copy)]
enum Load {
    Plain,
    Tls(Protocol),
    /// To a route with key-auth, rate-limiting and correlation-id.
    Chain,
}

const PLAIN: Case = Case { name: "HTTP/1.1", load: Load::Plain, access_log: false };

const CASES: [Case; 5] = [
    PLAIN,
    Case { name: "HTTP/1.1 with the access log", access_log: true, ..PLAIN },
    Case { name: "HTTP/1.1 over TLS", load: Load::Tls(Protocol::Http1), ..PLAIN },
    Case { name: "HTTP/2 over TLS", load: Load::Tls(Protocol::Http2), ..PLAIN },
    Case { name: "HTTP/1.1 with key-auth, rate-limiting, correlation-id", load: Load::Chain, ..PLAIN },
];

/// Counts all cases and compares them with the baseline, or writes it with `UPDATE=1`. Returns whether none differs.
pub async fn baseline(options: &Options) -> Result<bool> {
    let mut found = Vec::new();
    for case in &CASES {
        let each = count(&options.portico, case).await?;
        println!("  {:<54} {each:>7}", case.name);
        found.push((case.name, each));
    }
    if cfg!(not(target_arch = "x86_64")) {
        println!("not compared: the baseline is for x86-64");
        return Ok(true);
    }
    let difference = compare("instructions", "instructions per request", &found, TOLERANCE);
    if let Err(message) = &difference {
        println!("{message}");
    }
    Ok(difference.is_ok())
}

/// Instructions per request: runs with fewer and with more requests; the difference excludes startup, handshake and
/// shutdown.
async fn count(portico: &Path, case: &Case) -> Result<u64> {
    let (few, little) = run_case(portico, case, FEW).await?;
    let (many, much) = run_case(portico, case, MANY).await?;
    ensure!(many > few && much > little, "too few requests for a result: {few} and {many}");
    Ok((much - little) / (many - few))
}

/// Number of requests and instructions.
async fn run_case(portico: &Path, case: &Case, requests: usize) -> Result<(u64, u64)> {
    let protocol = match case.load {
        Load::Chain => return run_chain(portico, case.access_log, requests).await,
        Load::Plain => None,
        Load::Tls(protocol) => Some(protocol),
    };
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let key = server::write_certificate(folder.path())?;
    let setup = Setup {
        binary: portico,
        folder: folder.path(),
        backend: backend.address,
        key: &key,
        flags: &[],
        objects: "",
        ingress: None,
        access_log: case.access_log,
    };
    let server = server::counted_portico(&counts, &setup)?;
    let target = if protocol.is_some() { server.secure } else { server.address };
    let plan = Plan {
        tls: protocol.map(|protocol| Tls::new(HOST, protocol)).transpose()?,
        protocol: protocol.unwrap_or_default(),
        ..exactly(requests, target, vec![RequestShape::get(HOST, "/")])
    };
    let (requests, counts) = run_and_count(server, &counts, plan).await?;
    Ok((requests, counts.total))
}

/// Percent by which a figure may differ from the baseline.
const TOLERANCE: f64 = 3.0;
const FEW: usize = 500;
/// So many that a difference between two startups does not matter.
const MANY: usize = 6500;
