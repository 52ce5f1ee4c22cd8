//! Runs the Gateway API conformance suite against Portico with the RBAC rules of its manifests, on both CRD channels.
//! All core tests and the tests of the claimed features must pass. In `make test-full`, the suite also runs twice on
//! one cluster, the second time with two replicas.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use portico_e2e::cluster::{Channel, Cluster, Options};
use portico_e2e::conformance::{self, Report, Results, SuiteOptions, SuiteResult};
use portico_e2e::node::Node;
use portico_e2e::portico::Portico;
use portico_e2e::progress;
use portico_e2e::scenario;

/// The profiles that Portico claims.
const PROFILES: [&str; 5] = ["GATEWAY-GRPC", "GATEWAY-HTTP", "GATEWAY-TCP", "GATEWAY-TLS", "GATEWAY-UDP"];
/// Features that the profiles require.
const CORE: [&str; 7] = ["GRPCRoute", "Gateway", "HTTPRoute", "ReferenceGrant", "TCPRoute", "TLSRoute", "UDPRoute"];
/// Features that Portico claims, and whose tests run although no profile has them.
const WITHOUT_PROFILE: [&str; 2] = ["GRPCRouteNamedRouteRule", "GRPCRouteRequestHeaderModifier"];

/// The usable and the unusable address that the suite requests: one of the address pool, and one outside of it.
const ADDRESSES: [&str; 2] = ["198.18.0.200", "192.0.2.1"];

/// Names of replicas of Portico.
const REPLICAS: [&str; 2] = ["conformance", "second"];

#[test]
fn experimental_channel_conforms() {
    conforms(Channel::Experimental, &[("experimental", 1)]);
}

#[test]
#[ignore = "only in make test-full: it runs the suite twice, and rarely finds what the other runs do not"]
fn experimental_channel_conforms_again_and_with_two_replicas() {
    conforms(Channel::Experimental, &[("experimental-first", 1), ("experimental-two-replicas", 2)]);
}

#[test]
fn standard_channel_conforms() {
    conforms(Channel::Standard, &[("standard", 1)]);
}

/// Runs the suite on one new cluster, once for each report name, with at least this number of replicas.
fn conforms(channel: Channel, runs: &[(&str, usize)]) {
    let suite = format!("the conformance suite of the {channel} channel");
    if !scenario::can_start_new_cluster(&suite) || !scenario::is_fast_enough(&suite) {
        return;
    }
    // One run at a time: the suite needs much CPU, and expects some responses within a second.
    static SUITE_LOCK: Mutex<()> = Mutex::new(());
    let _guard = SUITE_LOCK.lock();
    let options = Options { name: format!("conf-{channel}"), channel: Some(channel) };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        let mut replicas: Vec<Portico> = Vec::new();
        for (report, replica_count) in runs {
            while replicas.len() < *replica_count {
                replicas.push(Portico::start(cluster, REPLICAS[replicas.len()], &[]).await?);
            }
            let before = completed_requests(&replicas).await?;
            let logs: Vec<&Path> = replicas.iter().map(Portico::log).collect();
            suite_passes(cluster, channel, report)
                .await
                .with_context(|| format!("report {report} (the logs of Portico are {logs:?})"))?;
            let after = completed_requests(&replicas).await?;
            progress::report(format_args!("{report}: completed requests of each replica: {before:?}, then {after:?}"));
            let all_served = before.iter().zip(&after).all(|(before, after)| before < after);
            ensure!(all_served, "{report}: a replica had no requests: {before:?}, then {after:?}");
        }
        for mut portico in replicas {
            portico.stop().await?;
        }
        node.stop().await
    });
}

/// The number of requests that each replica has completed.
async fn completed_requests(replicas: &[Portico]) -> Result<Vec<f64>> {
    let mut completed = Vec::new();
    for replica in replicas {
        completed.push(replica.metric_sum("portico_requests_total", &[]).await?);
    }
    Ok(completed)
}

/// Runs all claimed profiles, whose tests must all pass, and returns the report and the path of the log. The features
/// that the GatewayClass claims are tested.
async fn run_suite(cluster: &Cluster, report_name: &str) -> Result<(Report, PathBuf)> {
    let suite = SuiteOptions {
        gateway_class: "portico".to_owned(),
        profile: PROFILES.join(","),
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

/// Runs the suite. The numbers of tests and the extended features must be those of `e2e/conformance.json`, which is a
/// promise, and the GatewayClass must claim these features.
async fn suite_passes(cluster: &Cluster, channel: Channel, report_name: &str) -> Result<()> {
    let (report, log) = run_suite(cluster, report_name).await?;
    ensure!(report.channel == channel.to_string(), "the report is for channel {}", report.channel);
    let profiles: BTreeSet<&str> = report.profiles.iter().map(|profile| &*profile.name).collect();
    ensure_equal("profiles tested", &profiles, PROFILES)?;
    Results::compare_or_update(&report, &CORE)?;
    let results = Results::read()?;
    let results = results.channels.get(&report.channel).context("the channel has no results")?;
    let features: BTreeSet<&str> =
        results.features.iter().map(String::as_str).chain(CORE).chain(WITHOUT_PROFILE).collect();
    check_skipped_tests(&log, &features)?;

    let feature_names = "--output=jsonpath={.status.supportedFeatures[*].name}";
    let claimed = cluster.kubectl(&["get", "gatewayclass", "portico", feature_names]).await?;
    ensure_equal("features claimed", &claimed.split_whitespace().collect(), features)
}

/// Fails unless both sets are equal.
fn ensure_equal<'a>(what: &str, found: &BTreeSet<&'a str>, expected: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let expected: BTreeSet<&str> = expected.into_iter().collect();
    let missing: Vec<_> = expected.difference(found).collect();
    let unexpected: Vec<_> = found.difference(&expected).collect();
    ensure!(missing.is_empty() && unexpected.is_empty(), "{what}: missing {missing:?}, unexpected {unexpected:?}");
    Ok(())
}

/// Fails if a test of a claimed feature was skipped. The report omits skipped tests; the log has them with reasons.
fn check_skipped_tests(log: &Path, claimed: &BTreeSet<&str>) -> Result<()> {
    let log_text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let skipped = log_text.lines().filter(|line| line.contains("--- SKIP: ")).count();
    let reasons = log_text.lines().filter_map(|line| line.split_once(": Skipping ")?.1.split_once(": "));
    let reasons: Vec<(&str, &str)> = reasons.collect();
    ensure!(skipped == reasons.len(), "{skipped} tests were skipped, {} with a reason: {reasons:?}", reasons.len());
    for (test, reason) in reasons {
        let feature = reason.strip_prefix("suite does not support ").map(str::trim);
        let feature = feature.with_context(|| format!("{test} was skipped: {reason}"))?;
        ensure!(!claimed.contains(feature), "{test} was skipped although {feature} is claimed");
    }
    Ok(())
}
