//! Runs the fuzz targets of this crate, and checks that the list of all targets is the same everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// The most bytes of a committed input, and of all of them.
const MAX_INPUT: u64 = 2 << 10;
const MAX_CORPUS: u64 = 300 << 10;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

/// The sources with lists of targets: those of the crates can be read here, but not called, because crates on which the
/// tests of another one depend are compiled without `cfg(test)`.
fn lists() -> Vec<PathBuf> {
    let crates = root().join("crates");
    let of_crates = names(&crates).map(|name| crates.join(name).join("src/fuzzing.rs")).filter(|list| list.exists());
    of_crates.chain([root().join("src/fuzzing/mod.rs")]).collect()
}

/// The names in all lists. A row begins with the name, such as `("quantities", check),`.
fn targets() -> BTreeSet<String> {
    let mut targets = BTreeSet::new();
    for list in lists() {
        let text = fs::read_to_string(&list).unwrap();
        let words = text.split("(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let names: Vec<String> = words.filter(is_name).map(str::to_owned).collect();
        assert!(!names.is_empty() && names.is_sorted(), "the targets in {} are sorted", list.display());
        for name in names {
            assert!(targets.insert(name.clone()), "{name} is in two lists");
        }
    }
    targets
}

#[test]
fn targets_hold_for_the_corpus() {
    portico_corpus::check_inputs(TARGETS);
}

#[test]
fn targets_hold_for_mutated_inputs() {
    portico_corpus::check_mutated_inputs(TARGETS);
}

#[test]
fn every_list_is_fuzzed() {
    let run = fs::read_to_string(root().join("src/fuzzing/mod.rs")).unwrap();
    for list in lists() {
        let folder = list.strip_prefix(root().join("crates")).ok().and_then(|path| path.iter().next());
        let Some(folder) = folder.and_then(|name| name.to_str()) else { continue };
        assert!(run.contains(&format!("portico_{folder}::fuzzing::TARGETS,")), "run() knows the targets of {folder}");
    }
}

#[test]
fn corpora_are_small() {
    let mut sum = 0;
    for target in targets() {
        let folder = root().join("fuzz/corpus").join(&target);
        for name in names(&folder) {
            let length = fs::metadata(folder.join(&name)).unwrap().len();
            assert!(length <= MAX_INPUT, "fuzz/corpus/{target}/{name} has {length} bytes; minimize it");
            sum += length;
        }
    }
    assert!(sum <= MAX_CORPUS, "fuzz/corpus has {sum} bytes; remove inputs that reach the same code");
}

#[test]
fn targets_are_listed_alike_everywhere() {
    let (expected, folder) = (targets(), root().join("fuzz"));
    assert_eq!(names(&folder.join("corpus")).collect::<BTreeSet<_>>(), expected, "folders of fuzz/corpus");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let binaries = manifest.split("[[bin]]").skip(1).map(|binary| binary.split('"').nth(1).unwrap().to_owned());
    assert_eq!(binaries.collect::<BTreeSet<_>>(), expected, "binaries of fuzz/Cargo.toml");
    let programs: BTreeSet<_> = names(&folder.join("fuzz_targets")).collect();
    assert_eq!(programs, expected.iter().map(|name| format!("{name}.rs")).collect(), "files of fuzz/fuzz_targets");
    for name in &expected {
        let program = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "fuzz_targets/{name}.rs runs {name}");
    }
}
