//! `scripts/test.sh changed`: which crates and suites a change can reach, and the table of suites in
//! docs/development/tests.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Checkout;
use crate::root;

/// A workspace in which the program needs `proxy` and `store`, both need `base`, and the tests of the harness need the
/// program. Each package but `base` and `store` reads a file.
const FILES: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[package]\nname = \"portico\"\n\n[[test]]\nname = \"tidy\"\n\n[[test]]\nname = \"proxy\"\n\n\
         [workspace.dependencies]\nportico-none = { path = \"none\" }\n\n\
         [dependencies]\n# A comment.\nportico-proxy = { path = \"crates/proxy\" }\nportico-store.workspace = true\n",
    ),
    ("benches/load/Cargo.toml", "[package]\nname = \"portico-load\"\n\n[dependencies]\nbytes = \"1\"\n"),
    ("benches/load/src/lib.rs", "const COSTS: &str = include_str!(\"../../../docs/costs.md\");"),
    ("crates/base/Cargo.toml", "[package]\nname = \"portico-base\"\n"),
    ("crates/base/src/lib.rs", "pub mod base;"),
    (
        "crates/proxy/Cargo.toml",
        "[package]\nname = \"portico-proxy\"\n\n[dependencies.portico-base]\npath = \"../base\"\n",
    ),
    ("crates/proxy/src/lib.rs", "const PAGE: &str = include_str!(\"../../../docs/listening.md\");"),
    (
        "crates/store/Cargo.toml",
        "[package]\nname = \"portico-store\"\n\n[dev-dependencies]\nportico-base = { workspace = true }\n",
    ),
    ("e2e/Cargo.toml", "[package]\nname = \"portico-e2e\"\n\n[dev-dependencies]\nportico = { path = \"..\" }\n"),
    ("e2e/src/lib.rs", "const FEATURES: &str = \"features.json\";"),
    ("src/lib.rs", "const PAGE: &str = concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/docs/errors.md\");"),
    ("tests/library.rs", "mod compile;\nmod golden;\n"),
    ("tests/process.rs", "mod harness;\nmod serving;\n"),
    ("e2e/tests/e2e.rs", "mod helm;\nmod netns;\nmod node;\n"),
    (
        "docs/development/tests.md",
        "| a change in | suites |\n| --- | --- |\n| `proxy::`, `upstream::tls::` | `proxy`, `baseline` |\n\
         | `proxy::http::` | `serving` |\n| `charts`, `Cargo.toml` | `compile`, `e2e-helm` |\n| `LICENSE` | |\n\n\
         | another | table |\n| --- | --- |\n| `new` | `compile` |\n",
    ),
    (".gitignore", "target\ncache\nstarted\n"),
];

fn workspace() -> Checkout {
    let checkout = Checkout { folder: tempfile::tempdir().unwrap() };
    for script in ["changed.sh", "suite-report.sh", "suites.sh", "test.sh"] {
        let path = format!("scripts/{script}");
        checkout.write(&path, &fs::read_to_string(root().join(&path)).unwrap());
    }
    for (file, text) in FILES {
        checkout.write(file, text);
    }
    checkout
}

/// Calls a function of the script in a folder, with these lines as its input.
fn call(folder: &Path, function: &str, lines: &str) -> String {
    let script = format!(
        "set -uo pipefail\nsource scripts/suites.sh\nsource scripts/changed.sh\nprintf '%s\\n' \"$1\" | {function}"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", lines]).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{function}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn change_reaches_the_unit_tests_of_all_crates_that_depend_on_it() {
    const FROM_PROXY: &str = ".|portico|depends on portico-proxy\n";
    const FROM_PROGRAM: &str = "e2e|portico-e2e|depends on portico\n";
    let checkout = workspace();
    let reached = |files: &str| call(checkout.folder.path(), "reached_crates", files);
    for (files, expected) in [
        ("src/main.rs", format!(".|portico|src/main.rs\n{FROM_PROGRAM}")),
        (
            "crates/proxy/src/http/mod.rs\ncrates/proxy/src/lib.rs",
            format!("{FROM_PROXY}crates/proxy|portico-proxy|crates/proxy/src/http/mod.rs\n{FROM_PROGRAM}"),
        ),
        (
            "crates/base/Cargo.toml",
            format!(
                "{FROM_PROXY}crates/base|portico-base|crates/base/Cargo.toml\n\
                 crates/proxy|portico-proxy|depends on portico-base\n\
                 crates/store|portico-store|depends on portico-base\n{FROM_PROGRAM}"
            ),
        ),
        ("benches/load/src/lib.rs", "benches/load|portico-load|benches/load/src/lib.rs\n".to_owned()),
        ("e2e/tests/helm.rs\ntests/compile.rs\ndocs/other.md", String::new()),
        ("docs/listening.md", format!("{FROM_PROXY}crates/proxy|portico-proxy|docs/listening.md\n{FROM_PROGRAM}")),
        ("docs/errors.md", format!(".|portico|docs/errors.md\n{FROM_PROGRAM}")),
        ("docs/costs.md", "benches/load|portico-load|docs/costs.md\n".to_owned()),
        ("features.json", "e2e|portico-e2e|features.json\n".to_owned()),
    ] {
        assert_eq!(reached(files), expected, "{files}");
    }
    for file in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "rust-toolchain.toml", "fuzz/corpus/http1/a"] {
        assert_eq!(reached(file).lines().count(), 6, "{file} reaches all crates");
    }
}

#[test]
fn change_reaches_the_suites_of_its_rows_and_its_own_suite() {
    let checkout = workspace();
    for (files, expected) in [
        ("crates/proxy/src/proxy/http/mod.rs", "baseline|F\nproxy|F\nserving|F\n"),
        ("crates/any/src/proxy.rs", "baseline|F\nproxy|F\n"),
        ("crates/any/src/upstream/tls/mod.rs", "baseline|F\nproxy|F\n"),
        ("crates/upstream/src/upstream/mod.rs", "|F\n"),
        ("src/proxy_protocol.rs", "|F\n"),
        ("charts/portico/values.yaml", "compile|F\ne2e-helm|F\n"),
        ("crates/any/Cargo.toml", "compile|F\ne2e-helm|F\n"),
        ("LICENSE", ""),
        ("new", "|F\n"),
        ("tests/proxy/h2.rs", "proxy|F\n"),
        ("tests/serving.rs", "serving|F\n"),
        ("tests/harness/mod.rs", "|F\n"),
        ("e2e/tests/node/run.rs", "e2e-node|F\n"),
        ("e2e/tests/serving.rs", "|F\n"),
    ] {
        let reached = call(checkout.folder.path(), "reached_suites", files);
        assert_eq!(reached, expected.replace('F', files), "{files}");
    }
}

/// Runs `scripts/test.sh changed` without commands of suites, and returns its exit code, what it prints and the suites
/// that ran. The commands before it change the repository.
fn run(checkout: &Checkout, commands: &str, base: &str) -> (i32, String, String) {
    let script = format!(
        r#"
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com
        export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
        [ -e .git ] || git init --quiet --initial-branch=work
        rm -f started
        {commands}
        source <(sed '/^main /d; /^cd /d' scripts/test.sh)
        suite_command() {{
            echo "$1" >>started
            case "$1" in
                build) printf '%s\n' 'unit a .' 'unit b .' 'unit c crates/store' 'tidy d .' >"$executables" ;;
                unit) grep '^unit' "$executables" >>started ;;
            esac
        }}
        main changed {base}
        "#
    );
    let output = checkout.run("timeout", &["60", "bash", "-c", &script]);
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    let started = fs::read_to_string(checkout.path("started")).unwrap_or_default();
    (output.status.code().unwrap(), printed, started.lines().collect::<Vec<_>>().join(" "))
}

#[test]
fn only_reached_tests_run_and_the_others_are_named() {
    let checkout = workspace();
    let commit = "git add . && git commit --quiet --message 'A title'";
    let (code, printed, started) = run(&checkout, commit, "");
    assert_eq!((code, &*started), (0, ""), "{printed}");
    assert!(printed.contains("Nothing has changed since ") && printed.ends_with(", \"A title\".\n"), "{printed}");
    let (code, printed, _) = run(&checkout, "", "gone");
    assert!(code == 2 && printed.contains("there is no commit gone"), "{code}: {printed}");

    // What is committed on the branch, what is not, and a file that is new.
    let changes = format!(
        "git update-ref refs/remotes/origin/main HEAD\nmkdir -p crates/proxy/src/proxy\n\
         echo '//' >crates/proxy/src/proxy/a.rs\necho '//' >e2e/tests/netns.rs\n{commit}\n\
         echo >>LICENSE\nmkdir -p new\necho >new/a"
    );
    let (code, printed, started) = run(&checkout, &changes, "");
    assert_eq!((code, &*started), (0, "format build tidy unit unit a . unit b . e2e-netns proxy"), "{printed}");
    for line in [
        "Files that have changed since ",
        ": 4\n",
        &format!("  {:36} depends on portico-proxy\n", "unit tests of portico"),
        &format!("  {:36} crates/proxy/src/proxy/a.rs\n", "unit tests of portico-proxy"),
        &format!("  {:36} depends on portico\n", "unit tests of portico-e2e"),
        &format!("  {:36} crates/proxy/src/proxy/a.rs\n", "proxy"),
        // Its tests have no control plane.
        &format!("  {:36} e2e/tests/netns.rs\n", "e2e-netns"),
        "  suites that need the image or a control plane: scripts/test.sh run image-root baseline\n",
        "  suites for new/a, for which the table has no row\n",
        "tests.md: check-examples compile dependencies doctests e2e-helm e2e-node serving\n",
    ] {
        assert!(printed.contains(line), "`{line}` is missing in\n{printed}");
    }
    assert!(printed.ends_with("\n6 passed, 0 failed\n"), "{printed}");

    // Since the last commit, nothing that is compiled has changed.
    let (code, printed, started) = run(&checkout, "", "HEAD");
    assert_eq!((code, &*started), (0, "format tidy"), "{printed}");
}

#[test]
fn table_has_a_row_for_every_file_and_only_names_suites() {
    let suites = call(root(), "suites_of_tests", "");
    let suites: BTreeSet<&str> = suites.lines().collect();
    let rows = call(root(), "suite_rows", "");
    assert!(rows.lines().count() > 50, "{rows}");
    for row in rows.lines() {
        let (pattern, names) = row.split_once('|').unwrap();
        for name in names.split_whitespace() {
            assert!(suites.contains(name), "docs/development/tests.md, `{pattern}`: there is no suite `{name}`");
        }
    }

    // A file in each folder of the root, in each folder in which modules and suites are, and in those of the crates.
    let mut files = Vec::new();
    for folder in ["", "src/", "tests/", "e2e/", "e2e/tests/"] {
        files.extend(files_of(folder));
    }
    for folder in files_of("crates/") {
        let Some(folder) = folder.strip_suffix("any") else { continue };
        files.push(format!("{folder}Cargo.toml"));
        files.extend(files_of(&format!("{folder}src/")));
    }
    files.retain(|file| !["crates/any", "src/any", "tests/any", "e2e/any", "e2e/tests/any"].contains(&&**file));
    assert!(files.iter().any(|file| file == "docs/any"));
    assert!(files.iter().any(|file| file.ends_with("crates/proxy/src/proxy/any")));
    let reached = call(root(), "reached_suites", &files.join("\n"));
    let unknown: Vec<&str> = reached.lines().filter_map(|line| line.strip_prefix('|')).collect();
    assert!(unknown.is_empty(), "docs/development/tests.md has no row for {unknown:?} in the table of suites");
}

/// The files in a folder of the checkout, and one file for each folder in it, without hidden ones and what is compiled.
fn files_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap());
    let paths = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let file = if entry.path().is_dir() { format!("{folder}{name}/any") } else { format!("{folder}{name}") };
        (!name.starts_with('.') && name != "target").then_some(file)
    });
    paths.collect()
}
