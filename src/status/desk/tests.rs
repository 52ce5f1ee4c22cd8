//! Time is paused: what is due is asked for, and the clock is moved by hand.

use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::api::ObjectKey;
use crate::compile::verdict::{Code, Condition, ListenerVerdict, Problem};

fn gateway() -> ObjectId {
    ObjectId::new(Kind::Gateway, ObjectKey::new("default", "web"))
}

fn route(name: &str) -> ObjectId {
    ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name))
}

fn observed(version: u64, generation: i64) -> Observed {
    Observed {
        uid: "u".into(),
        resource_version: version.to_string().into(),
        generation,
        status: Arc::new(json!({"version": version})),
    }
}

fn verdict(generation: i64) -> Option<Arc<Verdict>> {
    Some(Arc::new(Verdict { generation, ..Verdict::default() }))
}

/// Of the first generation, and different for each number.
fn addressed(number: u64) -> Option<Arc<Verdict>> {
    Some(Arc::new(Verdict { generation: 1, addresses: vec![number.to_string()], ..Verdict::default() }))
}

fn leading() -> Desk {
    let desk = Desk::new();
    desk.lead(true);
    desk
}

/// A Service has no status of ours, so events are all that tells its owner.
#[tokio::test(start_paused = true)]
async fn a_service_is_told_events_and_never_written() {
    let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", "web"));
    let desk = leading();
    let unheeded = vec![Problem::new("metadata.annotations[konghq.com/retries]", "\"many\" cannot be read", "write 5")];
    let wrong = Arc::new(Verdict { generation: 1, unheeded, ..Verdict::default() });
    // As often as it is said: by each compile, and by each change of the object.
    for version in 1..4 {
        desk.observe(id.clone(), Some(observed(version, 1)));
        desk.want(id.clone(), Some(wrong.clone()));
        assert!(desk.job().is_none());
        advance(Duration::from_secs(5)).await;
        match (desk.next_event(), version) {
            (Telling::Now { notice, .. }, 1) => {
                assert_eq!(notice.reason, "KongConfigurationTranslationFailed");
                assert!(notice.warning && notice.note.contains("many"), "{}", notice.note);
                desk.told(&id, notice);
            }
            (Telling::Nothing | Telling::At(_), 2..) => {}
            (telling, _) => panic!("{version}: {telling:?}"),
        }
    }
    desk.want(id.clone(), verdict(1));
    advance(Duration::from_secs(3600)).await;
    let Telling::Now { notice, .. } = desk.next_event() else { panic!("it is right again") };
    assert_eq!(notice.reason, "Mended");
    // Of one that nobody sees nothing is told.
    let unseen = ObjectId::new(Kind::Service, ObjectKey::new("ns", "unseen"));
    desk.told(&id, notice);
    desk.want(unseen, Some(wrong));
    advance(Duration::from_secs(5)).await;
    assert!(!matches!(desk.next_event(), Telling::Now { .. }));
}

fn ready(id: &ObjectId) -> Desk {
    let desk = leading();
    desk.observe(id.clone(), Some(observed(1, 1)));
    desk.want(id.clone(), verdict(1));
    desk
}

impl Desk {
    fn job(&self) -> Option<Job> {
        match self.next(100) {
            Next::Job(job) => Some(*job),
            Next::At(_) | Next::Nothing => None,
        }
    }

    /// The same, moving the clock to when it is due.
    async fn job_later(&self) -> (Duration, Job) {
        let begin = Instant::now();
        loop {
            match self.next(100) {
                Next::Job(job) => return (begin.elapsed(), *job),
                Next::At(at) => advance(at.saturating_duration_since(Instant::now())).await,
                Next::Nothing => panic!("nothing is due"),
            }
        }
    }

    fn wrote(&self, job: &Job, version: u64) {
        let mut answer = observed(version, job.verdict.generation);
        answer.status = Arc::new(json!({"sent": version}));
        self.done(job, Outcome::Written(answer, json!({"sent": version})));
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_change_is_written_at_once_and_by_one() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    assert_eq!((&*job.resource_version, &*job.status), ("1", r#"{"version":1}"#));
    assert!(desk.job().is_none(), "it is in flight");
    // Many changes meanwhile are one write afterwards, of the latest verdict.
    desk.want(gateway(), addressed(2));
    desk.want(gateway(), addressed(3));
    assert!(desk.job().is_none());
    desk.wrote(&job, 2);
    let (after, job) = desk.job_later().await;
    assert_eq!((&*job.verdict.addresses[0], &*job.resource_version), ("3", "2"), "on top of our own write");
    assert!(after <= Duration::from_millis(10), "{after:?}");
    desk.done(&job, Outcome::Settled);
    assert!(matches!(desk.next(100), Next::Nothing));
}

#[tokio::test(start_paused = true)]
async fn our_own_write_seen_by_the_watch_is_no_news() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    desk.wrote(&job, 5);
    for trailing in [1, 4, 5] {
        desk.observe(gateway(), Some(observed(trailing, 1)));
        assert!(matches!(desk.next(100), Next::Nothing), "{trailing}");
    }
    desk.observe(gateway(), Some(observed(6, 1)));
    assert_eq!(&*desk.job_later().await.1.resource_version, "6");
}

/// The same Gateway with another number of routes.
fn counted(attached_routes: u32) -> Option<Arc<Verdict>> {
    let listener = ListenerVerdict {
        name: "http".to_owned(),
        port: 80,
        attached_routes,
        supported_kinds: Vec::new(),
        sockets: Vec::new(),
        conditions: Vec::new(),
    };
    Some(Arc::new(Verdict { generation: 1, listeners: vec![listener], ..Verdict::default() }))
}

fn count(job: &Job) -> u32 {
    job.verdict.listeners[0].attached_routes
}

/// A thousand routes in a burst cost their Gateway at most 20 writes, and the last is told within half a second.
#[tokio::test(start_paused = true)]
async fn a_burst_is_a_handful_of_writes_and_its_end_is_told_soon() {
    for (changes, every) in [(1000, 1), (1000, 5), (1000, 16), (1000, 30), (200, 30), (40, 150)] {
        let desk = ready(&gateway());
        let mut version = 10;
        let mut writes = 0;
        let mut last = None;
        for change in 1..=changes {
            desk.want(gateway(), counted(change));
            let next = Instant::now() + Duration::from_millis(every);
            while let Some(job) = desk.job() {
                advance(Duration::from_micros(900)).await;
                version += 1;
                writes += 1;
                last = Some(count(&job));
                desk.wrote(&job, version);
            }
            advance(next.saturating_duration_since(Instant::now())).await;
        }
        assert!(writes <= 20, "{writes} writes for {changes} changes, one every {every} ms");
        if last != Some(changes) {
            let (after, job) = desk.job_later().await;
            assert_eq!(count(&job), changes);
            assert!(after <= Duration::from_millis(400), "{after:?} for one every {every} ms");
        }
    }
}

/// What matters to somebody does not wait until a burst of routes is over.
#[tokio::test(start_paused = true)]
async fn a_condition_is_told_soon_in_a_burst_and_so_is_a_count_without_one() {
    let desk = ready(&gateway());
    for change in 1..500 {
        desk.want(gateway(), counted(change));
        if let Some(job) = desk.job() {
            desk.wrote(&job, u64::from(change) + 10);
        }
        advance(Duration::from_millis(20)).await;
    }
    let condition = Condition::plain(Code::GatewayProgrammed);
    let different = Verdict { conditions: vec![condition], ..Verdict::clone(&counted(500).unwrap()) };
    desk.want(gateway(), Some(Arc::new(different.clone())));
    let begin = Instant::now();
    let told = loop {
        advance(Duration::from_millis(20)).await;
        // Routes keep coming.
        let mut verdict = different.clone();
        verdict.listeners[0].attached_routes += 1;
        desk.want(gateway(), Some(Arc::new(verdict)));
        if let Some(job) = desk.job() {
            desk.wrote(&job, 9000);
            break begin.elapsed();
        }
    };
    assert!(told <= Duration::from_millis(420), "{told:?}");

    // A steady trickle is none: each is told a moment after it came.
    for change in 1..30 {
        advance(Duration::from_millis(600)).await;
        desk.want(gateway(), counted(change));
        let (after, job) = desk.job_later().await;
        assert!(after <= Duration::from_millis(400), "{after:?}");
        desk.wrote(&job, 9000 + u64::from(change));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_quiet_time_changes_are_written_at_once_again() {
    let desk = ready(&gateway());
    for version in 2..8 {
        let (_, job) = desk.job_later().await;
        desk.wrote(&job, version);
        desk.want(gateway(), addressed(version));
    }
    let (_, job) = desk.job_later().await;
    desk.wrote(&job, 9);
    advance(Duration::from_secs(1)).await;
    desk.want(gateway(), addressed(9));
    assert!(desk.job().is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_due_while_another_leads_and_everything_when_it_does_not() {
    let desk = Desk::new();
    for name in ["a", "b"] {
        desk.observe(route(name), Some(observed(1, 1)));
        desk.want(route(name), verdict(1));
    }
    assert!(matches!(desk.next(100), Next::Nothing));
    desk.lead(true);
    let (first, second) = (desk.job().unwrap(), desk.job().unwrap());
    desk.lead(false);
    desk.lead(true);
    // What was in flight was dropped, and an outcome that comes late is of no more interest than before.
    assert_eq!([desk.job().unwrap().id, desk.job().unwrap().id], [first.id, second.id]);
    assert!(desk.job().is_none());
}

/// GEP-1364: `observedGeneration` says which spec a condition is about, so a verdict on an older one is kept back.
#[tokio::test(start_paused = true)]
async fn a_verdict_on_an_older_spec_is_not_written() {
    let desk = leading();
    desk.observe(gateway(), Some(observed(7, 3)));
    desk.want(gateway(), verdict(2));
    assert!(matches!(desk.next(100), Next::Nothing));
    desk.want(gateway(), verdict(3));
    let job = desk.job().unwrap();
    // The spec changes while the write is in flight.
    desk.observe(gateway(), Some(observed(8, 4)));
    desk.done(&job, Outcome::Conflict);
    assert!(matches!(desk.next(100), Next::Nothing));
    desk.want(gateway(), verdict(4));
    assert_eq!(desk.job_later().await.1.verdict.generation, 4);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_waits_for_the_watch_and_asks_if_that_is_slow() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    desk.done(&job, Outcome::Conflict);
    assert!(desk.job().is_none());
    desk.observe(gateway(), Some(observed(2, 1)));
    let (after, job) = desk.job_later().await;
    assert_eq!((job.stale, &*job.resource_version), (false, "2"));
    assert!(after <= Duration::from_millis(20), "{after:?}");

    desk.done(&job, Outcome::Conflict);
    let (after, job) = desk.job_later().await;
    assert!(job.stale, "the object is to be fetched");
    assert_eq!(after, FETCH_AFTER);
    desk.done(&job, Outcome::Fetched(observed(4, 1)));
    let (_, job) = desk.job_later().await;
    assert_eq!((job.stale, &*job.resource_version), (false, "4"));
    // It came while the write was in flight.
    desk.observe(gateway(), Some(observed(5, 1)));
    desk.done(&job, Outcome::Conflict);
    assert_eq!(&*desk.job_later().await.1.resource_version, "5");
}

/// Versions go back when the API server's data is restored from a backup.
#[tokio::test(start_paused = true)]
async fn what_was_fetched_counts_even_if_its_version_is_lower() {
    let desk = ready(&gateway());
    desk.observe(gateway(), Some(observed(900, 1)));
    let job = desk.job().unwrap();
    desk.done(&job, Outcome::Conflict);
    let (_, job) = desk.job_later().await;
    desk.done(&job, Outcome::Fetched(observed(5, 1)));
    assert_eq!(&*desk.job_later().await.1.resource_version, "5");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_forgotten() {
    for outcome in [Outcome::Failed(None), Outcome::Gone, Outcome::Forbidden] {
        let desk = ready(&gateway());
        let job = desk.job().unwrap();
        desk.observe(gateway(), None);
        desk.done(&job, outcome);
        assert!(matches!(desk.next(100), Next::Nothing));
        desk.want(gateway(), None);
        assert!(desk.shared.state.lock().entries.is_empty());
    }
}

/// Only the watch knows for sure: something between us and the API server may say that there is no such thing.
#[tokio::test(start_paused = true)]
async fn an_object_that_a_write_does_not_find_is_tried_again() {
    let desk = ready(&gateway());
    for _ in 0..3 {
        let (_, job) = desk.job_later().await;
        desk.done(&job, Outcome::Gone);
    }
    let (after, job) = desk.job_later().await;
    assert!(after > Duration::from_millis(200), "{after:?}");
    desk.wrote(&job, 2);
    assert!(desk.job().is_none());
}

/// What was thought of another object is not written onto the one that has its name now, whatever their generations are.
#[tokio::test(start_paused = true)]
async fn a_verdict_is_about_one_object() {
    for generation in [1, 5] {
        let desk = leading();
        desk.observe(gateway(), Some(observed(1, generation)));
        desk.want(gateway(), verdict(generation));
        let job = desk.job().unwrap();
        desk.wrote(&job, 2);
        let successor = Observed { uid: "next".into(), ..observed(3, 1) };
        assert!(desk.observe(gateway(), Some(successor)), "it is to be told anew");
        assert!(matches!(desk.next(100), Next::Nothing), "of generation {generation}");
        desk.want(gateway(), verdict(1));
        assert_eq!(&*desk.job_later().await.1.uid, "next");
    }
    let desk = ready(&gateway());
    assert!(!desk.observe(gateway(), Some(observed(2, 1))), "the same object");
}

#[tokio::test(start_paused = true)]
async fn one_object_tries_for_all_whose_kind_may_not_be_written() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    let names: Vec<_> = (0..50).map(|number| route(&number.to_string())).collect();
    for id in &names {
        desk.observe(id.clone(), Some(observed(1, 1)));
        desk.want(id.clone(), verdict(1));
    }
    desk.wrote(&job, 2);
    let mut tries = 0;
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let (_, job) = desk.job_later().await;
        if Instant::now() > end {
            desk.done(&job, Outcome::Failed(None));
            break;
        }
        tries += 1;
        desk.done(&job, Outcome::Forbidden);
    }
    assert!((10..=12).contains(&tries), "{tries} in five minutes");
    // Other kinds are not concerned.
    desk.want(gateway(), counted(1));
    let (after, job) = desk.job_later().await;
    assert!(job.id == gateway() && after < Duration::from_secs(1), "{after:?}");
    desk.wrote(&job, 3);
    // Once it is allowed all are written, and at once.
    let (_, job) = desk.job_later().await;
    desk.wrote(&job, 2);
    let mut written = 1;
    while written < names.len() {
        let (after, job) = desk.job_later().await;
        assert!(after <= LONGEST_BACKOFF, "{after:?}");
        desk.wrote(&job, 2);
        written += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_waits_for_something_else_to_say() {
    let desk = ready(&gateway());
    let mut longest = Duration::ZERO;
    for _ in 0..15 {
        let (after, job) = desk.job_later().await;
        longest = longest.max(after);
        desk.done(&job, Outcome::Refused);
    }
    assert!(longest > Duration::from_secs(120), "{longest:?}");
    desk.want(gateway(), counted(1));
    assert!(desk.job_later().await.0 < Duration::from_secs(1));
}

/// Deleted and created again before the write was answered.
#[tokio::test(start_paused = true)]
async fn its_successor_of_the_same_name_is_not() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    desk.observe(gateway(), None);
    desk.observe(gateway(), Some(Observed { uid: "next".into(), ..observed(2, 1) }));
    desk.done(&job, Outcome::Gone);
    desk.want(gateway(), verdict(1));
    assert_eq!(&*desk.job_later().await.1.uid, "next");
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer_and_hold_nobody_else_up() {
    let desk = ready(&gateway());
    desk.observe(route("other"), Some(observed(1, 1)));
    let mut longest = Duration::ZERO;
    for failure in 1..=12 {
        let (after, job) = desk.job_later().await;
        assert_eq!(job.id, gateway());
        assert!(after <= LONGEST_BACKOFF, "{failure}: {after:?}");
        longest = longest.max(after);
        desk.done(&job, Outcome::Failed(None));
        // News of the object itself are no reason to ask sooner.
        desk.want(gateway(), counted(failure));
        desk.want(route("other"), counted(failure));
        let (after, job) = desk.job_later().await;
        assert_eq!(job.id, route("other"));
        assert!(after <= Duration::from_millis(100), "{after:?}");
        desk.done(&job, Outcome::Settled);
    }
    assert!(longest > LONGEST_BACKOFF / 2, "{longest:?}");
    let (_, job) = desk.job_later().await;
    desk.done(&job, Outcome::Failed(Some(Duration::from_secs(60))));
    assert_eq!(desk.job_later().await.0, Duration::from_secs(60), "the API server asked for that");
}

#[test]
fn back_off_doubles_to_its_limit_and_varies() {
    for (failures, chance, expected) in
        [(1, 0.0, 200), (2, 0.0, 400), (3, 1.0, 400), (6, 0.0, 6400), (7, 0.0, 10_000), (u32::MAX, 1.0, 5_000)]
    {
        assert_eq!(backoff(failures, LONGEST_BACKOFF, chance), Duration::from_millis(expected), "{failures}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_waits_until_the_release_is_known() {
    let class = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
    let desk = leading();
    desk.observe(class.clone(), Some(observed(1, 1)));
    let mut verdict =
        Verdict { generation: 1, conditions: vec![Condition::plain(Code::ClassAccepted)], ..Verdict::default() };
    desk.want(class.clone(), Some(Arc::new(verdict.clone())));
    assert!(matches!(desk.next(100), Next::Nothing));
    verdict.conditions.push(Condition::plain(Code::ClassSupportedVersion));
    desk.want(class, Some(Arc::new(verdict)));
    assert!(desk.job().is_some());
}

/// An older CRD drops fields: then what is there never equals what was sent.
#[tokio::test(start_paused = true)]
async fn what_the_api_server_dropped_is_remembered() {
    let desk = ready(&gateway());
    let job = desk.job().unwrap();
    desk.done(&job, Outcome::Written(observed(2, 1), json!({"more": true})));
    desk.observe(gateway(), Some(observed(3, 1)));
    let (_, job) = desk.job_later().await;
    let clipped = Clipped { sent: json!({"more": true}), kept: r#"{"version":2}"#.into() };
    assert_eq!(job.clipped.as_deref(), Some(&clipped));
    desk.wrote(&job, 4);
    desk.want(gateway(), addressed(2));
    assert_eq!(desk.job_later().await.1.clipped, None);
}

/// A burst of routes is counted in their Gateway, which must not wait until all of them are written.
#[tokio::test(start_paused = true)]
async fn gateways_come_before_routes_and_there_is_a_limit() {
    let desk = leading();
    for number in 0..50 {
        desk.observe(route(&number.to_string()), Some(observed(1, 1)));
        desk.want(route(&number.to_string()), verdict(1));
    }
    desk.observe(gateway(), Some(observed(1, 1)));
    desk.want(gateway(), verdict(1));
    let jobs: Vec<_> = std::iter::from_fn(|| match desk.next(16) {
        Next::Job(job) => Some(job),
        Next::At(_) | Next::Nothing => None,
    })
    .collect();
    assert_eq!((jobs.len(), &jobs[0].id), (16, &gateway()));
    desk.done(&jobs[3], Outcome::Settled);
    assert!(matches!(desk.next(16), Next::Job(_)));
    assert!(matches!(desk.next(16), Next::Nothing));
}

#[tokio::test(start_paused = true)]
async fn the_version_of_the_api_is_the_installed_one() {
    let desk = ready(&gateway());
    let versions = [(Kind::Gateway, "v1beta1".to_owned())].into();
    desk.installed(Arc::new(Installed { versions, ..Installed::default() }));
    assert_eq!(&*desk.job().unwrap().api_version, "v1beta1");
    // It cannot be read now; that does not make another version of it.
    let desk = ready(&route("a"));
    desk.installed(Arc::new(Installed {
        versions: [(Kind::HttpRoute, "v1beta1".to_owned())].into(),
        ..Installed::default()
    }));
    desk.installed(Arc::default());
    assert_eq!(&*desk.job().unwrap().api_version, "v1beta1");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_writes_too_is_written_less_and_less_often() {
    let id = gateway();
    let desk = ready(&id);
    let mut waits = Vec::new();
    for version in 1..=14 {
        let (wait, job) = desk.job_later().await;
        waits.push(wait.as_secs());
        desk.wrote(&job, 2 * version);
        assert_eq!(desk.is_contested(&id), version > 5, "write {version}");
        // The other one's.
        desk.observe(id.clone(), Some(observed(2 * version + 1, 1)));
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    let told = |desk: &Desk| match desk.next_event() {
        Telling::Now { notice, .. } => Some(notice.reason),
        Telling::At(_) | Telling::Nothing => None,
    };
    assert_eq!(told(&desk), Some("StatusContested"));
    // What is new is told at once.
    desk.want(id.clone(), addressed(2));
    let (wait, job) = desk.job_later().await;
    assert!(wait < Duration::from_secs(1), "{wait:?}");
    desk.wrote(&job, 100);
    assert!(!desk.is_contested(&id));
}

#[tokio::test(start_paused = true)]
async fn every_kind_with_a_status_of_ours_is_written() {
    for kind in [Kind::KongPlugin, Kind::KongClusterPlugin, Kind::KongConsumer, Kind::KongUpstreamPolicy, Kind::Ingress]
    {
        let id = ObjectId::new(kind, ObjectKey::new("default", "a"));
        assert!(ready(&id).job().is_some(), "{kind}");
    }
    for kind in [Kind::Service, Kind::Secret, Kind::IngressClass] {
        let id = ObjectId::new(kind, ObjectKey::new("default", "a"));
        assert!(ready(&id).job().is_none(), "{kind}");
    }
}

/// What is new of an Ingress or a policy is told at once, as a count of routes is not.
#[tokio::test(start_paused = true)]
async fn where_an_ingress_is_reached_is_more_than_a_count() {
    let old = Verdict::default();
    let reached = Verdict { load_balancer: Some(Vec::new()), ..Verdict::default() };
    let broken = Verdict { broken_plugins: vec![Problem::new("f", "m", "r")], ..Verdict::default() };
    for new in [&reached, &broken] {
        assert!(!differ_in_counts(&old, new), "{new:?}");
    }
}
