//! What the tests run with, in the versions that the files name from which it is built or fetched.

use std::fmt::Write;
use std::fs;

use crate::harness::program::root;

const INTRODUCTION: &str = "# Compatibility

These versions are run by `make test`, and no others. What is not in the table may work and is not known to. The versions stand in the files that are named, from which the programs are
built, and this page is made of those.

| what | version | how |
| --- | --- | --- |
";

/// What is known of other versions than those that are tested.
fn others(least: &str, tested: impl Fn(&str) -> String) -> String {
    let (kubernetes, gateway_api, helm) = (tested("Kubernetes"), tested("CRDs"), tested("Helm"));
    format!(
        "
## Older and newer

| | older | tested | newer |
| --- | --- | --- | --- |
| Kubernetes | {least} is the least that the chart takes. The manifests ask for versions of APIs that are stable since 1.21 (EndpointSlices, Ingresses, Leases, Events) | {kubernetes} | nothing is used that is beta |
| CRDs of the Gateway API | from 1.0, the least that the chart takes: what they have is served, ReferenceGrants of `v1beta1` too, and the GatewayClass says what they lack | {gateway_api}, both channels | what is known is served, and the class has `SupportedVersion=False` |
| Helm | 3 renders the chart, and calls `--rollback-on-failure` `--atomic`. It merges on the client: without server-side apply there is no `--force-conflicts`, and leaving `replicas` to an autoscaler resets the Deployment to one Pod until that has counted. [Scaling by load](../tasks/replicas.md#by-load) takes 4 | {helm} | |
| Kong's ingress controller | 3.0: its CRDs and credentials labeled `konghq.com/credential`; manifests for 2 with the field `kongCredType` in Secrets have to be brought to 3 first | what manifests mean is that of 3.5 in front of Kong Gateway 3.10, topic by topic in [kong-compatibility.md](../kong-compatibility.md), and never run beside it | the CRDs of Kong's operator |

Lists of an API server come as a stream where it has that, and in pages otherwise; both ways are tested against a server that plays the older one. So is a server whose CRDs come, go and change
while Portico runs. Of several versions of a kind the newest that is known is read.
"
    )
}

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
    let tested = |start: &str| {
        let row = rows.iter().find(|(what, ..)| what.starts_with(start));
        let version = row.and_then(|(_, version, _)| version.as_deref()).expect("it is one of the rows");
        version.trim_start_matches('v').to_owned()
    };
    let others = others(&least(), tested);
    for (what, version, how) in rows {
        if let Some(version) = version {
            writeln!(page, "| {what} | {} | {how} |", version.trim_start_matches('v')).unwrap();
        }
    }
    page + &others
}

/// The oldest Kubernetes that the chart installs on.
fn least() -> String {
    let chart = fs::read_to_string(root().join("charts/portico/Chart.yaml")).unwrap();
    let asked = chart.lines().find_map(|line| line.strip_prefix("kubeVersion: \">=")).expect("it asks for one");
    asked.split(".0-0").next().unwrap().to_owned()
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
