//! One of several endpoints dies and comes back, several times: how many requests fail, and whether the endpoint gets
//! its share again.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Options;
use super::endpoint::{Behavior, CHECK_PATH, FailingEndpoint};
use super::variant::{Variant, side_by_side};
use crate::plan::{Plan, RequestShape};
use crate::run::run;
use crate::server::HOST;
use crate::server::policed::rule_paths;

/// What happens during a run.
#[derive(Clone, Copy, Debug)]
pub struct Outages {
    pub name: &'static str,
    /// The number of endpoints, of which one dies.
    pub endpoints: usize,
    pub rules: usize,
    /// Requests per second.
    pub rate: u32,
    /// How long the endpoint is up before each outage, and how long each outage takes.
    pub phase: Duration,
    pub count: u32,
    /// What Portico is meant to reach: the lowest share of the endpoint while it is up, in percent. Only long phases
    /// have one, since a return takes up to a second.
    pub min_share: Option<f64>,
    /// Measured on request only.
    pub full_only: bool,
}

const SHORT: Outages = Outages {
    name: "failover: 1 of 2 endpoints, 5 × (5.5 s up, 5.5 s down), 100 requests/s",
    endpoints: 2,
    rules: 1,
    rate: 100,
    phase: Duration::from_millis(5500),
    count: 5,
    min_share: None,
    full_only: false,
};

pub(super) const ALL: [Outages; 3] = [
    SHORT,
    Outages {
        name: "failover: 1 of 4 endpoints, 5 × (5.5 s up, 5.5 s down), 100 requests/s",
        endpoints: 4,
        full_only: true,
        ..SHORT
    },
    Outages {
        name: "failover: 1 of 4 endpoints, 5 × (22 s up, 22 s down), 200 requests/s, 256 rules",
        endpoints: 4,
        rules: 256,
        rate: 200,
        phase: Duration::from_secs(22),
        min_share: Some(96.0),
        ..SHORT
    },
];

impl Outages {
    fn duration(&self) -> Duration {
        self.phase * (2 * self.count)
    }

    /// The requests that the endpoint gets if it has its share whenever it is up.
    fn expected(&self) -> f64 {
        f64::from(self.rate) * self.phase.as_secs_f64() * f64::from(self.count) / self.endpoints as f64
    }
}

/// The figures of one proxy.
#[derive(Clone, Copy, Debug)]
pub struct FailoverFigures {
    pub sent: u64,
    pub failed: u64,
    /// Requests that the endpoint has served, in percent of its share while it was up.
    pub share: f64,
}

impl fmt::Display for FailoverFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} of {:>6} failed, {:>5.1} % of its share", self.failed, self.sent, self.share)
    }
}

/// Measures all proxies at the same time, each with endpoints of its own, and prints a line for each.
pub(super) fn measure(options: &Options, outages: &Outages) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let variants: Vec<_> = variants(outages).into_iter().filter(|(variant, _)| variant.is_available(options)).collect();
    println!("\n{}", outages.name);
    let figures = side_by_side(&variants, async |(variant, _)| {
        let endpoints = FailingEndpoint::start_all(outages.endpoints, 200)?;
        let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let server = variant.start(options, folder.path(), &addresses, outages.rules).await?;
        run_through_outages(outages, server.address, &endpoints[0]).await
    })?;
    for ((variant, target), figures) in variants.iter().zip(figures) {
        println!("  {:<48} {figures}  {}", variant.name, target.judge(&figures));
    }
    Ok(())
}

/// Sends requests to a proxy while one of its endpoints dies and comes back.
pub async fn run_through_outages(
    outages: &Outages,
    target: SocketAddr,
    failing: &FailingEndpoint,
) -> Result<FailoverFigures> {
    let shapes = rule_paths(outages.rules).map(|path| RequestShape::get(HOST, &path)).collect();
    let plan = Plan { rate: Some(outages.rate), ..Plan::new(target, shapes, outages.duration(), CONNECTIONS) };
    let before = failing.requests().len();
    let change = async {
        for _ in 0..outages.count {
            sleep(outages.phase).await;
            failing.behave(Behavior::Refuse);
            sleep(outages.phase).await;
            failing.behave(Behavior::Respond(200));
        }
    };
    let (report, ()) = tokio::join!(run(plan), change);
    let served = failing.requests().len() - before;
    Ok(FailoverFigures {
        sent: report.good + report.failed + report.wrong,
        failed: report.failed + report.wrong,
        share: 100.0 * served as f64 / outages.expected(),
    })
}

/// What Portico is meant to reach. Other proxies and settings have no target.
#[derive(Clone, Copy, Debug, Default)]
struct Target {
    max_failed: Option<u64>,
    min_share: Option<f64>,
}

impl Target {
    fn judge(&self, figures: &FailoverFigures) -> String {
        let failed = self.max_failed.map(|most| (format!("at most {most} failed"), figures.failed <= most));
        let share = self.min_share.map(|least| (format!("at least {least} %"), figures.share >= least));
        let verdict = |(text, is_met): (String, bool)| super::verdict(&text, is_met);
        [failed, share].into_iter().flatten().map(verdict).collect::<Vec<_>>().join(", ")
    }
}

/// No request is sent again, except where the name says so: retries would hide failures.
fn variants(outages: &Outages) -> Vec<(Variant, Target)> {
    let once = json!({ "attempts": 0 });
    let without_checks = Target { max_failed: Some(40), min_share: outages.min_share };
    let with_checks = Target { max_failed: Some(20), ..without_checks };
    let with_retries = Target { max_failed: Some(0), ..without_checks };
    let active = json!({
        "path": CHECK_PATH, "interval": "250ms", "timeout": "250ms", "unhealthyThreshold": 1, "healthyThreshold": 1,
    });
    let checks = json!([{
        "timeout": "0.25s", "interval": "0.25s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "no_traffic_interval": "0.25s", "unhealthy_interval": "0.25s",
        "http_health_check": { "path": CHECK_PATH },
    }]);
    let outlier = |interval: &str, ejection: &str| {
        json!({ "outlier_detection": {
            "consecutive_5xx": 5, "interval": interval, "base_ejection_time": ejection, "max_ejection_percent": 50,
        } })
    };
    let retries = json!({ "retry_policy": { "retry_on": "connect-failure", "num_retries": 2 } });
    let none = Value::Null;
    vec![
        (Variant::portico("Portico", json!({ "retry": once })), without_checks),
        (
            Variant::portico("Portico, checks every 250 ms", json!({ "retry": once, "health": { "active": active } })),
            with_checks,
        ),
        (Variant::portico("Portico, default retries", Value::Null), with_retries),
        (Variant::envoy("Envoy", json!({}), none.clone()), Target::default()),
        (Variant::envoy("Envoy, outlier detection, 30 s", outlier("10s", "30s"), none.clone()), Target::default()),
        (Variant::envoy("Envoy, outlier detection, 1 s", outlier("1s", "1s"), none.clone()), Target::default()),
        (Variant::envoy("Envoy, checks every 250 ms", json!({ "health_checks": checks }), none), Target::default()),
        (Variant::envoy("Envoy, retries of failed connections", json!({}), retries), Target::default()),
    ]
}

/// Connections of the client, which stay open.
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_as_many_requests_as_their_share_needs() {
        let [two, four, full] = ALL;
        assert_eq!((two.duration(), two.expected()), (Duration::from_secs(55), 1375.0));
        assert_eq!((four.duration(), four.expected()), (Duration::from_secs(55), 687.5));
        assert_eq!((full.duration(), full.expected()), (Duration::from_secs(220), 5500.0));
    }

    #[test]
    fn missed_targets_are_named() {
        let target = Target { max_failed: Some(40), min_share: Some(96.0) };
        let judged = |failed, share| target.judge(&FailoverFigures { sent: 5500, failed, share });
        assert!(!judged(40, 96.0).contains("MISSED"), "{}", judged(40, 96.0));
        for (failed, share) in [(41, 96.0), (40, 95.9)] {
            assert_eq!(judged(failed, share).matches("MISSED").count(), 1);
        }
        assert_eq!(Target::default().judge(&FailoverFigures { sent: 1, failed: 1, share: 0.0 }), "");
    }
}
