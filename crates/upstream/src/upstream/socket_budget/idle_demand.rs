//! Requests that wait for sockets, and the idle connections that workers close or hand over for them.
//!
//! ```text
//!   waits ─▶ demand ─ a worker closes an idle connection ─▶ looks for the socket ─▶ served: the demand ends
//!               ▲                                                  └ something else has it ─┐
//!               └──────────────────────────── renewed ◀──────────────────────────────────────┘
//! ```

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The demand for the sockets of idle connections: that of each request as long as it waits.
#[derive(Debug, Default)]
pub(in crate::upstream) struct IdleDemand {
    /// Requests that wait.
    waiting: AtomicUsize,
    /// Connections that were closed for them. Their sockets have not been found yet.
    closed: AtomicUsize,
    /// Connections that were handed over by their workers since one was closed.
    handed_over: AtomicUsize,
}

/// The demand of one request, which ends when this is dropped.
pub(in crate::upstream) struct Demand<'d>(&'d IdleDemand);

impl IdleDemand {
    pub(super) fn add(&self) -> Demand<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Demand(self)
    }

    /// Whether an idle connection should be closed.
    pub(in crate::upstream) fn is_pending(&self) -> bool {
        let waiting = self.waiting.load(Relaxed);
        waiting > 0 && waiting > self.closed.load(Relaxed)
    }

    /// Whether the caller must close an idle connection, because a request waits for which none is closed.
    pub(in crate::upstream) fn take(&self) -> bool {
        // Mostly there is none, which a load finds without writing.
        if !self.is_pending() {
            return false;
        }
        let close = |closed: usize| (closed < self.waiting.load(Relaxed)).then_some(closed + 1);
        let is_taken = self.closed.fetch_update(Relaxed, Relaxed, close).is_ok();
        if is_taken {
            self.handed_over.store(0, Relaxed);
        }
        is_taken
    }

    /// Whether a worker may hand an idle connection over to one of its own `requests` that wait for the same endpoint.
    /// It saves a connection, but others may have waited for longer, so they get a socket after some.
    pub(in crate::upstream) fn may_hand_over(&self, requests: usize) -> bool {
        self.waiting.load(Relaxed) <= requests || self.handed_over.fetch_add(1, Relaxed) < MAX_HANDED_OVER
    }
}

impl Demand<'_> {
    /// The request has looked for a socket in vain. Returns whether an idle connection should be closed again.
    pub(super) fn renew(&self) -> bool {
        self.0.closed.swap(0, Relaxed) > 0
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        // The socket of one that was closed is found, or not needed.
        let found = |closed: usize| closed.checked_sub(1);
        self.0.closed.fetch_update(Relaxed, Relaxed, found).ok();
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// How many connections a worker hands over before it closes one for requests of other workers or other endpoints.
const MAX_HANDED_OVER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_stands_until_its_request_is_served() {
        let demand = IdleDemand::default();
        assert!(!demand.is_pending() && !demand.take());
        let first = demand.add();
        assert!(demand.take() && !demand.take(), "one connection for one request");
        assert!(first.renew(), "something else has the socket");
        assert!(demand.is_pending() && demand.take());
        let second = demand.add();
        assert!(demand.take() && !demand.take());
        drop(first);
        assert!(!demand.take(), "one is closed for the second");
        drop(second);
        assert!(!demand.take());
        assert_eq!((demand.waiting.load(Relaxed), demand.closed.load(Relaxed)), (0, 0));
    }

    #[test]
    fn others_get_a_socket_after_some_that_are_handed_over() {
        let demand = IdleDemand::default();
        let own = demand.add();
        assert!((0..100).all(|_| demand.may_hand_over(1)), "nothing else waits");
        let other = demand.add();
        let handed_over = (0..100).take_while(|_| demand.may_hand_over(1)).count();
        assert_eq!(handed_over, MAX_HANDED_OVER);
        assert!(demand.take() && demand.may_hand_over(1));
        drop((own, other));
    }
}
