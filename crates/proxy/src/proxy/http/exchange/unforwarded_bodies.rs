//! The bytes of request bodies that an HTTP/2 connection has received and that are not forwarded yet.
//!
//! The library permits a client to send each body a window ahead of its endpoint, and all of its bodies a larger window
//! together. Over all connections this could be gigabytes. So the bytes are counted for the process, and while there is
//! no room, a connection with such bytes is not read. Then the client has to wait.
//!
//! ```text
//!   FrameStream ─ receive ─▶ UnforwardedBodies ◀─ forward, close ─ RequestBody, Tunnel
//!        └─────── poll_ready ──────┘
//! ```
//!
//! A connection without such bytes is always read. Only complete frames count, without their padding: what the library
//! passes on. A small frame counts as much as the library needs to keep it, because a client that sends single bytes
//! would otherwise take many times the memory that is counted.
//!
//! So a connection that waits has a body that an endpoint has not read to its end, or that the task of its stream
//! discards: it continues when the endpoint reads, or when the timeout of the request ends the body. While it waits, it
//! does not see acknowledgments of its pings either. So the connection closes if it waits for too long, for example
//! because the endpoint waits for the client to read a response first.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::unforwarded_budget::WorkerUnforwarded;

/// The bodies of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct UnforwardedBodies {
    worker: Rc<WorkerUnforwarded>,
    /// The flow-control window of a stream, which bounds the bytes of a body.
    stream_window: usize,
    /// What all bodies count.
    bytes: Cell<usize>,
    /// The bodies that are not read to their end, in the order of their streams.
    bodies: RefCell<Vec<UnforwardedBody>>,
    /// Wakes the connection, which is not read.
    reader: RefCell<Option<Waker>>,
    /// When to check again whether there is room, if the connection is not read. Others may have made room.
    recheck_at: Cell<Option<Instant>>,
    /// Since when the connection is not read, if it is not.
    paused_since: Cell<Option<Instant>>,
    /// How long it was not read before that.
    paused: Cell<Duration>,
}

#[derive(Debug)]
struct UnforwardedBody {
    stream: u32,
    /// The number of the request on its connection.
    request: u64,
    /// Bytes of data.
    data: usize,
    /// What small frames count in addition to their data.
    overhead: usize,
}

impl UnforwardedBody {
    fn counted(&self) -> usize {
        self.data + self.overhead
    }
}

impl UnforwardedBodies {
    pub(in crate::proxy) fn new(worker: &Rc<WorkerUnforwarded>, stream_window: u32) -> Self {
        UnforwardedBodies {
            worker: Rc::clone(worker),
            stream_window: stream_window as usize,
            bytes: Cell::new(0),
            bodies: RefCell::default(),
            reader: RefCell::default(),
            recheck_at: Cell::new(None),
            paused_since: Cell::new(None),
            paused: Cell::new(Duration::ZERO),
        }
    }

    /// Counts the bytes of this stream from now on, as those of this request. Clients open streams in ascending order,
    /// and requests have ascending numbers. The stream may be that of an earlier request so far.
    pub(in crate::proxy) fn open(&self, stream: u32, request: u64) {
        let mut bodies = self.bodies.borrow_mut();
        match bodies.last_mut() {
            Some(last) if last.stream == stream => last.request = request,
            last => {
                debug_assert!(last.is_none_or(|last| last.stream < stream && last.request < request));
                bodies.push(UnforwardedBody { stream, request, data: 0, overhead: 0 });
            }
        }
    }

    /// Counts a frame with this much data. The library drops that of other streams, and rejects more than the window.
    pub(in crate::proxy) fn receive(&self, stream: u32, length: usize) {
        let mut bodies = self.bodies.borrow_mut();
        if let Ok(index) = bodies.binary_search_by_key(&stream, |body| body.stream) {
            self.change(&mut bodies[index], |body| {
                let accepted = length.min(self.stream_window.saturating_sub(body.data));
                body.data += accepted;
                body.overhead += frame_overhead(accepted);
            });
        }
    }

    /// Counts a frame of a request as forwarded.
    pub(in crate::proxy) fn forward_frame(&self, request: u64, length: usize) {
        self.forward(request, length, frame_overhead(length));
    }

    /// Counts bytes of a request as forwarded that are not whole frames. The overhead of its frames counts until all
    /// data is forwarded.
    pub(in crate::proxy) fn forward_bytes(&self, request: u64, length: usize) {
        self.forward(request, length, 0);
    }

    fn forward(&self, request: u64, data: usize, overhead: usize) {
        let mut bodies = self.bodies.borrow_mut();
        if let Some(index) = index_of(&bodies, request) {
            self.change(&mut bodies[index], |body| {
                body.data = body.data.saturating_sub(data);
                body.overhead = if body.data == 0 { 0 } else { body.overhead.saturating_sub(overhead) };
            });
        }
    }

    /// The body has ended, or is not read any more.
    pub(in crate::proxy) fn close(&self, request: u64) {
        self.forward_bytes(request, usize::MAX);
        let mut bodies = self.bodies.borrow_mut();
        if let Some(index) = index_of(&bodies, request) {
            bodies.remove(index);
        }
    }

    fn change(&self, body: &mut UnforwardedBody, apply: impl FnOnce(&mut UnforwardedBody)) {
        let before = body.counted();
        apply(body);
        let after = body.counted();
        if after >= before {
            self.worker.add(after - before);
            self.bytes.set(self.bytes.get() + (after - before));
            return;
        }
        self.worker.remove(before - after);
        self.bytes.set(self.bytes.get() - (before - after));
        if self.has_room()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// A connection may have as many bytes as are free in addition. So clients that send most wait first.
    fn has_room(&self) -> bool {
        self.bytes.get() == 0 || self.bytes.get() <= self.worker.free()
    }

    /// Ready when the connection may be read.
    pub(in crate::proxy) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            if let Some(since) = self.paused_since.take() {
                self.paused.set(self.paused.get() + since.elapsed());
                self.recheck_at.set(None);
                self.reader.take();
            }
            return Poll::Ready(());
        }
        let now = Instant::now();
        if self.paused_since.get().is_none() {
            self.paused_since.set(Some(now));
        }
        let mut reader = self.reader.borrow_mut();
        if reader.is_none() {
            self.worker.count_pause();
        }
        *reader = Some(cx.waker().clone());
        self.recheck_at.set(Some(now + RECHECK_INTERVAL));
        Poll::Pending
    }

    /// How long the connection was not read so far and, if it is not, will not be read before the next check.
    pub(in crate::proxy) fn paused(&self) -> Duration {
        let current = self.paused_since.get().map_or(Duration::ZERO, |since| since.elapsed() + RECHECK_INTERVAL);
        self.paused.get() + current
    }

    /// Whether the connection is not read.
    pub(in crate::proxy) fn is_paused(&self) -> bool {
        self.paused_since.get().is_some()
    }

    /// When to poll the connection again, if it is not read.
    pub(in crate::proxy) fn recheck_at(&self) -> Option<Instant> {
        self.recheck_at.get()
    }

    /// The connection is about to be polled again.
    pub(in crate::proxy) fn begin_recheck(&self) {
        self.recheck_at.set(None);
    }
}

fn index_of(bodies: &[UnforwardedBody], request: u64) -> Option<usize> {
    bodies.binary_search_by_key(&request, |body| body.request).ok()
}

/// What a frame counts in addition to its data. The library does not keep frames without data.
fn frame_overhead(length: usize) -> usize {
    if length == 0 { 0 } else { MIN_FRAME.saturating_sub(length) }
}

impl Drop for UnforwardedBodies {
    fn drop(&mut self) {
        self.worker.remove(self.bytes.get());
    }
}

/// What a frame counts at least: about the memory that the library takes to keep it. The library's own limit of small
/// frames has the same value.
pub(in crate::proxy) const MIN_FRAME: usize = 256;
/// How often a connection that is not read checks whether other connections have made room.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use tokio::time::advance;

    use super::*;
    use crate::proxy::unforwarded_budget::UnforwardedBudget;

    const WINDOW: usize = 10_000;

    fn is_ready(bodies: &UnforwardedBodies) -> bool {
        bodies.poll_ready(&Context::from_waker(Waker::noop())).is_ready()
    }

    fn connections<const COUNT: usize>(limit: usize) -> (Rc<WorkerUnforwarded>, [UnforwardedBodies; COUNT]) {
        let worker = WorkerUnforwarded::new(Arc::new(UnforwardedBudget::new(limit, 1)));
        let connections = std::array::from_fn(|_| UnforwardedBodies::new(&worker, WINDOW as u32));
        (worker, connections)
    }

    #[tokio::test]
    async fn connections_without_bytes_are_always_read() {
        let (worker, [first, second]) = connections(10_000);
        for connection in [&first, &second] {
            connection.open(1, 1);
        }
        first.receive(1, 4_700);
        first.receive(1, 300);
        assert!(is_ready(&first), "half of the limit");
        first.receive(1, 300);
        assert!(!is_ready(&first) && is_ready(&second));
        second.receive(1, 300);
        second.receive(1, 4_400);
        assert_eq!(worker.free(), 0);
        assert!(!is_ready(&first) && !is_ready(&second));
        second.forward_frame(1, 4_400);
        assert!(is_ready(&second), "300 bytes, and 4,400 are free");
        assert!(!is_ready(&first));
        second.close(1);
        first.forward_frame(1, 4_700);
        assert!(is_ready(&first) && is_ready(&second));
        first.close(1);
        assert_eq!(worker.free(), 10_000);
    }

    #[tokio::test]
    async fn small_frames_count_as_the_memory_that_they_take() {
        let (worker, [connection]) = connections(100_000);
        connection.open(1, 1);
        for length in [1, 255, 256, 257, 1000] {
            connection.receive(1, length);
            assert_eq!(worker.free(), 100_000 - length.max(MIN_FRAME), "{length}");
            // One that is not forwarded, so that the data does not become zero.
            connection.receive(1, 300);
            connection.forward_frame(1, length);
            assert_eq!(worker.free(), 100_000 - 300, "{length}");
            connection.forward_frame(1, 300);
        }
        connection.receive(1, 0);
        assert_eq!(worker.free(), 100_000, "a frame without data");
        for _ in 0..196 {
            connection.receive(1, 1);
        }
        assert!(!is_ready(&connection), "196 frames count 50,176 bytes");
        connection.forward_frame(1, 1);
        assert!(is_ready(&connection));
        connection.close(1);
        assert_eq!(worker.free(), 100_000);
    }

    #[tokio::test]
    async fn overhead_of_frames_in_a_tunnel_counts_until_all_data_is_forwarded() {
        let (worker, [connection]) = connections(10_000);
        connection.open(1, 1);
        connection.receive(1, 100);
        connection.receive(1, 100);
        connection.forward_bytes(1, 150);
        assert_eq!(worker.free(), 10_000 - 2 * (MIN_FRAME - 100) - 50);
        connection.forward_bytes(1, 50);
        assert_eq!(worker.free(), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_reads_is_measured() {
        let (_worker, [connection]) = connections(1000);
        connection.open(1, 1);
        let mut expected = Duration::ZERO;
        for _ in 0..2 {
            connection.receive(1, 600);
            assert!(!is_ready(&connection));
            advance(3 * RECHECK_INTERVAL).await;
            assert!(!is_ready(&connection) && connection.is_paused());
            assert_eq!(connection.paused(), expected + 4 * RECHECK_INTERVAL);
            connection.forward_frame(1, 600);
            assert!(is_ready(&connection) && !connection.is_paused());
            expected += 3 * RECHECK_INTERVAL;
            advance(1000 * RECHECK_INTERVAL).await;
            assert!(is_ready(&connection));
            assert_eq!(connection.paused(), expected);
        }
    }

    #[tokio::test]
    async fn only_bodies_that_are_read_count() {
        let (worker, [connection]) = connections(100_000);
        connection.receive(1, 1_000);
        assert_eq!(worker.free(), 100_000, "a stream without a body");
        connection.open(3, 1);
        connection.open(5, 2);
        connection.receive(3, 1_000);
        connection.receive(5, 1_000);
        connection.close(1);
        connection.receive(3, 1_000);
        assert_eq!(worker.free(), 99_000);
        connection.receive(5, 5 * WINDOW);
        assert_eq!(worker.free(), 100_000 - WINDOW, "the library rejects more than the window");
        drop(connection);
        assert_eq!(worker.free(), 100_000);
    }

    #[tokio::test]
    async fn stream_belongs_to_the_last_request_that_opened_it() {
        let (worker, [connection]) = connections(100_000);
        connection.open(3, 1);
        connection.open(5, 2);
        connection.open(5, 3);
        connection.receive(5, 400);
        connection.receive(5, 600);
        connection.close(2);
        assert_eq!(worker.free(), 99_000);
        connection.forward_frame(3, 400);
        assert_eq!(worker.free(), 99_400);
        connection.close(3);
        connection.receive(3, 1_000);
        assert_eq!(worker.free(), 99_000);
    }
}
