//! Measures Portico with tens of thousands of objects: how long a start takes, what each object costs, and how soon an
//! edit is served while endpoints change.
//!
//! ```text
//!   Services ─▶ + HTTPRoutes of another controller ─▶ + HTTPRoutes ─▶ + Ingresses   a start after each step
//!                                                                          └▶ edits, changes of EndpointSlices
//! ```

mod objects;

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::objects::{INGRESS_ADDRESS, ScaleObjects, check_counts};
use super::edits::{self, EditTimes};
use super::start::{StartCost, measure_restart, wait_until_idle};
use super::statistics::{load, ms};
use super::{BenchSizes, process_usage, statistics};
use crate::cluster::Cluster;
use crate::portico::Portico;
use crate::progress::report;

/// The measurements with many objects.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scale {
    pub starts: Vec<ScaleStart>,
    pub routes_of_others: Option<RoutesOfOthers>,
    pub edits: Vec<ScaleEdits>,
    pub endpoint_changes: Vec<EndpointChanges>,
}

/// A start of Portico with existing objects, whose statuses an earlier process has written.
#[derive(Clone, Debug, Serialize)]
pub struct ScaleStart {
    pub http_routes: usize,
    pub ingresses: usize,
    /// HTTPRoutes of another controller.
    pub foreign_routes: usize,
    pub slices: usize,
    #[serde(flatten)]
    pub cost: StartCost,
}

/// What an HTTPRoute of another controller costs, compared with one that Portico serves.
#[derive(Clone, Debug, Serialize)]
pub struct RoutesOfOthers {
    /// KiB for each HTTPRoute.
    pub own_memory: f64,
    pub foreign_memory: f64,
    /// CPU milliseconds of a start for each HTTPRoute.
    pub own_cpu: f64,
    pub foreign_cpu: f64,
}

/// How soon an edit of one object is served.
#[derive(Clone, Debug, Serialize)]
pub struct ScaleEdits {
    pub kind: &'static str,
    /// HTTPRoutes and Ingresses.
    pub objects: usize,
    /// Actual changes of EndpointSlices per second.
    pub slice_changes: f64,
    #[serde(flatten)]
    pub times: EditTimes,
    pub load: f64,
}

/// The CPU time that changes of EndpointSlices take.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointChanges {
    pub slices: usize,
    /// Actual changes per second.
    pub changes: f64,
    pub seconds: f64,
    /// Average cores in use.
    pub cores: f64,
    pub load: f64,
}

/// A kind of object that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EditedKind {
    HttpRoute,
    Ingress,
}

impl EditedKind {
    fn name(self) -> &'static str {
        match self {
            EditedKind::HttpRoute => "HTTPRoute",
            EditedKind::Ingress => "Ingress",
        }
    }

    /// The host of the object with this number.
    fn host(self, number: usize) -> String {
        format!("{}-{number}.scale.example", self.name().to_lowercase())
    }
}

/// Measures on a cluster without other objects, with a Portico of its own, which this function stops. Returns also the
/// lines about the machine.
pub(super) async fn measure(cluster: &Cluster, sizes: &BenchSizes) -> Result<(Vec<String>, Scale)> {
    let BenchSizes { scale: count, foreign, slices, .. } = *sizes;
    check_counts(count, slices, sizes.samples)?;
    let mut scale = Scale::default();
    let objects = ScaleObjects::prepare(cluster, slices, sizes.samples.min(count)).await?;
    let arguments = ["--ingress-http-listen", INGRESS_ADDRESS, "--ingress-https-listen", "off"];
    let mut portico = Portico::prepare(cluster, "scale", &arguments).await?;
    let mut counts = ScaleCounts { slices, ..ScaleCounts::default() };

    objects.create_services().await?;
    scale.starts.push(start(&mut portico, counts).await?);
    let environment = statistics::environment(portico.process_id().context("Portico is not running")?)?;
    portico.stop().await?;
    objects.create_foreign_routes(foreign).await?;
    counts.foreign_routes = foreign;
    scale.starts.push(start(&mut portico, counts).await?);
    portico.stop().await?;
    objects.create_http_routes(count).await?;
    counts.http_routes = count;
    scale.starts.push(start(&mut portico, counts).await?);
    scale.routes_of_others = RoutesOfOthers::from_starts(&scale.starts);
    portico.stop().await?;
    objects.create_ingresses(count).await?;
    counts.ingresses = count;
    scale.starts.push(start(&mut portico, counts).await?);

    for slice_changes in [0.0, sizes.slice_changes] {
        for kind in [EditedKind::HttpRoute, EditedKind::Ingress] {
            report(format_args!("bench: edits of an {}, {slice_changes} endpoint changes per second", kind.name()));
            let edits = measure_edits(&portico, &objects, kind, count * 2, sizes.samples, slice_changes).await;
            scale.edits.push(edits.with_context(|| format!("edits of an {}", kind.name()))?);
        }
        report(format_args!("bench: {slice_changes} endpoint changes per second, without edits"));
        let seconds = Duration::from_secs(sizes.seconds);
        let changes = measure_endpoint_changes(&portico, &objects, slices, slice_changes, seconds).await;
        scale.endpoint_changes.push(changes.context("changes of EndpointSlices")?);
    }
    portico.stop().await?;
    objects.delete().await?;
    Ok((environment, scale))
}

/// The objects in the cluster.
#[derive(Clone, Copy, Default)]
struct ScaleCounts {
    http_routes: usize,
    ingresses: usize,
    foreign_routes: usize,
    slices: usize,
}

/// Starts Portico twice, and measures the second start: the first one writes the statuses.
async fn start(portico: &mut Portico, counts: ScaleCounts) -> Result<ScaleStart> {
    let ScaleCounts { http_routes, ingresses, foreign_routes, slices } = counts;
    report(format_args!(
        "bench: two starts with {slices} EndpointSlices, {foreign_routes} HTTPRoutes of another controller, \
         {http_routes} HTTPRoutes and {ingresses} Ingresses"
    ));
    portico.restart().await?;
    wait_until_idle(portico).await.context("after the first start")?;
    let cost = measure_restart(portico).await?;
    Ok(ScaleStart { http_routes, ingresses, foreign_routes, slices, cost })
}

/// Edits one object after another, while EndpointSlices change. `object_count`: HTTPRoutes and Ingresses.
async fn measure_edits(
    portico: &Portico,
    objects: &ScaleObjects,
    kind: EditedKind,
    object_count: usize,
    samples: usize,
    slice_changes: f64,
) -> Result<ScaleEdits> {
    let address = objects.address(kind).await?;
    let (begin, changed) = (Instant::now(), Cell::new(0));
    let times = tokio::select! {
        times = edits::measure(portico, samples, || objects.next_edit(kind, address)) => times?,
        error = objects.change_slices(slice_changes, &changed) => return Err(error),
    };
    let slice_changes = f64::from(changed.get()) / begin.elapsed().as_secs_f64();
    Ok(ScaleEdits { kind: kind.name(), objects: object_count, slice_changes, times, load: load()? })
}

async fn measure_endpoint_changes(
    portico: &Portico,
    objects: &ScaleObjects,
    slices: usize,
    rate: f64,
    duration: Duration,
) -> Result<EndpointChanges> {
    let process = portico.process_id().context("Portico is not running")?;
    wait_until_idle(portico).await?;
    let (cpu, begin, changed) = (process_usage::cpu(process)?, Instant::now(), Cell::new(0));
    tokio::select! {
        () = sleep(duration) => {}
        error = objects.change_slices(rate, &changed) => return Err(error),
    }
    let (cpu, seconds) = ((process_usage::cpu(process)? - cpu).as_secs_f64(), begin.elapsed().as_secs_f64());
    let changes = f64::from(changed.get()) / seconds;
    Ok(EndpointChanges { slices, changes, seconds, cores: cpu / seconds, load: load()? })
}

impl RoutesOfOthers {
    /// From three starts: without HTTPRoutes, with those of another controller, and with those of Portico as well.
    /// `None` if there are no such routes.
    fn from_starts(starts: &[ScaleStart]) -> Option<RoutesOfOthers> {
        let [without, with_foreign, with_own] = starts else { return None };
        let (foreign, own) = (with_foreign.foreign_routes as f64, with_own.http_routes as f64);
        (foreign > 0.0 && own > 0.0).then(|| RoutesOfOthers {
            own_memory: (with_own.cost.memory - with_foreign.cost.memory) * 1024.0 / own,
            foreign_memory: (with_foreign.cost.memory - without.cost.memory) * 1024.0 / foreign,
            own_cpu: (with_own.cost.cpu - with_foreign.cost.cpu) * 1000.0 / own,
            foreign_cpu: (with_foreign.cost.cpu - without.cost.cpu) * 1000.0 / foreign,
        })
    }

    pub(super) const HEAD: [&str; 4] = ["", "own", "of others", "share"];

    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, own: f64, foreign: f64| {
            vec![name.to_owned(), ms(own), ms(foreign), format!("{:.1} %", foreign / own * 100.0)]
        };
        vec![
            row("KiB for each HTTPRoute", self.own_memory, self.foreign_memory),
            row("CPU ms of a start for each HTTPRoute", self.own_cpu, self.foreign_cpu),
        ]
    }
}

impl ScaleStart {
    pub(super) fn head() -> Vec<&'static str> {
        [&["HTTPRoutes", "Ingresses", "HTTPRoutes of others", "EndpointSlices"][..], &StartCost::HEAD].concat()
    }

    pub(super) fn row(&self) -> Vec<String> {
        let counts = [self.http_routes, self.ingresses, self.foreign_routes, self.slices];
        counts.iter().map(ToString::to_string).chain(self.cost.cells()).collect()
    }
}

impl ScaleEdits {
    pub(super) fn head() -> Vec<&'static str> {
        [&["objects", "edited", "endpoint changes/s"][..], &EditTimes::HEAD, &["load"]].concat()
    }

    pub(super) fn row(&self) -> Vec<String> {
        let mut row = vec![self.objects.to_string(), self.kind.to_owned(), format!("{:.1}", self.slice_changes)];
        row.extend(self.times.cells());
        row.push(format!("{:.2}", self.load));
        row
    }
}

impl EndpointChanges {
    pub(super) const HEAD: [&str; 5] = ["EndpointSlices", "changes/s", "seconds", "cores", "load"];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.slices.to_string(),
            format!("{:.1}", self.changes),
            format!("{:.0}", self.seconds),
            format!("{:.4}", self.cores),
            format!("{:.2}", self.load),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_other_controllers_is_for_each_route() {
        let start = |foreign_routes, http_routes, memory, cpu| ScaleStart {
            http_routes,
            ingresses: 0,
            foreign_routes,
            slices: 10,
            cost: StartCost { ready: 1.0, cpu, memory, peak_memory: memory, load: 0.0 },
        };
        let starts = [start(0, 0, 20.0, 1.0), start(2048, 0, 21.0, 1.5), start(2048, 1024, 31.0, 6.5)];
        let rows = RoutesOfOthers::from_starts(&starts).unwrap().rows();
        assert_eq!(rows[0][1..], ["10.00", "0.50", "5.0 %"]);
        assert_eq!(rows[1][1..], ["4.88", "0.24", "5.0 %"]);
        assert!(RoutesOfOthers::from_starts(&starts[..2]).is_none());
    }

    #[test]
    fn each_route_needs_a_service_and_other_endpoints_change() {
        assert!(check_counts(10, 10, 9).is_ok());
        for (routes, services, samples, expected) in [
            (10, 9, 1, "--slices must be at least --scale"),
            (10, 10, 10, "--slices must be greater than --samples"),
            (0, 10, 1, "--scale and --samples"),
        ] {
            let error = check_counts(routes, services, samples).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
