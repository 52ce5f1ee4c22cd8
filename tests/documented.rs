//! The user guide against the program: every verdict has its row, every flag that is mentioned exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portico::compile::verdict::{Bearer, Code};

#[test]
fn every_verdict_has_its_row_and_every_row_its_verdict() {
    let said: BTreeSet<(String, String, String)> = Code::ALL
        .iter()
        .map(|code| {
            let status = if code.status() { "True" } else { "False" };
            let condition = format!("{}={status}", code.condition());
            (heading(code.bearer()).to_owned(), condition, code.reason().to_owned())
        })
        .collect();
    let documented = rows(&fs::read_to_string(root().join("docs/conditions.md")).unwrap());
    let missing: Vec<_> = said.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&said).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/conditions.md lacks {missing:#?} and has in vain {stale:#?}");
}

#[test]
fn every_flag_that_a_document_mentions_exists() {
    let known = flags_of_the_program();
    let mut findings = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (index, line) in text.lines().enumerate() {
            let unknown = |flag: &String| !known.contains(flag) && !OF_OTHER_PROGRAMS.contains(&flag.as_str());
            for flag in flags(line).filter(unknown) {
                let document = path.strip_prefix(root()).unwrap().display();
                findings.push(format!("{document}:{}: portico has no {flag}", index + 1));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// Mentioned beside a command of their own.
const OF_OTHER_PROGRAMS: &[&str] = &[
    "--validate",
    "--cert",
    "--key",
    "--dry-run",
    "--http2-prior-knowledge",
    // cargo.
    "--release",
    "--features",
    "--test",
    "--nocapture",
    // The load generator.
    "--rounds",
    "--seconds",
    "--case",
    "--nginx",
    "--idle",
    "--rate",
    "--json",
];

fn heading(bearer: Bearer) -> &'static str {
    match bearer {
        Bearer::GatewayClass => "GatewayClass",
        Bearer::Gateway => "Gateway",
        Bearer::Listener => "Listener",
        Bearer::RouteParent => "Route, for each parent",
    }
}

/// Heading, condition with its status, and reason of each table row. A row may have several conditions.
fn rows(document: &str) -> BTreeSet<(String, String, String)> {
    let mut rows = BTreeSet::new();
    let mut heading = "";
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        }
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        if let (true, Some(conditions), Some(reason)) = (line.starts_with('|'), cells.next(), cells.next()) {
            for condition in conditions.split(", ").filter(|condition| condition.contains('=')) {
                rows.insert((heading.to_owned(), condition.to_owned(), reason.to_owned()));
            }
        }
    }
    rows
}

fn flags_of_the_program() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for command in ["run", "check", "echo", "version", "completion"] {
        let output = Command::new(env!("CARGO_BIN_EXE_portico")).args([command, "--help"]).output();
        let output = output.expect("cargo built the program").stdout;
        known.extend(flags(&String::from_utf8(output).expect("help is UTF-8")));
    }
    assert!(known.contains("--manifests"), "portico run --help shows {known:?}");
    known
}

/// Words that begin with two hyphens, without a value behind them.
fn flags(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && !word.trim_matches('-').is_empty()).map(str::to_owned)
}

fn documents() -> Vec<PathBuf> {
    let mut documents = vec![root().join("README.md"), root().join("examples/quickstart/README.md")];
    let folder = fs::read_dir(root().join("docs")).expect("docs is a folder");
    documents.extend(folder.map(|entry| entry.expect("the folder was opened").path()));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
