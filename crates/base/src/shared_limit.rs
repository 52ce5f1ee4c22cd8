//! A limit that several owners share, such as the namespaces whose objects cause what is limited.
//!
//! An owner may hold `TIMES_FREE` times as much as is free: one alone seven eighths of the limit, two seven
//! fifteenths each, and so on. So the owner that holds most waits first, and there is room for others, or there is as
//! soon as something is released. In the same way, a client of an owner may hold as many times as much as the owner can
//! still get, so that the clients of one namespace leave room for each other.
//!
//! ```text
//!   SharedLimit ─ free ──────────────┐
//!     └ Shares ─ by owner ─▶ Share ──┴▶ Held, as long as something is held
//!                              └ by client ─▶ HeldByClient
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// A limit of units, such as connections or entries, with a share for each owner.
#[derive(Debug)]
pub struct SharedLimit {
    limit: usize,
    free: Arc<Semaphore>,
    shares: Shares,
    /// Notified when something is released, for those that wait until their share permits more.
    released: Arc<Notify>,
}

/// Why nothing could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// The owner holds its share.
    Share,
    /// All of the limit is in use.
    All,
}

impl SharedLimit {
    /// `limit`: the units that all owners together can hold.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        SharedLimit {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            shares: Shares::default(),
            released: Arc::default(),
        }
    }

    /// The units that all owners together can hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The units that nothing holds.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// The share of this owner. It takes a lock, so callers keep the result as long as they need it.
    pub fn share(&self, owner: &str) -> Arc<Share> {
        self.shares.of(owner)
    }

    /// Whether [`Self::try_take`] would take one unit now. Reserves nothing.
    pub fn has_room(&self, share: &Share) -> bool {
        share.waiting.load(Relaxed) == 0 && share.room(self.free()) > 0
    }

    /// Takes units, if there are enough, the share permits it, and nothing else of the owner waits.
    pub fn try_take(&self, share: &Arc<Share>, units: u32) -> Result<Held, LimitReached> {
        if share.waiting.load(Relaxed) > 0 {
            return Err(LimitReached::Share);
        }
        let held = share.try_hold(units as usize, self.free()).ok_or(LimitReached::Share)?;
        let free = Arc::clone(&self.free).try_acquire_many_owned(units).map_err(|_| LimitReached::All)?;
        Ok(Held { free: Some(free), _share: held, released: Arc::clone(&self.released) })
    }

    /// Takes units, and waits for them until the deadline. Owners that hold less than a sixteenth of the limit get them
    /// in the order of arrival, before all that hold more.
    pub async fn take(&self, share: &Arc<Share>, units: u32, deadline: Instant) -> Result<Held, LimitReached> {
        self.take_with(share, units, deadline, || {}).await
    }

    /// Like [`Self::take`]. Calls `still_waits` whenever it has looked for units of the share in vain.
    pub async fn take_with(
        &self,
        share: &Arc<Share>,
        units: u32,
        deadline: Instant,
        still_waits: impl Fn(),
    ) -> Result<Held, LimitReached> {
        if let Ok(held) = self.try_take(share, units) {
            return Ok(held);
        }
        let _waiting = WaitingOwner::new(share);
        let count = units as usize;
        let first_in_line = (self.limit / 16).max(count);
        let waiting_for_share = async {
            let _first = share.first.lock().await;
            loop {
                let released = self.released.notified();
                let held = share.try_hold(count, self.free()).or_else(|| share.try_hold_up_to(count, first_in_line));
                if let Some(held) = held {
                    return held;
                }
                still_waits();
                // One that is notified may not need what was released, so the others look themselves.
                drop(timeout(SHARE_CHECK_INTERVAL, released).await);
            }
        };
        let Ok(held) = timeout_at(deadline, waiting_for_share).await else { return Err(LimitReached::Share) };
        match timeout_at(deadline, Arc::clone(&self.free).acquire_many_owned(units)).await {
            Ok(Ok(free)) => Ok(Held { free: Some(free), _share: held, released: Arc::clone(&self.released) }),
            _ => Err(LimitReached::All),
        }
    }
}

/// One that waits for units of its share.
struct WaitingOwner<'s>(&'s Share);

impl<'s> WaitingOwner<'s> {
    fn new(share: &'s Share) -> Self {
        share.waiting.fetch_add(1, Relaxed);
        WaitingOwner(share)
    }
}

impl Drop for WaitingOwner<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Units of a [`SharedLimit`]. Dropping it releases them.
#[derive(Debug)]
pub struct Held {
    /// Always some, until the value is dropped.
    free: Option<OwnedSemaphorePermit>,
    _share: HeldShare,
    released: Arc<Notify>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the share, so that an owner which its share lets in finds them.
        drop(self.free.take());
        self.released.notify_one();
    }
}

/// What each owner holds of one limit.
///
/// An owner that is gone, such as a deleted namespace, is counted until all that it holds is released. One that comes
/// back under the same name before has the same share.
#[derive(Debug, Default)]
pub struct Shares {
    owners: Mutex<HashMap<Arc<str>, Weak<Share>>>,
}

impl Shares {
    /// The share of this owner. Takes a lock, so callers keep the result as long as they need it.
    pub fn of(&self, owner: &str) -> Arc<Share> {
        let mut owners = self.owners.lock();
        if let Some(share) = owners.get(owner).and_then(Weak::upgrade) {
            return share;
        }
        if owners.len() == owners.capacity() {
            // Before the table grows, so that the owners that are gone take no memory for long.
            owners.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share::default());
        owners.insert(owner.into(), Arc::downgrade(&share));
        share
    }
}

/// What one owner holds.
#[derive(Debug, Default)]
pub struct Share {
    held: AtomicUsize,
    /// What its clients hold, in groups. Set by the first one.
    clients: OnceLock<Box<[AtomicUsize; CLIENT_GROUPS]>>,
    /// Those of the owner that wait. The first of them looks for room, and nothing that comes later overtakes them.
    waiting: AtomicUsize,
    first: tokio::sync::Mutex<()>,
}

impl Share {
    /// The units that the owner holds.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How many more units the owner may hold, if this many are free.
    pub fn room(&self, free: usize) -> usize {
        self.room_with(0, free)
    }

    /// The same if `unused` units of those that are held are free for the caller, and part of `free`.
    pub fn room_with(&self, unused: usize, free: usize) -> usize {
        let held = self.held().saturating_sub(unused);
        // Each unit that is taken is one less that is free.
        free.saturating_mul(TIMES_FREE).saturating_sub(held).div_ceil(TIMES_FREE + 1).min(free)
    }

    /// Nothing yet, for a client of the owner. `client`: the number of its group, below `CLIENT_GROUPS`.
    pub fn hold_nothing_for(self: &Arc<Self>, client: usize) -> HeldByClient {
        HeldByClient { share: Arc::clone(self), client: client % CLIENT_GROUPS, units: 0 }
    }

    fn of_client(&self, client: usize) -> &AtomicUsize {
        &self.clients.get_or_init(|| Box::new([const { AtomicUsize::new(0) }; CLIENT_GROUPS]))[client]
    }

    /// Nothing yet, for an owner that takes parts with [`HeldShare::try_grow`].
    pub fn hold_nothing(self: &Arc<Self>) -> HeldShare {
        HeldShare { share: Arc::clone(self), units: 0 }
    }

    /// Counts units as held, if `free` units permit it. The caller must also take them from what is free.
    pub fn try_hold(self: &Arc<Self>, units: usize, free: usize) -> Option<HeldShare> {
        self.try_hold_up_to(units, free.saturating_mul(TIMES_FREE))
    }

    /// Counts units as held, if the owner then holds at most `max` units.
    pub fn try_hold_up_to(self: &Arc<Self>, units: usize, max: usize) -> Option<HeldShare> {
        self.try_add(units, max).then(|| HeldShare { share: Arc::clone(self), units })
    }

    /// Counts units as held, like [`Self::try_hold`], for a holder that counts its units itself.
    pub fn try_count(&self, units: usize, free: usize) -> bool {
        self.try_add(units, free.saturating_mul(TIMES_FREE))
    }

    /// Subtracts units of [`Self::try_count`].
    pub fn uncount(&self, units: usize) {
        self.held.fetch_sub(units, Relaxed);
    }

    fn try_add(&self, units: usize, max: usize) -> bool {
        try_add(&self.held, units, max)
    }
}

fn try_add(counter: &AtomicUsize, units: usize, max: usize) -> bool {
    let add = |held: usize| held.checked_add(units).filter(|held| *held <= max);
    counter.fetch_update(Relaxed, Relaxed, add).is_ok()
}

/// Units that an owner holds. Dropping it subtracts them from its share.
#[derive(Debug)]
pub struct HeldShare {
    share: Arc<Share>,
    units: usize,
}

impl HeldShare {
    /// The units that are held.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Whether the owner may hold what it holds, if this many units are free.
    pub fn is_permitted(&self, free: usize) -> bool {
        self.share.held() <= free.saturating_mul(TIMES_FREE)
    }

    /// Counts further units as held, like [`Share::try_hold`].
    pub fn try_grow(&mut self, units: usize, free: usize) -> bool {
        let has_grown = self.share.try_add(units, free.saturating_mul(TIMES_FREE));
        self.units += if has_grown { units } else { 0 };
        has_grown
    }

    /// Subtracts units that are not held after all.
    pub fn shrink(&mut self, units: usize) {
        let units = units.min(self.units);
        self.units -= units;
        self.share.held.fetch_sub(units, Relaxed);
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        self.share.held.fetch_sub(self.units, Relaxed);
    }
}

/// Units that a group of clients holds of what its owner holds. Dropping it subtracts them.
#[derive(Debug)]
pub struct HeldByClient {
    share: Arc<Share>,
    client: usize,
    units: usize,
}

impl HeldByClient {
    /// Counts further units as held, if the owner can still get `room` units.
    pub fn try_grow(&mut self, units: usize, room: usize) -> bool {
        let has_grown = try_add(self.share.of_client(self.client), units, room.saturating_mul(TIMES_FREE));
        self.units += if has_grown { units } else { 0 };
        has_grown
    }

    /// Subtracts units that are not held after all.
    pub fn shrink(&mut self, units: usize) {
        let units = units.min(self.units);
        if units > 0 {
            self.units -= units;
            self.share.of_client(self.client).fetch_sub(units, Relaxed);
        }
    }
}

impl Drop for HeldByClient {
    fn drop(&mut self) {
        self.shrink(self.units);
    }
}

/// How many groups of clients an owner distinguishes.
pub(crate) const CLIENT_GROUPS: usize = 64;
/// How many times as much as is free an owner may hold.
pub(crate) const TIMES_FREE: usize = 7;
/// How often an owner that waits for its share looks for what others have released.
pub const SHARE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(limit: &SharedLimit, owner: &Arc<Share>) -> Vec<Held> {
        std::iter::from_fn(|| limit.try_take(owner, 1).ok()).collect()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn one_owner_leaves_room_for_others() {
        let limit = SharedLimit::new(80);
        let first = take_all(&limit, &limit.share("first"));
        assert_eq!(first.len(), 70, "an owner that is alone gets nearly all");
        assert_eq!(limit.try_take(&limit.share("first"), 1).unwrap_err(), LimitReached::Share);
        let second = take_all(&limit, &limit.share("second"));
        assert!((7..=10).contains(&second.len()), "{}", second.len());
        drop(first);
        assert_eq!(take_all(&limit, &limit.share("second")).len() + second.len(), 70, "nothing stays reserved");
        drop(second);
        assert_eq!(limit.free(), 80);
    }

    #[test]
    fn room_is_what_can_be_taken() {
        for (size, others) in [(0, 0), (1, 0), (1, 1), (7, 0), (8, 0), (8, 5), (80, 0), (80, 33), (1000, 1)] {
            let limit = SharedLimit::new(size);
            let _others: Vec<_> =
                (0..others).map(|number| limit.try_take(&limit.share(&number.to_string()), 1)).collect();
            let share = limit.share("owner");
            let room = share.room(limit.free());
            assert_eq!(limit.has_room(&share), room > 0, "{others} of {size} are taken");
            let held = take_all(&limit, &share);
            assert_eq!(held.len(), room, "{others} of {size} are taken");
            assert!(!limit.has_room(&share));
        }
    }

    #[test]
    fn many_owners_with_little_each_fill_the_limit() {
        let limit = SharedLimit::new(100);
        let held: Vec<_> = (0..100).map(|number| limit.try_take(&limit.share(&format!("owner {number}")), 1)).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(limit.free(), 0);
    }

    #[test]
    fn smallest_limits() {
        let none = SharedLimit::new(0);
        assert!(none.try_take(&none.share("first"), 1).is_err());
        let one = SharedLimit::new(1);
        let held = one.try_take(&one.share("first"), 1).unwrap();
        assert!(one.try_take(&one.share("first"), 1).is_err());
        assert!(one.try_take(&one.share("second"), 1).is_err());
        drop(held);
        assert!(one.try_take(&one.share("second"), 1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn owners_with_little_get_what_is_released_first() {
        for size in [1, 2, 40] {
            let limit = Arc::new(SharedLimit::new(size));
            let (busy, other) = (limit.share("busy"), limit.share("other"));
            // The busy one holds most, and all of the limit is in use.
            let mut held: Vec<_> =
                (0..size).map(|_| limit.try_take(&busy, 1)).take_while(Result::is_ok).map(Result::unwrap).collect();
            held.extend((0..limit.free()).map(|number| limit.try_take(&limit.share(&number.to_string()), 1).unwrap()));
            let wait_for = |owner: &Arc<Share>| {
                let (limit, owner) = (Arc::clone(&limit), Arc::clone(owner));
                tokio::spawn(async move { limit.take(&owner, 1, soon()).await })
            };
            let waits_longer = wait_for(&busy);
            tokio::task::yield_now().await;
            let waits = wait_for(&other);
            tokio::task::yield_now().await;
            held.remove(0);
            let newcomer = waits.await.unwrap();
            assert!(newcomer.is_ok(), "limit {size}");
            assert_eq!((other.held(), limit.free()), (1, 0));
            drop((held, newcomer));
            assert!(waits_longer.await.unwrap().is_ok(), "limit {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_wait_behind_those_of_the_same_owner() {
        let limit = Arc::new(SharedLimit::new(40));
        let share = limit.share("busy");
        let mut held = take_all(&limit, &share);
        let wait = || {
            let (limit, share) = (Arc::clone(&limit), Arc::clone(&share));
            tokio::spawn(async move { limit.take(&share, 1, soon()).await })
        };
        let first = wait();
        tokio::task::yield_now().await;
        held.pop();
        assert_eq!(limit.try_take(&share, 1).unwrap_err(), LimitReached::Share, "what is free is that of the first");
        let second = wait();
        let first = first.await.unwrap().unwrap();
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap().is_ok());
        assert!(limit.try_take(&share, 1).is_ok(), "nothing waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_and_holds_nothing() {
        let limit = SharedLimit::new(40);
        let held = take_all(&limit, &limit.share("busy"));
        let began = Instant::now();
        assert_eq!(limit.take(&limit.share("busy"), 1, soon()).await.unwrap_err(), LimitReached::Share);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        let _rest: Vec<_> =
            (0..limit.free()).map(|number| limit.try_take(&limit.share(&number.to_string()), 1).unwrap()).collect();
        let other = limit.share("other");
        assert_eq!(limit.take(&other, 1, soon()).await.unwrap_err(), LimitReached::All);
        assert_eq!((other.held(), limit.share("busy").held()), (0, held.len()));
        let none = SharedLimit::new(0);
        assert_eq!(none.take(&none.share("first"), 1, soon()).await.unwrap_err(), LimitReached::All);
    }

    #[test]
    fn owner_that_comes_back_has_what_it_still_holds() {
        let limit = SharedLimit::new(8);
        let held = take_all(&limit, &limit.share("deleted"));
        assert_eq!(held.len(), 7);
        assert_eq!(limit.share("deleted").held(), 7);
        assert!(limit.try_take(&limit.share("deleted"), 1).is_err());
        drop(held);
        assert_eq!(limit.share("deleted").held(), 0);
    }

    #[test]
    fn owners_that_are_gone_take_no_memory() {
        let shares = Shares::default();
        let kept: Vec<_> = (0..10).map(|number| shares.of(&format!("kept {number}"))).collect();
        for number in 0..10_000 {
            shares.of(&format!("owner {number}"));
        }
        assert!(shares.owners.lock().len() < 100, "{}", shares.owners.lock().len());
        assert!(Arc::ptr_eq(&kept[3], &shares.of("kept 3")));
    }

    #[test]
    fn clients_of_one_owner_leave_room_for_each_other() {
        let limit = SharedLimit::new(640);
        let share = limit.share("owner");
        let take_all = |client: usize| -> Vec<_> {
            let take = || {
                let mut of_client = share.hold_nothing_for(client);
                let has_grown = of_client.try_grow(1, share.room(limit.free()));
                has_grown.then(|| limit.try_take(&share, 1).ok()).flatten().map(|held| (of_client, held))
            };
            std::iter::from_fn(take).collect()
        };
        let first = take_all(1);
        assert!((485..=490).contains(&first.len()), "one that is alone gets nearly all of 560: {}", first.len());
        let second = take_all(2);
        assert!(second.len() >= 55, "{}", second.len());
        drop(first);
        assert!(take_all(2).len() + second.len() >= 485, "nothing stays reserved");
        drop(second);
        assert_eq!((share.of_client(1).load(Relaxed), share.of_client(2).load(Relaxed)), (0, 0));
    }

    #[test]
    fn parts_are_counted_together() {
        let shares = Shares::default();
        let share = shares.of("owner");
        let mut held = share.hold_nothing();
        assert!(held.try_grow(50, 100) && held.try_grow(20, 10) && !held.try_grow(1, 10));
        assert!(held.is_permitted(10) && !held.is_permitted(9));
        held.shrink(30);
        assert_eq!((held.units(), share.held()), (40, 40));
        assert!(share.try_count(30, 10) && !share.try_count(1, 10));
        assert_eq!(share.held(), 70);
        share.uncount(30);
        drop(held);
        assert_eq!(share.held(), 0);
    }
}
