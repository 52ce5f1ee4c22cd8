//! The Dockerfile, held to the files that it takes its facts from. Nothing here builds an image: that takes a container engine,
//! and what goes in is built, started and tried by the tests that need a cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn it_builds_with_the_toolchain_that_is_tested() {
    let toolchain = read("rust-toolchain.toml");
    let tested = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert_eq!(
        after("ARG RUST_VERSION="),
        tested,
        "Dockerfile and rust-toolchain.toml name different versions of Rust"
    );
}

#[test]
fn it_runs_as_the_user_that_the_root_folder_and_the_manifests_know() {
    let script = read("scripts/image-root.sh");
    let number = script.lines().find_map(|line| line.strip_prefix("user=")).unwrap();
    let number = number.split_whitespace().next().unwrap();
    assert_eq!(after("USER "), format!("{number}:{number}"));
    let deployment = read("manifests/base/deployment.yaml");
    assert!(
        deployment.contains(&format!("runAsUser: {number}")),
        "manifests/base/deployment.yaml runs as somebody else"
    );
}

#[test]
fn every_script_that_it_calls_goes_into_the_build() {
    let dockerfile = dockerfile();
    let called: Vec<&str> = dockerfile.split_whitespace().filter(|word| word.starts_with("scripts/")).collect();
    assert!(called.contains(&"scripts/image-root.sh"), "{called:?}");
    let ignored = read(".dockerignore");
    for script in called {
        assert!(root().join(script).is_file(), "Dockerfile calls {script}, which is not there");
        let left_out = ignored.lines().any(|pattern| script.split('/').next() == Some(pattern.trim_matches('/')));
        assert!(!left_out, ".dockerignore keeps {script} out of the build");
    }
}

/// The rest of the first line of the Dockerfile that starts so.
fn after(start: &str) -> String {
    let dockerfile = dockerfile();
    let line = dockerfile.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("no line of the Dockerfile starts with {start:?}")).to_owned()
}

/// Without its remarks.
fn dockerfile() -> String {
    read("Dockerfile").lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
