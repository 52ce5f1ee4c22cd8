//! The requests that each client has in progress with one upstream, on one worker.
//!
//! A client may have [`TIMES_ROOM`] times as many as the upstream can still take. So one client alone can use most of
//! what the upstream may have, and others find room nevertheless.
//!
//! Counting costs each request a few instructions: clients are counted in slots, which the hash of their address
//! selects, and only a client with several requests in progress is compared with the room. Clients with the same slot
//! are counted as one. Another process selects other slots, so a client cannot choose an address that shares the slot
//! of another one.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::LazyLock;

use foldhash::quality::RandomState;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{MAX_WAITING, SHARE_CHECK_INTERVAL, SocketLimit};

/// The slot of a client, the same for all upstreams and workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSlot(u8);

impl ClientSlot {
    /// `client`: the address under which the client is counted.
    pub fn of(client: IpAddr) -> Self {
        // The fast variant puts the addresses of a network into few slots with some of its seeds.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        ClientSlot((HASHER.hash_one(client) % SLOTS as u64) as u8)
    }

    /// The number of the slot, below `SLOTS`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// `number`: below `SLOTS`.
    pub fn numbered(number: u8) -> Self {
        ClientSlot(number)
    }
}

/// The requests in progress by client.
#[derive(Debug)]
pub(in crate::upstream) struct ClientSlots {
    /// Includes the requests that wait for a connection.
    requests: [Cell<u16>; SLOTS],
    /// The sum of them.
    in_progress: Cell<usize>,
    /// Requests that wait until their client has fewer, or the upstream more room.
    waiting: Cell<usize>,
    /// The slots with requests that wait.
    waiting_slots: RefCell<Vec<WaitingSlot>>,
}

/// A slot with requests that wait.
#[derive(Debug)]
struct WaitingSlot {
    slot: ClientSlot,
    waiting: usize,
    /// Notified when one of them may have become possible.
    possible: Rc<Notify>,
}

/// A request in progress, or a connection that serves one client only.
#[derive(Debug)]
pub(in crate::upstream) struct ClientRequest {
    slots: Rc<ClientSlots>,
    slot: ClientSlot,
}

impl ClientSlots {
    pub(in crate::upstream) fn new() -> Rc<Self> {
        Rc::new(ClientSlots {
            requests: [const { Cell::new(0) }; SLOTS],
            in_progress: Cell::new(0),
            waiting: Cell::new(0),
            waiting_slots: RefCell::default(),
        })
    }

    /// The requests of all clients.
    pub(in crate::upstream) fn in_progress(&self) -> usize {
        self.in_progress.get()
    }

    /// Counts a request. `may_have`: whether a client may have this many requests in addition to those of others, as
    /// [`is_within`] decides. It is called only for clients with several requests.
    pub(in crate::upstream) fn try_begin(
        self: &Rc<Self>,
        slot: ClientSlot,
        may_have: impl FnOnce(usize) -> bool,
    ) -> Option<ClientRequest> {
        let is_awaited = self.waiting.get() > 0 && self.waiting_slots.borrow().iter().any(|known| known.slot == slot);
        // What comes later waits behind them.
        if is_awaited { None } else { self.try_begin_next(slot, may_have) }
    }

    /// The same for the request of the client that has waited for longest.
    fn try_begin_next(
        self: &Rc<Self>,
        slot: ClientSlot,
        may_have: impl FnOnce(usize) -> bool,
    ) -> Option<ClientRequest> {
        let requests = &self.requests[usize::from(slot.0)];
        let count = requests.get();
        if count >= ALWAYS && (count == u16::MAX || !may_have(usize::from(count) + 1)) {
            return None;
        }
        requests.set(count + 1);
        self.in_progress.set(self.in_progress.get() + 1);
        Some(ClientRequest { slots: Rc::clone(self), slot })
    }

    /// Counts a request, and waits at most until `deadline` for its client to be allowed to have it.
    pub(in crate::upstream) async fn begin(
        self: &Rc<Self>,
        slot: ClientSlot,
        deadline: Instant,
        may_have: impl Fn(usize) -> bool,
    ) -> Result<ClientRequest, SocketLimit> {
        if let Some(request) = self.try_begin(slot, &may_have) {
            return Ok(request);
        }
        if self.waiting.get() >= MAX_WAITING {
            return Err(SocketLimit::Queue { length: MAX_WAITING });
        }
        let waiting = WaitingRequest::new(self, slot);
        loop {
            let possible = waiting.possible.notified();
            if let Some(request) = self.try_begin_next(slot, &may_have) {
                return Ok(request);
            }
            if Instant::now() >= deadline {
                return Err(SocketLimit::Client { requests: self.requests[usize::from(slot.0)].get().into() });
            }
            // The room of the upstream also grows without a request of this worker that ends.
            drop(timeout_at(deadline.min(Instant::now() + SHARE_CHECK_INTERVAL), possible).await);
        }
    }

    /// Notifies a waiting request of the client that has the fewest requests. If that client may have no more, no other
    /// may: the room is the same for all.
    fn notify_next(&self) {
        let waiting_slots = self.waiting_slots.borrow();
        let requests = |slot: ClientSlot| self.requests[usize::from(slot.0)].get();
        if let Some(next) = waiting_slots.iter().min_by_key(|waiting| requests(waiting.slot)) {
            next.possible.notify_one();
        }
    }
}

/// Whether a client may have this many requests, if the upstream can take `room` more.
pub(in crate::upstream) fn is_within(requests: usize, room: usize) -> bool {
    requests <= room.saturating_mul(TIMES_ROOM)
}

impl Drop for ClientRequest {
    fn drop(&mut self) {
        let requests = &self.slots.requests[usize::from(self.slot.0)];
        requests.set(requests.get() - 1);
        self.slots.in_progress.set(self.slots.in_progress.get() - 1);
        if self.slots.waiting.get() > 0 {
            self.slots.notify_next();
        }
    }
}

/// A request that waits. When it ends to wait, it hands on what it was notified of: there may be room for another one.
struct WaitingRequest<'a> {
    slots: &'a ClientSlots,
    slot: ClientSlot,
    possible: Rc<Notify>,
}

impl<'a> WaitingRequest<'a> {
    fn new(slots: &'a ClientSlots, slot: ClientSlot) -> Self {
        slots.waiting.set(slots.waiting.get() + 1);
        let mut waiting_slots = slots.waiting_slots.borrow_mut();
        let known = waiting_slots.iter_mut().find(|waiting| waiting.slot == slot);
        let possible = match known {
            Some(known) => {
                known.waiting += 1;
                Rc::clone(&known.possible)
            }
            None => {
                let possible = Rc::default();
                waiting_slots.push(WaitingSlot { slot, waiting: 1, possible: Rc::clone(&possible) });
                possible
            }
        };
        WaitingRequest { slots, slot, possible }
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.slots.waiting.set(self.slots.waiting.get() - 1);
        let mut waiting_slots = self.slots.waiting_slots.borrow_mut();
        waiting_slots.retain_mut(|waiting| {
            if waiting.slot == self.slot {
                waiting.waiting -= 1;
            }
            waiting.waiting > 0
        });
        drop(waiting_slots);
        self.slots.notify_next();
    }
}

/// How many slots an upstream has on each worker. They take 128 bytes.
pub(in crate::upstream) const SLOTS: usize = 64;
/// How many requests a client may always have. If the upstream has no room, they wait as those of others do.
const ALWAYS: u16 = 4;
/// How many times as many requests as the upstream can still take a client may have.
const TIMES_ROOM: usize = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn deadline() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Begins as many requests as the client may have, with an upstream that takes `capacity` requests of this worker.
    fn begin_all(slots: &Rc<ClientSlots>, slot: ClientSlot, capacity: usize) -> Vec<ClientRequest> {
        let may_have = |requests| is_within(requests, capacity.saturating_sub(in_progress(slots)));
        std::iter::from_fn(|| (in_progress(slots) < capacity).then(|| slots.try_begin(slot, may_have)).flatten())
            .collect()
    }

    fn in_progress(slots: &ClientSlots) -> usize {
        let sum = slots.requests.iter().map(|requests| usize::from(requests.get())).sum();
        assert_eq!(slots.in_progress(), sum);
        sum
    }

    #[test]
    fn each_client_leaves_slots_for_others() {
        let slots = ClientSlots::new();
        let first = begin_all(&slots, ClientSlot(1), 200);
        assert_eq!(first.len(), 150, "a client that is alone gets most");
        let second = begin_all(&slots, ClientSlot(2), 200);
        assert!((30..=40).contains(&second.len()), "{}", second.len());
        let third = begin_all(&slots, ClientSlot(3), 200);
        assert!(third.len() >= 5, "{}", third.len());
        drop(first);
        assert!(begin_all(&slots, ClientSlot(2), 200).len() > 80, "nothing stays reserved");
        drop((second, third));
        assert_eq!(in_progress(&slots), 0);
    }

    #[test]
    fn clients_with_few_requests_are_not_compared() {
        let slots = ClientSlots::new();
        let few: Vec<_> = (0..ALWAYS).map(|_| slots.try_begin(ClientSlot(0), |_| unreachable!())).collect();
        assert!(few.iter().all(Option::is_some));
        assert!(slots.try_begin(ClientSlot(0), |requests| { requests != 5 }).is_none());
        for capacity in 0..=2 {
            assert_eq!(begin_all(&ClientSlots::new(), ClientSlot(0), capacity).len(), capacity);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_until_their_client_has_fewer() {
        let slots = ClientSlots::new();
        let mut held = begin_all(&slots, ClientSlot(0), 40);
        let may_have = |requests| is_within(requests, 40 - in_progress(&slots));
        let release = async {
            tokio::task::yield_now().await;
            assert_eq!(slots.waiting.get(), 1);
            held.truncate(10);
        };
        let (request, ()) = tokio::join!(slots.begin(ClientSlot(0), deadline(), may_have), release);
        drop(request.unwrap());
        let began = Instant::now();
        let refused = slots.begin(ClientSlot(0), deadline(), |_| false).await.unwrap_err();
        assert_eq!((refused, began.elapsed()), (SocketLimit::Client { requests: 10 }, PATIENCE));
        assert_eq!((slots.waiting.get(), in_progress(&slots)), (0, 10));
    }

    /// Other clients have waited for longer, but have too many requests themselves.
    #[tokio::test(start_paused = true)]
    async fn request_begins_as_soon_as_its_client_may_have_it() {
        let slots = ClientSlots::new();
        let mut held: Vec<_> = [1, 2].map(|slot| begin_all(&slots, ClientSlot(slot), 200)).into();
        let few: Vec<_> = (0..ALWAYS).map(|_| slots.try_begin(ClientSlot(0), |_| true).unwrap()).collect();
        let capacity = in_progress(&slots) + 4;
        let may_have = |requests| is_within(requests, capacity - in_progress(&slots));
        // Without these, this client may have another two requests, and those with many may not.
        let filling: Vec<_> = (0..4).map(|_| slots.try_begin(ClientSlot(3), |_| true).unwrap()).collect();
        let began = Instant::now();
        let others = async {
            let waiting = [1, 2, 1, 2].map(|slot| slots.begin(ClientSlot(slot), deadline(), may_have));
            futures_util::future::join_all(waiting).await
        };
        let own = async {
            let waiting = [0, 0].map(|slot| slots.begin(ClientSlot(slot), deadline(), may_have));
            let begun = futures_util::future::join_all(waiting).await;
            (began.elapsed(), begun)
        };
        let release = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(slots.waiting.get(), 6);
            drop(filling);
        };
        let (others, (waited, own), ()) = tokio::join!(others, own, release);
        assert!(own.iter().all(Result::is_ok), "{own:?}");
        assert_eq!(waited, Duration::ZERO, "not with the next check");
        assert!(others.iter().all(Result::is_err), "{others:?}");
        held.clear();
        drop((few, own));
        assert_eq!((slots.waiting.get(), in_progress(&slots)), (0, 0));
        assert!(slots.waiting_slots.borrow().is_empty());
    }

    /// The request that was notified is given up before it begins.
    #[tokio::test(start_paused = true)]
    async fn next_request_begins_in_place_of_one_that_is_given_up() {
        let wait = |slots: &Rc<ClientSlots>, slot, limit| {
            let slots = Rc::clone(slots);
            spawn_local(async move { slots.begin(ClientSlot(slot), deadline(), |requests| requests <= limit).await })
        };
        let test = async {
            let slots = ClientSlots::new();
            let mut held = begin_all(&slots, ClientSlot(0), 40);
            let limit = held.len();
            // Of a client that has fewer requests, and so is notified first. It may never have another one.
            let few = begin_all(&slots, ClientSlot(1), 40);
            assert!(few.len() < limit);
            let (given_up, waiting) = (wait(&slots, 1, 0), wait(&slots, 0, limit));
            tokio::task::yield_now().await;
            assert_eq!(slots.waiting.get(), 2);
            let began = Instant::now();
            held.pop();
            given_up.abort();
            assert!(waiting.await.unwrap().is_ok());
            assert_eq!(began.elapsed(), Duration::ZERO, "not with the next check");
        };
        LocalSet::new().run_until(test).await;
    }

    #[test]
    fn clients_are_spread_over_all_slots() {
        let slots: std::collections::HashSet<_> =
            (0..1000_u32).map(|number| ClientSlot::of(IpAddr::from(number.to_be_bytes())).0).collect();
        assert!(slots.len() > SLOTS * 9 / 10, "{}", slots.len());
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(ClientSlot::of(client), ClientSlot::of(client));
    }
}
