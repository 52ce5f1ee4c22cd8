//! Public bug reports of other gateways, replayed against the running program. Each file in replay/reports has the
//! reports of one topic: what was reported, the objects, the requests as arguments of curl, and what users may expect.
//!
//! ```text
//!   report.rs    the files and their fields
//!   exchange.rs  one request with curl, and its expected response
//! ```
//!
//! Some reports need more than requests of curl, such as trailers, TLS records or datagrams. They name tests of other
//! suites instead, which `make replay` runs, too.

mod exchange;
mod report;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::eventually;
use crate::harness::program::{Program, output, portico};
use crate::harness::site::Site;
use exchange::Ports;
use report::{Report, reports};

/// The classes of the cluster, a Gateway `gateway`, and the Services `one` and `two`, each with a backend that
/// describes the request.
const SHARED_OBJECTS: &str = include_str!("replay/shared.yaml");

/// Programs of two reports compute while a third one waits.
const THREADS: usize = 3;

#[test]
fn reports_are_answered_as_users_expect() {
    let (backends, _programs) = Backends::start();
    let reports = reports();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(report) = reports.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let problems = replay(report, &backends);
                    if !problems.is_empty() {
                        let text = format!("{}: {}\n  {}", report.id(), report.about, problems.join("\n  "));
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    println!("{} reports", reports.len());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} reports:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_report_is_shown_by_something() {
    let mut ids = BTreeSet::new();
    for report in reports() {
        assert!(ids.insert(report.id().to_owned()), "{} appears twice", report.id());
        assert!(!report.about.is_empty(), "{} does not say what was reported", report.id());
        let is_shown = !report.requests.is_empty() || report.reported.is_some() || !report.tests.is_empty();
        assert!(is_shown, "{} has no requests, diagnostics or tests", report.id());
        let names_tests = report.tests.iter().all(|name| name.contains(".rs::"));
        assert!(names_tests, "{}: `tests` are FILE.rs::FUNCTION, which the tests in tidy.rs look up", report.id());
        let has_objects = report.objects.is_some();
        let uses_objects = !report.requests.is_empty() || report.reported.is_some();
        assert_eq!(has_objects, uses_objects, "{}: `objects` belong to requests and diagnostics", report.id());
    }
}

/// The backends of the Services `one` and `two`, shared by all reports.
struct Backends {
    one: u16,
    two: u16,
}

impl Backends {
    /// Starts the backends; they end with the returned programs.
    fn start() -> (Self, [Program; 2]) {
        let site = Site::new();
        let programs = ["echo", "other"].map(|port| {
            let mut command = portico(&site);
            command.args(["echo", "--listen", &site.address_of(port)]);
            Program::start(command)
        });
        for port in ["echo", "other"] {
            let address = site.address_of(port);
            eventually("a backend listens", || TcpStream::connect(&address).ok());
        }
        (Backends { one: site.port("echo"), two: site.port("other") }, programs)
    }

    /// Replaces `@one@` and `@two@` by the ports of the backends.
    fn filled(&self, text: &str) -> String {
        text.replace("@one@", &self.one.to_string()).replace("@two@", &self.two.to_string())
    }
}

/// Compares what the program does with the report; returns the differences.
fn replay(report: &Report, backends: &Backends) -> Vec<String> {
    let Some(objects) = &report.objects else { return Vec::new() };
    let site = Site::new();
    site.save("manifests/shared.yaml", &backends.filled(SHARED_OBJECTS));
    site.save("manifests/report.yaml", &backends.filled(objects));
    let mut problems = Vec::new();
    if let Some(expected) = &report.reported {
        problems.extend(problems_of_diagnostics(&site, report, expected));
    }
    if report.requests.is_empty() {
        return problems;
    }
    let program = start(&site, report);
    program.wait_started();
    let backend_ports = [("one", backends.one), ("two", backends.two)];
    let ports = Ports { gateway: site.port("port"), ingress: site.port("other"), backends: backend_ports };
    for request in &report.requests {
        problems.extend(exchange::problems(request, report.uses_ingresses(), site.address(), &ports));
    }
    let ended = program.stop();
    if !ended.status.success() || ended.stderr.contains("panicked") {
        problems.push(format!("the program ended with {}:\n{}", ended.status, ended.stderr));
    }
    problems
}

fn start(site: &Site, report: &Report) -> Program {
    let mut command = portico(site);
    command.args(["run", "--manifests", "manifests", "--workers", "1", "--access-log", "off"]);
    command.args(["--gateway-address-pool", &site.address().to_string()]);
    command.args(["--status-listen", &site.address_of("status"), "--admin-listen", &site.address_of("admin")]);
    command.args(["--ingress-http-listen", &site.address_of("other"), "--ingress-https-listen", "off"]);
    command.args(&report.flags);
    Program::start(command)
}

/// Runs `portico check` on the objects.
fn problems_of_diagnostics(site: &Site, report: &Report, expected: &[String]) -> Vec<String> {
    let mut command = portico(site);
    command.args(["check", "manifests"]);
    command.args(report.flags.iter().filter(|flag| flag.starts_with("--ingress-class")));
    let checked = output(command);
    let text = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    // Messages are wrapped to the width of the terminal.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let nothing = ["nothing wrong".to_owned()];
    let expected = if expected.is_empty() { &nothing[..] } else { expected };
    let missing = expected.iter().filter(|part| !words.contains(part.as_str()));
    let missing: Vec<String> = missing.map(|part| format!("`portico check` does not print `{part}`")).collect();
    if missing.is_empty() { missing } else { [missing, vec![format!("it prints:\n{text}")]].concat() }
}
