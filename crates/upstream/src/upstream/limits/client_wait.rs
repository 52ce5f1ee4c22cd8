//! A request in progress that waits for its client: to send more of its body, or to read more of its response. Such a
//! request is no work for the endpoints, although it has a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::request_slots::RequestSlots;
use crate::upstream::socket_budget::client_slots::ClientSlot;

/// What the client of a request has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitingFor {
    RequestBody = 1,
    ResponseReader = 2,
}

/// Whether a request waits for its client. Belongs to its slot, and to what reads from the client.
#[derive(Clone, Debug)]
pub struct ClientWait(Arc<WaitState>);

#[derive(Debug)]
struct WaitState {
    slots: Arc<RequestSlots>,
    client: ClientSlot,
    /// The bits of [`WaitingFor`], or [`ENDED`].
    waiting_for: AtomicU8,
}

impl ClientWait {
    pub(super) fn new(slots: Arc<RequestSlots>, client: ClientSlot) -> Self {
        ClientWait(Arc::new(WaitState { slots, client, waiting_for: AtomicU8::new(0) }))
    }

    /// The client has to go on.
    pub fn begin(&self, waiting_for: WaitingFor) {
        if self.0.waiting_for.fetch_or(waiting_for as u8, Relaxed) == 0 {
            self.0.slots.begin_wait(self.0.client);
        }
    }

    /// The client has gone on.
    pub fn end(&self, waiting_for: WaitingFor) {
        let bit = waiting_for as u8;
        if self.0.waiting_for.fetch_and(!bit, Relaxed) == bit {
            self.0.slots.end_wait(self.0.client);
        }
    }

    /// The request has ended. Nothing begins or ends from now on.
    pub(super) fn finish(&self) {
        let before = self.0.waiting_for.swap(ENDED, Relaxed);
        if before != 0 && before & ENDED == 0 {
            self.0.slots.end_wait(self.0.client);
        }
    }
}

/// The request has no place any more.
const ENDED: u8 = 1 << 7;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::super::request_slots::{RequestSlot, SlotUse};
    use super::*;

    const SLOW: u8 = 1;

    fn client(number: u8) -> ClientSlot {
        ClientSlot::numbered(number)
    }

    fn slots(limit: u32) -> Arc<RequestSlots> {
        let slots = RequestSlots::new();
        slots.set_limit(limit);
        slots
    }

    /// As many requests of a client as there are places for, which all wait for it.
    fn uploads(slots: &Arc<RequestSlots>, of: u8, count: usize) -> Vec<RequestSlot> {
        let mut taken: Vec<_> = (0..count).map_while(|_| slots.try_take(SlotUse::Request, Some(client(of)))).collect();
        taken.iter_mut().for_each(|slot| slot.client_wait().unwrap().begin(WaitingFor::RequestBody));
        taken
    }

    fn requests(slots: &Arc<RequestSlots>, of: u8, count: usize) -> Vec<RequestSlot> {
        (0..count).map_while(|_| slots.try_take(SlotUse::Request, Some(client(of)))).collect()
    }

    /// One client with thirty slow uploads got all ten places, and no other client got any.
    #[test]
    fn requests_that_wait_for_one_client_leave_half_of_the_places_to_others() {
        for (limit, others) in [(10, 5), (3, 2), (2, 1), (1, 1)] {
            let slots = slots(limit);
            let mut held = uploads(&slots, SLOW, 30);
            assert_eq!(held.len(), limit as usize, "a client that is alone has all");
            let of_others = requests(&slots, 2, 30);
            assert_eq!(of_others.len(), others, "of {limit}");
            assert!(
                slots.try_take(SlotUse::Request, Some(client(SLOW))).is_none()
                    && slots.try_take(SlotUse::Request, Some(client(3))).is_none()
            );
            drop(of_others);
            // The client has gone on: its request is work again.
            held[0].client_wait().unwrap().end(WaitingFor::RequestBody);
            assert_eq!(requests(&slots, 2, 30).len(), others - 1);
        }
    }

    #[test]
    fn requests_that_wait_for_nothing_leave_no_places() {
        let slots = slots(4);
        let _held = requests(&slots, SLOW, 30);
        assert!(slots.try_take(SlotUse::Request, Some(client(2))).is_none());
    }

    #[test]
    fn request_waits_for_both_sides_of_its_client_and_not_after_its_end() {
        let slots = slots(1);
        let mut slot = slots.try_take(SlotUse::Request, Some(client(SLOW))).unwrap();
        let wait = slot.client_wait().unwrap().clone();
        wait.begin(WaitingFor::RequestBody);
        wait.begin(WaitingFor::ResponseReader);
        wait.end(WaitingFor::RequestBody);
        assert_eq!(slots.working(), 0, "its response is not read");
        wait.end(WaitingFor::ResponseReader);
        assert_eq!(slots.working(), 1);
        wait.begin(WaitingFor::RequestBody);
        drop(slot);
        wait.end(WaitingFor::RequestBody);
        wait.begin(WaitingFor::ResponseReader);
        let _next = slots.try_take(SlotUse::Request, Some(client(2))).unwrap();
        assert_eq!((slots.active(), slots.working()), (1, 1));
        assert!(slots.try_take(SlotUse::Request, Some(client(3))).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn others_in_the_queue_overtake_a_client_that_half_of_the_places_wait_for() {
        let slots = slots(2);
        let enqueue = |of| Box::pin(slots.enqueue(client(of), 9).unwrap().wait(Duration::from_secs(1)));
        let mut first = slots.try_take(SlotUse::Request, Some(client(SLOW))).unwrap();
        let mut second = slots.try_take(SlotUse::Request, Some(client(SLOW))).unwrap();
        let (mut own, mut other) = (enqueue(SLOW), enqueue(2));
        assert!(own.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        first.client_wait().unwrap().begin(WaitingFor::RequestBody);
        assert!(other.as_mut().now_or_never().is_none(), "half of the places");
        second.client_wait().unwrap().begin(WaitingFor::RequestBody);
        let served = other.as_mut().now_or_never().unwrap().unwrap();
        assert!(own.as_mut().now_or_never().is_none());
        drop((served, first));
        assert!(own.as_mut().now_or_never().is_some(), "no other client waits");
    }

    #[test]
    fn upstream_without_a_limit_counts_no_waits() {
        let slots = RequestSlots::new();
        assert!(slots.try_take(SlotUse::Request, Some(client(SLOW))).unwrap().client_wait().is_none());
    }
}
