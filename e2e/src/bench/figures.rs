//! Figures: what many times come down to, tables, and what has to be known of the machine to read them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// Many times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub number: usize,
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub(super) fn of(times: &[Duration]) -> Option<Spread> {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let at = |part: usize| sorted[(sorted.len() * part / 100).min(sorted.len() - 1)];
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Some(Spread { number: sorted.len(), mean, median: at(50), p95: at(95), max })
    }

    pub(super) fn cells(&self) -> [String; 5] {
        let Spread { number, mean, median, p95, max } = self;
        [number.to_string(), ms(*mean), ms(*median), ms(*p95), ms(*max)]
    }
}

pub(super) fn ms(value: f64) -> String {
    format!("{value:.2}")
}

/// Columns as wide as they have to be, numbers to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
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

/// Load average of the last minute: how much else the machine did.
pub(super) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let first = text.split_whitespace().next().context("/proc/loadavg is empty")?;
    first.parse().with_context(|| format!("the load is `{first}`"))
}

/// Which machine, and which program this process is.
pub(super) fn environment(process: u32) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism().context("cannot count cores")?;
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor", |(_, model)| model);
    let program = fs::read_link(format!("/proc/{process}/exe")).context("Portico is gone")?;
    let mut lines = vec![
        format!("{model}, {cores} cores, load {:.2} at the beginning", load()?),
        format!("Portico, API server, database and clients share them; Portico is {}", program.display()),
    ];
    if program.components().any(|part| part.as_os_str() == "debug") {
        lines.push("That is no release: these are figures of a debug build".to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_mean_median_and_ends() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(&times).unwrap();
        assert_eq!(spread.cells(), ["100", "50.50", "51.00", "96.00", "100.00"]);
        let one = Spread::of(&times[..1]).unwrap();
        assert_eq!(one.cells(), ["1", "100.00", "100.00", "100.00", "100.00"]);
        assert!(Spread::of(&[]).is_none());
    }

    #[test]
    fn tables_stand_in_columns() {
        let rows = [vec!["1".to_owned(), "long one".to_owned()], vec!["1000".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["of", "what"], &rows), "    of      what\n     1  long one\n  1000         2\n");
    }
}
