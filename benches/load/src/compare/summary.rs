//! Figures of all rounds and their summary.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, Spread};
use crate::server::Server;

/// Figures of one case, server and round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Microseconds of CPU time per request at the fixed rate.
    pub(crate) cpu_paced: f64,
    /// Microseconds of CPU time per request at full speed, where one wake-up handles several requests.
    pub(crate) cpu_full: f64,
    /// Requests per second at full speed.
    pub(crate) per_second: f64,
    /// Used share of a core at full speed, for the server and for the load generator. If the load generator is at 1,
    /// the server is not saturated.
    pub(crate) busy: f64,
    pub(crate) load_busy: f64,
    /// Latencies at the fixed rate.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Resident memory in MiB.
    pub(crate) resident: f64,
    /// Failed and wrong responses.
    pub(crate) bad: u64,
}

pub(crate) struct Summary {
    /// Each case with the figures of its rounds, by server.
    cases: Vec<(&'static Case, Vec<Vec<Figures>>)>,
    servers: Vec<&'static str>,
}

impl Summary {
    pub(crate) fn new(cases: &[&'static Case], servers: &[Server]) -> Self {
        Summary {
            cases: cases.iter().map(|case| (*case, vec![Vec::new(); servers.len()])).collect(),
            servers: servers.iter().map(|server| server.name).collect(),
        }
    }

    pub(crate) fn add(&mut self, case: usize, server: usize, figures: Figures) {
        self.cases[case].1[server].push(figures);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.cases.iter().flat_map(|(_, servers)| servers.iter().flatten()).all(|figures| figures.bad == 0)
    }

    pub(crate) fn to_json(&self) -> Value {
        let cases = self.cases.iter().map(|(case, servers)| {
            let servers: serde_json::Map<String, Value> = self
                .servers
                .iter()
                .zip(servers)
                .map(|(server, rounds)| ((*server).to_owned(), rounds.iter().copied().map(Figures::to_json).collect()))
                .collect();
            json!({ "case": case.name, "rounds": servers })
        });
        cases.collect()
    }
}

impl Figures {
    fn to_json(self) -> Value {
        json!({
            "cpu_us": self.cpu_paced,
            "cpu_us_full_speed": self.cpu_full,
            "requests_per_second": self.per_second,
            "busy": self.busy,
            "load_busy": self.load_busy,
            "p50_us": self.p50.as_micros() as u64,
            "p99_us": self.p99.as_micros() as u64,
            "resident_mib": self.resident,
            "bad": self.bad,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, servers) in &self.cases {
            writeln!(f, "\n{}", case.name)?;
            writeln!(
                f,
                "  {:<10} {:>20} {:>20} {:>22} {:>11} {:>9} {:>9} {:>8} {:>4}",
                "", "CPU µs/request", "at full speed", "requests/s", "busy/load", "p50 µs", "p99 µs", "RSS MiB", "bad"
            )?;
            for (server, rounds) in self.servers.iter().zip(servers) {
                let spread = |figure: fn(&Figures) -> f64| Spread::from_values(rounds.iter().map(figure));
                let bad: u64 = rounds.iter().map(|figures| figures.bad).sum();
                writeln!(
                    f,
                    "  {server:<10} {:>20} {:>20} {:>22} {:>5.2}/{:<5.2} {:>9.0} {:>9.0} {:>8.1} {bad:>4}",
                    spread(|figures| figures.cpu_paced).format_with_range(1),
                    spread(|figures| figures.cpu_full).format_with_range(1),
                    spread(|figures| figures.per_second).format_with_range(0),
                    spread(|figures| figures.busy).median,
                    spread(|figures| figures.load_busy).median,
                    spread(|figures| figures.p50.as_secs_f64() * 1e6).median,
                    spread(|figures| figures.p99.as_secs_f64() * 1e6).median,
                    spread(|figures| figures.resident).median,
                )?;
            }
            if let [portico, nginx] = &servers[..] {
                let ratio = |figure: fn(&Figures) -> f64| {
                    Spread::from_values(
                        portico.iter().zip(nginx).map(|(portico, nginx)| figure(portico) / figure(nginx)),
                    )
                };
                writeln!(
                    f,
                    "  {:<10} {:>20} {:>20} {:>22}",
                    "ratio",
                    ratio(|figures| figures.cpu_paced).format_with_range(2),
                    ratio(|figures| figures.cpu_full).format_with_range(2),
                    ratio(|figures| figures.per_second).format_with_range(2)
                )?;
            }
            if case.measures_handshakes() {
                // Each connection has one request, so this is the cost of a useful handshake.
                let per_second =
                    |rounds: &[Figures]| Spread::from_values(rounds.iter().map(|figures| 1e6 / figures.cpu_full));
                for (server, rounds) in self.servers.iter().zip(servers) {
                    writeln!(
                        f,
                        "  {server:<10} {:>20} handshakes per CPU second, at full speed",
                        per_second(rounds).format_with_range(0)
                    )?;
                }
            }
        }
        writeln!(f, "\nMedian of the rounds, with minimum and maximum; the ratio is computed within each round.")
    }
}
