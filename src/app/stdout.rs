//! Output of commands that end by themselves: to stdout, where other programs may read it, and to stderr, what they
//! wait for.

use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::report::escape_controls;

/// Writes to stdout. A reader that closes the pipe early (`portico completion bash | head`) is no error, unlike with
/// `print!`, which would panic.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// Runs `read`, which reads these paths. If it takes long, because nothing is written to a pipe among them, stderr says
/// so: opening a named pipe waits for a writer without end.
pub(super) fn reading<T>(paths: &[PathBuf], read: impl FnOnce() -> T) -> T {
    let pipes: Vec<String> =
        paths.iter().filter(|path| is_pipe(path)).map(|path| escape_controls(&path.to_string_lossy())).collect();
    if pipes.is_empty() {
        return read();
    }
    thread::scope(|scope| {
        let (in_progress, ended) = sync_channel::<()>(1);
        scope.spawn(move || {
            if ended.recv_timeout(NOTE_AFTER) == Err(RecvTimeoutError::Timeout) {
                let note = format!(
                    "Waiting for a program that writes to the pipe {} and closes it; Ctrl+C ends the wait\n",
                    pipes.join(", ")
                );
                // If stderr is closed, the note cannot be shown.
                io::stderr().write_all(note.as_bytes()).ok();
            }
        });
        let result = read();
        drop(in_progress);
        result
    })
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// How long a program usually takes to write its output.
const NOTE_AFTER: Duration = Duration::from_secs(1);
