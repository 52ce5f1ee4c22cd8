//! The requests in progress of an upstream, in all workers, and those that wait until there are fewer.
//!
//! Requests may wait for their client, and so keep their places for as long as it wants. Of one client, such requests
//! count for others only up to half of the limit, so others find the other half of the places. The upstream then has up
//! to half as many requests more, which all wait for their clients.
//!
//! Tunnels are upgraded connections, forwarded connections and sessions of datagrams. Their clients decide how long
//! they last, so they count in the same way for all of their time. The adaptive limit does not count them: it follows
//! the time to the head of responses, which they do not have.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot::{self, Receiver};
use tokio::time::{Instant, timeout_at};

use super::client_wait::ClientWait;
use super::request_queue::{QueueFull, QueueResult, RequestQueue};
use crate::upstream::socket_budget::client_slots::{ClientSlot, SLOTS};

/// Requests in progress, with a limit.
#[derive(Debug)]
pub(in crate::upstream) struct RequestSlots {
    /// How many requests and tunnels may be in progress; at least 1.
    limit: AtomicU32,
    /// How many requests without tunnels may be in progress; at least 1.
    adaptive_limit: AtomicU32,
    active: AtomicU32,
    /// Those of them that wait for their client.
    waiting: PlacesByClient,
    /// Those of them that are tunnels. They are not in `waiting`.
    tunnels: PlacesByClient,
    /// The length of the queue, which a request that ends reads without the lock.
    pending: AtomicUsize,
    queue: Mutex<RequestQueue>,
}

/// A count for each client, and the sum.
#[derive(Debug)]
struct PlacesByClient {
    by_client: [AtomicU32; SLOTS],
    sum: AtomicU32,
}

/// What a slot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum SlotUse {
    Request,
    /// A connection or session that becomes a tunnel, so that the adaptive limit does not apply.
    Tunnel,
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub(in crate::upstream) struct RequestSlot {
    slots: Arc<RequestSlots>,
    /// `None` for what has no client that it could wait for.
    client: Option<ClientSlot>,
    /// Whether it waits for its client. `None` as long as it never has, and for a tunnel.
    wait: Option<ClientWait>,
    is_tunnel: bool,
}

/// A request that waits for a slot. Dropping it leaves the queue.
#[derive(Debug)]
pub(in crate::upstream) struct PlaceInQueue {
    slots: Arc<RequestSlots>,
    client: ClientSlot,
    number: u64,
    // Dropped after the place has left the queue, so that no slot is sent to a receiver that is gone.
    receiver: Receiver<QueueResult>,
}

/// Why a request gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum QueueEnd {
    /// The queue is full, or a client with fewer requests has taken the place.
    Full,
    TimedOut,
}

impl PlacesByClient {
    fn new() -> Self {
        PlacesByClient { by_client: [const { AtomicU32::new(0) }; SLOTS], sum: AtomicU32::new(0) }
    }

    fn sum(&self) -> u32 {
        self.sum.load(SeqCst)
    }

    /// Those of this client, and of others that are counted in the same slot.
    fn of(&self, client: ClientSlot) -> u32 {
        self.by_client[client.index()].load(SeqCst)
    }

    fn begin(&self, client: Option<ClientSlot>) {
        self.sum.fetch_add(1, SeqCst);
        if let Some(client) = client {
            self.by_client[client.index()].fetch_add(1, SeqCst);
        }
    }

    fn end(&self, client: Option<ClientSlot>) {
        if let Some(client) = client {
            self.by_client[client.index()].fetch_sub(1, Relaxed);
        }
        self.sum.fetch_sub(1, Relaxed);
    }
}

impl RequestSlots {
    pub(in crate::upstream) fn new() -> Arc<Self> {
        Arc::new(RequestSlots {
            limit: AtomicU32::new(u32::MAX),
            adaptive_limit: AtomicU32::new(u32::MAX),
            active: AtomicU32::new(0),
            waiting: PlacesByClient::new(),
            tunnels: PlacesByClient::new(),
            pending: AtomicUsize::new(0),
            queue: Mutex::default(),
        })
    }

    /// Sets the limit; requests that are in progress stay.
    pub(in crate::upstream) fn set_limit(self: &Arc<Self>, limit: u32) {
        self.set(&self.limit, limit);
    }

    /// Sets the limit of requests that are no tunnels.
    pub(in crate::upstream) fn set_adaptive_limit(self: &Arc<Self>, limit: u32) {
        self.set(&self.adaptive_limit, limit);
    }

    fn set(self: &Arc<Self>, current: &AtomicU32, limit: u32) {
        let limit = limit.max(1);
        if current.swap(limit, Relaxed) < limit && self.pending.load(SeqCst) > 0 {
            self.serve_queue();
        }
    }

    /// The lower one of both limits.
    pub(in crate::upstream) fn limit(&self) -> u32 {
        self.limit.load(Relaxed).min(self.adaptive_limit.load(Relaxed))
    }

    pub(in crate::upstream) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    pub(in crate::upstream) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// The requests that the endpoints can do something about: those that do not wait for their clients.
    pub(in crate::upstream) fn working(&self) -> u32 {
        self.active().saturating_sub(self.waiting.sum()).saturating_sub(self.tunnels.sum())
    }

    /// A slot, unless all are taken or other requests wait for one. Without a client, nothing is known of one.
    pub(in crate::upstream) fn try_take(
        self: &Arc<Self>,
        slot_use: SlotUse,
        client: Option<ClientSlot>,
    ) -> Option<RequestSlot> {
        let places = self.places(slot_use);
        if self.pending.load(SeqCst) == 0
            && let Some(slot) = self.take_within(places, client)
        {
            return Some(slot);
        }
        let places_for_client = self.places_for(slot_use, client);
        if places_for_client <= places {
            return None;
        }
        // Those that wait for such a place come first.
        self.serve_queue();
        self.take_within(places_for_client, client)
    }

    /// A slot, whatever the limit is.
    pub(in crate::upstream) fn take_anyway(self: &Arc<Self>, client: Option<ClientSlot>) -> RequestSlot {
        self.active.fetch_add(1, SeqCst);
        self.slot(client)
    }

    fn take_within(self: &Arc<Self>, limit: u32, client: Option<ClientSlot>) -> Option<RequestSlot> {
        let next = |active| (active < limit).then_some(active + 1);
        self.active.fetch_update(SeqCst, SeqCst, next).ok()?;
        Some(self.slot(client))
    }

    fn slot(self: &Arc<Self>, client: Option<ClientSlot>) -> RequestSlot {
        RequestSlot { slots: Arc::clone(self), client, wait: None, is_tunnel: false }
    }

    /// How many slots there are for all clients.
    fn places(&self, slot_use: SlotUse) -> u32 {
        let limit = self.limit.load(Relaxed);
        match slot_use {
            SlotUse::Tunnel => limit,
            SlotUse::Request => limit.min(self.adaptive_limit.load(Relaxed).saturating_add(self.tunnels.sum())),
        }
    }

    /// The same for this client, with those of other clients that wait for them, beyond half of the limit for each.
    fn places_for(&self, slot_use: SlotUse, client: Option<ClientSlot>) -> u32 {
        let limit = self.limit.load(Relaxed);
        let waiting = self.waiting.sum().saturating_add(self.tunnels.sum());
        let within_limit = limit.saturating_add(extra(client, limit / 2, waiting, |other| self.held_by(other)));
        if slot_use == SlotUse::Tunnel {
            return within_limit;
        }
        let limit = self.adaptive_limit.load(Relaxed);
        let extra = extra(client, limit / 2, self.waiting.sum(), |other| self.waiting.of(other));
        within_limit.min(limit.saturating_add(self.tunnels.sum()).saturating_add(extra))
    }

    /// How many requests wait for this client, and how many tunnels it has.
    fn held_by(&self, client: ClientSlot) -> u32 {
        self.waiting.of(client).saturating_add(self.tunnels.of(client))
    }

    /// Whether half of the places, or more, wait for this client.
    fn has_half(&self, client: ClientSlot) -> bool {
        let half = |limit: &AtomicU32| (limit.load(Relaxed) / 2).max(1);
        self.held_by(client) >= half(&self.limit) || self.waiting.of(client) >= half(&self.adaptive_limit)
    }

    /// A request waits for its client from now on.
    pub(super) fn begin_wait(self: &Arc<Self>, client: ClientSlot) {
        // Like a place that becomes free: either this sees the queue, or what fills the queue sees this.
        self.waiting.begin(Some(client));
        if self.pending.load(SeqCst) > 0 && self.has_half(client) {
            self.serve_queue();
        }
    }

    pub(super) fn end_wait(&self, client: ClientSlot) {
        self.waiting.end(Some(client));
    }

    /// Waits in the queue, which takes up to `max_pending` requests.
    pub(in crate::upstream) fn enqueue(
        self: &Arc<Self>,
        client: ClientSlot,
        max_pending: usize,
    ) -> Result<PlaceInQueue, QueueEnd> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        let (number, displaced) = queue.push(client, sender, max_pending).map_err(|QueueFull| QueueEnd::Full)?;
        self.pending.store(queue.len(), SeqCst);
        drop(queue);
        let place = PlaceInQueue { slots: Arc::clone(self), client, number, receiver };
        if let Some(displaced) = displaced {
            // The receiver exists as long as its place was in the queue.
            drop(displaced.send(Err(QueueEnd::Full)));
        }
        // A request may have ended before it could see this one.
        self.serve_queue();
        Ok(place)
    }

    /// Gives free slots to the requests that wait for longest, and at last to those of clients for which half of the
    /// places wait.
    fn serve_queue(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue.lock();
            if queue.len() == 0 {
                return;
            }
            let Some(client) = queue.next_client(|client| !self.has_half(client)) else { return };
            let places = self.places_for(SlotUse::Request, Some(client));
            let Some(slot) = self.take_within(places, Some(client)) else { return };
            let next = queue.pop(client);
            self.pending.store(queue.len(), SeqCst);
            drop(queue);
            match next {
                // A slot that cannot be sent is dropped here, without the lock, and so given to the next request.
                Some(sender) => drop(sender.send(Ok(slot))),
                None => drop(slot),
            }
        }
    }
}

/// How many places a client gets in addition: those that wait for others, of each of them beyond `half`. `waiting`: how
/// many places wait for all clients.
fn extra(client: Option<ClientSlot>, half: u32, waiting: u32, waiting_for: impl Fn(ClientSlot) -> u32) -> u32 {
    if waiting <= half {
        return 0;
    }
    let others = (0..).map(ClientSlot::numbered).take(SLOTS).filter(|other| client != Some(*other));
    others.map(|other| waiting_for(other).saturating_sub(half)).fold(0, u32::saturating_add)
}

impl RequestSlot {
    /// What counts the request while it waits for its client. `None` if nothing limits the requests.
    pub(in crate::upstream) fn client_wait(&mut self) -> Option<&ClientWait> {
        let client = self.client.filter(|_| !self.is_tunnel && self.slots.limit() != u32::MAX)?;
        Some(self.wait.get_or_insert_with(|| ClientWait::new(Arc::clone(&self.slots), client)))
    }

    /// The client and an endpoint exchange bytes from now on, for as long as they want.
    pub(in crate::upstream) fn become_tunnel(&mut self) {
        if let Some(wait) = self.wait.take() {
            wait.finish();
        }
        if !std::mem::replace(&mut self.is_tunnel, true) {
            self.slots.tunnels.begin(self.client);
            if self.slots.pending.load(SeqCst) > 0 {
                self.slots.serve_queue();
            }
        }
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        if let Some(wait) = &self.wait {
            wait.finish();
        }
        // First, since the limit of what is no tunnel has the tunnels in addition.
        if self.is_tunnel {
            self.slots.tunnels.end(self.client);
        }
        // Before the queue is read, and the queue is filled before slots are read: one of both sees the other.
        self.slots.active.fetch_sub(1, SeqCst);
        if self.slots.pending.load(SeqCst) > 0 {
            self.slots.serve_queue();
        }
    }
}

impl PlaceInQueue {
    /// Waits for a slot, at most for this time.
    pub(in crate::upstream) async fn wait(mut self, timeout: Duration) -> Result<RequestSlot, QueueEnd> {
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + LONGEST_WAIT);
        match timeout_at(deadline, &mut self.receiver).await {
            Ok(Ok(outcome)) => outcome,
            // The sender is never dropped while the place exists.
            Ok(Err(_)) => Err(QueueEnd::Full),
            Err(_) => Err(QueueEnd::TimedOut),
        }
    }
}

impl Drop for PlaceInQueue {
    fn drop(&mut self) {
        let mut queue = self.slots.queue.lock();
        if queue.remove(self.client, self.number) {
            self.slots.pending.store(queue.len(), SeqCst);
        }
    }
}

/// Instead of a time that the clock cannot represent.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn slots(limit: u32) -> Arc<RequestSlots> {
        let slots = RequestSlots::new();
        slots.set_limit(limit);
        slots
    }

    fn client(number: u8) -> ClientSlot {
        ClientSlot::numbered(number)
    }

    fn take(slots: &Arc<RequestSlots>, count: usize) -> Vec<RequestSlot> {
        (0..count).map_while(|_| slots.try_take(SlotUse::Request, Some(client(0)))).collect()
    }

    #[test]
    fn limit_is_exact() {
        for limit in [1, 2, 1_000_000] {
            let slots = slots(limit);
            let held = take(&slots, limit as usize + 5);
            assert_eq!(held.len(), limit as usize);
            drop(held);
            assert_eq!((slots.active(), take(&slots, 3).len()), (0, 3.min(limit as usize)));
        }
        assert_eq!(slots(0).limit(), 1, "a limit of 0 would reject everything");
    }

    #[test]
    fn threads_together_stay_within_the_limit() {
        let slots = slots(7);
        let slots = &slots;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let held = take(slots, 3);
                        assert!(slots.active() <= 7);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(slots.active(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_get_slots_in_order() {
        let slots = slots(1);
        let mut held = slots.try_take(SlotUse::Request, Some(client(0)));
        let mut waiting: Vec<_> =
            (0..5).map(|number| Box::pin(slots.enqueue(client(number % 2), 5).unwrap().wait(SECOND))).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert_eq!(slots.enqueue(client(0), 5).err(), Some(QueueEnd::Full));
        for next in 0..5 {
            drop(held.take());
            assert!(
                slots.try_take(SlotUse::Request, Some(client(0))).is_none(),
                "no request overtakes those that wait"
            );
            for later in (next + 1..5).rev() {
                assert!(waiting[later].as_mut().now_or_never().is_none(), "{later} before {next}");
            }
            held = Some(waiting[next].as_mut().now_or_never().unwrap().unwrap());
            assert_eq!((slots.active(), slots.pending()), (1, 4 - next));
        }
        drop(held);
        assert_eq!(slots.active(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_leave_the_queue() {
        let slots = slots(1);
        let held = slots.try_take(SlotUse::Request, Some(client(0)));
        let (first, second, third) =
            (slots.enqueue(client(0), 9).unwrap(), slots.enqueue(client(0), 9).unwrap(), slots.enqueue(client(0), 9));
        let mut third = Box::pin(third.unwrap().wait(5 * SECOND));
        let mut second = Box::pin(second.wait(2 * SECOND));
        assert!(third.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(slots.pending(), 2, "the client has disconnected");
        advance(2 * SECOND).await;
        assert_eq!(second.await.unwrap_err(), QueueEnd::TimedOut);
        assert_eq!(slots.pending(), 1);
        drop(held);
        assert!(third.await.is_ok());
        assert_eq!((slots.active(), slots.pending()), (0, 0));
    }

    /// The slot was given to a request whose client has disconnected in the same moment.
    #[tokio::test(start_paused = true)]
    async fn slot_of_a_request_that_is_given_up_goes_to_the_next_one() {
        let slots = slots(1);
        let held = slots.try_take(SlotUse::Request, Some(client(0)));
        let given_up = slots.enqueue(client(0), 9).unwrap();
        let next = slots.enqueue(client(0), 9).unwrap();
        drop(held);
        assert_eq!(slots.active(), 1);
        drop(given_up);
        assert!(next.wait(SECOND).now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn client_with_few_requests_displaces_one_with_many() {
        let slots = slots(1);
        let _held = slots.try_take(SlotUse::Request, Some(client(0)));
        let mut many: Vec<_> = (0..4).map(|_| Some(slots.enqueue(client(1), 4).unwrap())).collect();
        let few: Vec<_> = (0..3).map_while(|_| slots.enqueue(client(2), 4).ok()).collect();
        assert_eq!((few.len(), slots.pending()), (2, 4), "until both have the same number");
        for (index, is_displaced) in [(0, false), (1, false), (2, true), (3, true)] {
            let ended = many[index].take().unwrap().wait(SECOND).now_or_never();
            assert_eq!(ended.is_some(), is_displaced, "{index}");
            assert!(ended.is_none_or(|ended| ended.unwrap_err() == QueueEnd::Full));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn higher_limit_serves_the_queue() {
        let slots = slots(1);
        let _held = slots.try_take(SlotUse::Request, Some(client(0)));
        let waiting = [0, 1, 2].map(|number| slots.enqueue(client(number), 9).unwrap());
        slots.set_limit(3);
        let served = waiting.map(|waiting| waiting.wait(SECOND).now_or_never().map(Result::unwrap));
        assert_eq!(served.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(slots.active(), 3);
    }

    /// Requests that end while others begin to wait, in several threads: no slot is lost, none is given twice.
    #[test]
    fn no_slot_is_lost_between_threads() {
        let slots = slots(2);
        let slots = &slots;
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..500 {
                            let slot = match slots.try_take(SlotUse::Request, Some(client(0))) {
                                Some(slot) => slot,
                                None => slots.enqueue(client(number), 10).unwrap().wait(60 * SECOND).await.unwrap(),
                            };
                            assert!(slots.active() <= 2);
                            tokio::task::yield_now().await;
                            drop(slot);
                        }
                    });
                });
            }
        });
        assert_eq!((slots.active(), slots.pending()), (0, 0));
    }

    /// WebSockets have no response heads, and held the places of an adaptive limit for as long as they were open.
    #[test]
    fn tunnels_take_no_places_of_the_adaptive_limit() {
        let slots = RequestSlots::new();
        slots.set_adaptive_limit(2);
        let mut tunnels: Vec<_> = (0..10).map(|_| slots.take_anyway(Some(client(0)))).collect();
        assert!(slots.try_take(SlotUse::Request, Some(client(1))).is_none());
        tunnels.iter_mut().for_each(RequestSlot::become_tunnel);
        for _ in 0..2 {
            let requests: Vec<_> = (0..9).map_while(|_| slots.try_take(SlotUse::Request, Some(client(1)))).collect();
            assert_eq!((requests.len(), slots.working(), slots.active()), (2, 2, 12));
        }
        drop(tunnels);
        assert_eq!((slots.working(), slots.active()), (0, 0));
        slots.set_limit(3);
        let raw: Vec<_> = (0..9).map_while(|_| slots.try_take(SlotUse::Tunnel, None)).collect();
        assert_eq!(raw.len(), 3, "only the other limit applies to forwarded connections");
    }

    /// One client had all places, with tunnels that were idle.
    #[tokio::test(start_paused = true)]
    async fn tunnels_of_one_client_leave_half_of_the_places_to_others() {
        let slots = slots(4);
        slots.set_adaptive_limit(100);
        let mut tunnels = take(&slots, 9);
        assert_eq!(tunnels.len(), 4, "a client that is alone has all");
        let waiting = slots.enqueue(client(1), 9).unwrap();
        tunnels.iter_mut().for_each(RequestSlot::become_tunnel);
        assert!(tunnels[0].client_wait().is_none(), "it counts already");
        let served = waiting.wait(SECOND).now_or_never().unwrap().unwrap();
        let others: Vec<_> = (1..9).map_while(|of| slots.try_take(SlotUse::Request, Some(client(of)))).collect();
        assert_eq!((others.len(), take(&slots, 9).len()), (1, 0));
        drop((served, others));
        assert_eq!(slots.try_take(SlotUse::Tunnel, Some(client(1))).map(|_| slots.active()), Some(5));
    }
}
