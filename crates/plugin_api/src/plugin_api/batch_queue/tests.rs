//! Tests of queues with paused time.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use tokio::task::yield_now;

use super::*;
use crate::plugin_api::PluginState;
use crate::plugin_api::kind::BuildNotes;

/// Records the batches with the time of each attempt.
struct Recorder {
    began: Instant,
    batches: Mutex<Vec<(Duration, String)>>,
    /// How many of the next attempts fail.
    failures: Mutex<usize>,
    /// The duration of each attempt.
    takes: Duration,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Recorder::with(0, Duration::ZERO)
    }

    fn with(failures: usize, takes: Duration) -> Arc<Self> {
        let (batches, failures) = (Mutex::default(), Mutex::new(failures));
        Arc::new(Recorder { began: Instant::now(), batches, failures, takes })
    }

    /// The attempts: seconds since the start, and the entries joined by commas.
    fn attempts(&self) -> Vec<(f64, String)> {
        self.batches.lock().iter().map(|(at, batch)| (at.as_secs_f64(), batch.clone())).collect()
    }

    fn batches(&self) -> Vec<String> {
        self.batches.lock().iter().map(|(_, batch)| batch.clone()).collect()
    }
}

impl BatchSender for Recorder {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        entries.join(&b',').into()
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        self.batches.lock().push((self.began.elapsed(), String::from_utf8_lossy(&body).into_owned()));
        let mut failures = self.failures.lock();
        let is_accepted = *failures == 0;
        *failures = failures.saturating_sub(1);
        let takes = self.takes;
        Box::pin(async move {
            sleep(takes).await; // Time is paused.
            is_accepted
        })
    }
}

struct LocalServices;

impl PluginServices for LocalServices {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

fn settings() -> QueueSettings {
    QueueConfig::default().validate("queue").unwrap()
}

fn start(settings: QueueSettings, sender: &Arc<Recorder>, state: &PluginState) -> BatchQueue {
    start_of("KongPlugin/default/log", settings, sender, state)
}

/// Starts the queue of an object.
fn start_of(object: &str, settings: QueueSettings, sender: &Arc<Recorder>, state: &PluginState) -> BatchQueue {
    let services: Arc<dyn PluginServices> = Arc::new(LocalServices);
    let notes = BuildNotes::default();
    let cx = BuildCx { object, state, services: &services, node: "test", notes: &notes };
    BatchQueue::start(settings, Arc::clone(sender) as _, &cx)
}

fn push_all(queue: &BatchQueue, entries: &[&'static str]) {
    for entry in entries {
        queue.push(Bytes::from_static(entry.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn entries_are_sent_in_order_and_at_once_without_batches() {
    let (recorder, state) = (Recorder::new(), PluginState::default());
    let queue = start(settings(), &recorder, &state);
    push_all(&queue, &["a", "b", "c"]);
    sleep(Duration::from_millis(1)).await; // Time is paused.
    assert_eq!(recorder.attempts(), [(0.0, "a".to_owned()), (0.0, "b".to_owned()), (0.0, "c".to_owned())]);
    assert_eq!(queue.counts(), QueueCounts { sent: 3, ..QueueCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn batches_are_sent_when_full_or_due() {
    let (recorder, state) = (Recorder::new(), PluginState::default());
    let settings = QueueSettings { max_batch_size: 3, max_coalescing_delay: Duration::from_secs(2), ..settings() };
    let queue = start(settings, &recorder, &state);
    push_all(&queue, &["a", "b"]);
    sleep(Duration::from_secs(1)).await; // Time is paused.
    assert_eq!(recorder.batches(), [""; 0]);
    push_all(&queue, &["c", "d"]);
    sleep(Duration::from_millis(10)).await; // Time is paused.
    assert_eq!(recorder.attempts(), [(1.0, "a,b,c".to_owned())]);
    sleep(Duration::from_secs(3)).await; // Time is paused.
    assert_eq!(recorder.attempts()[1..], [(3.0, "d".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn retry_delays_double_up_to_their_maximum() {
    let (recorder, state) = (Recorder::with(6, Duration::ZERO), PluginState::default());
    let (initial_retry_delay, max_retry_delay) = (Duration::from_secs(1), Duration::from_secs(4));
    let queue = start(QueueSettings { initial_retry_delay, max_retry_delay, ..settings() }, &recorder, &state);
    push_all(&queue, &["a", "b"]);
    sleep(Duration::from_secs(30)).await; // Time is paused.
    let times: Vec<_> = recorder.attempts().iter().map(|(at, batch)| format!("{at} {batch}")).collect();
    assert_eq!(times, ["0 a", "1 a", "3 a", "7 a", "11 a", "15 a", "19 a", "19 b"]);
    assert_eq!(queue.counts(), QueueCounts { sent: 2, retries: 6, ..QueueCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn batches_are_dropped_after_the_retry_time() {
    for (max_retry_time, attempts) in [(Some(Duration::from_secs(3)), 3), (None, 1)] {
        let (recorder, state) = (Recorder::with(usize::MAX, Duration::ZERO), PluginState::default());
        let settings = QueueSettings { max_retry_time, initial_retry_delay: Duration::from_secs(1), ..settings() };
        let queue = start(settings, &recorder, &state);
        push_all(&queue, &["a"]);
        sleep(Duration::from_secs(60)).await; // Time is paused.
        assert_eq!(recorder.batches().len(), attempts, "{max_retry_time:?}");
        let expected = QueueCounts { dropped_failed: 1, retries: attempts as u64 - 1, ..QueueCounts::default() };
        assert_eq!(queue.counts(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn full_queue_drops_its_oldest_entries() {
    let cases = [
        (QueueSettings { max_entries: 2, ..settings() }, 0, &["a", "d", "e"][..]),
        (QueueSettings { max_bytes: 2, ..settings() }, 0, &["a", "d", "e"]),
        // An entry that is larger than the queue does not displace the others.
        (QueueSettings { max_bytes: 1, ..settings() }, 1, &["a", "e"]),
    ];
    for (settings, too_large, expected) in cases {
        let (recorder, state) = (Recorder::with(0, Duration::from_secs(1)), PluginState::default());
        let queue = start(settings.clone(), &recorder, &state);
        push_all(&queue, &["a"]);
        sleep(Duration::from_millis(1)).await; // Time is paused.
        push_all(&queue, &["b", "c", "d", "e"]);
        if too_large > 0 {
            push_all(&queue, &["too large"]);
        }
        sleep(Duration::from_secs(10)).await; // Time is paused.
        assert_eq!(recorder.batches(), expected, "{settings:?}");
        let sent = expected.len() as u64;
        let dropped_full = 5 + too_large - sent;
        assert_eq!(queue.counts(), QueueCounts { sent, dropped_full, ..QueueCounts::default() }, "{settings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_one_unless_unlimited() {
    for (concurrency, finished) in [(1, 1), (2, 2)] {
        let (recorder, state) = (Recorder::with(0, Duration::from_secs(1)), PluginState::default());
        let concurrency = NonZeroUsize::new(concurrency).unwrap();
        let queue = start(QueueSettings { concurrency, ..settings() }, &recorder, &state);
        push_all(&queue, &["a", "b", "c"]);
        sleep(Duration::from_millis(1500)).await; // Time is paused.
        assert_eq!(queue.counts().sent, finished, "{concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_queue_sends_what_is_left() {
    let (recorder, state) = (Recorder::with(0, Duration::from_secs(1)), PluginState::default());
    let settings = QueueSettings { max_batch_size: 2, max_coalescing_delay: Duration::from_secs(60), ..settings() };
    let queue = start(settings, &recorder, &state);
    push_all(&queue, &["a", "b", "c"]);
    let core = Arc::clone(&queue.core);
    drop(queue);
    core.ended().await;
    assert_eq!(recorder.batches(), ["a,b", "c"]);
    assert_eq!(core.counters.counts(), QueueCounts { sent: 3, ..QueueCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn flush_is_bounded_and_counts_what_is_lost() {
    let (recorder, state) = (Recorder::with(0, Duration::from_secs(2)), PluginState::default());
    let queue = start(settings(), &recorder, &state);
    push_all(&queue, &["a", "b", "c", "d"]);
    let began = Instant::now();
    flush_queues(&state, Duration::from_secs(5)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert_eq!(queue.counts(), QueueCounts { sent: 2, dropped_stopped: 2, ..QueueCounts::default() });
    push_all(&queue, &["e"]);
    assert_eq!(queue.counts().dropped_stopped, 3, "the queue has ended");
}

#[tokio::test(start_paused = true)]
async fn flush_without_queues_ends_at_once() {
    flush_queues(&PluginState::default(), Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn queues_of_one_object_share_their_counters() {
    let (recorder, state) = (Recorder::new(), PluginState::default());
    let before = start(settings(), &recorder, &state);
    push_all(&before, &["a"]);
    let after = start(settings(), &recorder, &state);
    drop(before);
    push_all(&after, &["b"]);
    sleep(Duration::from_secs(1)).await; // Time is paused.
    let counts = queue_counts(&state);
    assert_eq!(counts.len(), 1);
    assert_eq!((&*counts[0].0, counts[0].1.sent), ("KongPlugin/default/log", 2));
    drop(after);
    sleep(Duration::from_secs(1)).await; // Time is paused.
    assert!(queue_counts(&state).is_empty());
}

#[tokio::test(start_paused = true)]
async fn discarded_task_ends_the_queue() {
    struct NoTasks(AtomicBool);
    impl PluginServices for NoTasks {
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(task);
            self.0.store(true, Relaxed);
        }
    }
    let bytes = QueuedBytes::of(&PluginState::default(), 1000);
    let core = QueueCore::new(
        "KongPlugin/default/log",
        settings(),
        EntryOwners::new(Arc::clone(&bytes), "default"),
        Arc::default(),
    );
    spawn_task(&core, Recorder::new(), &NoTasks(AtomicBool::new(false)));
    core.push(None, Bytes::from_static(b"a"));
    core.ended().await;
    yield_now().await;
    assert_eq!(core.counters.counts(), QueueCounts { dropped_stopped: 1, ..QueueCounts::default() });
    assert_eq!(bytes.used(), 0);
}

/// An entry that takes this many bytes of the limit.
fn entry_of(bytes: usize) -> Bytes {
    vec![b'x'; bytes - ENTRY_OVERHEAD].into()
}

#[tokio::test(start_paused = true)]
async fn queues_of_one_namespace_leave_bytes_to_others_whatever_their_settings() {
    let (never, state) = (Recorder::with(0, Duration::from_secs(86_400)), PluginState::default());
    let bytes = QueuedBytes::of(&state, 80_000);
    // The worst configuration: no limits of its own, and everything is in flight.
    let greedy = QueueSettings {
        max_entries: 1_000_000,
        max_bytes: usize::MAX,
        max_batch_size: 2,
        max_coalescing_delay: Duration::ZERO,
        concurrency: NonZeroUsize::new(64).unwrap(),
        ..settings()
    };
    let queues: Vec<_> =
        (0..4).map(|number| start_of(&format!("KongPlugin/greedy/{number}"), greedy.clone(), &never, &state)).collect();
    for _ in 0..20 {
        for queue in &queues {
            queue.push(entry_of(1000));
            yield_now().await;
        }
    }
    assert_eq!(bytes.used(), 70_000, "seven eighths of the limit, with what is in flight");
    let counts = |queue: &BatchQueue| queue.counts();
    let kept: u64 = queues.iter().map(|queue| counts(queue).pending).sum();
    let dropped: u64 = queues.iter().map(|queue| counts(queue).dropped_limit).sum();
    assert_eq!((kept, dropped), (70, 10));
    let other = start_of("KongPlugin/other/log", settings(), &Recorder::new(), &state);
    for _ in 0..4 {
        other.push(entry_of(1000));
    }
    assert_eq!(counts(&other).pending, 4, "another namespace has room");
    let cluster = start_of("KongClusterPlugin/log", settings(), &Recorder::new(), &state);
    cluster.push(entry_of(1000));
    assert_eq!((counts(&cluster).pending, bytes.used()), (1, 75_000));
    sleep(Duration::from_secs(1)).await; // Time is paused.
    assert_eq!((counts(&other).sent, counts(&cluster).sent), (4, 1));
    assert_eq!(bytes.used(), 70_000, "what is sent takes nothing");
    // The queue of an edited plugin counts until it has ended.
    let again = start_of("KongPlugin/greedy/0", settings(), &never, &state);
    drop(queues);
    again.push(entry_of(1000));
    assert_eq!(bytes.used(), 70_000);
    assert!(counts(&again).dropped_limit > 0, "the queue of the plugin before the edit still has the share");
    sleep(CLOSE_LIMIT + Duration::from_secs(1)).await; // Time is paused.
    assert_eq!(bytes.used(), 0);
    again.push(entry_of(1000));
    assert_eq!(bytes.used(), 1000);
}

/// What is queued for a tenant counts for it, and displaces nothing of others.
#[tokio::test(start_paused = true)]
async fn entries_of_a_cluster_plugin_count_for_the_namespaces_of_the_routes() {
    let (never, state) = (Recorder::with(usize::MAX, Duration::ZERO), PluginState::default());
    let bytes = QueuedBytes::of(&state, 80_000);
    let settings = QueueSettings { max_entries: 1_000_000, max_bytes: usize::MAX, ..settings() };
    let cluster = start_of("KongClusterPlugin/log", settings.clone(), &never, &state);
    cluster.push_for("calm", entry_of(1000));
    for _ in 0..200 {
        cluster.push_for("busy", entry_of(1000));
    }
    let counts = cluster.counts();
    assert_eq!((counts.pending, bytes.used()), (71, 71_000), "one, and seven eighths of the rest");
    let own = start_of("KongPlugin/busy/log", settings.clone(), &never, &state);
    own.push(entry_of(1000));
    assert_eq!(own.counts().pending, 0, "the namespace has its share");
    let other = start_of("KongPlugin/calm/log", settings, &never, &state);
    for _ in 0..4 {
        other.push(entry_of(1000));
    }
    assert_eq!(other.counts().pending, 4);
    cluster.push_for("calm", entry_of(1000));
    assert_eq!(cluster.counts().pending, 72, "nothing was displaced");
}

#[tokio::test(start_paused = true)]
async fn new_entries_take_the_place_of_the_oldest_of_their_queue() {
    let (recorder, state) = (Recorder::with(0, Duration::from_secs(1)), PluginState::default());
    let bytes = QueuedBytes::of(&state, 300);
    let queue = start(settings(), &recorder, &state);
    push_all(&queue, &["a"]);
    sleep(Duration::from_millis(1)).await; // Time is paused.
    push_all(&queue, &["b", "c", "d", "e"]);
    assert_eq!(bytes.used(), 4 * (ENTRY_OVERHEAD + 1));
    sleep(Duration::from_secs(10)).await; // Time is paused.
    assert_eq!(recorder.batches(), ["a", "c", "d", "e"]);
    assert_eq!(queue.counts(), QueueCounts { sent: 4, dropped_limit: 1, ..QueueCounts::default() });
    assert_eq!(bytes.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_batch_are_limited() {
    let (recorder, state) = (Recorder::new(), PluginState::default());
    let settings =
        QueueSettings { max_batch_size: 1000, max_coalescing_delay: Duration::from_secs(3600), ..settings() };
    let queue = start(settings, &recorder, &state);
    let part = MAX_BATCH_BYTES / 4;
    for _ in 0..6 {
        queue.push(vec![b'x'; part - 1].into());
    }
    queue.push(vec![b'x'; MAX_BATCH_BYTES + 1].into());
    sleep(Duration::from_secs(1)).await; // Time is paused.
    let sizes: Vec<usize> = recorder.batches().iter().map(String::len).collect();
    assert_eq!(sizes, [4 * part - 1, 2 * part - 1, MAX_BATCH_BYTES + 1], "with separators");
}

#[tokio::test(start_paused = true)]
async fn first_retry_may_be_early_and_further_ones_have_a_least_delay() {
    for (max_retry_delay, expected) in [(60.0, [0, 1, 101, 301, 701]), (0.001, [0, 1, 101, 201, 301])] {
        let (recorder, state) = (Recorder::with(4, Duration::ZERO), PluginState::default());
        let config = QueueConfig { initial_retry_delay: 0.001, max_retry_delay, ..QueueConfig::default() };
        let queue = start(config.validate("queue").unwrap(), &recorder, &state);
        push_all(&queue, &["a"]);
        sleep(Duration::from_secs(5)).await; // Time is paused.
        let times: Vec<_> = recorder.batches.lock().iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(times, expected, "{max_retry_delay}");
    }
}

/// Responds with these deliveries, and then accepts.
struct Scripted {
    began: Instant,
    deliveries: Mutex<Vec<BatchOutcome>>,
    times: Mutex<Vec<u64>>,
}

impl BatchSender for Scripted {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        entries.concat().into()
    }

    fn send(&self, _body: Bytes) -> BoxFuture<'static, bool> {
        unreachable!("`deliver` is called")
    }

    fn deliver(&self, _body: Bytes) -> BoxFuture<'static, BatchOutcome> {
        self.times.lock().push(self.began.elapsed().as_secs());
        let delivery = self.deliveries.lock().pop().unwrap_or(BatchOutcome::Accepted);
        Box::pin(async move { delivery })
    }
}

#[tokio::test(start_paused = true)]
async fn servers_delay_retries_and_refuse_batches() {
    let second = Duration::from_secs(1);
    let cases = [
        // The server asks for more than the longest delay.
        (vec![BatchOutcome::Later(100 * second)], vec![0, 30], (1, 0)),
        (vec![BatchOutcome::Failed, BatchOutcome::Later(7 * second)], vec![0, 7, 21], (1, 0)),
        (vec![BatchOutcome::Refused], vec![0], (0, 1)),
        (vec![BatchOutcome::AcceptedInPart { rejected: 3 }], vec![0], (0, 1)),
        (vec![BatchOutcome::AcceptedInPart { rejected: 0 }], vec![0], (1, 0)),
    ];
    for (deliveries, times, (sent, dropped)) in cases {
        let sender =
            Arc::new(Scripted { began: Instant::now(), deliveries: Mutex::new(deliveries), times: Mutex::default() });
        let state = PluginState::default();
        let services: Arc<dyn PluginServices> = Arc::new(LocalServices);
        let notes = BuildNotes::default();
        let cx = BuildCx {
            object: "KongPlugin/default/log",
            state: &state,
            services: &services,
            node: "test",
            notes: &notes,
        };
        let settings = QueueSettings { initial_retry_delay: second, max_retry_delay: 30 * second, ..settings() };
        let queue = BatchQueue::start(settings, Arc::clone(&sender) as _, &cx);
        push_all(&queue, &["a"]);
        sleep(Duration::from_secs(50)).await; // Time is paused.
        assert_eq!(*sender.times.lock(), times);
        let counts = queue.counts();
        assert_eq!((counts.sent, counts.dropped_failed), (sent, dropped), "{times:?}");
    }
}
