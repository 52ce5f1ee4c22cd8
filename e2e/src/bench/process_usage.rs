//! Reads the resource usage of a process from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of /proc, independent of the kernel's timer frequency.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all threads, including those that have ended.
pub(super) fn cpu(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    // The name, in parentheses, may contain any character. Field 3 is the first after it; fields 14 and 15
    // are user and system time.
    let (_, fields) = text.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("/proc/PID/stat has too few fields")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// Current and peak resident memory, in MiB.
pub(crate) fn memory(process: u32) -> Result<[f64; 2]> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("the process has ended")?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name}{line}"))?;
        Ok(kib / 1024.0)
    };
    Ok([field("VmRSS:")?, field("VmHWM:")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_uses_memory_and_cpu() {
        let process = std::process::id();
        let [current, peak] = memory(process).unwrap();
        assert!(0.0 < current && current <= peak + 1.0, "{current} of {peak}");
        let before = cpu(process).unwrap();
        let mut sum = 0_u64;
        while cpu(process).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
