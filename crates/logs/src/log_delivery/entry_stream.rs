//! Log entries on a TCP connection, which stays open between batches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{DeliveryReports, join_lines};
use crate::plugin_api::batch_queue::BatchSender;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{Remote, RemoteStream};
use crate::plugin_api::services::PluginServices;

/// Sends entries on a connection. The server confirms nothing, so an entry that was written counts as accepted.
pub(crate) struct StreamSender {
    server: Arc<StreamServer>,
    framing: EntryFraming,
}

/// How the server recognizes the end of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryFraming {
    /// Each entry is a line.
    Lines,
    /// The length of each entry precedes it: RFC 6587, section 3.4.1.
    OctetCounting,
}

struct StreamServer {
    remote: Remote,
    /// How long a connection without entries is used again.
    idle_limit: Duration,
    services: Arc<dyn PluginServices>,
    reports: Arc<DeliveryReports>,
    /// `None` before the first batch and after an error. Batches are sent one after the other.
    connection: Mutex<Option<KeptConnection>>,
}

struct KeptConnection {
    stream: Box<dyn RemoteStream>,
    used_at: Instant,
}

impl StreamSender {
    /// `remote.timeout` is that of connecting, and of writing a batch.
    pub(crate) fn new(
        remote: Remote,
        framing: EntryFraming,
        idle_limit: Duration,
        reports: Arc<DeliveryReports>,
        cx: &BuildCx<'_>,
    ) -> Self {
        let services = Arc::clone(cx.services);
        let server = StreamServer { remote, idle_limit, services, reports, connection: Mutex::new(None) };
        StreamSender { server: Arc::new(server), framing }
    }
}

impl BatchSender for StreamSender {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        if self.framing == EntryFraming::Lines {
            return join_lines(entries);
        }
        let mut body = Vec::new();
        for entry in entries {
            body.extend_from_slice(entry.len().to_string().as_bytes());
            body.push(b' ');
            body.extend_from_slice(entry);
        }
        body.into()
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        let server = Arc::clone(&self.server);
        async move {
            let failure = server.write(&body).await.err();
            let is_accepted = failure.is_none();
            server.reports.update(failure);
            is_accepted
        }
        .boxed()
    }
}

impl StreamServer {
    async fn write(&self, body: &[u8]) -> Result<(), String> {
        let mut kept = self.connection.lock().await;
        let mut stream = match kept.take().and_then(|connection| connection.usable_stream(self.idle_limit)) {
            Some(stream) => stream,
            None => self.services.connect(self.remote.clone()).await?,
        };
        let address = || format!("{}:{}", self.remote.host, self.remote.port);
        let writing = async {
            stream.write_all(body).await?;
            stream.flush().await
        };
        match timeout(self.remote.timeout, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("{}: {error}", address())),
            Err(_) => return Err(format!("{}: takes no data for {:?}", address(), self.remote.timeout)),
        }
        *kept = Some(KeptConnection { stream, used_at: Instant::now() });
        Ok(())
    }
}

impl KeptConnection {
    /// The stream, unless the connection has been idle for too long or the server has closed it. Without this check,
    /// the first entries after a restart of the server would be lost.
    fn usable_stream(mut self, idle_limit: Duration) -> Option<Box<dyn RemoteStream>> {
        if self.used_at.elapsed() >= idle_limit {
            return None;
        }
        // Log servers send nothing, so whatever arrives is discarded.
        let mut received = [0; 256];
        loop {
            match self.stream.read(&mut received).now_or_never() {
                None => return Some(self.stream),
                Some(Ok(0) | Err(_)) => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}
