//! Expected output in files. `UPDATE=1` rewrites them; the changes are then reviewed like code.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file with expected output, by its path relative to `tests/`.
pub(crate) struct Golden {
    relative_path: String,
}

impl Golden {
    pub(crate) fn new(relative_path: impl Into<String>) -> Self {
        Golden { relative_path: relative_path.into() }
    }

    /// The expected output; empty if the file does not exist yet.
    pub(crate) fn expected(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// Compares the output with the file. A difference is an error, or is written into the file if `UPDATE` is set.
    pub(crate) fn compare(&self, actual: &str) -> Result<(), String> {
        if is_update() {
            if self.expected() != actual {
                fs::create_dir_all(self.path().parent().expect("the path is below tests")).unwrap();
                fs::write(self.path(), actual).unwrap();
            }
            return Ok(());
        }
        let expected = self.expected();
        if expected == actual {
            return Ok(());
        }
        Err(format!("tests/{} differs (- expected, + found):\n{}", self.relative_path, difference(&expected, actual)))
    }

    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(&self.relative_path)
    }
}

/// Whether `UPDATE` is set, which rewrites expected output.
pub(crate) fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Panics if there are differences. `suite` is the module of this test program that found them.
pub(crate) fn expect_none(differing: &[String], suite: &str) {
    let command = concat!("UPDATE=1 cargo test --workspace --test ", env!("CARGO_CRATE_NAME"));
    assert!(differing.is_empty(), "{}\nIf the new output is right: {command} {suite}::", differing.join("\n"));
}

/// The lines from the first difference to the last, after up to three equal lines.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let is_equal = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let equal_prefix = expected.iter().zip(&actual).take_while(is_equal).count();
    let max_suffix = expected.len().min(actual.len()) - equal_prefix;
    let equal_suffix = expected.iter().rev().zip(actual.iter().rev()).take(max_suffix).take_while(is_equal).count();
    let mut out = String::new();
    for line in &expected[equal_prefix.saturating_sub(3)..equal_prefix] {
        writeln!(out, "  {line}").unwrap();
    }
    for line in &expected[equal_prefix..expected.len() - equal_suffix] {
        writeln!(out, "- {line}").unwrap();
    }
    for line in &actual[equal_prefix..actual.len() - equal_suffix] {
        writeln!(out, "+ {line}").unwrap();
    }
    out
}
