//! Output of commands that end by themselves: to stdout, where other programs may read it.

use std::io::{self, Write};

use anyhow::Context;

/// Writes to stdout. A reader that closes the pipe early (`portico completion bash | head`) is no error, unlike with
/// `print!`, which would panic.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
