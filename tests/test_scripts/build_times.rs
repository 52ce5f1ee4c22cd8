//! `scripts/build-times.sh`: the constants that it changes exist, and their files are as before when it has ended. Its
//! commands of Cargo are those of a script here, which writes the report of `--timings` for two crates.

use std::fs;
use std::process::Command;

use super::Checkout;
use crate::root;

/// MODULE FILE CONSTANT in each line.
fn places() -> String {
    let output = Command::new("bash").args(["scripts/build-times.sh", "places"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Records its command and the constant, links, and reports that the library took 4 s and the program 100.25 s.
const CARGO: &str = r#"#!/usr/bin/env bash
echo "$1 $(grep '^const' crates/proxy/src/proxy/http/exchange/request_body.rs)" >>calls
target=""
case "$1" in
    build) cc --version >/dev/null ;;
    check) [ ! -e broken ] || { echo "error: it is broken" && exit 101; } ;;
    test) target=" lib (test)" ;;
esac
mkdir -p target/cargo-timings
cat >target/cargo-timings/cargo-timing.html <<END
DURATION = 6;
const UNIT_DATA = [
  {
    "i": 0,
    "name": "portico-proxy",
    "version": "0.1.0",
    "mode": "todo",
    "target": "$target",
    "features": [
      "frontend"
    ],
    "start": 0.5,
    "duration": 4.0,
    "unblocked_units": [],
    "unblocked_rmeta_units": [
      1
    ],
    "sections": [
      [
        "frontend",
        {
          "start": 0.0,
          "end": 1.5
        }
      ],
      [
        "codegen",
        {
          "start": 1.5,
          "end": 4.0
        }
      ]
    ]
  },
  {
    "i": 1,
    "name": "portico",
    "version": "0.1.0",
    "mode": "todo",
    "target": " bin \"portico\"",
    "features": [],
    "start": 4.5,
    "duration": 100.25,
    "unblocked_units": [],
    "unblocked_rmeta_units": [],
    "sections": null
  }
];
const CONCURRENCY_DATA = [
  {
    "t": 0.0
  }
];
END
"#;

/// A repository with the constants, in which the module `proxy` is in a crate of its own.
fn repository() -> Checkout {
    let checkout = Checkout { folder: tempfile::tempdir().unwrap() };
    let script = "scripts/build-times.sh";
    checkout.write(script, &fs::read_to_string(root().join(script)).unwrap());
    for line in places().lines() {
        let [_, file, constant] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (_, path) = file.split_once("src/").unwrap();
        let folder = if path.starts_with("proxy/") { "crates/proxy/src" } else { "src" };
        checkout.write(&format!("{folder}/{path}"), &format!("fn f() {{}}\n\nconst {constant}: usize = 1 << 20;\n"));
    }
    checkout.write("Cargo.toml", "[package]\nname = \"portico\"\n");
    checkout.write("crates/proxy/Cargo.toml", "[package]\nname = \"portico-proxy\"\n");
    checkout.write("bin/cargo", CARGO);
    checkout.write(".gitignore", "target\ncalls\nbroken\n");
    let commit = "chmod +x bin/cargo && git init --quiet && git add . && \
                  git -c user.name=a -c user.email=a@example.com -c commit.gpgsign=false commit --quiet --message a";
    assert!(checkout.run("bash", &["-c", commit]).status.success());
    checkout
}

/// Runs the script for the module `proxy`, and returns whether it succeeded, and what it prints.
fn measure(checkout: &Checkout, before: &str) -> (bool, String) {
    let script = format!("{before}\nPATH=\"$PWD/bin:$PATH\" bash scripts/build-times.sh --runs 2 --only proxy 2>&1");
    let output = checkout.run("bash", &["-c", &script]);
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn is_unchanged(checkout: &Checkout) -> bool {
    let output = checkout.run("git", &["status", "--porcelain"]);
    output.status.success() && output.stdout.is_empty()
}

#[test]
fn measured_modules_have_their_constants() {
    let places = places();
    let modules: Vec<&str> = places.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        modules,
        ["proxy", "compile", "upstream", "snapshot", "plugin_api", "key_auth", "store", "app"],
        "{places}"
    );
}

#[test]
fn change_is_measured_with_new_values_and_undone() {
    let checkout = repository();
    let (is_measured, printed) = measure(&checkout, "");
    assert!(is_measured, "{printed}");
    assert!(is_unchanged(&checkout));
    let calls = fs::read_to_string(checkout.path("calls")).unwrap();
    let expected: String = (1..=9)
        .map(|edit| {
            let command = ["test", "build", "check"][edit % 3];
            format!("{command} const SMALL_FRAME: usize = (1 << 20) + {edit};\n")
        })
        .collect();
    assert_eq!(calls, expected);

    let row = printed.lines().find(|line| line.starts_with("| `proxy` | 2 | ")).unwrap_or_else(|| panic!("{printed}"));
    // The program has no front end of its own in the report, and its code generation is shown without linking.
    let [front_ends, code, unit_tests] = [4, 5, 8].map(|column| row.split(" | ").nth(column - 1).unwrap());
    assert_eq!(front_ends, "1.5 / 1.5", "{row}");
    let (minimum, _) = code.split_once(" / ").unwrap();
    assert!((90.0..=102.8).contains(&minimum.parse::<f64>().unwrap()), "{row}");
    assert_eq!(unit_tests, "4.5 / 4.5", "{row}");
}

#[test]
fn errors_undo_the_change_and_uncommitted_changes_are_kept() {
    let checkout = repository();
    let (is_measured, printed) = measure(&checkout, "touch broken");
    assert!(!is_measured && printed.contains("error: it is broken\nbuild-times: cargo check "), "{printed}");
    assert!(is_unchanged(&checkout));

    let file = "crates/proxy/src/proxy/http/exchange/request_body.rs";
    let (is_measured, printed) = measure(&checkout, &format!("rm broken\necho '// more' >>{file}"));
    assert!(!is_measured && printed.contains(&format!("commit or undo the changes of {file} first")), "{printed}");
    assert!(fs::read_to_string(checkout.path(file)).unwrap().ends_with(";\n// more\n"));
}
