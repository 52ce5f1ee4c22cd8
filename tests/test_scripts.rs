//! The scripts that run the tests: what they report of a suite, and the caches of compiled dependencies and programs.

mod build_times;
mod changed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::root;

/// A checkout with the scripts, and a home of its own.
struct Checkout {
    folder: TempDir,
}

impl Checkout {
    fn new() -> Checkout {
        let checkout = Checkout { folder: tempfile::tempdir().unwrap() };
        for file in [
            "Cargo.toml",
            "Cargo.lock",
            ".cargo/config.toml",
            "rust-toolchain.toml",
            "benches/load/Cargo.toml",
            "crates/objects/Cargo.toml",
            "e2e/Cargo.toml",
            "scripts/cache-files.sh",
            "scripts/changed.sh",
            "scripts/dependency-cache.sh",
            "scripts/image-cache.sh",
            "scripts/image-compiler.sh",
            "scripts/image-root.sh",
            "scripts/suite-report.sh",
            "scripts/suites.sh",
            "scripts/workspace-cache.sh",
        ] {
            checkout.write(file, &fs::read_to_string(root().join(file)).unwrap());
        }
        checkout
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env("XDG_CACHE_HOME", self.path("cache"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn dependency_cache(&self, action: &str) -> String {
        let output = self.run("bash", &["scripts/dependency-cache.sh", action]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{action}: {errors}");
        errors
    }

    /// Calls the cache of the workspace's own crates as in scripts/same-path.sh.
    fn workspace_cache(&self, action: &str) -> String {
        let script = format!("PORTICO_SAME_PATH=yes bash scripts/workspace-cache.sh {action}");
        let output = self.run("bash", &["-c", &script]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{action}: {errors}");
        errors
    }

    /// Whether a file is older than a compiled one.
    fn is_older(&self, file: &str, compiled: &str) -> bool {
        let time = |file: &str| fs::metadata(self.path(file)).unwrap().modified().unwrap();
        time(file) < time(compiled)
    }

    /// Calls the cache of the program of the image, and returns whether it did what it should, and what it printed.
    fn image_cache(&self, action: &str) -> (bool, String) {
        let output = self.run("bash", &["scripts/image-cache.sh", action, "target/portico"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs suites whose command is this shell code, and returns what is reported.
    fn report(&self, suites: &str, code: &str) -> String {
        let script = format!(
            "set -uo pipefail\nsource scripts/suites.sh\nsource scripts/suite-report.sh\n\
             suite_command() {{\n{code}\n}}\nstart_run\nrun_suites {suites}\nfinish_run\n"
        );
        let output = self.run("bash", &["-c", &script]);
        format!("{}exit {}", String::from_utf8_lossy(&output.stdout), output.status.code().unwrap())
    }

    fn archives(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cache/portico/dependencies")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "tar")).collect()
    }
}

#[test]
fn dependencies_are_restored_without_the_workspace() {
    let checkout = Checkout::new();
    let of_dependencies = [
        "deps/libhyper-0123456789abcdef.rlib",
        "build/ring-0123456789abcdef/out/a.o",
        ".fingerprint/hyper-0123456789abcdef/lib-hyper",
    ];
    let of_workspace = [
        "deps/libportico-0123456789abcdef.rlib",
        "deps/proxy-0123456789abcdef",
        ".fingerprint/portico-load-0123456789abcdef/lib-portico_load",
    ];
    checkout.dependency_cache("restore");
    for file in of_dependencies.iter().chain(&of_workspace) {
        checkout.write(&format!("target/debug/{file}"), file);
    }
    checkout.dependency_cache("save");
    // An existing build is not replaced.
    checkout.write("target/debug/deps/libhyper-0123456789abcdef.rlib", "newer");
    checkout.dependency_cache("restore");
    assert_eq!(fs::read_to_string(checkout.path("target/debug/deps/libhyper-0123456789abcdef.rlib")).unwrap(), "newer");

    fs::remove_dir_all(checkout.path("target")).unwrap();
    checkout.dependency_cache("restore");
    for file in of_dependencies {
        assert_eq!(fs::read_to_string(checkout.path("target/debug").join(file)).unwrap(), file);
    }
    for file in of_workspace {
        assert!(!checkout.path("target/debug").join(file).exists(), "{file}");
    }
    assert!(!checkout.path("target/restored").exists());
}

#[test]
fn unusable_caches_cost_only_time() {
    let checkout = Checkout::new();
    let fingerprints = checkout.path("target/debug/.fingerprint");
    checkout.dependency_cache("restore");
    assert!(!fingerprints.exists(), "there is no cache yet");

    for folder in ["deps", "build", ".fingerprint"] {
        checkout.write(&format!("target/debug/{folder}/hyper-0a"), "compiled");
    }
    checkout.dependency_cache("save");
    let [archive] = &checkout.archives()[..] else { panic!("one archive is saved") };
    fs::remove_dir_all(checkout.path("target")).unwrap();
    let mut bytes = fs::read(archive).unwrap();
    bytes[600] ^= 1;
    fs::write(archive, bytes).unwrap();
    let message = checkout.dependency_cache("restore");
    assert!(message.contains("is corrupt, so it is removed"), "{message}");
    assert!(!fingerprints.exists() && !archive.exists());

    // What an interrupted call left does not prevent the next one.
    for folder in ["deps", "build", ".fingerprint"] {
        checkout.write(&format!("target/debug/{folder}/hyper-0a"), "compiled");
    }
    checkout.dependency_cache("save");
    fs::remove_dir_all(&fingerprints).unwrap();
    checkout.dependency_cache("restore");
    assert!(fingerprints.join("hyper-0a").exists());

    // Another lock file has another cache, and a folder with dependencies of the first one is not saved for it.
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    checkout.write("Cargo.lock", &format!("{lock}\n# changed\n"));
    checkout.dependency_cache("save");
    assert_eq!(checkout.archives().len(), 1);
    fs::remove_dir_all(checkout.path("target")).unwrap();
    checkout.dependency_cache("restore");
    assert!(!fingerprints.exists());
}

/// Cargo compiles again what is older than a file from which it was compiled.
#[test]
fn workspace_is_restored_and_only_changed_files_are_newer() {
    let checkout = Checkout::new();
    let library = "target/debug/deps/libportico-0123456789abcdef.rlib";
    let compiled = [
        library,
        "target/debug/deps/proxy-0123456789abcdef",
        "target/debug/.fingerprint/portico-load-0123456789abcdef/lib-portico_load",
        "target/debug/deps/libportico_objects-0123456789abcdef.rlib",
        "target/doc/index.html",
    ];
    let of_dependency = "target/debug/deps/libhyper-0123456789abcdef.rlib";
    checkout.write("src/same.rs", "same");
    checkout.write("src/changed.rs", "old");
    checkout.write("src/changed while it is compiled.rs", "old");
    checkout.workspace_cache("restore");
    for file in compiled.iter().chain([&of_dependency]) {
        checkout.write(file, file);
    }
    assert!(checkout.is_older("src/same.rs", library));
    checkout.write("src/changed while it is compiled.rs", "new");
    checkout.workspace_cache("save");

    // A clone has new files.
    fs::remove_dir_all(checkout.path("target")).unwrap();
    for (file, text) in [("src/same.rs", "same"), ("src/changed.rs", "new"), ("src/added.rs", "new")] {
        checkout.write(file, text);
    }
    checkout.workspace_cache("restore");
    for file in compiled {
        assert_eq!(fs::read_to_string(checkout.path(file)).unwrap(), file);
    }
    assert!(!checkout.path(of_dependency).exists(), "dependencies have a cache of their own");
    assert!(!checkout.path("target/restored").exists());
    assert!(checkout.is_older("src/same.rs", library));
    for file in ["src/changed.rs", "src/changed while it is compiled.rs", "src/added.rs"] {
        assert!(!checkout.is_older(file, library), "{file}");
    }

    // A second call changes nothing: the times of the files are those of changes now.
    checkout.write("src/same.rs", "same");
    checkout.workspace_cache("restore");
    assert!(!checkout.is_older("src/same.rs", library));

    for file in fs::read_dir(checkout.path("cache/portico/workspace")).unwrap() {
        fs::write(file.unwrap().path(), "corrupt").unwrap();
    }
    fs::remove_dir_all(checkout.path("target")).unwrap();
    let message = checkout.workspace_cache("restore");
    assert!(message.contains("is corrupt, so it is removed"), "{message}");
    assert!(!checkout.path(library).exists());
}

/// Cargo asks the compiler through the same wrapper what the target supports, and a static target has no procedural
/// macros, which the dependencies need.
#[test]
fn image_is_compiled_for_a_static_program_and_the_target_is_described_as_it_is() {
    let wrapper = root().join("scripts/image-compiler.sh");
    let arguments_of_compiler = |arguments: &[&str]| {
        let output = Command::new(&wrapper).arg("echo").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let query = ["-", "--crate-name", "___", "--print=file-names", "--crate-type", "proc-macro"];
    assert_eq!(arguments_of_compiler(&query), format!("{}\n", query.join(" ")));
    let compiled = arguments_of_compiler(&["--crate-name", "portico", "src/lib.rs"]);
    assert!(compiled.contains("src/lib.rs -C target-feature=+crt-static"), "{compiled}");
}

#[test]
fn program_of_the_image_is_compiled_once_for_the_same_sources() {
    let checkout = Checkout::new();
    let program = checkout.path("target/portico");
    let is_restored = || {
        drop(fs::remove_file(&program));
        checkout.image_cache("restore").0 && fs::read_to_string(&program).unwrap() == "compiled"
    };
    // Cargo lists the sources by their whole paths, in which no link is followed.
    let compile = |source: &str| {
        checkout.write("target/portico", "compiled");
        let folder = checkout.folder.path().canonicalize().unwrap();
        let sources = format!("{0}/target/portico: {0}/src/main.rs {0}/{source}\n", folder.display());
        checkout.write("target/portico.d", &sources);
    };
    checkout.write("src/main.rs", "fn main() {}");
    assert!(!is_restored(), "nothing was compiled yet");

    compile("docs/a.md");
    let (is_saved, message) = checkout.image_cache("save");
    assert!(!is_saved && message.contains("/docs/a.md, which is not listed"), "{message}");
    compile("src/lib.rs");
    assert_eq!(checkout.image_cache("save"), (true, String::new()));
    checkout.write("docs/a.md", "changed");
    assert!(is_restored());

    checkout.write("crates/objects/src/lib.rs", "// new");
    assert!(!is_restored(), "a crate of the program changed");
    compile("crates/objects/src/lib.rs");
    assert_eq!(checkout.image_cache("save"), (true, String::new()));

    let tests = "#[cfg(test)]\nmod tests {\n    fn is_tested() {}\n}\n";
    checkout.write("src/main.rs", &format!("fn main() {{}}\n\n{tests}"));
    checkout.image_cache("restore");
    compile("src/lib.rs");
    assert_eq!(checkout.image_cache("save"), (true, String::new()));
    checkout.write("src/main.rs", &format!("fn main() {{}}\n\n{}", tests.replace("is_tested", "is_also_tested")));
    assert!(is_restored(), "only a unit test changed");
    checkout.write("src/main.rs", &format!("fn main() {{}}\n\n{tests}\nfn more() {{}}\n"));
    assert!(!is_restored(), "a function after the unit tests is in the program");

    checkout.write("src/main.rs", "fn main() { panic!() }");
    assert!(!is_restored());
    compile("src/lib.rs");
    checkout.write("src/lib.rs", "// new");
    let (is_saved, message) = checkout.image_cache("save");
    assert!(!is_saved && message.contains("have changed while it was compiled"), "{message}");

    fs::remove_file(checkout.path("src/lib.rs")).unwrap();
    checkout.write("src/main.rs", "fn main() {}");
    assert!(is_restored());
    let images = fs::read_dir(checkout.path("cache/portico/images")).unwrap();
    for file in
        images.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "program"))
    {
        fs::write(file, "corrupt!").unwrap();
    }
    let (is_restored, message) = checkout.image_cache("restore");
    assert!(!is_restored && message.contains("is corrupt, so it is removed"), "{message}");
}

/// Every suite belongs to one lane, so each runs exactly once.
#[test]
fn complete_run_has_each_suite_once() {
    for (variables, left_out, added) in [
        ("E2E=on", "e2e", "e2e-helm"),
        ("E2E=off", "e2e-helm", "e2e"),
        ("PORTICO_E2E_KUBECONFIG=some.yaml", "e2e", "e2e-helm"),
    ] {
        let (report, mut started) = complete_run(variables, "");
        let count = started.len();
        started.sort_unstable();
        started.dedup();
        assert_eq!(started.len(), count, "{variables}: a suite ran twice: {started:?}");
        for name in ["format", "build", "unit", "compile", "watch", "kong", "make_run", "proxy", "tidy", "lints", added]
        {
            assert!(started.iter().any(|other| other == name), "{variables}: {name} did not run: {started:?}");
        }
        assert!(!started.iter().any(|other| other == left_out), "{variables}: {started:?}");
        assert!(report.ends_with(&format!("{count} passed, 0 failed\n")), "{variables}: {report}");
    }
}

#[test]
fn slow_machine_runs_tests_with_a_control_plane_after_the_local_ones() {
    let slow = r#"
        case "$1" in
            e2e-speed) echo "slow: it needed 9 s" ;;
            e2e-programs) ;;
            e2e-*) grep -qx check-examples started && [ "$E2E_SLOW_MACHINE" = yes ] ;;
        esac || return 1"#;
    let (report, started) = complete_run("E2E= PORTICO_E2E_KUBECONFIG=", slow);
    let ends = started.iter().position(|name| name == "check-examples").unwrap();
    for suite in ["e2e-conformance", "e2e-helm"] {
        assert!(started.iter().position(|name| name == suite).unwrap() > ends, "{started:?}\n{report}");
    }
    assert!(report.ends_with(&format!("{} passed, 0 failed\n", started.len())), "{report}");

    let all = slow.replace("= yes", "= \"\"");
    let (report, started) = complete_run("E2E=on", &all.replace("$E2E_SLOW_MACHINE", "${E2E_SLOW_MACHINE:-}"));
    assert!(report.ends_with(&format!("{} passed, 0 failed\n", started.len())), "{report}");
}

/// Runs `scripts/test.sh all` without commands of suites but this shell code, and returns the report and the names of
/// the suites that ran.
fn complete_run(variables: &str, suite_command: &str) -> (String, Vec<String>) {
    let checkout = Checkout::new();
    checkout.write("scripts/test.sh", &fs::read_to_string(root().join("scripts/test.sh")).unwrap());
    checkout
        .write("target/test-logs/executables", "unit f .\nlibrary f .\nprocess f .\ne2e f e2e\nproxy f .\ntidy f .\n");
    checkout.write("target/test-logs/library.list", "compile::a\ncompile::b\nwatch::a\n");
    checkout.write("target/test-logs/process.list", "make_run::a\nkong::a\n");
    checkout.write("target/test-logs/e2e.list", "conformance::a\nhelm::a\nhelm::b\n");
    let script = format!(
        "export {variables}\nsource <(sed '/^main /d; /^cd /d' scripts/test.sh)\n\
         suite_command() {{\n{suite_command}\necho \"$1\" >>started\n}}\n\
         start_control_plane_build() {{ control_plane_build=\"\"; }}\n\
         start_run\nrun_all\nfinish_run\n"
    );
    let output = checkout.run("timeout", &["60", "bash", "-c", &script]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{variables}: {report}{}", String::from_utf8_lossy(&output.stderr));
    let started = fs::read_to_string(checkout.path("started")).unwrap();
    (report, started.lines().map(str::to_owned).collect())
}

#[test]
fn failed_tests_are_reported_with_the_command_that_repeats_them() {
    let checkout = Checkout::new();
    let code = r#"
        case "$1" in
            good) echo "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out" ;;
            bad)
                echo "repeat with: cargo test --workspace --test proxy --"
                echo "thread 'h2::streams_end' panicked at tests/proxy/h2.rs:7:5:"
                echo "no end"
                printf 'failures:\n\n---- h2::streams_end stdout ----\n    spec:\n\n'
                printf 'failures:\n    h2::streams_end\n\n'
                echo "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
                return 101 ;;
            broken) echo "error: cannot find value" && return 1 ;;
            lost)
                echo "expected tests: 3"
                echo "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out" ;;
            skipped) echo "not run: no access" && return "$not_run" ;;
            slow) echo "test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 9 filtered out" ;;
            partial)
                echo "test scenarios::chaos ... not run: chaos: this machine is too slow"
                echo "test scenarios::streams ... not run: streams: this machine is too slow"
                echo "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out" ;;
        esac"#;
    let report = checkout.report("good bad broken lost skipped slow partial", code);
    for line in [
        "good: 3 passed in",
        "bad: 1 FAILED, 2 passed in",
        "    cargo test --workspace --test proxy -- --exact h2::streams_end\n",
        "no end\n",
        "    scripts/test.sh run broken\nerror: cannot find value\n",
        "2 of 3 tests ran\n",
        "skipped: not run: no access\n",
        "slow: not run: make test-full\n",
        "1 only in make test-full\n",
        "partial: 1 passed in",
        "  not run: 2 tests: this machine is too slow\n",
        "  passed   failed     time      CPU\n",
        "\n8 passed, 3 failed\nexit 1",
    ] {
        assert!(report.contains(line), "`{line}` is missing in\n{report}");
    }
    let again = checkout.report("good", code);
    assert!(again.contains("good: started (last time: "), "{again}");
    assert!(!report.contains("--exact spec:"), "{report}");
    assert!(again.ends_with("\n3 passed, 0 failed\nexit 0"), "{again}");
}

/// A new module is a suite without a change of the scripts; none may have the name of another suite.
#[test]
fn modules_of_the_test_programs_have_distinct_names() {
    let words = "format build unit check-examples image-root lints docs tidy dependencies doctests baseline e2e \
                 proxy allocations memory soak e2e-programs e2e-speed";
    let mut names: Vec<String> = words.split(' ').map(str::to_owned).collect();
    for (program, prefix) in [("tests/library.rs", ""), ("tests/process.rs", ""), ("e2e/tests/e2e.rs", "e2e-")] {
        let text = fs::read_to_string(root().join(Path::new(program))).unwrap();
        let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        // Shared by tests of both programs, without tests of its own.
        names.extend(modules.filter(|name| *name != "golden").map(|name| format!("{prefix}{name}")));
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two modules have the same name, so scripts/test.sh would run only one of them");
}
