//! Tested versions, read from the files that define them.

use std::fmt::Write;
use std::fs;

use crate::root;

const INTRODUCTION: &str = "# Compatibility

`make test` runs with these versions and no others; other versions may work but are not tested. This page is
generated from the files that define the versions.

| component | version | tested by |
| --- | --- | --- |
";

/// The section about versions other than the tested ones.
fn other_versions(minimum: &str, tested: impl Fn(&str) -> String) -> String {
    let (kubernetes, gateway_api, helm) = (tested("Kubernetes"), tested("CRDs"), tested("Helm"));
    format!(
        "
## Older and newer

| | older | tested | newer |
| --- | --- | --- | --- |
| Kubernetes | {minimum} is the minimum of the chart. The manifests use API versions that are stable since 1.21 \
(EndpointSlices, Ingresses, Leases, Events) | {kubernetes} | no beta API is needed; ClusterTrustBundles are read as `v1beta1` where there is no `v1` |
| CRDs of the Gateway API | 1.0 is the minimum of the chart: the existing fields are served, including \
ReferenceGrants of `v1beta1`, and the status of the GatewayClass lists what is missing | {gateway_api}, both \
channels | known fields are served, and the class has `SupportedVersion=False` |
| Helm | 3 renders the chart; its `--atomic` corresponds to `--rollback-on-failure`. Helm 3 merges on the client: it \
has no `--force-conflicts`, and leaving `replicas` to an autoscaler resets the Deployment to one Pod until the \
autoscaler has scaled it. [Scaling by load](../tasks/replicas.md#by-load) requires 4 | {helm} | |
| Kong's ingress controller | 3.0: its CRDs, and credentials with the label `konghq.com/credential`; manifests for 2 \
with the field `kongCredType` in Secrets must be migrated to 3 first | manifests have the semantics of 3.5 with Kong \
Gateway 3.10, see [kong-compatibility.md](../kong-compatibility.md); running both in one cluster is not tested | the \
CRDs of Kong's operator |

Lists are streamed by API servers that support it and paginated otherwise; both are tested with a simulated older
server. Tests also add, remove and change CRDs while Portico runs. Of several versions of a kind, the newest known
one is used.
"
    )
}

pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let rows = [
        (
            "Kubernetes: API server, controller manager, kubectl",
            module("e2e/go/kubernetes/go.mod", "k8s.io/kubernetes"),
            "all scenarios of `e2e/tests`, with the installed roles",
        ),
        ("etcd", module("e2e/go/etcd/go.mod", "go.etcd.io/etcd/server/v3"), "the same"),
        (
            "Gateway API, standard and experimental channel",
            module("e2e/go/conformance/go.mod", "sigs.k8s.io/gateway-api/conformance"),
            "its unmodified conformance suite, on a new cluster per channel",
        ),
        (
            "CRDs of the Gateway API",
            assigned("scripts/gateway-crds.sh"),
            "every field and rule compared with Portico's schemas, and the official examples",
        ),
        // Left out if there is no chart, and so no module that tests it.
        (
            "Helm",
            module("e2e/go/helm/go.mod", "helm.sh/helm/v4"),
            "install, upgrade, rollback and uninstall of the chart",
        ),
        (
            "Redis",
            Some("7.0 of Debian 12".to_owned()),
            "counters, sessions, tokens of OAuth 2.0 and stored responses; with TLS, Sentinel and a cluster",
        ),
        ("Rust", toolchain(), "the only toolchain used for builds"),
        ("mdBook", assigned("scripts/docs.sh"), "these pages"),
    ];
    let tested = |start: &str| {
        let row = rows.iter().find(|(component, ..)| component.starts_with(start));
        let version = row.and_then(|(_, version, _)| version.as_deref()).expect("the table has this row");
        version.trim_start_matches('v').to_owned()
    };
    let other_versions = other_versions(&minimum_kubernetes(), tested);
    for (component, version, tested_by) in rows {
        if let Some(version) = version {
            writeln!(page, "| {component} | {} | {tested_by} |", version.trim_start_matches('v')).unwrap();
        }
    }
    page + &other_versions
}

/// The oldest Kubernetes version that the chart supports.
fn minimum_kubernetes() -> String {
    let chart = fs::read_to_string(root().join("charts/portico/Chart.yaml")).unwrap();
    let constraint =
        chart.lines().find_map(|line| line.strip_prefix("kubeVersion: \">=")).expect("Chart.yaml has kubeVersion");
    constraint.split(".0-0").next().unwrap().to_owned()
}

/// The version required by a go.mod; `None` without that file.
fn module(file: &str, module: &str) -> Option<String> {
    let text = fs::read_to_string(root().join(file)).ok()?;
    let required = text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split(' ');
        (words.next() == Some(module)).then(|| words.next()).flatten().filter(|version| version.starts_with('v'))
    });
    Some(required.unwrap_or_else(|| panic!("{file} does not require {module}")).to_owned())
}

/// The value of `version=…` in a script.
fn assigned(file: &str) -> Option<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    text.lines().find_map(|line| line.strip_prefix("version=")).map(str::to_owned)
}

fn toolchain() -> Option<String> {
    let text = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("channel = ")).map(|version| version.trim_matches('"').to_owned())
}
