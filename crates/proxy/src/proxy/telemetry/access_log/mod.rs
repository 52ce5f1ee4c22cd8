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
mod record;
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
use std::time::Duration;

use http::{Method, Request, Response, Uri};
use parking_lot::Mutex;

pub(in crate::proxy) use self::captured::{CapturedHeads, request_head_bytes, response_head_bytes};
pub use self::export::LineExport;
pub(in crate::proxy) use self::queue::LostLines;
pub(in crate::proxy) use self::record::AccessLogRecord;
pub use self::record::Privacy;
pub(in crate::proxy) use self::template_line::host_name;

use self::captured::FieldCapture;
use self::export::LineOrigin;
use self::line::LineLayout;
use self::queue::{LineBatch, LineQueue};
use self::sink::AccessLogSink;
use crate::access_log_syntax::{AccessLogField, LineFacts, LineRules, LineTemplate};
use crate::snapshot::access_logs::{AccessLogSettings, LocationAccessLog};

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
            WorkerAccessLog { log: Arc::clone(self), queue, settings: RefCell::default(), capture: RefCell::default() };
        log.set_settings(&Arc::default());
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
    /// The settings in the snapshot that the worker has loaded last.
    settings: RefCell<Arc<AccessLogSettings>>,
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

    /// Whether lines of rules with names for their upstreams differ from those of others.
    pub(in crate::proxy) fn reads_telemetry(&self) -> bool {
        self.capture.borrow().upstream_names
    }

    /// Sets what Gateways and the dialects of Ingresses have set about their lines.
    pub(in crate::proxy) fn set_settings(&self, settings: &Arc<AccessLogSettings>) {
        if Arc::ptr_eq(settings, &self.settings.borrow()) {
            return;
        }
        let mut capture = FieldCapture::default();
        if let Some(LineWriter::Template(template)) = &self.log.writer {
            capture.add(template);
        }
        let AccessLogSettings { gateways, locations } = &**settings;
        let of_gateways = gateways.values().filter_map(|gateway| gateway.template.as_ref());
        for template in of_gateways.chain(&locations.template) {
            capture.add(template);
        }
        // Those of a dialect apply to the rules with names.
        capture.upstream_names |= *locations != LocationAccessLog::default();
        *self.capture.borrow_mut() = capture;
        *self.settings.borrow_mut() = Arc::clone(settings);
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
        let settings = self.settings.borrow();
        let AccessLogSettings { gateways, locations } = &**settings;
        let own = match &record.series {
            Some(series) if !gateways.is_empty() => gateways.get(&*series.labels.gateway),
            _ => None,
        };
        let locations = record.telemetry.map(|_| locations);
        let is_unlogged = |locations: &LocationAccessLog| {
            record.target.as_ref().is_some_and(|target| !locations.logs(raw_target(target)))
        };
        if locations.is_some_and(|locations| !locations.unlogged_targets.is_empty() && is_unlogged(locations)) {
            return;
        }
        let rules = own.and_then(|own| own.rules.as_ref()).unwrap_or(&self.log.rules);
        if !rules.is_empty() && !is_selected(rules, record) {
            return;
        }
        let is_exported = self.log.shared.export.get().is_some();
        let origin = is_exported.then_some(LineOrigin { time: record.time, trace: record.trace });
        let template = locations.and_then(|locations| locations.template.as_ref());
        let template = template.or(own.and_then(|own| own.template.as_ref()));
        self.queue.add(origin, |text| match template {
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

/// Path and query as the client has sent them.
fn raw_target(target: &Uri) -> &str {
    target.path_and_query().map_or("/", |target| target.as_str())
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
    use crate::proxy::telemetry::stats::{RequestLabels, RequestSeries};
    use crate::snapshot::access_logs::GatewayAccessLog;
    use crate::snapshot::rule_telemetry::RuleTelemetry;

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
        let settings = AccessLogSettings { gateways: gateways.into(), ..AccessLogSettings::default() };
        worker.set_settings(&Arc::new(settings));
        let request = Request::get("/").header("x-a", "value").body(()).unwrap();
        let heads = worker.capture_request(&request).expect("a template names a field");
        worker.write(AccessLogRecord { captured: Some(&heads), ..of_gateway("a/templated", "/one") });
        worker.write(of_gateway("a/silent", "/two"));
        worker.write(of_gateway("a/other", "/three"));
        worker.set_settings(&Arc::default());
        assert!(worker.capture_request(&request).is_none(), "no template is in use");
        worker.write(of_gateway("a/silent", "/four"));
        log.finish();
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert!(lines[0] == "/one value" && lines.len() == 3, "{written}");
        assert!(lines[1].contains(" /three ") && lines[2].contains(" /four "), "{written}");
    }

    #[test]
    fn rules_with_names_have_lines_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = start(&path);
        let worker = log.add_worker(1);
        assert!(!worker.reads_telemetry(), "nothing in a line depends on names");
        let locations = LocationAccessLog {
            template: Some(LineTemplate::parse("$uri $proxy_upstream_name").unwrap()),
            unlogged_targets: Box::new(["/quiet?a=1".into()]),
        };
        worker.set_settings(&Arc::new(AccessLogSettings { locations, ..AccessLogSettings::default() }));
        assert!(worker.reads_telemetry());
        let telemetry = RuleTelemetry { upstream: "shop-cart-80".into(), ..RuleTelemetry::default() };
        for target in ["/one", "/quiet?a=1", "/quiet"] {
            worker.write(AccessLogRecord { telemetry: Some(&telemetry), ..record(target) });
        }
        worker.write(record("/quiet?a=1"));
        log.finish();
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[..2], ["/one shop-cart-80", "/quiet shop-cart-80"], "{written}");
        assert!(lines.len() == 3 && lines[2].contains(" /quiet "), "other rules keep their line: {written}");
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
