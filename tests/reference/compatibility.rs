//! What the tests run with, in the versions that the files name from which it is built or fetched.

use std::fmt::Write;
use std::fs;

use crate::harness::program::root;

const INTRODUCTION: &str = "# What it is tested with

These versions are run by `make test`, and no others. What is not in the table may work and is not known to. The versions stand in the files that are named, from which the programs are
built, and this page is made of those.

| what | version | how |
| --- | --- | --- |
";

const OLDER: &str = "
## Older and newer

- **Kubernetes.** Portico asks for versions of APIs that are stable since 1.21 (EndpointSlices, Ingresses, Leases, Events). Lists come as a stream where the server has that, and in pages otherwise; both
  ways are tested against a server that plays the older one.
- **Gateway API.** Of an older release of the CRDs what it has is served, and the GatewayClass says what it lacks. Of a newer one what is known is served, and the class has
  `SupportedVersion=False`. Of several versions of a kind the newest that is known is read.
- **Kong's CRDs.** Those of Kong's ingress controller 3 and those of `portico crds`.
";

pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let rows = [
        (
            "Kubernetes: API server, controller manager, kubectl",
            module("e2e/go/kubernetes/go.mod", "k8s.io/kubernetes"),
            "every scenario of `e2e/tests`, with the roles that are installed",
        ),
        ("etcd", module("e2e/go/etcd/go.mod", "go.etcd.io/etcd/server/v3"), "the same"),
        (
            "Gateway API, standard and experimental channel",
            module("e2e/go/conformance/go.mod", "sigs.k8s.io/gateway-api/conformance"),
            "its conformance suite, unmodified, on a new cluster for each channel",
        ),
        (
            "CRDs of the Gateway API",
            assigned("scripts/gateway-crds.sh"),
            "our reading of every field and rule against theirs, and their examples",
        ),
        // There while the chart is.
        (
            "Helm",
            module("e2e/go/helm/go.mod", "helm.sh/helm/v4"),
            "install, upgrade, rollback and uninstall of the chart",
        ),
        ("Redis", Some("7.0 of Debian 12".to_owned()), "counters of rate-limiting, alone and with TLS"),
        ("Rust", toolchain(), "the only toolchain that it is built with"),
        ("mdBook", assigned("scripts/docs.sh"), "these pages"),
    ];
    for (what, version, how) in rows {
        if let Some(version) = version {
            writeln!(page, "| {what} | {} | {how} |", version.trim_start_matches('v')).unwrap();
        }
    }
    page + OLDER
}

/// The version that a go.mod requires. None without that file.
fn module(file: &str, module: &str) -> Option<String> {
    let text = fs::read_to_string(root().join(file)).ok()?;
    let required = text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split(' ');
        (words.next() == Some(module)).then(|| words.next()).flatten().filter(|version| version.starts_with('v'))
    });
    Some(required.unwrap_or_else(|| panic!("{file} does not require {module}")).to_owned())
}

/// `version=…` of a script.
fn assigned(file: &str) -> Option<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    text.lines().find_map(|line| line.strip_prefix("version=")).map(str::to_owned)
}

fn toolchain() -> Option<String> {
    let text = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("channel = ")).map(|version| version.trim_matches('"').to_owned())
}
