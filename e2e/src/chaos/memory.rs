//! Samples of the resident memory of the replicas.

use std::time::Duration;

use crate::bench::process_usage;

/// Resident memory in MiB, each second; None while a replica is not running.
#[derive(Default)]
pub(super) struct MemorySamples {
    samples: Vec<(Duration, [Option<f64>; 2])>,
}

/// How much more memory a replica may have in the last minute than in the second one.
pub(super) const MAX_GROWTH: f64 = 1.1;
const MINUTE: Duration = Duration::from_secs(60);

impl MemorySamples {
    /// Adds a sample of the processes with these IDs.
    pub(super) fn add(&mut self, elapsed: Duration, processes: [Option<u32>; 2]) {
        // A process may end before it is measured.
        let resident = |process: Option<u32>| process_usage::memory(process?).ok().map(|[current, _]| current);
        self.samples.push((elapsed, processes.map(resident)));
    }

    pub(super) fn last(&self) -> [Option<f64>; 2] {
        self.samples.last().map_or([None; 2], |(_, resident)| *resident)
    }

    /// For each replica the means of the second and of the last minute; None for a run without both.
    pub(super) fn second_and_last_minute(&self) -> Option<[[f64; 2]; 2]> {
        let end = self.samples.last()?.0;
        if end < MINUTE * 4 {
            return None;
        }
        let mean = |replica: usize, from: Duration| {
            let inside = self.samples.iter().filter(|(at, _)| (from..from + MINUTE).contains(at));
            let values: Vec<f64> = inside.filter_map(|(_, resident)| resident[replica]).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        Some([0, 1].map(|replica| [mean(replica, MINUTE), mean(replica, end.saturating_sub(MINUTE))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_compared_if_the_run_is_long_enough() {
        let mut memory = MemorySamples::default();
        for second in 0..200_u32 {
            memory.samples.push((Duration::from_secs(second.into()), [Some(f64::from(second / 60)), None]));
        }
        assert!(memory.second_and_last_minute().is_none());
        for second in 200..=300_u32 {
            memory.samples.push((Duration::from_secs(second.into()), [Some(f64::from(second / 60)), Some(2.0)]));
        }
        let [one, two] = memory.second_and_last_minute().unwrap();
        assert_eq!((one, two[1]), ([1.0, 4.0], 2.0));
        assert_eq!(memory.last(), [Some(5.0), Some(2.0)]);
    }
}
