//! The committed results of the conformance suite, from which the table of the README is generated.
//!
//! `e2e/conformance.json` has the numbers and features of the last passed run of each channel. A run must have the
//! same; with `UPDATE=1`, it writes them instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Report;
use super::report::Statistics;

/// The results of all channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    pub gateway_api_version: String,
    /// By the name of the channel.
    pub channels: BTreeMap<String, ChannelResults>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelResults {
    pub profiles: Vec<ProfileResults>,
    /// The extended features of all profiles, which were tested.
    pub features: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileResults {
    pub name: String,
    pub core: Numbers,
    pub extended: Numbers,
}

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl From<Statistics> for Numbers {
    fn from(Statistics { passed, failed, skipped }: Statistics) -> Self {
        Numbers { passed, failed, skipped }
    }
}

impl ChannelResults {
    /// The results of a run. `core` are the features that profiles require.
    pub fn from_report(report: &Report, core: &[&str]) -> Self {
        let extended = report.profiles.iter().flat_map(|profile| &profile.extended);
        let features = extended.flat_map(|tests| &tests.supported_features);
        let profile = |profile: &super::report::Profile| ProfileResults {
            name: profile.name.clone(),
            core: profile.core.statistics.into(),
            extended: profile.extended.as_ref().map(|tests| tests.statistics.into()).unwrap_or_default(),
        };
        // The suite writes the profiles in another order in each run.
        let mut profiles: Vec<_> = report.profiles.iter().map(profile).collect();
        profiles.sort_by(|one, other| one.name.cmp(&other.name));
        ChannelResults {
            profiles,
            features: features.filter(|feature| !core.contains(&&***feature)).cloned().collect(),
        }
    }
}

impl Results {
    pub fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance.json")
    }

    pub fn read() -> Result<Results> {
        let path = Results::path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} does not contain results", path.display()))
    }

    /// Compares the results of a run with the committed ones; with `UPDATE=1`, replaces them.
    pub fn compare_or_update(report: &Report, core: &[&str]) -> Result<()> {
        let run = ChannelResults::from_report(report, core);
        if std::env::var_os("UPDATE").is_none() {
            return Results::read()?.compare(report, &run);
        }
        let mut results = Results::read().unwrap_or_default();
        results.set(report, run);
        results.write()
    }

    /// Writes the file and the table of the README.
    fn write(&self) -> Result<()> {
        let write = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(&Results::path(), self.to_json())?;
        let path = Results::readme_path();
        let readme = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let readme = self.insert_table(&readme).context("the README has no table of conformance")?;
        write(&path, readme)
    }

    fn readme_path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md")
    }

    fn compare(&self, report: &Report, run: &ChannelResults) -> Result<()> {
        let update = "if that is right: UPDATE=1 make conformance";
        let (version, committed_version) = (&report.version, &self.gateway_api_version);
        ensure!(version == committed_version, "the results are of {committed_version}, not {version}; {update}");
        let committed = self.channels.get(&report.channel);
        let committed = committed.with_context(|| format!("there are no results of {}; {update}", report.channel))?;
        ensure!(
            committed.profiles == run.profiles,
            "the numbers of tests are {:?}, not {:?}; {update}",
            run.profiles,
            committed.profiles
        );
        let missing: Vec<_> = committed.features.difference(&run.features).collect();
        let new: Vec<_> = run.features.difference(&committed.features).collect();
        ensure!(missing.is_empty() && new.is_empty(), "features tested: missing {missing:?}, new {new:?}; {update}");
        Ok(())
    }

    fn set(&mut self, report: &Report, run: ChannelResults) {
        if self.gateway_api_version != report.version {
            *self = Results { gateway_api_version: report.version.clone(), channels: BTreeMap::new() };
        }
        self.channels.insert(report.channel.clone(), run);
    }

    fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("results serialize to JSON");
        json + "\n"
    }

    /// The table of the README. Channels with equal results share their rows.
    fn table(&self) -> String {
        let mut text =
            "| profile | channel | core tests | passed | tests of extended features | passed | failed | skipped |\n\
                        | --- | --- | --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        let mut rows: Vec<(&ProfileResults, Vec<&str>)> = Vec::new();
        for (channel, results) in &self.channels {
            for profile in &results.profiles {
                match rows.iter_mut().find(|(row, _)| *row == profile) {
                    Some((_, channels)) => channels.push(channel),
                    None => rows.push((profile, vec![channel])),
                }
            }
        }
        rows.sort_by(|(a, a_channels), (b, b_channels)| (&a.name, a_channels).cmp(&(&b.name, b_channels)));
        for (ProfileResults { name, core, extended }, channels) in rows {
            let channels = if channels.len() == 2 { "both" } else { channels[0] };
            let all = |numbers: &Numbers| numbers.passed + numbers.failed + numbers.skipped;
            writeln!(
                text,
                "| {name} | {channels} | {} | {} | {} | {} | {} | {} |",
                all(core),
                core.passed,
                all(extended),
                extended.passed,
                core.failed + extended.failed,
                core.skipped + extended.skipped
            )
            .expect("writing to a string cannot fail");
        }
        text
    }

    /// The README with the table of these results. `None` if it has no table of conformance.
    fn insert_table(&self, readme: &str) -> Option<String> {
        let section = readme.find("\n### Conformance\n")?;
        let start = section + readme[section..].find("\n| profile |")? + 1;
        let end = start + readme[start..].find("\n\n")? + 1;
        Some(format!("{}{}{}", &readme[..start], self.table(), &readme[end..]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::testing::report;
    use super::*;

    #[test]
    fn readme_has_the_table_of_the_committed_results() {
        let results = Results::read().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            results.write().unwrap();
        }
        let readme = fs::read_to_string(Results::readme_path()).unwrap();
        let expected = results.insert_table(&readme).expect("the README has a table of conformance");
        assert!(
            readme == expected,
            "the table of README.md differs from e2e/conformance.json:\n{}\n\
             UPDATE=1 cargo test --workspace --lib conformance::results",
            results.table()
        );
    }

    #[test]
    fn committed_results_have_no_failed_and_no_skipped_test() {
        let results = Results::read().unwrap();
        assert_eq!(results.channels.keys().map(String::as_str).collect::<Vec<_>>(), ["experimental", "standard"]);
        for profile in results.channels.values().flat_map(|channel| &channel.profiles) {
            for numbers in [profile.core, profile.extended] {
                assert!(numbers.passed > 0 && numbers.failed == 0 && numbers.skipped == 0, "{profile:?}");
            }
        }
        assert_eq!(
            fs::read_to_string(Results::path()).unwrap(),
            results.to_json(),
            "UPDATE=1 make conformance writes it"
        );
    }

    fn parsed() -> Report {
        Report::parse(report()).unwrap()
    }

    #[test]
    fn run_is_compared_with_the_committed_results() {
        let report = parsed();
        let run = ChannelResults::from_report(&report, &["GatewayPort8080"]);
        assert_eq!(run.features, BTreeSet::from(["HTTPRouteCORS".to_owned()]), "without the features of the core");
        let mut results = Results::default();
        assert!(results.compare(&report, &run).unwrap_err().to_string().contains("not v1.7.0"));
        results.set(&report, run.clone());
        results.compare(&report, &run).unwrap();
        let mut more_tests = run.clone();
        more_tests.profiles[0].core.passed += 1;
        assert!(results.compare(&report, &more_tests).unwrap_err().to_string().contains("the numbers of tests"));
        let mut more_features = run.clone();
        more_features.features.insert("ListenerSet".to_owned());
        let error = results.compare(&report, &more_features).unwrap_err().to_string();
        assert!(error.contains(r#"new ["ListenerSet"]"#), "{error}");
        let standard = Report { channel: "standard".to_owned(), ..report.clone() };
        assert!(results.compare(&standard, &run).unwrap_err().to_string().contains("no results of standard"));
        results.set(&Report { version: "v1.8.0".to_owned(), ..standard }, run);
        assert_eq!(results.channels.len(), 1, "results of an older version are dropped");
    }

    #[test]
    fn channels_with_equal_results_share_rows() {
        let mut results = Results::default();
        let report = parsed();
        let run = ChannelResults::from_report(&report, &[]);
        results.set(&report, run.clone());
        let heading = "\
| profile | channel | core tests | passed | tests of extended features | passed | failed | skipped |
| --- | --- | --- | --- | --- | --- | --- | --- |
";
        assert_eq!(results.table(), format!("{heading}| GATEWAY-HTTP | experimental | 40 | 40 | 33 | 32 | 1 | 0 |\n"));
        let standard = Report { channel: "standard".to_owned(), ..report };
        results.set(&standard, run.clone());
        assert_eq!(results.table(), format!("{heading}| GATEWAY-HTTP | both | 40 | 40 | 33 | 32 | 1 | 0 |\n"));
        let mut other = run;
        other.profiles[0].core.passed = 41;
        results.set(&standard, other);
        let rows = "| GATEWAY-HTTP | experimental | 40 | 40 | 33 | 32 | 1 | 0 |\n\
                    | GATEWAY-HTTP | standard | 41 | 41 | 33 | 32 | 1 | 0 |\n";
        assert_eq!(results.table(), format!("{heading}{rows}"));
        let readme = "# A\n\n| profile |\n\n### Conformance\n\ntext\n\n| profile | old |\n| --- |\n| x |\n\nrest\n";
        let expected = format!("# A\n\n| profile |\n\n### Conformance\n\ntext\n\n{heading}{rows}\nrest\n");
        assert_eq!(results.insert_table(readme), Some(expected));
        assert_eq!(results.insert_table("# A\n"), None);
    }
}
