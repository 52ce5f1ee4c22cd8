//! Tests of the store: limits, shares, variants and purges.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::stored_response::head_bytes;
use super::*;
use crate::plugins::proxy_cache::semantics::cache_control::CacheControl;
use crate::plugins::proxy_cache::semantics::storing::Freshness;
use crate::plugins::proxy_cache::semantics::vary::Vary;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn key(target: u16, consumer: u8) -> CacheKey {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&target.to_le_bytes());
    key[16] = consumer;
    CacheKey(key)
}

fn fields(name: &'static str, value: &str) -> HeaderMap {
    [(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect()
}

/// Stores a response of this size to a request with these fields. Returns whether there was room.
fn put(partition: &Arc<Partition>, key: CacheKey, size: usize, request: &HeaderMap) -> bool {
    put_tagged(partition, key, size, request, &[])
}

fn put_tagged(partition: &Arc<Partition>, key: CacheKey, size: usize, request: &HeaderMap, tags: &[&str]) -> bool {
    let vary = Vary::new(request, &fields("vary", "x-a")).unwrap();
    let tags: Box<[Box<[u8]>]> = tags.iter().map(|tag| tag.as_bytes().into()).collect();
    let mut reservation = Reservation::new(partition);
    if !reservation.grow(size + head_bytes(&StoredFields::default(), &vary, &tags)) {
        return false;
    }
    let freshness = Freshness { lifetime: Duration::from_secs(60), initial_age: Duration::ZERO };
    let response = StoredResponse {
        status: StatusCode::OK,
        fields: StoredFields::default(),
        body: Bytes::from(vec![0; size]),
        vary,
        tags,
        directives: CacheControl::default(),
        freshness,
        received: NOW,
        keep_until: NOW + Duration::from_secs(60),
        reservation,
    };
    let (_, generation) = partition.look_up(key, request, NOW);
    partition.insert(key, request, Arc::new(response), generation)
}

fn find(partition: &Partition, key: CacheKey, request: &HeaderMap) -> Option<usize> {
    partition.look_up(key, request, NOW).0.map(|response| response.body.len())
}

#[test]
fn variants_are_selected_by_fields_of_the_request() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    for (value, size) in [("1", 10), ("2", 20), ("1", 30)] {
        assert!(put(&partition, key(1, 0), size, &fields("x-a", value)));
    }
    assert_eq!(find(&partition, key(1, 0), &fields("x-a", "1")), Some(30));
    assert_eq!(find(&partition, key(1, 0), &fields("x-a", "2")), Some(20));
    assert_eq!(find(&partition, key(1, 0), &HeaderMap::new()), None);
    assert_eq!(find(&partition, key(2, 0), &fields("x-a", "1")), None);
    assert_eq!(partition.count().0, 2);
    let later = NOW + Duration::from_secs(60);
    assert!(partition.look_up(key(1, 0), &fields("x-a", "1"), later).0.is_none(), "removed when its time is over");
    assert_eq!((partition.count().0, store.used()), (0, 0));
}

#[test]
fn hostile_targets_do_not_exceed_the_limit_or_remove_what_is_used() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let (shop, other) = (store.partition("shop"), store.partition("other"));
    assert!(put(&other, key(0, 0), 10_000, &HeaderMap::new()));
    assert!(put(&shop, key(0, 0), 10_000, &HeaderMap::new()));
    for target in 1..20_000 {
        assert!(put(&shop, key(target, 0), 5_000, &HeaderMap::new()));
        assert!(store.used() <= store.limit());
        assert_eq!(find(&shop, key(0, 0), &HeaderMap::new()), Some(10_000), "{target}: it is in use");
    }
    assert!(store.evictions() > 19_000, "{}", store.evictions());
    assert_eq!(find(&other, key(0, 0), &HeaderMap::new()), Some(10_000), "another namespace");
    let (variants, queued) = shop.count();
    assert!(queued <= 2 * variants + 16 * 32, "{queued} of {variants}");
    // A namespace that comes later gets its share of what the first one holds.
    for target in 0..200 {
        assert!(put(&other, key(target, 0), 5_000, &HeaderMap::new()));
    }
    let held = [shop.share.held(), other.share.held()];
    assert!(held.iter().all(|held| *held > store.limit() / 3), "{held:?}");
    assert!(!put(&shop, key(1, 0), 1 << 20, &HeaderMap::new()), "larger than all");
}

#[test]
fn queue_does_not_grow_when_a_response_is_replaced() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    for _ in 0..10_000 {
        assert!(put(&partition, key(1, 0), 10, &HeaderMap::new()));
    }
    assert!(partition.count().1 <= 18, "{:?}", partition.count());
    for number in 0..1_000 {
        assert!(put(&partition, key(1, 0), 10, &fields("x-a", &number.to_string())));
    }
    assert_eq!(partition.count().0, 32, "variants of one key");
}

/// Clients that do not read could take memory without a limit if others let responses be removed.
#[test]
fn bodies_count_until_no_client_receives_them() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    let mut reservation = Reservation::new(&partition);
    assert!(reservation.grow(700_000));
    let body = reservation.split_off(Bytes::from(vec![0; 600_000]));
    let sent = body.slice(1..);
    drop((reservation, body));
    assert_eq!(store.used(), 600_000, "the response is removed, and a client still receives it");
    let mut other = Reservation::new(&store.partition("other"));
    assert!(!other.grow(600_000));
    drop(sent);
    assert_eq!(store.used(), 0);
    assert!(other.grow(600_000));
}

#[test]
fn purges_remove_by_key_tag_and_target() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    let none = HeaderMap::new();
    let fill = || {
        for (target, consumer, tags) in [(1, 0, &["a", "b"][..]), (1, 1, &["b"]), (2, 0, &[])] {
            assert!(put_tagged(&partition, key(target, consumer), 10, &none, tags));
        }
    };
    fill();
    assert_eq!(store.purge(&Purge::Key(key(1, 0).to_hex()), None), Some(1));
    assert_eq!(store.purge(&Purge::Key(key(1, 0).to_hex()), None), Some(0));
    assert_eq!(store.purge(&Purge::Key("x".to_owned()), None), None);
    fill();
    assert_eq!(store.purge(&Purge::Tag("b".to_owned()), Some("other")), Some(0));
    assert_eq!(store.purge(&Purge::Tag("b".to_owned()), Some("shop")), Some(2));
    fill();
    assert_eq!(partition.invalidate(key(1, 9)), 2, "for all consumers");
    assert_eq!(find(&partition, key(2, 0), &none), Some(10));
    fill();
    assert_eq!(store.purge(&Purge::All, None), Some(3));
    assert_eq!((partition.count(), store.used()), ((0, 0), 0));
}

#[test]
fn what_was_requested_before_a_purge_is_not_stored() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    let none = HeaderMap::new();
    for purge in [Purge::All, Purge::Tag("x".to_owned()), Purge::Key(key(1, 0).to_hex())] {
        assert!(put(&partition, key(1, 0), 10, &none));
        let (found, generation) = partition.look_up(key(1, 0), &none, NOW);
        store.purge(&purge, None);
        assert!(!partition.insert(key(1, 0), &none, found.unwrap(), generation), "{purge:?}");
    }
}

#[test]
fn purges_at_once_count_each_response_once() {
    let store = Arc::new(CacheStore::new(8 << 20));
    let partition = store.partition("shop");
    let none = HeaderMap::new();
    for target in 0..1000 {
        let tag = if target % 2 == 0 { "even" } else { "odd" };
        assert!(put_tagged(&partition, key(target, 0), 10, &none, &[tag]));
    }
    let removed: usize = std::thread::scope(|scope| {
        let purges = [Purge::All, Purge::Tag("even".to_owned()), Purge::Tag("odd".to_owned()), Purge::All];
        let threads = purges.map(|purge| {
            let store = &store;
            scope.spawn(move || store.purge(&purge, None).unwrap())
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((removed, partition.count(), store.used()), (1000, (0, 0), 0));
    assert!(put(&partition, key(1, 0), 10, &none), "what is requested afterwards is stored");
}

/// A client that sends unsafe requests for other targets must not keep anything from being stored.
#[test]
fn invalidation_concerns_only_its_target() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    let none = HeaderMap::new();
    assert!(put(&partition, key(1, 0), 10, &none));
    let (found, generation) = partition.look_up(key(1, 0), &none, NOW);
    let found = found.unwrap();
    for target in 2..50 {
        partition.invalidate(key(target, 0));
    }
    assert!(partition.insert(key(1, 0), &none, Arc::clone(&found), generation));
    partition.invalidate(key(1, 7));
    assert!(!partition.insert(key(1, 0), &none, Arc::clone(&found), generation));
    // More are removed than are remembered.
    let (_, generation) = partition.look_up(key(1, 0), &none, NOW);
    partition.invalidate(key(1, 0));
    for _ in 0..200 {
        partition.invalidate(key(33, 0));
    }
    assert!(!partition.insert(key(1, 0), &none, found, generation));
}

#[tokio::test(start_paused = true)]
async fn one_of_several_requests_flies() {
    let store = Arc::new(CacheStore::new(1 << 20));
    let partition = store.partition("shop");
    let guard = partition.begin_flight(key(1, 0)).unwrap();
    let flight = partition.begin_flight(key(1, 0)).unwrap_err();
    assert!(partition.begin_flight(key(2, 0)).is_ok());
    let began = tokio::time::Instant::now();
    flight.wait(Duration::from_secs(5)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    flight.wait(Duration::from_secs(5)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5), "later requests do not wait for the same response again");
    let waits = tokio::spawn({
        let flight = flight.clone();
        async move { flight.wait(Duration::from_secs(500)).await }
    });
    tokio::task::yield_now().await;
    drop(guard);
    waits.await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5), "it ended with the flight");
    assert!(partition.begin_flight(key(1, 0)).is_ok());
}

#[test]
fn keys_are_read_as_they_are_written() {
    let key = CacheKey(std::array::from_fn(|index| u8::try_from(index * 7).unwrap()));
    assert_eq!(CacheKey::from_hex(&key.to_hex()), Some(key));
    for text in ["", "0", &"g".repeat(64), &"é".repeat(32)] {
        assert_eq!(CacheKey::from_hex(text), None, "{text}");
    }
}
