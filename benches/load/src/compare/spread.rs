//! Median and range of several measurements.

/// Several measurements of one figure.
pub(crate) struct Spread {
    pub(crate) minimum: f64,
    pub(crate) median: f64,
    pub(crate) maximum: f64,
}

impl Spread {
    pub(crate) fn from_values(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let value = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { minimum: value(0), median: value(values.len() / 2), maximum: value(values.len().saturating_sub(1)) }
    }

    /// Formats median, minimum and maximum.
    pub(crate) fn format_with_range(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.minimum, self.maximum)
    }
}
