//! All endpoints fail and every request would be sent again: how many requests the endpoints get behind one gateway,
//! and behind several in a row.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Options;
use super::endpoint::FailingEndpoint;
use super::variant::{Variant, side_by_side};
use crate::plan::{Plan, RequestShape};
use crate::run::run;
use crate::server::HOST;

pub(super) const NAME: &str = "retries: all responses 503, 3 attempts more, 500 requests/s for 15 s";

const RATE: u32 = 500;
const DURATION: Duration = Duration::from_secs(15);
const ENDPOINTS: usize = 3;
/// The retries that are allowed in any case: `minRetryRate` is 10 in 1 s.
const FLOOR: f64 = 10.0;

/// Proxies of which each but the last one forwards to the next.
struct Chain {
    name: &'static str,
    proxies: Vec<Variant>,
    /// The highest ratio of requests to the endpoints to those of the client.
    max_load: Option<f64>,
}

/// Measures all at the same time, each with endpoints of its own, and prints a line for each.
pub(super) fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let chains = chains();
    let available: Vec<_> =
        chains.iter().filter(|chain| chain.proxies.iter().all(|proxy| proxy.is_available(options))).collect();
    println!("\n{NAME}");
    let loads = side_by_side(&available, async |chain| {
        let endpoints = FailingEndpoint::start_all(ENDPOINTS, 503)?;
        let mut next: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let mut servers = Vec::new();
        for proxy in chain.proxies.iter().rev() {
            let server = proxy.start(options, &folder.path().join(chain.name), &next, 1).await?;
            next = vec![server.address];
            servers.push(server);
        }
        let received = || endpoints.iter().map(|endpoint| endpoint.requests().len()).sum::<usize>();
        let before = received();
        let shapes = vec![RequestShape::get(HOST, "/")];
        let report = run(Plan { rate: Some(RATE), ..Plan::new(next[0], shapes, DURATION, CONNECTIONS) }).await;
        ensure!(report.failed == 0 && report.wrong > 0, "requests without a response:\n{report}");
        Ok((received() - before) as f64 / report.wrong as f64)
    })?;
    for (chain, load) in available.iter().zip(loads) {
        let target = chain.max_load.map(|most| super::verdict(&format!("at most {most:.2}"), load <= most));
        println!("  {:<48} {load:>5.2} × the requests  {}", chain.name, target.unwrap_or_default());
    }
    Ok(())
}

fn chains() -> Vec<Chain> {
    let portico = |name, further: Value| {
        let mut retry = json!({ "attempts": 3, "on": ["GatewayError"], "backoff": { "base": "1ms", "max": "1ms" } });
        for (field, value) in further.as_object().into_iter().flatten() {
            retry[field] = value.clone();
        }
        Variant::portico(name, json!({ "retry": retry }))
    };
    let counting = || json!({ "attemptHeader": "x-envoy-attempt-count", "respectAttempt": true });
    let action = json!({ "retry_policy": {
        "retry_on": "gateway-error", "num_retries": 3,
        "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.001s" },
    } });
    let budget = json!({ "circuit_breakers": { "thresholds": [{
        "retry_budget": { "budget_percent": { "value": 20.0 }, "min_retry_concurrency": 3 },
    }] } });
    let of_one = 1.2 + FLOOR / f64::from(RATE);
    vec![
        Chain { name: "Portico", proxies: vec![portico("one", json!({}))], max_load: Some(of_one) },
        Chain {
            name: "3 Portico in a row, with an attempt header",
            proxies: ["first", "second", "third"].map(|name| portico(name, counting())).into(),
            max_load: Some(1.25),
        },
        Chain {
            name: "3 Portico in a row, without",
            proxies: ["first", "second", "third"].map(|name| portico(name, json!({}))).into(),
            max_load: None,
        },
        Chain {
            name: "Envoy, as configured by default",
            proxies: vec![Variant::envoy("one", json!({}), action.clone())],
            max_load: None,
        },
        Chain {
            name: "Envoy, retry budget of 20 %",
            proxies: vec![Variant::envoy("one", budget, action)],
            max_load: None,
        },
    ]
}

/// Connections of the client, which stay open.
const CONNECTIONS: usize = 32;
