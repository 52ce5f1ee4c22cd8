//! Prepares reports as the Gateway API accepts them: one folder with a report for each channel, named after its
//! content, and a README that says how to reproduce them. The Gateway API's documentation of conformance reports has
//! the rules.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Report;

/// The reports of one version of the Gateway API, ready to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// `v1.7/portico`, below the folder of all submissions.
    folder: PathBuf,
    reports: Vec<NamedReport>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedReport {
    file_name: String,
    /// Exactly as the suite has written it.
    text: String,
    report: Report,
}

impl Submission {
    /// Accepts the texts of complete reports of the same version of the Gateway API.
    pub fn of(texts: Vec<String>) -> Result<Submission> {
        let mut reports = Vec::new();
        for text in texts {
            let report = Report::parse(&text)?;
            ensure!(report.is_complete(), "tests failed or were skipped, so the report is not accepted:\n{report}");
            let file_name = file_name(&report)?;
            reports.push(NamedReport { file_name, text, report });
        }
        reports.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        let first = &reports.first().context("there is no report")?.report;
        for NamedReport { report, file_name, .. } in &reports {
            ensure!(report.version == first.version, "{file_name} is about {}, not {}", report.version, first.version);
            let (project, expected) = (&report.implementation, &first.implementation);
            ensure!(project == expected, "{file_name} is about another version: {project:?}, not {expected:?}");
        }
        for pair in reports.windows(2) {
            let [a, b] = [&pair[0].file_name, &pair[1].file_name];
            ensure!(a != b, "there are two reports {a}; one of each channel and mode is accepted");
        }
        let folder = Path::new(&version_folder(&first.version)?).join(&first.implementation.project);
        Ok(Submission { folder, reports })
    }

    /// Writes the reports and the README below a folder, and returns their folder.
    pub fn write(&self, parent: &Path) -> Result<PathBuf> {
        let folder = parent.join(&self.folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let readme = ("README.md", self.readme());
        let reports = self.reports.iter().map(|named| (&*named.file_name, named.text.clone()));
        for (name, text) in reports.chain([readme]) {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(folder)
    }

    /// The tables of all reports.
    pub fn tables(&self) -> String {
        self.reports.iter().map(|named| format!("{}\n{}\n", named.file_name, named.report)).collect()
    }

    fn readme(&self) -> String {
        let first = &self.reports[0].report;
        let url = &first.implementation.url;
        let version = &first.implementation.version;
        let mut text = format!(
            "# Portico\n\n[Portico]({url}) is an ingress controller, an implementation of the Gateway API and an API \
             gateway in one program.\n\n## Table of contents\n\n\
             | API channel | Implementation version | Mode | Report |\n\
             |-------------|------------------------|------|--------|\n"
        );
        for NamedReport { file_name, report, .. } in &self.reports {
            let (channel, mode) = (&report.channel, &report.mode);
            writeln!(text, "| {channel} | [{version}]({url}) | {mode} | [{version} report](./{file_name}) |")
                .expect("writing to a string cannot fail");
        }
        write!(
            text,
            "\n## Reproduce\n\n\
             The reports are from new clusters, one for each channel, on one machine without containers: `make` builds \
             etcd, the API server, the controller manager and the suite from their sources. On Debian, as root, with \
             [rustup](https://rustup.rs):\n\n\
             1. Check out version {version} of the source, which [the site of the project]({url}) links.\n\
             2. Run the suite, which takes about half an hour, and ten minutes more the first time:\n\n   \
             ```bash\n   make conformance\n   ```\n\n\
             3. Compare the reports, which differ in their dates only:\n\n   \
             ```bash\n   ls target/conformance/{}\n   ```\n",
            self.folder.display()
        )
        .expect("writing to a string cannot fail");
        text
    }
}

/// `<channel>-<version>-<mode>-report.yaml`
fn file_name(report: &Report) -> Result<String> {
    let Report { channel, mode, implementation, .. } = report;
    let version = &implementation.version;
    ensure!(["standard", "experimental"].contains(&&**channel), "{channel:?} is not a channel of the Gateway API");
    ensure!(is_semver(version), "{version:?} is not a semantic version such as v1.2.3, which a report needs");
    let is_plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    ensure!(is_plain(mode), "the mode {mode:?} cannot be a part of a file name");
    ensure!(is_plain(&implementation.project), "the project {:?} cannot be a folder", implementation.project);
    Ok(format!("{channel}-{version}-{mode}-report.yaml"))
}

/// `v1.7` for `v1.7.0`, as the folders of the Gateway API are named since v1.5.
fn version_folder(version: &str) -> Result<String> {
    ensure!(is_semver(version), "{version:?} is not a version of the Gateway API");
    let mut parts = version.splitn(3, '.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(format!("{major}.{minor}"))
}

/// `v1.2.3`, or `v1.2.3-rc.1`
fn is_semver(version: &str) -> bool {
    let Some(version) = version.strip_prefix('v') else { return false };
    let (numbers, suffix) =
        version.split_once('-').map_or((version, None), |(numbers, suffix)| (numbers, Some(suffix)));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_suffix = |suffix: &str| {
        !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    numbers.split('.').count() == 3 && numbers.split('.').all(is_number) && suffix.is_none_or(is_suffix)
}

#[cfg(test)]
mod tests {
    use super::super::report::testing::report;
    use super::*;

    fn complete(channel: &str) -> String {
        report()
            .replace("experimental", channel)
            .replace("Failed: 1", "Failed: 0")
            .replace("result: failure", "result: success")
    }

    #[test]
    fn reports_are_written_as_upstream_names_them() {
        let texts = vec![complete("standard"), complete("experimental")];
        let submission = Submission::of(texts.clone()).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let folder = submission.write(parent.path()).unwrap();
        assert_eq!(folder, parent.path().join("v1.7/portico"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("standard-v0.1.0-default-report.yaml"), texts[0], "unchanged");
        assert_eq!(read("experimental-v0.1.0-default-report.yaml"), texts[1]);
        let readme = read("README.md");
        let row = "| standard | [v0.1.0](https://portico.dev) | default \
                   | [v0.1.0 report](./standard-v0.1.0-default-report.yaml) |";
        assert!(readme.lines().any(|line| line == row), "{readme}");
        for heading in ["# Portico", "## Table of contents", "## Reproduce"] {
            assert!(readme.lines().any(|line| line == heading), "{heading}");
        }
        assert!(readme.contains("ls target/conformance/v1.7/portico"), "{readme}");
        assert!(submission.tables().contains("Gateway API v1.7.0, standard channel"));
    }

    #[test]
    fn reports_that_upstream_refuses_are_errors() {
        let standard = complete("standard");
        for (texts, expected) in [
            (vec![], "there is no report"),
            (vec![report().to_owned()], "tests failed or were skipped"),
            (vec![standard.replace("Skipped: 0", "Skipped: 1")], "tests failed or were skipped"),
            (vec![standard.replace("v0.1.0", "main")], "is not a semantic version"),
            (vec![complete("nightly")], "is not a channel"),
            (vec![standard.replace("mode: default", "mode: a/b")], "cannot be a part of a file name"),
            (vec![standard.clone(), standard.clone()], "two reports"),
            (vec![standard.clone(), complete("experimental").replace("v1.7.0", "v1.8.0")], "not v1.8.0"),
            (vec![standard.clone(), complete("experimental").replace("v0.1.0", "v0.2.0")], "another version"),
        ] {
            let error = Submission::of(texts).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn versions_are_semantic() {
        for (version, expected) in [
            ("v0.1.0", true),
            ("v1.2.3-rc.1", true),
            ("0.1.0", false),
            ("v1.2", false),
            ("v1.2.x", false),
            ("v1.2.3-", false),
            ("main", false),
        ] {
            assert_eq!(is_semver(version), expected, "{version}");
        }
    }
}
