//! Active health checks of many endpoints: how many there are in a second, how even they are, and what they cost.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Options;
use super::endpoint::{CHECK_PATH, FailingEndpoint};
use super::variant::{Variant, side_by_side};

pub(super) const NAME: &str = "checks: 1,000 endpoints, every 10 s";

const ENDPOINTS: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(10);
/// For the first checks of all endpoints, which are sooner.
const SETTLE: Duration = Duration::from_secs(12);
const DURATION: Duration = Duration::from_secs(30);
/// Checks are counted in each of these.
const SLICE: Duration = Duration::from_millis(100);

/// The figures of one proxy.
struct Figures {
    /// Share of a core, in percent.
    cpu: f64,
    per_second: f64,
    most_in_slice: usize,
}

/// Measures each proxy with and without checks at the same time, since a process takes something at rest as well.
pub(super) fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let active = json!({ "path": CHECK_PATH, "interval": "10s" });
    let checks = json!([{
        "timeout": "1s", "interval": "10s", "no_traffic_interval": "10s", "unhealthy_threshold": 3,
        "healthy_threshold": 2, "http_health_check": { "path": CHECK_PATH },
    }]);
    let variants: Vec<Variant> = [
        Variant::portico("Portico without checks", json!({})),
        Variant::portico("Portico", json!({ "health": { "active": active } })),
        Variant::envoy("Envoy without checks", json!({}), json!({})),
        Variant::envoy("Envoy", json!({ "health_checks": checks }), json!({})),
    ]
    .into_iter()
    .filter(|variant| variant.is_available(options))
    .collect();
    let figures = side_by_side(&variants, async |variant| {
        let endpoints = FailingEndpoint::start_all(ENDPOINTS, 200)?;
        let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let server = variant.start(options, folder.path(), &addresses, 1).await?;
        sleep(SETTLE).await;
        let processes = server.process().serving();
        let (begin, before) = (Instant::now(), processes.cpu()?);
        sleep(DURATION).await;
        let cpu = processes.cpu()?.saturating_sub(before);
        let elapsed = begin.elapsed();
        let since_begin = |at: &Instant| at.checked_duration_since(begin).filter(|since| *since < elapsed);
        let checks: Vec<Duration> =
            endpoints.iter().flat_map(|endpoint| endpoint.checks()).filter_map(|at| since_begin(&at)).collect();
        Ok(Figures {
            cpu: 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
            per_second: checks.len() as f64 / elapsed.as_secs_f64(),
            most_in_slice: most_in_slice(&checks),
        })
    })?;
    println!("\n{NAME}");
    for pair in variants.iter().zip(&figures).collect::<Vec<_>>().chunks(2) {
        let [(_, at_rest), (variant, with_checks)] = pair else { continue };
        let cpu = with_checks.cpu - at_rest.cpu;
        let is_portico = variant.name == "Portico";
        let line = |what: &str, figure: String, target: &str, is_met: bool| {
            let target = if is_portico { super::verdict(target, is_met) } else { String::new() };
            println!("  {:<10} {what:<37} {figure:>10}  {target}", variant.name);
        };
        let expected = ENDPOINTS as f64 / INTERVAL.as_secs_f64();
        let is_expected = (with_checks.per_second / expected - 1.0).abs() <= 0.05;
        line("checks/s", format!("{:.1}", with_checks.per_second), "100 ± 5 %", is_expected);
        let most = with_checks.most_in_slice;
        line("most checks in 100 ms", most.to_string(), "at most 20", most <= 20);
        line("% of a core, less that at rest", format!("{cpu:.2}"), "at most 1", cpu <= 1.0);
    }
    Ok(())
}

/// The largest number of checks in a slice of time.
fn most_in_slice(checks: &[Duration]) -> usize {
    let mut checks = checks.to_vec();
    checks.sort_unstable();
    let in_slice = |(index, at): (usize, &Duration)| checks[index..].partition_point(|other| *other < *at + SLICE);
    checks.iter().enumerate().map(in_slice).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_may_begin_at_any_time() {
        let millis = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        for (times, most) in [(&[][..], 0), (&[5][..], 1), (&[190, 10, 80, 110, 200][..], 3), (&[0, 100, 200][..], 1)] {
            assert_eq!(most_in_slice(&millis(times)), most, "{times:?}");
        }
    }
}
