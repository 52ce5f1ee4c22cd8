//! Controls callgrind, a tool of valgrind, and parses its output: the instructions of a process, and those for metrics.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Process;

/// Instructions of a process since its start, or since `callgrind_control --zero` or the last dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    /// Instructions of the code for request metrics, including inlined code.
    pub(crate) metrics: u64,
}

/// Source files of the code for request metrics. Callgrind attributes inlined lines to their source file, too.
const METRICS_FILES: [&str; 2] =
    ["crates/proxy/src/proxy/telemetry/stats/", "crates/upstream/src/upstream/single_writer_counter.rs"];
/// Paths of libraries. Their inlined code, such as an atomic addition, counts as part of the code that uses it.
const LIBRARY_PATHS: [&str; 3] = ["/rustc/", "/rust/deps/", "/registry/"];
/// The function that looks up the counters of a request. Most of its instructions are inlined code of the standard
/// library.
const SERIES_LOOKUP: &str = "::snapshot_view::SnapshotView::series";

/// The counts of a running process, which begin again. Those at its end would include what it drops on its way out:
/// millions of instructions for some caches, if a certain thread comes first.
pub(crate) fn dump(process: Process, counts_file: &Path) -> Result<Counts> {
    control(process, "--dump")?;
    read(&take_dump(counts_file)?)
}

/// Runs `callgrind_control` with this action.
pub(crate) fn control(process: Process, action: &str) -> Result<()> {
    let output = Command::new("callgrind_control").arg(action).arg(process.0.to_string()).output();
    let output = output.context("cannot start callgrind_control, which is part of valgrind")?;
    ensure!(output.status.success(), "callgrind_control {action}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Reads and removes the only dump. callgrind numbers dumps: `counts.1`, `counts.2` and so on.
fn take_dump(counts_file: &Path) -> Result<String> {
    let folder = counts_file.parent().context("the file of counts is in no folder")?;
    let is_dump = |path: &PathBuf| path.with_extension("") == counts_file && path != counts_file;
    let dump = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).find(is_dump);
    let dump = dump.context("callgrind wrote no dump")?;
    let text = fs::read_to_string(&dump)?;
    fs::remove_file(dump)?;
    Ok(text)
}

/// Parses an output file of callgrind.
fn read(text: &str) -> Result<Counts> {
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    let total = total.and_then(|total| total.trim().parse().ok()).context("valgrind's file has no total")?;
    let (mut files, mut functions) = (Names::default(), Names::default());
    let (mut in_file, mut in_function, mut is_of_callee) = (false, false, false);
    let mut metrics = 0;
    for line in text.lines() {
        if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line after `calls=` is the cost of a callee, which the lines of the callee have as well.
            let is_own_cost = !std::mem::take(&mut is_of_callee);
            if is_own_cost && (in_file || in_function) {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
                metrics += cost.with_context(|| format!("valgrind's file has a line without a cost: {line}"))?;
            }
            continue;
        }
        let Some((key, name)) = line.split_once('=') else { continue };
        match key {
            "fl" | "fi" | "fe" => {
                let file = files.name(name);
                let contains_any = |parts: &[&str]| parts.iter().any(|part| file.contains(part));
                if key == "fl" || !contains_any(&LIBRARY_PATHS) {
                    in_file = contains_any(&METRICS_FILES);
                }
            }
            "fn" => in_function = functions.name(name).ends_with(SERIES_LOOKUP),
            // These lines may define the number of a name.
            "cfi" | "cfl" => drop(files.name(name)),
            "cfn" => drop(functions.name(name)),
            "calls" => is_of_callee = true,
            _ => {}
        }
    }
    Ok(Counts { total, metrics })
}

/// The names of files or functions by their number. The file has `(7) name` first, and `(7)` from then on.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn name(&mut self, text: &str) -> String {
        match text.split_once(' ') {
            Some((number, name)) if number.starts_with('(') => {
                self.0.insert(number.to_owned(), name.to_owned());
                name.to_owned()
            }
            _ => self.0.get(text).cloned().unwrap_or_else(|| text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inlined_lines_are_attributed_to_their_file() {
        let text = "\
# callgrind format
events: Ir
positions: line

ob=(1) /bin/portico
fl=(1) crates/proxy/src/proxy/http/steps/request.rs
fn=(1) portico_proxy::proxy::http::steps::request::respond
10 100
fi=(2) crates/proxy/src/proxy/telemetry/stats/mod.rs
20 5
+3 2
fi=(6) /rustc/library/core/src/sync/atomic.rs
500 3
fe=(1)
11 50
cfi=(3) crates/upstream/src/upstream/single_writer_counter.rs
cfn=(2) portico_upstream::upstream::single_writer_counter::SingleWriterCounter::add
calls=1 30
12 7
* 1

fl=(3)
fn=(2)
30 7

fl=(4) crates/proxy/src/proxy/worker/snapshot_view.rs
fn=(3) portico_proxy::proxy::worker::snapshot_view::SnapshotView::series
40 11
fi=(5) /rustc/library/std/src/collections/hash/map.rs
900 13

fl=(6)
fn=(4) core::sync::atomic::fence
600 17

totals: 216
";
        assert_eq!(read(text).unwrap(), Counts { total: 216, metrics: 5 + 2 + 3 + 7 + 11 + 13 });
        assert!(read("events: Ir\n").is_err());
    }
}
