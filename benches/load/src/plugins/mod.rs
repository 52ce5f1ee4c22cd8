//! Measures the cost of plugins: routes with and without them, alternating on one server, and routes that only have the
//! bytes that the plugins add.

mod plugin_bench;
mod table;
mod variant;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::plugin_bench::PluginBench;
use self::table::Table;
use self::variant::{Variant, cached, variants};
use self::wire::Wire;
use crate::compare::{run_and_count, sequential_plan, wait_for};
use crate::plan::Plan;
use crate::process::Process;
use crate::run::run;
use crate::server::Server;
use crate::server::portico::{Setup, counted_portico, portico};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The core for Portico; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Number of rounds. More and shorter rounds than in a comparison of servers, because the differences are smaller.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Run only variants whose name contains this, and the plain route.
    #[arg(long)]
    case: Option<String>,
    /// Also measure each plugin of the chain alone.
    #[arg(long)]
    each: bool,
    /// Use Ingresses instead of HTTPRoutes, which have Kong's request handling even without plugins.
    #[arg(long)]
    ingress: bool,
    /// Count instructions with valgrind instead of measuring time.
    #[arg(long)]
    instructions: bool,
}

/// Figures of one variant in one round, in microseconds of CPU time per request.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// At a fixed rate.
    paced: f64,
    /// At full speed. `None` if every request needs a new token, whose number is limited.
    full: Option<f64>,
    /// Failed and wrong responses.
    bad: u64,
}

/// Returns whether all responses were correct.
pub async fn plugins(options: &Options) -> Result<bool> {
    let mut variants = variants(options.each);
    // Ingresses have no filters.
    variants.retain(|variant| !options.ingress || variant.filters().is_none());
    // The cost of bytes is measured with the bytes that the chain was observed to add.
    let wire = observe_wire(options, &mut variants).await?;
    print!("{wire}");
    if let Some(word) = &options.case {
        variants.retain(|variant| variant.is_plain() || variant.name.contains(word.as_str()));
    }
    if options.instructions { count(options, &variants).await } else { compare(options, &variants).await }
}

/// Sends one request of each variant and records the bytes on both sides of the proxy.
async fn observe_wire(options: &Options, variants: &mut [Variant]) -> Result<Wire> {
    let mut wire = Wire::default();
    // First the variants with plugins, then the variants that imitate the bytes that plugins add.
    for imitates in [false, true] {
        let bench = PluginBench::new(variants, 0, options.ingress).await?;
        let server = portico(&[options.core], &bench.setup(&options.portico))?;
        wait_for(&server).await?;
        for variant in variants.iter().filter(|variant| variant.imitates() == imitates) {
            wire.observe(&bench, bench.target(&server), variant).await?;
        }
        wire.copy_added_fields(variants);
    }
    wire.check()?;
    Ok(wire)
}

async fn compare(options: &Options, variants: &[Variant]) -> Result<bool> {
    let new_tokens = options.rounds * (f64::from(NEW_TOKEN_RATE) * options.seconds).ceil() as usize;
    let bench = PluginBench::new(variants, new_tokens, options.ingress).await?;
    let server = portico(&[options.core], &bench.setup(&options.portico))?;
    wait_for(&server).await?;
    let mut table = Table::new(variants);
    for round in 0..options.rounds {
        // Rotates and reverses the order, so that no variant always follows the same one.
        let mut order: Vec<usize> = (0..variants.len()).collect();
        order.rotate_left(round / 2 % variants.len());
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let figures = measure(options, &bench, &server, &variants[index]).await?;
            table.add(index, figures);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    println!("{table}");
    Ok(table.is_clean())
}

async fn measure(options: &Options, bench: &PluginBench, server: &Server, variant: &Variant) -> Result<Figures> {
    let process = server.process();
    let duration = Duration::from_secs_f64(options.seconds);
    let rate = if variant.needs_new_tokens() { NEW_TOKEN_RATE } else { RATE };
    let warm_up = Plan::new(bench.target(server), bench.shapes(variant, None), WARM_UP, CONNECTIONS);
    // Warms up connections and caches.
    run(Plan { rate: Some(rate), ..warm_up.clone() }).await;
    let requests = (f64::from(rate) * options.seconds).ceil() as usize;
    let plan = Plan { duration, shapes: bench.shapes(variant, Some(requests)), ..warm_up };
    let (paced, mut bad) = cpu_per_request(process, Plan { rate: Some(rate), ..plan.clone() }).await?;
    let full = if variant.needs_new_tokens() {
        None
    } else {
        let (full, bad_at_full_speed) = cpu_per_request(process, plan).await?;
        bad += bad_at_full_speed;
        Some(full)
    };
    Ok(Figures { paced, full, bad })
}

/// Runs the plan. Returns the CPU time of the server per request in microseconds, and the number of failed and wrong
/// responses.
async fn cpu_per_request(process: Process, plan: Plan) -> Result<(f64, u64)> {
    let before = process.threads()?;
    let report = run(plan).await;
    let spent = process.cpu_since(&before)?;
    let bad = report.failed + report.wrong;
    if bad > 0 {
        print!("{report}");
    }
    ensure!(report.good > 0 && spent > Duration::ZERO, "no request was completed:\n{report}");
    Ok((spent.as_secs_f64() * 1e6 / report.good as f64, bad))
}

/// Prints instructions per request of each variant. The difference between a run with fewer and one with more requests
/// excludes startup and shutdown.
async fn count(options: &Options, variants: &[Variant]) -> Result<bool> {
    println!("\nInstructions per request, without those of the kernel\n  {:<42} {:>9} {:>9}", "", "", "beyond plain");
    let mut plain = None;
    for variant in variants {
        let (fewer_requests, fewer_instructions) = count_for(options, variants, variant, FEWER).await?;
        let (more_requests, more_instructions) = count_for(options, variants, variant, MORE).await?;
        ensure!(
            more_requests > fewer_requests && more_instructions > fewer_instructions,
            "too few requests for a result: {fewer_requests} and {more_requests}"
        );
        let per_request = (more_instructions - fewer_instructions) as f64 / (more_requests - fewer_requests) as f64;
        let plain = *plain.get_or_insert(per_request);
        println!("  {:<42} {per_request:>9.0} {:>9.0} {:>8.3}", variant.name, per_request - plain, per_request / plain);
    }
    Ok(true)
}

/// Runs one variant under valgrind. Returns the numbers of requests and instructions.
async fn count_for(options: &Options, variants: &[Variant], variant: &Variant, requests: usize) -> Result<(u64, u64)> {
    let new_tokens = if variant.needs_new_tokens() { MORE } else { 0 };
    let bench = PluginBench::new(variants, new_tokens, options.ingress).await?;
    send_counted(&bench, bench.setup(&options.portico), variant, requests).await
}

/// Sends requests to the route of one variant under valgrind. Returns the numbers of requests and instructions.
pub(crate) async fn run_variant(portico: &Path, name: &str, access_log: bool, requests: usize) -> Result<(u64, u64)> {
    let variants: Vec<Variant> =
        variants(false).into_iter().chain([cached()]).filter(|variant| variant.name == name).collect();
    let variant = variants.first().with_context(|| format!("no variant is called {name}"))?;
    let bench = PluginBench::new(&variants, 0, false).await?;
    let mut setup = bench.setup(portico);
    setup.site.access_log = access_log;
    send_counted(&bench, setup, variant, requests).await
}

async fn send_counted(bench: &PluginBench, setup: Setup<'_>, variant: &Variant, requests: usize) -> Result<(u64, u64)> {
    let counts_file = bench.folder().join("counts");
    let server = counted_portico(&counts_file, &setup)?;
    let plan = sequential_plan(requests, bench.target(&server), bench.shapes(variant, Some(requests)));
    let (requests, counts) = run_and_count(server, &counts_file, plan).await?;
    Ok((requests, counts.total))
}

/// Requests per second, well below the capacity of one core.
const RATE: u32 = 5000;
/// Rate with new tokens, whose signing takes longer than their verification by the server.
const NEW_TOKEN_RATE: u32 = 500;
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_millis(200);
const FEWER: usize = 500;
const MORE: usize = 2500;
