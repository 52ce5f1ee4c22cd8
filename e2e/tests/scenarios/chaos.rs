//! The short form of `make chaos`: every disruption once, and some floods, with a low rate of requests.

use anyhow::{Result, ensure};
use portico_e2e::chaos::{self, ChaosOptions};
use portico_e2e::cluster::Cluster;
use portico_e2e::progress::report;

/// Needs no running Portico: the scenario starts its own replicas.
pub(crate) async fn only_requests_in_flight_at_a_kill_fail(cluster: &mut Cluster) -> Result<()> {
    let options = ChaosOptions { seconds: 60, seed: 1, rate: 200, edits: 50, hold: 0.2, floods: Some(3), only: None };
    let outcome = chaos::run(cluster, &options).await?;
    report(format_args!("{}", outcome.report));
    ensure!(outcome.broken.is_empty(), "promises were broken: {:#?}", outcome.broken);
    Ok(())
}
