//! Leader election among replicas, and statuses during changes of leadership.

use std::time::Duration;

use portico::verdict::Code;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fake_api::{FakeStatusApi, RequestFailure};
use super::replica::{GATEWAY, StatusReplica, gateway_verdict, id, route, route_verdict, wait_until};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/portico-system/leases/portico-leader";

fn is_leading(replica: &StatusReplica) -> bool {
    *replica.leading.borrow()
}

fn holder(api: &FakeStatusApi) -> String {
    api.object(LEASE)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn first_replica_leads_at_once_and_renews() {
    let api = FakeStatusApi::new();
    let first = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
    let spec = api.object(LEASE)["spec"].clone();
    assert!(holder(&api).starts_with("one_"), "{spec}");
    assert_eq!(spec["leaseDurationSeconds"], 10);
    let second = StatusReplica::start(&api, "two");
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await; // Time is paused.
        assert!(is_leading(&first) && !is_leading(&second));
    }
    let renewals = api.count("PATCH");
    assert!((55..=62).contains(&renewals), "every 2 s: {renewals} in 2 minutes");
}

#[tokio::test(start_paused = true)]
async fn stopped_leaders_are_replaced_in_2_s_killed_ones_in_15() {
    for (is_killed, limit) in [(false, 2), (true, 15)] {
        for round in 0..10 {
            let api = FakeStatusApi::new();
            let first = StatusReplica::start(&api, "one");
            wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
            let second = StatusReplica::start(&api, "two");
            let third = StatusReplica::start(&api, "three");
            sleep(Duration::from_millis(5000 + 317 * round)).await; // Time is paused.
            if is_killed {
                first.kill()
            } else {
                first.stop().await
            }
            let has_successor = || is_leading(&second) || is_leading(&third);
            let elapsed = wait_until(Duration::from_secs(limit), "a successor", has_successor).await;
            assert!(
                !is_killed || elapsed > Duration::from_secs(7),
                "{elapsed:?}: the leader may still have been alive"
            );
            sleep(Duration::from_secs(30)).await; // Time is paused.
            assert!(is_leading(&second) != is_leading(&third));
            assert_eq!(api.object(LEASE)["spec"]["leaseTransitions"], 1);
        }
    }
}

/// No status is lost or written twice: objects keep their resource version through a change of leader.
#[tokio::test(start_paused = true)]
async fn replicas_with_one_lease_never_write_twice() {
    let api = FakeStatusApi::new();
    let first = StatusReplica::start(&api, "one");
    let second = StatusReplica::start(&api, "two");
    let paths: Vec<_> = (0..20).map(|number| route(&number.to_string())).collect();
    let set_verdicts = |code: Code, generation: i64, replicas: &[&StatusReplica]| {
        for path in &paths {
            for replica in replicas {
                replica.queue.set_verdict(id(path).unwrap(), Some(route_verdict(generation, code)));
            }
        }
    };
    paths.iter().for_each(|path| drop(api.put(path, 1, Value::Null)));
    set_verdicts(Code::RouteAccepted, 1, &[&first, &second]);
    let all_have_reason = |reason: &str| {
        let has_reason = |path: &String| api.status(path)["parents"][0]["conditions"][0]["reason"] == reason;
        paths.iter().all(has_reason)
    };
    wait_until(Duration::from_secs(3), "the statuses", || all_have_reason("Accepted")).await;
    let (leader, follower) = if is_leading(&first) { (first, second) } else { (second, first) };
    leader.stop().await;
    wait_until(Duration::from_secs(2), "the successor", || is_leading(&follower)).await;
    sleep(Duration::from_secs(60)).await; // Time is paused.
    assert_eq!((api.count("PATCH /apis/gateway"), api.count("409 PATCH /apis/gateway")), (20, 0));

    // Changes during the time without a leader are not lost.
    let third = StatusReplica::start(&api, "three");
    paths.iter().for_each(|path| drop(api.edit(path, |_| {})));
    follower.kill();
    paths.iter().for_each(|path| drop(api.edit(path, |_| {})));
    sleep(Duration::from_millis(10)).await; // Time is paused.
    set_verdicts(Code::RouteNoMatchingParent, 1, &[&third]);
    wait_until(Duration::from_secs(15), "the new statuses", || all_have_reason("NoMatchingParent")).await;
    assert_eq!(api.count("PATCH /apis/gateway"), 40);
}

#[tokio::test(start_paused = true)]
async fn leaders_that_cannot_renew_step_down_early() {
    for failure in
        [RequestFailure::Status(500, Value::Null), RequestFailure::NoResponse, RequestFailure::Status(403, Value::Null)]
    {
        let api = FakeStatusApi::new();
        let first = StatusReplica::start(&api, "one");
        wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
        sleep(Duration::from_secs(7)).await; // Time is paused.
        api.fail_always("leases", Some(failure.clone()));
        let elapsed = wait_until(Duration::from_secs(7), "giving up", || !is_leading(&first)).await;
        assert!(elapsed >= Duration::from_secs(3), "{failure:?}: {elapsed:?}");
        api.fail_always("leases", None);
        let retry_seconds = if matches!(failure, RequestFailure::Status(403, _)) { 31 } else { 5 };
        wait_until(Duration::from_secs(retry_seconds), "leading again", || is_leading(&first)).await;
    }
}

/// A replica that loses the Lease notices it with its next attempt to renew it.
#[tokio::test(start_paused = true)]
async fn leases_taken_by_others_are_lost() {
    let api = FakeStatusApi::new();
    let first = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
    set_holder(&api, "other", "2020-01-01T00:00:00.000000Z");
    wait_until(Duration::from_secs(3), "losing it", || !is_leading(&first)).await;
    wait_until(Duration::from_secs(15), "taking it back", || is_leading(&first)).await;
    // A new resource version, such as after another client annotates the Lease, does not end the leadership.
    api.edit(LEASE, |_| {});
    sleep(Duration::from_secs(10)).await; // Time is paused.
    assert!(is_leading(&first));
}

/// A holder whose clock is years off leads as long as it renews, and no longer.
#[tokio::test(start_paused = true)]
async fn clocks_of_other_holders_do_not_matter() {
    for year in [1999, 2099] {
        let api = FakeStatusApi::new();
        let first = StatusReplica::start(&api, "one");
        wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
        for second in 0..40 {
            set_holder(&api, "other", &format!("{year}-01-01T00:00:{second:02}.000000Z"));
            sleep(Duration::from_secs(2)).await; // Time is paused.
            assert!(second == 0 || !is_leading(&first), "the other holder renews with times in {year}");
        }
        let elapsed = wait_until(Duration::from_secs(15), "its end", || is_leading(&first)).await;
        assert!(elapsed >= Duration::from_secs(7), "{elapsed:?}");
    }
}

fn set_holder(api: &FakeStatusApi, holder: &str, renewed: &str) {
    let mut spec = api.object(LEASE)["spec"].clone();
    spec["holderIdentity"] = json!(holder);
    spec["renewTime"] = json!(renewed);
    api.edit_object(LEASE, |object| object["spec"] = spec);
}

#[tokio::test(start_paused = true)]
async fn without_lease_permission_nothing_is_written() {
    let api = FakeStatusApi::new();
    api.fail_always("leases", Some(RequestFailure::Status(403, Value::Null)));
    let first = StatusReplica::start(&api, "one");
    api.put(GATEWAY, 1, Value::Null);
    first.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    sleep(Duration::from_secs(120)).await; // Time is paused.
    assert_eq!(api.count("PATCH"), 0);
    assert!(api.count("403") <= 5, "retries of forbidden calls are rare");
    api.fail_always("leases", None);
    wait_until(Duration::from_secs(31), "the status", || !api.status(GATEWAY).is_null()).await;
}

/// A write of the Lease may be in flight during shutdown. The Lease is released nevertheless, so that the successor
/// need not wait for it to expire.
#[tokio::test(start_paused = true)]
async fn lease_is_released_despite_a_call_in_flight() {
    for verb in ["POST", "PATCH"] {
        let api = FakeStatusApi::new();
        if verb == "POST" {
            api.fail_next(verb, RequestFailure::NoResponse);
        }
        let first = StatusReplica::start(&api, "one");
        if verb == "PATCH" {
            wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
            api.fail_next(verb, RequestFailure::NoResponse);
        }
        let request_line = format!("{verb} /apis/coordination");
        wait_until(Duration::from_secs(3), "the call", || api.count(&request_line) == 1).await;
        assert!(holder(&api).starts_with("one_"));
        let second = StatusReplica::start(&api, "two");
        first.stop().await;
        assert_eq!(holder(&api), "", "after {verb}");
        wait_until(Duration::from_secs(2), "a successor", || is_leading(&second)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_leases_are_recreated_by_the_leader() {
    let api = FakeStatusApi::new();
    let first = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || is_leading(&first)).await;
    api.delete(LEASE);
    let mut leadership = first.leading.clone();
    leadership.mark_unchanged();
    wait_until(Duration::from_secs(3), "the new Lease", || holder(&api).starts_with("one_")).await;
    assert!(is_leading(&first) && !leadership.has_changed().unwrap(), "leadership never changed");
}
