//! Cost of plugins: one route with and without them, alternating on one server, and the cost of their additional bytes
//! alone.

mod table;
mod variant;
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::table::Table;
use self::variant::{Variant, variants};
use self::wire::Wire;
use self::world::PluginBench;
use crate::compare::{exactly, run_and_count, wait_for};
use crate::plan::Plan;
use crate::process::Process;
use crate::run::run;
use crate::server::{self, Server, Setup};

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
    paced: f64,
    /// `None` if every request needs a new token, whose number is limited.
    full: Option<f64>,
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
    // First the plugin variants, then the variants that imitate their bytes.
    for imitates in [false, true] {
        let world = PluginBench::new(variants, 0, options.ingress).await?;
        let server = server::portico(options.core, &world.setup(&options.portico))?;
        wait_for(&server).await?;
        for variant in variants.iter().filter(|variant| variant.imitates() == imitates) {
            wire.observe(&world, world.target(&server), variant).await?;
        }
        wire.copy_added_fields(variants);
    }
    wire.check()?;
    Ok(wire)
}

async fn compare(options: &Options, variants: &[Variant]) -> Result<bool> {
    let new_tokens = options.rounds * (f64::from(RATE_OF_NEW) * options.seconds).ceil() as usize;
    let world = PluginBench::new(variants, new_tokens, options.ingress).await?;
    let server = server::portico(options.core, &world.setup(&options.portico))?;
    wait_for(&server).await?;
    let mut table = Table::new(variants);
    for round in 0..options.rounds {
        // Rotates and reverses the order, so that no variant always follows the same one.
        let mut order: Vec<usize> = (0..variants.len()).collect();
        order.rotate_left(round / 2 % variants.len());
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let figures = measure(options, &world, &server, &variants[number]).await?;
            table.add(number, figures);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    println!("{table}");
    Ok(table.is_clean())
}

async fn measure(options: &Options, world: &PluginBench, server: &Server, variant: &Variant) -> Result<Figures> {
    let process = server.process();
    let duration = Duration::from_secs_f64(options.seconds);
    let rate = if variant.needs_new_tokens() { RATE_OF_NEW } else { RATE };
    let warm = Plan::new(world.target(server), world.shapes(variant, None), WARM, CONNECTIONS);
    // Warms up connections and caches.
    run(Plan { rate: Some(rate), ..warm.clone() }).await;
    let requests = (f64::from(rate) * options.seconds).ceil() as usize;
    let plan = Plan { duration, shapes: world.shapes(variant, Some(requests)), ..warm };
    let (paced, mut bad) = cpu(process, Plan { rate: Some(rate), ..plan.clone() }).await?;
    let full = if variant.needs_new_tokens() {
        None
    } else {
        let (full, bad_ones) = cpu(process, plan).await?;
        bad += bad_ones;
        Some(full)
    };
    Ok(Figures { paced, full, bad })
}

/// CPU microseconds per request, and the number of failed requests.
async fn cpu(process: Process, plan: Plan) -> Result<(f64, u64)> {
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

/// Runs each variant with fewer and with more requests; the difference excludes startup and shutdown.
async fn count(options: &Options, variants: &[Variant]) -> Result<bool> {
    println!("\nInstructions per request, without those of the kernel\n  {:<42} {:>9} {:>9}", "", "", "beyond plain");
    let mut plain = None;
    for variant in variants {
        let (few, little) = count_for(options, variants, variant, FEW).await?;
        let (many, much) = count_for(options, variants, variant, MANY).await?;
        ensure!(many > few && much > little, "too few requests for a result: {few} and {many}");
        let each = (much - little) as f64 / (many - few) as f64;
        let plain = *plain.get_or_insert(each);
        println!("  {:<42} {each:>9.0} {:>9.0} {:>8.3}", variant.name, each - plain, each / plain);
    }
    Ok(true)
}

async fn count_for(options: &Options, variants: &[Variant], variant: &Variant, requests: usize) -> Result<(u64, u64)> {
    let new_tokens = if variant.needs_new_tokens() { MANY } else { 0 };
    let world = PluginBench::new(variants, new_tokens, options.ingress).await?;
    send_counted(&world, world.setup(&options.portico), variant, requests).await
}

/// Sends requests to a route with the chain of plugins. Returns the number of requests and instructions.
pub(crate) async fn run_chain(portico: &Path, access_log: bool, requests: usize) -> Result<(u64, u64)> {
    let variants: Vec<Variant> = variants(false).into_iter().filter(Variant::is_chain).collect();
    let chain = variants.first().context("there is a chain")?;
    let world = PluginBench::new(&variants, 0, false).await?;
    send_counted(&world, Setup { access_log, ..world.setup(portico) }, chain, requests).await
}

async fn send_counted(world: &PluginBench, setup: Setup<'_>, variant: &Variant, requests: usize) -> Result<(u64, u64)> {
    let counts = world.folder().join("counts");
    let server = server::counted_portico(&counts, &setup)?;
    let plan = exactly(requests, world.target(&server), world.shapes(variant, Some(requests)));
    let (requests, counts) = run_and_count(server, &counts, plan).await?;
    Ok((requests, counts.total))
}

/// Requests per second, well below the capacity of one core.
const RATE: u32 = 5000;
/// Rate with new tokens, whose signing takes longer than their verification by the server.
const RATE_OF_NEW: u32 = 500;
const CONNECTIONS: usize = 32;
const WARM: Duration = Duration::from_millis(200);
const FEW: usize = 500;
const MANY: usize = 2500;
