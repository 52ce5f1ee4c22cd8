//! Runs the unmodified Gateway API conformance suite against a cluster. The features that the GatewayClass claims in
//! its status select the tests.

mod report;
mod results;
mod submission;

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

pub use self::report::Report;
pub use self::results::Results;
pub use self::submission::Submission;
use crate::netns::Netns;
use crate::programs;
use crate::progress::report;

/// Longer than any run that does not hang.
const SUITE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Parameters of a run.
#[derive(Clone, Debug)]
pub struct SuiteOptions {
    pub gateway_class: String,
    /// The conformance profile, for example `GATEWAY-HTTP`.
    pub profile: String,
    /// A single test. The claims of the GatewayClass are ignored then; only `features` count.
    pub only: Option<String>,
    /// Features to test instead of those that the GatewayClass claims.
    pub features: Vec<String>,
    /// An address that a Gateway can request and get, and one that it cannot get.
    pub addresses: [IpAddr; 2],
    /// The version of Portico in the report.
    pub version: String,
    /// The folder for the report and the log, whose file names start with `name`.
    pub folder: PathBuf,
    pub name: String,
}

/// The result of a run.
#[derive(Debug)]
pub struct SuiteResult {
    /// Whether the exit status of the suite was zero. The report has the details.
    pub passed: bool,
    /// None if the suite ended before it could write a report.
    pub report: Option<Report>,
    /// The output of the suite.
    pub log: PathBuf,
}

/// The folder of reports: target/conformance of the checkout.
pub fn report_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("conformance")
}

/// Runs the suite in the cluster's network namespace with this kubeconfig, and prints the result of each test.
pub async fn run(netns: &Netns, kubeconfig: &Path, suite: &SuiteOptions) -> Result<SuiteResult> {
    // Building takes minutes the first time; other tasks continue meanwhile.
    let program = tokio::task::spawn_blocking(programs::conformance_suite).await.context("building the suite")??;
    fs::create_dir_all(&suite.folder).with_context(|| format!("cannot make {}", suite.folder.display()))?;
    let report_path = suite.folder.join(format!("{}-report.yaml", suite.name));
    let log_path = suite.folder.join(format!("{}.log", suite.name));
    // Otherwise, a failed run would return the previous report.
    match fs::remove_file(&report_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", report_path.display()));
        }
        _ => {}
    }
    let mut log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let stderr = log.try_clone().with_context(|| format!("cannot write {}", log_path.display()))?;

    let mut command = netns.command(program);
    command.args(suite.flags()).arg(format!("--report-output={}", report_path.display()));
    command.env("KUBECONFIG", kubeconfig).current_dir(&suite.folder);
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start the conformance suite")?;
    let stdout = child.stdout.take().context("stdout of the suite is not a pipe")?;
    let wait_for_suite = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await.context("cannot read the output of the suite")? {
            writeln!(log, "{line}").with_context(|| format!("cannot write {}", log_path.display()))?;
            if let Some(result) = result_of_test(&line) {
                report(format_args!("  {result}"));
            }
        }
        child.wait().await.context("cannot wait for the suite")
    };
    let Ok(status) = timeout(SUITE_TIMEOUT, wait_for_suite).await else {
        bail!("the suite is still running after {} minutes; see {}", SUITE_TIMEOUT.as_secs() / 60, log_path.display());
    };
    let passed = status?.success();
    let report = if report_path.exists() { Some(Report::read(&report_path)?) } else { None };
    Ok(SuiteResult { passed, report, log: log_path })
}

impl SuiteOptions {
    fn flags(&self) -> Vec<String> {
        let [usable, unusable] = self.addresses;
        let mut flags = vec![
            "-test.v".to_owned(),
            // The timeout of this harness applies instead; its error names the log.
            "-test.timeout=0".to_owned(),
            format!("--gateway-class={}", self.gateway_class),
            format!("--conformance-profiles={}", self.profile),
            format!("--usable-address={usable}"),
            format!("--unusable-address={unusable}"),
            "--organization=portico".to_owned(),
            "--project=portico".to_owned(),
            "--url=https://portico.dev".to_owned(),
            format!("--version={}", self.version),
            "--contact=https://portico.dev".to_owned(),
        ];
        flags.extend(self.only.as_ref().map(|test| format!("--run-test={test}")));
        if !self.features.is_empty() {
            flags.push(format!("--supported-features={}", self.features.join(",")));
        }
        flags
    }
}

/// `PASS: HTTPRouteSimpleSameNamespace (0.31s)` for lines with the result of a top-level test. Skipped tests of
/// unclaimed features are only in the log.
fn result_of_test(line: &str) -> Option<String> {
    let (result, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": TestConformance/")?;
    let name = rest.split_once(' ')?.0;
    (!name.contains('/') && result != "SKIP").then(|| format!("{result}: {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_top_level_tests_are_printed() {
        for (line, expected) in [
            ("    --- PASS: TestConformance/HTTPRouteCORS (0.31s)", Some("PASS: HTTPRouteCORS (0.31s)")),
            ("    --- FAIL: TestConformance/HTTPRouteCORS (30.00s)", Some("FAIL: HTTPRouteCORS (30.00s)")),
            ("    --- SKIP: TestConformance/TLSRouteSimple (0.00s)", None),
            ("        --- PASS: TestConformance/HTTPRouteCORS/1_request (0.31s)", None),
            ("--- FAIL: TestConformance (0.31s)", None),
            ("=== RUN   TestConformance/HTTPRouteCORS", None),
            ("    http.go:1: --- PASS", None),
        ] {
            assert_eq!(result_of_test(line).as_deref(), expected, "{line}");
        }
    }
}
