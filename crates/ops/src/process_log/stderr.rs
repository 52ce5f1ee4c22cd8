//! A thread that writes to stderr, so that a blocked reader (a pager, a stopped terminal) never delays configuration
//! updates or shutdown.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Queues a message for stderr without waiting for its reader.
pub fn write_stderr(text: &str) {
    queue().push(text.as_bytes());
}

/// Waits until all queued messages are written, at most `FLUSH_TIMEOUT`. Returns at once if the queue is full.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

/// A writer to the queue. Each call of `write` must be a whole message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        queue().push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue() -> &'static StderrQueue {
    QUEUE.get_or_init(|| StderrQueue::start(io::stderr()))
}

static QUEUE: OnceLock<StderrQueue> = OnceLock::new();

/// Messages for the writer thread. Messages that do not fit are dropped and counted.
#[derive(Debug)]
struct StderrQueue {
    messages: SyncSender<StderrMessage>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum StderrMessage {
    Text(Vec<u8>),
    /// Dropped as soon as all messages before it are written, which ends the wait of `flush`.
    FlushMarker(SyncSender<()>),
}

impl StderrQueue {
    fn start(out: impl Write + Send + 'static) -> Self {
        let (messages, receiver) = sync_channel(QUEUE_CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = thread::Builder::new().name("stderr".to_owned()).spawn({
            let dropped = Arc::clone(&dropped);
            move || write_messages(&receiver, out, &dropped)
        });
        // If no thread can be spawned, the proxy's workers cannot start either, and `main` reports that error itself.
        drop(writer);
        StderrQueue { messages, dropped }
    }

    fn push(&self, bytes: &[u8]) {
        if self.messages.try_send(StderrMessage::Text(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (marker, marker_dropped) = sync_channel(0);
        if self.messages.try_send(StderrMessage::FlushMarker(marker)).is_ok() {
            marker_dropped.recv_timeout(FLUSH_TIMEOUT).ok();
        }
    }
}

/// The writer thread. Ends when all senders are dropped.
fn write_messages(messages: &Receiver<StderrMessage>, mut out: impl Write, dropped: &AtomicU64) {
    for message in messages {
        let text = match message {
            StderrMessage::Text(text) => text,
            StderrMessage::FlushMarker(marker) => {
                drop(marker);
                continue;
            }
        };
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            writeln!(out, "{count} messages were dropped here because stderr was blocked").ok();
        }
        // If stderr is closed, the write error cannot be reported.
        out.write_all(&text).ok();
    }
}

/// Capacity in messages: some screens of a report, or a burst of events.
const QUEUE_CAPACITY: usize = 1024;
/// How long `flush` waits at most.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_reader_does_not_block_push() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = StderrQueue::start(writer);
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..2 * QUEUE_CAPACITY {
            queue.push(&line);
        }
        queue.flush();
        let reading = thread::spawn(move || io::read_to_string(&mut reader).unwrap());
        // Succeeds once the queue has space again.
        while queue.messages.try_send(StderrMessage::Text(b"last\n".to_vec())).is_err() {
            thread::yield_now();
        }
        queue.flush();
        drop(queue);
        let text = reading.join().unwrap();
        assert!(text.contains(" messages were dropped here because stderr was blocked\n"));
        assert!(text.ends_with("last\n"));
    }
}
