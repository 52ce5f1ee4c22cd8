//! Leader election among replicas, and statuses during changes of leadership.

use std::time::Duration;

use portico::compile::verdict::Code;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fake_api::{FakeStatusApi, RequestFailure};
use super::replica::{GATEWAY, StatusReplica, gateway_verdict, id, route, route_verdict, wait_until};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/portico-system/leases/portico-leader";

fn leads(replica: &StatusReplica) -> bool {
    *replica.leading.borrow()
}

fn holder(api: &FakeStatusApi) -> String {
    api.object(LEASE)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn first_replica_leads_at_once_and_renews() {
    let api = FakeStatusApi::new();
    let one = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    let spec = api.object(LEASE)["spec"].clone();
    assert!(holder(&api).starts_with("one_"), "{spec}");
    assert_eq!(spec["leaseDurationSeconds"], 10);
    let two = StatusReplica::start(&api, "two");
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        assert!(leads(&one) && !leads(&two));
    }
    let renewals = api.count("PATCH");
    assert!((55..=62).contains(&renewals), "every 2 s: {renewals} in 2 minutes");
}

#[tokio::test(start_paused = true)]
async fn stopped_leaders_are_replaced_in_2_s_killed_ones_in_15() {
    for (kill, limit) in [(false, 2), (true, 15)] {
        for round in 0..10 {
            let api = FakeStatusApi::new();
            let one = StatusReplica::start(&api, "one");
            wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
            let two = StatusReplica::start(&api, "two");
            let three = StatusReplica::start(&api, "three");
            sleep(Duration::from_millis(5000 + 317 * round)).await;
            if kill {
                one.kill()
            } else {
                one.stop().await
            }
            let next = || leads(&two) || leads(&three);
            let after = wait_until(Duration::from_secs(limit), "a successor", next).await;
            assert!(!kill || after > Duration::from_secs(7), "{after:?}: the leader may still have been alive");
            sleep(Duration::from_secs(30)).await;
            assert!(leads(&two) != leads(&three));
            assert_eq!(api.object(LEASE)["spec"]["leaseTransitions"], 1);
        }
    }
}

/// No status is lost or written twice: objects keep their resource version through a change of leader.
#[tokio::test(start_paused = true)]
async fn replicas_with_one_lease_never_write_twice() {
    let api = FakeStatusApi::new();
    let one = StatusReplica::start(&api, "one");
    let two = StatusReplica::start(&api, "two");
    let paths: Vec<_> = (0..20).map(|number| route(&number.to_string())).collect();
    let all = |code: Code, generation: i64, replicas: &[&StatusReplica]| {
        for path in &paths {
            for replica in replicas {
                replica.queue.set_verdict(id(path).unwrap(), Some(route_verdict(generation, code)));
            }
        }
    };
    paths.iter().for_each(|path| drop(api.put(path, 1, Value::Null)));
    all(Code::RouteAccepted, 1, &[&one, &two]);
    let statuses = |reason: &str| {
        let is_so = |path: &String| api.status(path)["parents"][0]["conditions"][0]["reason"] == reason;
        paths.iter().all(is_so)
    };
    wait_until(Duration::from_secs(3), "the statuses", || statuses("Accepted")).await;
    let (leader, follower) = if leads(&one) { (one, two) } else { (two, one) };
    leader.stop().await;
    wait_until(Duration::from_secs(2), "the successor", || leads(&follower)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((api.count("PATCH /apis/gateway"), api.count("409 PATCH /apis/gateway")), (20, 0));

    // Changes during the time without a leader are not lost.
    let third = StatusReplica::start(&api, "three");
    paths.iter().for_each(|path| drop(api.edit(path, |_| {})));
    follower.kill();
    paths.iter().for_each(|path| drop(api.edit(path, |_| {})));
    sleep(Duration::from_millis(10)).await;
    all(Code::RouteNoMatchingParent, 1, &[&third]);
    wait_until(Duration::from_secs(15), "the news", || statuses("NoMatchingParent")).await;
    assert_eq!(api.count("PATCH /apis/gateway"), 40);
}

#[tokio::test(start_paused = true)]
async fn leaders_that_cannot_renew_step_down_early() {
    for misfortune in
        [RequestFailure::Status(500, Value::Null), RequestFailure::NoResponse, RequestFailure::Status(403, Value::Null)]
    {
        let api = FakeStatusApi::new();
        let one = StatusReplica::start(&api, "one");
        wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
        sleep(Duration::from_secs(7)).await;
        api.fail_always("leases", Some(misfortune.clone()));
        let after = wait_until(Duration::from_secs(7), "giving up", || !leads(&one)).await;
        assert!(after >= Duration::from_secs(3), "{misfortune:?}: {after:?}");
        api.fail_always("leases", None);
        let again = if matches!(misfortune, RequestFailure::Status(403, _)) { 31 } else { 5 };
        wait_until(Duration::from_secs(again), "leading again", || leads(&one)).await;
    }
}

/// A replica that loses the Lease notices it with its next attempt.
#[tokio::test(start_paused = true)]
async fn leases_taken_by_others_are_lost() {
    let api = FakeStatusApi::new();
    let one = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    set_holder(&api, "other", "2020-01-01T00:00:00.000000Z");
    wait_until(Duration::from_secs(3), "losing it", || !leads(&one)).await;
    // Annotations from other clients do no harm.
    wait_until(Duration::from_secs(15), "taking it back", || leads(&one)).await;
    api.edit(LEASE, |_| {});
    sleep(Duration::from_secs(10)).await;
    assert!(leads(&one));
}

/// A holder whose clock is years off leads as long as it renews, and no longer.
#[tokio::test(start_paused = true)]
async fn clocks_of_other_holders_do_not_matter() {
    for year in [1999, 2099] {
        let api = FakeStatusApi::new();
        let one = StatusReplica::start(&api, "one");
        wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
        for second in 0..40 {
            set_holder(&api, "other", &format!("{year}-01-01T00:00:{second:02}.000000Z"));
            sleep(Duration::from_secs(2)).await;
            assert!(second == 0 || !leads(&one), "it renews, as if it were {year}");
        }
        let after = wait_until(Duration::from_secs(15), "its end", || leads(&one)).await;
        assert!(after >= Duration::from_secs(7), "{after:?}");
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
    let one = StatusReplica::start(&api, "one");
    api.put(GATEWAY, 1, Value::Null);
    one.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(api.count("PATCH"), 0);
    assert!(api.count("403") <= 5, "retries of forbidden calls are rare");
    api.fail_always("leases", None);
    wait_until(Duration::from_secs(31), "the status", || !api.status(GATEWAY).is_null()).await;
}

/// Writes in flight during shutdown are still carried out; the successor need not wait for the Lease to expire.
#[tokio::test(start_paused = true)]
async fn lease_is_released_despite_a_call_in_flight() {
    for verb in ["POST", "PATCH"] {
        let api = FakeStatusApi::new();
        if verb == "POST" {
            api.fail_next(verb, RequestFailure::NoResponse);
        }
        let one = StatusReplica::start(&api, "one");
        if verb == "PATCH" {
            wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
            api.fail_next(verb, RequestFailure::NoResponse);
        }
        let sent = format!("{verb} /apis/coordination");
        wait_until(Duration::from_secs(3), "the call", || api.count(&sent) == 1).await;
        assert!(holder(&api).starts_with("one_"));
        let two = StatusReplica::start(&api, "two");
        one.stop().await;
        assert_eq!(holder(&api), "", "after {verb}");
        wait_until(Duration::from_secs(2), "a successor", || leads(&two)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_leases_are_recreated_by_the_leader() {
    let api = FakeStatusApi::new();
    let one = StatusReplica::start(&api, "one");
    wait_until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    api.delete(LEASE);
    let mut follows = one.leading.clone();
    follows.mark_unchanged();
    wait_until(Duration::from_secs(3), "the new one", || holder(&api).starts_with("one_")).await;
    assert!(leads(&one) && !follows.has_changed().unwrap(), "leadership never changed");
}
