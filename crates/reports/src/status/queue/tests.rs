//! Tests of the queue: the clock is paused and advanced by hand, and `next` is polled for due jobs.

mod events;
mod lasting;
mod replicas;

use serde_json::json;
use tokio::time::advance;

use super::entry::{FETCH_AFTER, MAX_RETRY_DELAY, retry_delay};
use super::*;
use crate::api::ObjectKey;
use crate::diagnostic::{Diagnostic, Topic};
use crate::verdict::{Code, Condition, ListenerVerdict};

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
        listed: false,
    }
}

fn verdict(generation: i64) -> Option<Arc<Verdict>> {
    Some(Arc::new(Verdict { generation, ..Verdict::default() }))
}

/// A verdict of generation 1 that differs for each number.
fn verdict_with_address(number: u64) -> Option<Arc<Verdict>> {
    Some(Arc::new(Verdict { generation: 1, addresses: vec![number.to_string()], ..Verdict::default() }))
}

fn leading_queue() -> StatusQueue {
    let queue = StatusQueue::new();
    queue.set_leading(true);
    queue
}

fn queue_with_job(id: &ObjectId) -> StatusQueue {
    let queue = leading_queue();
    queue.observe(id.clone(), Some(observed(1, 1)));
    queue.set_verdict(id.clone(), verdict(1));
    queue
}

impl StatusQueue {
    fn job(&self) -> Option<WriteJob> {
        match self.next(100) {
            NextWrite::Job(job) => Some(*job),
            NextWrite::At(_) | NextWrite::Nothing => None,
        }
    }

    /// The next job, and the time by which the clock advanced until it was due.
    async fn next_job(&self) -> (Duration, WriteJob) {
        let begin = Instant::now();
        loop {
            match self.next(100) {
                NextWrite::Job(job) => return (begin.elapsed(), *job),
                NextWrite::At(at) => advance(at.saturating_duration_since(Instant::now())).await,
                NextWrite::Nothing => panic!("nothing is due"),
            }
        }
    }

    fn complete_write(&self, job: &WriteJob, version: u64) {
        let mut copy = observed(version, job.verdict.generation);
        copy.status = Arc::new(json!({"sent": version}));
        self.done(job, WriteOutcome::Written(copy, json!({"sent": version})));
    }
}

#[tokio::test(start_paused = true)]
async fn single_changes_are_written_at_once_one_at_a_time() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    assert_eq!((&*job.resource_version, &*job.status), ("1", r#"{"version":1}"#));
    assert!(queue.job().is_none(), "the first write is in flight");
    // Changes during a write are one write afterwards, with the latest verdict.
    queue.set_verdict(gateway(), verdict_with_address(2));
    queue.set_verdict(gateway(), verdict_with_address(3));
    assert!(queue.job().is_none());
    queue.complete_write(&job, 2);
    let (after, job) = queue.next_job().await;
    assert_eq!((&*job.verdict.addresses[0], &*job.resource_version), ("3", "2"), "based on the previous write");
    assert!(after <= Duration::from_millis(10), "{after:?}");
    queue.done(&job, WriteOutcome::UpToDate);
    assert!(matches!(queue.next(100), NextWrite::Nothing));
}

#[tokio::test(start_paused = true)]
async fn own_writes_seen_by_the_watch_change_nothing() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    queue.complete_write(&job, 5);
    for version in [1, 4, 5] {
        queue.observe(gateway(), Some(observed(version, 1)));
        assert!(matches!(queue.next(100), NextWrite::Nothing), "{version}");
    }
    queue.observe(gateway(), Some(observed(6, 1)));
    assert_eq!(&*queue.next_job().await.1.resource_version, "6");
}

/// The same Gateway with another number of routes.
fn verdict_with_routes(attached_routes: u32) -> Option<Arc<Verdict>> {
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

fn attached_routes(job: &WriteJob) -> u32 {
    job.verdict.listeners[0].attached_routes
}

/// A thousand routes in a burst cost their Gateway few writes, and the last count is written within a second.
#[tokio::test(start_paused = true)]
async fn bursts_are_few_writes_and_end_promptly() {
    // The number of changes, the interval between two, the pause after every twentieth, and the maximum of writes.
    for (changes, interval_ms, pause_ms, max_writes) in [
        (1000, 1, 0, 10),
        (1000, 5, 0, 10),
        (1000, 16, 0, 15),
        (1000, 30, 0, 20),
        (200, 30, 0, 12),
        (40, 150, 0, 12),
        (1000, 10, 350, 25),
        (1000, 10, 600, 40),
        (500, 10, 1200, 30),
    ] {
        let case = format!("{changes} changes, one every {interval_ms} ms, with pauses of {pause_ms} ms");
        let queue = queue_with_job(&gateway());
        let mut version = 10;
        let mut writes = 0;
        let mut last_written = None;
        for change in 1..=changes {
            queue.set_verdict(gateway(), verdict_with_routes(change));
            let pause = if change % 20 == 0 && change != changes { pause_ms } else { 0 };
            let next = Instant::now() + Duration::from_millis(interval_ms + pause);
            loop {
                while let Some(job) = queue.job() {
                    advance(Duration::from_micros(900)).await;
                    version += 1;
                    writes += 1;
                    last_written = Some(attached_routes(&job));
                    queue.complete_write(&job, version);
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                advance(left.min(Duration::from_millis(10))).await;
            }
        }
        assert!(writes <= max_writes, "{writes} writes for {case}");
        if last_written != Some(changes) {
            let (after, job) = queue.next_job().await;
            assert_eq!(attached_routes(&job), changes);
            assert!(after <= Duration::from_secs(1), "{after:?} for {case}");
        }
    }
}

/// An important change does not wait until a burst of routes is over.
#[tokio::test(start_paused = true)]
async fn conditions_are_written_promptly_during_bursts() {
    let queue = queue_with_job(&gateway());
    for change in 1..500 {
        queue.set_verdict(gateway(), verdict_with_routes(change));
        if let Some(job) = queue.job() {
            queue.complete_write(&job, u64::from(change) + 10);
        }
        advance(Duration::from_millis(20)).await;
    }
    let condition = Condition::without_diagnostics(Code::GatewayProgrammed);
    let different = Verdict { conditions: vec![condition], ..Verdict::clone(&verdict_with_routes(500).unwrap()) };
    queue.set_verdict(gateway(), Some(Arc::new(different.clone())));
    let begin = Instant::now();
    let delay = loop {
        advance(Duration::from_millis(20)).await;
        // Routes keep coming.
        let mut verdict = different.clone();
        verdict.listeners[0].attached_routes += 1;
        queue.set_verdict(gateway(), Some(Arc::new(verdict)));
        if let Some(job) = queue.job() {
            queue.complete_write(&job, 9000);
            break begin.elapsed();
        }
    };
    assert!(delay <= Duration::from_millis(420), "{delay:?}");

    // Each change of a steady trickle is written soon.
    for change in 1..30 {
        advance(Duration::from_millis(600)).await;
        queue.set_verdict(gateway(), verdict_with_routes(change));
        let (after, job) = queue.next_job().await;
        assert!(after <= Duration::from_millis(500), "{after:?}");
        queue.complete_write(&job, 9000 + u64::from(change));
    }
}

#[tokio::test(start_paused = true)]
async fn changes_after_a_pause_are_written_at_once() {
    let queue = queue_with_job(&gateway());
    for version in 2..8 {
        let (_, job) = queue.next_job().await;
        queue.complete_write(&job, version);
        queue.set_verdict(gateway(), verdict_with_address(version));
    }
    let (_, job) = queue.next_job().await;
    queue.complete_write(&job, 9);
    advance(Duration::from_secs(1)).await;
    queue.set_verdict(gateway(), verdict_with_address(9));
    assert!(queue.job().is_some());
}

/// GEP-1364: `observedGeneration` says which spec a condition is about, so a verdict on an older spec is held back.
#[tokio::test(start_paused = true)]
async fn verdicts_on_older_specs_are_not_written() {
    let queue = leading_queue();
    queue.observe(gateway(), Some(observed(7, 3)));
    queue.set_verdict(gateway(), verdict(2));
    assert!(matches!(queue.next(100), NextWrite::Nothing));
    queue.set_verdict(gateway(), verdict(3));
    let job = queue.job().unwrap();
    // The spec changes while the write is in flight.
    queue.observe(gateway(), Some(observed(8, 4)));
    queue.done(&job, WriteOutcome::Conflict);
    assert!(matches!(queue.next(100), NextWrite::Nothing));
    queue.set_verdict(gateway(), verdict(4));
    assert_eq!(queue.next_job().await.1.verdict.generation, 4);
}

#[tokio::test(start_paused = true)]
async fn conflicts_wait_for_the_watch_then_fetch() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    queue.done(&job, WriteOutcome::Conflict);
    assert!(queue.job().is_none());
    queue.observe(gateway(), Some(observed(2, 1)));
    let (after, job) = queue.next_job().await;
    assert_eq!((job.stale, &*job.resource_version), (false, "2"));
    assert!(after <= Duration::from_millis(20), "{after:?}");

    queue.done(&job, WriteOutcome::Conflict);
    let (after, job) = queue.next_job().await;
    assert!(job.stale, "the object is to be fetched");
    assert_eq!(after, FETCH_AFTER);
    queue.done(&job, WriteOutcome::Fetched(observed(4, 1)));
    let (_, job) = queue.next_job().await;
    assert_eq!((job.stale, &*job.resource_version), (false, "4"));
    // The watch delivered it while the write was in flight.
    queue.observe(gateway(), Some(observed(5, 1)));
    queue.done(&job, WriteOutcome::Conflict);
    assert_eq!(&*queue.next_job().await.1.resource_version, "5");
}

/// Versions go back when the API server's data is restored from a backup.
#[tokio::test(start_paused = true)]
async fn fetched_objects_count_even_with_lower_versions() {
    let queue = queue_with_job(&gateway());
    queue.observe(gateway(), Some(observed(900, 1)));
    let job = queue.job().unwrap();
    queue.done(&job, WriteOutcome::Conflict);
    let (_, job) = queue.next_job().await;
    queue.done(&job, WriteOutcome::Fetched(observed(5, 1)));
    assert_eq!(&*queue.next_job().await.1.resource_version, "5");
}

#[tokio::test(start_paused = true)]
async fn deleted_objects_are_forgotten() {
    for outcome in [WriteOutcome::Failed(None), WriteOutcome::NotFound, WriteOutcome::Forbidden] {
        let queue = queue_with_job(&gateway());
        let job = queue.job().unwrap();
        queue.observe(gateway(), None);
        queue.done(&job, outcome);
        assert!(matches!(queue.next(100), NextWrite::Nothing));
        queue.set_verdict(gateway(), None);
        assert!(queue.shared.state.lock().entries.is_empty());
    }
}

/// Only the watch knows for sure that an object is gone: a proxy in front of the API server may return 404.
#[tokio::test(start_paused = true)]
async fn writes_that_return_404_are_retried() {
    let queue = queue_with_job(&gateway());
    for _ in 0..3 {
        let (_, job) = queue.next_job().await;
        queue.done(&job, WriteOutcome::NotFound);
    }
    let (after, job) = queue.next_job().await;
    assert!(after > Duration::from_millis(200), "{after:?}");
    queue.complete_write(&job, 2);
    assert!(queue.job().is_none());
}

/// A verdict on an earlier object is not written onto the one that has its name now, whatever their generations are.
#[tokio::test(start_paused = true)]
async fn verdicts_do_not_apply_to_successors() {
    for generation in [1, 5] {
        let queue = leading_queue();
        queue.observe(gateway(), Some(observed(1, generation)));
        queue.set_verdict(gateway(), verdict(generation));
        let job = queue.job().unwrap();
        queue.complete_write(&job, 2);
        let successor = Observed { uid: "next".into(), ..observed(3, 1) };
        assert!(queue.observe(gateway(), Some(successor)), "it needs a new verdict");
        assert!(matches!(queue.next(100), NextWrite::Nothing), "of generation {generation}");
        queue.set_verdict(gateway(), verdict(1));
        assert_eq!(&*queue.next_job().await.1.uid, "next");
    }
    let queue = queue_with_job(&gateway());
    assert!(!queue.observe(gateway(), Some(observed(2, 1))), "the same object");
}

/// A backup of etcd has older versions and generations of its objects.
#[tokio::test(start_paused = true)]
async fn statuses_are_written_after_the_server_was_restored() {
    let queue = leading_queue();
    queue.observe(gateway(), Some(observed(100, 5)));
    queue.set_verdict(gateway(), verdict(5));
    let job = queue.job().unwrap();
    queue.complete_write(&job, 101);
    // A watch that lags behind is not a restored server.
    queue.observe(gateway(), Some(observed(90, 4)));
    queue.set_verdict(gateway(), verdict(5));
    assert!(queue.job().is_none());

    queue.observe(gateway(), Some(Observed { listed: true, ..observed(50, 3) }));
    queue.set_verdict(gateway(), verdict(3));
    let job = queue.next_job().await.1;
    assert_eq!((&*job.resource_version, job.verdict.generation), ("50", 3));
}

#[tokio::test(start_paused = true)]
async fn one_object_retries_for_a_forbidden_kind() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    let ids: Vec<_> = (0..50).map(|number| route(&number.to_string())).collect();
    for id in &ids {
        queue.observe(id.clone(), Some(observed(1, 1)));
        queue.set_verdict(id.clone(), verdict(1));
    }
    queue.complete_write(&job, 2);
    let mut attempts = 0;
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let (_, job) = queue.next_job().await;
        if Instant::now() > end {
            queue.done(&job, WriteOutcome::Failed(None));
            break;
        }
        attempts += 1;
        queue.done(&job, WriteOutcome::Forbidden);
    }
    assert!((10..=12).contains(&attempts), "{attempts} in five minutes");
    // Other kinds are not affected.
    queue.set_verdict(gateway(), verdict_with_routes(1));
    let (after, job) = queue.next_job().await;
    assert!(job.id == gateway() && after < Duration::from_secs(1), "{after:?}");
    queue.complete_write(&job, 3);
    // Once it is allowed, all are written at once.
    let (_, job) = queue.next_job().await;
    queue.complete_write(&job, 2);
    let mut written = 1;
    while written < ids.len() {
        let (after, job) = queue.next_job().await;
        assert!(after <= MAX_RETRY_DELAY, "{after:?}");
        queue.complete_write(&job, 2);
        written += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_statuses_wait_for_a_new_verdict() {
    let queue = queue_with_job(&gateway());
    let mut longest = Duration::ZERO;
    for _ in 0..15 {
        let (after, job) = queue.next_job().await;
        longest = longest.max(after);
        queue.done(&job, WriteOutcome::Rejected);
    }
    assert!(longest > Duration::from_secs(120), "{longest:?}");
    queue.set_verdict(gateway(), verdict_with_routes(1));
    assert!(queue.next_job().await.0 < Duration::from_secs(1));
}

/// The object is deleted and created again before the response to the write.
#[tokio::test(start_paused = true)]
async fn successors_are_written_after_a_404() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    queue.observe(gateway(), None);
    queue.observe(gateway(), Some(Observed { uid: "next".into(), ..observed(2, 1) }));
    queue.done(&job, WriteOutcome::NotFound);
    queue.set_verdict(gateway(), verdict(1));
    assert_eq!(&*queue.next_job().await.1.uid, "next");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_without_delaying_other_objects() {
    let queue = queue_with_job(&gateway());
    queue.observe(route("other"), Some(observed(1, 1)));
    let mut longest = Duration::ZERO;
    for failure in 1..=12 {
        let (after, job) = queue.next_job().await;
        assert_eq!(job.id, gateway());
        assert!(after <= MAX_RETRY_DELAY, "{failure}: {after:?}");
        longest = longest.max(after);
        queue.done(&job, WriteOutcome::Failed(None));
        // Changes of the object itself do not shorten the back-off.
        queue.set_verdict(gateway(), verdict_with_routes(failure));
        queue.set_verdict(route("other"), verdict_with_routes(failure));
        let (after, job) = queue.next_job().await;
        assert_eq!(job.id, route("other"));
        assert!(after <= Duration::from_millis(100), "{after:?}");
        queue.done(&job, WriteOutcome::UpToDate);
    }
    assert!(longest > MAX_RETRY_DELAY / 2, "{longest:?}");
    let (_, job) = queue.next_job().await;
    queue.done(&job, WriteOutcome::Failed(Some(Duration::from_secs(60))));
    assert_eq!(queue.next_job().await.0, Duration::from_secs(60), "the delay that the API server set");
}

#[test]
fn retry_delay_doubles_up_to_the_limit_with_jitter() {
    for (failures, jitter, expected) in
        [(1, 0.0, 200), (2, 0.0, 400), (3, 1.0, 400), (6, 0.0, 6400), (7, 0.0, 10_000), (u32::MAX, 1.0, 5_000)]
    {
        assert_eq!(retry_delay(failures, MAX_RETRY_DELAY, jitter), Duration::from_millis(expected), "{failures}");
    }
}

#[tokio::test(start_paused = true)]
async fn classes_wait_until_the_release_is_known() {
    let class = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
    let queue = leading_queue();
    queue.observe(class.clone(), Some(observed(1, 1)));
    let mut verdict = Verdict {
        generation: 1,
        conditions: vec![Condition::without_diagnostics(Code::ClassAccepted)],
        ..Verdict::default()
    };
    queue.set_verdict(class.clone(), Some(Arc::new(verdict.clone())));
    assert!(matches!(queue.next(100), NextWrite::Nothing));
    verdict.conditions.push(Condition::without_diagnostics(Code::ClassSupportedVersion));
    queue.set_verdict(class, Some(Arc::new(verdict)));
    assert!(queue.job().is_some());
}

/// An older CRD drops fields: the stored status then never equals the sent one.
#[tokio::test(start_paused = true)]
async fn fields_dropped_by_the_api_server_are_remembered() {
    let queue = queue_with_job(&gateway());
    let job = queue.job().unwrap();
    queue.done(&job, WriteOutcome::Written(observed(2, 1), json!({"more": true})));
    queue.observe(gateway(), Some(observed(3, 1)));
    let (_, job) = queue.next_job().await;
    let partially_stored = PartiallyStored { sent: json!({"more": true}), kept: r#"{"version":2}"#.into() };
    assert_eq!(job.partially_stored.as_deref(), Some(&partially_stored));
    queue.complete_write(&job, 4);
    queue.set_verdict(gateway(), verdict_with_address(2));
    assert_eq!(queue.next_job().await.1.partially_stored, None);
}

/// A burst of routes changes the count in their Gateway, which must not wait until all routes are written.
#[tokio::test(start_paused = true)]
async fn gateways_come_before_routes_within_the_limit() {
    let queue = leading_queue();
    for number in 0..50 {
        queue.observe(route(&number.to_string()), Some(observed(1, 1)));
        queue.set_verdict(route(&number.to_string()), verdict(1));
    }
    queue.observe(gateway(), Some(observed(1, 1)));
    queue.set_verdict(gateway(), verdict(1));
    let jobs: Vec<_> = std::iter::from_fn(|| match queue.next(16) {
        NextWrite::Job(job) => Some(job),
        NextWrite::At(_) | NextWrite::Nothing => None,
    })
    .collect();
    assert_eq!((jobs.len(), &jobs[0].id), (16, &gateway()));
    queue.done(&jobs[3], WriteOutcome::UpToDate);
    assert!(matches!(queue.next(16), NextWrite::Job(_)));
    assert!(matches!(queue.next(16), NextWrite::Nothing));
}

#[tokio::test(start_paused = true)]
async fn api_version_is_the_installed_one() {
    let queue = queue_with_job(&gateway());
    let versions = [(Kind::Gateway, "v1beta1".to_owned())].into();
    queue.set_installed(Arc::new(InstalledApis { versions, ..InstalledApis::default() }));
    assert_eq!(&*queue.job().unwrap().api_version, "v1beta1");
    // The kind cannot be read now; its version stays.
    let queue = queue_with_job(&route("a"));
    queue.set_installed(Arc::new(InstalledApis {
        versions: [(Kind::HttpRoute, "v1beta1".to_owned())].into(),
        ..InstalledApis::default()
    }));
    queue.set_installed(Arc::default());
    assert_eq!(&*queue.job().unwrap().api_version, "v1beta1");
}

#[tokio::test(start_paused = true)]
async fn contested_statuses_are_written_less_often() {
    let id = gateway();
    let queue = queue_with_job(&id);
    let mut waits = Vec::new();
    for version in 1..=14 {
        let (wait, job) = queue.next_job().await;
        waits.push(wait.as_secs());
        queue.complete_write(&job, 2 * version);
        assert_eq!(queue.is_contested(&id), version > 5, "write {version}");
        // The write of the other controller.
        queue.observe(id.clone(), Some(observed(2 * version + 1, 1)));
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    let reason = |queue: &StatusQueue| match queue.next_event() {
        NextEvent::Now { notice, .. } => Some(notice.reason),
        NextEvent::At(_) | NextEvent::Nothing => None,
    };
    assert_eq!(reason(&queue), Some("StatusContested"));
    // A new verdict is written at once.
    queue.set_verdict(id.clone(), verdict_with_address(2));
    let (wait, job) = queue.next_job().await;
    assert!(wait < Duration::from_secs(1), "{wait:?}");
    queue.complete_write(&job, 100);
    assert!(!queue.is_contested(&id));
}

#[tokio::test(start_paused = true)]
async fn kinds_with_a_portico_status_are_written() {
    for kind in [Kind::KongPlugin, Kind::KongClusterPlugin, Kind::KongConsumer, Kind::KongUpstreamPolicy, Kind::Ingress]
    {
        let id = ObjectId::new(kind, ObjectKey::new("default", "a"));
        assert!(queue_with_job(&id).job().is_some(), "{kind}");
    }
    for kind in [Kind::Service, Kind::Secret, Kind::IngressClass] {
        let id = ObjectId::new(kind, ObjectKey::new("default", "a"));
        assert!(queue_with_job(&id).job().is_none(), "{kind}");
    }
}

/// Only a change of the counts is not urgent.
#[tokio::test(start_paused = true)]
async fn new_addresses_and_broken_plugins_are_urgent() {
    let old = Verdict::default();
    let published = Verdict { load_balancer: Some(Vec::new()), ..Verdict::default() };
    let broken =
        Verdict { diagnostics: vec![Diagnostic::error("f", "m", "r").with_topic(Topic::Plugin)], ..Verdict::default() };
    for new in [&published, &broken] {
        assert!(!only_counts_differ(&old, new), "{new:?}");
    }
}
