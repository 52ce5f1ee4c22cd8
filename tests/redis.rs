//! Tests of rate-limiting with a real Redis server: several replicas, password, TLS, and restarts of the server. The
//! modules have tests of other plugins, of Sentinel and of clusters.

mod caches;
mod cluster;
mod exact;
mod limits;
mod sentinel;
pub(crate) mod server;
pub(crate) mod services;
mod sessions;
mod store;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portico::plugin_api::{PluginServices, PluginState};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestOutcome, TestRequest, chain_with};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::polling::until;
use server::RedisProcess;
use services::TestServices;

/// The timeout of commands, which no pause of a busy machine exceeds. Servers that are stopped close their connections.
const TIMEOUT_MS: u32 = 60_000;

/// One replica of Portico: the chain of one route with the plugin. Its state in memory is its own; what replicas share
/// is in Redis.
fn replica(config: &Value, services: &Arc<TestServices>) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    let kind = REGISTRY.find("rate-limiting").unwrap();
    chain_with(&[(kind, config.clone())], &PluginState::default(), &services)
}

/// A configuration with the address of a server and these fields.
fn config(server: &RedisProcess, fields: &Value) -> Value {
    config_with_port(server.port, fields)
}

fn config_with_port(port: u16, fields: &Value) -> Value {
    let mut config =
        json!({"year": 100, "policy": "redis", "redis": {"host": "redis.shop", "port": port, "timeout": TIMEOUT_MS}});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn send_request(chain: &Chain) -> TestOutcome {
    send_request_at(chain, SystemTime::now()).await
}

async fn send_request_at(chain: &Chain, now: SystemTime) -> TestOutcome {
    let mut request = TestRequest::get("/");
    request.now = now;
    request.run(chain).await
}

/// The remaining requests of the year according to the response.
async fn remaining(chain: &Chain) -> Option<u64> {
    send_request(chain).await.response_header("x-ratelimit-remaining-year").map(|count| count.parse().unwrap())
}

// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 7.21
#[tokio::test]
async fn replicas_share_counters_and_rejected_requests_are_not_counted() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let limits = config(&server, &json!({"year": 3}));
    let (first, second) = (replica(&limits, &services), replica(&limits, &services));
    assert_eq!(remaining(&first).await, Some(2));
    assert_eq!(remaining(&second).await, Some(1));
    assert_eq!(remaining(&first).await, Some(0));
    for chain in [&second, &first] {
        let outcome = send_request(chain).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(429));
        assert_eq!(outcome.response_header("x-ratelimit-remaining-year"), Some("0"));
        assert!(outcome.response_header("retry-after").is_some());
    }
    let keys = server.redis_cli(&["KEYS", "*"]);
    assert!(keys.contains("ratelimit:KongPlugin/default/test:HTTPRoute/default/test/0:192.0.2.1:"), "{keys}");
    assert!(keys.trim().ends_with(":year"), "{keys}");
    assert_eq!(server.redis_cli(&["GET", keys.trim()]).trim(), "3");
    let seconds: u64 = server.redis_cli(&["TTL", keys.trim()]).trim().parse().unwrap();
    assert!((1..=366 * 86_400 + 1).contains(&seconds), "{seconds}");
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None, "there is no diagnostic");
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn every_period_is_counted() {
    let server = RedisProcess::start(&[]).await;
    let every_period = json!({"second": 90, "minute": 91, "hour": 92, "day": 93, "month": 94, "year": 95});
    let chain = replica(&config(&server, &every_period), &TestServices::resolving("redis.shop"));
    // All periods begin at the first second of 2026, so that only the key of the second can expire during the test.
    let outcome = send_request_at(&chain, SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)).await;
    for (period, count) in [("second", 89), ("minute", 90), ("hour", 91), ("day", 92), ("month", 93), ("year", 94)] {
        let count = count.to_string();
        assert_eq!(outcome.response_header(&format!("x-ratelimit-remaining-{period}")), Some(count.as_str()));
    }
    let keys = server.redis_cli(&["DBSIZE"]);
    assert!(["5", "6"].contains(&keys.trim()), "the key of the second may have expired: {keys}");
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn request_beyond_one_limit_is_counted_in_no_period() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let chain = replica(&config(&server, &json!({"month": 2, "year": 10})), &services);
    let mut remaining_counts = Vec::new();
    for _ in 0..6 {
        let outcome = send_request(&chain).await;
        let remaining = |period| outcome.response_header(&format!("x-ratelimit-remaining-{period}")).map(str::to_owned);
        remaining_counts.push((outcome.reply.is_some(), remaining("month").unwrap(), remaining("year").unwrap()));
    }
    let accepted = [(false, "1", "9"), (false, "0", "8")];
    let expected = accepted.into_iter().chain([(true, "0", "8"); 4]);
    let expected: Vec<_> =
        expected.map(|(rejected, month, year)| (rejected, month.to_owned(), year.to_owned())).collect();
    assert_eq!(remaining_counts, expected);
    let year = server.redis_cli(&["KEYS", "*:year"]);
    assert_eq!(server.redis_cli(&["GET", year.trim()]).trim(), "2");
}

// docs/kong-compatibility.md, 4.25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_never_exceed_the_limit() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let chain = replica(&config(&server, &json!({"year": 25})), &services);
    let requests = (0..60).map(|_| send_request(&chain));
    let outcomes = futures_util::future::join_all(requests).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.reply.is_none()).count(), 25);
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn server_restarts_are_handled() {
    let mut server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let tolerant = replica(&config(&server, &json!({})), &services);
    let strict = replica(&config(&server, &json!({"fault_tolerant": false, "limit_by": "service"})), &services);
    assert_eq!(remaining(&tolerant).await, Some(99));
    assert_eq!(remaining(&strict).await, Some(99));

    server.stop();
    until("counting stops", async || remaining(&tolerant).await.is_none()).await;
    for _ in 0..20 {
        let outcome = send_request(&tolerant).await;
        assert!(outcome.reply.is_none() && outcome.response_header("ratelimit-limit").is_none());
        assert_eq!(send_request(&strict).await.reply_status().map(|status| status.as_u16()), Some(500));
    }
    until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
    let diagnostic = services.diagnostic("KongPlugin/default/test").unwrap();
    assert_eq!(diagnostic.field, "config.redis");
    assert!(diagnostic.message.contains("redis.shop"), "{diagnostic:?}");

    server.start_again().await;
    until("counting resumes", async || remaining(&tolerant).await.is_some()).await;
    until("counting resumes", async || send_request(&strict).await.reply_status().is_none()).await;
    until("the diagnostic is removed", async || services.diagnostic("KongPlugin/default/test").is_none()).await;
    assert_eq!(send_request(&tolerant).await.response_header("ratelimit-limit"), Some("100"));
}

#[tokio::test]
async fn servers_that_close_during_the_handshake_are_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config_with_port(listener.local_addr().unwrap().port(), &json!({}));
    let (handshakes, mut count) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            close_at_ping(connection).await;
            handshakes.send_modify(|count| *count += 1);
        }
    });
    let services = TestServices::resolving("redis.shop");
    // Each replica has a connection of its own, and opens it five times on average.
    let replicas: Vec<_> = (0..20).map(|_| replica(&config, &services)).collect();
    for chain in &replicas {
        assert!(send_request(chain).await.reply.is_none());
    }
    timeout(Duration::from_secs(30), count.wait_for(|count| *count >= 5 * replicas.len())).await.unwrap().unwrap();
}

#[tokio::test]
async fn replies_are_limited_while_they_arrive_and_error_texts_are_shortened() {
    let long_error = format!("-ERR {}\r\n", "x".repeat(30_000));
    // What the server sends after the first command, and then again and again.
    let cases: [(&str, &str, &str, &str); 4] = [
        ("an endless string", "$1000000000\r\n", "x", "sent a reply of more than 64 KiB"),
        ("an endless error", "-ERR ", "x", "sent a reply of more than 64 KiB"),
        ("a list without end", "*20000\r\n", ":1\r\n", "sent a reply of more than 64 KiB"),
        ("a long error for each command", &long_error, "", "rejected the connection"),
    ];
    for (what, first, further, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config_with_port(listener.local_addr().unwrap().port(), &json!({}));
        let (sent, mut total) = tokio::sync::watch::channel(None);
        let (first, further) = (first.to_owned(), further.repeat(16 * 1024));
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let (mut count, mut received) = (0, [0; 1024]);
            while let Ok(length @ 1..) = connection.read(&mut received).await {
                let commands = String::from_utf8_lossy(&received[..length]).matches('*').count();
                if connection.write_all(first.repeat(commands).as_bytes()).await.is_err() {
                    break;
                }
                while !further.is_empty() && connection.write_all(further.as_bytes()).await.is_ok() {
                    count += further.len();
                }
            }
            sent.send_replace(Some(count));
            // Later attempts to connect wait.
            std::future::pending::<()>().await;
        });
        let services = TestServices::resolving("redis.shop");
        let chain = replica(&config, &services);
        assert!(send_request(&chain).await.reply.is_none(), "{what}");
        // What was sent until Portico closed the connection fits into the buffers of the sockets.
        let total = *timeout(Duration::from_secs(60), total.wait_for(Option::is_some)).await.unwrap().unwrap();
        assert!(total.unwrap() < 64 << 20, "{what}: {total:?}");
        until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
        let message = services.diagnostic("KongPlugin/default/test").unwrap().message;
        assert!(message.contains(expected) && message.len() < 800, "{what}: {} bytes, {message}", message.len());
    }
}

/// Responds to the commands before PING, and closes the connection then.
async fn close_at_ping(mut connection: TcpStream) {
    let mut received = [0; 1024];
    loop {
        let length = connection.read(&mut received).await.unwrap();
        let commands = String::from_utf8_lossy(&received[..length]);
        if length == 0 || commands.contains("PING") {
            return;
        }
        let responses = "+OK\r\n".repeat(commands.matches('*').count());
        connection.write_all(responses.as_bytes()).await.unwrap();
    }
}

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn password_username_and_database_are_used() {
    let server =
        RedisProcess::start(&["--requirepass", "s3cret", "--user", "shop", "on", ">pass", "~*", "+@all"]).await;
    let services = TestServices::resolving("redis.shop");
    let with_redis = |fields: Value| {
        let mut redis = json!({"host": "redis.shop", "port": server.port, "timeout": TIMEOUT_MS});
        redis.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config(&server, &json!({"redis": redis}))
    };
    for (login, is_connected) in [
        (json!({"password": "s3cret"}), true),
        (json!({"password": "s3cret", "database": 3}), true),
        (json!({"username": "shop", "password": "pass"}), true),
        (json!({"password": "wrong"}), false),
        (json!({}), false),
    ] {
        let services = TestServices::resolving("redis.shop");
        let chain = replica(&with_redis(login.clone()), &services);
        assert_eq!(remaining(&chain).await.is_some(), is_connected, "{login}");
        if !is_connected {
            until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
            let diagnostic = services.diagnostic("KongPlugin/default/test").unwrap();
            assert!(!format!("{diagnostic:?}").contains("wrong"), "the diagnostic contains a secret: {diagnostic:?}");
        }
    }
    let deprecated_fields = config(
        &server,
        &json!({"redis": null, "redis_host": "redis.shop", "redis_port": server.port,
        "redis_password": "s3cret", "redis_database": 5, "redis_timeout": TIMEOUT_MS}),
    );
    assert_eq!(remaining(&replica(&deprecated_fields, &services)).await, Some(99));
    let database_size = |number: &'static str| ["-a", "s3cret", "--no-auth-warning", "-n", number, "DBSIZE"];
    assert_eq!(server.redis_cli(&database_size("3")).trim(), "1");
    assert_eq!(server.redis_cli(&database_size("5")).trim(), "1");
}

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn tls_and_verification_are_configurable() {
    let authority = server::Authority::new();
    let server = RedisProcess::start_with_tls(&authority, "redis.shop").await;
    let other = server::Authority::new();
    for (tls, trusted, is_connected) in [
        (json!({"ssl": true}), &other, true),
        (json!({"ssl": true, "ssl_verify": true}), &authority, true),
        (json!({"ssl": true, "ssl_verify": true}), &other, false),
        (json!({"ssl": true, "ssl_verify": true, "server_name": "redis.example"}), &authority, false),
        (json!({"ssl": true, "ssl_verify": true, "host": "127.0.0.1", "server_name": "redis.shop"}), &authority, true),
        (json!({}), &authority, false),
    ] {
        let services = TestServices::trusting("redis.shop", trusted);
        let mut redis = json!({"host": "redis.shop", "port": server.port, "timeout": TIMEOUT_MS});
        redis.as_object_mut().unwrap().extend(tls.as_object().unwrap().clone());
        let chain = replica(&config(&server, &json!({"redis": redis})), &services);
        assert_eq!(remaining(&chain).await.is_some(), is_connected, "{tls}");
    }
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn synchronized_replicas_see_each_other() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let limits = config(&server, &json!({"year": 50, "sync_rate": 0.02}));
    let (first, second) = (replica(&limits, &services), replica(&limits, &services));
    assert_eq!(remaining(&first).await, Some(49), "requests are counted locally first");
    for _ in 0..9 {
        remaining(&first).await;
    }
    let sum_script = "local s=0 for _,k in ipairs(redis.call('KEYS','*')) do s=s+redis.call('GET',k) end return s";
    let sum_at_server = || server.redis_cli(&["--raw", "EVAL", sum_script, "0"]).trim().to_owned();
    until("the first replica is synchronized", async || sum_at_server() == "10").await;
    assert_eq!(remaining(&second).await, Some(49), "the second replica is not synchronized yet");
    until("both replicas are synchronized", async || sum_at_server() == "11").await;
    // Each synchronization also returns the requests of the other replica.
    for sent_by_second in 2..5 {
        let left = remaining(&second).await;
        // At the second request, the response to the first synchronization may not have reached this replica.
        assert!(sent_by_second == 2 || left == Some(50 - 10 - sent_by_second), "{left:?} after {sent_by_second}");
        until("both replicas are synchronized", async || sum_at_server() == (10 + sent_by_second).to_string()).await;
    }
    // With `sync_rate`, unlike without it, rejected requests are not counted.
    until("the limit is reached", async || send_request(&second).await.reply.is_some()).await;
    for _ in 0..5 {
        assert!(send_request(&second).await.reply.is_some());
    }
    until("all requests are synchronized", async || sum_at_server() == "50").await;
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn failed_synchronizations_are_retried() {
    let mut server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let strict = json!({"sync_rate": 0.02, "fault_tolerant": false, "limit_by": "service"});
    let (first, second) = (
        replica(&config(&server, &json!({"sync_rate": 0.02})), &services),
        replica(&config(&server, &strict), &services),
    );
    assert_eq!((remaining(&first).await, remaining(&second).await), (Some(99), Some(99)));
    until("both counters exist", async || server.redis_cli(&["DBSIZE"]).trim() == "2").await;
    server.stop();
    assert_eq!(remaining(&first).await, Some(98), "counting continues locally");
    until("a rejection", async || send_request(&second).await.reply_status().is_some_and(|status| status == 500)).await;
    server.start_again().await;
    until("the counters are restored", async || server.redis_cli(&["DBSIZE"]).trim() == "2").await;
    until("requests are accepted", async || send_request(&second).await.reply.is_none()).await;
}
