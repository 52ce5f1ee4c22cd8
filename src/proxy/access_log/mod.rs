//! One line per request, written by a thread of its own: the workers hand over their lines and never wait.

mod fields;
mod line;
mod queue;
mod sink;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use parking_lot::Mutex;

pub use self::fields::Field;
pub(crate) use self::queue::Lost;

use self::line::Layout;
use self::queue::{Lines, Queue};
use self::sink::Sink;
use super::stats::Labels;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// What is written about one request.
#[derive(Debug)]
pub(crate) struct Record {
    /// When the request began.
    pub(crate) time: SystemTime,
    pub(crate) client: SocketAddr,
    /// The version of TLS, if there is any.
    pub(crate) tls: Option<&'static str>,
    pub(crate) server_name: Option<Arc<str>>,
    /// None, like the target, of what could not be read as a request.
    pub(crate) method: Option<Method>,
    pub(crate) version: Option<Version>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) target: Option<Uri>,
    pub(crate) status: StatusCode,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    pub(crate) labels: Option<Arc<Labels>>,
    pub(crate) address: Option<SocketAddr>,
    /// Who asked, as plugins found out.
    pub(crate) consumer: Option<Arc<str>>,
    pub(crate) id: Option<HeaderValue>,
    pub(crate) fault: Option<&'static str>,
    pub(crate) agent: Option<HeaderValue>,
}

/// The running log. Lines that do not fit into the queue are dropped and counted.
#[derive(Debug)]
pub struct AccessLog {
    /// None if there is no log.
    layout: Option<Layout>,
    shared: Arc<Shared>,
    /// Says that the writer is done, by hanging up.
    written: Mutex<Option<Receiver<()>>>,
    thread: Option<Thread>,
}

#[derive(Debug, Default)]
struct Shared {
    asleep: AtomicBool,
    ending: AtomicBool,
    reopen: AtomicBool,
    queue: Queue,
}

impl AccessLog {
    pub fn start(destination: Destination, format: Format, fields: &[Field]) -> io::Result<AccessLog> {
        let shared = Arc::new(Shared::default());
        let Some(mut sink) = Sink::open(destination)? else {
            return Ok(AccessLog { layout: None, shared, written: Mutex::new(None), thread: None });
        };
        let (writing, written) = sync_channel(0);
        let writer = thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                write_all(&mut sink, &shared);
                drop(writing);
            }
        })?;
        let thread = Some(writer.thread().clone());
        Ok(AccessLog { layout: Some(Layout::new(format, fields)), shared, written: Mutex::new(Some(written)), thread })
    }

    /// Opens the file anew before the next record: its old one was moved away (SIGHUP).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Waits until everything handed over so far is written, and ends the log: what comes later is dropped and counted.
    /// Not for long, since a pipe that nobody reads takes nothing, and must not keep the process alive.
    pub fn finish(&self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
        if let Some(written) = self.written.lock().take() {
            // Whether it hung up, also by a panic, or the time is over: there is nothing more to do for it.
            written.recv_timeout(LAST_LINES).ok();
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.layout.is_none()
    }

    pub(crate) fn lost(&self) -> &Arc<Lost> {
        self.shared.queue.lost()
    }

    pub(crate) fn write(&self, record: &Record) {
        thread_local! {
            /// The line that is being made; its memory goes from one to the next.
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        let Some(layout) = &self.layout else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            // A long target makes a long line, once.
            line.shrink_to(LINE_KEPT);
            layout.write(record, line);
            self.shared.queue.add(line);
        });
        // The writer announces its sleep and then takes a last look into the queue, under its lock: either it sees the line,
        // or we see that it sleeps.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.shared.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.unpark();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What most lines have room in.
const LINE_KEPT: usize = 4096;

/// How long the end waits for the last records to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long the writer lets lines gather. Waking it for each would cost more than writing them.
const GATHER: Duration = Duration::from_millis(20);

fn write_all(sink: &mut Sink, shared: &Shared) {
    let mut lines = Lines::default();
    let mut idle_rounds = 0;
    loop {
        if shared.reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        // Before the last look at the queue, so that nothing handed over before the end is left in it.
        let ending = shared.ending.load(Ordering::SeqCst);
        let wrote = shared.queue.take(&mut lines);
        if wrote {
            // A full disk; the next lines may find room.
            shared.queue.failed(sink.write(&lines.text));
        }
        if ending {
            return;
        }
        idle_rounds = if wrote { 0 } else { idle_rounds + 1 };
        if idle_rounds < ROUNDS {
            thread::park_timeout(GATHER);
        } else if shared.asleep.swap(true, Ordering::SeqCst) {
            // Announced in the round before and the queue was empty since: sleep until somebody writes.
            thread::park();
        }
    }
}

/// Rounds without a line before the writer goes to sleep.
const ROUNDS: u32 = 3;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::process::Command;

    use super::line::testing::record;
    use super::*;

    #[test]
    fn everything_is_written_and_a_moved_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(Destination::File(path.clone()), Format::Text, &Field::usual()).unwrap();
        log.write(&record("/first"));
        // Nothing tells when a record is on disk but the end of the log, so the first log ends here.
        log.finish();
        let log = AccessLog::start(Destination::File(path.clone()), Format::Text, &Field::usual()).unwrap();
        std::fs::rename(&path, folder.path().join("old.log")).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            log.write(&record("/second"));
        }
        assert_eq!(log.lost().full.load(Ordering::Relaxed), 0);
        drop(log);
        assert!(std::fs::read_to_string(folder.path().join("old.log")).unwrap().contains(" /first "));
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches(" /second ").count(), 100);
    }

    /// A terminal that is held, or a pager at its first page.
    #[test]
    fn a_reader_that_does_not_read_cannot_keep_the_process_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = AccessLog::start(Destination::File(path), Format::Text, &Field::usual()).unwrap();
        // Several times what a pipe holds.
        for _ in 0..5000 {
            log.write(&record("/unread"));
        }
        log.finish();
    }
}
