//! The syslog of the machine, which reads datagrams from a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UnixDatagram;

use crate::log_delivery::DeliveryReports;
use crate::plugin_api::batch_queue::BatchSender;

pub(super) struct LocalSocket {
    path: PathBuf,
    reports: Arc<DeliveryReports>,
}

impl LocalSocket {
    pub(super) fn new(path: impl Into<PathBuf>, reports: Arc<DeliveryReports>) -> Self {
        LocalSocket { path: path.into(), reports }
    }
}

impl BatchSender for LocalSocket {
    /// In the body, a zero byte ends each message: JSON has none.
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        let mut body = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 1).sum());
        for entry in entries {
            body.extend_from_slice(entry);
            body.push(0);
        }
        body.into()
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        let (path, reports) = (self.path.clone(), Arc::clone(&self.reports));
        async move {
            let sent = send_messages(&path, &body).await;
            let failure = sent.err().map(|error| format!("{}: {error}; set `host` to a syslog server", path.display()));
            let is_accepted = failure.is_none();
            reports.update(failure);
            is_accepted
        }
        .boxed()
    }
}

/// The socket is opened for each batch, since a syslog that was restarted has another one.
async fn send_messages(path: &Path, body: &[u8]) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    for message in body.split(|&byte| byte == 0).filter(|message| !message.is_empty()) {
        socket.send(message).await?;
    }
    Ok(())
}
