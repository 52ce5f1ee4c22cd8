//! Runs h2spec, the public conformance suite of HTTP/2, against Portico with TLS and without, with its strict tests.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::without_cluster::Program;
use portico_e2e::{programs, without_cluster};

/// How many tests h2spec has. With another version, tests may be new.
const TESTS: usize = 146;

/// Without TLS, bytes that are no preface of HTTP/2 are a request of HTTP/1, which gets an error response. h2spec
/// expects GOAWAY or the end of the connection.
const FAILING_WITHOUT_TLS: &str = "Sends invalid connection preface";

/// One Ingress for all requests, which `--echo` serves.
const MANIFESTS: &str = "---
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
";

#[test]
fn http2_conforms_with_tls_and_without() {
    without_cluster::run("portico-h2spec", &[programs::h2spec], conforms);
}

async fn conforms() -> Result<()> {
    let h2spec = programs::h2spec()?;
    let folder = tempfile::tempdir()?;
    let listens = ["127.0.0.1:8000", "127.0.0.1:8443"];
    let _portico = Program::portico(folder.path(), MANIFESTS, &listens).await?;
    check(&h2spec, &["--port", "8443", "--tls", "--insecure"], &[])?;
    check(&h2spec, &["--port", "8000"], &[FAILING_WITHOUT_TLS])
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
