//! Measures the latency from an edited file to changed responses, and memory, at several numbers of objects.
//!
//! Run by `make bench-full`: the release binary, a folder with one object per file, an edit of one file by rename, and
//! a client that polls until the response changes. Figures are comparable only within one run on one machine.

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
        "{:<26} number  start ms   idle MiB  edit to response ms: median     p90     max   mean ms: propagation, of \
         which compile",
        "objects"
    );
    for number in [1, 100, 3_000, 5_000] {
        measure(Objects::Routes, number);
    }
    for objects in [Objects::Ingresses, Objects::AnnotatedIngresses] {
        measure(objects, 5_000);
    }
}

/// What the files of a folder have, each one object that redirects its path.
#[derive(Clone, Copy)]
enum Objects {
    /// HTTPRoutes. Every tenth has its own hostname.
    Routes,
    /// Ingresses in the dialect of ingress-nginx with one annotation and a host each.
    Ingresses,
    /// The same with ten annotations.
    AnnotatedIngresses,
}

/// Nine annotations that many Ingresses have, besides the one that redirects.
const FURTHER_ANNOTATIONS: [(&str, &str); 9] = [
    ("proxy-body-size", "8m"),
    ("proxy-read-timeout", "120"),
    ("proxy-send-timeout", "120"),
    ("proxy-connect-timeout", "10"),
    ("ssl-redirect", "false"),
    ("limit-rps", "1000000"),
    ("enable-cors", "true"),
    ("cors-allow-origin", "https://app.example.com"),
    ("whitelist-source-range", "127.0.0.0/8"),
];

fn measure(objects: Objects, number: usize) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let status_port = free_port();
    fs::write(folder.path().join("class.yaml"), objects.class(port)).unwrap();
    for index in 0..number {
        objects.write(folder.path(), index, 0);
    }
    let begin = Instant::now();
    let portico = Portico::start(folder.path(), &objects.arguments(port), status_port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = Client { address, objects, stream: None };
    client.wait_for(0, "/revision-0");
    let startup = begin.elapsed();
    let idle_memory = portico.resident();
    let (propagation_before, compile_before) =
        (portico.histogram_sum(status_port, "propagation"), portico.histogram_sum(status_port, "compile_duration"));

    let edited = number / 2;
    let mut latencies = Vec::new();
    for revision in 1..=EDITS {
        let begin = Instant::now();
        objects.write(folder.path(), edited, revision);
        client.wait_for(edited, &format!("/revision-{revision}"));
        latencies.push(begin.elapsed());
    }
    let mean =
        |family: &str, before: f64| (portico.histogram_sum(status_port, family) - before) / EDITS as f64 * 1000.0;
    let (propagation, compile) = (mean("propagation", propagation_before), mean("compile_duration", compile_before));
    latencies.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{:<26} {number:>6}  {:>8.1}  {idle_memory:>9.1}  {:>25.2} {:>7.2} {:>7.2}  {propagation:>21.3}  \
         {compile:>16.3}",
        objects.name(),
        ms(startup),
        ms(latencies[EDITS / 2]),
        ms(latencies[EDITS * 9 / 10]),
        ms(latencies[EDITS - 1]),
    );
}

impl Objects {
    fn name(self) -> &'static str {
        match self {
            Objects::Routes => "HTTPRoutes",
            Objects::Ingresses => "Ingresses, 1 annotation",
            Objects::AnnotatedIngresses => "Ingresses, 10 annotations",
        }
    }

    /// The objects besides those that are counted.
    fn class(self, port: u16) -> String {
        match self {
            Objects::Routes => gateway(port),
            Objects::Ingresses | Objects::AnnotatedIngresses => {
                "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: nginx\nspec:\n  \
                 controller: k8s.io/ingress-nginx\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  \
                 annotations:\n    portico.dev/address: 127.0.0.1\nspec:\n  ports:\n  - port: 80\n"
                    .to_owned()
            }
        }
    }

    fn arguments(self, port: u16) -> Vec<String> {
        match self {
            Objects::Routes => Vec::new(),
            Objects::Ingresses | Objects::AnnotatedIngresses => vec![
                "--nginx-controller-class=k8s.io/ingress-nginx".to_owned(),
                format!("--ingress-http-listen=127.0.0.1:{port}"),
                "--ingress-https-listen=off".to_owned(),
            ],
        }
    }

    /// Writes an object whose redirect contains its revision.
    fn write(self, folder: &Path, index: usize, revision: usize) {
        let text = match self {
            Objects::Routes => route(index, revision),
            Objects::Ingresses => ingress(index, revision, &[]),
            Objects::AnnotatedIngresses => ingress(index, revision, &FURTHER_ANNOTATIONS),
        };
        let target = folder.join(format!("object-{index}.yaml"));
        let temporary = folder.join(format!(".object-{index}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, target).unwrap();
    }

    fn host(self, index: usize) -> String {
        match self {
            Objects::Routes if index % 10 != 9 => "localhost".to_owned(),
            Objects::Routes | Objects::Ingresses | Objects::AnnotatedIngresses => format!("host-{index}.example.com"),
        }
    }
}

fn route(index: usize, revision: usize) -> String {
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
    text
}

fn ingress(index: usize, revision: usize, annotations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: ingress-{index}\n  annotations:\n    \
         nginx.ingress.kubernetes.io/permanent-redirect: /revision-{revision}\n"
    );
    for (name, value) in annotations {
        writeln!(text, "    nginx.ingress.kubernetes.io/{name}: {value:?}").unwrap();
    }
    write!(
        text,
        "spec:\n  ingressClassName: nginx\n  rules:\n  - host: host-{index}.example.com\n    http:\n      paths:\n \
         \x20    - path: /route-{index}\n        pathType: Prefix\n        backend:\n          service:\n            \
         name: web\n            port:\n              number: 80\n"
    )
    .unwrap();
    text
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
    fn start(folder: &Path, arguments: &[String], status_port: u16) -> Self {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_portico"));
        let child = Command::new(binary)
            .args(["run", "--admin-listen", "off", "--access-log", "off", "--workers", "1", "--manifests"])
            .arg(folder)
            .args(arguments)
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
    objects: Objects,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Polls until the response to requests for an object redirects to a URL with this suffix.
    fn wait_for(&mut self, index: usize, suffix: &str) {
        let begin = Instant::now();
        loop {
            if self.location(index).is_some_and(|location| location.ends_with(suffix)) {
                return;
            }
            assert!(begin.elapsed() < RESPONSE_TIMEOUT, "/route-{index} was never redirected to {suffix}");
        }
    }

    /// The Location header of the response; `None` if it has none or the connection failed.
    fn location(&mut self, index: usize) -> Option<String> {
        if self.stream.is_none() {
            match TcpStream::connect(self.address) {
                Ok(stream) => self.stream = Some(BufReader::new(stream)),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let stream = self.stream.as_mut()?;
        let request = format!("GET /route-{index} HTTP/1.1\r\nHost: {}\r\n\r\n", self.objects.host(index));
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
