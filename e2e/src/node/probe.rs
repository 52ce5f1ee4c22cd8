//! Probes of a container: requests, intervals and thresholds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe as ProbeSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The three probes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    pub(crate) startup: Option<Probe>,
    pub(crate) readiness: Option<Probe>,
    pub(crate) liveness: Option<Probe>,
}

/// A probe, with the defaults of Kubernetes for absent fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    action: ProbeAction,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ProbeAction {
    Http {
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    /// Succeeds if a connection can be made.
    Tcp {
        port: u16,
    },
}

impl Probes {
    /// The error names the unsupported field.
    pub(crate) fn from_container(container: &Container) -> Result<Probes, String> {
        let parse = |field: &str, probe: &Option<ProbeSpec>| match probe {
            Some(probe) => {
                let probe = Probe::parse(container, probe);
                probe.map(Some).map_err(|error| format!("spec.containers[0].{field}: {error}"))
            }
            None => Ok(None),
        };
        Ok(Probes {
            startup: parse("startupProbe", &container.startup_probe)?,
            readiness: parse("readinessProbe", &container.readiness_probe)?,
            liveness: parse("livenessProbe", &container.liveness_probe)?,
        })
    }
}

impl Probe {
    fn parse(container: &Container, spec: &ProbeSpec) -> Result<Probe, String> {
        let action = match (&spec.http_get, &spec.tcp_socket) {
            (Some(get), None) => http_action(container, get)?,
            (None, Some(socket)) => ProbeAction::Tcp { port: port_number(container, &socket.port)? },
            _ => return Err("this node supports only `httpGet` and `tcpSocket`".to_owned()),
        };
        let seconds = |field: Option<i32>, default: u64| {
            Duration::from_secs(field.and_then(|field| u64::try_from(field).ok()).unwrap_or(default))
        };
        let count =
            |field: Option<i32>, default: u32| field.and_then(|field| u32::try_from(field).ok()).unwrap_or(default);
        Ok(Probe {
            action,
            delay: seconds(spec.initial_delay_seconds, 0),
            period: seconds(spec.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(spec.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: count(spec.success_threshold, 1).max(1),
            failure_threshold: count(spec.failure_threshold, 3).max(1),
        })
    }

    /// Runs the probe periodically. Calls `on_change` at each change of the result, which starts as `initially_ok`, and
    /// at each further failure from the failure threshold on. Returns when `on_change` returns [`ProbeControl::Stop`].
    pub(crate) async fn run(
        &self,
        address: Ipv4Addr,
        initially_ok: bool,
        mut on_change: impl FnMut(Result<(), String>) -> ProbeControl,
    ) {
        sleep(self.delay).await;
        let (mut is_ok, mut successes, mut failures) = (initially_ok, 0, 0);
        // Until the first success, probes are more frequent, but a failure counts only once in a period.
        let (mut has_succeeded, mut next_failure) = (initially_ok, Instant::now());
        loop {
            let result = match timeout(self.timeout, self.action.perform(address)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no response within {} s", self.timeout.as_secs())),
            };
            has_succeeded |= result.is_ok();
            let delay = if has_succeeded { self.period } else { PERIOD_BEFORE_SUCCESS };
            if !has_succeeded && Instant::now() < next_failure {
                sleep(delay).await;
                continue;
            }
            next_failure = Instant::now() + self.period;
            (successes, failures) = if result.is_ok() { (successes + 1, 0) } else { (0, failures + 1) };
            let has_changed =
                if is_ok { failures >= self.failure_threshold } else { successes >= self.success_threshold };
            if has_changed {
                is_ok = !is_ok;
                if on_change(result) == ProbeControl::Stop {
                    return;
                }
            } else if !is_ok && failures >= self.failure_threshold && on_change(result) == ProbeControl::Stop {
                return;
            }
            sleep(delay).await;
        }
    }
}

/// How often a probe that has not succeeded yet runs: most Pods are ready a fraction of a second after their start.
/// Kubernetes allows it for readiness probes, so that Pods become ready sooner.
const PERIOD_BEFORE_SUCCESS: Duration = Duration::from_millis(100);

/// Whether a probe continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeControl {
    Continue,
    Stop,
}

impl ProbeAction {
    async fn perform(&self, address: Ipv4Addr) -> Result<(), String> {
        let (ProbeAction::Http { port, .. } | ProbeAction::Tcp { port }) = self;
        let address = SocketAddr::new(IpAddr::V4(address), *port);
        let mut stream =
            TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))?;
        let ProbeAction::Http { path, headers, .. } = self else { return Ok(()) };
        let mut request = format!("GET {path} HTTP/1.1\r\nUser-Agent: kube-probe/1.37\r\nAccept: */*\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str(&format!("Host: {address}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| format!("sending to {address}: {error}"))?;
        let status = read_status(&mut stream).await.map_err(|error| format!("reading from {address}: {error}"))?;
        if (200..400).contains(&status) { Ok(()) } else { Err(format!("http://{address}{path} returns {status}")) }
    }
}

/// Reads only the status code of a response.
async fn read_status(stream: &mut TcpStream) -> Result<u16, String> {
    let mut start = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut start).await.map_err(|error| error.to_string())?;
    let number = start.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(&rest[2..]).ok()?.parse().ok());
    number.ok_or_else(|| format!("`{}` is not HTTP", String::from_utf8_lossy(&start)))
}

fn http_action(container: &Container, get: &HTTPGetAction) -> Result<ProbeAction, String> {
    if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") || get.host.is_some() {
        return Err("httpGet: this node supports only the Pod's address and scheme `HTTP`".to_owned());
    }
    let path = get.path.clone().unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let headers = get.http_headers.clone().unwrap_or_default();
    let headers = headers.into_iter().map(|header| (header.name, header.value)).collect();
    Ok(ProbeAction::Http { port: port_number(container, &get.port)?, path, headers })
}

/// The number of a port, which the spec may name.
fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named.ok_or_else(|| format!("port: the container has no port named `{name}`"))?.container_port
        }
    };
    u16::try_from(number).map_err(|_| format!("port: {number} is not a valid port number"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    fn probe(probe: &Value) -> Result<Probe, String> {
        let ports = json!([{ "name": "status", "containerPort": 8100 }]);
        let container = json!({ "name": "main", "ports": ports, "readinessProbe": probe });
        let container: Container = serde_json::from_value(container).unwrap();
        Probes::from_container(&container).map(|probes| probes.readiness.unwrap())
    }

    #[test]
    fn named_port_is_resolved() {
        let by_name = probe(&json!({ "httpGet": { "path": "readyz", "port": "status" } })).unwrap();
        let expected = ProbeAction::Http { port: 8100, path: "/readyz".to_owned(), headers: Vec::new() };
        assert_eq!(by_name.action, expected);
        assert_eq!((by_name.period.as_secs(), by_name.failure_threshold), (10, 3));
        for (wrong, expected) in [
            (
                json!({ "httpGet": { "port": "other" } }),
                "readinessProbe: port: the container has no port named `other`",
            ),
            (json!({ "exec": { "command": ["true"] } }), "readinessProbe: this node supports only"),
            (json!({ "httpGet": { "port": 1, "scheme": "HTTPS" } }), "scheme `HTTP`"),
        ] {
            let error = probe(&wrong).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    /// A period of the probe is longer than this test waits.
    #[tokio::test]
    async fn first_success_does_not_wait_for_the_period() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let probe = probe(&json!({ "tcpSocket": { "port": port }, "periodSeconds": 600 })).unwrap();
        let mut results = Vec::new();
        let start_listening = async {
            // After the first probe has failed.
            sleep(2 * PERIOD_BEFORE_SUCCESS).await; // Nothing reports that a probe failed once.
            TcpListener::bind(("127.0.0.1", port)).await.unwrap()
        };
        let run = probe.run(Ipv4Addr::LOCALHOST, false, |result| {
            results.push(result);
            ProbeControl::Stop
        });
        let both = async { tokio::join!(start_listening, run) };
        timeout(Duration::from_secs(60), both).await.expect("the probe runs again before its period is over");
        assert_eq!(results, [Ok(())]);
    }

    #[tokio::test]
    async fn statuses_from_200_to_399_succeed() {
        for (response, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", None),
            ("HTTP/1.0 399 Fine\r\n\r\n", None),
            ("HTTP/1.1 503 Not ready\r\n\r\n", Some("returns 503")),
            ("SSH-2.0-OpenSSH_9.2\r\n", Some("is not HTTP")),
            ("", Some("reading from")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let action = probe(&json!({ "httpGet": { "port": port } })).unwrap().action;
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(response.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            };
            let (outcome, ()) = tokio::join!(action.perform(Ipv4Addr::LOCALHOST), server);
            match expected {
                None => outcome.unwrap(),
                Some(expected) => assert!(outcome.unwrap_err().contains(expected), "{response}"),
            }
        }
    }
}
