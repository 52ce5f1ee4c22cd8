//! Figures of all rounds, compared with the plain route and with the route with the same bytes.

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
        let head = |f: &mut fmt::Formatter<'_>, title: &str| {
            writeln!(f, "\n{title}\n  {:<42} {:>22} {:>22} {:>4}", "", "at a fixed rate", "at full speed", "bad")
        };
        head(f, "CPU µs/request")?;
        for (variant, rounds) in &self.rows {
            let paced = Spread::from_values(rounds.iter().map(|figures| figures.paced)).show(1);
            let full: Vec<f64> = rounds.iter().filter_map(|figures| figures.full).collect();
            let full = if full.is_empty() { "-".to_owned() } else { Spread::from_values(full.into_iter()).show(1) };
            let bad: u64 = rounds.iter().map(|figures| figures.bad).sum();
            writeln!(f, "  {:<42} {paced:>22} {full:>22} {bad:>4}", variant.name)?;
        }
        let chosen = |is: fn(&Variant) -> bool| self.rows.iter().find(move |(variant, _)| is(variant));
        for (title, base, compared) in [
            ("Ratio to plain", chosen(Variant::is_plain), self.rows.iter().collect::<Vec<_>>()),
            (
                "Ratio to plain with the same bytes sent to it",
                chosen(Variant::has_own_backend),
                chosen(Variant::is_chain).into_iter().collect(),
            ),
            (
                "Ratio to plain with the same bytes written by filters",
                chosen(|variant| variant.filters().is_some()),
                chosen(Variant::is_chain).into_iter().collect(),
            ),
        ] {
            let Some((base, base_rounds)) = base else { continue };
            writeln!(f, "\n{title}")?;
            for (variant, rounds) in compared.into_iter().filter(|(variant, _)| variant.name != base.name) {
                let both = || rounds.iter().zip(base_rounds);
                let paced = Spread::from_values(both().map(|(one, other)| one.paced / other.paced)).show(3);
                let full: Vec<f64> = both().filter_map(|(one, other)| Some(one.full? / other.full?)).collect();
                let full = if full.is_empty() { "-".to_owned() } else { Spread::from_values(full.into_iter()).show(3) };
                writeln!(f, "  {:<42} {paced:>22} {full:>22}", variant.name)?;
            }
        }
        writeln!(f, "\nMedian of the rounds, with minimum and maximum; ratios are computed within each round.")
    }
}
