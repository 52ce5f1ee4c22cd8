//! Reads the report of the conformance suite and prints it as a table.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The fields of a report that the table and the tests need.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(rename = "gatewayAPIChannel")]
    pub channel: String,
    #[serde(rename = "gatewayAPIVersion")]
    pub version: String,
    /// The operating mode of the implementation; `default` if it has only one.
    pub mode: String,
    pub implementation: Implementation,
    pub profiles: Vec<Profile>,
}

/// What was tested.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Implementation {
    pub organization: String,
    pub project: String,
    pub url: String,
    pub version: String,
}

/// The results of one profile.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Profile {
    pub name: String,
    pub core: TestResults,
    /// None if no extended feature was tested.
    pub extended: Option<TestResults>,
}

/// The results of a profile's core tests, or of its extended ones.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResults {
    /// `success`, `failure` or, with skipped tests, `partial`.
    pub result: String,
    pub statistics: Statistics,
    #[serde(default)]
    pub failed_tests: Vec<String>,
    #[serde(default)]
    pub skipped_tests: Vec<String>,
    #[serde(default)]
    pub supported_features: Vec<String>,
    #[serde(default)]
    pub unsupported_features: Vec<String>,
}

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statistics {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Report {
    pub fn read(path: &Path) -> Result<Report> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Report::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Report> {
        serde_saphyr::from_str(text).context("this is not a conformance report in a known format")
    }

    /// Whether all tests of all profiles passed and none was skipped.
    pub fn is_complete(&self) -> bool {
        let all_passed = |tests: &TestResults| {
            tests.result == "success" && tests.statistics.failed == 0 && tests.statistics.skipped == 0
        };
        !self.profiles.is_empty()
            && self
                .profiles
                .iter()
                .all(|profile| all_passed(&profile.core) && profile.extended.as_ref().is_none_or(all_passed))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Gateway API {}, {} channel", self.version, self.channel)?;
        let columns = ["profile", "tests", "passed", "failed", "skipped", "features"];
        let [profile, tests, passed, failed, skipped, features] = columns;
        writeln!(formatter, "{profile:<16} {tests:<9} {passed:>7} {failed:>7} {skipped:>8} {features:>9}")?;
        let rows = self.profiles.iter().flat_map(|profile| {
            let extended = profile.extended.as_ref().map(|tests| (profile, "extended", tests));
            [(profile, "core", &profile.core)].into_iter().chain(extended)
        });
        for (profile, kind, tests) in rows {
            let Statistics { passed, failed, skipped } = tests.statistics;
            let name = &profile.name;
            let features = tests.supported_features.len();
            writeln!(formatter, "{name:<16} {kind:<9} {passed:>7} {failed:>7} {skipped:>8} {features:>9}")?;
            for (result, names) in [("failed", &tests.failed_tests), ("skipped", &tests.skipped_tests)] {
                for name in names {
                    writeln!(formatter, "  {result}: {name}")?;
                }
            }
            for pair in tests.supported_features.chunks(2) {
                let [left, right] = [pair.first(), pair.get(1)].map(|name| name.map_or("", String::as_str));
                writeln!(formatter, "{}", format!("  {left:<48} {right}").trim_end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing {
    /// The text of a report with one failed test.
    pub(crate) fn report() -> &'static str {
        REPORT
    }

    const REPORT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
date: \"2026-11-20T00:00:00Z\"
gatewayAPIChannel: experimental
gatewayAPIVersion: v1.7.0
implementation: {organization: portico, project: portico, url: https://portico.dev, version: v0.1.0, contact: [x]}
kind: ConformanceReport
mode: default
profiles:
- core:
    result: success
    statistics: {Failed: 0, Passed: 40, Skipped: 0}
  extended:
    failedTests: [HTTPRouteCORS]
    result: failure
    statistics: {Failed: 1, Passed: 32, Skipped: 0}
    supportedFeatures: [GatewayPort8080, HTTPRouteCORS]
    unsupportedFeatures: [ListenerSet]
  name: GATEWAY-HTTP
  summary: Core tests succeeded. Extended tests failed.
";
}

#[cfg(test)]
mod tests {
    use super::testing::report;
    use super::*;

    #[test]
    fn table_lists_features_and_failed_tests() {
        let report = Report::parse(report()).unwrap();
        let expected = "\
Gateway API v1.7.0, experimental channel
profile          tests      passed  failed  skipped  features
GATEWAY-HTTP     core           40       0        0         0
GATEWAY-HTTP     extended       32       1        0         2
  failed: HTTPRouteCORS
  GatewayPort8080                                  HTTPRouteCORS
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn report_is_complete_without_failed_or_skipped_tests() {
        let report = Report::parse(report()).unwrap();
        assert!(!report.is_complete());
        let mut complete = report.clone();
        complete.profiles[0].extended = None;
        assert!(complete.is_complete());
        complete.profiles[0].core.statistics.skipped = 1;
        assert!(!complete.is_complete());
        assert!(!Report { profiles: Vec::new(), ..report }.is_complete());
    }
}
