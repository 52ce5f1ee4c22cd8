//! What benchmarks measure of their own process: the CPU time of work, and the resident memory.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) const MIB: f64 = 1_048_576.0;
/// After this time, jemalloc has returned free memory to the kernel; see `.cargo/config.toml`.
const RELEASE_DELAY: Duration = Duration::from_millis(2500);

/// Runs the work and returns the CPU time of this thread, which is equal to the wall time on an idle machine.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = thread_cpu_time();
    let output = work();
    (thread_cpu_time().saturating_sub(begin), output)
}

/// The CPU time from the clock of the thread, which is exact. `/proc` is updated only at scheduler ticks.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// A figure of `/proc/self/status` in MiB: `VmRSS` is the resident memory, `VmHWM` its peak since the last reset.
pub(crate) fn resident(figure: &str) -> f64 {
    if figure == "VmRSS" {
        std::thread::sleep(RELEASE_DELAY);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / MIB
}

/// Begins the measurement of another peak.
pub(crate) fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}
