//! Says when to read again: events of the file system, gathered for a moment, or a slow clock where there are none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::changed::Changed;
use super::mounts::lacks_events;
use super::walk::is_listed;

/// Watches folders, each for itself: which ones is said after every reading by `follow`.
#[derive(Debug)]
pub struct Watcher {
    /// None if the system gives no watches at all.
    events: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Something happened.
    event: Notify,
    /// A file is being written: what counts is when it is closed, but some writers never do.
    written: Notify,
    /// Manifests that were written to and not closed since.
    open: Mutex<BTreeSet<PathBuf>>,
    /// What the events since the last reading were about.
    changed: Mutex<Changed>,
    /// A watched folder may have been replaced by another of the same name, so all watches are set again.
    renew: AtomicBool,
    /// Some folder has no events: look every now and then.
    poll: AtomicBool,
}

impl Watcher {
    /// Starts watching, on the current runtime. A tick means "read again"; ticks that nobody took yet are one.
    pub fn start() -> (Watcher, mpsc::Receiver<()>) {
        let (ticks, receiver) = mpsc::channel(1);
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(gather(Arc::clone(&shared), ticks));
        let events = {
            let shared = Arc::clone(&shared);
            notify::recommended_watcher(move |event| on_event(&shared, event))
        };
        let mut watcher = Watcher { events: None, watched: BTreeSet::new(), shared, task };
        match events {
            Ok(events) => watcher.events = Some(events),
            Err(error) => watcher.poll(Path::new(""), &error.to_string()),
        }
        (watcher, receiver)
    }

    /// Watches exactly these folders from now on. What changed in a new one before this call is not lost: there is a tick
    /// for it.
    pub fn follow(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(events) = &mut self.events else { return };
        let renew = self.shared.renew.swap(false, Ordering::AcqRel);
        for folder in self.watched.difference(folders) {
            // It may be gone already, and its watch with it.
            drop(events.unwatch(folder));
        }
        self.watched.retain(|folder| folders.contains(folder));
        let mut failed = Vec::new();
        let mut news = false;
        for folder in folders {
            let is_new = !self.watched.contains(folder);
            if !is_new && !renew {
                continue;
            }
            match events.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) if is_new && lacks_events(folder) => {
                    failed.push((folder, "its file system has no events".to_owned()))
                }
                Ok(()) => {}
                // Gone since it was read; the folder above it is watched and will tell.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => continue,
                Err(error) => failed.push((folder, error.to_string())),
            }
            news |= self.watched.insert(folder.clone());
        }
        if news {
            *self.shared.changed.lock() = Changed::Anything;
            self.shared.event.notify_one();
        }
        for (folder, why) in failed {
            self.poll(folder, &why);
        }
    }

    /// What to look at since this was last asked. To be asked before reading, so that what changes meanwhile counts for the
    /// next time.
    pub fn changed(&self) -> Changed {
        let changed = std::mem::take(&mut *self.shared.changed.lock());
        if self.shared.poll.load(Ordering::Acquire) { Changed::Anything } else { changed }
    }

    fn poll(&self, folder: &Path, why: &str) {
        if !self.shared.poll.swap(true, Ordering::AcqRel) {
            let seconds = POLL.as_secs();
            warn!(folder = %folder.display(), why, seconds, "Cannot watch the manifests for changes, looking at them every few seconds instead");
            self.shared.event.notify_one();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs on the thread of the watches.
fn on_event(shared: &Shared, event: notify::Result<Event>) {
    // Our own reading is an event too, and must not lead to the next one.
    if let Ok(Event { kind: EventKind::Access(kind), .. }) = event
        && kind != AccessKind::Close(AccessMode::Write)
    {
        return;
    }
    match &event {
        Ok(Event { kind: EventKind::Any | EventKind::Other, .. }) | Err(_) => {
            *shared.changed.lock() = Changed::Anything;
        }
        Ok(event) => shared.changed.lock().add(&event.paths),
    }
    let paths = event.as_ref().map(|event| event.paths.clone()).unwrap_or_default();
    let kind = event.map(|event| event.kind);
    if !matches!(kind, Ok(EventKind::Modify(ModifyKind::Data(_)))) {
        shared.open.lock().retain(|open| !paths.contains(open));
    }
    match kind {
        // A program that renders to a file may take its time. Half of what it has to say would be half of the objects.
        Ok(EventKind::Modify(ModifyKind::Data(_))) if cfg!(target_os = "linux") => {
            shared.open.lock().extend(paths.into_iter().filter(|path| is_listed(path)));
            shared.written.notify_one();
            return;
        }
        Ok(EventKind::Access(_) | EventKind::Create(_)) => {}
        // A folder that goes takes its watch along; an overflow (`Other`) may have hidden that.
        Ok(EventKind::Remove(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other) | Err(_) => {
            shared.renew.store(true, Ordering::Release);
        }
    }
    shared.event.notify_one();
}

/// Makes one tick of a burst of events: it is over when nothing happened for a moment, or has gone on for too long.
async fn gather(shared: Arc<Shared>, ticks: mpsc::Sender<()>) {
    loop {
        let left_open = async {
            shared.written.notified().await;
            sleep(POLL).await;
        };
        tokio::select! {
            () = shared.event.notified() => {}
            () = left_open => shared.open.lock().clear(),
            () = sleep(POLL), if shared.poll.load(Ordering::Acquire) => {}
        }
        let latest = Instant::now() + BURST;
        while timeout_at(latest.min(Instant::now() + QUIET), shared.event.notified()).await.is_ok()
            && Instant::now() < latest
        {}
        // Another file is closed while one is being written: reading both now would find half of that one.
        let patience = Instant::now() + POLL;
        while !shared.open.lock().is_empty() && timeout_at(patience, shared.event.notified()).await.is_ok() {}
        shared.open.lock().clear();
        // A full channel holds a tick that nobody took yet, which is this one as well.
        if let Err(mpsc::error::TrySendError::Closed(())) = ticks.try_send(()) {
            return;
        }
    }
}

/// A write, a rename and a close of one save are a fraction of this apart.
const QUIET: Duration = Duration::from_millis(2);
/// A folder that is written to without end is read nevertheless.
const BURST: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_tick_and_an_endless_one_several() {
        let shared = Arc::new(Shared::default());
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(gather(Arc::clone(&shared), sender));
        let start = Instant::now();
        for _ in 0..3 {
            shared.event.notify_one();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
        assert!(ticks.try_recv().is_err(), "three events, one tick");

        let endless = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                loop {
                    shared.event.notify_one();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        let start = Instant::now();
        ticks.recv().await.expect("a tick");
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(45) && waited <= Duration::from_millis(60), "{waited:?}");
        endless.abort();
        drop(ticks);
        shared.event.notify_one();
        task.await.expect("it ends when nobody listens");
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_the_clock_ticks() {
        let shared = Arc::new(Shared::default());
        shared.poll.store(true, Ordering::Release);
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(gather(Arc::clone(&shared), sender));
        let start = Instant::now();
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() >= POLL && start.elapsed() < 2 * POLL);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_never_closed_is_read_late() {
        let shared = Arc::new(Shared::default());
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(gather(Arc::clone(&shared), sender));
        let start = Instant::now();
        shared.written.notify_one();
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() >= POLL && start.elapsed() < 2 * POLL);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_file_is_waited_for_and_not_for_ever() {
        let event = |kind| Ok(Event::new(kind).add_path(PathBuf::from("/a/slow.yaml")));
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for closed in [true, false] {
            let shared = Arc::new(Shared::default());
            let (sender, mut ticks) = mpsc::channel(1);
            let task = tokio::spawn(gather(Arc::clone(&shared), sender));
            let start = Instant::now();
            on_event(&shared, event(data));
            shared.event.notify_one();
            tokio::time::sleep(POLL / 2).await;
            assert!(ticks.try_recv().is_err(), "one file was closed, and the other is half written");
            if closed {
                on_event(&shared, event(EventKind::Access(AccessKind::Close(AccessMode::Write))));
            }
            ticks.recv().await.expect("a tick");
            assert_eq!(start.elapsed() < POLL, closed, "{:?}", start.elapsed());
            assert!(start.elapsed() < POLL + 2 * BURST, "{:?}", start.elapsed());
            task.abort();
        }
    }

    #[test]
    fn reading_is_no_event() {
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for (kind, counts, renews) in [
            (data, !cfg!(target_os = "linux"), !cfg!(target_os = "linux")),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false, false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), false, false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), true, false),
            (EventKind::Create(notify::event::CreateKind::File), true, false),
            (EventKind::Remove(notify::event::RemoveKind::Folder), true, true),
            (EventKind::Other, true, true),
        ] {
            let shared = Shared::default();
            on_event(&shared, Ok(Event::new(kind)));
            let mut waiting = std::pin::pin!(shared.event.notified());
            assert_eq!(waiting.as_mut().enable(), counts, "{kind:?}");
            assert_eq!(shared.renew.load(Ordering::Acquire), renews, "{kind:?}");
        }
    }
}
