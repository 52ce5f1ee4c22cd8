//! The access log: one line per request or TCP connection, written by a separate thread. Workers queue their
//! lines and never block.

mod attempt_list;
mod encode;
mod fields;
mod line;
mod queue;
mod sink;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri};
use parking_lot::Mutex;

pub use self::fields::AccessLogField;
pub(in crate::proxy) use self::line::protocol_name;
pub(in crate::proxy) use self::queue::LostLines;

use self::line::LineLayout;
use self::queue::{LineBatch, LineQueue};
use self::sink::AccessLogSink;
use super::stats::RequestSeries;
use crate::plugin_api::completed_request::Attempt;
use crate::plugin_api::masking::LogMask;
use crate::plugin_api::trace::RequestTrace;
use crate::upstream::EndpointPick;

/// Where the access log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogDestination {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Text,
    Json,
}

/// The values of one access-log line.
#[derive(Debug)]
pub(in crate::proxy) struct AccessLogRecord<'r> {
    /// When the request began or the connection was accepted.
    pub(in crate::proxy) time: SystemTime,
    pub(in crate::proxy) client: SocketAddr,
    /// The TLS version, if the connection uses TLS.
    pub(in crate::proxy) tls: Option<&'static str>,
    pub(in crate::proxy) server_name: Option<Arc<str>>,
    /// None, like protocol and target, if malformed input has none that can be recognized, and for a TCP connection.
    pub(in crate::proxy) method: Option<Method>,
    /// The version of HTTP, or `TCP`.
    pub(in crate::proxy) protocol: Option<&'static str>,
    pub(in crate::proxy) host: Option<HeaderValue>,
    pub(in crate::proxy) target: Option<Uri>,
    /// None for a TCP connection.
    pub(in crate::proxy) status: Option<StatusCode>,
    pub(in crate::proxy) bytes_in: u64,
    pub(in crate::proxy) bytes_out: u64,
    pub(in crate::proxy) duration: Duration,
    /// The time until an endpoint was connected, for a TCP connection.
    pub(in crate::proxy) connect_duration: Option<Duration>,
    /// The series with the labels.
    pub(in crate::proxy) series: Option<Arc<RequestSeries>>,
    /// The endpoint that the request was last sent to, or to which the connection was forwarded.
    pub(in crate::proxy) address: Option<SocketAddr>,
    /// Why that endpoint was picked for a request.
    pub(in crate::proxy) pick: Option<EndpointPick>,
    /// The attempts to get a response; none for a connection that is forwarded.
    pub(in crate::proxy) tries: &'r [Attempt],
    /// Why a failed request was not sent again, if its failure is one that is retried.
    pub(in crate::proxy) retry_stop: Option<&'static str>,
    /// The consumer that a plugin authenticated.
    pub(in crate::proxy) consumer: Option<Arc<str>>,
    pub(in crate::proxy) request_id: Option<HeaderValue>,
    pub(in crate::proxy) trace: Option<RequestTrace>,
    /// The reason of the request error, or why the TCP connection did not end regularly.
    pub(in crate::proxy) error: Option<&'static str>,
    pub(in crate::proxy) user_agent: Option<HeaderValue>,
    /// What the line must not contain.
    pub(in crate::proxy) masks: &'r [Arc<LogMask>],
}

/// The running access log. Lines that do not fit into the queue of their worker are dropped and counted.
#[derive(Debug)]
pub struct AccessLogger {
    /// None if the log is off.
    layout: Option<LineLayout>,
    shared: Arc<WriterShared>,
    /// Disconnected when the writer thread has finished.
    writer_done: Mutex<Option<Receiver<()>>>,
    thread: Option<Thread>,
}

#[derive(Debug, Default)]
struct WriterShared {
    /// The writer sleeps until it is woken, or is about to.
    asleep: AtomicBool,
    stopping: AtomicBool,
    reopen: AtomicBool,
    /// One for each worker.
    queues: Mutex<Vec<Arc<LineQueue>>>,
    lost: Arc<LostLines>,
}

impl AccessLogger {
    pub fn start(
        destination: AccessLogDestination,
        format: AccessLogFormat,
        fields: &[AccessLogField],
    ) -> io::Result<AccessLogger> {
        let shared = Arc::new(WriterShared::default());
        let Some(mut sink) = AccessLogSink::open(destination)? else {
            return Ok(AccessLogger { layout: None, shared, writer_done: Mutex::new(None), thread: None });
        };
        let (done, writer_done) = sync_channel(0);
        let writer = thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                write_all(&mut sink, &shared);
                drop(done);
            }
        })?;
        let thread = Some(writer.thread().clone());
        Ok(AccessLogger {
            layout: Some(LineLayout::new(format, fields)),
            shared,
            writer_done: Mutex::new(Some(writer_done)),
            thread,
        })
    }

    /// Reopens the file before the next line, for log rotation (SIGHUP).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Waits until all queued lines are written and stops the log; later lines are dropped and counted. The wait is
    /// limited, because a pipe without a reader blocks and must not keep the process alive.
    pub fn finish(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
        if let Some(writer_done) = self.writer_done.lock().take() {
            // The outcome does not matter: the writer finished, panicked or timed out.
            writer_done.recv_timeout(STOP_TIMEOUT).ok();
        }
    }

    pub(in crate::proxy) fn lost_lines(&self) -> &Arc<LostLines> {
        &self.shared.lost
    }

    /// Adds one of so many workers, with a queue of its own.
    pub(in crate::proxy) fn add_worker(self: &Arc<Self>, workers: usize) -> WorkerAccessLog {
        let queue = Arc::new(LineQueue::new(workers, &self.shared.lost));
        self.shared.queues.lock().push(Arc::clone(&queue));
        WorkerAccessLog { log: Arc::clone(self), queue }
    }

    fn wake(&self) {
        if self.shared.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.unpark();
        }
    }
}

impl Drop for AccessLogger {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The access log as one worker writes it.
#[derive(Debug)]
pub(in crate::proxy) struct WorkerAccessLog {
    log: Arc<AccessLogger>,
    queue: Arc<LineQueue>,
}

impl WorkerAccessLog {
    pub(in crate::proxy) fn is_off(&self) -> bool {
        self.log.layout.is_none()
    }

    pub(in crate::proxy) fn write(&self, record: &AccessLogRecord<'_>) {
        let Some(layout) = &self.log.layout else { return };
        self.queue.add(|text| layout.write(record, text));
        // The writer sets `asleep` before its last check of the queue, under the lock of the queue. So either the
        // writer sees this line, or this thread sees that the writer sleeps.
        if self.log.shared.asleep.load(Ordering::SeqCst) {
            self.log.wake();
        }
    }
}

/// How long the shutdown waits for the last lines to be written.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the writer collects lines. Waking it for each line would cost more than writing the line.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);

/// Writes queued lines until the log is stopped.
fn write_all(sink: &mut AccessLogSink, shared: &WriterShared) {
    let mut lines = LineBatch::default();
    let mut idle_rounds = 0;
    loop {
        if shared.reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        // Loaded before the last check of the queues, so that no line queued before the shutdown is left behind.
        let is_stopping = shared.stopping.load(Ordering::SeqCst);
        let queues = shared.queues.lock().clone();
        let mut has_lines = false;
        for queue in queues {
            if queue.take(&mut lines) {
                has_lines = true;
                // After a failure, for example of a full disk, later lines may succeed.
                shared.lost.failed.fetch_add(sink.write(&lines.text), Ordering::Relaxed);
            }
        }
        if is_stopping {
            return;
        }
        idle_rounds = if has_lines { 0 } else { idle_rounds + 1 };
        if idle_rounds < IDLE_ROUNDS {
            thread::park_timeout(BATCH_INTERVAL);
        } else if shared.asleep.swap(true, Ordering::SeqCst) {
            // `asleep` was set in the previous round and the queues were empty since: sleep until the next line.
            thread::park();
        }
    }
}

/// Rounds without a line after which the writer thread sleeps until it is woken.
const IDLE_ROUNDS: u32 = 3;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;
    use std::process::Command;

    use super::line::testing::record;
    use super::*;

    fn start(path: &Path) -> Arc<AccessLogger> {
        let destination = AccessLogDestination::File(path.to_owned());
        Arc::new(AccessLogger::start(destination, AccessLogFormat::Text, &AccessLogField::defaults()).unwrap())
    }

    #[test]
    fn all_lines_are_written_and_reopen_creates_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = start(&path);
        log.add_worker(1).write(&record("/first"));
        // Only the end of the log guarantees that a line is on disk, so the first log ends here.
        log.finish();
        let log = start(&path);
        std::fs::rename(&path, folder.path().join("old.log")).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        let workers = [log.add_worker(2), log.add_worker(2)];
        for _ in 0..50 {
            workers.iter().for_each(|worker| worker.write(&record("/second")));
        }
        assert_eq!(log.lost_lines().full.load(Ordering::Relaxed), 0);
        log.finish();
        assert!(std::fs::read_to_string(folder.path().join("old.log")).unwrap().contains(" /first "));
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches(" /second ").count(), 100);
    }

    /// A reader is stalled if it is, for example, a suspended terminal or a pager at its first page.
    #[test]
    fn stalled_reader_does_not_block_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = start(&path);
        let worker = log.add_worker(1);
        // Several times the capacity of a pipe.
        for _ in 0..5000 {
            worker.write(&record("/unread"));
        }
        log.finish();
    }
}
