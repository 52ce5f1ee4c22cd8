//! Measures Portico with thousands of ListenerSets of one Gateway: memory, CPU at rest, a restart, and how soon edits
//! of single HTTPRoutes and ListenerSets are served.

mod objects;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::objects::ListenerSetObjects;
use super::edits::{self, EditTimes};
use super::start::{StartCost, measure_restart, wait_until_idle};
use super::statistics::{load, ms};
use super::{BenchSizes, process_usage, statistics};
use crate::cluster::Cluster;
use crate::portico::Portico;
use crate::progress::report;

/// The measurements with many ListenerSets.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerSets {
    pub listener_sets: usize,
    /// HTTPRoutes of all ListenerSets together.
    pub routes: usize,
    pub at_rest: AtRest,
    pub restart: StartCost,
    pub edits: Vec<ListenerSetEdits>,
}

/// Memory and CPU of a Portico that has received all objects one by one, and has written their statuses.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AtRest {
    /// Resident memory, in MiB.
    pub memory: f64,
    /// Peak resident memory since the start of the process, in MiB.
    pub peak_memory: f64,
    pub seconds: f64,
    /// Average cores in use during these seconds.
    pub cores: f64,
    pub load: f64,
}

/// How soon edits of one kind of object are served.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerSetEdits {
    pub kind: &'static str,
    #[serde(flatten)]
    pub times: EditTimes,
    /// CPU time of Portico per edit, in milliseconds, including the benchmark's requests and status writes.
    pub cpu: f64,
    pub load: f64,
}

/// A kind of object that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EditedKind {
    HttpRoute,
    ListenerSet,
}

impl EditedKind {
    fn name(self) -> &'static str {
        match self {
            EditedKind::HttpRoute => "HTTPRoute",
            EditedKind::ListenerSet => "ListenerSet",
        }
    }
}

/// Measures on a cluster without other objects, with a Portico of its own, which this function stops. Returns also the
/// lines about the machine.
pub(super) async fn measure(cluster: &Cluster, sizes: &BenchSizes) -> Result<(Vec<String>, ListenerSets)> {
    let BenchSizes { listener_sets, routes_per_set, samples, .. } = *sizes;
    check_counts(listener_sets, routes_per_set, samples)?;
    let mut portico = Portico::start(cluster, "listener-sets", &[]).await?;
    let environment = statistics::environment(portico.process_id().context("Portico is not running")?)?;
    let mut objects = ListenerSetObjects::create(cluster, listener_sets, routes_per_set).await?;
    report(format_args!("bench: waiting for the statuses of all objects"));
    objects.wait_for_statuses().await?;
    let at_rest = measure_at_rest(&portico, Duration::from_secs(sizes.seconds)).await.context("at rest")?;
    report(format_args!("bench: a restart of Portico"));
    let restart = measure_restart(&mut portico).await?;
    let mut edits = Vec::new();
    for kind in [EditedKind::HttpRoute, EditedKind::ListenerSet] {
        report(format_args!("bench: edits of single {}s", kind.name()));
        let measured = measure_edits(&portico, &mut objects, kind, samples).await;
        edits.push(measured.with_context(|| format!("edits of single {}s", kind.name()))?);
    }
    portico.stop().await?;
    objects.delete().await?;
    let routes = listener_sets * routes_per_set;
    Ok((environment, ListenerSets { listener_sets, routes, at_rest, restart, edits }))
}

/// Checks that there is something to measure, before objects are created.
fn check_counts(listener_sets: usize, routes_per_set: usize, samples: usize) -> Result<()> {
    let is_measured = listener_sets > 0 && routes_per_set > 0 && samples > 0;
    ensure!(is_measured, "--listener-sets, --routes-per-set and --samples must be at least 1");
    Ok(())
}

async fn measure_at_rest(portico: &Portico, duration: Duration) -> Result<AtRest> {
    let process = portico.process_id().context("Portico is not running")?;
    wait_until_idle(portico).await?;
    report(format_args!("bench: {} s at rest", duration.as_secs()));
    let (cpu, begin) = (process_usage::cpu(process)?, Instant::now());
    sleep(duration).await;
    let (cpu, seconds) = ((process_usage::cpu(process)? - cpu).as_secs_f64(), begin.elapsed().as_secs_f64());
    let [memory, peak_memory] = process_usage::memory(process)?;
    Ok(AtRest { memory, peak_memory, seconds, cores: cpu / seconds, load: load()? })
}

async fn measure_edits(
    portico: &Portico,
    objects: &mut ListenerSetObjects,
    kind: EditedKind,
    samples: usize,
) -> Result<ListenerSetEdits> {
    let process = portico.process_id().context("Portico is not running")?;
    let before = process_usage::cpu(process)?;
    let times = edits::measure(portico, samples, || objects.next_edit(kind)).await?;
    let cpu = (process_usage::cpu(process)? - before).as_secs_f64() / samples as f64 * 1000.0;
    Ok(ListenerSetEdits { kind: kind.name(), times, cpu, load: load()? })
}

impl ListenerSets {
    pub(super) const HEAD_AT_REST: [&str; 7] =
        ["ListenerSets", "HTTPRoutes", "MiB", "peak MiB", "seconds", "cores", "load"];

    pub(super) fn row_at_rest(&self) -> Vec<String> {
        let AtRest { memory, peak_memory, seconds, cores, load } = self.at_rest;
        vec![
            self.listener_sets.to_string(),
            self.routes.to_string(),
            format!("{memory:.1}"),
            format!("{peak_memory:.1}"),
            format!("{seconds:.0}"),
            format!("{cores:.4}"),
            format!("{load:.2}"),
        ]
    }
}

impl ListenerSetEdits {
    pub(super) fn head() -> Vec<&'static str> {
        [&["edited"][..], &EditTimes::HEAD, &["CPU/edit", "load"]].concat()
    }

    pub(super) fn row(&self) -> Vec<String> {
        let mut row = vec![self.kind.to_owned()];
        row.extend(self.times.cells());
        row.extend([ms(self.cpu), format!("{:.2}", self.load)]);
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_zero_are_refused() {
        assert!(check_counts(1, 1, 1).is_ok());
        for [listener_sets, routes_per_set, samples] in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
            let error = check_counts(listener_sets, routes_per_set, samples).unwrap_err().to_string();
            assert_eq!(error, "--listener-sets, --routes-per-set and --samples must be at least 1");
        }
    }
}
