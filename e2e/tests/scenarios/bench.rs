//! Runs all benchmarks with small sizes, to test that they work; the results are meaningless. `scale` and
//! `listener-sets` take most of the time: twelve times they wait until Portico has been idle for three seconds.

use anyhow::{Context, Result, ensure};
use portico_e2e::bench::{self, BenchSizes, Benchmark, ScaleStart};
use portico_e2e::cluster::Cluster;

/// Needs no running Portico and no node: the benchmarks start their own.
pub(crate) async fn everything_is_measured(cluster: &Cluster) -> Result<()> {
    let sizes = BenchSizes {
        routes: vec![3, 10],
        samples: 3,
        churn: 20.0,
        burst: 20,
        steady: 20,
        changes: 5.0,
        seconds: 1,
        rate: 50,
        failover: 4,
        scale: 12,
        foreign: 8,
        slices: 15,
        slice_changes: 20.0,
        listener_sets: 6,
        routes_per_set: 2,
        one_host: false,
    };
    let measured = bench::run(cluster, Benchmark::All, &sizes).await?;
    let tables = measured.tables();
    let failover = measured.failover.as_ref().context("failover was not measured")?;
    // Of 200 requests, 100 are due before the Pod is deleted.
    ensure!(failover.ok > 100, "{tables}");
    let status = measured.status.as_ref().context("status writes were not measured")?;
    // Each route has a status. A second write is necessary if its Service arrives after the route.
    ensure!(status.route_writes <= 40, "{tables}");
    let route_counts: Vec<_> = measured.propagation.iter().map(|propagation| propagation.routes).collect();
    ensure!(route_counts == [3, 3, 10, 10], "{tables}");
    ensure!(measured.propagation.iter().all(|propagation| propagation.to_first_200.number == 3), "{tables}");
    ensure!(measured.propagation[1].churn > 0.0 && measured.propagation[0].churn == 0.0, "{tables}");
    let restarted: Vec<_> = measured.steady.iter().map(|steady| steady.started_again).collect();
    ensure!(restarted == [false, false, true], "{tables}");
    ensure!(measured.steady.iter().all(|steady| steady.memory > 1.0), "{tables}");
    let measured = bench::run(cluster, Benchmark::Scale, &sizes).await?;
    let tables = measured.tables();
    let scale = measured.scale.as_ref().context("scale was not measured")?;
    let counts = |start: &ScaleStart| [start.slices, start.foreign_routes, start.http_routes, start.ingresses];
    let starts: Vec<_> = scale.starts.iter().map(counts).collect();
    ensure!(starts == [[15, 0, 0, 0], [15, 8, 0, 0], [15, 8, 12, 0], [15, 8, 12, 12]], "{tables}");
    ensure!(scale.starts.iter().all(|start| start.cost.memory > 1.0), "{tables}");
    ensure!(scale.routes_of_others.is_some() && scale.endpoint_changes.len() == 2, "{tables}");
    let edits: Vec<_> = scale.edits.iter().map(|edits| (edits.kind, edits.times.to_first_200.number)).collect();
    ensure!(edits == [("HTTPRoute", 3), ("Ingress", 3), ("HTTPRoute", 3), ("Ingress", 3)], "{tables}");
    ensure!(scale.edits[2].slice_changes > 0.0 && scale.edits[0].slice_changes == 0.0, "{tables}");
    let measured = bench::run(cluster, Benchmark::ListenerSets, &sizes).await?;
    let tables = measured.tables();
    let sets = measured.listener_sets.as_ref().context("ListenerSets were not measured")?;
    ensure!((sets.listener_sets, sets.routes) == (6, 12), "{tables}");
    ensure!(sets.at_rest.memory > 1.0 && sets.at_rest.peak_memory >= sets.at_rest.memory, "{tables}");
    ensure!(sets.restart.memory > 1.0 && sets.restart.ready > 0.0, "{tables}");
    let edits: Vec<_> = sets.edits.iter().map(|edits| (edits.kind, edits.times.to_first_200.number)).collect();
    ensure!(edits == [("HTTPRoute", 3), ("ListenerSet", 3)], "{tables}");
    ensure!(sets.edits.iter().all(|edits| edits.times.inside > 0.0), "{tables}");
    Ok(())
}
