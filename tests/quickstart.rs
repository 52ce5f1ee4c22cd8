//! The quickstart as documented: the program, its echo server, requests, edits and metrics.
//!
//! Each test uses a separate loopback address, so that all of them can use the ports of the example.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::program::root;

#[test]
fn quickstart_requests_get_their_responses() {
    let portico = Quickstart::start(1);
    // Host, path, request header and status; then values of the response, named as in `QuickstartResponse::value`.
    type Case = (&'static str, &'static str, Option<&'static str>, u16, &'static [(&'static str, &'static str)]);
    let cases: &[Case] = &[
        ("localhost", "/", None, 200, &[("/path", "/"), ("/method", "GET"), ("/host", "localhost")]),
        ("localhost", "/cart/items", None, 200, &[("/path", "/cart/items"), ("/headers/x-shop-part/0", "cart")]),
        ("localhost", "/cart", Some("x-canary: yes"), 200, &[("/headers/x-version/0", "next")]),
        ("localhost", "/old/page?id=7", None, 301, &[("location", "http://localhost:8080/new/page?id=7")]),
        (
            "localhost",
            "/api/v1/users?id=7",
            None,
            200,
            &[("/path", "/users"), ("/query", "id=7"), ("/host", "users.internal")],
        ),
        ("localhost", "/headers", None, 200, &[("/headers/x-from/0", "portico"), ("x-served-by", "portico")]),
        ("admin.example.com", "/", None, 200, &[("/host", "admin.example.com")]),
        ("red.apps.example.com", "/", None, 200, &[("x-route", "any-app")]),
        ("blue.apps.example.com", "/", None, 200, &[("x-route", "blue-app")]),
    ];
    for (host, path, header, status, expected) in cases {
        let response = portico.get(8080, host, path, *header);
        assert_eq!(response.status, *status, "{host}{path}: {response:?}");
        for (name, value) in *expected {
            assert_eq!(response.value(name).as_deref(), Some(*value), "{host}{path} {name}: {response:?}");
        }
    }
    for _ in 0..20 {
        let version = portico.get(8080, "localhost", "/checkout", None).value("/headers/x-version/0");
        assert!(matches!(version.as_deref(), Some("current" | "next")), "{version:?}");
    }
}

#[test]
fn startup_prints_no_problems() {
    let portico = Quickstart::start(2);
    let text = portico.startup_output.join("\n");
    for word in ["error", "warning", "Problems", "panicked"] {
        assert!(!text.contains(word), "{word:?} in:\n{text}");
    }
}

#[test]
fn edits_are_served_and_mistakes_keep_the_old_version() {
    let portico = Quickstart::start(3);
    portico.edit("edits.yaml", "replacePrefixMatch: /new", "replacePrefixMatch: /newer");
    portico.read_until("live after");
    let response = portico.get(8080, "localhost", "/old/page", None);
    assert_eq!(response.value("location").as_deref(), Some("http://localhost:8080/newer/page"));

    portico.edit("edits.yaml", "statusCode: 301", "statusCod: 301");
    let messages = portico.read_until("edits.yaml:").join("\n");
    assert_eq!(portico.get(8080, "localhost", "/old/page", None).status, 301, "{messages}");
}

#[test]
fn metrics_page_matches_the_program() {
    let portico = Quickstart::start(4);
    assert_eq!(portico.get(8080, "localhost", "/", None).status, 200);
    let metrics = portico.get(8100, "localhost", "/metrics", None).body;
    let served: BTreeSet<(&str, &str)> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("portico_"))
        .collect();
    let page = fs::read_to_string(root().join("docs/metrics.md")).expect("docs/metrics.md is readable");
    // Metrics of a cluster are compared by tests/cluster.rs.
    let page = page.split("## In a cluster").next().unwrap_or_default();
    let rows = page.lines().filter(|line| line.starts_with("| `portico_"));
    let documented = rows.flat_map(|row| {
        let mut cells = row.split('|').skip(1);
        let (names, kind) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default().trim());
        names.split('`').skip(1).step_by(2).map(move |name| (name, kind))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), served, "left: docs/metrics.md; right: /metrics");
}

#[test]
fn sigterm_stops_a_ready_program() {
    let mut portico = Quickstart::start(5);
    assert_eq!(portico.get(8100, "localhost", "/readyz", None).status, 200);
    let kill = Command::new("kill").args(["-s", "TERM", &portico.child.id().to_string()]).status();
    assert!(kill.expect("kill is installed").success());
    assert!(portico.child.wait().expect("it is a child process").success());
}

/// `portico run` like in `make run`, but with another address and a copy of the files.
struct Quickstart {
    child: Child,
    address: Ipv4Addr,
    folder: TempDir,
    lines: Receiver<String>,
    /// Output up to the startup summary.
    startup_output: Vec<String>,
}

impl Quickstart {
    fn start(test: u8) -> Quickstart {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 128 + test, high, low.clamp(1, 254));
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        for entry in fs::read_dir(root().join("examples/quickstart")).expect("the example exists") {
            let path = entry.expect("the folder was opened").path();
            let text = fs::read_to_string(&path).expect("the example is readable");
            let name = path.file_name().expect("entries of a folder have a name");
            fs::write(folder.path().join(name), text.replace("127.0.0.1", &address.to_string()))
                .expect("the file can be written");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
        command.arg("run").arg("--manifests").arg(folder.path());
        command.args([
            "--gateway-address-pool",
            &address.to_string(),
            "--workers",
            "2",
            "--access-log",
            "off",
            "--log-format",
            "text",
        ]);
        for (flag, port) in [("--echo", 9000), ("--status-listen", 8100), ("--admin-listen", 8101)] {
            command.arg(flag).arg(SocketAddr::from((address, port)).to_string());
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PORTICO_")) {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo built the program");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = sync_channel(4096);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut portico = Quickstart { child, address, folder, lines, startup_output: Vec::new() };
        portico.startup_output = portico.read_until("Try it");
        portico.startup_output.extend(portico.read_until("objects"));
        portico
    }

    /// Reads output up to a line that contains `word`.
    fn read_until(&self, word: &str) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => read.push(line),
                Err(_) => panic!("no line with {word:?}, only:\n{}", read.join("\n")),
            }
            if read.last().is_some_and(|line| line.contains(word)) {
                return read;
            }
        }
    }

    fn get(&self, port: u16, host: &str, path: &str, header: Option<&str>) -> QuickstartResponse {
        let mut stream = TcpStream::connect((self.address, port)).expect("the port is open");
        let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{header}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the response is UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a response has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a head has a status");
        QuickstartResponse { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.path().join(file);
        let text = fs::read_to_string(&path).expect("the copy is readable");
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(&path, text.replace(from, to)).expect("the copy is writable");
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        // The process may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[derive(Debug)]
struct QuickstartResponse {
    status: u16,
    head: String,
    body: String,
}

impl QuickstartResponse {
    /// The value at a JSON pointer into the body, or of a header field whose name is given in lower case.
    fn value(&self, name: &str) -> Option<String> {
        if name.starts_with('/') {
            let body: Value = serde_json::from_str(&self.body).ok()?;
            let value = body.pointer(name)?.as_str()?;
            // Tests compare the host without its port.
            return Some(if name == "/host" { value.trim_end_matches(":8080").to_owned() } else { value.to_owned() });
        }
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    }
}
