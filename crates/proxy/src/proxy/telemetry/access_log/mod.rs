//! The access log: one line per request or TCP connection, written by a separate thread. Workers queue their
//! lines and never block.

mod attempt_list;
mod captured;
mod encode;
mod export;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod line;
mod query;
mod queue;
mod sink;
mod template_line;
mod times;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;

pub(in crate::proxy) use self::captured::CapturedHeads;
pub use self::export::LineExport;
pub(in crate::proxy) use self::queue::LostLines;
pub(in crate::proxy) use self::template_line::host_name;

use self::captured::FieldCapture;
use self::export::LineOrigin;
use self::line::LineLayout;
use self::queue::{LineBatch, LineQueue};
use self::sink::AccessLogSink;
use super::stats::RequestSeries;
use crate::access_log_syntax::{AccessLogField, LineFacts, LineRules, LineTemplate};
use crate::plugin_api::CredentialLocations;
use crate::plugin_api::completed_request::Attempt;
use crate::plugin_api::masking::{LogMask, MaskedAccessField};
use crate::plugin_api::trace::RequestTrace;
use crate::snapshot::access_logs::GatewayAccessLogs;
use crate::upstream::EndpointPick;

/// Where the access log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogDestination {
    Off,
    /// Lines are written only for [`LineExport`].
    ExportOnly,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Text,
    Json,
}

/// What a line consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogLines {
    /// These fields in this order.
    Fields(AccessLogFormat, Vec<AccessLogField>),
    Template(LineTemplate),
}

/// Everything that is configured for the access log of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub destination: AccessLogDestination,
    pub lines: AccessLogLines,
    pub rules: LineRules,
    pub privacy: Privacy,
}

/// Which personal data lines contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    /// Names of the query parameters whose values are written.
    pub shown_parameters: Vec<Box<str>>,
    /// Whether only the network of a client is written.
    pub masks_clients: bool,
}

/// The values of one access-log line.
#[derive(Debug)]
pub(in crate::proxy) struct AccessLogRecord<'r> {
    /// When the request began or the connection was accepted.
    pub(in crate::proxy) time: SystemTime,
    pub(in crate::proxy) client: SocketAddr,
    /// The TLS version, if the connection uses TLS.
    pub(in crate::proxy) tls: Option<&'static str>,
    pub(in crate::proxy) tls_cipher: Option<&'static str>,
    pub(in crate::proxy) server_name: Option<Arc<str>>,
    /// The port of the listener that clients see, if the request reached one.
    pub(in crate::proxy) listen_port: Option<u16>,
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
    /// What the templates in use read of the heads.
    pub(in crate::proxy) captured: Option<&'r CapturedHeads>,
    /// Where the plugins of the request read credentials.
    pub(in crate::proxy) credentials: Option<&'r CredentialLocations>,
    pub(in crate::proxy) privacy: &'r Privacy,
}

impl AccessLogRecord<'_> {
    /// What the plugins of the request mask in its line.
    fn masks(&self) -> &[Arc<LogMask>] {
        self.credentials.map_or(&[], |credentials| &credentials.masks)
    }

    /// The text without what matches the patterns of a mask. All of it is replaced if a mask names the field.
    fn masked<'t>(&self, field: Option<MaskedAccessField>, text: Cow<'t, str>) -> Cow<'t, str> {
        self.masks().iter().fold(text, |text, mask| match field {
            Some(field) => mask.mask_access_field(field, text),
            None => mask.mask_text(&text).map_or(text, Cow::Owned),
        })
    }

    /// What is written for a field that is masked as a whole.
    fn mask_of(&self, field: MaskedAccessField) -> Option<&str> {
        let mask = self.masks().iter().find(|mask| mask.access_log.contains(&field))?;
        Some(mask.object.text().replacement())
    }

    /// Whether the value of a query parameter is written.
    fn shows_parameter(&self, name: &str) -> bool {
        let is_credential = || self.credentials.is_some_and(|all| all.has_parameter(name.as_bytes()));
        self.privacy.shown_parameters.iter().any(|shown| **shown == *name) && !is_credential()
    }
}

/// The running access log. Lines that do not fit into the queue of their worker are dropped and counted.
#[derive(Debug)]
pub struct AccessLogger {
    /// None if the log is off.
    writer: Option<LineWriter>,
    rules: LineRules,
    privacy: Privacy,
    shared: Arc<WriterShared>,
    /// Disconnected when the writer thread has finished.
    writer_done: Mutex<Option<Receiver<()>>>,
    thread: Option<Thread>,
}

#[derive(Debug)]
enum LineWriter {
    Fields(LineLayout),
    Template(LineTemplate),
}

impl LineWriter {
    fn new(lines: AccessLogLines) -> Self {
        match lines {
            AccessLogLines::Fields(format, fields) => LineWriter::Fields(LineLayout::new(format, &fields)),
            AccessLogLines::Template(template) => LineWriter::Template(template),
        }
    }

    fn write(&self, record: &AccessLogRecord<'_>, line: &mut Vec<u8>) {
        match self {
            LineWriter::Fields(layout) => layout.write(record, line),
            LineWriter::Template(template) => template_line::write(template, record, line),
        }
    }
}

#[derive(Debug, Default)]
struct WriterShared {
    /// The writer sleeps until it is woken, or is about to.
    asleep: AtomicBool,
    stopping: AtomicBool,
    reopen: AtomicBool,
    /// Dropped when all lines are written that were queued before.
    flushes: Mutex<Vec<SyncSender<()>>>,
    /// Set if a server gets the lines as well.
    export: OnceLock<LineExport>,
    /// One for each worker.
    queues: Mutex<Vec<Arc<LineQueue>>>,
    lost: Arc<LostLines>,
}

impl AccessLogger {
    pub fn start(config: AccessLogConfig) -> io::Result<AccessLogger> {
        let AccessLogConfig { destination, lines, rules, privacy } = config;
        let shared = Arc::new(WriterShared::default());
        let Some(mut sink) = AccessLogSink::open(destination)? else {
            let writer_done = Mutex::new(None);
            return Ok(AccessLogger { writer: None, rules, privacy, shared, writer_done, thread: None });
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
            writer: Some(LineWriter::new(lines)),
            rules,
            privacy,
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

    /// From now on, a server gets the lines as well. Only the first call has an effect.
    pub fn export(&self, export: LineExport) {
        self.shared.export.get_or_init(|| export);
    }

    /// Waits until all queued lines are written, and are in the queue of the server that gets them as well. The wait is
    /// limited like that of [`Self::finish`].
    pub fn flush(&self) {
        let Some(thread) = &self.thread else { return };
        let (flush, written) = sync_channel(0);
        self.shared.flushes.lock().push(flush);
        thread.unpark();
        // The outcome does not matter: the lines are written, or the wait has timed out.
        written.recv_timeout(STOP_TIMEOUT).ok();
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
        let log =
            WorkerAccessLog { log: Arc::clone(self), queue, gateways: RefCell::default(), capture: RefCell::default() };
        log.set_gateways(&Arc::default());
        log
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
    /// The settings of Gateways in the snapshot that the worker has loaded last.
    gateways: RefCell<Arc<GatewayAccessLogs>>,
    /// What lines contain of heads.
    capture: RefCell<FieldCapture>,
}

impl WorkerAccessLog {
    pub(in crate::proxy) fn is_off(&self) -> bool {
        self.log.writer.is_none()
    }

    pub(in crate::proxy) fn privacy(&self) -> &Privacy {
        &self.log.privacy
    }

    /// Sets what Gateways have set about their lines.
    pub(in crate::proxy) fn set_gateways(&self, gateways: &Arc<GatewayAccessLogs>) {
        if Arc::ptr_eq(gateways, &self.gateways.borrow()) {
            return;
        }
        let mut capture = FieldCapture::default();
        if let Some(LineWriter::Template(template)) = &self.log.writer {
            capture.add(template);
        }
        for template in gateways.0.values().filter_map(|gateway| gateway.template.as_ref()) {
            capture.add(template);
        }
        *self.capture.borrow_mut() = capture;
        *self.gateways.borrow_mut() = Arc::clone(gateways);
    }

    /// Copies what lines contain of the head of a request.
    pub(in crate::proxy) fn capture_request<B>(&self, request: &Request<B>) -> Option<Box<CapturedHeads>> {
        let capture = self.capture.borrow();
        (!capture.is_empty()).then(|| capture.request(request))
    }

    /// Copies what lines contain of the head of the response.
    pub(in crate::proxy) fn capture_response<B>(&self, response: &Response<B>, heads: &mut CapturedHeads) {
        self.capture.borrow().response(response, heads);
    }

    /// Formats the line of a request, if the log has one for it, and queues it for the thread that writes the log.
    pub(in crate::proxy) fn write(&self, mut record: AccessLogRecord<'_>) {
        let Some(writer) = &self.log.writer else { return };
        if self.log.privacy.masks_clients {
            record.client = SocketAddr::new(network_of(record.client.ip()), 0);
        }
        let record = &record;
        let gateways = self.gateways.borrow();
        let own = match &record.series {
            Some(series) if !gateways.0.is_empty() => gateways.0.get(&*series.labels.gateway),
            _ => None,
        };
        let rules = own.and_then(|own| own.rules.as_ref()).unwrap_or(&self.log.rules);
        if !rules.is_empty() && !is_selected(rules, record) {
            return;
        }
        let is_exported = self.log.shared.export.get().is_some();
        let origin = is_exported.then_some(LineOrigin { time: record.time, trace: record.trace });
        self.queue.add(origin, |text| match own.and_then(|own| own.template.as_ref()) {
            Some(template) => template_line::write(template, record, text),
            None => writer.write(record, text),
        });
        // The writer sets `asleep` before its last check of the queue, under the lock of the queue. So either the
        // writer sees this line, or this thread sees that the writer sleeps.
        if self.log.shared.asleep.load(Ordering::SeqCst) {
            self.log.wake();
        }
    }
}

/// Whether the rules keep the line of a record.
fn is_selected(rules: &LineRules, record: &AccessLogRecord<'_>) -> bool {
    let labels = record.series.as_ref().map(|series| &series.labels);
    let mut host = record.host.as_ref().map_or(Cow::Borrowed(""), host_name);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host.to_mut().make_ascii_lowercase();
    }
    let key = match &record.request_id {
        Some(id) => Cow::Borrowed(id.as_bytes()),
        // A forwarded connection has no id.
        None => Cow::Owned(format!("{} {:?}", record.client, record.time).into_bytes()),
    };
    rules.keeps(&LineFacts {
        status: record.status.map(|status| status.as_u16()),
        duration: record.duration,
        error: record.error.unwrap_or_default(),
        gateway: labels.map_or("", |labels| &labels.gateway),
        host: &host,
        listener: labels.map_or("", |labels| &labels.listener),
        method: record.method.as_ref().map_or("", Method::as_str),
        path: record.target.as_ref().map_or("", Uri::path),
        protocol: record.protocol.unwrap_or_default(),
        route: labels.map_or("", |labels| &labels.route),
        upstream: labels.map_or("", |labels| &labels.backend),
        sampling_key: &key,
    })
}

/// The network of an address: 24 bits of an IPv4 address, 48 bits of an IPv6 address.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (ip & Ipv4Addr::new(255, 255, 255, 0)).into(),
        IpAddr::V6(ip) => (ip & Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0)).into(),
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
        let flushes = std::mem::take(&mut *shared.flushes.lock());
        let queues = shared.queues.lock().clone();
        let mut has_lines = false;
        for queue in queues {
            if queue.take(&mut lines) {
                has_lines = true;
                // After a failure, for example of a full disk, later lines may succeed.
                shared.lost.failed.fetch_add(sink.write(&lines.text), Ordering::Relaxed);
                if let Some(export) = shared.export.get() {
                    export.push(&lines);
                }
            }
        }
        drop(flushes);
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
    use crate::proxy::telemetry::stats::RequestLabels;
    use crate::snapshot::access_logs::GatewayAccessLog;

    fn start(path: &Path) -> Arc<AccessLogger> {
        let destination = AccessLogDestination::File(path.to_owned());
        let lines = AccessLogLines::Fields(AccessLogFormat::Text, AccessLogField::defaults());
        let (rules, privacy) = (LineRules::default(), Privacy::default());
        Arc::new(AccessLogger::start(AccessLogConfig { destination, lines, rules, privacy }).unwrap())
    }

    #[test]
    fn all_lines_are_written_and_reopen_creates_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = start(&path);
        log.add_worker(1).write(record("/first"));
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
            workers.iter().for_each(|worker| worker.write(record("/second")));
        }
        assert_eq!(log.lost_lines().full.load(Ordering::Relaxed), 0);
        log.finish();
        assert!(std::fs::read_to_string(folder.path().join("old.log")).unwrap().contains(" /first "));
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches(" /second ").count(), 100);
    }

    #[test]
    fn lines_are_written_after_a_flush_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = start(&path);
        let worker = log.add_worker(1);
        for target in ["/first", "/second"] {
            worker.write(record(target));
            log.flush();
            assert!(std::fs::read_to_string(&path).unwrap().contains(&format!(" {target} ")));
        }
        worker.write(record("/third"));
        log.finish();
        assert!(std::fs::read_to_string(&path).unwrap().contains(" /third "));
    }

    #[test]
    fn gateways_have_lines_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = start(&path);
        let worker = log.add_worker(1);
        let of_gateway = |gateway: &str, target| {
            let labels = RequestLabels { gateway: gateway.into(), ..RequestLabels::default() };
            AccessLogRecord { series: Some(Arc::new(RequestSeries::new(Arc::new(labels)))), ..record(target) }
        };
        let settings = |template: &str, rule: &str| GatewayAccessLog {
            template: Some(LineTemplate::parse(template).unwrap()),
            rules: Some(LineRules(Box::new([rule.parse().unwrap()]))),
        };
        let gateways = [
            ("a/templated".into(), settings("$uri $http_x_a", "keep status=2xx")),
            ("a/silent".into(), settings("$uri", "drop")),
        ];
        worker.set_gateways(&Arc::new(GatewayAccessLogs(gateways.into())));
        let request = Request::get("/").header("x-a", "value").body(()).unwrap();
        let heads = worker.capture_request(&request).expect("a template names a field");
        worker.write(AccessLogRecord { captured: Some(&heads), ..of_gateway("a/templated", "/one") });
        worker.write(of_gateway("a/silent", "/two"));
        worker.write(of_gateway("a/other", "/three"));
        worker.set_gateways(&Arc::default());
        assert!(worker.capture_request(&request).is_none(), "no template is in use");
        worker.write(of_gateway("a/silent", "/four"));
        log.finish();
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert!(lines[0] == "/one value" && lines.len() == 3, "{written}");
        assert!(lines[1].contains(" /three ") && lines[2].contains(" /four "), "{written}");
    }

    #[test]
    fn rules_and_masks_are_those_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLogger::start(AccessLogConfig {
            destination: AccessLogDestination::File(path.clone()),
            lines: AccessLogLines::Fields(AccessLogFormat::Text, vec![AccessLogField::Path, AccessLogField::Client]),
            rules: LineRules(Box::new(["drop path=/quiet".parse().unwrap()])),
            privacy: Privacy { masks_clients: true, ..Privacy::default() },
        });
        let log = Arc::new(log.unwrap());
        let worker = log.add_worker(1);
        for (address, target) in [("192.0.2.7:5", "/a"), ("[2001:db8:1:2::3]:5", "/b"), ("192.0.2.7:5", "/quiet")] {
            worker.write(AccessLogRecord { client: address.parse().unwrap(), ..record(target) });
        }
        log.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "/a 192.0.2.0:0\n/b [2001:db8:1::]:0\n");
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
            worker.write(record("/unread"));
        }
        log.finish();
    }
}
