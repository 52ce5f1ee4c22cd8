//! The same endpoints, failures and requests through Portico and Envoy: shares, ejections, retries and limits are
//! compared. docs/tasks/load-balancing.md names the differences that the tests show.

mod backends;
mod proxies;

use std::collections::BTreeMap;
use std::thread;

use serde_json::json;

use crate::harness::eventually;
use backends::Behavior;
use proxies::{Proxy, Setup, count_status};

const OK: Behavior = Behavior::Respond(200);

#[test]
fn round_robin_gives_equal_shares() {
    let setup = Setup {
        behaviors: &[OK; 4],
        policy: json!({ "loadBalancing": { "algorithm": "RoundRobin" } }),
        cluster: json!({ "lb_policy": "ROUND_ROBIN" }),
        action: json!({}),
    };
    for proxy in setup.start() {
        assert_eq!(proxy.count_status(200, 200), 200, "{}", proxy.name);
        assert_eq!(proxy.requests(), [50; 4], "{}", proxy.name);
    }
}

/// Which endpoint has which key differs, because each sorts and names endpoints in its own way.
#[test]
fn hashing_keeps_keys_at_their_endpoints() {
    let paths = || (0..400).map(|key| format!("/{key}"));
    for (algorithm, policy) in [("RingHash", "RING_HASH"), ("Maglev", "MAGLEV")] {
        let setup = Setup {
            behaviors: &[OK; 4],
            policy: json!({ "loadBalancing": { "algorithm": algorithm, "hash": { "keys": [{ "source": "Path" }] } } }),
            cluster: json!({ "lb_policy": policy }),
            action: json!({ "hash_policy": [{ "header": { "header_name": ":path" } }] }),
        };
        for proxy in setup.start() {
            let endpoints = |proxy: &Proxy| -> BTreeMap<String, String> {
                let responses = proxy.get_all(paths());
                paths().zip(responses.into_iter().map(|response| response.body)).collect()
            };
            let first = endpoints(&proxy);
            assert_eq!(first, endpoints(&proxy), "{} with {algorithm}", proxy.name);
            let shares = proxy.requests();
            assert!(shares.iter().all(|share| (100..350).contains(share)), "{} {algorithm}: {shares:?}", proxy.name);
        }
    }
}

#[test]
fn consecutive_errors_eject_an_endpoint() {
    let setup = Setup {
        behaviors: &[Behavior::Respond(500), OK, OK, OK],
        policy: json!({ "health": { "passive": { "serverErrors": 5, "baseEjection": "300s" } } }),
        cluster: json!({ "outlier_detection": {
            "consecutive_5xx": 5, "base_ejection_time": "300s", "max_ejection_percent": 50,
        } }),
        action: json!({}),
    };
    let [portico, envoy] = setup.start();
    assert_eq!(portico.count_status(200, 500), 5);
    assert_eq!(portico.requests()[0], 5);
    // Envoy ejects endpoints on its main thread, and its workers learn of it later: it promises an end of the errors,
    // not after which one.
    let errors = envoy.count_status(200, 500);
    assert!(errors >= 5, "{errors}");
    eventually("Envoy's worker uses the endpoint no more", || (envoy.count_status(20, 500) == 0).then_some(()));
}

/// Of two endpoints, 10 % is none for Envoy. Portico always allows one.
#[test]
fn portico_ejects_one_of_two_endpoints_where_envoy_ejects_none() {
    let setup = Setup {
        behaviors: &[Behavior::Respond(500), OK],
        policy: json!({ "health": {
            "maxEjectionPercent": 10, "passive": { "serverErrors": 5, "baseEjection": "300s" },
        } }),
        cluster: json!({ "outlier_detection": { "consecutive_5xx": 5, "base_ejection_time": "300s" } }),
        action: json!({}),
    };
    let [portico, envoy] = setup.start();
    assert_eq!(portico.count_status(100, 500), 5);
    assert_eq!(envoy.count_status(100, 500), 50);
}

/// Envoy limits the retries at a time, so that clients that send one request after the other multiply their load by
/// four. Portico limits their ratio to the requests.
#[test]
fn retry_budget_of_portico_limits_the_load_where_that_of_envoy_does_not() {
    let setup = Setup {
        behaviors: &[Behavior::Respond(503); 2],
        policy: json!({
            "retry": { "attempts": 3, "retryOn": ["GatewayError"], "backoff": { "base": "1ms", "max": "1ms" } },
            "retryBudget": { "percent": 20, "interval": "1h", "minRetryRate": { "count": 1, "interval": "1h" } },
        }),
        cluster: json!({ "circuit_breakers": { "thresholds": [{
            "retry_budget": { "budget_percent": { "value": 20.0 }, "min_retry_concurrency": 3 },
        }] } }),
        action: json!({ "retry_policy": {
            "retry_on": "gateway-error", "num_retries": 3, "retry_back_off": { "base_interval": "0.001s" },
        } }),
    };
    let [portico, envoy] = setup.start();
    assert_eq!(portico.count_status(100, 503), 100);
    assert_eq!(envoy.count_status(100, 503), 100);
    assert_eq!(envoy.requests().iter().sum::<usize>(), 400);
    let tries: usize = portico.requests().iter().sum();
    assert!((101..=121).contains(&tries), "{tries}");
}

#[test]
fn requests_beyond_the_limit_fail_at_once() {
    let setup = Setup {
        behaviors: &[Behavior::Wait],
        policy: json!({ "limits": { "maxRequests": 3 } }),
        cluster: json!({ "circuit_breakers": { "thresholds": [{ "max_requests": 3 }] } }),
        action: json!({}),
    };
    for proxy in setup.start() {
        let wait = |_| {
            let address = proxy.address.clone();
            thread::spawn(move || count_status(&address, 1, 200))
        };
        let waiting: Vec<_> = (0..3).map(wait).collect();
        eventually("the endpoint has three requests", || (proxy.requests() == [3]).then_some(()));
        assert_eq!(proxy.count_status(3, 503), 3, "{}", proxy.name);
        proxy.backends[0].open();
        let admitted: usize = waiting.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(admitted, 3, "{}", proxy.name);
        assert_eq!(proxy.count_status(3, 200), 3, "{}: there is room again", proxy.name);
    }
}
