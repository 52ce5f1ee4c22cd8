//! The result as text for a terminal and as Markdown.

use std::fmt::Write as _;

use super::Spread;
use super::cases::{Case, Peers};
use super::figures::Figures;
use super::ratio::{PORTICO, ratio, worse_cpu_ratio};
use super::rounds::Round;

type CaseResult<'a> = (&'a Case, &'a [Round]);

/// Portico and all peers, in the order of the tables.
pub(crate) const SERVERS: [&str; 6] = [PORTICO, "nginx", "haproxy", "envoy", "traefik", "caddy"];
/// The figures of a server that cannot serve a case.
const NOT_SUPPORTED: &str = "not supported";

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
        "  {:<22} {:>20} {:>20} {:>22} {:>11} {:>8} {:>4}",
        "", "CPU µs/request", "at full speed", "requests/s", "busy/load", "RSS MiB", "bad"
    )?;
    let servers = servers(case, rounds);
    for server in &servers {
        let spread = |figure: fn(&Figures) -> f64| figures_of(rounds, server, figure);
        writeln!(
            text,
            "  {server:<22} {:>20} {:>20} {:>22} {:>5.2}/{:<5.2} {:>8.1} {:>4.0}",
            spread(|figures| figures.cpu_paced).format_with_range(1),
            spread(|figures| figures.cpu_full).format_with_range(1),
            spread(|figures| figures.per_second).format_with_range(0),
            spread(|figures| figures.busy).median,
            spread(|figures| figures.load_busy).median,
            spread(|figures| figures.resident).median,
            spread(|figures| figures.bad as f64).maximum,
        )?;
    }
    for server in case.unsupported {
        writeln!(text, "  {server:<22} {NOT_SUPPORTED:>20}")?;
    }
    for peer in servers.iter().copied().filter(|server| *server != PORTICO) {
        let ratio = |figure: fn(&Figures) -> f64| {
            ratio(rounds, Peers::Named(peer), figure).map(|spread| spread.format_with_range(2)).unwrap_or_default()
        };
        writeln!(
            text,
            "  {:<22} {:>20} {:>20} {:>22}",
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
                "  {server:<22} latency in µs at half load: p50 {}, p99 {}, p99.9 {}",
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
            writeln!(text, "  {server:<22} {per_second:>20} handshakes per CPU second, at full speed")?;
        }
    }
    Ok(())
}

/// A row for each case: CPU time of each server, the reference with the ratio to it, the ratio to the best peer, and
/// the targets.
pub(crate) fn markdown(results: &[CaseResult<'_>]) -> String {
    let is_in_any = |server: &&str| results.iter().any(|(_, rounds)| is_measured(rounds, server));
    let servers: Vec<_> = SERVERS.into_iter().filter(is_in_any).collect();
    let columns: String = servers.iter().map(|server| format!(" {server} |")).collect();
    let mut text = format!("| case |{columns} reference | to the best peer | target | |\n");
    text += &format!("| --- |{} --- | --- | --- | --- |\n", " --- |".repeat(servers.len()));
    for (case, rounds) in results {
        let cell = |server: &&str| {
            let cpu = if case.is_supported_by(server) { cpu(rounds, server) } else { NOT_SUPPORTED.to_owned() };
            format!(" {cpu} |")
        };
        let cells: String = servers.iter().map(cell).collect();
        let reference = case.servers.reference.map(|reference| {
            let to_reference = worse_cpu_ratio(rounds, Peers::Named(reference.name));
            let to_reference = to_reference.map(|spread| spread.format_with_range(2)).unwrap_or_default();
            format!("{}: {}; ratio {to_reference}", reference.name, cpu(rounds, reference.name))
        });
        let reference = reference.unwrap_or_default();
        let best = worse_cpu_ratio(rounds, Peers::Best).map(|spread| spread.format_with_range(2)).unwrap_or_default();
        let targets: Vec<_> = case.targets.iter().map(|target| target.name()).collect();
        let met = case.targets.iter().filter_map(|target| target.is_met(rounds)).reduce(|all, met| all && met);
        let verdict = met.map_or("", |met| if met { "reached" } else { "missed" });
        let targets = targets.join(", ");
        text += &format!("| {} |{cells} {reference} | {best} | {targets} | {verdict} |\n", case.name);
    }
    text
}

/// CPU time at the fixed rate and at full speed, or nothing if the server was not measured.
fn cpu(rounds: &[Round], server: &str) -> String {
    if !is_measured(rounds, server) {
        return String::new();
    }
    let paced = figures_of(rounds, server, |figures| figures.cpu_paced).median;
    let full = figures_of(rounds, server, |figures| figures.cpu_full).median;
    format!("{paced:.1}, {full:.1}")
}

/// The measured servers of a case, in the order of the table: Portico, its reference, and the peers.
fn servers(case: &Case, rounds: &[Round]) -> Vec<&'static str> {
    let mut servers = vec![PORTICO];
    servers.extend(case.servers.reference.map(|reference| reference.name));
    servers.extend(SERVERS.into_iter().skip(1));
    servers.retain(|server| is_measured(rounds, server));
    servers
}

fn is_measured(rounds: &[Round], server: &str) -> bool {
    rounds.iter().any(|round| round.contains_key(server))
}

fn figures_of(rounds: &[Round], server: &str, figure: fn(&Figures) -> f64) -> Spread {
    Spread::from_values(rounds.iter().filter_map(|round| round.get(server)).map(figure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cases::selected;

    fn figures(cpu: f64) -> Figures {
        Figures { cpu_paced: cpu, cpu_full: cpu, per_second: 1e6 / cpu, ..Figures::default() }
    }

    fn round(servers: &[(&str, f64)]) -> Round {
        servers.iter().map(|(name, cpu)| ((*name).to_owned(), figures(*cpu))).collect()
    }

    fn case(word: &str) -> &'static Case {
        selected(Some(word), false)[0]
    }

    #[test]
    fn a_case_with_a_reference_has_the_ratio_and_the_verdict() {
        let plain = [round(&[("portico", 10.0), ("nginx", 20.0), ("envoy", 40.0)])];
        let routes = [round(&[("portico", 10.5), ("nginx", 21.0), ("envoy", 42.0), ("portico, 1 route", 10.0)])];
        let plugins = [round(&[("portico", 16.0), ("portico, same fields", 10.0)])];
        let results = [
            (case("HTTPS, 64 bytes"), &plain[..]),
            (case("10,000 routes"), &routes[..]),
            (case("8 plugins"), &plugins[..]),
        ];
        let one = |ratio: &str| format!("{ratio} ({ratio}–{ratio})");
        let (half, routes, plugins) = (one("0.50"), one("1.05"), one("1.60"));
        assert_eq!(
            markdown(&results),
            format!(
                "\
| case | portico | nginx | envoy | reference | to the best peer | target | |
| --- | --- | --- | --- | --- | --- | --- | --- |
| HTTPS, 64 bytes | 10.0, 10.0 | 20.0, 20.0 | 40.0, 40.0 |  | {half} | ≤ 0.90 × the best | reached |
| HTTP/1.1, 64 bytes, 10,000 routes | 10.5, 10.5 | 21.0, 21.0 | 42.0, 42.0 | portico, 1 route: 10.0, 10.0; ratio {routes} \
| {half} | ≤ 1.03 × portico, 1 route | missed |
| HTTP/1.1, 64 bytes, 8 plugins | 16.0, 16.0 |  |  | portico, same fields: 10.0, 10.0; ratio {plugins} |  |  |  |
"
            )
        );
        let text = text(&results);
        let verdict = "target ≤ 1.03 × portico, 1 route: 1.05 (1.05–1.05) missed";
        for line in [verdict, "/ portico, 1 route", "/ portico, same fields"] {
            assert!(text.contains(&format!("\n  {line}")), "{line} is missing in {text}");
        }
    }

    #[test]
    fn servers_that_do_not_support_a_case_are_named() {
        let plain = case("HTTP/1.1, 64 bytes");
        let first = Case { name: "first", targets: &[], unsupported: &["nginx"], ..*plain };
        let some = [round(&[("portico", 10.0), ("haproxy", 10.0)])];
        let all = [round(&[("portico", 10.0), ("nginx", 10.0), ("haproxy", 10.0)])];
        let results = [(&first, some.as_slice()), (plain, all.as_slice())];
        let markdown = markdown(&results);
        assert!(markdown.starts_with("| case | portico | nginx | haproxy | reference |"), "{markdown}");
        let row = "| first | 10.0, 10.0 | not supported | 10.0, 10.0 |  | 1.00 (1.00–1.00) |  |  |";
        assert!(markdown.lines().any(|line| line == row), "{markdown}");
        let text = text(&results[..1]);
        assert!(text.lines().any(|line| line.split_whitespace().eq(["nginx", "not", "supported"])), "{text}");
        assert!(!text.contains("/ nginx"), "{text}");
    }
}
