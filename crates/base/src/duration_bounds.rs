//! The buckets of histograms of request durations. Rules of objectives must name the same ones.

/// Upper bounds in microseconds, from cached responses to the point where users give up.
pub const DURATION_BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
