//! stderr, written by a thread of its own: a pager at its first page or a terminal that is held takes nothing, and whoever has
//! something to say must not wait for that, least of all on the way to a changed configuration or to the end.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Says something on stderr, without waiting until somebody reads it.
pub fn tell(text: &str) {
    queue().put(text.as_bytes());
}

/// Waits until everything that was told is written, but not for long.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish();
    }
}

/// For whoever writes one message at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        queue().put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue() -> &'static Queue {
    QUEUE.get_or_init(|| Queue::start(io::stderr()))
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Messages on their way to the writer. Those that do not fit are lost, and their number is told.
#[derive(Debug)]
struct Queue {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Text(Vec<u8>),
    /// Dropped when all before it is written.
    Mark(SyncSender<()>),
}

impl Queue {
    fn start(out: impl Write + Send + 'static) -> Self {
        let (messages, receiver) = sync_channel(MESSAGES);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = thread::Builder::new().name("stderr".to_owned()).spawn({
            let lost = Arc::clone(&lost);
            move || write_all(&receiver, out, &lost)
        });
        // Where there is no room for a thread, the proxy's own cannot start either, and main says so by itself.
        drop(writer);
        Queue { messages, lost }
    }

    fn put(&self, bytes: &[u8]) {
        if self.messages.try_send(Message::Text(bytes.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn finish(&self) {
        let (mark, written) = sync_channel(0);
        if self.messages.try_send(Message::Mark(mark)).is_ok() {
            written.recv_timeout(LAST_WORDS).ok();
        }
    }
}

fn write_all(messages: &Receiver<Message>, mut out: impl Write, lost: &AtomicU64) {
    for message in messages {
        let text = match message {
            Message::Text(text) => text,
            Message::Mark(mark) => {
                drop(mark);
                continue;
            }
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            writeln!(out, "{lost} messages are missing here: nobody read them").ok();
        }
        // Nobody is left to be told when stderr is closed.
        out.write_all(&text).ok();
    }
}

/// Messages that may wait: some screens of a report, or a burst of events.
const MESSAGES: usize = 1024;
const LAST_WORDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_reader_who_does_not_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::start(writer);
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..2 * MESSAGES {
            queue.put(&line);
        }
        queue.finish();
        let read = thread::spawn(move || io::read_to_string(&mut reader).unwrap());
        // Its turn comes when there is room again.
        while queue.messages.try_send(Message::Text(b"heard\n".to_vec())).is_err() {
            thread::yield_now();
        }
        queue.finish();
        drop(queue);
        let text = read.join().unwrap();
        assert!(text.contains(" messages are missing here: nobody read them\n"));
        assert!(text.ends_with("heard\n"));
    }
}
