//! The image: the Dockerfile is held to the files that it takes its facts from, and what goes in is the same wherever it is
//! built. Nothing here builds an image, which takes a container engine; the root folder is built,
//! started and tried by the tests that need a cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "image/small.rs"]
mod small;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use small::Small;

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

/// What `make image-reproducible` does with Portico, which takes two builds of a release: here with a program of a few lines.
#[test]
fn the_root_folder_is_the_same_wherever_and_whenever_it_is_built() {
    let (one, another) = (Small::at("one"), Small::at("another/much-deeper"));
    assert_eq!(one.checksum(), another.checksum());
    let said = one.says();
    let lines: Vec<&str> = said.lines().collect();
    let [written, native] = lines[..] else { panic!("{said}") };
    assert!(written.starts_with("/portico/target/") && written.ends_with("/out/written.rs"), "{said}");
    assert_eq!(native, "/portico/native.c, Jan  1 1970", "{said}");
}

#[test]
fn a_program_that_names_the_folder_of_its_build_is_refused() {
    let script = "scripts/image-root.sh";
    for (what, file, from, to) in [
        ("a variable of the build", "src/main.rs", "written::place()", "env!(\"CARGO_MANIFEST_DIR\")"),
        ("places in Rust", script, "${maps[*]/#/--remap-path-prefix=}", ""),
        ("places in C", script, "${maps[*]/#/-ffile-prefix-map=}", "-O1"),
    ] {
        let small = Small::at("somewhere");
        small.change(file, from, to);
        let output = small.build();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{what}");
        assert!(said.contains("so that it would differ where it is built elsewhere"), "{what}: {said}");
    }
}

/// By the part of the script that looks for it, in folders that a test cannot have.
#[test]
fn the_folder_of_a_build_is_told_from_words_that_begin_like_it() {
    let script = read("scripts/image-root.sh");
    let start = script.find("forbid_paths() {").unwrap();
    let function = &script[start..start + script[start..].find("\n}\n").unwrap() + 3];
    let file = tempfile::NamedTempFile::new().unwrap();
    for (folder, content, is_named) in [
        ("/app", &b"\0/app/src/main.rs\0"[..], true),
        ("/app", b"\0/app\0next", true),
        ("/app", b"\xff/app", true),
        ("/app", b"\0/apps/v1\0", false),
        ("/build", b"portico/build_info\0", false),
        // Strings stand side by side.
        ("/srv/deep/app", b"before/srv/deep/appafter", true),
        ("/srv/deep/a.b", b"\0/srv/deep/axb/src\0", false),
        ("/srv/deep/a[b]^+c", b"\0/srv/deep/a[b]^+c/src\0", true),
    ] {
        fs::write(file.path(), content).unwrap();
        let call = format!("{function}\nPWD=$1 CARGO_HOME=/nobody/has-this\nforbid_paths \"$2\"");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &call, "bash", folder]).arg(file.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let told = said.contains(&format!("names {folder}, so that it would differ"));
        let what = content.escape_ascii();
        assert_eq!((output.status.success(), told), (!is_named, is_named), "{folder} in {what}: {said}");
    }
}

/// `scripts/image-root.sh` refuses a program that names the folder; `/src` is in every path of a crate.
#[test]
fn it_builds_in_a_folder_that_no_path_of_the_program_names() {
    let folder = after("WORKDIR ");
    for path in
        ["/portico/src/main.rs", "/cargo/registry/src/index/name-1.0.0/src/lib.rs", "/rust/lib/rustlib/src/rust"]
    {
        assert!(!path.contains(&folder), "{path} has {folder}");
    }
    assert!(dockerfile().contains(&format!("COPY --from=build {folder}/target/image-root/ /")));
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
