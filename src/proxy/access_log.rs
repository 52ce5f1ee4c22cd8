//! One line per request, written by a thread of its own: the workers hand over what they know and never wait.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use parking_lot::Mutex;

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

impl Format {
    /// Text for people, JSON for machines.
    pub fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Format::Text } else { Format::Json }
    }
}

/// What is written about one request. Nothing in it is formatted yet; that is the writer's work.
#[derive(Debug)]
pub(crate) struct Record {
    /// When the request began.
    pub(crate) time: SystemTime,
    pub(crate) client: SocketAddr,
    /// None, like the target, of what could not be read as a request.
    pub(crate) method: Option<Method>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) target: Option<Uri>,
    pub(crate) status: StatusCode,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    pub(crate) labels: Option<Arc<Labels>>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) id: Option<HeaderValue>,
    pub(crate) fault: Option<&'static str>,
    pub(crate) agent: Option<HeaderValue>,
}

/// The running log. Records that do not fit into the queue are dropped and counted.
#[derive(Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Record>>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    thread: Option<Thread>,
}

#[derive(Debug, Default)]
struct Shared {
    asleep: AtomicBool,
    ending: AtomicBool,
    reopen: AtomicBool,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    pub fn start(destination: Destination, format: Format) -> io::Result<AccessLog> {
        let shared = Arc::new(Shared::default());
        let mut sink = match destination {
            Destination::Off => {
                return Ok(AccessLog { queue: None, shared, writer: Mutex::new(None), thread: None });
            }
            Destination::Stdout => Sink::Stdout(BufWriter::new(io::stdout())),
            Destination::File(path) => {
                let file = BufWriter::new(open(&path)?);
                Sink::File(path, file)
            }
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write_all(&receiver, &mut sink, format, &shared)
        })?;
        let thread = Some(writer.thread().clone());
        Ok(AccessLog { queue: Some(sender), shared, writer: Mutex::new(Some(writer)), thread })
    }

    /// Opens the file anew before the next record: its old one was moved away (SIGHUP).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Waits until everything handed over so far is written, and ends the log: what comes later is dropped and counted.
    pub fn finish(&self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
        if let Some(writer) = self.writer.lock().take() {
            // A writer that panicked has nothing left to write.
            drop(writer.join());
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.queue.is_none()
    }

    pub(crate) fn dropped(&self) -> &Arc<AtomicU64> {
        &self.shared.dropped
    }

    pub(crate) fn write(&self, record: Record) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(record) {
            // Sequentially consistent with the writer's store before its last look at the queue: one of the two sees the
            // other, and a record does not lie there until the next one comes.
            Ok(()) if self.shared.asleep.load(Ordering::SeqCst) => self.wake(),
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
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

/// Records that may wait. At 50,000 requests a second it is more than a second's delay of the disk.
const QUEUE: usize = 65_536;

/// How long the writer lets records gather. Waking it for each would cost more than writing them.
const GATHER: Duration = Duration::from_millis(20);

fn write_all(queue: &Receiver<Record>, sink: &mut Sink, format: Format, shared: &Shared) {
    let mut line = String::new();
    let mut idle_rounds = 0;
    loop {
        if shared.reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        // Before the last look at the queue, so that nothing handed over before the end is left in it.
        let ending = shared.ending.load(Ordering::SeqCst);
        let mut wrote = false;
        let ended = loop {
            match queue.try_recv() {
                Ok(record) => {
                    line.clear();
                    match format {
                        Format::Text => write_text(&record, &mut line),
                        Format::Json => write_json(&record, &mut line),
                    }
                    line.push('\n');
                    if sink.write(line.as_bytes()).is_err() {
                        shared.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    wrote = true;
                }
                Err(TryRecvError::Empty) => break ending,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        if wrote && sink.flush().is_err() {
            // A full disk; the records are lost, and the next ones may find room.
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if ended {
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

/// Rounds without a record before the writer goes to sleep.
const ROUNDS: u32 = 3;

enum Sink {
    Stdout(BufWriter<io::Stdout>),
    File(PathBuf, BufWriter<File>),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(stdout) => stdout.write_all(line),
            Sink::File(_, file) => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Stdout(stdout) => stdout.flush(),
            Sink::File(_, file) => file.flush(),
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(path, file) = self {
            match open(path) {
                Ok(new) => *file = BufWriter::new(new),
                Err(error) => tracing::error!(
                    path = %path.display(), %error, "Cannot reopen the access log; going on with the file that is open"
                ),
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn write_json(record: &Record, line: &mut String) {
    let labels = record.labels.as_deref();
    let text = |label: fn(&Labels) -> &Arc<str>| labels.map(label).filter(|text| !text.is_empty()).map(|text| &**text);
    let value = serde_json::json!({
        "time": time(record),
        "client": record.client.to_string(),
        "method": record.method.as_ref().map(Method::as_str),
        "host": record.host.as_ref().map(lossy),
        "path": record.target.as_ref().map(Uri::to_string),
        "status": record.status.as_u16(),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "duration_ms": milliseconds(record),
        "gateway": text(|labels| &labels.gateway),
        "listener": text(|labels| &labels.listener),
        "route": text(|labels| &labels.route),
        "rule": text(|labels| &labels.rule),
        "upstream": text(|labels| &labels.backend),
        "address": record.address.map(|address| address.to_string()),
        "request_id": record.id.as_ref().map(lossy),
        "fault": record.fault,
        "user_agent": record.agent.as_ref().map(lossy),
    });
    line.push_str(&value.to_string());
}

fn write_text(record: &Record, line: &mut String) {
    let label = |label: fn(&Labels) -> &Arc<str>| match record.labels.as_deref().map(label) {
        Some(text) if !text.is_empty() => Arc::clone(text),
        _ => "-".into(),
    };
    let quoted = |value: &Option<HeaderValue>| value.as_ref().map_or("-".to_owned(), |value| escaped(&lossy(value)));
    write!(
        line,
        "{} {} {} {} {} {} in={} out={} {:.3}ms route={} rule={} upstream={} address={} id={} fault={} agent={}",
        time(record),
        record.client,
        record.method.as_ref().map_or("-", Method::as_str),
        quoted(&record.host),
        record.target.as_ref().map_or("-".to_owned(), |target| escaped(&target.to_string())),
        record.status.as_u16(),
        record.bytes_in,
        record.bytes_out,
        milliseconds(record),
        label(|labels| &labels.route),
        label(|labels| &labels.rule),
        label(|labels| &labels.backend),
        record.address.map_or("-".to_owned(), |address| address.to_string()),
        quoted(&record.id),
        record.fault.unwrap_or("-"),
        quoted(&record.agent),
    )
    .expect("a String takes everything");
}

/// RFC 3339 with milliseconds.
fn time(record: &Record) -> String {
    let time = Timestamp::try_from(record.time).unwrap_or_default();
    format!("{time:.3}")
}

fn milliseconds(record: &Record) -> f64 {
    (record.duration.as_secs_f64() * 1e6).round() / 1e3
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(&Bytes::copy_from_slice(value.as_bytes())).into_owned()
}

/// As one word that cannot be mistaken for more: control characters, quotes and spaces would let a client write lines
/// and fields of its own.
fn escaped(text: &str) -> String {
    if !text.is_empty()
        && text.chars().all(|character| character.is_ascii_graphic() && character != '"' && character != '\\')
    {
        return text.to_owned();
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &'static str) -> Record {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: "10.0.0.1:5".parse().unwrap(),
            method: Some(Method::GET),
            host: Some(HeaderValue::from_static("a.example")),
            target: Some(Uri::from_static(target)),
            status: StatusCode::OK,
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(1_500),
            labels: Some(Arc::new(Labels {
                route: "HTTPRoute/ns/a".into(),
                rule: "0".into(),
                backend: "ns/web:80".into(),
                ..Labels::default()
            })),
            address: Some("10.0.0.2:80".parse().unwrap()),
            id: Some(HeaderValue::from_static("id")),
            fault: None,
            agent: Some(
                HeaderValue::from_bytes(b"a \"b\"\t\xff\x1b".trim_ascii_end().strip_suffix(b"\x1b").unwrap()).unwrap(),
            ),
        }
    }

    #[test]
    fn text() {
        let mut line = String::new();
        write_text(&record("/x?y=1"), &mut line);
        assert_eq!(
            line,
            "2023-11-14T22:13:20.123Z 10.0.0.1:5 GET a.example /x?y=1 200 in=1 out=2 1.500ms route=HTTPRoute/ns/a rule=0 \
             upstream=ns/web:80 address=10.0.0.2:80 id=id fault=- agent=\"a \\\"b\\\"\\t\u{fffd}\""
        );
    }

    #[test]
    fn json() {
        let mut line = String::new();
        write_json(&record("/x?y=1"), &mut line);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["path"], "/x?y=1");
        assert_eq!(value["duration_ms"], 1.5);
        assert_eq!(value["user_agent"], "a \"b\"\t\u{fffd}");
        assert_eq!(value["gateway"], serde_json::Value::Null);
    }

    #[test]
    fn everything_is_written_and_a_moved_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(Destination::File(path.clone()), Format::Text).unwrap();
        log.write(record("/first"));
        // Nothing tells when a record is on disk but the end of the log, so the first log ends here.
        log.finish();
        let log = AccessLog::start(Destination::File(path.clone()), Format::Text).unwrap();
        std::fs::rename(&path, folder.path().join("old.log")).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            log.write(record("/second"));
        }
        assert_eq!(log.dropped().load(Ordering::Relaxed), 0);
        drop(log);
        assert!(std::fs::read_to_string(folder.path().join("old.log")).unwrap().contains(" /first "));
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches(" /second ").count(), 100);
    }
}
