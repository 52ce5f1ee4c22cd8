//! Permits for TLS handshakes, which limit how many the process performs at a time.
//!
//! Clients that stop after their ClientHello would hold permits until the handshake timeout. Therefore, while others
//! wait, handshakes that have lasted for [`STALLED_AFTER`] give way: those of the client with the most handshakes
//! first. The next permit goes to the client with the fewest handshakes, and among these to the one that has waited
//! longest. Clients are distinguished as [`counted_address`] does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::counted_address::counted_address;

/// The permits of the process.
#[derive(Debug)]
pub(in crate::proxy) struct HandshakePermits {
    limit: usize,
    handshakes: Mutex<Handshakes>,
}

/// Permission for one handshake. Dropping it permits another one.
#[derive(Debug)]
pub(in crate::proxy) struct HandshakePermit {
    permits: Arc<HandshakePermits>,
    number: u64,
    /// Sent when the handshake must give way.
    displaced: oneshot::Receiver<()>,
}

impl HandshakePermits {
    /// `limit`: the handshakes at a time.
    pub(in crate::proxy) fn new(limit: usize) -> Arc<Self> {
        Arc::new(HandshakePermits { limit, handshakes: Mutex::default() })
    }

    /// Waits for a permit for this client.
    pub(in crate::proxy) async fn acquire(self: &Arc<Self>, client: IpAddr) -> HandshakePermit {
        let mut waiting = match self.begin(counted_address(client)) {
            Ok(permit) => return permit,
            Err(waiting) => waiting,
        };
        loop {
            let next_check = {
                let mut handshakes = self.handshakes.lock();
                let now = Instant::now();
                handshakes.displace_stalled(self.limit, now);
                handshakes.next_check(now)
            };
            if let Ok(Ok(granted)) = timeout_at(next_check, &mut waiting.granted).await {
                return self.permit(granted);
            }
        }
    }

    /// A permit, if one is free, or else a place in the queue.
    fn begin(self: &Arc<Self>, client: IpAddr) -> Result<HandshakePermit, WaitingHandshake> {
        let mut handshakes = self.handshakes.lock();
        if handshakes.active.len() < self.limit {
            let granted = handshakes.start(client, Instant::now());
            drop(handshakes);
            return Ok(self.permit(granted));
        }
        let (sender, granted) = oneshot::channel();
        let number = handshakes.next_number();
        handshakes.change(client, |client| {
            client.waiting.insert(number, sender);
        });
        Err(WaitingHandshake { permits: Arc::clone(self), client, number, granted })
    }

    fn permit(self: &Arc<Self>, granted: Granted) -> HandshakePermit {
        HandshakePermit { permits: Arc::clone(self), number: granted.number, displaced: granted.displaced }
    }

    fn release(&self, number: u64) {
        let mut handshakes = self.handshakes.lock();
        // None if it has given way to another one.
        if handshakes.end(number).is_some() {
            handshakes.start_waiting(self.limit, Instant::now());
        }
    }
}

impl HandshakePermit {
    /// Performs the handshake with this permit. None if it had to give way, because it was too slow.
    pub(in crate::proxy) async fn perform<T>(mut self, handshake: impl Future<Output = T>) -> Option<T> {
        match select(pin!(handshake), &mut self.displaced).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.permits.release(self.number);
    }
}

/// A handshake that waits. Dropping it leaves the queue.
#[derive(Debug)]
struct WaitingHandshake {
    permits: Arc<HandshakePermits>,
    client: IpAddr,
    number: u64,
    granted: oneshot::Receiver<Granted>,
}

impl Drop for WaitingHandshake {
    fn drop(&mut self) {
        let mut is_waiting = false;
        self.permits.handshakes.lock().change(self.client, |client| {
            is_waiting = client.waiting.remove(&self.number).is_some();
        });
        // It may have got a permit that was not taken.
        if !is_waiting && let Ok(granted) = self.granted.try_recv() {
            self.permits.release(granted.number);
        }
    }
}

/// A permit on its way to the handshake that has waited for it. Not yet a [`HandshakePermit`], whose drop takes the
/// lock under which it is sent.
#[derive(Debug)]
struct Granted {
    number: u64,
    displaced: oneshot::Receiver<()>,
}

/// The handshakes in progress and those that wait. Numbers increase, so the lowest one is the oldest.
#[derive(Debug, Default)]
struct Handshakes {
    last_number: u64,
    active: BTreeMap<u64, ActiveHandshake>,
    /// Clients with handshakes in progress or waiting.
    clients: HashMap<IpAddr, Client>,
    /// Clients with handshakes in progress, by their number.
    by_active: BTreeSet<ActivePosition>,
    /// Clients with waiting handshakes, by the number of those in progress, then by the one that has waited longest.
    queue: BTreeSet<QueuePosition>,
}

#[derive(Debug)]
struct ActiveHandshake {
    client: IpAddr,
    since: Instant,
    displace: oneshot::Sender<()>,
}

/// The number of running handshakes of a client, and its address.
type ActivePosition = (usize, IpAddr);
/// The number of running handshakes of a client, the number of the handshake that waits first, and the address.
type QueuePosition = (usize, u64, IpAddr);

/// The handshakes of one client.
#[derive(Debug, Default)]
struct Client {
    active: BTreeSet<u64>,
    waiting: BTreeMap<u64, oneshot::Sender<Granted>>,
}

impl Client {
    /// Its entries in the indexes.
    fn positions(&self, address: IpAddr) -> (Option<ActivePosition>, Option<QueuePosition>) {
        let count = self.active.len();
        let first_waiting = self.waiting.keys().next();
        ((count > 0).then_some((count, address)), first_waiting.map(|first| (count, *first, address)))
    }
}

impl Handshakes {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Changes the handshakes of a client, and the indexes with them.
    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Client)) {
        let client = self.clients.entry(address).or_default();
        let (active, waiting) = client.positions(address);
        if let Some(position) = active {
            self.by_active.remove(&position);
        }
        if let Some(position) = waiting {
            self.queue.remove(&position);
        }
        change(client);
        let (active, waiting) = client.positions(address);
        if active.is_none() && waiting.is_none() {
            self.clients.remove(&address);
        }
        self.by_active.extend(active);
        self.queue.extend(waiting);
    }

    fn start(&mut self, client: IpAddr, now: Instant) -> Granted {
        let number = self.next_number();
        let (displace, displaced) = oneshot::channel();
        self.active.insert(number, ActiveHandshake { client, since: now, displace });
        self.change(client, |client| {
            client.active.insert(number);
        });
        Granted { number, displaced }
    }

    fn end(&mut self, number: u64) -> Option<ActiveHandshake> {
        let ended = self.active.remove(&number)?;
        self.change(ended.client, |client| {
            client.active.remove(&number);
        });
        Some(ended)
    }

    /// Starts handshakes that wait, as long as there are permits.
    fn start_waiting(&mut self, limit: usize, now: Instant) {
        while self.active.len() < limit
            && let Some(&(_, number, address)) = self.queue.first()
        {
            self.start_queued(address, number, now);
        }
    }

    fn start_queued(&mut self, address: IpAddr, number: u64, now: Instant) {
        let mut sender = None;
        self.change(address, |client| sender = client.waiting.remove(&number));
        let granted = self.start(address, now);
        // If the waiting one has just ended, the permit is free again.
        if let Some(Err(granted)) = sender.map(|sender| sender.send(granted)) {
            self.end(granted.number);
        }
    }

    /// Ends stalled handshakes while others wait, and starts those.
    fn displace_stalled(&mut self, limit: usize, now: Instant) {
        let is_stalled = |handshake: &ActiveHandshake| now.saturating_duration_since(handshake.since) >= STALLED_AFTER;
        // Selected before the stalled one ends, so that it is not another handshake of the same client.
        while let Some(&(_, next, address)) = self.queue.first()
            && self.active.values().next().is_some_and(is_stalled)
        {
            let oldest_of = |(_, address): &(usize, IpAddr)| self.clients.get(address)?.active.first().copied();
            let mut oldest = self.by_active.iter().rev().filter_map(oldest_of);
            let stalled = oldest.find(|number| self.active.get(number).is_some_and(is_stalled));
            let Some(ended) = stalled.and_then(|number| self.end(number)) else { return };
            // The handshake may have ended at the same time.
            ended.displace.send(()).ok();
            self.start_queued(address, next, now);
        }
        self.start_waiting(limit, now);
    }

    /// When the oldest handshake is stalled. All that wait check at the same times, so not too often.
    fn next_check(&self, now: Instant) -> Instant {
        let oldest = self.active.values().next().map_or(now, |handshake| handshake.since);
        (oldest + STALLED_AFTER).max(now + CHECK_INTERVAL)
    }
}

/// After which time a handshake gives way to others. With a round trip of half a second it takes no longer.
pub(in crate::proxy) const STALLED_AFTER: Duration = Duration::from_secs(2);
/// The shortest time after which a waiting handshake looks for stalled ones again.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// A handshake that never ends by itself. Its output is whether it had to give way.
    fn stall(permits: &Arc<HandshakePermits>, client: IpAddr) -> tokio::task::JoinHandle<bool> {
        let permits = Arc::clone(permits);
        tokio::spawn(async move {
            let permit = permits.acquire(client).await;
            permit.perform(std::future::pending::<()>()).await.is_none()
        })
    }

    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    fn counts(permits: &HandshakePermits) -> (usize, usize, usize, usize) {
        let handshakes = permits.handshakes.lock();
        (handshakes.active.len(), handshakes.clients.len(), handshakes.by_active.len(), handshakes.queue.len())
    }

    /// With a limit of handshakes in progress at a time, clients that stall cannot make others wait for much longer
    /// than the time after which they give way.
    #[tokio::test(start_paused = true)]
    async fn stalled_handshakes_delay_others_by_a_limited_time() {
        for limit in [1, 2, 100] {
            let permits = HandshakePermits::new(limit);
            let stalled: Vec<_> = (0..3 * limit).map(|_| stall(&permits, client(1))).collect();
            settle().await;
            for number in 2..10 {
                let began = Instant::now();
                let permit = permits.acquire(client(number)).await;
                let waited = began.elapsed();
                assert!(waited <= STALLED_AFTER + CHECK_INTERVAL, "limit {limit}: {waited:?}");
                assert_eq!(permit.perform(async { 7 }).await, Some(7));
            }
            assert!(stalled.iter().any(tokio::task::JoinHandle::is_finished));
            assert!(permits.handshakes.lock().active.len() <= limit);
            stalled.iter().for_each(tokio::task::JoinHandle::abort);
            settle().await;
            assert_eq!(counts(&permits), (0, 0, 0, 0), "limit {limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_of_the_busiest_client_are_given_up_first() {
        let permits = HandshakePermits::new(4);
        // The oldest is that of another client, and all addresses of a network are one client.
        let slow = stall(&permits, client(1));
        settle().await;
        let network = |end: &str| format!("2001:db8:1:1::{end}").parse().unwrap();
        let busy: Vec<_> = ["1", "2", "3"].into_iter().map(|end| stall(&permits, network(end))).collect();
        settle().await;
        let first = permits.acquire(client(2)).await;
        let second = permits.acquire(client(3)).await;
        settle().await;
        assert_eq!(busy.iter().filter(|handshake| handshake.is_finished()).count(), 2);
        assert!(!slow.is_finished());
        drop((first, second));
    }

    /// Handshakes that last long do no harm while there are permits.
    #[tokio::test(start_paused = true)]
    async fn handshakes_give_way_only_to_others() {
        let permits = HandshakePermits::new(2);
        let slow = stall(&permits, client(1));
        tokio::time::advance(10 * STALLED_AFTER).await;
        settle().await;
        drop(permits.acquire(client(2)).await);
        assert!(!slow.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_with_few_handshakes_come_first() {
        let permits = HandshakePermits::new(2);
        let busy = [stall(&permits, client(1)), stall(&permits, client(1))];
        settle().await;
        let waiting: Vec<_> = (0..20).map(|_| stall(&permits, client(1))).collect();
        settle().await;
        let other = stall(&permits, client(2));
        settle().await;
        assert_eq!(counts(&permits), (2, 2, 1, 2));
        busy[0].abort();
        settle().await;
        assert_eq!(counts(&permits), (2, 2, 2, 1), "the client without a handshake is served first");
        assert!(!other.is_finished() && waiting.iter().all(|handshake| !handshake.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_permit_is_lost() {
        let none = HandshakePermits::new(0);
        assert!(tokio::time::timeout(10 * STALLED_AFTER, none.acquire(client(1))).await.is_err());
        assert_eq!(counts(&none), (0, 0, 0, 0));
        // A waiting handshake gets its permit and ends before it takes it.
        let permits = HandshakePermits::new(1);
        let held = permits.acquire(client(1)).await;
        let mut waiting = Box::pin(permits.acquire(client(2)));
        assert!(tokio::time::timeout(Duration::ZERO, waiting.as_mut()).await.is_err());
        drop(held);
        drop(waiting);
        assert_eq!(counts(&permits), (0, 0, 0, 0));
        drop(permits.acquire(client(3)).await);
    }
}
