//! Runs the fuzz targets on the inputs in `fuzz/corpus`, which are examples and inputs that once failed, and on
//! mutations of them, of which `make explore` runs many more. Checks that the list of targets is the same everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::{FuzzTarget, TARGETS};

/// The most bytes of a committed input, and of all of them.
const MAX_INPUT: usize = 2 << 10;
const MAX_CORPUS: usize = 300 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, with their names, sorted.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join("corpus").join(target);
    let mut inputs: Vec<_> = names(&folder).map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect();
    inputs.sort();
    inputs
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

#[test]
fn targets_hold_for_the_corpus() {
    let mut failed = Vec::new();
    for (target, check) in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "fuzz/corpus/{target} is empty; add an example");
        for (name, input) in inputs {
            // All failures are printed, each with its message.
            if !holds(*check, &input) {
                failed.push(format!("fuzz/corpus/{target}/{name}"));
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail; their messages are above:\n{}", failed.join("\n"));
}

fn holds(check: FuzzTarget, input: &[u8]) -> bool {
    catch_unwind(|| check(input)).is_ok()
}

proptest::proptest! {
    /// Finds less than cargo-fuzz does, which knows the code that an input reaches, but runs with every change.
    #[test]
    fn targets_hold_for_mutated_inputs(seed in proptest::num::u64::ANY) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (target, check) = random.choice(TARGETS).expect("there are targets");
        let input = mutated(&inputs(target), &mut random);
        let text = String::from_utf8_lossy(&input);
        proptest::prop_assert!(holds(*check, &input), "{target} fails for {text:?}, the bytes {input:?}");
    }
}

/// An input with up to eight changes.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let pick = |random: &mut fastrand::Rng| random.choice(corpus).expect("no corpus is empty").1.clone();
    let mut input = pick(random);
    for _ in 0..random.usize(0..8) {
        let at = random.usize(0..=input.len());
        let end = (at + random.usize(0..16)).min(input.len());
        match random.u8(0..6) {
            0 => drop(input.splice(at..at, [random.u8(..)])),
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            3 => drop(input.splice(at..at, pick(random))),
            4 => drop(input.splice(at..at, random.choice(FRAGMENTS).expect("it is not empty").bytes())),
            _ if at < end => input[at] ^= 1 << random.u8(0..8),
            _ => input.truncate(at),
        }
    }
    input
}

/// Text with a meaning in one of the formats.
const FRAGMENTS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    ",",
    ";",
    ":",
    "=",
    "&",
    "%",
    "%2e",
    "%2F",
    "#",
    "?",
    "*",
    "$(",
    ")",
    "\"",
    "\\",
    "/",
    "..",
    "[",
    "]",
    "{",
    "}",
    "-",
    "--",
    "0",
    "1",
    "999999999999999999999",
    "0x1",
    "-1",
    "chunked",
    "content-length: 1\r\n",
    "transfer-encoding: chunked\r\n",
    "é",
    "\u{feff}",
    "\u{202e}",
    "null",
    "true",
    "'",
    "|",
    "&a ",
    "*a",
    "---\n",
    "::1",
    ".5",
    "e9",
];

#[test]
fn corpora_are_small() {
    let mut sum = 0;
    for (target, _) in TARGETS {
        for (name, input) in inputs(target) {
            let length = input.len();
            assert!(length <= MAX_INPUT, "fuzz/corpus/{target}/{name} has {length} bytes; minimize it");
            sum += length;
        }
    }
    assert!(sum <= MAX_CORPUS, "fuzz/corpus has {sum} bytes; remove inputs that reach the same code");
}

#[test]
fn targets_are_listed_alike_everywhere() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(TARGETS.is_sorted_by_key(|(name, _)| *name), "TARGETS is sorted");
    assert_eq!(names(&folder().join("corpus")).collect::<BTreeSet<_>>(), expected, "folders of fuzz/corpus");
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let binaries = manifest.split("[[bin]]").skip(1).map(|binary| binary.split('"').nth(1).unwrap().to_owned());
    assert_eq!(binaries.collect::<BTreeSet<_>>(), expected, "binaries of fuzz/Cargo.toml");
    let programs: BTreeSet<_> = names(&folder().join("fuzz_targets")).collect();
    assert_eq!(programs, expected.iter().map(|name| format!("{name}.rs")).collect(), "files of fuzz/fuzz_targets");
    for name in &expected {
        let program = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "fuzz_targets/{name}.rs runs {name}");
    }
}
