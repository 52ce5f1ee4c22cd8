//! Counts instructions per request with valgrind and compares them with the committed baseline. Unlike times, they
//! hardly depend on the load of the machine, so a small difference shows a change of the code.

mod file;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

pub use self::file::compare;
use crate::backend::Backend;
use crate::compare::{run_and_count, sequential_plan};
use crate::plan::{Plan, Protocol, RequestShape};
use crate::plugins::run_variant;
use crate::server::portico::{Setup, counted_portico};
use crate::server::variant::ServerVariant;
use crate::server::{self, HOST, Site};
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
    /// Flags of Portico in addition to those of every measurement.
    flags: &'static [&'static str],
}

/// What one connection sends.
#[derive(Clone, Copy)]
enum Load {
    Plain,
    Tls(Protocol),
    /// To a route with plugins: a variant of the measurements of plugins.
    Plugins(&'static str),
}

const PLAIN: Case = Case { name: "HTTP/1.1", load: Load::Plain, access_log: false, flags: &[] };

const CASES: [Case; 8] = [
    PLAIN,
    Case { name: "HTTP/1.1 with the access log", access_log: true, ..PLAIN },
    Case { name: "HTTP/1.1 with a trace that is not recorded", flags: UNRECORDED_TRACES, ..PLAIN },
    Case { name: "HTTP/1.1 over TLS", load: Load::Tls(Protocol::Http1), ..PLAIN },
    Case { name: "HTTP/2 over TLS", load: Load::Tls(Protocol::Http2), ..PLAIN },
    Case {
        name: "HTTP/1.1 with key-auth, rate-limiting, correlation-id",
        load: Load::Plugins("key-auth, rate-limiting, correlation-id"),
        ..PLAIN
    },
    Case { name: "HTTP/1.1 with jwt", load: Load::Plugins("jwt RS256, token known"), ..PLAIN },
    Case {
        name: "HTTP/1.1 with key-auth, proxy-cache, a stored response",
        load: Load::Plugins("key-auth, proxy-cache"),
        ..PLAIN
    },
];

/// Endpoints get the context of a trace, and nothing is sent to the server.
const UNRECORDED_TRACES: &[&str] = &["--trace-otlp-endpoint", "http://127.0.0.1:9", "--trace-sampling", "0"];

/// Counts all cases and compares them with the baseline, or writes the baseline with `UPDATE=1`. Returns whether no
/// case differs.
pub async fn baseline(options: &Options) -> Result<bool> {
    let mut measured = Vec::new();
    for case in &CASES {
        let per_request = count(&options.portico, case).await?;
        println!("  {:<54} {per_request:>7}", case.name);
        measured.push((case.name, per_request));
    }
    if cfg!(not(target_arch = "x86_64")) {
        println!("not compared: the baseline is for x86-64");
        return Ok(true);
    }
    let difference = compare("instructions", "instructions per request", &measured, TOLERANCE);
    if let Err(message) = &difference {
        println!("{message}");
    }
    Ok(difference.is_ok())
}

/// Instructions per request. The difference between a run with fewer and one with more requests excludes startup
/// and handshake.
async fn count(portico: &Path, case: &Case) -> Result<u64> {
    let (fewer_requests, fewer_instructions) = run_case(portico, case, FEWER).await?;
    let (more_requests, more_instructions) = run_case(portico, case, MORE).await?;
    ensure!(
        more_requests > fewer_requests && more_instructions > fewer_instructions,
        "too few requests for a result: {fewer_requests} and {more_requests}"
    );
    Ok((more_instructions - fewer_instructions) / (more_requests - fewer_requests))
}

/// Runs a case under valgrind. Returns the numbers of requests and instructions.
async fn run_case(portico: &Path, case: &Case, requests: usize) -> Result<(u64, u64)> {
    let protocol = match case.load {
        Load::Plugins(variant) => return run_variant(portico, variant, case.access_log, requests).await,
        Load::Plain => None,
        Load::Tls(protocol) => Some(protocol),
    };
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
    let server = counted_portico(&counts_file, &Setup { flags: case.flags, ..Setup::new(portico, site) })?;
    let target = if protocol.is_some() { server.tls_address } else { server.address };
    let plan = Plan {
        tls: protocol.map(|protocol| Tls::new(HOST, protocol)).transpose()?,
        protocol: protocol.unwrap_or_default(),
        ..sequential_plan(requests, target, vec![RequestShape::get(HOST, "/")])
    };
    let (requests, counts) = run_and_count(server, &counts_file, plan).await?;
    Ok((requests, counts.total))
}

/// Percent by which a figure may differ from the baseline.
const TOLERANCE: f64 = 3.0;
const FEWER: usize = 500;
/// So many that a difference between two startups does not matter.
const MORE: usize = 6500;
