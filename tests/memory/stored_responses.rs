//! Limits what a stored response takes in addition to its bytes, and what an identifier of a limit takes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Response;
use portico::plugin_api::services::OfflineServices;
use portico::plugin_api::{PluginServices, PluginState};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestRequest, chain_with};
use portico::plugin_kit::counting::EntryBudget;
use portico::plugins::REGISTRY;
use portico::plugins::proxy_cache::store::CacheStore;
use serde_json::{Value, json};
use stats_alloc::Region;

use crate::ALLOCATOR;

const RESPONSES: usize = 2_000;
const BODY: usize = 1_000;
/// The header of a usual response.
const FIELDS: [(&str, &str); 5] = [
    ("content-type", "application/json"),
    ("cache-control", "public, max-age=3600"),
    ("etag", "\"5f3e-6029c8a9\""),
    ("last-modified", "Fri, 27 Nov 2026 10:00:00 GMT"),
    ("date", "Sat, 28 Nov 2026 10:00:00 GMT"),
];
const MAX_BYTES_PER_RESPONSE: usize = 512;

/// How many identifiers are counted. `LIMIT_KEYS=1000000` counts a million, which takes minutes.
fn limit_keys() -> usize {
    std::env::var("LIMIT_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(20_000)
}

const MAX_BYTES_PER_KEY: usize = 250;

/// Returns the measured bytes as text.
pub(crate) fn check() -> String {
    let (stored, estimated) = bytes_per_response();
    assert!(stored <= MAX_BYTES_PER_RESPONSE, "{stored} bytes per stored response beyond its fields and its body");
    assert!(stored <= estimated, "{stored} bytes are more than the {estimated} that the limit of caches counts");
    let (key, left) = bytes_per_limit_key();
    assert!(key <= MAX_BYTES_PER_KEY, "{key} bytes per identifier of a limit");
    assert!(left <= 2 * MAX_BYTES_PER_KEY, "identifiers of a limit do not leave: {left} bytes after six times as many");
    let keys = limit_keys();
    format!(
        "bytes per stored response beyond its fields and its body: {stored}, of which the limit counts {estimated}; \
         bytes per identifier of a limit: {key} with {keys}, and {left} when six times as many have come after them"
    )
}

fn run(chain: &Chain, request: TestRequest) {
    request.run(chain).now_or_never().expect("nothing waits");
}

fn chain_of(plugin: &str, config: Value, state: &PluginState) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    chain_with(&[(REGISTRY.find(plugin).unwrap(), config)], state, &services)
}

/// What a response takes, and what is counted for it.
fn bytes_per_response() -> (usize, usize) {
    let state = PluginState::default();
    let store = CacheStore::of(&state, 1 << 30);
    let chain = chain_of("proxy-cache", json!({"strategy": "memory", "mode": "rfc9111"}), &state);
    let request = |number: usize| {
        let mut request = TestRequest::get(&format!("/items/{number:08}"));
        request.now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_860_000);
        let builder = FIELDS.iter().fold(Response::builder(), |builder, (name, value)| builder.header(*name, *value));
        request.upstream_response = builder.body(()).unwrap();
        request.upstream_body = Bytes::from(vec![b'x'; BODY]);
        request
    };
    run(&chain, request(0));
    let counted = store.used();
    let region = Region::new(ALLOCATOR);
    (1..=RESPONSES).for_each(|number| run(&chain, request(number)));
    let change = region.change();
    assert!(store.used() > RESPONSES * BODY, "the responses are stored");
    let fields: usize = FIELDS.iter().map(|(name, value)| name.len() + value.len()).sum();
    let taken = (change.bytes_allocated - change.bytes_deallocated) / RESPONSES;
    (taken.saturating_sub(BODY + fields), counted - BODY - fields)
}

/// What each of many identifiers takes, and what all take that were seen in the end, by their number in a minute.
fn bytes_per_limit_key() -> (usize, usize) {
    let state = PluginState::default();
    // So many that none share counters, also while those of before are still there.
    let _budget = EntryBudget::of(&state, 4 * limit_keys());
    let chain = chain_of("rate-limiting", json!({"minute": 100, "policy": "local", "limit_by": "ip"}), &state);
    let keys = u32::try_from(limit_keys()).unwrap();
    let noon = TestRequest::get("/").now;
    let send = |first: u32, now: SystemTime| {
        for number in first..first + keys {
            let mut request = TestRequest::get("/");
            request.address = std::net::Ipv4Addr::from(number).into();
            request.now = now;
            run(&chain, request);
        }
    };
    send(1 << 30, noon);
    let region = Region::new(ALLOCATOR);
    send(1 << 24, noon);
    let bytes = |change: stats_alloc::Stats| change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let each = bytes(region.change()) / keys as usize;
    // Identifiers whose time has passed leave while others come, so there are never more than those of some minutes.
    for minutes in 1..=6 {
        send(minutes << 25, noon + Duration::from_secs(600) * minutes);
    }
    (each, bytes(region.change()) / keys as usize)
}
