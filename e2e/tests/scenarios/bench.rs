//! Runs all benchmarks with small sizes, to test that they work; the results are meaningless.

use anyhow::{Result, ensure};
use portico_e2e::bench::{self, BenchSizes, Benchmark};
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
        one_host: false,
    };
    let measured = bench::run(cluster, Benchmark::All, &sizes).await?;
    let tables = measured.tables();
    let failover = measured.failover.as_ref().map(|failover| failover.ok + failover.failed);
    ensure!(failover == Some(200), "{tables}");
    let status = measured.status.as_ref().map(|status| (status.routes, status.route_writes));
    ensure!(status == Some((20, 20)), "{tables}");
    let route_counts: Vec<_> = measured.propagation.iter().map(|propagation| propagation.routes).collect();
    ensure!(route_counts == [3, 3, 10, 10], "{tables}");
    ensure!(measured.propagation.iter().all(|propagation| propagation.to_first_200.number == 3), "{tables}");
    ensure!(measured.propagation[1].churn > 0.0 && measured.propagation[0].churn == 0.0, "{tables}");
    ensure!(measured.steady.len() == 3 && measured.steady.iter().all(|steady| steady.memory > 1.0), "{tables}");
    Ok(())
}
