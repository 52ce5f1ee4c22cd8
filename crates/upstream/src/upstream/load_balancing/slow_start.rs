//! Slow start: the weight of an endpoint grows after it has become available.

use crate::upstream::settings::SlowStart;

/// The factor of the weight of an endpoint that became available `age` milliseconds ago.
pub(super) fn weight_factor(settings: &SlowStart, age: u64) -> f32 {
    let window = u64::try_from(settings.window.as_millis()).unwrap_or(u64::MAX);
    if age >= window {
        return 1.0;
    }
    let part = age as f32 / window as f32;
    let exponent = 1000.0 / settings.aggression.max(1) as f32;
    part.powf(exponent).max(f32::from(settings.min_weight_percent) / 100.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn factor_grows_to_one() {
        let settings = |min_weight_percent, aggression| SlowStart {
            window: Duration::from_secs(30),
            min_weight_percent,
            aggression,
        };
        for (settings, age, expected) in [
            (settings(10, 1000), 0, 0.1),
            (settings(10, 1000), 2_000, 0.1),
            (settings(10, 1000), 15_000, 0.5),
            (settings(10, 1000), 30_000, 1.0),
            (settings(10, 1000), u64::MAX, 1.0),
            (settings(0, 2000), 7_500, 0.5),
            (settings(0, 500), 15_000, 0.25),
            (settings(200, 0), 1, 1.0),
            (SlowStart { window: Duration::ZERO, ..settings(10, 1000) }, 0, 1.0),
        ] {
            let factor = weight_factor(&settings, age);
            assert!((factor - expected).abs() < 1e-3, "{settings:?} after {age} ms: {factor}");
        }
    }
}
