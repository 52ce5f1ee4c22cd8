//! Statistics, tables, and facts about the machine that readers of the results need.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// Statistics of durations, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DurationStats {
    pub number: usize,
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    pub max: f64,
}

impl DurationStats {
    /// None for an empty slice.
    pub(super) fn from_durations(times: &[Duration]) -> Option<DurationStats> {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let percentile = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Some(DurationStats { number: sorted.len(), mean, median: percentile(50), p95: percentile(95), max })
    }

    pub(super) fn cells(&self) -> [String; 5] {
        let DurationStats { number, mean, median, p95, max } = self;
        [number.to_string(), ms(*mean), ms(*median), ms(*p95), ms(*max)]
    }
}

/// Formats milliseconds.
pub(super) fn ms(value: f64) -> String {
    format!("{value:.2}")
}

/// Renders a table with right-aligned columns that are as wide as their contents.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        format!("  {}\n", padded.join("  "))
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Load average of the last minute.
pub(super) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split_whitespace().next().context("/proc/loadavg is empty")?;
    first.parse().with_context(|| format!("`{first}` in /proc/loadavg is not a number"))
}

/// Describes the machine, and the program that the process with this ID runs.
pub(super) fn environment(process: u32) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism().context("cannot count cores")?;
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor", |(_, model)| model);
    let program = fs::read_link(format!("/proc/{process}/exe")).context("Portico has ended")?;
    let mut lines = vec![
        format!("{model}, {cores} cores, load {:.2} at the start", load()?),
        format!("Portico, API server, etcd and clients share the cores; Portico is {}", program.display()),
    ];
    if program.components().any(|part| part.as_os_str() == "debug") {
        lines.push("This is a debug build, not a release build".to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_have_mean_median_and_maximum() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let statistics = DurationStats::from_durations(&times).unwrap();
        assert_eq!(statistics.cells(), ["100", "50.50", "51.00", "96.00", "100.00"]);
        let of_one_time = DurationStats::from_durations(&times[..1]).unwrap();
        assert_eq!(of_one_time.cells(), ["1", "100.00", "100.00", "100.00", "100.00"]);
        assert!(DurationStats::from_durations(&[]).is_none());
    }

    #[test]
    fn tables_are_aligned_in_columns() {
        let rows = [vec!["1".to_owned(), "long one".to_owned()], vec!["1000".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["of", "what"], &rows), "    of      what\n     1  long one\n  1000         2\n");
    }
}
