//! Log entries as UDP datagrams.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::DeliveryReports;
use crate::plugin_api::batch_queue::BatchSender;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{Remote, RemoteDatagrams};
use crate::plugin_api::services::PluginServices;

/// Sends entries in datagrams. A datagram that was sent counts as accepted, because nothing confirms it.
pub(crate) struct DatagramSender {
    server: Arc<DatagramServer>,
    packing: Packing,
}

/// How entries become datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Each entry is a datagram.
    Whole,
    /// Entries have lines. A datagram has as many of them as fit into this number of bytes, and at least one.
    Lines(usize),
}

struct DatagramServer {
    remote: Remote,
    services: Arc<dyn PluginServices>,
    reports: Arc<DeliveryReports>,
    socket: Mutex<Option<OpenSocket>>,
    /// Whether an entry that is too long was reported.
    has_warned: AtomicBool,
}

struct OpenSocket {
    datagrams: Box<dyn RemoteDatagrams>,
    opened_at: Instant,
}

impl DatagramSender {
    pub(crate) fn new(remote: Remote, packing: Packing, reports: Arc<DeliveryReports>, cx: &BuildCx<'_>) -> Self {
        let services = Arc::clone(cx.services);
        let (socket, has_warned) = (Mutex::new(None), AtomicBool::new(false));
        DatagramSender { server: Arc::new(DatagramServer { remote, services, reports, socket, has_warned }), packing }
    }
}

impl BatchSender for DatagramSender {
    /// In the body, the length of each datagram precedes it, in four bytes.
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        let mut body = Vec::with_capacity(entries.iter().map(|entry| entry.len() + LENGTH_BYTES).sum());
        match self.packing {
            Packing::Whole => entries.iter().for_each(|entry| push_datagram(&mut body, entry)),
            Packing::Lines(max_bytes) => {
                let mut datagram = Vec::new();
                for line in entries.iter().flat_map(|entry| entry.split(|&byte| byte == b'\n')) {
                    if !datagram.is_empty() && datagram.len() + 1 + line.len() > max_bytes {
                        push_datagram(&mut body, &datagram);
                        datagram.clear();
                    }
                    if !datagram.is_empty() {
                        datagram.push(b'\n');
                    }
                    datagram.extend_from_slice(line);
                }
                push_datagram(&mut body, &datagram);
            }
        }
        body.into()
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        let server = Arc::clone(&self.server);
        async move {
            let failure = server.send(body).await.err();
            let is_accepted = failure.is_none();
            server.reports.update(failure);
            is_accepted
        }
        .boxed()
    }
}

impl DatagramServer {
    async fn send(&self, mut body: Bytes) -> Result<(), String> {
        let mut kept = self.socket.lock().await;
        let socket = match kept.take().filter(|socket| socket.opened_at.elapsed() < MAX_SOCKET_AGE) {
            Some(socket) => socket,
            None => {
                let datagrams = self.services.connect_datagrams(self.remote.clone()).await?;
                OpenSocket { datagrams, opened_at: Instant::now() }
            }
        };
        let mut too_long = None;
        while let Some((length, rest)) = body.split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_be_bytes(*length) as usize;
            let datagram = rest.get(..length).unwrap_or(rest);
            if datagram.len() > MAX_DATAGRAM {
                too_long = Some(datagram.len());
            } else {
                let sent = socket.datagrams.send(datagram).await;
                sent.map_err(|error| format!("{}:{}: {error}", self.remote.host, self.remote.port))?;
            }
            body = body.slice(LENGTH_BYTES + datagram.len()..);
        }
        *kept = Some(socket);
        // Sent again, it would be as long.
        if let Some(bytes) = too_long.filter(|_| !self.has_warned.swap(true, Relaxed)) {
            let server = &*self.reports.shown(&self.remote.host);
            warn!(server, bytes, "Log entries longer than a datagram are not sent; use tcp-log");
        }
        Ok(())
    }
}

fn push_datagram(body: &mut Vec<u8>, datagram: &[u8]) {
    let length = u32::try_from(datagram.len()).expect("an entry has less than 4 GiB");
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(datagram);
}

/// The bytes of a length in a body.
const LENGTH_BYTES: usize = 4;
/// The most that an IPv4 datagram carries: 65,535 bytes less the headers of IP and UDP.
const MAX_DATAGRAM: usize = 65_507;
/// After this time, the name of the server is looked up again: nothing else shows that a server has moved.
const MAX_SOCKET_AGE: Duration = Duration::from_secs(30);
