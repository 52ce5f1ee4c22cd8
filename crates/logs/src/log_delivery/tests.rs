//! Tests of how entries become datagrams.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{DatagramSender, DeliveryReports, Packing};
use crate::plugin_api::batch_queue::BatchSender;
use crate::plugin_api::hidden_texts::HiddenTexts;
use crate::plugin_api::kind::{BuildCx, BuildNotes};
use crate::plugin_api::remote::{Remote, RemoteDatagrams};
use crate::plugin_api::services::PluginServices;
use crate::plugin_api::state::PluginState;

/// Keeps the datagrams that were sent. Fails while there is no socket.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Vec<u8>>>>);

impl PluginServices for Receiver {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(task);
    }

    fn connect_datagrams(&self, _remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteDatagrams>, String>> {
        let receiver = self.clone();
        Box::pin(async move { Ok(Box::new(receiver) as Box<dyn RemoteDatagrams>) })
    }
}

impl RemoteDatagrams for Receiver {
    fn send<'s>(&'s self, datagram: &'s [u8]) -> BoxFuture<'s, io::Result<()>> {
        self.0.lock().push(datagram.to_vec());
        Box::pin(async { Ok(()) })
    }
}

/// The log of a test.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The datagrams for these entries. The host of the server is in a Secret.
async fn datagrams(packing: Packing, entries: &[&[u8]]) -> Vec<Vec<u8>> {
    let receiver = Receiver::default();
    let services: Arc<dyn PluginServices> = Arc::new(receiver.clone());
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "test", notes: &notes };
    let remote = Remote {
        host: "logs.example".to_owned(),
        port: 514,
        namespace: None,
        tls: None,
        timeout: std::time::Duration::from_secs(1),
    };
    let hidden = HiddenTexts::of_object(&state, cx.object);
    hidden.add("key host of Secret s", &remote.host);
    let sender = DatagramSender::new(remote, packing, DeliveryReports::new("host", &cx), &cx);
    let entries: Vec<Bytes> = entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect();
    assert!(sender.send(sender.encode(&entries)).await);
    let sent = receiver.0.lock();
    sent.clone()
}

#[tokio::test]
async fn lines_fill_datagrams_up_to_their_size() {
    let entries: &[&[u8]] = &[b"aaaa\nbbbb", b"cccc", b"a-line-that-is-longer", b"d"];
    let packed = datagrams(Packing::Lines(9), entries).await;
    assert_eq!(packed, [&b"aaaa\nbbbb"[..], b"cccc", b"a-line-that-is-longer", b"d"]);
    let single = datagrams(Packing::Lines(0), entries).await;
    assert_eq!(single, [&b"aaaa"[..], b"bbbb", b"cccc", b"a-line-that-is-longer", b"d"]);
    let whole = datagrams(Packing::Whole, entries).await;
    assert_eq!(whole, [&b"aaaa\nbbbb"[..], b"cccc", b"a-line-that-is-longer", b"d"]);
}

/// The others are sent: an entry that can never be sent must not stop them.
#[tokio::test]
async fn entries_longer_than_a_datagram_are_left_out() {
    let (log, long) = (LogBuffer::default(), vec![b'a'; 65_508]);
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    assert_eq!(datagrams(Packing::Whole, &[b"first", &long, b"last"]).await, [&b"first"[..], b"last"]);
    let longest = &long[1..];
    assert_eq!(datagrams(Packing::Whole, &[longest]).await, [longest]);
    let logged = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(logged.contains("(key host of Secret s)") && !logged.contains("logs.example"), "{logged}");
}
