//! Expected output in files. `UPDATE=1` rewrites them; the changes are then reviewed like code.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file with expected output, below `tests/`.
pub(crate) struct Golden {
    name: String,
}

impl Golden {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Golden { name: name.into() }
    }

    /// The expected output; empty if the file does not exist yet.
    pub(crate) fn expected(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// Compares with the file or rewrites it. Returns the difference.
    pub(crate) fn compare(&self, found: &str) -> Result<(), String> {
        if is_update() {
            if self.expected() != found {
                fs::create_dir_all(self.path().parent().expect("the path is below tests")).unwrap();
                fs::write(self.path(), found).unwrap();
            }
            return Ok(());
        }
        let expected = self.expected();
        if expected == found {
            return Ok(());
        }
        Err(format!("tests/{} differs (- expected, + found):\n{}", self.name, difference(&expected, found)))
    }

    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(&self.name)
    }
}

/// Whether expected output should be rewritten.
pub(crate) fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Panics with all differences of a suite, which is a module of this program.
pub(crate) fn expect_none(differing: &[String], suite: &str) {
    let command = concat!("UPDATE=1 cargo test --workspace --test ", env!("CARGO_CRATE_NAME"));
    assert!(differing.is_empty(), "{}\nIf that is right: {command} {suite}::", differing.join("\n"));
}

/// The lines from the first difference to the last.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let start = expected.iter().zip(&found).take_while(same).count();
    let rest = expected.len().min(found.len()) - start;
    let end = expected.iter().rev().zip(found.iter().rev()).take(rest).take_while(same).count();
    let mut out = String::new();
    for line in &expected[start.saturating_sub(3)..start] {
        writeln!(out, "  {line}").unwrap();
    }
    for line in &expected[start..expected.len() - end] {
        writeln!(out, "- {line}").unwrap();
    }
    for line in &found[start..found.len() - end] {
        writeln!(out, "+ {line}").unwrap();
    }
    out
}
