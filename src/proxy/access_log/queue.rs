//! Lines on their way to the thread that writes them.
//!
//! It is text that waits and not what the text is made of: the fields of a request are parts of the buffer that it was read
//! into, and a writer that is held up would hold thousands of such buffers. Text has a size that can be bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: Mutex<Lines>,
    lost: Arc<Lost>,
}

/// Lines that were lost since the start, by why.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// The queue was full.
    pub(crate) full: AtomicU64,
    /// They could not be written.
    pub(crate) failed: AtomicU64,
}

/// Whole lines, with their ends.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) count: u64,
}

impl Queue {
    /// A line that has no room is dropped and counted.
    pub(super) fn add(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.text.len() + line.len() > MOST {
            drop(lines);
            self.lost.full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.text.push_str(line);
        lines.count += 1;
    }

    /// Takes what waits, for the memory of what was taken before. Says whether there was anything.
    pub(super) fn take(&self, lines: &mut Lines) -> bool {
        lines.text.clear();
        lines.count = 0;
        // The memory of a busy moment is not kept for good.
        lines.text.shrink_to(KEPT);
        std::mem::swap(&mut *self.lines.lock(), lines);
        lines.count > 0
    }

    pub(super) fn failed(&self, count: u64) {
        self.lost.failed.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> &Arc<Lost> {
        &self.lost
    }
}

/// At 50,000 requests a second with lines of 400 bytes it is most of a second's delay of the disk.
const MOST: usize = 16 << 20;
/// What gathers in 20 ms at 20,000 requests a second.
const KEPT: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let queue = Queue::default();
        let mut lines = Lines::default();
        assert!(!queue.take(&mut lines));
        queue.add("first\n");
        queue.add("second\n");
        assert!(queue.take(&mut lines));
        assert_eq!((lines.text.as_str(), lines.count), ("first\nsecond\n", 2));
        queue.add("third\n");
        assert!(queue.take(&mut lines));
        assert_eq!(lines.text, "third\n");
    }

    #[test]
    fn what_nobody_writes_is_bounded_counted_and_its_memory_given_back() {
        let queue = Queue::default();
        let line = format!("{}\n", "x".repeat(64 * 1024 - 1));
        for _ in 0..MOST / line.len() + 3 {
            queue.add(&line);
        }
        assert_eq!(queue.lost().full.load(Ordering::Relaxed), 3);
        let mut lines = Lines::default();
        assert!(queue.take(&mut lines));
        assert_eq!(lines.text.len(), MOST);
        queue.add("later\n");
        assert!(queue.take(&mut lines));
        assert_eq!(lines.text, "later\n");
        assert!(queue.lines.lock().text.capacity() <= KEPT);
    }
}
