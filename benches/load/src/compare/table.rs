//! The result as text for a terminal and as Markdown.

use std::fmt::Write as _;

use super::Spread;
use super::cases::{Case, Peers};
use super::figures::Figures;
use super::ratio::{PORTICO, ratio, worse_cpu_ratio};
use super::rounds::Round;

type CaseResult<'a> = (&'a Case, &'a [Round]);

/// Each case with all figures.
pub(crate) fn text(results: &[CaseResult<'_>]) -> String {
    let mut text = String::new();
    for (case, rounds) in results {
        // Writing to a String succeeds.
        write_case(&mut text, case, rounds).ok();
    }
    text + "\nMedian of the rounds, with minimum and maximum; ratios are computed within each round.\n"
}

fn write_case(text: &mut String, case: &Case, rounds: &[Round]) -> std::fmt::Result {
    writeln!(text, "\n{}", case.name)?;
    writeln!(
        text,
        "  {:<10} {:>20} {:>20} {:>22} {:>11} {:>8} {:>4}",
        "", "CPU µs/request", "at full speed", "requests/s", "busy/load", "RSS MiB", "bad"
    )?;
    let servers = servers(rounds);
    for server in &servers {
        let spread = |figure: fn(&Figures) -> f64| figures_of(rounds, server, figure);
        writeln!(
            text,
            "  {server:<10} {:>20} {:>20} {:>22} {:>5.2}/{:<5.2} {:>8.1} {:>4.0}",
            spread(|figures| figures.cpu_paced).format_with_range(1),
            spread(|figures| figures.cpu_full).format_with_range(1),
            spread(|figures| figures.per_second).format_with_range(0),
            spread(|figures| figures.busy).median,
            spread(|figures| figures.load_busy).median,
            spread(|figures| figures.resident).median,
            spread(|figures| figures.bad as f64).maximum,
        )?;
    }
    for peer in servers.iter().copied().filter(|server| *server != PORTICO) {
        let ratio = |figure: fn(&Figures) -> f64| {
            ratio(rounds, Peers::Named(peer), figure).map(|spread| spread.format_with_range(2)).unwrap_or_default()
        };
        writeln!(
            text,
            "  {:<10} {:>20} {:>20} {:>22}",
            format!("/ {peer}"),
            ratio(|figures| figures.cpu_paced),
            ratio(|figures| figures.cpu_full),
            ratio(|figures| figures.per_second)
        )?;
    }
    for target in case.targets {
        if let (Some(spread), Some(is_met)) = (worse_cpu_ratio(rounds, target.peers), target.is_met(rounds)) {
            let verdict = if is_met { "reached" } else { "missed" };
            writeln!(text, "  target {}: {} {verdict}", target.name(), spread.format_with_range(2))?;
        }
    }
    if case.at_half_load {
        for server in &servers {
            let spread = |figure: fn(&Figures) -> f64| figures_of(rounds, server, figure).format_with_range(0);
            writeln!(
                text,
                "  {server:<10} latency in µs at half load: p50 {}, p99 {}, p99.9 {}",
                spread(|figures| figures.latency.map_or(f64::NAN, |latency| latency.p50)),
                spread(|figures| figures.latency.map_or(f64::NAN, |latency| latency.p99)),
                spread(|figures| figures.latency.map_or(f64::NAN, |latency| latency.p999)),
            )?;
        }
    }
    if case.measures_handshakes() {
        // Each connection has one request, so this is the cost of a useful handshake.
        for server in &servers {
            let per_second = figures_of(rounds, server, |figures| 1e6 / figures.cpu_full).format_with_range(0);
            writeln!(text, "  {server:<10} {per_second:>20} handshakes per CPU second, at full speed")?;
        }
    }
    Ok(())
}

/// A row for each case: CPU time of each server, the ratio to the best peer, and the targets.
pub(crate) fn markdown(results: &[CaseResult<'_>]) -> String {
    let servers = results.first().map(|(_, rounds)| servers(rounds)).unwrap_or_default();
    let columns: String = servers.iter().map(|server| format!(" {server} |")).collect();
    let mut text = format!("| case |{columns} to the best peer | target | |\n");
    text += &format!("| --- |{} --- | --- | --- |\n", " --- |".repeat(servers.len()));
    for (case, rounds) in results {
        let cpu = |server: &&str| {
            let paced = figures_of(rounds, server, |figures| figures.cpu_paced).median;
            let full = figures_of(rounds, server, |figures| figures.cpu_full).median;
            format!(" {paced:.1}, {full:.1} |")
        };
        let cells: String = servers.iter().map(cpu).collect();
        let best = worse_cpu_ratio(rounds, Peers::Best).map(|spread| spread.format_with_range(2)).unwrap_or_default();
        let targets: Vec<_> = case.targets.iter().map(|target| target.name()).collect();
        let met = case.targets.iter().filter_map(|target| target.is_met(rounds)).reduce(|all, met| all && met);
        let verdict = met.map_or("", |met| if met { "reached" } else { "missed" });
        text += &format!("| {} |{cells} {best} | {} | {verdict} |\n", case.name, targets.join(", "));
    }
    text
}

/// The measured servers, in the order of the table.
fn servers(rounds: &[Round]) -> Vec<&'static str> {
    let is_measured = |server: &&str| rounds.iter().any(|round| round.contains_key(*server));
    [PORTICO, "nginx", "haproxy", "envoy"].into_iter().filter(is_measured).collect()
}

fn figures_of(rounds: &[Round], server: &str, figure: fn(&Figures) -> f64) -> Spread {
    Spread::from_values(rounds.iter().filter_map(|round| round.get(server)).map(figure))
}
