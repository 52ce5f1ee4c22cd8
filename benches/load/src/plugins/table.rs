//! The table of results: figures of all rounds, compared with the plain route and with routes that imitate the chain.

use std::fmt;

use super::Figures;
use super::variant::Variant;
use crate::compare::Spread;

pub(super) struct Table<'v> {
    rows: Vec<(&'v Variant, Vec<Figures>)>,
}

impl<'v> Table<'v> {
    pub(super) fn new(variants: &'v [Variant]) -> Self {
        Table { rows: variants.iter().map(|variant| (variant, Vec::new())).collect() }
    }

    pub(super) fn add(&mut self, variant: usize, figures: Figures) {
        self.rows[variant].1.push(figures);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.rows.iter().flat_map(|(_, rounds)| rounds).all(|figures| figures.bad == 0)
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write_header = |f: &mut fmt::Formatter<'_>, title: &str| {
            writeln!(f, "\n{title}\n  {:<42} {:>22} {:>22} {:>4}", "", "at a fixed rate", "at full speed", "bad")
        };
        write_header(f, "CPU µs/request")?;
        for (variant, rounds) in &self.rows {
            let paced = Spread::from_values(rounds.iter().map(|figures| figures.paced)).format_with_range(1);
            let full: Vec<f64> = rounds.iter().filter_map(|figures| figures.full).collect();
            let full = if full.is_empty() {
                "-".to_owned()
            } else {
                Spread::from_values(full.into_iter()).format_with_range(1)
            };
            let bad: u64 = rounds.iter().map(|figures| figures.bad).sum();
            writeln!(f, "  {:<42} {paced:>22} {full:>22} {bad:>4}", variant.name)?;
        }
        let row_of = |matches: fn(&Variant) -> bool| self.rows.iter().find(move |(variant, _)| matches(variant));
        for (title, base, compared) in [
            ("Ratio to plain", row_of(Variant::is_plain), self.rows.iter().collect::<Vec<_>>()),
            (
                "Ratio to plain with the fields sent by client and endpoint",
                row_of(Variant::uses_verbose_backend),
                row_of(Variant::is_chain).into_iter().collect(),
            ),
            (
                "Ratio to plain with the fields added by filters",
                row_of(|variant| variant.filters().is_some()),
                row_of(Variant::is_chain).into_iter().collect(),
            ),
        ] {
            let Some((base, base_rounds)) = base else { continue };
            writeln!(f, "\n{title}")?;
            for (variant, rounds) in compared.into_iter().filter(|(variant, _)| variant.name != base.name) {
                let pairs = || rounds.iter().zip(base_rounds);
                let paced =
                    Spread::from_values(pairs().map(|(figures, base)| figures.paced / base.paced)).format_with_range(3);
                let full: Vec<f64> = pairs().filter_map(|(figures, base)| Some(figures.full? / base.full?)).collect();
                let full = if full.is_empty() {
                    "-".to_owned()
                } else {
                    Spread::from_values(full.into_iter()).format_with_range(3)
                };
                writeln!(f, "  {:<42} {paced:>22} {full:>22}", variant.name)?;
            }
        }
        writeln!(f, "\nMedian of the rounds, with minimum and maximum; ratios are computed within each round.")
    }
}
