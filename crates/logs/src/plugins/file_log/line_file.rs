//! Appends lines to a file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::{STDERR, STDOUT};
use crate::log_delivery::{DeliveryReports, join_lines};
use crate::plugin_api::batch_queue::BatchSender;

pub(super) struct LineFile {
    path: PathBuf,
    reports: Arc<DeliveryReports>,
}

impl LineFile {
    pub(super) fn new(path: PathBuf, reports: Arc<DeliveryReports>) -> Self {
        LineFile { path, reports }
    }
}

impl BatchSender for LineFile {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        join_lines(entries)
    }

    fn send(&self, lines: Bytes) -> BoxFuture<'static, bool> {
        let (path, reports) = (self.path.clone(), Arc::clone(&self.reports));
        async move {
            // Writing to a disk, or to a pipe that is full, blocks its thread.
            let written =
                spawn_blocking(move || append(&path, &lines).map_err(|error| format!("{}: {error}", path.display())));
            let failure = written.await.unwrap_or_else(|error| Err(error.to_string())).err();
            let is_accepted = failure.is_none();
            reports.update(failure);
            is_accepted
        }
        .boxed()
    }
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    if path == Path::new(STDOUT) {
        let mut stdout = io::stdout().lock();
        return stdout.write_all(lines).and_then(|()| stdout.flush());
    }
    if path == Path::new(STDERR) {
        return io::stderr().lock().write_all(lines);
    }
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)?.write_all(lines)
}
