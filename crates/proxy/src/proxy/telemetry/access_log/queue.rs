//! The queues of formatted lines between the workers and the writer thread, one for each worker, so that workers do not
//! wait for each other.
//!
//! A queue holds text instead of records: the header values of a record reference the read buffer of the connection, so
//! a stalled writer would retain thousands of such buffers. The size of text can be bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::export::LineOrigin;

/// The lines of one worker.
#[derive(Debug)]
pub(super) struct LineQueue {
    lines: Mutex<LineBatch>,
    /// Bytes from which on further lines are dropped.
    max_bytes: usize,
    lost: Arc<LostLines>,
}

/// Lines lost since the start, by cause.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LostLines {
    /// The queue was full.
    pub(in crate::proxy) full: AtomicU64,
    /// Writing failed.
    pub(in crate::proxy) failed: AtomicU64,
}

/// Complete lines, including their line feeds.
#[derive(Debug, Default)]
pub(super) struct LineBatch {
    pub(super) text: Vec<u8>,
    pub(super) count: u64,
    /// Where each line ends and what it is about, if lines are exported.
    pub(super) origins: Vec<(usize, Option<LineOrigin>)>,
}

impl LineBatch {
    /// The bytes of the lines and their origins. A short line is smaller than its origin.
    fn size(&self) -> usize {
        self.text.len() + size_of_val(&*self.origins)
    }
}

impl LineQueue {
    /// The queue of one of so many workers.
    pub(super) fn new(workers: usize, lost: &Arc<LostLines>) -> Self {
        let max_bytes = (MAX_QUEUED_BYTES / workers.max(1)).max(MIN_QUEUED_BYTES);
        LineQueue { lines: Mutex::default(), max_bytes, lost: Arc::clone(lost) }
    }

    /// Adds the line that `write` appends. If the queue is full, the line is dropped and counted.
    pub(super) fn add(&self, origin: Option<LineOrigin>, write: impl FnOnce(&mut Vec<u8>)) {
        // Only the writer thread may hold the lock, to exchange the buffers.
        let lines = &mut *self.lines.lock();
        if lines.size() >= self.max_bytes {
            self.lost.full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line_start = lines.text.len();
        write(&mut lines.text);
        lines.count += 1;
        // Lines from before the first one with an origin are skipped by their end.
        if origin.is_some() || !lines.origins.is_empty() {
            if lines.origins.is_empty() && line_start > 0 {
                lines.origins.push((line_start, None));
            }
            lines.origins.push((lines.text.len(), origin));
        }
    }

    /// Swaps the queued lines with the cleared buffer of the caller. Returns whether there were any.
    pub(super) fn take(&self, lines: &mut LineBatch) -> bool {
        lines.text.clear();
        lines.origins.clear();
        lines.count = 0;
        // Release the memory of a burst.
        lines.text.shrink_to(RETAINED_CAPACITY);
        lines.origins.shrink_to(RETAINED_ORIGINS);
        std::mem::swap(&mut *self.lines.lock(), lines);
        lines.count > 0
    }
}

/// Of all workers together, with the origins of exported lines. Bridges a disk stall of 0.8 seconds at 50,000 requests
/// per second with lines of 400 bytes.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Of one of many workers.
const MIN_QUEUED_BYTES: usize = 1 << 20;
/// The volume of 20 ms at 20,000 requests per second.
const RETAINED_CAPACITY: usize = 128 << 10;
const RETAINED_ORIGINS: usize = 400;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    impl LineQueue {
        fn add_line(&self, line: &[u8]) {
            self.add(None, |text| text.extend_from_slice(line));
        }
    }

    #[test]
    fn lines_stay_complete_and_in_order() {
        let queue = LineQueue::new(1, &Arc::default());
        let mut lines = LineBatch::default();
        assert!(!queue.take(&mut lines));
        queue.add_line(b"first\n");
        queue.add_line(b"second\n");
        assert!(queue.take(&mut lines));
        assert_eq!((&*lines.text, lines.count), (&b"first\nsecond\n"[..], 2));
        queue.add_line(b"third\n");
        assert!(queue.take(&mut lines));
        assert_eq!(lines.text, b"third\n");
    }

    #[test]
    fn origins_of_short_lines_count() {
        let queue = LineQueue::new(1000, &Arc::default());
        let origin = LineOrigin { time: SystemTime::UNIX_EPOCH, trace: None };
        let entry = size_of::<(usize, Option<LineOrigin>)>() + "200\n".len();
        let expected = MIN_QUEUED_BYTES.div_ceil(entry);
        for _ in 0..expected + 3 {
            queue.add(Some(origin), |text| text.extend_from_slice(b"200\n"));
        }
        assert_eq!(queue.lost.full.load(Ordering::Relaxed), 3);
        let mut lines = LineBatch::default();
        assert!(queue.take(&mut lines));
        assert_eq!((lines.origins.len(), lines.text.len()), (expected, 4 * expected));
    }

    #[test]
    fn full_queue_drops_lines_and_releases_memory() {
        for (workers, max_bytes) in [(1, MAX_QUEUED_BYTES), (4, MAX_QUEUED_BYTES / 4), (1000, MIN_QUEUED_BYTES)] {
            let queue = LineQueue::new(workers, &Arc::default());
            let line = format!("{}\n", "x".repeat(64 * 1024 - 1));
            for _ in 0..max_bytes / line.len() + 3 {
                queue.add_line(line.as_bytes());
            }
            assert_eq!(queue.lost.full.load(Ordering::Relaxed), 3);
            let mut lines = LineBatch::default();
            assert!(queue.take(&mut lines));
            assert_eq!(lines.text.len(), max_bytes);
            queue.add_line(b"later\n");
            assert!(queue.take(&mut lines));
            assert_eq!(lines.text, b"later\n");
            assert!(queue.lines.lock().text.capacity() <= RETAINED_CAPACITY);
        }
    }
}
