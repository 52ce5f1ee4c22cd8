//! Runs the Gateway API conformance suite against Portico with the RBAC rules of its manifests, on both CRD channels.
//! All core tests and the tests of the claimed features must pass; with the experimental channel, twice on one cluster.

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

/// A profile that Portico claims, and the numbers of its core tests and of the tests of claimed extended features.
struct ClaimedProfile {
    name: &'static str,
    core_tests: u32,
    extended_tests: u32,
}

const PROFILES: [ClaimedProfile; 5] = [
    ClaimedProfile { name: "GATEWAY-GRPC", core_tests: 17, extended_tests: 13 },
    ClaimedProfile { name: "GATEWAY-HTTP", core_tests: 40, extended_tests: 64 },
    ClaimedProfile { name: "GATEWAY-TCP", core_tests: 20, extended_tests: 11 },
    ClaimedProfile { name: "GATEWAY-TLS", core_tests: 21, extended_tests: 18 },
    ClaimedProfile { name: "GATEWAY-UDP", core_tests: 21, extended_tests: 11 },
];
/// Features that the profiles require.
const CORE: [&str; 7] = ["GRPCRoute", "Gateway", "HTTPRoute", "ReferenceGrant", "TCPRoute", "TLSRoute", "UDPRoute"];
/// Extended features that Portico claims. A change of this list changes what Portico promises.
const EXTENDED: [&str; 41] = [
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
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
    "ListenerSet",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
];
/// Features that Portico claims, and whose tests run although no profile has them.
const WITHOUT_PROFILE: [&str; 2] = ["GRPCRouteNamedRouteRule", "GRPCRouteRequestHeaderModifier"];

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
        portico.stop().await?;
        node.stop().await
    });
}

/// Runs all claimed profiles, whose tests must all pass, and returns the report and the path of the log. The features
/// that the GatewayClass claims are tested.
async fn run_suite(cluster: &Cluster, report_name: &str) -> Result<(Report, PathBuf)> {
    let suite = SuiteOptions {
        gateway_class: "portico".to_owned(),
        profile: PROFILES.map(|profile| profile.name).join(","),
        only: None,
        features: Vec::new(),
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
    let (report, log) = run_suite(cluster, report_name).await?;
    ensure!(report.channel == channel.to_string(), "the report is for channel {}", report.channel);
    ensure!(report.profiles.len() == PROFILES.len(), "the report lacks profiles:\n{report}");
    let mut tested = BTreeSet::new();
    for ClaimedProfile { name, core_tests, extended_tests } in PROFILES {
        let profile = report.profiles.iter().find(|profile| profile.name == name);
        let profile = profile.with_context(|| format!("the report lacks profile {name}"))?;
        let passed = profile.core.statistics.passed;
        ensure!(passed == core_tests, "{passed} core tests of {name} passed, expected {core_tests}");
        let extended =
            profile.extended.as_ref().with_context(|| format!("no extended feature of {name} was tested"))?;
        tested.extend(extended.supported_features.iter().map(String::as_str).filter(|feature| !CORE.contains(feature)));
        let passed = extended.statistics.passed;
        ensure!(passed == extended_tests, "{passed} extended tests of {name} passed, expected {extended_tests}");
    }
    ensure_equal("features tested", &tested, EXTENDED)?;
    check_skipped_tests(&log)?;

    let feature_names = "--output=jsonpath={.status.supportedFeatures[*].name}";
    let claimed = cluster.kubectl(&["get", "gatewayclass", "portico", feature_names]).await?;
    ensure_equal(
        "features claimed",
        &claimed.split_whitespace().collect(),
        CORE.into_iter().chain(EXTENDED).chain(WITHOUT_PROFILE),
    )
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
        let claimed = CORE.iter().chain(&EXTENDED).chain(&WITHOUT_PROFILE).any(|claimed| *claimed == feature);
        ensure!(!claimed, "{test} was skipped although {feature} is claimed");
    }
    Ok(())
}
