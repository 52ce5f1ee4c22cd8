//! Checks the rules for sources and documents of this repository. Each finding names the file, the line and what to do.

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
#[path = "tidy/recipes.rs"]
mod recipes;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/test_programs.rs"]
mod test_programs;
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

/// The architecture: the modules, or items of modules, that each module may import. A new import between modules needs
/// a change of this table, with reasons like any change of the design.
const IMPORTS: &[Row] = &[
    // Control side: from objects to a snapshot and verdicts.
    ("api", &[]),
    ("schema", &["api", "diagnostic"]),
    ("store", &["api"]),
    ("k8s", &["api", "diagnostic", "store"]),
    ("manifests", &["api", "diagnostic", "schema", "store"]),
    ("compile", &["api", "diagnostic", "plugin_api", "snapshot", "store", "upstream"]),
    // The state of the running proxy is passed to these modules as plain values, so that they need not import the
    // request side.
    ("status", &["api", "compile::verdict", "diagnostic", "k8s", "store::Malformed"]),
    ("report", &["api", "compile::verdict", "diagnostic", "manifests"]),
    // Request side: it never sees an object.
    ("upstream", &[]),
    ("snapshot", &["plugin_api", "upstream"]),
    ("proxy", &["plugin_api", "snapshot", "upstream"]),
    // Plugins import neither each other nor the proxy. The policy for loopback addresses also applies to servers that
    // plugins connect to.
    ("plugin_api", &["diagnostic", "upstream::LoopbackPolicy", "upstream::BlockedAddress"]),
    ("plugins", &["diagnostic", "plugin_api"]),
    // Edges of the process.
    // Values of a flag are the fields of the access log, and defaults of flags are limits of the proxy.
    (
        "args",
        &[
            "api::core::ServiceType",
            "api::names",
            "proxy::ProxyLimits",
            "proxy::access_log::AccessLogField",
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
    // Wiring: imports every module, and no module imports it.
    ("app", EVERYTHING),
    ("main", EVERYTHING),
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
fn recipes_show_the_code_as_it_is() {
    tree::expect_none(recipes::findings(&checkout()));
}

#[test]
fn prose_is_plain_and_cites_what_a_clone_has() {
    let files = checkout();
    let mut findings = language::findings(&files);
    findings.extend(citations::findings(&files));
    findings.extend(type_names::findings(&files));
    findings.extend(width::findings(&files));
    tree::expect_none(findings);
}

#[test]
fn every_test_file_belongs_to_a_program() {
    tree::expect_none(test_programs::findings(&checkout()));
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
            "Makefile: `{target}` is not in `make help`; add a description after `##` to its rule"
        );
    }
}

fn checkout() -> Vec<File> {
    tree::read(root())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
