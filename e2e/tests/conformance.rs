//! The Gateway API's conformance suite against Portico with the rights of its manifests, on both channels of the CRDs:
//! all tests of core and of the features below pass, on a cluster that is new and on one that the suite has used.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use portico_e2e::cluster::{Channel, Cluster, Options};
use portico_e2e::conformance::{self, Suite};
use portico_e2e::node::Node;
use portico_e2e::portico::Portico;
use portico_e2e::progress::say;
use portico_e2e::scenario;

/// What GATEWAY-HTTP asks of everybody.
const CORE: [&str; 3] = ["Gateway", "HTTPRoute", "ReferenceGrant"];
const CORE_TESTS: u32 = 40;
/// What Portico claims on top. One more or less is a change of what we promise.
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

/// An address of the pool, and one outside of it.
const ADDRESSES: [&str; 2] = ["198.18.0.200", "192.0.2.1"];

#[test]
fn the_experimental_channel_conforms_and_does_so_twice() {
    conforms(Channel::Experimental, &["experimental", "experimental-again"]);
}

#[test]
fn the_standard_channel_conforms() {
    conforms(Channel::Standard, &["standard"]);
}

/// Runs the suite on one fresh cluster, as often as there are names for reports.
fn conforms(channel: Channel, reports: &[&str]) {
    if !scenario::on_our_own("the conformance suite, whose Pods need our node") {
        return;
    }
    // One at a time: the suite gives some answers a second, and has a machine's work to do itself.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let options = Options { name: format!("conf-{channel}"), channel: Some(channel) };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        let mut portico = Portico::start(cluster, "conformance", &[]).await?;
        for report in reports {
            suite_passes(cluster, channel, report)
                .await
                .with_context(|| format!("report {report} (what Portico said is in {})", portico.log().display()))?;
        }
        portico.stop().await?;
        node.stop().await
    });
}

async fn suite_passes(cluster: &Cluster, channel: Channel, name: &str) -> Result<()> {
    let suite = Suite {
        gateway_class: "portico".to_owned(),
        only: None,
        features: Vec::new(),
        addresses: [ADDRESSES[0].parse()?, ADDRESSES[1].parse()?],
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        folder: conformance::folder(),
        name: name.to_owned(),
    };
    let outcome = conformance::run(cluster.netns(), cluster.kubeconfig(), &suite).await?;
    let log = outcome.log.display();
    let report = outcome.report.as_ref();
    if let Some(report) = report {
        say(format_args!("{name}\n{report}"));
    }
    ensure!(outcome.passed, "the suite failed, see {log}");
    let report = report.with_context(|| format!("there is no report, see {log}"))?;
    ensure!(report.is_complete(), "tests were skipped, see {log}:\n{report}");
    ensure!(report.channel == channel.to_string(), "the report is about the channel {}", report.channel);

    let [profile] = &report.profiles[..] else { anyhow::bail!("one profile is expected:\n{report}") };
    ensure!(profile.name == "GATEWAY-HTTP", "the report is about {}", profile.name);
    let passed = profile.core.statistics.passed;
    ensure!(passed == CORE_TESTS, "{passed} core tests passed, {CORE_TESTS} are expected");
    let extended = profile.extended.as_ref().context("no extended feature was tested")?;
    let tested: BTreeSet<&str> = extended.supported_features.iter().map(String::as_str).collect();
    same("features tested", &tested, EXTENDED)?;
    let passed = extended.statistics.passed;
    ensure!(passed == EXTENDED_TESTS, "{passed} extended tests passed, {EXTENDED_TESTS} are expected");
    nothing_claimed_was_left_out(&outcome.log)?;

    let path = "--output=jsonpath={.status.supportedFeatures[*].name}";
    let claimed = cluster.kubectl(&["get", "gatewayclass", "portico", path]).await?;
    same("features claimed", &claimed.split_whitespace().collect(), CORE.into_iter().chain(EXTENDED))
}

/// Neither more nor less.
fn same(what: &str, found: &BTreeSet<&str>, expected: impl IntoIterator<Item = &'static str>) -> Result<()> {
    let expected: BTreeSet<&str> = expected.into_iter().collect();
    let lacks: Vec<_> = expected.difference(found).collect();
    let more: Vec<_> = found.difference(&expected).collect();
    ensure!(lacks.is_empty() && more.is_empty(), "{what}: {lacks:?} are missing, {more:?} are too many");
    Ok(())
}

/// Tests of features that are not claimed are left out, which the report does not count. The log says why.
fn nothing_claimed_was_left_out(log: &Path) -> Result<()> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let left_out = text.lines().filter(|line| line.contains("--- SKIP: ")).count();
    let reasons = text.lines().filter_map(|line| line.split_once(": Skipping ")?.1.split_once(": "));
    let reasons: Vec<(&str, &str)> = reasons.collect();
    ensure!(left_out == reasons.len(), "{left_out} tests were left out, {} for a reason: {reasons:?}", reasons.len());
    for (test, reason) in reasons {
        let feature = reason.strip_prefix("suite does not support ").map(str::trim);
        let feature = feature.with_context(|| format!("{test} was left out: {reason}"))?;
        let claimed = CORE.contains(&feature) || EXTENDED.contains(&feature);
        ensure!(!claimed, "{test} was left out although {feature} is claimed");
    }
    Ok(())
}
