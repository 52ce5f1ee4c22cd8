//! Which statuses are written, how often, and how failures of the API server are handled.

use std::time::Duration;

use portico::verdict::Code;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::fake_api::{FakeStatusApi, RequestFailure};
use super::replica::{CONTROLLER, GATEWAY, StatusReplica, gateway_verdict, id, route, route_verdict, wait_until};

const LIMIT: Duration = Duration::from_millis(500);

/// A leading replica, and the Gateway with its first status written.
async fn replica_with_status() -> (FakeStatusApi, StatusReplica, watch::Sender<bool>) {
    let api = FakeStatusApi::new();
    let (leadership, leading) = watch::channel(true);
    let replica = StatusReplica::with_leadership(&api, leading);
    api.put(GATEWAY, 1, Value::Null);
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    wait_until(LIMIT, "the first status", || api.count("PATCH") == 1).await;
    (api, replica, leadership)
}

/// Waits long enough for all pending writes.
async fn wait_long() {
    sleep(Duration::from_secs(120)).await; // Time is paused.
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_written_once() {
    let (api, replica, _leadership) = replica_with_status().await;
    wait_long().await;
    let log = api.log("");
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].1, format!("PATCH {GATEWAY}/status"));
    let status = api.status(GATEWAY);
    assert_eq!(status["conditions"][1]["reason"], "Programmed");
    assert_eq!(status["conditions"][1]["observedGeneration"], 1);
    assert_eq!(status["listeners"][0]["supportedKinds"], json!([]));
    assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));

    // An equal verdict and an unchanged object need no write.
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    api.edit(GATEWAY, |_| {});
    wait_long().await;
    assert_eq!(api.count(""), 1);

    // Successive changes do not conflict: each is based on the response to the previous one.
    for routes in 1..=5 {
        replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, routes)));
        wait_until(LIMIT, "the change", || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == routes).await;
    }
    assert_eq!((api.count("PATCH"), api.count("409")), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn concurrent_writes_of_others_are_kept() {
    let (api, replica, _leadership) = replica_with_status().await;
    let path = route("shared");
    api.put(&path, 1, Value::Null);
    sleep(Duration::from_millis(10)).await; // Time is paused.
    // The watch reports the entry of the other controller only after the write has failed.
    let foreign_entry = json!({
        "parentRef": {"name": "theirs"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "note": [1, {"b": null, "a": 2}]}],
    });
    let entry = foreign_entry.clone();
    replica.queue.set_verdict(id(&path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
    api.edit(&path, |status| *status = json!({"parents": [entry]}));
    wait_until(LIMIT, "both entries", || api.status(&path)["parents"].as_array().unwrap().len() == 2).await;
    assert_eq!(api.count(&format!("409 PATCH {path}")), 1);
    let status = api.status(&path);
    assert_eq!(status["parents"][0].to_string(), foreign_entry.to_string());
    assert_eq!(status["parents"][1]["controllerName"], CONTROLLER);
    wait_long().await;
    assert_eq!(api.count(&format!(" PATCH {path}")) + api.count(&path), 3, "a conflict, and one write");
}

/// The watch has not reported the change that caused the conflict, so the object is fetched.
#[tokio::test(start_paused = true)]
async fn unexplained_conflicts_cause_a_fetch() {
    let (api, replica, _leadership) = replica_with_status().await;
    api.fail_next("PATCH", RequestFailure::Status(409, Value::Null));
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    wait_until(LIMIT, "the write", || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7).await;
    assert_eq!((api.count("GET"), api.count("PATCH")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn deleted_objects_are_not_retried() {
    let (api, replica, _leadership) = replica_with_status().await;
    api.fail_always("PATCH", Some(RequestFailure::Status(404, Value::Null)));
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    wait_until(LIMIT, "a failed write", || api.count("404 PATCH") > 0).await;
    api.delete(GATEWAY);
    sleep(LIMIT).await; // Time is paused.
    let attempts = api.count("");
    wait_long().await;
    assert_eq!(api.count(""), attempts);
    // The Gateway is created again under the same name.
    api.fail_always("PATCH", None);
    api.put(GATEWAY, 1, Value::Null);
    wait_until(LIMIT, "the successor's status", || !api.status(GATEWAY).is_null()).await;
}

/// For an existing object, a load balancer in front of API servers may return 404, and a server that has lost its
/// history 410.
#[tokio::test(start_paused = true)]
async fn spurious_404_and_410_are_retried() {
    for code in [404, 410] {
        let (api, replica, _leadership) = replica_with_status().await;
        api.fail_next("PATCH", RequestFailure::Status(code, Value::Null));
        replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
        let written = || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7;
        wait_until(LIMIT, &format!("the status after {code}"), written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_only_its_object() {
    let (api, replica, _leadership) = replica_with_status().await;
    let begin = Instant::now();
    api.fail_next(GATEWAY, RequestFailure::Status(429, json!({"retryAfterSeconds": 20})));
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    let other = route("other");
    api.put(&other, 1, Value::Null);
    replica.queue.set_verdict(id(&other).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
    wait_until(LIMIT, "the status of the other object", || !api.status(&other).is_null()).await;
    wait_until(Duration::from_secs(21), "the status", || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7)
        .await;
    assert!(begin.elapsed() >= Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn statuses_catch_up_after_an_outage() {
    for failure in
        [RequestFailure::Status(503, Value::Null), RequestFailure::Status(401, Value::Null), RequestFailure::NoResponse]
    {
        let (api, replica, _leadership) = replica_with_status().await;
        let paths: Vec<_> = (0..40).map(|number| route(&number.to_string())).collect();
        api.fail_always("PATCH", Some(failure.clone()));
        for path in &paths {
            api.put(path, 1, Value::Null);
            replica.queue.set_verdict(id(path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
        }
        sleep(Duration::from_secs(90)).await; // Time is paused.
        api.fail_always("PATCH", None);
        let written = || paths.iter().all(|path| api.status(path)["parents"][0]["controllerName"] == CONTROLLER);
        wait_until(Duration::from_secs(21), &format!("all statuses after {failure:?}"), written).await;
        wait_long().await;
        for path in &paths {
            let line = format!("PATCH {path}/status");
            let writes = api.log(path).iter().filter(|(_, request_line, _)| *request_line == line).count();
            assert_eq!(writes, 1, "{path} after {failure:?}");
        }
    }
}

/// A rejected field must neither stop the writer nor flood the API server.
#[tokio::test(start_paused = true)]
async fn rejected_writes_are_retried_rarely() {
    let (api, replica, _leadership) = replica_with_status().await;
    api.fail_always(GATEWAY, Some(RequestFailure::Status(422, Value::Null)));
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    wait_long().await;
    let attempts = api.count("422");
    assert!((5..=15).contains(&attempts), "{attempts} in two minutes");
}

#[tokio::test(start_paused = true)]
async fn statuses_are_written_only_with_the_lease() {
    let (api, replica, leadership) = replica_with_status().await;
    leadership.send(false).unwrap();
    sleep(Duration::from_millis(1)).await; // Time is paused.
    for routes in 1..=3 {
        replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, routes)));
        sleep(Duration::from_secs(1)).await; // Time is paused.
    }
    assert_eq!(api.count(""), 1);
    leadership.send(true).unwrap();
    wait_until(LIMIT, "the latest status", || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 3).await;
    assert_eq!(api.count(""), 2);

    // Leadership is lost during a write: its response is not awaited, and its effect is found later.
    api.fail_next("PATCH", RequestFailure::NoResponse);
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 4)));
    wait_until(LIMIT, "the write", || api.count("") == 3).await;
    leadership.send(false).unwrap();
    sleep(Duration::from_secs(1)).await; // Time is paused.
    leadership.send(true).unwrap();
    wait_long().await;
    assert_eq!(api.count(""), 3, "the earlier write had succeeded");
}

/// A CRD of an older release drops unknown fields.
#[tokio::test(start_paused = true)]
async fn fields_dropped_by_the_crd_are_not_rewritten() {
    let (api, replica, _leadership) = replica_with_status().await;
    api.drop_field("addresses");
    replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
    wait_until(LIMIT, "the write", || api.count("") == 2).await;
    assert_eq!(api.status(GATEWAY)["addresses"], Value::Null);
    for _ in 0..3 {
        api.edit(GATEWAY, |_| {});
        replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
        sleep(Duration::from_secs(2)).await; // Time is paused.
    }
    assert_eq!(api.count(""), 2);
    // Foreign edits of Portico's conditions are reverted, also in a partially stored status.
    api.edit(GATEWAY, |status| status["conditions"][0]["status"] = json!("False"));
    wait_until(LIMIT, "the restored condition", || api.status(GATEWAY)["conditions"][0]["status"] == "True").await;
    assert_eq!(api.count(""), 3);
}

/// A thousand routes at once: each gets its status, their Gateway at most 16 writes, and the final count of routes is
/// written within half a second of the last route.
#[tokio::test(start_paused = true)]
async fn a_thousand_routes_cost_few_gateway_writes() {
    for (interval, limit) in [(0, 4), (3, 12), (16, 15)] {
        let (api, replica, _leadership) = replica_with_status().await;
        for number in 1..=1000 {
            let path = route(&number.to_string());
            api.put(&path, 1, Value::Null);
            replica.queue.set_verdict(id(&path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
            replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, number)));
            // Time is paused: the sleep sets when the routes arrive, and lets the writer run.
            if interval > 0 || number % 100 == 0 {
                sleep(Duration::from_millis(interval.max(1))).await; // Time is paused.
            }
        }
        wait_until(LIMIT, "the count", || api.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 1000).await;
        let writes = api.count(GATEWAY);
        assert!(writes <= limit + 1, "{writes} writes, one route every {interval} ms");
        wait_until(Duration::from_secs(2), "the routes", || api.count("PATCH") == writes + 1000).await;
        wait_long().await;
        assert_eq!(api.count(""), writes + 1000);
    }
}
