//! Measures the latency from an edited file to changed responses, and memory, at several numbers of routes.
//!
//! Run by `make bench-full`: the release binary, a folder with one route per file, an edit of one file by rename, and a
//! client that polls until the response changes. Figures are comparable only within one run on one machine.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::disallowed_methods, reason = "wall time is measured")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const EDITS: usize = 50;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    println!(
        "routes  start ms   idle MiB  edit to response ms: median     p90     max   mean ms: propagation, of which compile"
    );
    for routes in [1, 100, 3_000, 5_000] {
        measure(routes);
    }
}

fn measure(routes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let status_port = free_port();
    fs::write(folder.path().join("gateway.yaml"), gateway(port)).unwrap();
    for index in 0..routes {
        write_route(folder.path(), index, 0);
    }
    let begin = Instant::now();
    let portico = Portico::start(folder.path(), status_port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = Client::connect(address);
    client.wait_for("/route-0", "/revision-0");
    let startup = begin.elapsed();
    let idle_memory = portico.resident();
    let (propagation_before, compile_before) =
        (portico.histogram_sum(status_port, "propagation"), portico.histogram_sum(status_port, "compile_duration"));

    let edited_route = routes / 2;
    let mut latencies = Vec::new();
    for revision in 1..=EDITS {
        let begin = Instant::now();
        write_route(folder.path(), edited_route, revision);
        client.wait_for(&format!("/route-{edited_route}"), &format!("/revision-{revision}"));
        latencies.push(begin.elapsed());
    }
    let mean =
        |family: &str, before: f64| (portico.histogram_sum(status_port, family) - before) / EDITS as f64 * 1000.0;
    let (propagation, compile) = (mean("propagation", propagation_before), mean("compile_duration", compile_before));
    latencies.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{routes:>6}  {:>8.1}  {idle_memory:>9.1}  {:>25.2} {:>7.2} {:>7.2}  {propagation:>21.3}  {compile:>16.3}",
        ms(startup),
        ms(latencies[EDITS / 2]),
        ms(latencies[EDITS * 9 / 10]),
        ms(latencies[EDITS - 1]),
    );
}

/// Writes a route whose redirect contains its revision. Every tenth route has its own hostname.
fn write_route(folder: &Path, index: usize, revision: usize) {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: route-{index}\nspec:\n  \
         parentRefs:\n  - name: web\n"
    );
    if index % 10 == 9 {
        writeln!(text, "  hostnames: [host-{index}.example.com]").unwrap();
    }
    write!(
        text,
        "  rules:\n  - matches:\n    - path:\n        type: PathPrefix\n        value: /route-{index}\n    \
         filters:\n    - type: RequestRedirect\n      requestRedirect:\n        path:\n          \
         type: ReplaceFullPath\n          replaceFullPath: /revision-{revision}\n"
    )
    .unwrap();
    let target = folder.join(format!("route-{index}.yaml"));
    let temporary = folder.join(format!(".route-{index}.new"));
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, target).unwrap();
}

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata:\n  name: portico\nspec:\n  \
         controllerName: portico.dev/gateway-controller\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata:\n  name: web\nspec:\n  gatewayClassName: portico\n  listeners:\n  - name: http\n    \
         port: {port}\n    protocol: HTTP\n"
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running process of the release binary.
struct Portico(Child);

impl Portico {
    fn start(folder: &Path, status_port: u16) -> Self {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_portico"));
        let child = Command::new(binary)
            .args(["run", "--admin-listen", "off", "--access-log", "off", "--workers", "1", "--manifests"])
            .arg(folder)
            .arg("--status-listen")
            .arg(format!("127.0.0.1:{status_port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Portico(child)
    }

    /// Resident memory in MiB.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// The sum of a histogram of the metrics, in seconds.
    fn histogram_sum(&self, status_port: u16, family: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", status_port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let prefix = format!("portico_{family}_seconds_sum ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.map_or(f64::NAN, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Portico {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A client with one keep-alive connection.
struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        Client { address, stream: None }
    }

    /// Polls until the response redirects to a URL with this suffix.
    fn wait_for(&mut self, path: &str, suffix: &str) {
        let begin = Instant::now();
        loop {
            if self.location(path).is_some_and(|location| location.ends_with(suffix)) {
                return;
            }
            assert!(begin.elapsed() < RESPONSE_TIMEOUT, "{path} was never redirected to {suffix}");
        }
    }

    /// The Location header of the response for a path; `None` if it has none or the connection failed.
    fn location(&mut self, path: &str) -> Option<String> {
        if self.stream.is_none() {
            match TcpStream::connect(self.address) {
                Ok(stream) => self.stream = Some(BufReader::new(stream)),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let stream = self.stream.as_mut()?;
        let number = path.trim_start_matches("/route-").parse::<usize>().unwrap();
        let host = if number % 10 == 9 { format!("host-{number}.example.com") } else { "localhost".to_owned() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = stream.get_mut().write_all(request.as_bytes()).ok().and_then(|()| read_location(stream));
        if response.is_none() {
            self.stream = None;
        }
        response?
    }
}

/// Reads a response and returns its Location header. The inner `None` means no Location header, the outer `None` a
/// closed connection.
#[expect(clippy::option_option, reason = "the two absences differ")]
fn read_location(stream: &mut BufReader<TcpStream>) -> Option<Option<String>> {
    let mut location = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("location") {
            location = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(location)
}
