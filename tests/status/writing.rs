//! What is written, how often, and what becomes of it when the API server is not kind.

use std::time::Duration;

use portico::compile::verdict::Code;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::played::{Misfortune, Played};
use super::replica::{GATEWAY, Replica, US, gateway_verdict, id, route, route_verdict, until};

const SOON: Duration = Duration::from_millis(500);

/// A replica that leads, and the Gateway with its first status written.
async fn settled() -> (Played, Replica, watch::Sender<bool>) {
    let played = Played::new();
    let (leads, leading) = watch::channel(true);
    let replica = Replica::led(&played, leading);
    played.put(GATEWAY, 1, Value::Null);
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    until(SOON, "the first status", || played.count("PATCH") == 1).await;
    (played, replica, leads)
}

/// Long enough for anything that was going to happen.
async fn nothing_more() {
    sleep(Duration::from_secs(120)).await;
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_written_once() {
    let (played, replica, _leads) = settled().await;
    nothing_more().await;
    let log = played.log("");
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].1, format!("PATCH {GATEWAY}/status"));
    let status = played.status(GATEWAY);
    assert_eq!(status["conditions"][1]["reason"], "Programmed");
    assert_eq!(status["conditions"][1]["observedGeneration"], 1);
    assert_eq!(status["listeners"][0]["supportedKinds"], json!([]));
    assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));

    // The same verdict again, and the object as it is: nothing to write.
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    played.edit(GATEWAY, |_| {});
    nothing_more().await;
    assert_eq!(played.count(""), 1);

    // Two changes one after the other do not get into each other's way: each builds on the answer to the one before.
    for routes in 1..=5 {
        replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, routes)));
        until(SOON, "the change", || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == routes).await;
    }
    assert_eq!((played.count("PATCH"), played.count("409")), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn what_others_write_in_between_stays() {
    let (played, replica, _leads) = settled().await;
    let path = route("shared");
    played.put(&path, 1, Value::Null);
    sleep(Duration::from_millis(10)).await;
    // Seen by us only after our write has failed.
    let theirs = json!({
        "parentRef": {"name": "theirs"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "note": [1, {"b": null, "a": 2}]}],
    });
    let entry = theirs.clone();
    replica.desk.want(id(&path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
    played.edit(&path, |status| *status = json!({"parents": [entry]}));
    until(SOON, "both entries", || played.status(&path)["parents"].as_array().unwrap().len() == 2).await;
    assert_eq!(played.count(&format!("409 PATCH {path}")), 1);
    let status = played.status(&path);
    assert_eq!(status["parents"][0].to_string(), theirs.to_string());
    assert_eq!(status["parents"][1]["controllerName"], US);
    nothing_more().await;
    assert_eq!(played.count(&format!(" PATCH {path}")) + played.count(&path), 3, "a conflict, and one write");
}

/// The watch is late: then the object is asked for.
#[tokio::test(start_paused = true)]
async fn a_conflict_that_the_watch_does_not_explain_is_looked_into() {
    let (played, replica, _leads) = settled().await;
    played.next("PATCH", Misfortune::Status(409, Value::Null));
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    until(SOON, "the write", || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7).await;
    assert_eq!((played.count("GET"), played.count("PATCH")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_not_asked_for_again() {
    let (played, replica, _leads) = settled().await;
    played.always("PATCH", Some(Misfortune::Status(404, Value::Null)));
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    until(SOON, "a write in vain", || played.count("404 PATCH") > 0).await;
    played.delete(GATEWAY);
    sleep(SOON).await;
    let tries = played.count("");
    nothing_more().await;
    assert_eq!(played.count(""), tries);
    // It comes back under the same name.
    played.always("PATCH", None);
    played.put(GATEWAY, 1, Value::Null);
    until(SOON, "the successor's status", || !played.status(GATEWAY).is_null()).await;
}

/// As a balancer in front of API servers may say, or one that has lost its history.
#[tokio::test(start_paused = true)]
async fn a_status_is_written_although_something_said_that_there_is_no_such_object() {
    for code in [404, 410] {
        let (played, replica, _leads) = settled().await;
        played.next("PATCH", Misfortune::Status(code, Value::Null));
        replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
        let written = || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7;
        until(SOON, &format!("the status after {code}"), written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_wait_waits_and_nobody_else() {
    let (played, replica, _leads) = settled().await;
    let begin = Instant::now();
    played.next(GATEWAY, Misfortune::Status(429, json!({"retryAfterSeconds": 20})));
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    let other = route("other");
    played.put(&other, 1, Value::Null);
    replica.desk.want(id(&other).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
    until(SOON, "the other's status", || !played.status(&other).is_null()).await;
    until(Duration::from_secs(21), "the status", || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 7)
        .await;
    assert!(begin.elapsed() >= Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_statuses_catch_up() {
    for misfortune in [Misfortune::Status(503, Value::Null), Misfortune::Status(401, Value::Null), Misfortune::Silence]
    {
        let (played, replica, _leads) = settled().await;
        let names: Vec<_> = (0..40).map(|number| route(&number.to_string())).collect();
        played.always("PATCH", Some(misfortune.clone()));
        for path in &names {
            played.put(path, 1, Value::Null);
            replica.desk.want(id(path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
        }
        sleep(Duration::from_secs(90)).await;
        played.always("PATCH", None);
        let written = || names.iter().all(|path| played.status(path)["parents"][0]["controllerName"] == US);
        until(Duration::from_secs(21), &format!("all statuses after {misfortune:?}"), written).await;
        nothing_more().await;
        for path in &names {
            let line = format!("PATCH {path}/status");
            let writes = played.log(path).iter().filter(|(_, done, _)| *done == line).count();
            assert_eq!(writes, 1, "{path} after {misfortune:?}");
        }
    }
}

/// A write that was refused because a field is wrong is no reason to stop, nor to flood.
#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_seldom() {
    let (played, replica, _leads) = settled().await;
    played.always(GATEWAY, Some(Misfortune::Status(422, Value::Null)));
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 7)));
    nothing_more().await;
    let tries = played.count("422");
    assert!((5..=15).contains(&tries), "{tries} in two minutes");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lease_and_everything_with_it() {
    let (played, replica, leads) = settled().await;
    leads.send(false).unwrap();
    sleep(Duration::from_millis(1)).await;
    for routes in 1..=3 {
        replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, routes)));
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(played.count(""), 1);
    leads.send(true).unwrap();
    until(SOON, "the latest", || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 3).await;
    assert_eq!(played.count(""), 2);

    // Lost while a write is on its way: its answer is not waited for, and what it did is found out.
    played.next("PATCH", Misfortune::Silence);
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 4)));
    until(SOON, "the write", || played.count("") == 3).await;
    leads.send(false).unwrap();
    sleep(Duration::from_secs(1)).await;
    leads.send(true).unwrap();
    nothing_more().await;
    assert_eq!(played.count(""), 3, "it was written already");
}

/// A CRD of an older release drops what it does not know.
#[tokio::test(start_paused = true)]
async fn what_the_api_server_drops_is_not_written_again_and_again() {
    let (played, replica, _leads) = settled().await;
    played.does_not_know("addresses");
    replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
    until(SOON, "the write", || played.count("") == 2).await;
    assert_eq!(played.status(GATEWAY)["addresses"], Value::Null);
    for _ in 0..3 {
        played.edit(GATEWAY, |_| {});
        replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(played.count(""), 2);
    // Somebody meddles with what is ours: that is mended, clipped or not.
    played.edit(GATEWAY, |status| status["conditions"][0]["status"] = json!("False"));
    until(SOON, "the mended condition", || played.status(GATEWAY)["conditions"][0]["status"] == "True").await;
    assert_eq!(played.count(""), 3);
}

/// A thousand routes at once: every one has its status, their Gateway at most 20 writes, and the final count is there
/// within half a second of the last.
#[tokio::test(start_paused = true)]
async fn a_thousand_routes_cost_their_gateway_a_handful_of_writes() {
    for (every, limit) in [(0, 4), (3, 12), (16, 15)] {
        let (played, replica, _leads) = settled().await;
        for number in 1..=1000 {
            let path = route(&number.to_string());
            played.put(&path, 1, Value::Null);
            replica.desk.want(id(&path).unwrap(), Some(route_verdict(1, Code::RouteAccepted)));
            replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, number)));
            if every > 0 || number % 100 == 0 {
                sleep(Duration::from_millis(every.max(1))).await;
            }
        }
        until(SOON, "the count", || played.status(GATEWAY)["listeners"][0]["attachedRoutes"] == 1000).await;
        let writes = played.count(GATEWAY);
        assert!(writes <= limit + 1, "{writes} writes, one route every {every} ms");
        until(Duration::from_secs(2), "the routes", || played.count("PATCH") == writes + 1000).await;
        nothing_more().await;
        assert_eq!(played.count(""), writes + 1000);
    }
}
