//! Progress messages on standard error.

use std::fmt;

/// Prints a line with the prefix `e2e: `.
#[expect(clippy::print_stderr, reason = "the only place that prints progress")]
pub fn report(line: fmt::Arguments<'_>) {
    eprintln!("e2e: {line}");
}
