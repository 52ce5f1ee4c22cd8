//! Alert rules: they are valid for Prometheus, and each alert fires, clears, and has annotations and a runbook page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::root;

const DASHBOARDS: &str = "charts/portico/dashboards";
const RULES: &str = "charts/portico/files/alerts.yaml";
/// Folder with the input of `promtool test rules`: series and the alerts that they trigger.
const TESTS: &str = "tests/alerts";
const RUNBOOKS: &str = "docs/runbooks";

#[test]
fn rules_are_valid() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES]);
}

#[test]
fn every_alert_fires_and_clears() {
    let files = test_files();
    let mut arguments = vec!["test", "rules"];
    arguments.extend(files.iter().map(String::as_str));
    promtool(&arguments);

    // Passing tests prove little unless each alert is tested before it fires, while it fires and after it clears.
    let mut phases: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for file in &files {
        for test in list(&yaml(file)["tests"]) {
            let mut fired = BTreeSet::new();
            for case in list(&test["alert_rule_test"]) {
                let alert = text(&case["alertname"]);
                let phase = match (list(&case["exp_alerts"]).is_empty(), fired.contains(&alert)) {
                    (false, _) => "fires",
                    (true, false) => "waits",
                    (true, true) => "clears",
                };
                if phase == "fires" {
                    fired.insert(alert.clone());
                }
                phases.entry(alert).or_default().insert(phase);
            }
        }
    }
    let all = BTreeSet::from(["waits", "fires", "clears"]);
    for alert in alerts() {
        let seen = phases.remove(&alert.name).unwrap_or_default();
        assert_eq!(seen, all, "{}: phases tested in {TESTS}", alert.name);
    }
    assert!(phases.is_empty(), "{TESTS} has tests of alerts that do not exist: {phases:?}");
}

/// `every_alert_fires_and_clears` derives the phases of an alert from this order.
#[test]
fn test_cases_are_ordered_by_time() {
    for file in test_files() {
        for test in list(&yaml(&file)["tests"]) {
            let times = list(&test["alert_rule_test"]).iter().map(|case| minutes(&text(&case["eval_time"])));
            assert!(times.is_sorted(), "{file}: {}", test["alert_rule_test"]);
        }
    }
}

#[test]
fn every_alert_has_annotations_and_a_runbook() {
    for Alert { name, rule } in alerts() {
        let severity = text(&rule["labels"]["severity"]);
        assert!(["critical", "warning", "info"].contains(&&*severity), "{name}: severity {severity}");
        for annotation in ["summary", "description"] {
            assert!(!text(&rule["annotations"][annotation]).is_empty(), "{name} has no {annotation}");
        }
        assert!(
            !text(&rule["annotations"]["summary"]).contains("{{"),
            "{name}: the summary must not contain template expressions"
        );
        assert_eq!(
            text(&rule["annotations"]["runbook_url"]),
            format!("https://portico.dev/{RUNBOOKS}/{name}.html"),
            "{name}"
        );
        let page = format!("{RUNBOOKS}/{name}.md");
        let page = fs::read_to_string(root().join(&page)).unwrap_or_else(|_| panic!("there is no {page}"));
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [&*format!("# {name}"), "## What it means", "## How to look", "## What to do"];
        assert_eq!(headings, expected, "{name}");
    }
}

#[test]
fn runbook_index_lists_all_alerts() {
    let index = fs::read_to_string(root().join(RUNBOOKS).join("README.md")).unwrap();
    let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("| [")).collect();
    let row = |Alert { name, rule }: &Alert| {
        let (severity, summary) = (text(&rule["labels"]["severity"]), text(&rule["annotations"]["summary"]));
        format!("| [{name}]({name}.md) | {severity} | {summary} |")
    };
    assert_eq!(listed, alerts().iter().map(row).collect::<Vec<_>>());
    let pages: BTreeSet<String> = files(RUNBOOKS).into_iter().filter(|name| name != "README.md").collect();
    assert_eq!(pages, alerts().iter().map(|alert| format!("{}.md", alert.name)).collect());
}

/// tests/quickstart.rs and tests/cluster.rs compare docs/metrics.md with the program.
#[test]
fn queried_metrics_are_documented() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let documented: BTreeSet<String> = metrics(&read("docs/metrics.md")).collect();
    let pages = files(RUNBOOKS).into_iter().map(|name| format!("{RUNBOOKS}/{name}"));
    let dashboards = files(DASHBOARDS).into_iter().map(|name| format!("{DASHBOARDS}/{name}"));
    for path in pages.chain(dashboards).chain([RULES.to_owned()]) {
        let unknown: Vec<String> = metrics(&read(&path)).filter(|name| !documented.contains(name)).collect();
        assert!(unknown.is_empty(), "{path} queries {unknown:?}, which docs/metrics.md does not document");
    }
}

/// Names of Portico's metric families in a text, without the suffixes that the samples of histograms have.
fn metrics(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let words = words.filter(|word| word.starts_with("portico_"));
    words.map(|word| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word).to_owned()
    })
}

struct Alert {
    name: String,
    rule: Value,
}

fn alerts() -> Vec<Alert> {
    let rules = yaml(RULES);
    let rules = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]));
    let alerts: Vec<_> = rules.map(|rule| Alert { name: text(&rule["alert"]), rule: rule.clone() }).collect();
    assert!(!alerts.is_empty(), "{RULES} has no alerts");
    alerts
}

fn test_files() -> Vec<String> {
    files(TESTS).into_iter().map(|name| format!("{TESTS}/{name}")).collect()
}

fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; scripts/setup.sh test installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {}\n{out}{err}", arguments.join(" "));
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_else(|| panic!("{value} is not a list"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn minutes(time: &str) -> u32 {
    time.strip_suffix('m')
        .and_then(|minutes| minutes.parse().ok())
        .unwrap_or_else(|| panic!("{time} is not a number of minutes"))
}
