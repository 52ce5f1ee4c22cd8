//! Stored responses of `proxy-cache-advanced` in Redis: shared by replicas, with variants, purges and outages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use portico::plugin_api::{PluginServices, PluginState, ReplyBody};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestOutcome, TestRequest, chain_with};
use portico::plugins::REGISTRY;
use portico::plugins::proxy_cache::store::{CacheStore, Purge};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::server::RedisProcess;
use super::services::TestServices;
use super::{TIMEOUT_MS, until};

struct Replica {
    chain: Arc<Chain>,
    store: Arc<CacheStore>,
}

fn replica(port: u16, fields: &Value, services: &Arc<TestServices>) -> Replica {
    replica_with(port, fields, services, &PluginState::default())
}

/// One of several plugins of a process.
fn replica_with(port: u16, fields: &Value, services: &Arc<TestServices>, state: &PluginState) -> Replica {
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    let mut config = json!({
        "strategy": "redis", "content_type": ["text/plain"],
        "redis": {"host": "redis.shop", "port": port, "timeout": TIMEOUT_MS},
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let chain = chain_with(&[(REGISTRY.find("proxy-cache-advanced").unwrap(), config)], state, &services);
    Replica { chain, store: CacheStore::of(state, 0) }
}

/// Sends a request to which the endpoint responds with these fields and this body.
async fn send(
    replica: &Replica,
    method: &str,
    request: &[(&'static str, &str)],
    response: &[(&str, &str)],
) -> TestOutcome {
    let mut test = TestRequest::get("/a");
    *test.request.method_mut() = method.parse().unwrap();
    test.now = SystemTime::now();
    for (name, value) in request {
        test = test.header(name, value);
    }
    let mut builder = Response::builder().header("content-type", "text/plain");
    for (name, value) in response {
        builder = builder.header(*name, *value);
    }
    test.upstream_response = builder.body(()).unwrap();
    test.upstream_body = Bytes::from_static(b"stored\nbody");
    test.run(&replica.chain).await
}

fn status(outcome: &TestOutcome) -> &str {
    outcome.response_header("x-cache-status").unwrap_or_default()
}

async fn until_stored(server: &RedisProcess, pattern: &str) {
    until("an entry in Redis", async || !server.redis_cli(&["KEYS", pattern]).trim().is_empty()).await;
}

#[tokio::test]
async fn replicas_share_responses_and_purges() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let [first, second] = [replica(server.port, &json!({}), &services), replica(server.port, &json!({}), &services)];
    assert_eq!(status(&send(&first, "GET", &[], &[("x-a", "b\u{e9}")]).await), "Miss");
    until_stored(&server, "*:e:*").await;
    let hit = send(&second, "GET", &[], &[]).await;
    assert_eq!(status(&hit), "Hit");
    assert!(hit.response.headers.contains_key("x-a") && hit.response_header("age").is_some());
    let reply = hit.reply.unwrap();
    assert!(matches!(&reply.body, ReplyBody::Raw(body) if **body == *b"stored\nbody"), "{:?}", reply.body);
    let keys = server.redis_cli(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with("portico:proxy-cache-advanced:default:")), "{keys}");
    second.store.purge(&Purge::All, None);
    until("the purge", async || count(&server, "*:n") == 0).await;
    assert_eq!(status(&send(&first, "GET", &[], &[]).await), "Miss");
}

/// A server without memory may delete any key, and one of them must not bring back what was purged.
#[tokio::test]
async fn evicted_keys_undo_no_purge() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let replica = replica(server.port, &json!({}), &services);
    let store = async || until("a hit", async || status(&send(&replica, "GET", &[], &[]).await) == "Hit").await;
    let keys = |pattern: &str| server.redis_cli(&["KEYS", pattern]).trim().to_owned();
    store().await;
    let [entry, target, namespace] = ["*:e:*", "*:t:*", "*:n"].map(keys);
    let left = |key: &str| server.redis_cli(&["PTTL", key]).trim().parse::<u64>().unwrap();
    assert!(left(&target) > left(&entry) && left(&namespace) > left(&entry), "they outlive the response");
    for evicted in [vec![&target], vec![&namespace], vec![&target, &namespace]] {
        for is_purged in [true, false] {
            if is_purged {
                replica.store.purge(&Purge::All, None);
                until("the purge", async || count(&server, "*:n") == 0).await;
            }
            for key in &evicted {
                server.redis_cli(&["DEL", key]);
            }
            assert_eq!(count(&server, "*:e:*"), 1, "the response is still at the server");
            assert_eq!(status(&send(&replica, "GET", &[], &[]).await), "Miss", "{evicted:?} {is_purged}");
            store().await;
        }
    }
}

/// How many keys there are.
fn count(server: &RedisProcess, pattern: &str) -> usize {
    server.redis_cli(&["KEYS", pattern]).split_whitespace().count()
}

#[tokio::test]
async fn variants_have_entries_of_their_own() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let replica = replica(server.port, &json!({}), &services);
    let vary = [("vary", "accept-language")];
    for language in ["de", "en"] {
        assert_eq!(status(&send(&replica, "GET", &[("accept-language", language)], &vary).await), "Miss");
        until("the variant", async || {
            status(&send(&replica, "GET", &[("accept-language", language)], &vary).await) == "Hit"
        })
        .await;
    }
    assert_eq!(status(&send(&replica, "GET", &[("accept-language", "de")], &vary).await), "Hit");
}

#[tokio::test]
async fn unsafe_requests_end_what_is_stored_for_their_target() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    // The default of the field, which is refused if it has another value.
    let fields = json!({"mode": "rfc9111", "content_type": ["text/plain", "application/json"]});
    let replica = replica(server.port, &fields, &services);
    until("a hit", async || is_hit(&replica).await).await;
    send(&replica, "DELETE", &[], &[]).await;
    until("the end of the response", async || !is_hit(&replica).await).await;
}

async fn is_hit(replica: &Replica) -> bool {
    let outcome = send(replica, "GET", &[], &[("cache-control", "max-age=60")]).await;
    outcome.response_header("cache-status").is_some_and(|status| status.contains("; hit"))
}

#[tokio::test]
async fn outage_is_bypassed_only_if_configured() {
    let services = TestServices::resolving("redis.shop");
    let server = RedisProcess::start(&[]).await;
    let port = server.port;
    drop(server);
    for (bypasses, expected) in [(true, None), (false, Some(500))] {
        let fields = json!({
            "bypass_on_err": bypasses, "redis": {"host": "redis.shop", "port": port, "timeout": 1000},
        });
        let replica = replica(port, &fields, &services);
        let outcome = tokio::time::timeout(Duration::from_secs(30), send(&replica, "GET", &[], &[])).await.unwrap();
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{bypasses}");
        assert_eq!(status(&outcome), if bypasses { "Bypass" } else { "" });
    }
}

/// What 304 confirms is stored before other requests look for it.
#[tokio::test]
async fn requests_that_wait_for_a_validation_get_what_it_has_stored() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let fields = json!({"mode": "rfc9111", "content_type": ["text/plain", "application/json"]});
    let replica = replica(server.port, &fields, &services);
    send(&replica, "GET", &[], &[("cache-control", "max-age=0"), ("etag", "\"1\"")]).await;
    until_stored(&server, "*:e:*").await;
    let validate = || async {
        let mut test = TestRequest::get("/a");
        test.now = SystemTime::now();
        test.upstream_response = Response::builder()
            .status(304)
            .header("cache-control", "max-age=60")
            .header("etag", "\"1\"")
            .body(())
            .unwrap();
        test.upstream_body = Bytes::new();
        let outcome = test.run(&replica.chain).await;
        outcome.response_header("cache-status").unwrap_or_default().to_owned()
    };
    let statuses: Vec<String> = futures_util::future::join_all((0..5).map(|_| validate())).await;
    let hits = statuses.iter().filter(|status| status.contains("; hit")).count();
    assert_eq!(hits, 4, "one request validates, and the others wait until its result is stored: {statuses:?}");
    assert!(statuses.iter().any(|status| status.contains("fwd-status=304")), "{statuses:?}");
}

/// A server that accepts connections and commands, and never sends a value.
async fn hanging_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut received = [0; 4096];
                while let Ok(length @ 1..) = connection.read(&mut received).await {
                    let commands = String::from_utf8_lossy(&received[..length]).into_owned();
                    let is_value = commands.contains("GET\r\n") || commands.contains("SET\r\n");
                    let reply = if is_value { String::new() } else { "+OK\r\n".repeat(commands.matches('*').count()) };
                    if connection.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn server_that_hangs_leaves_calls_to_others_of_the_namespace() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    // Both plugins are of one process and one namespace.
    let state = PluginState::default();
    let fields = |port: u16| json!({"bypass_on_err": true, "redis": {"host": "redis.shop", "port": port, "timeout": TIMEOUT_MS}});
    let port = hanging_server().await;
    let hanging = replica_with(port, &fields(port), &services, &state);
    let working = replica_with(server.port, &fields(server.port), &services, &state);
    assert_eq!(status(&send(&working, "GET", &[], &[]).await), "Miss");
    until_stored(&server, "*:e:*").await;
    let hung = futures_util::future::join_all((0..100).map(|_| send(&hanging, "GET", &[], &[])));
    let others = async {
        // As soon as the calls of the other one wait.
        tokio::task::yield_now().await;
        for _ in 0..20 {
            assert_eq!(status(&send(&working, "GET", &[], &[]).await), "Hit");
        }
    };
    // The requests to the server that hangs are still waiting when the others have their responses.
    tokio::select! {
        biased;
        _ = hung => panic!("the server has responded"),
        () = others => {}
    }
}

/// A server without memory stores nothing, and requests go to the endpoint.
#[tokio::test]
async fn full_servers_store_nothing() {
    let server = RedisProcess::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let services = TestServices::resolving("redis.shop");
    let replica = replica(server.port, &json!({}), &services);
    for _ in 0..3 {
        let outcome = send(&replica, "GET", &[], &[]).await;
        assert_eq!((outcome.reply.is_none(), status(&outcome)), (true, "Miss"));
    }
    until("a report", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
    let message = services.diagnostic("KongPlugin/default/test").unwrap().message;
    assert!(message.contains("OOM"), "{message}");
}

/// What another program has written at a key of the cache is not sent to clients.
#[tokio::test]
async fn nonsense_at_a_key_is_not_a_response() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let replica = replica(server.port, &json!({}), &services);
    assert_eq!(status(&send(&replica, "GET", &[], &[]).await), "Miss");
    until_stored(&server, "*:e:*").await;
    let key = server.redis_cli(&["KEYS", "*:e:*"]).trim().to_owned();
    for nonsense in ["", "{}", "{\"response\": {}}\nbody", "\u{1}\u{2}", "HTTP/1.1 200 OK"] {
        server.redis_cli(&["SET", &key, nonsense]);
        let outcome = send(&replica, "GET", &[], &[]).await;
        assert_eq!((outcome.reply.is_none(), status(&outcome)), (true, "Miss"), "{nonsense}");
        // The request has stored its response in place of it.
        until("the entry", async || status(&send(&replica, "GET", &[], &[]).await) == "Hit").await;
    }
}

/// A guard comes first, whatever the server has stored.
#[tokio::test]
async fn denied_requests_get_nothing_from_the_server() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let open = replica(server.port, &json!({}), &services);
    send(&open, "GET", &[], &[]).await;
    until_stored(&server, "*:e:*").await;
    assert_eq!(status(&send(&open, "GET", &[], &[]).await), "Hit");
    let cache = json!({
        "strategy": "redis", "content_type": ["text/plain"],
        "redis": {"host": "redis.shop", "port": server.port, "timeout": TIMEOUT_MS},
    });
    let find = |name: &str| REGISTRY.find(name).unwrap();
    for plugins in [
        [(find("key-auth"), json!({})), (find("proxy-cache-advanced"), cache.clone())],
        [(find("proxy-cache-advanced"), cache), (find("ip-restriction"), json!({"allow": ["198.51.100.1"]}))],
    ] {
        let state = PluginState::default();
        let services: Arc<dyn PluginServices> = Arc::clone(&services) as _;
        let guarded = Replica { chain: chain_with(&plugins, &state, &services), store: CacheStore::of(&state, 0) };
        let outcome = send(&guarded, "GET", &[], &[]).await;
        assert!([401, 403].contains(&outcome.reply_status().unwrap().as_u16()));
        assert_eq!(status(&outcome), "");
    }
}

#[tokio::test]
async fn replicas_share_responses_to_graphql_queries() {
    let server = RedisProcess::start(&[]).await;
    let services: Arc<dyn PluginServices> = TestServices::resolving("redis.shop");
    let config = json!({
        "strategy": "redis", "redis": {"host": "redis.shop", "port": server.port, "timeout": TIMEOUT_MS},
    });
    let kind = REGISTRY.find("graphql-proxy-cache-advanced").unwrap();
    let [first, second] = [(); 2].map(|()| chain_with(&[(kind, config.clone())], &PluginState::default(), &services));
    let ask = async |chain: &Chain, query: &str| {
        let body = json!({"query": query}).to_string();
        let length = body.len().to_string();
        let mut test = TestRequest::post("/graphql", "application/json", body).header("content-length", &length);
        test.now = SystemTime::now();
        test.upstream_response = Response::builder().header("content-type", "application/json").body(()).unwrap();
        test.upstream_body = Bytes::from_static(b"{\"data\": {}}");
        status(&test.run(chain).await).to_owned()
    };
    assert_eq!(ask(&first, "{ a }").await, "Miss");
    until_stored(&server, "portico:graphql-proxy-cache-advanced:default:e:*").await;
    assert_eq!(ask(&second, "{a}").await, "Hit");
    assert_eq!(ask(&second, "{ b }").await, "Miss");
}
