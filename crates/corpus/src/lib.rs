//! Runs fuzz targets on the inputs in `fuzz/corpus`, which are examples and inputs that once failed, and on mutations
//! of them, of which `make explore` runs many more. The tests of each crate that has fuzz targets call this.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// A fuzz target by its name, which is that of a folder in `fuzz/corpus`. It panics if a property does not hold for
/// these bytes.
pub type NamedTarget = (&'static str, fn(&[u8]));

/// The folder `fuzz` of the checkout.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target, with their names, sorted.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join("corpus").join(target);
    let mut inputs: Vec<_> = names(&folder)
        .map(|name| {
            let input = folder.join(&name);
            let bytes = fs::read(&input).unwrap_or_else(|error| panic!("cannot read {}: {error}", input.display()));
            (name, bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    entries.map(|entry| {
        let entry = entry.unwrap_or_else(|error| panic!("cannot read an entry of a corpus: {error}"));
        entry.file_name().to_string_lossy().into_owned()
    })
}

/// Runs each target on all inputs of its corpus.
///
/// # Panics
///
/// If a property does not hold, or a corpus is empty.
pub fn check_inputs(targets: &[NamedTarget]) {
    let mut failed = Vec::new();
    for (target, check) in targets {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "fuzz/corpus/{target} is empty; add an example");
        for (name, input) in inputs {
            // All failures are reported, each after its own message.
            if !holds(*check, &input) {
                failed.push(format!("fuzz/corpus/{target}/{name}"));
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail; their messages are above:\n{}", failed.join("\n"));
}

/// Runs targets on inputs with random changes. That finds less than cargo-fuzz does, which knows the code that an input
/// reaches, but runs with every change.
///
/// # Panics
///
/// If a property does not hold.
pub fn check_mutated_inputs(targets: &[NamedTarget]) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let result = runner.run(&proptest::num::u64::ANY, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let Some((target, check)) = random.choice(targets) else {
            return Err(TestCaseError::fail("the crate has no fuzz targets"));
        };
        let input = mutated(&inputs(target), &mut random);
        let text = String::from_utf8_lossy(&input);
        proptest::prop_assert!(holds(*check, &input), "{} fails for {:?}, the bytes {:?}", target, text, input);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn holds(check: fn(&[u8]), input: &[u8]) -> bool {
    catch_unwind(|| check(input)).is_ok()
}

/// An input with up to eight changes.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let pick = |random: &mut fastrand::Rng| random.choice(corpus).map(|(_, input)| input.clone()).unwrap_or_default();
    let mut input = pick(random);
    for _ in 0..random.usize(0..8) {
        let at = random.usize(0..=input.len());
        let end = (at + random.usize(0..16)).min(input.len());
        match random.u8(0..6) {
            0 => drop(input.splice(at..at, [random.u8(..)])),
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            3 => drop(input.splice(at..at, pick(random))),
            4 => drop(input.splice(at..at, random.choice(FRAGMENTS).copied().unwrap_or_default().bytes())),
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
