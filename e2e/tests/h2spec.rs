//! Runs h2spec, the public conformance suite of HTTP/2, against Portico with TLS and without, with its strict tests.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portico_e2e::netns::Netns;
use portico_e2e::portico::program;
use portico_e2e::wait::until;
use portico_e2e::{programs, scenario};
use tokio::net::TcpStream;

/// How many tests h2spec has. With another version, tests may be new.
const TESTS: usize = 146;

/// Without TLS, bytes that are no preface of HTTP/2 are a request of HTTP/1, which gets an error response. h2spec
/// expects GOAWAY or the end of the connection.
const FAILING_WITHOUT_TLS: &str = "Sends invalid connection preface";

/// One Ingress for all requests, which `--echo` serves.
const MANIFESTS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: portico}
spec: {controller: portico.dev/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: all}
spec:
  ingressClassName: portico
  defaultBackend: {service: {name: echo, port: {number: 9000}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{port: 9000}]}
";

#[test]
fn http2_conforms_with_tls_and_without() {
    if !scenario::is_enabled() {
        return;
    }
    let netns = Netns::named(scenario::checkout_name("portico-h2spec"));
    // Removes what an interrupted test has left.
    netns.delete().unwrap();
    netns.create().unwrap();
    let outcome = netns.run(async || conforms().await);
    netns.delete().unwrap();
    outcome.unwrap();
}

/// Kills the program when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn conforms() -> Result<()> {
    let h2spec = programs::h2spec()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("all.yaml"), MANIFESTS)?;
    let log = folder.path().join("log");
    let child = Command::new(program()?)
        .args(["run", "--echo", "127.0.0.1:9000", "--access-log", "off", "--manifests"])
        .arg(folder.path().join("all.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn();
    let _portico = Running(child.context("cannot start Portico")?);
    for port in [HTTP_PORT, HTTPS_PORT] {
        let listens = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.map(drop)?);
        until("Portico listens", START_TIMEOUT, listens).await.with_context(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            format!("the log of Portico is:\n{log}")
        })?;
    }
    let port = HTTPS_PORT.to_string();
    check(&h2spec, &["--port", &port, "--tls", "--insecure"], &[])?;
    let port = HTTP_PORT.to_string();
    check(&h2spec, &["--port", &port], &[FAILING_WITHOUT_TLS])
}

/// Runs all tests, of which only these may fail.
fn check(h2spec: &std::path::Path, arguments: &[&str], failing: &[&str]) -> Result<()> {
    // A test that waits for the end of a connection fails if it takes longer than this number of seconds, as it may on
    // a busy machine.
    let output = Command::new(h2spec)
        .args(["--host", "127.0.0.1", "--strict", "--timeout", "10"])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.context("cannot start h2spec")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Failed tests are in the list of all tests, and once more at its end.
    let failed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("× ")?.split_once(": ").map(|(_, name)| name))
        .collect();
    let expected = format!("{TESTS} tests, {} passed, 0 skipped, {} failed", TESTS - failing.len(), failing.len());
    ensure!(
        failed == BTreeSet::from_iter(failing.iter().copied()) && text.contains(&expected),
        "h2spec {arguments:?} must have the result \"{expected}\"; it printed:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The ports of Ingresses without a cluster.
const HTTP_PORT: u16 = 8000;
const HTTPS_PORT: u16 = 8443;
/// On a busy machine. Usually it takes a fraction of a second.
const START_TIMEOUT: Duration = Duration::from_secs(120);
