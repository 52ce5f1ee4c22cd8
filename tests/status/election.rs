//! Several replicas, one Lease: who leads, and what becomes of statuses when that changes.

use std::time::Duration;

use portico::compile::verdict::Code;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::played::{Misfortune, Played};
use super::replica::{GATEWAY, Replica, gateway_verdict, id, route, route_verdict, until};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/portico-system/leases/portico-leader";

fn leads(replica: &Replica) -> bool {
    *replica.leading.borrow()
}

fn holder(played: &Played) -> String {
    played.object(LEASE)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_leads_at_once_and_renews() {
    let played = Played::new();
    let one = Replica::start(&played, "one");
    until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    let spec = played.object(LEASE)["spec"].clone();
    assert!(holder(&played).starts_with("one_"), "{spec}");
    assert_eq!(spec["leaseDurationSeconds"], 10);
    let two = Replica::start(&played, "two");
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        assert!(leads(&one) && !leads(&two));
    }
    let renewals = played.count("PATCH");
    assert!((55..=62).contains(&renewals), "every 2 s: {renewals} in 2 minutes");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_is_replaced_within_2_s_and_one_that_is_killed_within_15() {
    for (kill, limit) in [(false, 2), (true, 15)] {
        for round in 0..10 {
            let played = Played::new();
            let one = Replica::start(&played, "one");
            until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
            let two = Replica::start(&played, "two");
            let three = Replica::start(&played, "three");
            sleep(Duration::from_millis(5000 + 317 * round)).await;
            if kill {
                one.kill()
            } else {
                one.stop().await
            }
            let next = || leads(&two) || leads(&three);
            let after = until(Duration::from_secs(limit), "a successor", next).await;
            assert!(!kill || after > Duration::from_secs(7), "{after:?}: it might have been alive");
            sleep(Duration::from_secs(30)).await;
            assert!(leads(&two) != leads(&three));
            assert_eq!(played.object(LEASE)["spec"]["leaseTransitions"], 1);
        }
    }
}

/// No status is lost or written twice, whoever leads: objects keep their resource version through a change of leader.
#[tokio::test(start_paused = true)]
async fn two_writers_with_one_lease_never_write_twice() {
    let played = Played::new();
    let one = Replica::start(&played, "one");
    let two = Replica::start(&played, "two");
    let paths: Vec<_> = (0..20).map(|number| route(&number.to_string())).collect();
    let all = |code: Code, generation: i64, replicas: &[&Replica]| {
        for path in &paths {
            for replica in replicas {
                replica.desk.want(id(path).unwrap(), Some(route_verdict(generation, code)));
            }
        }
    };
    paths.iter().for_each(|path| drop(played.put(path, 1, Value::Null)));
    all(Code::RouteAccepted, 1, &[&one, &two]);
    let statuses = |reason: &str| {
        let is_so = |path: &String| played.status(path)["parents"][0]["conditions"][0]["reason"] == reason;
        paths.iter().all(is_so)
    };
    until(Duration::from_secs(3), "the statuses", || statuses("Accepted")).await;
    let (leader, follower) = if leads(&one) { (one, two) } else { (two, one) };
    leader.stop().await;
    until(Duration::from_secs(2), "the successor", || leads(&follower)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((played.count("PATCH /apis/gateway"), played.count("409 PATCH /apis/gateway")), (20, 0));

    // What changed while nobody led is not lost.
    let third = Replica::start(&played, "three");
    paths.iter().for_each(|path| drop(played.edit(path, |_| {})));
    follower.kill();
    paths.iter().for_each(|path| drop(played.edit(path, |_| {})));
    sleep(Duration::from_millis(10)).await;
    all(Code::RouteNoMatchingParent, 1, &[&third]);
    until(Duration::from_secs(15), "the news", || statuses("NoMatchingParent")).await;
    assert_eq!(played.count("PATCH /apis/gateway"), 40);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_gives_up_before_others_take_over() {
    for misfortune in [Misfortune::Status(500, Value::Null), Misfortune::Silence, Misfortune::Status(403, Value::Null)]
    {
        let played = Played::new();
        let one = Replica::start(&played, "one");
        until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
        sleep(Duration::from_secs(7)).await;
        played.always("leases", Some(misfortune.clone()));
        let after = until(Duration::from_secs(7), "giving up", || !leads(&one)).await;
        assert!(after >= Duration::from_secs(3), "{misfortune:?}: {after:?}");
        played.always("leases", None);
        let again = if matches!(misfortune, Misfortune::Status(403, _)) { 31 } else { 5 };
        until(Duration::from_secs(again), "leading again", || leads(&one)).await;
    }
}

/// Whoever takes the Lease away ends our leadership with our next look at it.
#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_took_is_lost() {
    let played = Played::new();
    let one = Replica::start(&played, "one");
    until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    take(&played, "other", "2020-01-01T00:00:00.000000Z");
    until(Duration::from_secs(3), "losing it", || !leads(&one)).await;
    // Others may annotate it as they like.
    until(Duration::from_secs(15), "taking it back", || leads(&one)).await;
    played.edit(LEASE, |_| {});
    sleep(Duration::from_secs(10)).await;
    assert!(leads(&one));
}

/// A holder whose clock is years off leads for as long as it renews, and not longer.
#[tokio::test(start_paused = true)]
async fn the_clocks_of_others_do_not_matter() {
    for year in [1999, 2099] {
        let played = Played::new();
        let one = Replica::start(&played, "one");
        until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
        for second in 0..40 {
            take(&played, "other", &format!("{year}-01-01T00:00:{second:02}.000000Z"));
            sleep(Duration::from_secs(2)).await;
            assert!(second == 0 || !leads(&one), "it renews, as if it were {year}");
        }
        let after = until(Duration::from_secs(15), "its end", || leads(&one)).await;
        assert!(after >= Duration::from_secs(7), "{after:?}");
    }
}

fn take(played: &Played, holder: &str, renewed: &str) {
    let mut spec = played.object(LEASE)["spec"].clone();
    spec["holderIdentity"] = json!(holder);
    spec["renewTime"] = json!(renewed);
    played.edit_object(LEASE, |object| object["spec"] = spec);
}

#[tokio::test(start_paused = true)]
async fn without_permission_nothing_is_written() {
    let played = Played::new();
    played.always("leases", Some(Misfortune::Status(403, Value::Null)));
    let one = Replica::start(&played, "one");
    played.put(GATEWAY, 1, Value::Null);
    one.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 0)));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(played.count("PATCH"), 0);
    assert!(played.count("403") <= 5, "nobody gets a permission every few seconds");
    played.always("leases", None);
    until(Duration::from_secs(31), "the status", || !played.status(GATEWAY).is_null()).await;
}

/// What was on its way when a replica was told to stop is carried out all the same; its successor need not wait for that.
#[tokio::test(start_paused = true)]
async fn the_lease_is_given_back_although_a_call_was_on_its_way() {
    for verb in ["POST", "PATCH"] {
        let played = Played::new();
        if verb == "POST" {
            played.next(verb, Misfortune::Silence);
        }
        let one = Replica::start(&played, "one");
        if verb == "PATCH" {
            until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
            played.next(verb, Misfortune::Silence);
        }
        let sent = format!("{verb} /apis/coordination");
        until(Duration::from_secs(3), "the call", || played.count(&sent) == 1).await;
        assert!(holder(&played).starts_with("one_"));
        let two = Replica::start(&played, "two");
        one.stop().await;
        assert_eq!(holder(&played), "", "after {verb}");
        until(Duration::from_secs(2), "a successor", || leads(&two)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_by_hand_is_made_anew_by_who_leads() {
    let played = Played::new();
    let one = Replica::start(&played, "one");
    until(Duration::from_secs(1), "the first leader", || leads(&one)).await;
    played.delete(LEASE);
    let mut follows = one.leading.clone();
    follows.mark_unchanged();
    until(Duration::from_secs(3), "the new one", || holder(&played).starts_with("one_")).await;
    assert!(leads(&one) && !follows.has_changed().unwrap(), "it led all the time");
}
