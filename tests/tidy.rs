//! House rules that a program can check. Each finding names the file, the line and what to do.

#[path = "tidy/citations.rs"]
mod citations;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/language.rs"]
mod language;
#[path = "tidy/lock.rs"]
mod lock;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/tokens.rs"]
mod tokens;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/type_names.rs"]
mod type_names;
#[path = "tidy/width.rs"]
mod width;
#[path = "tidy/words.rs"]
mod words;

use std::path::Path;
use std::process::Command;

use imports::{EVERYTHING, Row};
use tree::File;

/// Which module may import what of ours: a whole module, or only the item that is written out. Modules not named are
/// off limits, so a new edge is a change of this table, to be argued for like any other change of the design.
const IMPORTS: &[Row] = &[
    // Control side: from objects to a snapshot and verdicts.
    ("api", &[]),
    ("schema", &["api", "diagnostic"]),
    ("store", &["api"]),
    ("k8s", &["api", "diagnostic", "store"]),
    ("manifests", &["api", "diagnostic", "schema", "store"]),
    ("compile", &["api", "diagnostic", "plugin_api", "snapshot", "store", "upstream"]),
    // What only the running proxy knows comes in as values of its own, so that the two sides stay apart.
    ("status", &["api", "compile::verdict", "diagnostic", "k8s", "store::Malformed"]),
    ("report", &["api", "compile::verdict", "diagnostic", "manifests"]),
    // Request side: it never sees an object.
    ("upstream", &[]),
    ("snapshot", &["plugin_api", "upstream"]),
    ("proxy", &["plugin_api", "snapshot", "upstream"]),
    // Plugins know the contract, and neither each other nor who runs them.
    // Servers that plugins name are held against the same list as backends.
    ("plugin_api", &["diagnostic", "upstream::Loopback", "upstream::NoBackend"]),
    ("plugins", &["diagnostic", "plugin_api"]),
    // Edges of the process.
    // The fields of the access log are named by a flag, which is to refuse others at once.
    (
        "args",
        &[
            "api::core::ServiceType",
            "api::names",
            "proxy::access_log::Field",
            "quantity",
            "schema",
            "telemetry",
            "version",
        ],
    ),
    ("admin", &["http_server", "metrics::Exposition"]),
    ("echo", &["http_server", "quantity"]),
    ("http_server", &[]),
    ("diagnostic", &[]),
    ("quantity", &[]),
    ("metrics", &["version"]),
    ("telemetry", &[]),
    ("ready", &[]),
    ("drain", &[]),
    ("version", &[]),
    // Wiring: knows everybody, and nobody knows it.
    ("app", EVERYTHING),
    ("main", EVERYTHING),
];

/// Folders and files whose comments, names and messages are still in the project's first language, which few readers
/// know. Rules of language are for all others. This list gets shorter and never longer.
const NOT_TRANSLATED: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benches/",
    "charts/",
    "docs/",
    "e2e/",
    "examples/",
    "manifests/",
    "scripts/",
    "src/",
    "tests/",
    "Cargo.toml",
    "Makefile",
    "Dockerfile",
    "deny.toml",
    ".cargo/",
    ".ci/",
];

#[test]
fn modules_import_only_what_the_table_allows() {
    tree::expect_none(imports::findings(&checkout(), IMPORTS));
}

#[test]
fn source_files_say_what_they_are_about_and_stay_short() {
    let files = checkout();
    for line in sources::long_files(&files) {
        println!("{line}");
    }
    tree::expect_none(sources::findings(&files));
}

#[test]
fn no_file_holds_promises_machine_paths_or_registry_hosts() {
    tree::expect_none(words::findings(&checkout()));
}

#[test]
fn documents_lead_to_things_that_exist() {
    tree::expect_none(documents::findings(&checkout()));
}

#[test]
fn prose_is_plain_and_cites_what_a_clone_has() {
    let files = checkout();
    let mut findings = language::findings(&files);
    findings.extend(citations::findings(&files));
    findings.extend(type_names::findings(&files));
    findings.extend(width::findings(&files));
    let is_open = |finding: &tree::Finding| NOT_TRANSLATED.iter().any(|open| finding.file.starts_with(open));
    let (open, findings): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_open);
    println!("{} findings in what is not translated yet", open.len());
    tree::expect_none(findings);
}

#[test]
fn the_lock_file_has_one_of_each_and_only_releases() {
    tree::expect_none(lock::findings(&checkout()));
}

#[test]
fn make_help_lists_every_target() {
    let files = checkout();
    let makefile = files.iter().find(|file| file.path == "Makefile").expect("the Makefile is in the root");
    let output = Command::new("make").args(["--silent", "help"]).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start make: {error}; install it"));
    let help = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> =
        help.lines().filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next()).collect();
    let targets = documents::targets(makefile);
    assert!(!targets.is_empty());
    for target in targets {
        assert!(
            listed.contains(&target),
            "Makefile: `{target}` is not in `make help`; describe it behind ## in its rule"
        );
    }
}

fn checkout() -> Vec<File> {
    tree::read(root())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
