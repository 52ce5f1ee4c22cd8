//! Triggers the rereading of manifests: by debounced file system events, and by polling if a folder has no events.

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

use super::changed::ChangedPaths;
use super::mounts::lacks_events;
use super::walk::is_listed;

/// Watches folders, without their subfolders. The caller passes the folders to `watch_only` after every reading.
#[derive(Debug)]
pub struct ManifestWatcher {
    /// The watcher of the system; `None` if it supports no watches at all.
    system_watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    shared: Arc<WatcherState>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct WatcherState {
    /// Triggers a reading.
    trigger: Notify,
    /// A file is being written: normally the close event triggers the reading, but some writers never close the file.
    write_started: Notify,
    /// Manifests that have been written to and not yet closed.
    open_files: Mutex<BTreeSet<PathBuf>>,
    /// The paths of the events since the last reading.
    changed_paths: Mutex<ChangedPaths>,
    /// A watched folder may have been replaced by another with the same name, so all watches have to be set again.
    renew_watches: AtomicBool,
    /// A folder has no events or cannot be watched, so all folders are polled.
    is_polling: AtomicBool,
}

impl ManifestWatcher {
    /// Starts watching on the current runtime. A tick means "read again"; unreceived ticks are merged.
    pub fn start() -> (ManifestWatcher, mpsc::Receiver<()>) {
        let (ticks, receiver) = mpsc::channel(1);
        let shared = Arc::new(WatcherState::default());
        let task = tokio::spawn(debounce(Arc::clone(&shared), ticks));
        let system_watcher = {
            let shared = Arc::clone(&shared);
            notify::recommended_watcher(move |event| on_event(&shared, event))
        };
        let mut watcher = ManifestWatcher { system_watcher: None, watched: BTreeSet::new(), shared, task };
        match system_watcher {
            Ok(system_watcher) => watcher.system_watcher = Some(system_watcher),
            Err(error) => watcher.start_polling(Path::new(""), &error.to_string()),
        }
        (watcher, receiver)
    }

    /// Watches exactly these folders from now on. A new folder causes a tick, because files in it may have changed
    /// before this call.
    pub fn watch_only(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(system_watcher) = &mut self.system_watcher else { return };
        let renew_watches = self.shared.renew_watches.swap(false, Ordering::AcqRel);
        for folder in self.watched.difference(folders) {
            // The folder may be deleted already, and its watch with it.
            drop(system_watcher.unwatch(folder));
        }
        self.watched.retain(|folder| folders.contains(folder));
        let mut without_events = Vec::new();
        let mut any_new = false;
        for folder in folders {
            let is_new = !self.watched.contains(folder);
            if !is_new && !renew_watches {
                continue;
            }
            match system_watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) if is_new && lacks_events(folder) => {
                    without_events.push((folder, "its file system has no events".to_owned()))
                }
                Ok(()) => {}
                // Deleted since it was read; the parent folder is watched and reports it.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => continue,
                Err(error) => without_events.push((folder, error.to_string())),
            }
            any_new |= self.watched.insert(folder.clone());
        }
        if any_new {
            *self.shared.changed_paths.lock() = ChangedPaths::Anything;
            self.shared.trigger.notify_one();
        }
        for (folder, reason) in without_events {
            self.start_polling(folder, &reason);
        }
    }

    /// The changes since the previous call. To be called before reading, so that changes during the reading are
    /// reported by the next call.
    pub fn changed(&self) -> ChangedPaths {
        let changed = std::mem::take(&mut *self.shared.changed_paths.lock());
        if self.shared.is_polling.load(Ordering::Acquire) { ChangedPaths::Anything } else { changed }
    }

    /// Polls all folders from now on, because this one cannot be watched.
    fn start_polling(&self, folder: &Path, reason: &str) {
        if !self.shared.is_polling.swap(true, Ordering::AcqRel) {
            let seconds = POLL_INTERVAL.as_secs();
            warn!(
                folder = %folder.display(),
                why = reason,
                seconds,
                "Cannot watch the manifests for changes; polling them instead"
            );
            self.shared.trigger.notify_one();
        }
    }
}

impl Drop for ManifestWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Called on the watcher's thread.
fn on_event(shared: &WatcherState, event: notify::Result<Event>) {
    // Portico's own reading causes events, too; they must not trigger the next reading.
    if let Ok(Event { kind: EventKind::Access(kind), .. }) = event
        && kind != AccessKind::Close(AccessMode::Write)
    {
        return;
    }
    match &event {
        Ok(Event { kind: EventKind::Any | EventKind::Other, .. }) | Err(_) => {
            *shared.changed_paths.lock() = ChangedPaths::Anything;
        }
        Ok(event) => shared.changed_paths.lock().add(&event.paths),
    }
    let paths = event.as_ref().map(|event| event.paths.clone()).unwrap_or_default();
    let kind = event.map(|event| event.kind);
    if !matches!(kind, Ok(EventKind::Modify(ModifyKind::Data(_)))) {
        shared.open_files.lock().retain(|file| !paths.contains(file));
    }
    match kind {
        // A program may write a file slowly: reading half of it would drop the objects in the other half.
        Ok(EventKind::Modify(ModifyKind::Data(_))) if cfg!(target_os = "linux") => {
            shared.open_files.lock().extend(paths.into_iter().filter(|path| is_listed(path)));
            shared.write_started.notify_one();
            return;
        }
        Ok(EventKind::Access(_) | EventKind::Create(_)) => {}
        // Deleting a folder removes its watch; an overflow of the event queue (`Other`) may hide such an event.
        Ok(EventKind::Remove(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other) | Err(_) => {
            shared.renew_watches.store(true, Ordering::Release);
        }
    }
    shared.trigger.notify_one();
}

/// Merges a burst of events into one tick, after a quiet period or a maximum duration.
async fn debounce(shared: Arc<WatcherState>, ticks: mpsc::Sender<()>) {
    loop {
        let write_timeout = async {
            shared.write_started.notified().await;
            sleep(POLL_INTERVAL).await;
        };
        tokio::select! {
            () = shared.trigger.notified() => {}
            () = write_timeout => shared.open_files.lock().clear(),
            () = sleep(POLL_INTERVAL), if shared.is_polling.load(Ordering::Acquire) => {}
        }
        let burst_end = Instant::now() + MAX_BURST;
        while timeout_at(burst_end.min(Instant::now() + QUIET_PERIOD), shared.trigger.notified()).await.is_ok()
            && Instant::now() < burst_end
        {}
        // A file may still be open for writing when another is closed; reading now would read half of the open file.
        let deadline = Instant::now() + POLL_INTERVAL;
        while !shared.open_files.lock().is_empty() && timeout_at(deadline, shared.trigger.notified()).await.is_ok() {}
        shared.open_files.lock().clear();
        // A full channel already holds a tick, which covers this one as well.
        if let Err(mpsc::error::TrySendError::Closed(())) = ticks.try_send(()) {
            return;
        }
    }
}

/// The write, rename and close events of one save are closer together than this.
const QUIET_PERIOD: Duration = Duration::from_millis(2);
/// The longest burst: with continuous changes, a reading starts at this interval. On Linux, a file that is open for
/// writing delays the reading further.
const MAX_BURST: Duration = Duration::from_millis(50);
/// How often all folders are read if one of them has no events. An open file triggers a reading after this time, and
/// delays a triggered reading by at most this time, so a file may stay open for up to twice as long.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bursts_become_one_tick_and_endless_bursts_several() {
        let shared = Arc::new(WatcherState::default());
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(debounce(Arc::clone(&shared), sender));
        let start = Instant::now();
        for _ in 0..3 {
            shared.trigger.notify_one();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
        assert!(ticks.try_recv().is_err(), "three events, one tick");

        let endless = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                loop {
                    shared.trigger.notify_one();
                    tokio::time::sleep(Duration::from_millis(1)).await; // Time is paused.
                }
            })
        };
        let start = Instant::now();
        ticks.recv().await.expect("a tick");
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(45) && waited <= Duration::from_millis(60), "{waited:?}");
        endless.abort();
        drop(ticks);
        shared.trigger.notify_one();
        task.await.expect("the task ends when the receiver is dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn folders_without_events_are_polled() {
        let shared = Arc::new(WatcherState::default());
        shared.is_polling.store(true, Ordering::Release);
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(debounce(Arc::clone(&shared), sender));
        let start = Instant::now();
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() >= POLL_INTERVAL && start.elapsed() < 2 * POLL_INTERVAL);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn unclosed_files_are_read_after_the_poll_interval() {
        let shared = Arc::new(WatcherState::default());
        let (sender, mut ticks) = mpsc::channel(1);
        let task = tokio::spawn(debounce(Arc::clone(&shared), sender));
        let start = Instant::now();
        shared.write_started.notify_one();
        ticks.recv().await.expect("a tick");
        assert!(start.elapsed() >= POLL_INTERVAL && start.elapsed() < 2 * POLL_INTERVAL);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn half_written_files_delay_reading_up_to_a_limit() {
        let event = |kind| Ok(Event::new(kind).add_path(PathBuf::from("/a/slow.yaml")));
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for closed in [true, false] {
            let shared = Arc::new(WatcherState::default());
            let (sender, mut ticks) = mpsc::channel(1);
            let task = tokio::spawn(debounce(Arc::clone(&shared), sender));
            let start = Instant::now();
            on_event(&shared, event(data));
            shared.trigger.notify_one();
            tokio::time::sleep(POLL_INTERVAL / 2).await; // Time is paused.
            assert!(ticks.try_recv().is_err(), "a triggered reading waits for the half-written file");
            if closed {
                on_event(&shared, event(EventKind::Access(AccessKind::Close(AccessMode::Write))));
            }
            ticks.recv().await.expect("a tick");
            assert_eq!(start.elapsed() < POLL_INTERVAL, closed, "{:?}", start.elapsed());
            assert!(start.elapsed() < POLL_INTERVAL + 2 * MAX_BURST, "{:?}", start.elapsed());
            task.abort();
        }
    }

    #[test]
    fn only_changes_trigger_a_reading() {
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for (kind, triggers, renews_watches) in [
            (data, !cfg!(target_os = "linux"), !cfg!(target_os = "linux")),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false, false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), false, false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), true, false),
            (EventKind::Create(notify::event::CreateKind::File), true, false),
            (EventKind::Remove(notify::event::RemoveKind::Folder), true, true),
            (EventKind::Other, true, true),
        ] {
            let shared = WatcherState::default();
            on_event(&shared, Ok(Event::new(kind)));
            let mut waiting = std::pin::pin!(shared.trigger.notified());
            assert_eq!(waiting.as_mut().enable(), triggers, "{kind:?}");
            assert_eq!(shared.renew_watches.load(Ordering::Acquire), renews_watches, "{kind:?}");
        }
    }
}
