//! Runs the Gateway API conformance suite against Portico with the RBAC rules of its manifests, on both CRD channels.
//! All core tests and the tests of the claimed features must pass; with the experimental channel, twice on one cluster.
//! The core tests of GATEWAY-TCP and GATEWAY-TLS must pass as well, although Portico does not claim these profiles.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use portico_e2e::cluster::{Channel, Cluster, Options};
use portico_e2e::conformance::{self, Report, SuiteOptions, SuiteResult};
use portico_e2e::node::Node;
use portico_e2e::portico::Portico;
use portico_e2e::progress;
use portico_e2e::scenario;

/// Features that GATEWAY-HTTP requires.
const CORE: [&str; 3] = ["Gateway", "HTTPRoute", "ReferenceGrant"];
const CORE_TESTS: u32 = 40;
/// Extended features that Portico claims. A change of this list changes what Portico promises.
const EXTENDED: [&str; 33] = [
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
];
const EXTENDED_TESTS: u32 = 39;

/// Profiles that Portico does not claim: the name, the features that its core tests need, and their number.
const UNCLAIMED: [(&str, [&str; 3], u32); 2] = [
    ("GATEWAY-TCP", ["Gateway", "ReferenceGrant", "TCPRoute"], 20),
    ("GATEWAY-TLS", ["Gateway", "ReferenceGrant", "TLSRoute"], 21),
];

/// The usable and the unusable address that the suite requests: one of the address pool, and one outside of it.
const ADDRESSES: [&str; 2] = ["198.18.0.200", "192.0.2.1"];

#[test]
fn experimental_channel_conforms_twice() {
    conforms(Channel::Experimental, &["experimental", "experimental-again"]);
}

#[test]
fn standard_channel_conforms() {
    conforms(Channel::Standard, &["standard"]);
}

/// Runs the suite on one new cluster, once for each report name.
fn conforms(channel: Channel, reports: &[&str]) {
    if !scenario::can_start_new_cluster("the conformance suite, whose Pods need a node") {
        return;
    }
    // One run at a time: the suite needs much CPU, and expects some responses within a second.
    static SUITE_LOCK: Mutex<()> = Mutex::new(());
    let _guard = SUITE_LOCK.lock();
    let options = Options { name: format!("conf-{channel}"), channel: Some(channel) };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        let mut portico = Portico::start(cluster, "conformance", &[]).await?;
        for report in reports {
            suite_passes(cluster, channel, report)
                .await
                .with_context(|| format!("report {report} (Portico's log is {})", portico.log().display()))?;
        }
        for (profile, features, tests) in &UNCLAIMED {
            profile_passes(cluster, profile, features, *tests, reports[0])
                .await
                .with_context(|| format!("profile {profile} (Portico's log is {})", portico.log().display()))?;
        }
        portico.stop().await?;
        node.stop().await
    });
}

/// Runs the core tests of a profile that Portico does not claim. `report` is the name of the report of the claimed one.
async fn profile_passes(cluster: &Cluster, name: &str, features: &[&str], tests: u32, report: &str) -> Result<()> {
    let report_name = format!("{report}-{}", name.to_lowercase());
    let (report, _) = run_suite(cluster, name, features, &report_name).await?;
    let [profile] = &report.profiles[..] else { anyhow::bail!("expected one profile:\n{report}") };
    let passed = profile.core.statistics.passed;
    ensure!(passed == tests, "{passed} core tests of {name} passed, expected {tests}");
    Ok(())
}

/// Runs the suite, whose tests must all pass, and returns the report and the path of the log. Without `features`, those
/// that the GatewayClass claims are tested.
async fn run_suite(
    cluster: &Cluster,
    profile: &str,
    features: &[&str],
    report_name: &str,
) -> Result<(Report, PathBuf)> {
    let suite = SuiteOptions {
        gateway_class: "portico".to_owned(),
        profile: profile.to_owned(),
        only: None,
        features: features.iter().copied().map(str::to_owned).collect(),
        addresses: [ADDRESSES[0].parse()?, ADDRESSES[1].parse()?],
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        folder: conformance::report_folder(),
        name: report_name.to_owned(),
    };
    let SuiteResult { passed, report, log } = conformance::run(cluster.netns(), cluster.kubeconfig(), &suite).await?;
    if let Some(report) = &report {
        progress::report(format_args!("{report_name}\n{report}"));
    }
    ensure!(passed, "the conformance suite failed, see {}", log.display());
    let report = report.with_context(|| format!("the suite wrote no report, see {}", log.display()))?;
    ensure!(report.is_complete(), "tests were skipped, see {}:\n{report}", log.display());
    Ok((report, log))
}

async fn suite_passes(cluster: &Cluster, channel: Channel, report_name: &str) -> Result<()> {
    let (report, log) = run_suite(cluster, "GATEWAY-HTTP", &[], report_name).await?;
    ensure!(report.channel == channel.to_string(), "the report is for channel {}", report.channel);

    let [profile] = &report.profiles[..] else { anyhow::bail!("expected one profile:\n{report}") };
    ensure!(profile.name == "GATEWAY-HTTP", "the report is for profile {}", profile.name);
    let passed = profile.core.statistics.passed;
    ensure!(passed == CORE_TESTS, "{passed} core tests passed, expected {CORE_TESTS}");
    let extended = profile.extended.as_ref().context("no extended feature was tested")?;
    let tested: BTreeSet<&str> = extended.supported_features.iter().map(String::as_str).collect();
    ensure_equal("features tested", &tested, EXTENDED)?;
    let passed = extended.statistics.passed;
    ensure!(passed == EXTENDED_TESTS, "{passed} extended tests passed, expected {EXTENDED_TESTS}");
    check_skipped_tests(&log)?;

    let feature_names = "--output=jsonpath={.status.supportedFeatures[*].name}";
    let claimed = cluster.kubectl(&["get", "gatewayclass", "portico", feature_names]).await?;
    ensure_equal("features claimed", &claimed.split_whitespace().collect(), CORE.into_iter().chain(EXTENDED))
}

/// Fails unless both sets are equal.
fn ensure_equal(what: &str, found: &BTreeSet<&str>, expected: impl IntoIterator<Item = &'static str>) -> Result<()> {
    let expected: BTreeSet<&str> = expected.into_iter().collect();
    let missing: Vec<_> = expected.difference(found).collect();
    let unexpected: Vec<_> = found.difference(&expected).collect();
    ensure!(missing.is_empty() && unexpected.is_empty(), "{what}: missing {missing:?}, unexpected {unexpected:?}");
    Ok(())
}

/// Fails if a test of a claimed feature was skipped. The report omits skipped tests; the log has them with reasons.
fn check_skipped_tests(log: &Path) -> Result<()> {
    let log_text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let skipped = log_text.lines().filter(|line| line.contains("--- SKIP: ")).count();
    let reasons = log_text.lines().filter_map(|line| line.split_once(": Skipping ")?.1.split_once(": "));
    let reasons: Vec<(&str, &str)> = reasons.collect();
    ensure!(skipped == reasons.len(), "{skipped} tests were skipped, {} with a reason: {reasons:?}", reasons.len());
    for (test, reason) in reasons {
        let feature = reason.strip_prefix("suite does not support ").map(str::trim);
        let feature = feature.with_context(|| format!("{test} was skipped: {reason}"))?;
        let claimed = CORE.contains(&feature) || EXTENDED.contains(&feature);
        ensure!(!claimed, "{test} was skipped although {feature} is claimed");
    }
    Ok(())
}
