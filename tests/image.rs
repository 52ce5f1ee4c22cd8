//! The container image: the Dockerfile matches the files with the same settings, and the root folder is reproducible.
//! No image is built here because that needs a container engine; tests with a cluster build and run the root folder.

mod small_checkout;

use std::fs;
use std::process::Command;

use small_checkout::SmallCheckout;

use crate::root;

#[test]
fn image_uses_the_tested_toolchain() {
    let toolchain = read("rust-toolchain.toml");
    let tested = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert_eq!(
        dockerfile_line_after("ARG RUST_VERSION="),
        tested,
        "Dockerfile and rust-toolchain.toml name different versions of Rust"
    );
}

#[test]
fn image_user_matches_root_folder_and_manifests() {
    let script = read("scripts/image-root.sh");
    let user = script.lines().find_map(|line| line.strip_prefix("user=")).unwrap();
    let user = user.split_whitespace().next().unwrap();
    assert_eq!(dockerfile_line_after("USER "), format!("{user}:{user}"));
    let deployment = read("manifests/base/deployment.yaml");
    assert!(deployment.contains(&format!("runAsUser: {user}")), "manifests/base/deployment.yaml has another user");
}

#[test]
fn called_scripts_are_in_the_build_context() {
    let dockerfile = dockerfile();
    let called: Vec<&str> = dockerfile.split_whitespace().filter(|word| word.starts_with("scripts/")).collect();
    assert!(called.contains(&"scripts/image-root.sh"), "{called:?}");
    let ignored = read(".dockerignore");
    for script in called {
        assert!(root().join(script).is_file(), "Dockerfile calls {script}, which does not exist");
        let is_ignored = ignored.lines().any(|pattern| script.split('/').next() == Some(pattern.trim_matches('/')));
        assert!(!is_ignored, ".dockerignore keeps {script} out of the build");
    }
}

/// Like `make image-reproducible`, but with a small program instead of two release builds of Portico.
#[test]
fn root_folder_is_reproducible() {
    let (first, second) = (SmallCheckout::create("one"), SmallCheckout::create("another/much-deeper"));
    assert_eq!(first.checksum(), second.checksum());
    let output = first.output();
    let lines: Vec<&str> = output.lines().collect();
    let [generated, c_code] = lines[..] else { panic!("{output}") };
    assert!(generated.starts_with("/portico/target/") && generated.ends_with("/out/generated.rs"), "{output}");
    assert_eq!(c_code, "/portico/native.c, Jan  1 1970", "{output}");
}

/// The compiler does not use LLVM's linker for other architectures.
#[cfg(target_arch = "x86_64")]
#[test]
fn recorded_functions_are_next_to_each_other() {
    let checkout = SmallCheckout::create("ordered");
    checkout.checksum();
    let names = Command::new("nm").arg("--numeric-sort").arg(checkout.program()).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    let functions = names.lines().filter_map(|line| line.split_once("_ZN7portico")?.1.split("17h").next());
    let functions: Vec<&str> = functions.collect();
    assert_eq!(functions[..2], ["5third", "5first"], "{functions:?}");
    assert!(functions.contains(&"6second"), "{functions:?}");
}

#[test]
fn program_with_its_build_path_is_rejected() {
    let script = "scripts/image-root.sh";
    for (case, file, original, replacement) in [
        ("a variable of cargo", "src/main.rs", "generated::source_path()", "env!(\"CARGO_MANIFEST_DIR\")"),
        ("paths in Rust code", script, "${maps[*]/#/--remap-path-prefix=}", ""),
        ("paths in C code", script, "${maps[*]/#/-ffile-prefix-map=}", "-O1"),
    ] {
        let checkout = SmallCheckout::create("somewhere");
        checkout.replace(file, original, replacement);
        let output = checkout.build();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{case}");
        assert!(stderr.contains("so builds on other machines would differ"), "{case}: {stderr}");
    }
}

/// Tests a function of the script with folders that a test cannot create.
#[test]
fn build_path_is_distinguished_from_similar_strings() {
    let script = read("scripts/image-root.sh");
    let start = script.find("forbid_paths() {").unwrap();
    let function = &script[start..start + script[start..].find("\n}\n").unwrap() + 3];
    let file = tempfile::NamedTempFile::new().unwrap();
    for (folder, content, is_contained) in [
        ("/app", &b"\0/app/src/main.rs\0"[..], true),
        ("/app", b"\0/app\0next", true),
        ("/app", b"\xff/app", true),
        ("/app", b"\0/apps/v1\0", false),
        ("/build", b"portico/build_info\0", false),
        // Strings in a binary are adjacent without separators.
        ("/srv/deep/app", b"before/srv/deep/appafter", true),
        ("/srv/deep/a.b", b"\0/srv/deep/axb/src\0", false),
        ("/srv/deep/a[b]^+c", b"\0/srv/deep/a[b]^+c/src\0", true),
    ] {
        fs::write(file.path(), content).unwrap();
        let call = format!("{function}\nPWD=$1 CARGO_HOME=/not-contained/cargo\nforbid_paths \"$2\"");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &call, "bash", folder]).arg(file.path());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_reported =
            stderr.contains(&format!("contains the path {folder}, so builds on other machines would differ"));
        let text = content.escape_ascii();
        assert_eq!(
            (output.status.success(), is_reported),
            (!is_contained, is_contained),
            "{folder} in {text}: {stderr}"
        );
    }
}

/// `scripts/image-root.sh` rejects programs that contain this folder; `/src` occurs in every path of a crate.
#[test]
fn build_folder_is_no_substring_of_program_paths() {
    let folder = dockerfile_line_after("WORKDIR ");
    for path in
        ["/portico/src/main.rs", "/cargo/registry/src/index/name-1.0.0/src/lib.rs", "/rust/lib/rustlib/src/rust"]
    {
        assert!(!path.contains(&folder), "{path} contains {folder}");
    }
    assert!(dockerfile().contains(&format!("COPY --from=build {folder}/target/image-root/ /")));
}

/// The rest of the first line in the Dockerfile with this prefix.
fn dockerfile_line_after(prefix: &str) -> String {
    let dockerfile = dockerfile();
    let line = dockerfile.lines().find_map(|line| line.strip_prefix(prefix));
    line.unwrap_or_else(|| panic!("no line of the Dockerfile starts with {prefix:?}")).to_owned()
}

/// The Dockerfile without comments.
fn dockerfile() -> String {
    read("Dockerfile").lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}
