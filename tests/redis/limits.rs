//! Tests of plugins with limits in Redis: counts are exact for all workers and replicas, on a server and in a cluster.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Response;
use portico::plugin_api::{PluginServices, PluginState};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestOutcome, TestRequest, chain_with};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use super::cluster::settings;
use super::server::{ClusterServers, RedisProcess};
use super::services::TestServices;
use crate::harness::polling::until;

/// One replica of Portico with this plugin.
pub(super) fn replica(plugin: &str, config: &Value, services: &Arc<TestServices>) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    let kind = REGISTRY.find(plugin).unwrap_or_else(|| panic!("there is no plugin {plugin}"));
    chain_with(&[(kind, config.clone())], &PluginState::default(), &services)
}

fn at_server(server: &RedisProcess) -> Value {
    json!({"host": "redis.shop", "port": server.port, "timeout": 60_000})
}

async fn send(chain: &Chain, now: SystemTime) -> TestOutcome {
    let mut request = TestRequest::get("/");
    request.now = now;
    request.run(chain).await
}

/// The requests of several tasks that are admitted, alternately sent to both replicas.
async fn admitted(replicas: &[Arc<Chain>; 2], requests: usize) -> usize {
    let now = SystemTime::now();
    let local = tokio::task::LocalSet::new();
    let tasks = (0..requests).map(|index| {
        let chain = Arc::clone(&replicas[index % 2]);
        local.spawn_local(async move { send(&chain, now).await.reply.is_none() })
    });
    let tasks: Vec<_> = tasks.collect();
    let outcomes = local.run_until(futures_util::future::join_all(tasks)).await;
    outcomes.into_iter().filter(|admitted| *admitted.as_ref().unwrap()).count()
}

// docs/kong-compatibility.md, 5.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_admit_exactly_the_limit() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    for window_type in ["fixed", "sliding"] {
        for disable_penalty in [true, false] {
            let config = json!({
                "limit": [25, 40], "window_size": [31_536_000, 50_000_000], "window_type": window_type,
                "identifier": "ip", "strategy": "redis", "sync_rate": 0, "redis": at_server(&server),
                "disable_penalty": disable_penalty, "namespace": format!("{window_type}-{disable_penalty}"),
            });
            let replicas = [(); 2].map(|()| replica("rate-limiting-advanced", &config, &services));
            assert_eq!(admitted(&replicas, 60).await, 25, "{window_type} {disable_penalty}");
            assert_eq!(admitted(&replicas, 10).await, 0, "{window_type} {disable_penalty}");
        }
    }
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None);
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn decisions_at_the_server_equal_those_in_memory() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    for disable_penalty in [true, false] {
        let config = json!({
            "limit": [3, 7], "window_size": [10, 60], "identifier": "ip", "disable_penalty": disable_penalty,
            "namespace": format!("n{disable_penalty}"),
        });
        let mut shared = config.clone();
        let at_server = json!({"strategy": "redis", "sync_rate": 0, "redis": at_server(&server)});
        shared.as_object_mut().unwrap().extend(at_server.as_object().unwrap().clone());
        let chains = [&config, &shared].map(|config| replica("rate-limiting-advanced", config, &services));
        // The keys at the server must not expire during the test.
        let start = SystemTime::now();
        for (step, ms) in (0..160).map(|step| (step, step * 617)) {
            let now = start + Duration::from_millis(ms);
            let [in_memory, at_server] = [send(&chains[0], now).await, send(&chains[1], now).await];
            let describe = |outcome: &TestOutcome| {
                let headers = ["x-ratelimit-remaining-10", "x-ratelimit-remaining-minute", "ratelimit-reset"];
                let headers = headers.map(|name| outcome.response_header(name).map(str::to_owned));
                (outcome.reply.is_none(), headers, outcome.response_header("retry-after").map(str::to_owned))
            };
            assert_eq!(describe(&in_memory), describe(&at_server), "step {step}, {disable_penalty}");
        }
    }
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn replicas_synchronize_periodically() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let config = json!({
        "limit": [10], "window_size": [50_000_000], "identifier": "ip", "strategy": "redis", "sync_rate": 0.02,
        "redis": at_server(&server), "disable_penalty": true,
    });
    let replicas = [(); 2].map(|()| replica("rate-limiting-advanced", &config, &services));
    let send = async |index: usize| send(&replicas[index], SystemTime::now()).await.reply.is_none();
    for _ in 0..6 {
        assert!(send(0).await);
    }
    let sum = "local s=0 for _,k in ipairs(redis.call('KEYS','*')) do s=s+redis.call('GET',k) end return s";
    let sum_at_server = || server.redis_cli(&["--raw", "EVAL", sum, "0"]).trim().to_owned();
    until("the first replica is synchronized", async || sum_at_server() == "6").await;
    assert!(send(1).await, "the second replica does not know the requests of the first one yet");
    until("both are synchronized", async || sum_at_server() == "7").await;
    let mut sent = 7;
    while send(1).await {
        sent += 1;
        until("the request is synchronized", async || sum_at_server() == sent.to_string()).await;
    }
    // The reply to the first synchronization may arrive after the next request.
    assert!((10..=11).contains(&sent), "{sent}");
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn replicas_count_separately_while_the_server_is_away() {
    let mut server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let config = json!({
        "limit": [3], "window_size": [50_000_000], "identifier": "ip", "strategy": "redis", "sync_rate": 0,
        "redis": at_server(&server),
    });
    let chain = replica("rate-limiting-advanced", &config, &services);
    assert!(send(&chain, SystemTime::now()).await.reply.is_none());
    server.stop();
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += usize::from(send(&chain, SystemTime::now()).await.reply.is_none());
    }
    assert_eq!(admitted, 3, "the counts of this replica begin without those of the server");
    until("a diagnostic", async || services.diagnostic("KongPlugin/default/test").is_some()).await;
}

// docs/kong-compatibility.md, 5.2
// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn limits_are_exact_in_a_cluster() {
    let cluster = ClusterServers::start(3).await;
    let services = TestServices::resolving("redis.shop");
    let redis = settings(&cluster.nodes[0]);
    let advanced = json!({
        "limit": [9, 12], "window_size": [31_536_000, 50_000_000], "identifier": "header", "header_name": "x-client",
        "strategy": "redis", "sync_rate": 0, "redis": redis,
    });
    let plain = json!({
        "day": 9, "month": 12, "year": 13, "limit_by": "header", "header_name": "x-client", "policy": "redis",
        "redis": redis, "fault_tolerant": false,
    });
    let synced = json!({
        "year": 9, "limit_by": "header", "header_name": "x-client", "policy": "redis", "redis": redis,
        "fault_tolerant": false, "sync_rate": 0.02,
    });
    // The first second of 2026, so that no window ends during the test.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    for (plugin, config) in
        [("rate-limiting-advanced", &advanced), ("rate-limiting", &plain), ("rate-limiting", &synced)]
    {
        let chain = replica(plugin, config, &services);
        for client in 0..12 {
            let mut statuses = Vec::new();
            for _ in 0..11 {
                let mut request = TestRequest::get("/").header("x-client", &client.to_string());
                request.now = if plugin == "rate-limiting" { now } else { SystemTime::now() };
                statuses.push(request.run(&chain).await.reply_status().map_or(200, |status| status.as_u16()));
            }
            assert_eq!(statuses, [[200; 9].as_slice(), &[429; 2]].concat(), "{plugin} {client}");
        }
    }
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None);
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn replicas_share_what_responses_have_used() {
    let mut server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let config = json!({
        "limits": {"videos": {"year": 5}, "images": {"month": 2, "year": 9}}, "limit_by": "ip", "policy": "redis",
        "redis": at_server(&server),
    });
    let mut strict = config.clone();
    strict["fault_tolerant"] = json!(false);
    let replicas = [(); 2].map(|()| replica("response-ratelimiting", &config, &services));
    let send = async |chain: &Chain, reported: &str| {
        let mut request = TestRequest::get("/");
        request.now = SystemTime::now();
        request.upstream_response = Response::builder().header("x-kong-limit", reported).body(()).unwrap();
        let outcome = request.run(chain).await;
        let left = outcome.response_header("x-ratelimit-remaining-videos-year").map(str::to_owned);
        (outcome.response.status.as_u16(), left)
    };
    let left = |count: &str| Some(count.to_owned());
    assert_eq!(send(&replicas[0], "videos=2").await, (200, left("3")));
    assert_eq!(send(&replicas[1], "videos=9").await, (200, left("0")), "the endpoint has already done the work");
    assert_eq!(send(&replicas[0], "videos=1, images=1").await, (429, left("0")));
    assert_eq!(send(&replicas[1], "images=1").await, (200, left("0")));
    let strict = replica("response-ratelimiting", &strict, &services);
    server.stop();
    until("the server is away", async || send(&replicas[0], "images=1").await == (200, None)).await;
    until("the server is away", async || send(&strict, "images=1").await.0 == 500).await;
}

/// Both replicas count for one quota, and a replica that starts again goes on counting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_plans_share_quotas_that_survive_restarts() {
    let server = RedisProcess::start(&[]).await;
    let services = TestServices::resolving("redis.shop");
    let config = json!({
        "plans": [{"name": "free", "quotas": {"day": 25, "month": 1000}}],
        "policy": "redis", "redis": at_server(&server), "limit_by": "ip",
    });
    let replicas = [(); 2].map(|()| replica("usage-plan", &config, &services));
    let now = SystemTime::now();
    // At midnight UTC, a new day begins.
    let is_same_day = || seconds(now) / 86_400 == seconds(SystemTime::now()) / 86_400;
    let before = admitted(&replicas, 20).await;
    drop(replicas);
    let restarted = [(); 2].map(|()| replica("usage-plan", &config, &services));
    let after = admitted(&restarted, 20).await;
    let outcome = send(&restarted[0], SystemTime::now()).await;
    if is_same_day() {
        assert_eq!((before, after), (20, 5));
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(429));
        let remaining = outcome.response_header("ratelimit").unwrap();
        assert!(remaining.contains("\"day\";r=0;") && remaining.contains("\"month\";r=975;"), "{remaining}");
    }
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None);
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}
