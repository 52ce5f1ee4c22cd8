//! The bytes of response bodies that an HTTP/2 connection holds because its client has not read them yet.
//!
//! For each stream, the library accepts some data ahead of the socket and of the client's flow-control window. Over all
//! streams of all connections this could be gigabytes. So the bytes are counted for the process, together with those of
//! [request bodies](super::unforwarded_bodies), and while there is no room, the responses of a connection that holds
//! more than a small part do not continue.
//!
//! ```text
//!   ResponseBody ─ count ─▶ UnsentData ─▶ hyper ─ dropped: sent, or its stream has ended ─┐
//!        └───── next_part ────── UnsentResponses ◀─ CountedBytes ◀──────────────────────┘
//! ```
//!
//! What is left of a response when its last data is sent waits here until the library has returned: the library drops
//! data while it holds a lock, which what is left may need.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::unforwarded_budget::WorkerUnforwarded;

/// The responses of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct UnsentResponses {
    worker: Rc<WorkerUnforwarded>,
    bytes: Cell<usize>,
    /// Wakes the responses that wait for room.
    waiting: RefCell<Vec<Waker>>,
    /// The responses of which the library has all data, and has not sent some of it. No stream with a timer sends them.
    ending: RefCell<Vec<Weak<dyn EndingResponse>>>,
    /// When to check next whether the client reads these. It may be set while there are none.
    next_check: Cell<Option<Instant>>,
    /// Responses whose last data was sent or dropped.
    ended: RefCell<Vec<Rc<dyn Any>>>,
    /// The connection has ended, so nothing takes `ended` any more.
    is_closed: Cell<bool>,
}

impl UnsentResponses {
    pub(in crate::proxy) fn new(worker: &Rc<WorkerUnforwarded>) -> Rc<Self> {
        Rc::new(UnsentResponses {
            worker: Rc::clone(worker),
            bytes: Cell::new(0),
            waiting: RefCell::default(),
            ending: RefCell::default(),
            next_check: Cell::new(None),
            ended: RefCell::default(),
            is_closed: Cell::new(false),
        })
    }

    /// How many bytes of a response may follow at once. `None` if the responses have to wait. A connection may have as
    /// many bytes as are free in addition, or what each one may always have. So clients that leave most unread wait
    /// first.
    pub(in crate::proxy) fn next_part(&self) -> Option<usize> {
        let room = RESERVED.max(self.worker.free()).saturating_sub(self.bytes.get());
        (room >= MIN_ROOM).then(|| room.min(MAX_PART))
    }

    /// Wakes the response when the connection has room because it has sent data. Others may make room, too:
    /// [`RECHECK_INTERVAL`].
    pub(in crate::proxy) fn wake_when_sent(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.worker.count_pause();
        }
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Counts data until what is returned is dropped.
    pub(in crate::proxy) fn count(self: &Rc<Self>, length: usize) -> CountedBytes {
        self.worker.add(length);
        self.bytes.set(self.bytes.get() + length);
        CountedBytes { connection: Rc::clone(self), length }
    }

    /// How many responses have no stream any more that sends them, because the library has all of their data.
    pub(in crate::proxy) fn ending(&self) -> usize {
        self.ending.borrow().len()
    }

    /// The library has all data of a response.
    pub(in crate::proxy) fn begin_ending(&self, response: Weak<dyn EndingResponse>) {
        self.ending.borrow_mut().push(response);
    }

    /// A response of [`Self::begin_ending`] has ended: it is being dropped.
    pub(in crate::proxy) fn end_ending(&self) {
        self.ending.borrow_mut().retain(|response| response.strong_count() > 0);
    }

    /// When to check next whether the client reads the responses of [`Self::begin_ending`]: `interval` from now, unless
    /// that is determined already. `None` without such responses.
    pub(in crate::proxy) fn next_check(&self, interval: Duration) -> Option<Instant> {
        if self.ending.borrow().is_empty() {
            self.next_check.set(None);
        } else if self.next_check.get().is_none() {
            self.next_check.set(Some(Instant::now() + interval));
        }
        self.next_check.get()
    }

    /// Whether the client has not read one of these responses for too long. If so, the next check is after
    /// `grace_period`.
    pub(in crate::proxy) fn has_stalled(&self, grace_period: Duration) -> bool {
        let has_stalled = self.ending.borrow().iter().filter_map(Weak::upgrade).any(|response| response.has_stalled());
        self.next_check.set(has_stalled.then(|| Instant::now() + grace_period));
        has_stalled
    }

    /// Drops what is left of a response when the library has returned.
    pub(in crate::proxy) fn drop_later(&self, response: Rc<dyn Any>) {
        if !self.is_closed.get() {
            self.ended.borrow_mut().push(response);
        }
    }

    /// Ends the responses whose last data was sent or dropped.
    pub(in crate::proxy) fn drop_ended(&self) {
        if !self.ended.borrow().is_empty() {
            drop(self.ended.take());
        }
    }

    /// The connection has ended.
    pub(in crate::proxy) fn close(&self) {
        self.is_closed.set(true);
        self.drop_ended();
    }

    fn remove(&self, length: usize) {
        self.worker.remove(length);
        self.bytes.set(self.bytes.get() - length);
        if !self.waiting.borrow().is_empty() && self.next_part().is_some() {
            for waker in self.waiting.take() {
                waker.wake();
            }
        }
    }
}

/// A response of which the library has all data.
pub(in crate::proxy) trait EndingResponse {
    /// Whether its client has not read it for too long.
    fn has_stalled(&self) -> bool;
}

/// Bytes of one part of a response. Dropping it counts them as sent.
#[derive(Debug)]
pub(in crate::proxy) struct CountedBytes {
    connection: Rc<UnsentResponses>,
    length: usize,
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.connection.remove(self.length);
    }
}

/// What each connection may always have, so that one whose client reads continues when nothing is free. Little, because
/// as many clients as there are connections may read nothing.
const RESERVED: usize = 16 * 1024;
/// A response does not continue with less, so that no parts are tiny. Half of what is reserved, so that one part can
/// follow while another one is on its way to the socket.
const MIN_ROOM: usize = RESERVED / 2;
/// The data of a response that is sent at once: as much as the library accepts ahead of the socket.
const MAX_PART: usize = 64 * 1024;

/// How often a response that waits checks whether other connections have made room.
pub(in crate::proxy) const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::Wake;

    use super::*;
    use crate::proxy::unforwarded_budget::UnforwardedBudget;

    const LIMIT: usize = 16 * RESERVED;

    fn connections<const COUNT: usize>() -> (Rc<WorkerUnforwarded>, [Rc<UnsentResponses>; COUNT]) {
        let worker = WorkerUnforwarded::new(Arc::new(UnforwardedBudget::new(LIMIT, 1)));
        let connections = std::array::from_fn(|_| UnsentResponses::new(&worker));
        (worker, connections)
    }

    #[derive(Default)]
    struct CountedWakes(AtomicUsize);

    impl Wake for CountedWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn data_counts_until_it_is_dropped() {
        let (worker, [connection]) = connections();
        let unsent = connection.count(1000);
        assert_eq!(worker.free(), LIMIT - 1000);
        drop(unsent);
        assert_eq!(worker.free(), LIMIT);
    }

    #[test]
    fn responses_end_when_the_library_has_returned() {
        let (_worker, [connection]) = connections();
        let response = Rc::new(());
        connection.drop_later(Rc::clone(&response) as Rc<dyn Any>);
        assert_eq!(Rc::strong_count(&response), 2);
        connection.drop_ended();
        assert_eq!(Rc::strong_count(&response), 1);
        connection.close();
        connection.drop_later(Rc::clone(&response) as Rc<dyn Any>);
        assert_eq!(Rc::strong_count(&response), 1, "nothing takes it after the end of the connection");
    }

    struct Ending {
        connection: Rc<UnsentResponses>,
        has_stalled: bool,
    }

    impl EndingResponse for Ending {
        fn has_stalled(&self) -> bool {
            self.has_stalled
        }
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            self.connection.end_ending();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn responses_without_a_stream_are_checked() {
        const SECOND: Duration = Duration::from_secs(1);
        let (_worker, [connection]) = connections();
        let begin = |has_stalled| {
            let response = Rc::new(Ending { connection: Rc::clone(&connection), has_stalled });
            let ending: Weak<Ending> = Rc::downgrade(&response);
            connection.begin_ending(ending);
            response
        };
        let after = |interval| Some(Instant::now() + interval);
        assert_eq!(connection.next_check(SECOND), None);
        let read = begin(false);
        let first_check = after(SECOND);
        assert_eq!(connection.next_check(SECOND), first_check);
        tokio::time::advance(SECOND).await;
        assert_eq!(connection.next_check(SECOND), first_check, "later polls do not delay it");
        assert!(!connection.has_stalled(2 * SECOND));
        assert_eq!(connection.next_check(SECOND), after(SECOND));
        let unread = begin(true);
        assert!(connection.has_stalled(2 * SECOND));
        assert_eq!((connection.next_check(SECOND), connection.ending()), (after(2 * SECOND), 2));
        drop(unread);
        assert!(!connection.has_stalled(2 * SECOND));
        drop(read);
        assert_eq!((connection.next_check(SECOND), connection.ending()), (None, 0));
    }

    #[test]
    fn connections_that_hold_most_wait_first() {
        let (_worker, [first, second]) = connections();
        let _half = first.count(LIMIT / 2 - MIN_ROOM);
        assert_eq!(first.next_part(), Some(2 * MIN_ROOM), "as much is free as it holds then");
        let more = first.count(MIN_ROOM);
        assert_eq!((first.next_part(), second.next_part()), (None, Some(MAX_PART)));
        drop(more);
        assert!(first.next_part().is_some());
    }

    #[test]
    fn each_connection_may_hold_a_small_part_when_nothing_is_free() {
        let (worker, [greedy, other, slow]) = connections();
        let _all = greedy.count(LIMIT);
        assert_eq!((worker.free(), greedy.next_part()), (0, None));
        assert_eq!(other.next_part(), Some(RESERVED));
        let [first, second] = [other.count(MIN_ROOM), other.count(MIN_ROOM)];
        assert_eq!(other.next_part(), None);
        drop(first);
        assert_eq!(other.next_part(), Some(MIN_ROOM), "its client reads");
        drop(second);
        let _tiny = slow.count(MIN_ROOM + 1);
        assert_eq!(slow.next_part(), None, "no tiny part follows");
    }

    #[test]
    fn waiting_responses_are_woken_once_there_is_room() {
        let (_worker, [connection]) = connections();
        let held = [connection.count(LIMIT / 2 - MIN_ROOM / 2), connection.count(1), connection.count(1)];
        let [first, second] = [Arc::new(CountedWakes::default()), Arc::new(CountedWakes::default())];
        for _ in 0..3 {
            connection.wake_when_sent(&Arc::clone(&first).into());
        }
        connection.wake_when_sent(&Arc::clone(&second).into());
        let wakes = || (first.0.load(SeqCst), second.0.load(SeqCst));
        let [half, one, another] = held;
        drop(one);
        assert_eq!((wakes(), connection.next_part()), ((0, 0), None));
        drop(another);
        assert_eq!((wakes(), connection.next_part()), ((1, 1), Some(MIN_ROOM)));
        drop(half);
        assert_eq!(wakes(), (1, 1), "they wait no longer");
    }
}
