//! Tests of the limit of connections to endpoints.

use std::net::IpAddr;

use super::client_slots::{ClientSlot, ClientSlots, is_within};
use super::*;

const NAMESPACE: &str = "team";

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn take(budget: &SocketBudget, upstream: &Arc<UpstreamSockets>, count: usize) -> Vec<SocketPermit> {
    take_in(NAMESPACE, budget, upstream, count).await
}

async fn take_in(
    namespace: &str,
    budget: &SocketBudget,
    upstream: &Arc<UpstreamSockets>,
    count: usize,
) -> Vec<SocketPermit> {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(budget.acquire(upstream, namespace, deadline()).await.unwrap());
    }
    permits
}

/// As many sockets as new upstreams of a namespace get without waiting.
fn take_all(budget: &SocketBudget, namespace: &str) -> Vec<SocketPermit> {
    let upstreams = std::iter::repeat_with(Arc::<UpstreamSockets>::default).take(budget.sockets.limit() + 1);
    let permits = upstreams.map(|upstream| budget.try_acquire(&upstream, upstream.namespace(budget, namespace)));
    permits.map_while(|permit| permit).collect()
}

#[tokio::test(start_paused = true)]
async fn one_upstream_cannot_take_all_sockets() {
    let budget = SocketBudget::new(40);
    let (busy, other, third): (Arc<UpstreamSockets>, Arc<UpstreamSockets>, Arc<UpstreamSockets>) = Default::default();
    let held = take(&budget, &busy, 20).await;
    let limit = budget.acquire(&busy, NAMESPACE, deadline()).await.unwrap_err();
    assert_eq!(limit, SocketLimit::Share { share: 10, limit: 40 });
    let others = take_in("other", &budget, &other, 10).await;
    assert!(budget.acquire(&other, "other", deadline()).await.is_err());
    let thirds = take_in("third", &budget, &third, 9).await;
    let limit = budget.acquire(&third, "third", deadline()).await.unwrap_err();
    assert_eq!(limit, SocketLimit::Namespace { held: 9, limit: 40 }, "the last one is left to others");
    let fourths = take_in("fourth", &budget, &Arc::default(), 1).await;
    let fifth = Arc::default();
    assert_eq!(budget.acquire(&fifth, "fifth", deadline()).await.unwrap_err(), SocketLimit::Process { limit: 40 });
    assert_eq!(fifth.held.load(Relaxed), 0, "a failed request holds nothing");
    assert!(budget.is_scarce());
    drop((held, others, thirds, fourths));
    assert!(!budget.is_scarce());
    assert_eq!(take(&budget, &busy, 20).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_get_closed_sockets() {
    let budget = Arc::new(SocketBudget::new(8));
    let (busy, other) = (Arc::default(), Arc::default());
    let mut held = take(&budget, &busy, 4).await;
    let mut others = take(&budget, &other, 2).await;
    let waiting = tokio::spawn({
        let (budget, busy) = (Arc::clone(&budget), Arc::clone(&busy));
        async move { budget.acquire(&busy, NAMESPACE, deadline()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    assert!(busy.wanted.take(), "an idle connection of the same upstream would help");
    assert!(!budget.wanted.take(), "others would not");
    held.truncate(1);
    waiting.await.unwrap().unwrap();
    // Sockets of another upstream help too, if more than half is free then.
    held.extend(take(&budget, &busy, 1).await);
    let waiting = tokio::spawn({
        let (budget, busy) = (Arc::clone(&budget), Arc::clone(&busy));
        async move { budget.acquire(&busy, NAMESPACE, deadline()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    others.clear();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn queue_of_an_upstream_is_limited() {
    let budget = Arc::new(SocketBudget::new(1));
    let upstream = Arc::new(UpstreamSockets::default());
    let _held = budget.acquire(&upstream, NAMESPACE, deadline()).await.unwrap();
    let waiting: Vec<_> = (0..MAX_WAITING)
        .map(|_| {
            let (budget, upstream) = (Arc::clone(&budget), Arc::clone(&upstream));
            tokio::spawn(async move { budget.acquire(&upstream, NAMESPACE, deadline()).await.map(drop) })
        })
        .collect();
    while upstream.waiting.load(Relaxed) < MAX_WAITING {
        tokio::task::yield_now().await;
    }
    let limit = budget.acquire(&upstream, NAMESPACE, deadline()).await.unwrap_err();
    assert_eq!(limit, SocketLimit::Queue { length: MAX_WAITING });
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_err());
    }
    assert_eq!(upstream.waiting.load(Relaxed), 0);
    assert!(
        !budget.wanted.is_pending() && !upstream.wanted.is_pending(),
        "nothing is shed for a request that has ended"
    );
}

#[tokio::test(start_paused = true)]
async fn one_namespace_cannot_take_all_sockets() {
    let budget = Arc::new(SocketBudget::new(80));
    let mut held = take_all(&budget, "busy");
    assert_eq!(held.len(), 70, "a namespace that is alone gets nearly all");
    assert!(budget.is_scarce());
    let limit = budget.acquire(&Arc::default(), "busy", deadline()).await.unwrap_err();
    assert_eq!(limit, SocketLimit::Namespace { held: 70, limit: 80 });
    let others = take_all(&budget, "other");
    assert!(others.len() >= 7, "{}", others.len());
    let rest: Vec<_> = std::iter::repeat_with(|| take_all(&budget, &format!("{}", fastrand::u64(..))))
        .take_while(|permits| !permits.is_empty())
        .collect();
    assert_eq!(budget.sockets.free(), 0);
    // Requests of the busy namespace have waited for longer, and the next socket is that of another one.
    let wait_in = |namespace: &'static str| {
        let budget = Arc::clone(&budget);
        tokio::spawn(async move { budget.acquire(&Arc::default(), namespace, deadline()).await })
    };
    let busy: Vec<_> = (0..100).map(|_| wait_in("busy")).collect();
    tokio::task::yield_now().await;
    assert!(budget.wanted.is_pending(), "an idle connection of any namespace would help");
    let newcomer = wait_in("newcomer");
    tokio::task::yield_now().await;
    held.truncate(69);
    assert!(newcomer.await.unwrap().is_ok());
    for waiting in busy {
        assert!(waiting.await.unwrap().is_err());
    }
    drop((held, others, rest));
    assert_eq!(take_all(&budget, "other").len(), 70, "nothing stays reserved");
    assert_eq!(budget.sockets.free(), 80);
}

#[tokio::test(start_paused = true)]
async fn smallest_limits_of_sockets() {
    let none = SocketBudget::new(0);
    assert!(take_all(&none, NAMESPACE).is_empty());
    assert!(none.acquire(&Arc::default(), NAMESPACE, deadline()).await.is_err());
    assert_eq!(none.room(&UpstreamSockets::default(), NAMESPACE), 0);
    let one = SocketBudget::new(1);
    let held = take_all(&one, NAMESPACE);
    assert_eq!(held.len(), 1);
    drop(held);
    assert_eq!(take_all(&one, "other").len(), 1);
}

/// Its connections last, for example because their responses are not read.
#[test]
fn namespace_that_was_deleted_and_created_again_has_one_share() {
    let budget = SocketBudget::new(80);
    let held = take_all(&budget, "deleted");
    assert!(take_all(&budget, "deleted").is_empty());
    drop(held);
    assert_eq!(take_all(&budget, "deleted").len(), 70);
}

#[test]
fn room_is_what_an_upstream_can_open() {
    for (others, of_others) in [(0, 1), (0, 40), (40, 0), (60, 0), (70, 0)] {
        let budget = SocketBudget::new(80);
        let _others: Vec<_> = (0..others).map(|number| take_all(&budget, &number.to_string()).pop()).collect();
        let (upstream, sibling) = (Arc::<UpstreamSockets>::default(), Arc::<UpstreamSockets>::default());
        let namespace = upstream.namespace(&budget, NAMESPACE);
        let _siblings: Vec<_> = (0..of_others).map(|_| budget.try_acquire(&sibling, namespace)).collect();
        let room = budget.room(&upstream, NAMESPACE);
        let opened: Vec<_> = std::iter::from_fn(|| budget.try_acquire(&upstream, namespace)).collect();
        assert_eq!(opened.len(), room, "{others} sockets of others, {of_others} of the namespace");
        assert_eq!(budget.room(&upstream, NAMESPACE), 0);
    }
}

#[test]
fn client_cannot_take_all_connections_of_an_upstream() {
    let budget = SocketBudget::new(400);
    let (upstream, clients) = (Arc::<UpstreamSockets>::default(), ClientSlots::new());
    let namespace = upstream.namespace(&budget, NAMESPACE);
    let open = |client: ClientSlot| {
        let may_have = |requests| is_within(requests, budget.room(&upstream, NAMESPACE));
        let request = clients.try_begin(client, may_have)?;
        Some((request, budget.try_acquire(&upstream, namespace)?))
    };
    let slots: Vec<_> = (0..=255).map(|number| ClientSlot::of(IpAddr::from([192, 0, 2, number]))).collect();
    let busy = slots[0];
    let held: Vec<_> = std::iter::from_fn(|| open(busy)).collect();
    assert_eq!(held.len(), 150, "three quarters of what the upstream may have");
    let others: Vec<_> = slots.into_iter().filter(|slot| *slot != busy).filter_map(open).collect();
    assert_eq!(others.len(), 50);
}
