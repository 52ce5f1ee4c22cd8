//! A circuit breaker during a total failure: how soon it opens, what the endpoint gets meanwhile, and how soon all
//! requests pass again.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::endpoint::{Behavior, FailingEndpoint};
use super::variant::Variant;
use crate::plan::{Plan, RequestShape};
use crate::run::run;
use crate::server::HOST;

pub(super) const NAME: &str = "circuit: all responses 500 from some moment on, 1,000 requests/s";

/// The settings, shorter than their defaults so that a run takes a minute.
const WINDOW: Duration = Duration::from_secs(10);
const OPEN_FOR: Duration = Duration::from_secs(2);
const RAMP_UP: Duration = Duration::from_secs(4);

const RATE: u32 = 1000;
/// As long as the window, so that it is full of successes.
const HEALTHY: Duration = Duration::from_secs(12);
/// Long enough for several half-open phases.
const FAILING: Duration = Duration::from_secs(15);
const RECOVERED: Duration = Duration::from_secs(12);

/// Prints when the circuit opened and closed.
pub(super) async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let endpoint = FailingEndpoint::start(Behavior::Respond(200))?;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let policy = json!({
        "retry": { "attempts": 0 },
        "circuitBreaker": {
            "window": seconds(WINDOW), "errorPercent": 50, "rampUp": seconds(RAMP_UP),
            "openFor": seconds(OPEN_FOR), "maxOpenFor": seconds(OPEN_FOR), "successes": 1,
        },
    });
    let server = Variant::portico("Portico", policy).start(options, folder.path(), &[endpoint.address], 1).await?;
    let plan = Plan {
        rate: Some(RATE),
        ..Plan::new(server.address, vec![RequestShape::get(HOST, "/")], HEALTHY + FAILING + RECOVERED, CONNECTIONS)
    };
    let begin = Instant::now();
    let (failed_at, recovered_at) = (begin + HEALTHY, begin + HEALTHY + FAILING);
    let change = async {
        sleep_until(failed_at).await;
        endpoint.behave(Behavior::Respond(500));
        sleep_until(recovered_at).await;
        endpoint.behave(Behavior::Respond(200));
    };
    let (report, ()) = tokio::join!(run(plan), change);
    ensure!(report.failed == 0, "requests without a response:\n{report}");
    let since_failure = |at: &Instant| at.checked_duration_since(failed_at);
    let arrivals: Vec<Duration> = endpoint.requests().iter().filter_map(since_failure).collect();
    let end = begin.elapsed().saturating_sub(HEALTHY);
    let times = CircuitTimes::from_arrivals(&arrivals, FAILING, end, RATE)?;
    println!("\n{NAME}; window {WINDOW:?}, openFor {OPEN_FOR:?}, rampUp {RAMP_UP:?}");
    let (opens, closes) = (WINDOW / 2 + Duration::from_millis(100), OPEN_FOR + RAMP_UP + Duration::from_secs(1));
    let line = |what: &str, figure: String, target: &str, is_met: bool| {
        println!("  {what:<48} {figure:>10}  {}", super::verdict(target, is_met));
    };
    let opened = times.opened_after;
    line("open after", format!("{:.2} s", opened.as_secs_f64()), &format!("at most {opens:?}"), opened <= opens);
    let most = times.requests_while_open.iter().max().copied().unwrap_or_default();
    line(
        "requests in each half-open phase, at most",
        format!("{most} in {}", times.requests_while_open.len()),
        "1",
        most <= 1,
    );
    let closed = times.closed_after;
    line(
        "all requests pass after the recovery, after",
        format!("{:.2} s", closed.as_secs_f64()),
        &format!("at most {closes:?}"),
        closed <= closes,
    );
    Ok(())
}

/// What the arrivals of requests at the endpoint show of the circuit.
#[derive(Debug, PartialEq, Eq)]
struct CircuitTimes {
    /// Since the failure.
    opened_after: Duration,
    /// The number of requests in each half-open phase before the recovery.
    requests_while_open: Vec<usize>,
    /// From the recovery until all requests arrive.
    closed_after: Duration,
}

impl CircuitTimes {
    /// `arrivals`, `recovered` and `end` since the failure.
    fn from_arrivals(arrivals: &[Duration], recovered: Duration, end: Duration, rate: u32) -> Result<CircuitTimes> {
        let while_failing: Vec<Duration> = arrivals.iter().copied().filter(|at| *at < recovered).collect();
        let mut groups = while_failing.chunk_by(|one, next| *next - *one < GAP);
        let opened_after = groups.next().and_then(|group| group.last().copied()).unwrap_or_default();
        let requests_while_open = groups.map(<[_]>::len).collect();
        let mut closed_after = Duration::ZERO;
        let mut window = recovered;
        while window + STEP <= end {
            let arrived = arrivals.iter().filter(|at| (window..window + STEP).contains(*at)).count();
            if (arrived as f64) < f64::from(rate) * STEP.as_secs_f64() * COMPLETE {
                closed_after = window + STEP - recovered;
            }
            window += STEP;
        }
        ensure!(closed_after + STEP * 2 < end - recovered, "the circuit did not close");
        Ok(CircuitTimes { opened_after, requests_while_open, closed_after })
    }
}

/// No request for this long means that the circuit is open.
const GAP: Duration = Duration::from_millis(500);
/// The time over which arrivals are compared with the rate.
const STEP: Duration = Duration::from_millis(250);
/// The share of the requests that counts as all.
const COMPLETE: f64 = 0.97;
/// Connections of the client, which stay open.
const CONNECTIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_show_when_the_circuit_is_open() {
        let millis = Duration::from_millis;
        // Open after 3 s, a request at 5 s and two at 7 s; the recovery is at 8 s, and from 12 s on all arrive.
        let mut arrivals: Vec<Duration> = (0..3000).map(millis).collect();
        arrivals.extend([5000, 7000, 7010].map(millis));
        arrivals.extend((9000..12_000).step_by(2).map(millis));
        arrivals.extend((12_000..15_000).map(millis));
        let times = CircuitTimes::from_arrivals(&arrivals, millis(8000), millis(15_000), 1000).unwrap();
        let expected =
            CircuitTimes { opened_after: millis(2999), requests_while_open: vec![1, 2], closed_after: millis(4000) };
        assert_eq!(times, expected);
        let open = CircuitTimes::from_arrivals(&arrivals, millis(8000), millis(11_900), 1000);
        assert!(open.unwrap_err().to_string().contains("did not close"));
    }
}
